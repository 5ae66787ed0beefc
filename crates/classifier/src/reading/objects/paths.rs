//! The security class of a path, by where it lies and what it is called.

/// What a file is to an attacker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PathClass {
    /// Keys, passwords, tokens, browser stores, shell histories, environments.
    Secret,
    /// The list of accounts; no secret, but written by no ordinary command.
    Accounts,
    /// Who may use sudo.
    Sudoers,
    /// From here programs start by themselves.
    Persistence,
    /// A library that is loaded into every program.
    Preload,
    Log,
    /// World-writable directories that are emptied at times.
    Temporary,
    /// A whole disk or partition.
    Disk,
    /// Kernel settings by which a container reaches the host.
    KernelDoor,
    /// The socket of a container engine.
    EngineSocket,
    /// Other files of `/proc` and `/sys`.
    Kernel,
    /// Programs and libraries of the system.
    SystemProgram,
    SystemConfiguration,
    /// A top directory such as `/`, `/etc` or `/home` itself.
    TopDirectory,
    Home,
    /// What a web server serves.
    Served,
    /// Device files that hold nothing: `/dev/null` and its like.
    Nothing,
    /// Relative and any other path.
    Other,
}

/// The class of one path.
pub(crate) fn class_of(path: &str) -> PathClass {
    let path = normalised(path);
    let lower = path.to_lowercase();
    let lower = lower.as_str();
    if is_nothing(lower) {
        return PathClass::Nothing;
    }
    if matches!(lower, "/etc/sudoers" | "/etc/doas.conf") || lower.starts_with("/etc/sudoers.d/") {
        return PathClass::Sudoers;
    }
    if is_secret(lower) {
        return PathClass::Secret;
    }
    if matches!(lower, "/etc/passwd" | "/etc/group") {
        return PathClass::Accounts;
    }
    if lower == "/etc/ld.so.preload" || lower.starts_with("/etc/ld.so.conf") {
        return PathClass::Preload;
    }
    if is_persistence(lower) {
        return PathClass::Persistence;
    }
    if lower.ends_with("docker.sock")
        || lower.ends_with("containerd.sock")
        || lower.ends_with("crio.sock")
    {
        return PathClass::EngineSocket;
    }
    let is_kernel_door = lower.ends_with("/release_agent")
        || lower.ends_with("/notify_on_release")
        || lower.ends_with("sys/kernel/core_pattern")
        || lower.ends_with("sys/kernel/modprobe")
        || lower.ends_with("binfmt_misc/register")
        || lower.starts_with("/proc/1/root")
        || lower.starts_with("/proc/1/ns")
        || lower == "/proc/sysrq-trigger"
        || lower == "/sys/kernel/uevent_helper";
    if is_kernel_door {
        return PathClass::KernelDoor;
    }
    by_place(lower)
}

fn by_place(path: &str) -> PathClass {
    if is_temporary(path) {
        return PathClass::Temporary;
    }
    if is_disk(path) {
        return PathClass::Disk;
    }
    let bare = path.trim_end_matches(['*', '/']);
    let is_top = path.starts_with('/')
        && (bare.matches('/').count() <= 1
            || matches!(
                bare,
                "/var/lib" | "/var/www" | "/usr/bin" | "/usr/lib" | "/usr/sbin"
            ));
    let top = [
        "",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib64",
        "/mnt",
        "/opt",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/usr",
        "/var",
        "/var/lib",
        "/var/www",
        "/usr/bin",
        "/usr/lib",
        "/usr/sbin",
        "/proc",
    ];
    if is_top && top.contains(&bare) {
        return PathClass::TopDirectory;
    }
    let starts = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    if starts(&[
        "/var/log/",
        "/run/log/",
        "/var/run/utmp",
        "/run/utmp",
        "/var/spool/rsyslog",
    ]) || matches!(path, "/var/log" | "/run/log")
    {
        PathClass::Log
    } else if starts(&["/proc/", "/sys/"]) {
        PathClass::Kernel
    } else if starts(&["/bin/", "/sbin/", "/usr/", "/lib/", "/lib64/", "/boot/"]) {
        PathClass::SystemProgram
    } else if starts(&["/etc/"]) {
        PathClass::SystemConfiguration
    } else if starts(&["/var/www/", "/srv/"])
        || path.contains("/public_html/")
        || path.contains("/htdocs/")
    {
        PathClass::Served
    } else if starts(&["/home/", "/root/", "~"]) {
        PathClass::Home
    } else {
        PathClass::Other
    }
}

/// A path with `//`, `/./` and `..` resolved as far as its text allows, and `~`
/// for the homes that variables name.
pub(crate) fn normalised(path: &str) -> String {
    let path = path.strip_prefix("file://").unwrap_or(path);
    let path = match path
        .strip_prefix("$HOME")
        .or_else(|| path.strip_prefix("${HOME}"))
    {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("~{rest}"),
        _ => path.to_owned(),
    };
    if !path.contains("//") && !path.contains("/.") {
        return path;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if path.starts_with('/') => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    let end = if path.ends_with('/') && !joined.is_empty() {
        "/"
    } else {
        ""
    };
    let start = if path.starts_with('/') { "/" } else { "" };
    format!("{start}{joined}{end}")
}

fn is_nothing(path: &str) -> bool {
    matches!(
        path,
        "/dev/null"
            | "/dev/zero"
            | "/dev/full"
            | "/dev/stdin"
            | "/dev/stdout"
            | "/dev/stderr"
            | "/dev/tty"
            | "/dev/random"
            | "/dev/urandom"
    ) || path.starts_with("/dev/fd/")
        || path.starts_with("/proc/self/fd/")
}

#[expect(clippy::too_many_lines, reason = "a flat table")]
fn is_secret(path: &str) -> bool {
    if path.ends_with(".pub") {
        return false;
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let ends = |tails: &[&str]| tails.iter().any(|tail| path.ends_with(tail));
    let holds = |pieces: &[&str]| pieces.iter().any(|piece| path.contains(piece));
    let by_place = ends(&[
        ".aws/credentials",
        ".kube/config",
        ".docker/config.json",
        "/.netrc",
        "/.pgpass",
        "/.my.cnf",
        "/.git-credentials",
        "/.npmrc",
        "/.pypirc",
        "/.vault-token",
        "/.htpasswd",
        "login data",
        "cookies.sqlite",
        "/logins.json",
        "/key4.db",
        "/local state",
        "/web data",
        "/.env",
        "/.boto",
        "/.s3cfg",
        "/etc/krb5.keytab",
        "/admin.conf",
        "/kubelet.conf",
        "/proc/kcore",
        "/dev/mem",
        "/dev/kmem",
    ]) || holds(&[
        "/.gnupg/",
        "/.config/gcloud",
        "/.azure/",
        "serviceaccount/token",
        "serviceaccount/ca",
        "/etc/kubernetes/pki",
        "/.mozilla/firefox",
        "/google-chrome/",
        "/.config/chromium",
        "/keyrings/",
        "/etc/ssl/private",
        "/run/secrets/",
        "/.password-store",
        "/.bitcoin/wallet",
        "/.ethereum/keystore",
        "/.config/solana",
        "/etc/ssh/ssh_host_",
        "/var/lib/sss/db",
        "/etc/openvpn/",
        "/etc/wireguard/",
    ]) || is_environment(path);
    let by_name =
        matches!(
            name,
            "shadow"
                | "shadow-"
                | "gshadow"
                | "gshadow-"
                | "opasswd"
                | "master.passwd"
                | "wp-config.php"
                | ".netrc"
                | ".pgpass"
                | ".git-credentials"
                | ".htpasswd"
                | ".env"
                | ".vault-token"
                | "credentials"
                | "credentials.json"
                | "credentials.db"
                | "application_default_credentials.json"
                | "kubeconfig"
                | "secring.gpg"
                | "wallet.dat"
                | "id_rsa"
                | "id_dsa"
                | "id_ecdsa"
                | "id_ed25519"
                | ".bash_history"
                | ".zsh_history"
                | ".mysql_history"
                | ".psql_history"
                | ".python_history"
                | ".ash_history"
                | "ntds.dit"
                | "passwords.txt"
                | "passwords.csv"
                | "security.conf"
                | ".rhosts"
                | "secrets.yml"
                | "secrets.yaml"
                | "secrets.json"
                | "private.key"
                | "server.key"
        ) && (path.contains('/') || name.contains(['.', '_', '-']) || name == "kubeconfig")
            || name.starts_with("krb5cc_")
            || (name.ends_with(".kdbx")
                || name.ends_with(".keytab")
                || name.ends_with(".p12")
                || name.ends_with(".pfx"))
            || is_secret_directory(path)
            || (path.contains(".ssh/")
                && (name.starts_with("id_") || name == "*" || name.ends_with(".pem")))
            || (name.contains("private") && (name.ends_with(".pem") || name.ends_with(".key")));
    by_place || by_name
}

/// A directory of keys itself.
fn is_secret_directory(path: &str) -> bool {
    let name = path
        .trim_end_matches('/')
        .rsplit_once('/')
        .map(|(_, name)| name);
    matches!(name, Some(".ssh" | ".aws" | ".gnupg" | ".password-store"))
}

/// `/proc/<other process>/environ`, `mem` and `maps`; one's own is no secret.
fn is_environment(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/proc/") else {
        return false;
    };
    rest.split_once('/').is_some_and(|(process, file)| {
        process != "self" && process != "thread-self" && matches!(file, "environ" | "mem")
    })
}

fn is_persistence(path: &str) -> bool {
    let starts = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    let name = path.rsplit('/').next().unwrap_or(path);
    starts(&[
        "/etc/cron",
        "/var/spool/cron",
        "/etc/anacrontab",
        "/etc/rc.local",
        "/etc/rc.d/",
        "/etc/init.d/",
        "/etc/profile",
        "/etc/bash.bashrc",
        "/etc/zsh/",
        "/etc/pam.d/",
        "/lib/security/",
        "/etc/udev/rules.d/",
        "/lib/udev/rules.d/",
        "/usr/lib/udev/rules.d/",
        "/etc/systemd/",
        "/lib/systemd/system",
        "/usr/lib/systemd/system",
        "/run/systemd/system",
        "/etc/update-motd.d/",
        "/etc/xdg/autostart",
        "/etc/environment",
        "/etc/ssh/sshd_config",
        "/etc/modules-load.d",
        "/etc/modules",
        "/etc/network/if-",
        "/etc/networkmanager/dispatcher.d",
        "/etc/apt/apt.conf.d",
        "/etc/inittab",
        "/etc/skel/",
        "/usr/share/dbus-1/system-services",
        "/etc/logrotate.d/",
        "/etc/dhcp/dhclient-",
        "/etc/kernel/",
        "/etc/initramfs-tools",
    ]) || path.contains("/.config/autostart")
        || path.contains(".config/systemd/user")
        || path.contains(".git/hooks/")
        || path.contains("/.ssh/rc")
        || path.ends_with(".ssh/config")
        || matches!(
            name,
            ".bashrc"
                | ".bash_profile"
                | ".bash_login"
                | ".bash_logout"
                | ".bash_aliases"
                | ".zshrc"
                | ".zprofile"
                | ".zshenv"
                | ".profile"
                | ".cshrc"
                | ".kshrc"
                | "config.fish"
                | ".xinitrc"
                | ".xprofile"
                | ".xsession"
                | "authorized_keys"
                | "authorized_keys2"
                | ".pam_environment"
                | ".vimrc"
                | ".gdbinit"
        )
}

/// Whether a path lies in a directory that everybody may write.
pub(crate) fn is_temporary(path: &str) -> bool {
    [
        "/tmp/",
        "/var/tmp/",
        "/dev/shm/",
        "/run/shm/",
        "/dev/mqueue/",
        "/run/lock/",
        "/var/lock/",
        "/var/crash/",
    ]
    .iter()
    .any(|place| path.starts_with(place))
        || ["$TMPDIR/", "${TMPDIR}/", "${TMPDIR:-/tmp}/", "$TMP/"]
            .iter()
            .any(|place| path.starts_with(place))
}

fn is_disk(path: &str) -> bool {
    let Some(device) = path.strip_prefix("/dev/") else {
        return false;
    };
    [
        "sd", "hd", "vd", "xvd", "nvme", "mmcblk", "mapper/", "dm-", "disk/", "md",
    ]
    .iter()
    .any(|start| {
        device.strip_prefix(start).is_some_and(|rest| {
            !rest.is_empty()
                && (start.ends_with('/') || rest.bytes().all(|b| b.is_ascii_alphanumeric()))
        })
    })
}

/// The paths that a word names: itself, what stands behind `=`, `@` or `:` in it.
pub(crate) fn paths_in(word: &str) -> impl Iterator<Item = &str> {
    word.split(|c: char| {
        matches!(
            c,
            '=' | '@' | ',' | ';' | '"' | '\'' | '`' | '(' | ')' | '<' | '>' | '|' | '{' | '}'
        ) || c.is_whitespace()
    })
    .flat_map(|piece| {
        // `host:/path` and `-v /a:/b`, but not `https://`.
        let is_url = piece.contains("://");
        let parts = if is_url { 1 } else { 3 };
        piece.splitn(parts, ':')
    })
    .filter(|piece| {
        !piece.is_empty()
            && (piece.contains('/') || piece.contains(['.', '_', '~']))
            && !piece.contains("://")
    })
}

/// Whether a program's file calls itself something it is not: a kernel thread or
/// service by name in a temporary or hidden place, or a name made of blanks.
pub(crate) fn is_masquerade(path: &str) -> bool {
    const NAMES: [&str; 24] = [
        "kworker",
        "kthread",
        "ksoftirqd",
        "kdevtmpfs",
        "khugepaged",
        "kswapd",
        "kauditd",
        "ksmd",
        "migration",
        "watchdogd",
        "systemd",
        "init",
        "sshd",
        "crond",
        "cron",
        "dbus-daemon",
        "rsyslogd",
        "syslogd",
        "udevd",
        "journald",
        "networkd",
        "agetty",
        "httpd",
        "nginx",
    ];
    let path = normalised(path);
    let name = path.rsplit('/').next().unwrap_or("");
    let looks_kernel = name.starts_with('[') && name.ends_with(']');
    let is_odd_place = is_temporary(&path)
        || path
            .split('/')
            .any(|part| part.len() > 1 && part.starts_with('.') && part != "..");
    let stem = name.trim_start_matches(['.', '[']).to_lowercase();
    let borrowed = NAMES.iter().any(|known| {
        stem.strip_prefix(known).is_some_and(|rest| {
            rest.is_empty()
                || !rest.starts_with(|c: char| c.is_ascii_alphabetic())
                || rest.len() <= 1
        })
    });
    (looks_kernel && (path.contains('/') || name.len() > 4))
        || (is_odd_place && borrowed && path.contains('/'))
        || matches!(name, "..." | ".. " | ". " | " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_place_and_name() {
        use PathClass::*;
        for (path, class) in [
            ("/etc/shadow", Secret),
            ("/mnt/host/etc/shadow", Secret),
            ("/etc/./ssl/../shadow", Secret),
            ("$HOME/.aws/credentials", Secret),
            ("~/.ssh/id_ed25519", Secret),
            ("/proc/812/environ", Secret),
            ("/root/.bash_history", Secret),
            ("/etc/sudoers.d/x", Sudoers),
            ("/etc/passwd", Accounts),
            ("/etc/cron.d/backup", Persistence),
            ("/home/u/.bashrc", Persistence),
            (".git/hooks/pre-commit", Persistence),
            ("/etc/ld.so.preload", Preload),
            ("/var/log/auth.log", Log),
            ("/dev/shm/x", Temporary),
            ("/tmp/../etc/cron.d/x", Persistence),
            ("/dev/sda1", Disk),
            ("/dev/nvme0n1", Disk),
            ("/var/run/docker.sock", EngineSocket),
            ("/proc/sys/kernel/core_pattern", KernelDoor),
            ("/", TopDirectory),
            ("/etc/*", TopDirectory),
            ("/usr/bin/ls", SystemProgram),
            ("/etc/hosts", SystemConfiguration),
            ("/dev/null", Nothing),
        ] {
            assert_eq!(class_of(path), class, "{path}");
        }
    }

    #[test]
    fn look_alikes_are_of_no_special_class() {
        for path in [
            "~/.ssh/id_ed25519.pub",
            "src/credentials.rs",
            "/proc/self/environ",
            "docs/shadow.md",
            "shadow",
            "/dev/sdk/include",
            "/opt/app/etc/crontab.md",
            "tests/authorized_keys.rs",
            "/home/u/cron/job",
            "/tmpfiles/x",
            "secrets.rs",
        ] {
            let class = class_of(path);
            assert!(
                matches!(
                    class,
                    PathClass::Other | PathClass::Home | PathClass::Kernel
                ),
                "{path}: {class:?}"
            );
        }
    }

    #[test]
    fn borrowed_names_count_in_odd_places_only() {
        for path in [
            "/tmp/kworker",
            "/dev/shm/.systemd-x",
            "/var/tmp/[kthreadd]",
            "/home/u/.x/sshd",
        ] {
            assert!(is_masquerade(path), "{path}");
        }
        for path in [
            "/usr/sbin/sshd",
            "/usr/lib/systemd/systemd",
            "[",
            "./init.sh",
            "/tmp/initial-data",
            "/tmp/x/cronograph",
        ] {
            assert!(!is_masquerade(path), "{path}");
        }
    }
}
