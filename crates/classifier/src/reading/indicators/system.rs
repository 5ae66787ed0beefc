//! Privileges, containers, monitoring, accounts and tools.

use super::files::is_temporary;
use crate::reading::{Command, Reading, is_shell};

pub(super) fn raises_privilege(command: &Command) -> bool {
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

pub(super) fn enters_host(command: &Command) -> bool {
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

pub(super) fn evades(command: &Command) -> bool {
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

pub(super) fn shell_from_tool(reading: &Reading) -> bool {
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

pub(super) fn discovery(reading: &Reading) -> bool {
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

pub(super) fn is_hostile_tool(command: &Command) -> bool {
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

pub(super) fn changes_account(command: &Command) -> bool {
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

pub(super) fn captures(command: &Command) -> bool {
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
