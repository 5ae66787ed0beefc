//! What a command makes others run: argument vectors after `find -exec`, lines
//! behind `ssh`, program text behind `-c`, calls in program text.

use super::{Command, Language, code, is_shell};
use crate::render::{base_name, script_index};

/// Bodies that one command may hold.
const MAX_BODIES: usize = 16;

/// Something that a command runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Embedded {
    /// Another argument vector in the same text.
    Words(Vec<String>),
    /// A text of its own.
    Text {
        text: String,
        language: Language,
        means: Means,
    },
}

/// What makes an embedded text run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// Given to an interpreter as an argument.
    Argument,
    /// `eval` and `trap`.
    Eval,
    /// Run on another machine or in another container.
    Elsewhere,
    /// A call in program text, or an escape of an editor or debugger.
    Call,
}

/// All that `command` is seen to run.
pub(super) fn embedded_in(command: &Command) -> Vec<Embedded> {
    let mut found = Vec::new();
    let name = command.name();
    let args = command.arguments();
    if let Some(idx) = script_index(&command.words) {
        let interpreter = command.words[..idx]
            .iter()
            .rev()
            .map(|word| base_name(word))
            .find_map(Language::of_interpreter)
            .unwrap_or(Language::Shell);
        found.push(text(&command.words[idx], interpreter, Means::Argument));
    }
    // `watch 'a b'`: the program is a line.
    if command.n_wrappers > 0 && command.program().contains(' ') {
        found.push(text(command.program(), Language::Shell, Means::Argument));
    }
    match name {
        "eval" | "trap" if !args.is_empty() => {
            let line = if name == "trap" {
                args[0].clone()
            } else {
                args.join(" ")
            };
            found.push(text(&line, Language::Shell, Means::Eval));
        }
        "ssh" | "mosh" | "rsh" => found.extend(behind_ssh(args)),
        "find" | "fd" | "fdfind" => found.extend(executed_by_find(args)),
        "docker" | "podman" | "nerdctl" | "crictl" | "kubectl" | "oc" | "lxc" | "ctr" | "runc" => {
            found.extend(in_container(args));
        }
        "nsenter" | "unshare" | "chroot" | "systemd-run" | "systemd-nspawn" | "setpriv"
        | "capsh" | "firejail" | "bwrap" | "runuser" | "setarch" | "start-stop-daemon"
        | "torsocks" | "torify" => {
            found.extend(behind_options(name, args));
        }
        "su" if script_index(&command.words).is_none() => {
            let body = command.option(&["-c", "--command"]);
            found.extend(body.map(|body| text(body, Language::Shell, Means::Argument)));
        }
        "parallel" | "expect" => {
            for arg in args.iter().filter(|arg| arg.contains(' ')).take(2) {
                found.push(text(arg, Language::Shell, Means::Argument));
            }
        }
        "awk" | "gawk" | "mawk" | "nawk" => {
            for program in args
                .iter()
                .filter(|arg| arg.contains('(') || arg.contains('|'))
                .take(2)
            {
                found.push(text(program, Language::Awk, Means::Argument));
            }
        }
        "vim" | "vi" | "view" | "nvim" | "rvim" | "gdb" | "ed" | "less" | "man" | "ftp"
        | "mysql" | "psql" | "sqlite3" => {
            found.extend(args.iter().filter_map(|arg| escape(arg)).take(2));
        }
        "tar" | "bsdtar" => {
            let run = args.iter().filter_map(|arg| {
                arg.strip_prefix("--checkpoint-action=exec=")
                    .or_else(|| arg.strip_prefix("--to-command="))
                    .or_else(|| arg.strip_prefix("--use-compress-program="))
            });
            found.extend(run.map(|line| text(line, Language::Shell, Means::Call)));
        }
        _ => {}
    }
    // The program behind a keyword of make, git or rsync.
    for arg in args {
        for key in [
            "--eval=",
            "core.pager=",
            "core.sshCommand=",
            "core.fsmonitor=",
            "ProxyCommand=",
            "LocalCommand=",
            "--exec=",
            "--rsh=",
        ] {
            if let Some(line) = arg.strip_prefix(key)
                && matches!(name, "make" | "git" | "ssh" | "scp" | "sftp" | "rsync")
            {
                found.push(text(
                    line.trim_start_matches(['!', ';']),
                    Language::Shell,
                    Means::Call,
                ));
            }
        }
    }
    found.truncate(MAX_BODIES);
    found
}

/// What program text makes a shell run, and the literals that may be commands.
pub(super) fn called_in(body: &str, language: Language) -> Vec<Embedded> {
    code::calls(body, language)
        .into_iter()
        .take(MAX_BODIES)
        .map(|line| Embedded::Text {
            text: line,
            language: Language::Shell,
            means: Means::Call,
        })
        .collect()
}

fn text(body: &str, language: Language, means: Means) -> Embedded {
    Embedded::Text {
        text: body.to_owned(),
        language,
        means,
    }
}

/// `ssh [options] host command…`: the words are one line for the other side.
fn behind_ssh(args: &[String]) -> Option<Embedded> {
    const WITH_VALUE: &str = "BbcDEeFIiJLlmOopQRSWw";
    let mut idx = 0;
    while let Some(arg) = args.get(idx).filter(|arg| arg.starts_with('-')) {
        let takes = arg.len() == 2 && arg.ends_with(|c| WITH_VALUE.contains(c));
        idx += 1 + usize::from(takes);
    }
    let line = args.get(idx + 1..)?.join(" ");
    (!line.trim().is_empty()).then(|| text(&line, Language::Shell, Means::Elsewhere))
}

fn executed_by_find(args: &[String]) -> Vec<Embedded> {
    let mut found = Vec::new();
    for (idx, arg) in args.iter().enumerate() {
        if !matches!(
            arg.as_str(),
            "-exec" | "-execdir" | "-ok" | "-okdir" | "-x" | "--exec"
        ) {
            continue;
        }
        let words: Vec<String> = args[idx + 1..]
            .iter()
            .take_while(|word| !matches!(word.as_str(), ";" | "\\;" | "+"))
            .cloned()
            .collect();
        if !words.is_empty() {
            found.push(Embedded::Words(words));
        }
    }
    found
}

/// `docker exec [options] name command…` and the same of its relatives.
fn in_container(args: &[String]) -> Option<Embedded> {
    let verb = args
        .iter()
        .position(|arg| matches!(arg.as_str(), "exec" | "run" | "create" | "debug"))?;
    if let Some(separator) = args.iter().position(|arg| arg == "--") {
        let words = args[separator + 1..].to_vec();
        return (!words.is_empty()).then_some(Embedded::Words(words));
    }
    let mut idx = verb + 1;
    while let Some(arg) = args.get(idx).filter(|arg| arg.starts_with('-')) {
        // Options of one letter that are switches; long ones without `=` mostly take a value.
        let is_switch = arg.contains('=')
            || matches!(
                arg.as_str(),
                "--rm"
                    | "--privileged"
                    | "--detach"
                    | "--interactive"
                    | "--tty"
                    | "--init"
                    | "--read-only"
                    | "--stdin"
            )
            || (!arg.starts_with("--") && arg[1..].chars().all(|c| "itdPT".contains(c)));
        idx += if is_switch { 1 } else { 2 };
    }
    let words = args.get(idx + 1..)?.to_vec();
    (!words.is_empty()).then_some(Embedded::Words(words))
}

/// The command behind the options of a program that changes its surroundings.
fn behind_options(name: &str, args: &[String]) -> Option<Embedded> {
    let with_value: &[&str] = match name {
        "nsenter" => &["-t", "--target", "-S", "-G"],
        "systemd-run" => &[
            "-p",
            "-u",
            "--unit",
            "--property",
            "-M",
            "-E",
            "--uid",
            "--gid",
        ],
        "runuser" => &["-u", "-g", "-c"],
        "start-stop-daemon" => &[
            "-x",
            "-n",
            "-p",
            "-u",
            "-c",
            "-d",
            "--exec",
            "--pidfile",
            "--chuid",
        ],
        "bwrap" => {
            return args
                .iter()
                .position(|a| a == "--")
                .and_then(|at| words_from(args, at + 1));
        }
        _ => &["-D", "-M", "-S"],
    };
    let mut idx = 0;
    while let Some(arg) = args.get(idx).filter(|arg| arg.starts_with('-')) {
        if arg == "--" {
            idx += 1;
            break;
        }
        idx += 1 + usize::from(with_value.contains(&arg.as_str()));
    }
    words_from(args, idx + usize::from(name == "chroot"))
}

fn words_from(args: &[String], idx: usize) -> Option<Embedded> {
    let words = args.get(idx..)?.to_vec();
    (!words.is_empty()).then_some(Embedded::Words(words))
}

/// `:!cmd`, `shell cmd`, `!cmd`, `\! cmd`: an editor, debugger or client that runs one.
fn escape(arg: &str) -> Option<Embedded> {
    let arg = arg.trim_start_matches(['-', '+']);
    let line = [":!", "!", "\\!", ".shell ", ".system ", "shell ", "system "]
        .iter()
        .find_map(|start| arg.strip_prefix(start))?;
    Some(text(line, Language::Shell, Means::Call))
}

/// Whether `name` is an interpreter whose body is shell.
pub(super) fn speaks_shell(name: &str) -> bool {
    is_shell(name) || matches!(name, "su" | "runuser")
}
