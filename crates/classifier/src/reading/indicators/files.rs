//! Files that matter: credentials, start-up places, temporary programs, data.

use crate::reading::{Command, is_interpreter, is_shell};

pub(super) fn is_secret(word: &str) -> bool {
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

pub(super) fn reads_secret(command: &Command) -> bool {
    const READERS: &[&str] = &[
        "cat", "head", "tail", "less", "more", "tac", "nl", "cp", "scp", "rsync", "tar", "zip",
        "base64", "xxd", "od", "strings", "awk", "gawk", "mawk", "sed", "grep", "egrep", "dd",
        "curl", "wget", "nc", "cut", "rev", "sort", "openssl", "install", "7z", "find", "unshadow",
        "john", "diff", "paste", "xargs", "tee", "mv", "hexdump",
    ];
    let reads = READERS.contains(&command.name()) || is_interpreter(command.name());
    (reads && names_secret(command))
        || command
            .redirects
            .iter()
            .any(|r| !r.writes && is_secret(&r.target))
}

pub(super) fn writes_persistence(command: &Command) -> bool {
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

pub(super) fn is_temporary(path: &str) -> bool {
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

/// Whether the kernel's path of a program names memory or a removed file.
fn has_no_file(program: &str) -> bool {
    program.trim_start_matches('/').starts_with("memfd:") || program.ends_with(" (deleted)")
}

pub(super) fn runs_temporary(command: &Command) -> bool {
    let program = command.program();
    if is_temporary(program)
        || has_no_file(program)
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

pub(super) fn destroys(command: &Command) -> bool {
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

/// Whether an argument names a secret. The text a shell is given is not an
/// argument here: its commands are looked at one by one.
pub(super) fn names_secret(command: &Command) -> bool {
    let shell = is_shell(command.name());
    command
        .arguments()
        .iter()
        .any(|word| is_secret(word) && !(shell && word.contains(char::is_whitespace)))
}
