//! Files: secrets, start-up places, programs in odd places, destruction.

use super::{Act, Features, flag};
use crate::reading::objects::{
    PathClass, Purpose, class_of, handles_files, is_masquerade, is_temporary, normalised,
};

pub(super) fn mark(act: &Act<'_>, out: &mut Features) {
    let named = act.names(PathClass::Secret);
    out.secret_named = flag(named);
    out.secret_read = flag(named && act.reads(PathClass::Secret));
    out.secret_searched = flag(searches_secrets(act));
    let is_stranger = !act.name.is_empty() && !handles_files(act.name);
    out.secret_by_stranger = flag(named && is_stranger);
    let starts = [
        PathClass::Persistence,
        PathClass::Preload,
        PathClass::Sudoers,
        PathClass::Accounts,
    ];
    out.startup_by_stranger = flag(is_stranger && starts.into_iter().any(|class| act.names(class)));
    out.accounts_written = flag(
        act.writes(PathClass::Accounts)
            || act.written.iter().any(|path| {
                let path = normalised(path);
                path.ends_with("/etc/shadow") || path.ends_with("/etc/gshadow")
            }),
    );
    out.persistence_written = flag(act.writes(PathClass::Persistence));
    out.persistence_scheduled = flag(schedules(act));
    out.preload_changed = flag(
        act.writes(PathClass::Preload)
            || act
                .command
                .words
                .iter()
                .chain(&act.command.assignments)
                .any(|word| preloads(word)),
    );
    out.sudoers_changed = flag(act.writes(PathClass::Sudoers));
    mark_executed(act, out);
    out.system_deleted = flag(deletes_system(act));
    out.data_destroyed = flag(destroys(act));
    out.mass_encrypted = flag(encrypts(act));
    out.log_wiped = flag(wipes(act, PathClass::Log));
    out.history_wiped = flag(wipes_history(act));
}

fn searches_secrets(act: &Act<'_>) -> bool {
    const WORDS: [&str; 12] = [
        "password",
        "passwd",
        "secret",
        "id_rsa",
        "id_ed25519",
        "*.pem",
        "*.key",
        "*.kdbx",
        "api_key",
        "credential",
        "token",
        "AKIA",
    ];
    // A whole system or home is searched, not a project.
    let is_wide = act.paths.iter().any(|(path, class)| {
        matches!(class, PathClass::TopDirectory | PathClass::Home) || matches!(*path, "~" | "~/")
    }) || act
        .command
        .operands()
        .any(|word| matches!(word, "/" | "~" | "$HOME"));
    match act.name {
        "find" | "fd" | "locate" | "plocate" => {
            let set_id =
                act.says(&["4000", "6000", "2000", "u=s", "u+s", "g=s"]) && act.says(&["-perm"]);
            set_id || (is_wide || act.name.ends_with("locate")) && act.says(&WORDS)
        }
        "grep" | "egrep" | "rg" | "ag" => {
            let recursive =
                act.command.has_flag('r') || act.command.has_flag('R') || act.name == "rg";
            recursive
                && is_wide
                && act.args().iter().any(|arg| {
                    WORDS
                        .iter()
                        .any(|w| arg.to_lowercase().contains(&w.to_lowercase()))
                })
        }
        "getcap" => act.command.has_flag('r'),
        _ => false,
    }
}

fn schedules(act: &Act<'_>) -> bool {
    let command = act.command;
    match act.name {
        "crontab" => {
            !command.has_flag('l') && !command.has_flag('r') && !command.has_argument(&["--help"])
        }
        "at" | "batch" => !command.has_flag('l') && !command.has_argument(&["-c", "-V"]),
        "systemd-run" => command
            .arguments()
            .iter()
            .any(|arg| arg.starts_with("--on-")),
        // A unit named by its file in an odd place.
        "systemctl" => {
            command.has_argument(&["enable", "link"])
                && command
                    .operands()
                    .any(|unit| is_temporary(unit) || unit.starts_with("/home/"))
        }
        "update-rc.d" => command.has_argument(&["defaults", "enable"]),
        _ => false,
    }
}

fn preloads(word: &str) -> bool {
    ["LD_PRELOAD=", "LD_AUDIT=", "LD_LIBRARY_PATH="]
        .iter()
        .any(|name| {
            word.strip_prefix(name).is_some_and(|library| {
                let is_odd = is_temporary(library)
                    || library.starts_with("./")
                    || library.starts_with("/home/")
                    || library.contains("/.");
                is_odd && (*name != "LD_LIBRARY_PATH=" || is_temporary(library))
            })
        })
}

fn mark_executed(act: &Act<'_>, out: &mut Features) {
    let makes_executable = act.name == "chmod"
        && act.args().first().is_some_and(|mode| {
            let octal =
                mode.bytes().all(|b| b.is_ascii_digit()) && mode.bytes().any(|b| b % 2 == 1);
            octal || mode.contains('x')
        });
    let mut executed = act.executed.clone();
    if makes_executable {
        executed.extend(act.command.operands().skip(1));
    }
    for path in executed {
        let path = normalised(path);
        let no_file = path.trim_start_matches('/').starts_with("memfd:")
            || path.ends_with(" (deleted)")
            || path.starts_with("/proc/self/fd/");
        out.memory_executed = out.memory_executed.max(flag(no_file));
        out.temporary_executed = out
            .temporary_executed
            .max(flag(is_temporary(&path) || no_file));
        out.hidden_executed = out.hidden_executed.max(flag(is_hidden(&path)));
        out.masquerade = out.masquerade.max(flag(is_masquerade(&path)));
    }
    let argv0 = act
        .command
        .words
        .iter()
        .position(|word| word == "-a")
        .filter(|_| act.command.words.first().is_some_and(|w| w == "exec"));
    if let Some(name) = argv0.and_then(|idx| act.command.words.get(idx + 1)) {
        out.masquerade = out.masquerade.max(flag(name.starts_with('[')));
    }
    let copies_program = matches!(act.name, "cp" | "mv" | "ln" | "install")
        && act.written.iter().any(|path| is_masquerade(path));
    out.masquerade = out.masquerade.max(flag(copies_program));
}

/// Below a directory whose name begins with a dot, toolchains of homes left out.
fn is_hidden(path: &str) -> bool {
    const TOOLS: [&str; 16] = [
        ".cargo",
        ".rustup",
        ".local",
        ".venv",
        ".nvm",
        ".npm",
        ".pyenv",
        ".rbenv",
        ".config",
        ".cache",
        ".git",
        ".github",
        ".tox",
        ".husky",
        ".vscode-server",
        ".asdf",
    ];
    let mut parts = path
        .split('/')
        .filter(|part| part.len() > 1 && part.starts_with('.') && *part != "..")
        .peekable();
    parts.peek().is_some() && !parts.any(|part| TOOLS.contains(&part)) && path.contains('/')
}

fn deletes_system(act: &Act<'_>) -> bool {
    let command = act.command;
    let is_system = |path: &str| {
        matches!(
            class_of(path),
            PathClass::TopDirectory | PathClass::SystemProgram | PathClass::SystemConfiguration
        ) || matches!(path, "~" | "~/" | "$HOME" | "/*" | "$HOME/*" | "~/*")
    };
    // One file of a package is deleted in the ordinary way.
    let is_tree = |path: &str| {
        is_system(path)
            && matches!(
                class_of(path),
                PathClass::TopDirectory | PathClass::Other | PathClass::Home
            )
    };
    match act.name {
        "rm" => {
            let recursive = command.has_flag('r')
                || command.has_flag('R')
                || command.has_argument(&["--recursive"]);
            command.has_argument(&["--no-preserve-root"])
                || (recursive && command.operands().any(is_tree))
        }
        "find" => {
            command.operands().take(1).any(is_tree)
                && (command.has_argument(&["-delete"]) || act.says(&["shred", "unlink"]))
                && !command.has_argument(&["-mtime", "-name", "-empty", "-maxdepth"])
        }
        "chmod" | "chown" => {
            (command.has_flag('R') || command.has_argument(&["--recursive"]))
                && command.operands().skip(1).any(is_tree)
        }
        "mv" => {
            command.operands().any(|path| path == "/")
                || command.operands().last() == Some("/dev/null")
        }
        _ => false,
    }
}

fn destroys(act: &Act<'_>) -> bool {
    let command = act.command;
    let recursive =
        || command.has_flag('r') || command.has_flag('R') || command.has_argument(&["--recursive"]);
    match act.name {
        "vgremove" | "lvremove" | "pvremove" => command.operands().next().is_some(),
        "btrfs" => command.has_argument(&["subvolume"]) && command.has_argument(&["delete"]),
        "zfs" | "zpool" => command.has_argument(&["destroy"]),
        "rm" => recursive() && command.operands().any(holds_backups),
        "shred" | "wipe" | "srm" | "scrub" => command.operands().next().is_some(),
        "wipefs" | "blkdiscard" | "sgdisk" | "hdparm" => {
            act.names(PathClass::Disk) && !command.has_argument(&["-l", "-p", "--print", "-I"])
        }
        "cryptsetup" => command.has_argument(&["luksFormat", "erase", "luksErase"]),
        "vssadmin" => true,
        name if name.starts_with("mkfs") || name == "mkswap" => act.names(PathClass::Disk),
        _ => act.writes(PathClass::Disk),
    }
}

/// A tree whose own name says that it keeps copies.
fn holds_backups(path: &str) -> bool {
    let bare = path.trim_end_matches(['*', '/']);
    let name = bare.rsplit('/').next().unwrap_or(bare);
    path.starts_with('/')
        && matches!(
            name,
            "backup" | "backups" | "snapshot" | "snapshots" | ".snapshots"
        )
}

/// A cipher over many files, or over files that are then gone.
fn encrypts(act: &Act<'_>) -> bool {
    let command = act.command;
    match act.name {
        "openssl" => {
            command.has_argument(&["enc"])
                && !command.has_argument(&["-d", "-base64", "-a"])
                && (command.in_loop || command.n_wrappers > 0 || act.says(&["{}"]))
        }
        "gpg" | "gpg2" => {
            (command.has_flag('c') || command.has_argument(&["--symmetric", "--encrypt", "-e"]))
                && (command.in_loop || act.says(&["{}"]))
        }
        "7z" | "7za" | "zip" => {
            let has_password = command
                .arguments()
                .iter()
                .any(|arg| arg.starts_with("-p") && arg.len() > 2)
                || command.has_argument(&["-P", "--password"]);
            has_password && (command.has_argument(&["-sdel", "-m", "-rm"]) || command.in_loop)
        }
        _ => false,
    }
}

fn wipes(act: &Act<'_>, class: PathClass) -> bool {
    let command = act.command;
    let touched = act.names(class);
    match act.name {
        "rm" | "shred" | "unlink" | "truncate" => touched,
        "sed" | "perl" => touched && command.has_flag('i'),
        "journalctl" => {
            class == PathClass::Log
                && command
                    .arguments()
                    .iter()
                    .any(|arg| arg.starts_with("--vacuum"))
        }
        "dmesg" => class == PathClass::Log && (command.has_flag('C') || command.has_flag('c')),
        "logrotate" | "tee" => false,
        "cp" | "ln" | "cat" | "dd" => {
            // `/dev/null` over a file.
            act.writes(class)
                && (act.names(PathClass::Nothing) || act.says(&["/dev/null", "/dev/zero"]))
        }
        "" | ":" | "true" | "echo" | "printf" => {
            act.writes(class) && command.operands().all(str::is_empty)
        }
        _ => false,
    }
}

fn wipes_history(act: &Act<'_>) -> bool {
    let is_history = |path: &str| {
        path.trim_end_matches(['"', '\'']).ends_with("_history") || path.contains("HISTFILE")
    };
    let command = act.command;
    let by_variable = command.assignments.iter().chain(act.args()).any(|word| {
        matches!(
            word.as_str(),
            "HISTSIZE=0"
                | "HISTFILESIZE=0"
                | "HISTFILE=/dev/null"
                | "HISTFILE="
                | "HISTCONTROL=ignorespace"
                | "HISTCONTROL=ignoreboth"
        )
    });
    match act.name {
        "history" => command.has_flag('c') || command.has_flag('d'),
        "unset" => command.operands().any(|name| name.starts_with("HIST")),
        "set" => command.has_argument(&["+o"]) && command.has_argument(&["history"]),
        "rm" | "shred" | "truncate" | "unlink" => command.operands().any(is_history),
        "ln" | "cp" | "cat" | "dd" => {
            act.written.iter().any(|path| is_history(path)) && act.says(&["/dev/null"])
        }
        "" | ":" | "true" | "echo" | "printf"
            if act.written.iter().any(|path| is_history(path)) =>
        {
            true
        }
        _ => by_variable,
    }
}

/// Whether a file is fetched by this command into a file of its own naming.
pub(super) fn fetched_file<'a>(act: &Act<'a>) -> Option<&'a str> {
    if !act.is(Purpose::Download) {
        return None;
    }
    let own_name = match act.name {
        "wget" => act.command.option(&["-O", "--output-document"]).is_none(),
        "curl" => {
            act.command.has_flag('O') || act.command.has_argument(&["--remote-name", "-OJ", "-JO"])
        }
        _ => true,
    };
    if !own_name {
        return None;
    }
    let url = act
        .args()
        .iter()
        .find(|arg| arg.contains("://") || arg.contains('/'))?;
    url.split(['?', '#'])
        .next()
        .and_then(|url| url.rsplit('/').next())
        .filter(|name| !name.is_empty())
}
