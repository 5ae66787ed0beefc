//! Classes of behaviour that a reading can show, each with its ATT&CK technique.
//!
//! An indicator is evidence, never a verdict: its weight comes from the
//! calibration. Each looks at what commands do to which objects, not at whole
//! strings, so that renaming a host or a file does not change it.

use super::{Command, Reading, is_interpreter, is_shell};

/// A class of behaviour.
pub(crate) struct Indicator {
    /// Stable name; the calibration file uses it.
    pub(crate) name: &'static str,
    /// ATT&CK technique id.
    pub(crate) technique: &'static str,
    /// What it says, as evidence.
    pub(crate) summary: &'static str,
    shows: fn(&Reading, &[&str]) -> bool,
}

/// The indicators that a reading shows, in the order of [`INDICATORS`].
/// `parents` are the names of the ancestors, nearest first.
pub(crate) fn found_in(reading: &Reading, parents: &[&str]) -> Vec<bool> {
    INDICATORS
        .iter()
        .map(|indicator| (indicator.shows)(reading, parents))
        .collect()
}

/// All indicators.
pub(crate) const INDICATORS: &[Indicator] = &[
    Indicator {
        name: "socket_shell",
        technique: "T1059.004",
        summary: "a shell or interpreter is tied to a network socket",
        shows: socket_shell,
    },
    Indicator {
        name: "download_to_interpreter",
        technique: "T1105",
        summary: "downloaded text goes straight into an interpreter",
        shows: |reading, _| feeds_interpreter(reading, is_downloader),
    },
    Indicator {
        name: "decode_to_interpreter",
        technique: "T1027",
        summary: "decoded text goes straight into an interpreter",
        shows: |reading, _| {
            feeds_interpreter(reading, is_decoder)
                || reading.says(&[
                    "exec(base64",
                    "exec(__import__('base64",
                    "eval(base64",
                    "eval(atob",
                    "exec(zlib",
                    "exec(codecs",
                    "eval(gzinflate",
                ])
        },
    },
    Indicator {
        name: "hidden_text",
        technique: "T1140",
        summary: "an argument holds encoded commands",
        shows: |reading, _| reading.decoded,
    },
    Indicator {
        name: "secret_read",
        technique: "T1552.001",
        summary: "a file of credentials is read",
        shows: |reading, _| reading.commands.iter().any(reads_secret),
    },
    Indicator {
        name: "secret_and_network",
        technique: "T1048",
        summary: "credentials are read and sent in one command line",
        shows: |reading, _| {
            let touches =
                |c: &Command| c.words.iter().any(|w| is_secret(w)) || redirects_to(c, is_secret);
            reading.commands.iter().any(touches)
                && reading
                    .commands
                    .iter()
                    .any(|c| is_network_tool(c) && !only_loopback(c))
        },
    },
    Indicator {
        name: "persistence_write",
        technique: "T1053.003",
        summary: "a place from which programs start by themselves is written",
        shows: |reading, _| reading.commands.iter().any(writes_persistence),
    },
    Indicator {
        name: "temporary_program",
        technique: "T1059.004",
        summary: "a program in a temporary or hidden place is made executable or run",
        shows: |reading, _| reading.commands.iter().any(runs_temporary),
    },
    Indicator {
        name: "privilege",
        technique: "T1548.001",
        summary: "set-id bits, capabilities or sudo rules are changed",
        shows: |reading, _| {
            reading.commands.iter().any(raises_privilege)
                || reading.says(&["nopasswd:all", "nopasswd: all"])
        },
    },
    Indicator {
        name: "container_escape",
        technique: "T1611",
        summary: "the host is reached from a container",
        shows: |reading, _| {
            reading.says(&[
                "release_agent",
                "core_pattern",
                "docker.sock",
                "/proc/1/root",
                "--pid=host",
                "--privileged",
            ]) || reading.commands.iter().any(enters_host)
        },
    },
    Indicator {
        name: "evasion",
        technique: "T1562.001",
        summary: "logging, history, firewall or monitoring is switched off or wiped",
        shows: |reading, _| {
            reading.commands.iter().any(evades)
                || reading.says(&[
                    "unset histfile",
                    "histfile=/dev/null",
                    "histsize=0",
                    "histcontrol=ignore",
                ])
        },
    },
    Indicator {
        name: "shell_from_tool",
        technique: "T1059.004",
        summary: "a tool that is no shell is made to start one",
        shows: |reading, _| shell_from_tool(reading),
    },
    Indicator {
        name: "preload",
        technique: "T1574.006",
        summary: "a library is forced into other programs",
        shows: |reading, _| {
            reading.says(&["/etc/ld.so.preload"])
                || reading.commands.iter().any(|c| {
                    c.words.iter().any(|w| {
                        w.strip_prefix("LD_PRELOAD=")
                            .is_some_and(|lib| is_temporary(lib) || lib.starts_with("./"))
                    })
                })
        },
    },
    Indicator {
        name: "discovery",
        technique: "T1082",
        summary: "several questions about the machine and its users at once",
        shows: |reading, _| discovery(reading),
    },
    Indicator {
        name: "cloud_metadata",
        technique: "T1552.005",
        summary: "the cloud's credential service is asked",
        shows: |reading, _| {
            reading.says(&[
                "169.254.169.254",
                "169.254.170.2",
                "metadata.google.internal",
                "100.100.100.200",
            ])
        },
    },
    Indicator {
        name: "hostile_tool",
        technique: "T1588.002",
        summary: "a scanner, miner, cracker or tunnel is used",
        shows: |reading, _| {
            reading.commands.iter().any(is_hostile_tool)
                || reading.says(&[
                    "stratum+tcp",
                    "linpeas",
                    "linenum",
                    "lazagne",
                    "meterpreter",
                    "msfvenom",
                    "--donate-level",
                ])
        },
    },
    Indicator {
        name: "raw_address",
        technique: "T1071.001",
        summary: "a network tool talks to a bare public address",
        shows: |reading, _| {
            reading
                .commands
                .iter()
                .any(|c| is_network_tool(c) && c.words.iter().any(|w| has_public_address(w)))
        },
    },
    Indicator {
        name: "service_shell",
        technique: "T1505.003",
        summary: "a network service starts a shell or an administration tool",
        shows: service_shell,
    },
    Indicator {
        name: "destruction",
        technique: "T1485",
        summary: "data or disks are destroyed",
        shows: |reading, _| reading.commands.iter().any(destroys),
    },
    Indicator {
        name: "account_change",
        technique: "T1136.001",
        summary: "accounts or passwords are changed",
        shows: |reading, _| reading.commands.iter().any(changes_account),
    },
    Indicator {
        name: "upload",
        technique: "T1048.003",
        summary: "a file or command output is sent to another machine",
        shows: |reading, _| uploads(reading),
    },
    Indicator {
        name: "listener",
        technique: "T1571",
        summary: "a port is opened or forwarded by hand",
        shows: |reading, _| reading.commands.iter().any(listens),
    },
    Indicator {
        name: "kernel_change",
        technique: "T1547.006",
        summary: "kernel modules or settings are changed",
        shows: |reading, _| {
            reading.commands.iter().any(|c| {
                matches!(c.name(), "insmod" | "kmod" | "rmmod")
                    || (c.name() == "modprobe" && c.has_flag('r'))
            })
        },
    },
    Indicator {
        name: "capture",
        technique: "T1040",
        summary: "traffic, keys or another process's memory are recorded",
        shows: |reading, _| {
            reading.says(&["/proc/kcore", "/dev/mem"]) || reading.commands.iter().any(captures)
        },
    },
];

fn socket_shell(reading: &Reading, _: &[&str]) -> bool {
    let redirected = reading.commands.iter().any(|c| {
        redirects_to(c, |target| {
            target.starts_with("/dev/tcp/") || target.starts_with("/dev/udp/")
        })
    });
    let by_tool = reading.commands.iter().any(|c| match c.name() {
        "nc" | "ncat" | "netcat" | "nc.traditional" => {
            (c.has_flag('e') || c.has_flag('c') || c.has_argument(&["--exec", "--sh-exec"]))
                && c.words
                    .iter()
                    .any(|w| w.contains("sh") || w.contains("exec"))
        }
        "socat" => c.words.iter().any(|w| {
            let w = w.to_lowercase();
            w.contains("exec:") || w.contains("system:")
        }),
        "telnet" | "openssl" => reading.says(&["mkfifo", "mknod"]),
        _ => false,
    });
    let by_fifo = reading.says(&["mkfifo", "mknod", "/tmp/f"])
        && reading.commands.iter().any(|c| {
            is_network_tool(c)
                && matches!(c.name(), "nc" | "ncat" | "netcat" | "telnet" | "openssl")
        })
        && reading.commands.iter().any(|c| is_shell(c.name()));
    let by_code = reading.says(&[
        "socket",
        "tcpsocket",
        "fsockopen",
        "net.connect",
        "io::socket",
        "tcp(",
    ]) && reading.says(&[
        "dup2",
        "/bin/sh",
        "/bin/bash",
        "pty.spawn",
        "subprocess",
        "popen",
        "exec(",
        "exec \"",
        "child_process",
    ]);
    let in_text =
        reading.says(&["/dev/tcp/", "/dev/udp/"]) && reading.says(&["0>&1", "<&", ">&", "exec "]);
    redirected || by_tool || by_fifo || by_code || in_text
}

/// Whether output of a command that `source` names reaches an interpreter that
/// would run it.
fn feeds_interpreter(reading: &Reading, source: fn(&Command) -> bool) -> bool {
    reading.commands.iter().enumerate().any(|(idx, command)| {
        if !source(command) {
            return false;
        }
        let piped = reading.commands[idx + 1..]
            .iter()
            .any(|later| later.pipeline == command.pipeline && runs_its_input(later));
        // `sh -c "$(…)"`, `eval $(…)`, `bash <(…)`, or a pipeline's earlier part.
        let fed = reading
            .commands
            .iter()
            .filter(|other| other.pipeline == command.pipeline)
            .any(|other| other.feeds.as_deref().is_some_and(is_interpreter));
        piped || fed
    })
}

fn runs_its_input(command: &Command) -> bool {
    is_interpreter(command.name())
        && command.arguments().iter().all(|arg| {
            arg.starts_with('-') && !matches!(arg.as_str(), "-c" | "-e" | "-m" | "-n" | "-r")
        })
}

fn is_downloader(command: &Command) -> bool {
    matches!(
        command.name(),
        "curl" | "wget" | "fetch" | "aria2c" | "lwp-download" | "http"
    ) && !only_loopback(command)
}

fn is_decoder(command: &Command) -> bool {
    let decodes = command.has_flag('d')
        || command.has_flag('D')
        || command.has_argument(&["--decode", "enc"]);
    match command.name() {
        "base64" | "base32" | "openssl" | "gpg" => decodes,
        "xxd" => command.has_flag('r'),
        "rev" | "uudecode" => true,
        _ => false,
    }
}

fn is_secret(word: &str) -> bool {
    const SECRETS: &[&str] = &[
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/sudoers",
        ".ssh/id_",
        ".aws/credentials",
        ".kube/config",
        ".docker/config.json",
        ".netrc",
        ".pgpass",
        ".my.cnf",
        ".git-credentials",
        ".gnupg",
        "/.config/gcloud",
        ".azure/",
        "serviceaccount/token",
        "/etc/kubernetes/",
        ".mozilla/firefox",
        "login data",
        "keyrings",
        "/etc/ssl/private",
        "wp-config.php",
        ".vault-token",
        "id_rsa",
        "id_ed25519",
        "/environ",
        ".bash_history",
        "passwords.txt",
        "secrets.",
        "credentials",
        "/etc/krb5.keytab",
        ".npmrc",
        ".pypirc",
        "/run/secrets",
    ];
    let word = word.to_lowercase();
    !word.ends_with(".pub") && SECRETS.iter().any(|secret| word.contains(secret))
}

fn reads_secret(command: &Command) -> bool {
    const READERS: &[&str] = &[
        "cat", "head", "tail", "less", "more", "tac", "nl", "cp", "scp", "rsync", "tar", "zip",
        "base64", "xxd", "od", "strings", "awk", "gawk", "mawk", "sed", "grep", "egrep", "dd",
        "curl", "wget", "nc", "cut", "rev", "sort", "openssl", "install", "7z", "find", "unshadow",
        "john", "diff", "paste", "xargs", "tee", "mv", "hexdump",
    ];
    let reads = READERS.contains(&command.name()) || is_interpreter(command.name());
    (reads && command.arguments().iter().any(|word| is_secret(word)))
        || command
            .redirects
            .iter()
            .any(|r| !r.writes && is_secret(&r.target))
}

fn is_network_tool(command: &Command) -> bool {
    matches!(
        command.name(),
        "curl"
            | "wget"
            | "nc"
            | "ncat"
            | "netcat"
            | "socat"
            | "scp"
            | "sftp"
            | "ftp"
            | "tftp"
            | "rsync"
            | "ssh"
            | "telnet"
            | "openssl"
            | "dig"
            | "nslookup"
            | "host"
            | "fetch"
            | "sendmail"
            | "mail"
            | "mutt"
            | "nc.traditional"
            | "aws"
            | "gsutil"
            | "rclone"
            | "s3cmd"
            | "whois"
            | "finger"
    ) || redirects_to(command, |target| target.starts_with("/dev/tcp/"))
}

fn only_loopback(command: &Command) -> bool {
    let hosts: Vec<&String> = command
        .arguments()
        .iter()
        .filter(|arg| {
            !arg.starts_with('-')
                && (arg.contains("://") || arg.contains('.') || arg.contains("localhost"))
        })
        .collect();
    !hosts.is_empty()
        && hosts.iter().any(|host| {
            host.contains("localhost") || host.contains("127.0.0.1") || host.contains("[::1]")
        })
        && !hosts.iter().any(|host| has_public_address(host))
}

fn redirects_to(command: &Command, matches: impl Fn(&str) -> bool) -> bool {
    command.redirects.iter().any(|r| matches(&r.target))
}

fn writes_persistence(command: &Command) -> bool {
    let is_place = |word: &str| {
        const PLACES: &[&str] = &[
            "/etc/cron",
            "/var/spool/cron",
            "/etc/rc.local",
            "/etc/init.d/",
            "/etc/profile",
            ".bashrc",
            ".bash_profile",
            ".zshrc",
            ".profile",
            "authorized_keys",
            "/etc/ld.so.preload",
            "/etc/sudoers",
            "/etc/passwd",
            "/etc/shadow",
            "/etc/pam.d/",
            "/etc/udev/rules.d",
            ".config/autostart",
            "/etc/systemd/system",
            "/lib/systemd/system",
            ".config/systemd/user",
            "/etc/update-motd.d",
            "/etc/xdg/autostart",
            "/etc/environment",
            "/etc/ssh/sshd_config",
            "/etc/modules-load.d",
            ".git/hooks",
        ];
        PLACES.iter().any(|place| word.contains(place))
    };
    let places = command
        .arguments()
        .iter()
        .filter(|word| is_place(word))
        .count();
    let writes_argument = match command.name() {
        "tee" | "install" | "chattr" | "touch" => places > 0,
        "cp" | "mv" | "ln" | "rsync" => command
            .arguments()
            .last()
            .is_some_and(|word| is_place(word)),
        "sed" | "perl" => command.has_flag('i') && places > 0,
        "dd" => command
            .arguments()
            .iter()
            .any(|word| word.starts_with("of=") && is_place(word)),
        _ => false,
    };
    let crontab =
        command.name() == "crontab" && !command.has_flag('l') && !command.arguments().is_empty();
    let schedules = matches!(command.name(), "at" | "batch")
        || (command.name() == "crontab" && command.arguments().is_empty());
    writes_argument
        || crontab
        || schedules
        || command
            .redirects
            .iter()
            .any(|r| r.writes && is_place(&r.target))
}

fn is_temporary(path: &str) -> bool {
    [
        "/tmp/",
        "/var/tmp/",
        "/dev/shm/",
        "/run/shm/",
        "/dev/mqueue/",
    ]
    .iter()
    .any(|place| path.starts_with(place))
}

fn is_hidden(path: &str) -> bool {
    path.split('/')
        .any(|part| part.len() > 1 && part.starts_with('.') && part != "..")
}

fn runs_temporary(command: &Command) -> bool {
    let program = command.program();
    if is_temporary(program)
        || (program.starts_with('/')
            && is_hidden(program)
            && !program.starts_with("/home/")
            && !program.starts_with("/root/"))
    {
        return true;
    }
    if is_interpreter(command.name()) {
        return command
            .arguments()
            .iter()
            .find(|arg| !arg.starts_with('-'))
            .is_some_and(|script| is_temporary(script) && !script.contains(' '));
    }
    command.name() == "chmod"
        && command.arguments().iter().any(|arg| is_temporary(arg))
        && command
            .arguments()
            .iter()
            .any(|mode| mode.contains('x') || mode.starts_with('7') || mode.starts_with("07"))
}

fn raises_privilege(command: &Command) -> bool {
    let args = command.arguments();
    match command.name() {
        "chmod" => args.iter().any(|mode| {
            let octal = mode.len() >= 4
                && mode.bytes().all(|b| b.is_ascii_digit())
                && matches!(
                    mode.trim_start_matches('0').as_bytes(),
                    [b'2' | b'4' | b'6', _, _, _]
                );
            octal || mode.contains("+s") || mode.contains("=s") || mode.contains("u=rws")
        }),
        "setcap" => args.iter().any(|arg| arg.contains("cap_")),
        "install" => args
            .windows(2)
            .any(|pair| pair[0] == "-m" && pair[1].starts_with('4')),
        "chown" => {
            args.iter().any(|arg| arg.starts_with("root"))
                && args.iter().any(|arg| is_temporary(arg))
        }
        "getcap" => command.has_flag('r'),
        "find" => args.iter().any(|arg| {
            arg.contains("4000")
                || arg.contains("u=s")
                || arg.contains("6000")
                || arg.contains("g=s")
        }),
        "visudo" => false,
        _ => false,
    }
}

fn enters_host(command: &Command) -> bool {
    let args = command.arguments();
    match command.name() {
        "nsenter" => {
            args.windows(2)
                .any(|pair| matches!(pair[0].as_str(), "-t" | "--target") && pair[1] == "1")
                || command.has_argument(&["-t1", "--target=1"])
        }
        "docker" | "podman" | "nerdctl" | "ctr" => args
            .iter()
            .any(|arg| arg.starts_with("/:/") || arg.contains("src=/,")),
        "chroot" => args
            .iter()
            .any(|arg| arg.starts_with("/host") || arg.starts_with("/mnt")),
        "mount" => {
            args.iter().any(|arg| {
                arg.starts_with("/dev/sd")
                    || arg.starts_with("/dev/vd")
                    || arg.starts_with("/dev/nvme")
            }) || command.has_argument(&["cgroup"])
        }
        "unshare" => {
            command.has_flag('r')
                || command.has_flag('U')
                || command.has_argument(&["--map-root-user"])
        }
        "debugfs" => true,
        _ => false,
    }
}

fn evades(command: &Command) -> bool {
    let args = command.arguments();
    let is_log = |word: &str| {
        word.contains("/var/log")
            || word.contains(".bash_history")
            || word.contains("/run/log/journal")
    };
    let guard = |word: &str| {
        [
            "auditd",
            "falco",
            "rsyslog",
            "syslog",
            "ufw",
            "firewalld",
            "apparmor",
            "clamav",
            "osquery",
            "crowdsec",
            "fail2ban",
            "selinux",
            "tetragon",
            "iptables",
            "nftables",
            "wazuh",
            "sysmon",
        ]
        .iter()
        .any(|name| word.contains(name))
    };
    let by_tool = match command.name() {
        "history" => command.has_flag('c') || command.has_flag('w'),
        "setenforce" => command.has_argument(&["0", "Permissive", "permissive"]),
        "iptables" | "ip6tables" | "nft" => {
            command.has_flag('F')
                || command.has_flag('X')
                || command.has_argument(&["flush", "--flush"])
                || args
                    .windows(2)
                    .any(|pair| pair[0] == "-P" && pair.len() > 1)
        }
        "ufw" => command.has_argument(&["disable", "reset"]),
        "systemctl" | "service" | "rc-service" | "update-rc.d" => {
            args.iter()
                .any(|word| matches!(word.as_str(), "stop" | "disable" | "mask" | "kill"))
                && args.iter().any(|word| guard(word))
        }
        "pkill" | "killall" | "kill" => args.iter().any(|word| guard(word)),
        "auditctl" => command.has_flag('D') || command.has_argument(&["-e0", "0"]),
        "rm" | "shred" | "truncate" | "unlink" => args.iter().any(|word| is_log(word)),
        "journalctl" => args
            .iter()
            .any(|word| word.starts_with("--vacuum") || word == "--rotate"),
        "chattr" => args
            .iter()
            .any(|word| word.contains("+i") || word.contains("-i")),
        "touch" => command.has_flag('r') || command.has_flag('t'),
        "sysctl" => args.iter().any(|word| {
            word.contains("randomize_va_space")
                || word.contains("ptrace_scope")
                || word.contains("dmesg_restrict")
        }),
        "dmesg" => command.has_flag('C') || command.has_flag('c'),
        "ln" => args.iter().any(|word| word == "/dev/null") && args.iter().any(|word| is_log(word)),
        "apt" | "apt-get" | "yum" | "dnf" => {
            args.iter()
                .any(|word| matches!(word.as_str(), "remove" | "purge" | "erase"))
                && args.iter().any(|word| guard(word))
        }
        _ => false,
    };
    by_tool
        || (command
            .redirects
            .iter()
            .any(|r| r.writes && is_log(&r.target))
            && matches!(
                command.name(),
                "" | ":" | "true" | "echo" | "cat" | "printf"
            ))
}

fn shell_from_tool(reading: &Reading) -> bool {
    let starts_shell = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '/');
        ["/bin/sh", "/bin/bash", "/bin/dash", "/bin/zsh"]
            .iter()
            .any(|shell| word.contains(shell))
            || is_shell(word)
    };
    reading.commands.iter().any(|c| match c.name() {
        "find" => exec_target(c).is_some_and(starts_shell) && !exec_has_script(c),
        "tar" | "zip" | "rsync" | "ssh" | "scp" | "git" | "vim" | "vi" | "view" | "ed" | "man" | "less" | "more" | "awk" | "gawk" | "mawk" | "nawk" | "sed"
        | "gdb" | "expect" | "ionice" | "cpulimit" | "flock" | "start-stop-daemon" | "dmsetup" | "capsh" | "run-parts" | "split" | "make"
        | "tclsh" | "rlwrap" | "pexec" | "logsave" | "facter" | "irb" | "jrunscript" | "nmap" | "mysql" | "psql" | "sqlite3" | "tcpdump" => {
            c.arguments().iter().any(|word| {
                word.contains("/bin/sh") || word.contains("/bin/bash") || word.contains("system(") || word.contains("exec=sh")
                    || word.contains("ProxyCommand=;") || word.starts_with(":!") || is_shell(word)
            }) && !matches!(c.name(), "make" | "ssh" | "awk" if !c.words.iter().any(|w| w.contains("/bin/sh") || w.contains("/bin/bash") || w.contains("system(")))
        }
        "python" | "python3" | "python2" | "perl" | "ruby" | "node" | "php" | "lua" => c.arguments().iter().any(|word| {
            (word.contains("system(") || word.contains("exec") || word.contains("spawn") || word.contains("popen"))
                && (word.contains("/bin/sh") || word.contains("/bin/bash") || word.contains("\"sh\"") || word.contains("'sh'") || word.contains("bash -i"))
        }),
        _ => false,
    })
}

fn exec_target(command: &Command) -> Option<&str> {
    let args = command.arguments();
    let idx = args
        .iter()
        .position(|arg| matches!(arg.as_str(), "-exec" | "-execdir" | "-ok"))?;
    args.get(idx + 1).map(String::as_str)
}

/// `find … -exec sh -c '…'` is ordinary; `-exec /bin/sh \;` wants the shell itself.
fn exec_has_script(command: &Command) -> bool {
    crate::render::script_index(&command.words).is_some() || command.has_argument(&["-c"])
}

fn discovery(reading: &Reading) -> bool {
    const QUESTIONS: &[&str] = &[
        "id",
        "whoami",
        "uname",
        "hostname",
        "ifconfig",
        "ps",
        "netstat",
        "ss",
        "arp",
        "route",
        "w",
        "who",
        "last",
        "lsof",
        "env",
        "groups",
        "getent",
        "lscpu",
        "dmidecode",
        "lsmod",
        "mount",
        "lsblk",
        "ip",
        "printenv",
        "hostnamectl",
        "crontab",
        "sudo",
        "df",
        "history",
        "users",
        "lastlog",
        "finger",
    ];
    let mut asked: Vec<&str> = reading
        .commands
        .iter()
        .map(Command::name)
        .filter(|name| QUESTIONS.contains(name))
        .collect();
    asked.sort_unstable();
    asked.dedup();
    let reads_users = reading.says(&["/etc/passwd", "/etc/group", "/etc/issue", "/etc/os-release"]);
    asked.len() + usize::from(reads_users) >= 3
}

fn is_hostile_tool(command: &Command) -> bool {
    let name = command.name();
    let name = name
        .strip_suffix(".py")
        .or_else(|| name.strip_suffix(".sh"))
        .unwrap_or(name);
    matches!(
        name,
        "nmap"
            | "masscan"
            | "zmap"
            | "rustscan"
            | "xmrig"
            | "minerd"
            | "cpuminer"
            | "ccminer"
            | "hydra"
            | "john"
            | "hashcat"
            | "medusa"
            | "chisel"
            | "ngrok"
            | "frpc"
            | "frps"
            | "gost"
            | "iodine"
            | "dnscat"
            | "dnscat2"
            | "gsocket"
            | "gs-netcat"
            | "cloudflared"
            | "mimipenguin"
            | "linpeas"
            | "pspy"
            | "pspy64"
            | "responder"
            | "sqlmap"
            | "nikto"
            | "gobuster"
            | "ffuf"
            | "msfconsole"
            | "msfvenom"
            | "kube-hunter"
            | "peirates"
            | "deepce"
            | "amicontained"
            | "crackmapexec"
            | "evil-winrm"
            | "kerbrute"
            | "arpspoof"
            | "ettercap"
            | "bettercap"
            | "tor"
            | "ligolo"
            | "proxychains"
            | "steghide"
            | "stress-ng"
            | "hping3"
            | "slowloris"
    )
}

/// Whether a word holds an IPv4 address that is neither loopback nor private.
fn has_public_address(word: &str) -> bool {
    word.split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .filter_map(|part| part.parse::<std::net::Ipv4Addr>().ok())
        .any(|address| {
            !(address.is_loopback()
                || address.is_private()
                || address.is_unspecified()
                || address.is_link_local()
                || address.is_broadcast())
        })
}

fn service_shell(reading: &Reading, parents: &[&str]) -> bool {
    let is_service = |name: &str| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
        matches!(
            stem,
            "nginx"
                | "apache"
                | "httpd"
                | "lighttpd"
                | "php-fpm"
                | "php-cgi"
                | "tomcat"
                | "mysqld"
                | "mariadbd"
                | "postgres"
                | "redis-server"
                | "mongod"
                | "vsftpd"
                | "proftpd"
                | "smbd"
                | "named"
                | "dnsmasq"
                | "exim"
                | "haproxy"
                | "caddy"
                | "w3wp"
                | "uwsgi"
                | "memcached"
                | "squid"
                | "elasticsearch"
                | "jetty"
                | "php-fpm7"
                | "php-fpm8"
        )
    };
    parents.iter().take(2).any(|name| is_service(name))
        && reading.commands.first().is_some_and(|c| {
            is_shell(c.name())
                || is_network_tool(c)
                || matches!(
                    c.name(),
                    "id" | "whoami"
                        | "uname"
                        | "cat"
                        | "ls"
                        | "python3"
                        | "python"
                        | "perl"
                        | "ps"
                        | "hostname"
                )
        })
}

fn destroys(command: &Command) -> bool {
    let args = command.arguments();
    match command.name() {
        "rm" => {
            (command.has_flag('r')
                || command.has_flag('R')
                || command.has_argument(&["--recursive"]))
                && args.iter().any(|word| {
                    matches!(
                        word.as_str(),
                        "/" | "/*"
                            | "/home"
                            | "/home/*"
                            | "/root"
                            | "/etc"
                            | "/var"
                            | "/usr"
                            | "/boot"
                            | "~"
                            | "/var/lib"
                            | "/var/www"
                            | "/opt"
                            | "/bin"
                            | "/srv"
                    ) || word == "--no-preserve-root"
                })
        }
        "dd" => args.iter().any(|word| {
            word.starts_with("of=/dev/")
                && !word.starts_with("of=/dev/null")
                && !word.starts_with("of=/dev/shm")
        }),
        "shred" | "wipe" | "srm" => true,
        "wipefs" | "blkdiscard" => !args.is_empty(),
        name if name.starts_with("mkfs") => args.iter().any(|word| word.starts_with("/dev/")),
        "openssl" => {
            args.first().is_some_and(|word| word == "enc")
                && command.has_flag('i')
                && !command.has_flag('d')
                && command.has_argument(&["-out", "-e"])
        }
        ":(){" | ":()" => true,
        _ => false,
    }
}

fn changes_account(command: &Command) -> bool {
    match command.name() {
        "useradd" | "adduser" | "chpasswd" | "newusers" => {
            !command.has_argument(&["--system", "-r", "--help"])
        }
        "usermod" | "gpasswd" => {
            command
                .words
                .iter()
                .any(|w| matches!(w.as_str(), "sudo" | "wheel" | "root" | "docker" | "admin"))
                || command.has_flag('o')
        }
        "passwd" => command.has_argument(&["root", "-d", "--stdin"]),
        "userdel" => true,
        "kubectl" => command.has_argument(&["clusterrolebinding"]),
        _ => false,
    }
}

fn uploads(reading: &Reading) -> bool {
    reading.commands.iter().enumerate().any(|(idx, c)| {
        if !is_network_tool(c) || only_loopback(c) {
            return false;
        }
        let args = c.arguments();
        let by_option = match c.name() {
            "curl" => {
                c.has_flag('T')
                    || c.has_argument(&["--upload-file"])
                    || args.windows(2).any(|pair| {
                        matches!(
                            pair[0].as_str(),
                            "-d" | "--data"
                                | "--data-binary"
                                | "-F"
                                | "--form"
                                | "--data-raw"
                                | "--data-urlencode"
                        ) && (pair[1].contains('@') || pair[1].contains('<'))
                    })
                    || args.iter().any(|arg| {
                        arg.starts_with("-d@")
                            || arg.starts_with("--data-binary=@")
                            || arg.starts_with("-F@")
                    })
            }
            "wget" => args
                .iter()
                .any(|arg| arg.starts_with("--post-file") || arg.starts_with("--body-file")),
            "scp" | "rsync" => args
                .last()
                .is_some_and(|arg| arg.contains(':') && !arg.starts_with('/')),
            "tftp" | "ftp" | "sftp" => args.iter().any(|arg| arg.contains("put")),
            "nc" | "ncat" | "netcat" => c.redirects.iter().any(|r| !r.writes),
            _ => redirects_to(c, |target| target.starts_with("/dev/tcp/")),
        };
        // Something is piped into a tool that only sends.
        let piped = matches!(
            c.name(),
            "nc" | "ncat" | "netcat" | "curl" | "ssh" | "socat"
        ) && reading.commands[..idx]
            .iter()
            .any(|before| before.pipeline == c.pipeline)
            && (c.name() != "curl"
                || args.iter().any(|arg| {
                    arg.contains('-') && (arg.ends_with("@-") || arg == "-T-" || arg == "-")
                }));
        by_option || piped
    })
}

fn listens(command: &Command) -> bool {
    match command.name() {
        "nc" | "ncat" | "netcat" => command.has_flag('l') || command.has_argument(&["--listen"]),
        "socat" => command
            .words
            .iter()
            .any(|w| w.to_uppercase().contains("LISTEN")),
        "ssh" => command.has_flag('R') || command.has_flag('D') || command.has_flag('w'),
        "python3" | "python" | "python2" => {
            command.has_argument(&["http.server", "SimpleHTTPServer", "pyftpdlib"])
        }
        "sslh" | "stunnel" | "rinetd" => true,
        _ => false,
    }
}

fn captures(command: &Command) -> bool {
    match command.name() {
        "tcpdump" | "tshark" | "dumpcap" => {
            command.has_flag('w') || command.has_flag('A') || command.has_flag('X')
        }
        "gcore" | "xinput" | "logkeys" | "showkey" => true,
        "gdb" | "strace" => command.has_flag('p') || command.has_argument(&["--pid"]),
        "arecord" | "xwd" | "scrot" => true,
        _ => false,
    }
}

#[cfg(test)]
#[path = "indicator_tests.rs"]
mod tests;
