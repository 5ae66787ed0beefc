//! Privileges, kernel, containers, protection, accounts and tools.

use super::{Act, Features, counted, flag};
use crate::reading::{
    is_shell,
    objects::{PathClass, Purpose, class_of, is_temporary, normalised},
};

pub(super) fn mark(act: &Act<'_>, out: &mut Features) {
    mark_modes(act, out);
    out.protection_lowered = flag(lowers_protection(act));
    out.kernel_module = flag(loads_module(act));
    out.defence_disabled = flag(disables_defence(act));
    out.trace_altered = flag(alters_traces(act));
    out.host_reached = flag(reaches_host(act));
    out.privileged_container = flag(is_privileged_container(act));
    out.process_inspected = flag(inspects_process(act));
    out.captured = flag(captures(act));
    out.offensive_tool = flag(act.is(Purpose::Offensive));
    out.exhaustion = flag(exhausts(act));
    out.account_changed = flag(changes_account(act));
    out.shell_from_tool = flag(starts_shell(act));
    out.wrapper_depth = counted(act.command.n_wrappers, 4);
    out.discovery_breadth = 0.0;
}

fn mark_modes(act: &Act<'_>, out: &mut Features) {
    let command = act.command;
    let mode = match act.name {
        "chmod" => act
            .args()
            .iter()
            .find(|arg| {
                !arg.starts_with("--") && !matches!(arg.as_str(), "-R" | "-v" | "-f" | "-c")
            })
            .map(String::as_str),
        "install" | "mkdir" | "mknod" => command.option(&["-m", "--mode"]),
        _ => None,
    };
    if let Some(mode) = mode {
        let digits = mode.trim_start_matches('0');
        let is_octal = !mode.is_empty() && mode.bytes().all(|b| b.is_ascii_digit());
        let sets_id = is_octal
            && matches!(digits.as_bytes(), [b'2'..=b'7', _, _, _])
            && digits.as_bytes()[0] & 6 != 0;
        let symbolic = !is_octal
            && mode.split(',').any(|part| {
                part.split(['+', '='])
                    .nth(1)
                    .is_some_and(|rights| rights.contains('s'))
            });
        // A directory that hands its group down is an ordinary thing.
        let is_group_only = digits.starts_with('2') && act.name == "mkdir";
        out.set_id = flag((sets_id || symbolic) && !is_group_only);
        let world = is_octal
            && digits.len() >= 3
            && matches!(digits.as_bytes().last(), Some(b'2' | b'3' | b'6' | b'7'))
            || mode.starts_with("a+") && mode.contains('w')
            || mode.starts_with("o+") && mode.contains('w');
        let sticky = digits.len() == 4 && digits.starts_with('1');
        out.world_writable = flag(world && !sticky);
    }
    out.capability_given =
        flag(act.name == "setcap" && !command.has_flag('r') && act.says(&["cap_", "=ep", "=eip"]));
    if act.name == "chown" {
        let to_root = command
            .operands()
            .next()
            .is_some_and(|owner| owner == "root" || owner.starts_with("root:"));
        let temporary = command.operands().skip(1).any(is_temporary);
        out.set_id = out.set_id.max(flag(to_root && temporary) * 0.5);
    }
}

/// Kernel settings, and the value that leaves a machine open.
fn lowers_protection(act: &Act<'_>) -> bool {
    const OPEN: [(&str, &str); 11] = [
        ("randomize_va_space", "0"),
        ("ptrace_scope", "0"),
        ("dmesg_restrict", "0"),
        ("kptr_restrict", "0"),
        ("perf_event_paranoid", "-1"),
        ("unprivileged_bpf_disabled", "0"),
        ("suid_dumpable", "2"),
        ("unprivileged_userns_clone", "1"),
        ("modules_disabled", "0"),
        ("protected_symlinks", "0"),
        ("kexec_load_disabled", "0"),
    ];
    let printed = act
        .args()
        .iter()
        .map(|arg| arg.trim_end())
        .next_back()
        .unwrap_or("");
    let by_file = act.written.iter().any(|path| {
        OPEN.iter()
            .any(|(name, value)| path.ends_with(name) && printed == *value)
    });
    let by_tool = act.name == "sysctl"
        && act.args().iter().any(|arg| {
            OPEN.iter().any(|(name, value)| {
                arg.split_once('=')
                    .is_some_and(|(key, set)| key.trim().ends_with(name) && set.trim() == *value)
            }) || arg.contains("core_pattern=")
        });
    by_file || by_tool
}

fn loads_module(act: &Act<'_>) -> bool {
    let command = act.command;
    match act.name {
        "insmod" | "rmmod" => command.operands().next().is_some(),
        "modprobe" => {
            command.operands().next().is_some()
                && !command.has_argument(&["-n", "--dry-run", "--show-depends", "-c"])
        }
        "kmod" => command.has_argument(&["load", "insert", "insmod", "remove"]),
        "dkms" => {
            command.has_argument(&["install", "add"])
                && act.paths.iter().any(|(path, _)| is_temporary(path))
        }
        "kexec" => command.has_flag('l') || command.has_argument(&["--load"]),
        "bpftool" => command.has_argument(&["load", "loadall"]),
        _ => false,
    }
}

const GUARDS: [&str; 24] = [
    "auditd",
    "falco",
    "rsyslog",
    "syslog",
    "ufw",
    "firewalld",
    "apparmor",
    "clamav",
    "clamd",
    "osquery",
    "crowdsec",
    "fail2ban",
    "selinux",
    "tetragon",
    "iptables",
    "nftables",
    "wazuh",
    "ossec",
    "sysmon",
    "systemd-journald",
    "aide",
    "tripwire",
    "inwarden",
    "falcon-sensor",
];

fn disables_defence(act: &Act<'_>) -> bool {
    let command = act.command;
    let names_guard = || {
        act.args()
            .iter()
            .any(|arg| GUARDS.iter().any(|guard| arg.contains(guard)))
    };
    match act.name {
        "setenforce" => command.has_argument(&["0", "Permissive", "permissive"]),
        "iptables" | "ip6tables" | "iptables-legacy" | "arptables" | "ebtables" => {
            (command.has_argument(&["-F", "--flush", "-X", "-Z"]) && !command.has_argument(&["-t"]))
                || command
                    .arguments()
                    .windows(3)
                    .any(|w| w[0] == "-P" && w[2] == "ACCEPT")
        }
        "nft" => {
            command.has_argument(&["flush", "delete"])
                && command.has_argument(&["ruleset", "table"])
        }
        "ufw" => command.has_argument(&["disable", "reset"]),
        "systemctl" | "service" | "rc-service" | "update-rc.d" | "invoke-rc.d" | "chkconfig" => {
            act.args().iter().any(|arg| {
                matches!(
                    arg.as_str(),
                    "stop" | "disable" | "mask" | "kill" | "remove" | "off"
                )
            }) && names_guard()
        }
        "pkill" | "killall" | "skill" => names_guard(),
        "auditctl" => {
            command.has_flag('D')
                || command.has_argument(&["-e0"])
                || command.option(&["-e"]) == Some("0")
        }
        "apt" | "apt-get" | "dpkg" | "yum" | "dnf" | "zypper" | "apk" | "pacman" | "rpm" => {
            act.args().iter().any(|arg| {
                matches!(
                    arg.as_str(),
                    "remove" | "purge" | "erase" | "del" | "--purge" | "-e" | "-P" | "-R"
                )
            }) && names_guard()
        }
        "aa-disable" | "aa-teardown" | "aa-complain" => true,
        "sed" | "tee" | "echo" | "cp" => {
            let by_text = act.says(&["SELINUX=disabled", "SELINUX=permissive"]);
            let guard_files = act.written.iter().any(|path| {
                let path = normalised(path);
                path.starts_with("/etc/audit/")
                    || path.starts_with("/etc/falco/")
                    || path.starts_with("/etc/rsyslog")
                    || path.starts_with("/etc/apparmor.d/")
                    || path == "/etc/selinux/config"
            });
            by_text || (guard_files && act.name != "cp")
        }
        "mv" | "rm" => act.paths.iter().any(|(path, class)| {
            matches!(
                class,
                PathClass::SystemConfiguration | PathClass::SystemProgram
            ) && GUARDS.iter().any(|guard| path.contains(guard))
        }),
        _ => false,
    }
}

fn alters_traces(act: &Act<'_>) -> bool {
    let command = act.command;
    match act.name {
        "touch" => {
            let given = command
                .option(&["-r", "--reference", "-t", "-d", "--date"])
                .is_some();
            given
                && act
                    .paths
                    .iter()
                    .any(|(_, class)| !matches!(class, PathClass::Other | PathClass::Home))
        }
        "chattr" => act
            .args()
            .iter()
            .any(|arg| matches!(arg.as_str(), "+i" | "-i" | "+a" | "-a" | "+ia" | "-ia")),
        "date" => {
            command.has_argument(&["-s", "--set"])
                || command
                    .arguments()
                    .iter()
                    .any(|arg| arg.starts_with("--set="))
        }
        "timedatectl" => command.has_argument(&["set-time"]),
        "debugfs" => command.has_flag('w') && act.says(&["set_inode_field", "sif", "clri"]),
        "mount" => {
            command.has_argument(&["--bind", "-B"])
                && command
                    .operands()
                    .last()
                    .is_some_and(|to| to.starts_with("/proc/"))
        }
        _ => false,
    }
}

fn reaches_host(act: &Act<'_>) -> bool {
    let command = act.command;
    let named = act.names(PathClass::KernelDoor);
    match act.name {
        "nsenter" => command.option(&["-t", "--target"]) == Some("1") || act.says(&["/proc/1/ns"]),
        "chroot" => command.operands().next().is_some_and(|root| {
            let root = root.trim_end_matches('/');
            matches!(
                root,
                "/host"
                    | "/hostfs"
                    | "/rootfs"
                    | "/mnt/host"
                    | "/mnt/root"
                    | "/host-root"
                    | "/proc/1/root"
            ) || root.starts_with("/proc/1/")
        }),
        "mount" => {
            act.names(PathClass::Disk) && command.operands().count() > 1
                || (command.option(&["-t"]) == Some("cgroup"))
        }
        "unshare" => {
            command.has_flag('U')
                || command.has_flag('r')
                || command.has_argument(&["--map-root-user", "--user"])
        }
        "curl" | "socat" | "nc" | "docker" => {
            act.names(PathClass::EngineSocket) && act.name != "docker"
        }
        "debugfs" => act.names(PathClass::Disk),
        "cat" | "ls" | "echo" | "head" | "grep" if named => {
            !act.written.is_empty() || act.says(&["/proc/1/root"])
        }
        _ => named && !act.written.is_empty(),
    }
}

fn is_privileged_container(act: &Act<'_>) -> bool {
    let command = act.command;
    if !matches!(
        act.name,
        "docker" | "podman" | "nerdctl" | "kubectl" | "ctr" | "crictl" | "lxc" | "runc"
    ) {
        return false;
    }
    let mounts_host = act.args().iter().any(|arg| {
        arg.starts_with("/:/")
            || arg.starts_with("--volume=/:/")
            || arg.starts_with("-v/:/")
            || arg.contains("src=/,")
            || arg.contains("source=/,")
            || arg.contains("\"hostPath\"")
            || arg.contains("security.privileged=true")
    });
    let mounts_socket = act.args().iter().any(|arg| arg.contains("docker.sock:"));
    mounts_host
        || mounts_socket
        || command.has_argument(&[
            "--privileged",
            "--privileged=true",
            "--pid=host",
            "--cap-add=SYS_ADMIN",
            "--cap-add=ALL",
            "--security-opt=apparmor=unconfined",
            "--userns=host",
        ])
        || act.says(&["hostPID", "\"privileged\":true", "\"privileged\": true"])
        || command.arguments().windows(2).any(|w| {
            w[0] == "--cap-add"
                && matches!(
                    w[1].as_str(),
                    "SYS_ADMIN" | "ALL" | "SYS_PTRACE" | "SYS_MODULE" | "all"
                )
        })
}

fn inspects_process(act: &Act<'_>) -> bool {
    let command = act.command;
    match act.name {
        "gdb" | "strace" | "ltrace" | "rr" | "lldb" => {
            command.option(&["-p", "--pid", "--attach"]).is_some() || act.says(&["attach "])
        }
        "gcore" | "procdump" => true,
        "dd" | "cat" | "xxd" | "strings" | "tail" => act.paths.iter().any(|(path, _)| {
            path.starts_with("/proc/") && path.ends_with("/mem")
                || matches!(*path, "/dev/mem" | "/proc/kcore" | "/dev/kmem")
        }),
        _ => act
            .command
            .words
            .iter()
            .any(|word| word == "-p")
            .then_some(&act.command.words)
            .is_some_and(|words| {
                // A tracer that was skipped as a wrapper.
                words.first().is_some_and(|first| {
                    matches!(first.rsplit('/').next(), Some("strace" | "ltrace"))
                })
            }),
    }
}

fn captures(act: &Act<'_>) -> bool {
    let command = act.command;
    match act.name {
        "tcpdump" | "tshark" | "dumpcap" | "ngrep" | "tcpflow" => {
            !command.has_argument(&["-D", "--version", "-h", "--help", "-r"])
        }
        "logkeys" | "showkey" | "xspy" => true,
        "xinput" => command.has_argument(&["test", "test-xi2"]),
        "arecord" | "xwd" | "scrot" | "fswebcam" | "import" => {
            command.operands().next().is_some() || !act.written.is_empty()
        }
        "ffmpeg" => act.says(&["x11grab", "alsa", "/dev/video"]),
        "cat" | "xxd" | "dd" | "hexdump" => {
            act.says(&["/dev/input/"])
                || act.read.iter().any(|path| path.starts_with("/dev/input/"))
        }
        "script" => command.has_flag('f') && !act.written.is_empty(),
        _ => false,
    }
}

fn exhausts(act: &Act<'_>) -> bool {
    let command = act.command;
    match act.name {
        ":" => command.stage > 0 && command.operands().next().is_none(),
        "stress" | "stress-ng" => true,
        "yes" => command.written().any(|path| path == "/dev/null"),
        "fallocate" => command.option(&["-l"]).is_some_and(|size| {
            size.ends_with('T')
                || size
                    .trim_end_matches(['G', 'B'])
                    .parse::<u32>()
                    .is_ok_and(|g| g >= 100)
        }),
        _ => false,
    }
}

fn changes_account(act: &Act<'_>) -> bool {
    const GROUPS: [&str; 12] = [
        "sudo", "wheel", "root", "docker", "admin", "adm", "lxd", "disk", "shadow", "libvirt",
        "kvm", "video",
    ];
    let command = act.command;
    match act.name {
        "useradd" | "adduser" | "newusers" => {
            let is_service = command.has_argument(&["--system", "-r", "--help"]);
            let is_root = command.option(&["-u", "--uid"]) == Some("0") || command.has_flag('o');
            (command.operands().next().is_some() && !is_service) || is_root
        }
        "chpasswd" | "chage" => act.name == "chpasswd" || command.has_flag('E'),
        "usermod" | "gpasswd" | "addgroup" => {
            act.args()
                .iter()
                .any(|arg| arg.split(',').any(|group| GROUPS.contains(&group)))
                || command.has_flag('o')
                || command.has_flag('U')
        }
        "passwd" => command.has_argument(&["-d", "--delete", "--stdin", "-u", "root"]),
        "userdel" | "deluser" => command.operands().next().is_some(),
        "kubectl" => {
            command.has_argument(&["clusterrolebinding", "rolebinding"])
                && command.has_argument(&["create"])
        }
        "ssh-copy-id" => true,
        "visudo" => false,
        _ => false,
    }
}

/// A tool that is no shell, and whose options or text name one to start.
fn starts_shell(act: &Act<'_>) -> bool {
    let names_shell = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '/');
        word.starts_with('/')
            && is_shell(word.rsplit('/').next().unwrap_or(word))
            && class_of(word) == PathClass::SystemProgram
    };
    let mentions = |arg: &str| {
        arg.split(|c: char| {
            c.is_whitespace() || matches!(c, '"' | '\'' | '(' | ')' | '=' | ',' | ';' | '!' | ':')
        })
        .any(names_shell)
    };
    match act.name {
        "find" | "fd" => {
            let target = act
                .args()
                .iter()
                .position(|arg| matches!(arg.as_str(), "-exec" | "-execdir" | "-ok" | "-x"));
            target
                .and_then(|idx| act.args().get(idx + 1..))
                .is_some_and(|rest| {
                    let shell = rest
                        .first()
                        .is_some_and(|word| is_shell(word.rsplit('/').next().unwrap_or(word)));
                    shell
                        && !rest.iter().any(|word| word == "-c")
                        && !rest.iter().skip(1).any(|word| word == "{}")
                })
        }
        "tar" | "zip" | "rsync" | "scp" | "git" | "vim" | "vi" | "view" | "nvim" | "ed" | "man"
        | "less" | "more" | "gdb" | "expect" | "cpulimit" | "dmsetup" | "capsh" | "run-parts"
        | "split" | "tclsh" | "rlwrap" | "pexec" | "logsave" | "facter" | "irb" | "jrunscript"
        | "nmap" | "mysql" | "psql" | "sqlite3" | "tcpdump" | "start-stop-daemon" | "awk"
        | "gawk" | "mawk" | "nawk" | "sed" | "perl" | "ruby" | "php" | "lua" | "python"
        | "python2" | "python3" | "make" | "ssh" | "aria2c" | "busctl" | "csvtool"
        | "journalctl" | "ltrace" | "pkexec" => act
            .args()
            .iter()
            .any(|arg| mentions(arg) && !arg.starts_with("SHELL=") && !arg.starts_with("--shell=")),
        _ => false,
    }
}
