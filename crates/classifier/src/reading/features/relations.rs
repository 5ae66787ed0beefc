//! What commands show together: in a pipeline, and in a whole text.

use std::collections::HashSet;

use super::{
    Act, Features, Surroundings,
    act::is_network_device,
    counted,
    files::fetched_file,
    flag,
    network::{fetches, only_loopback, sends, sends_its_input},
};
use crate::reading::{
    Reading, is_interpreter, is_shell,
    objects::{PathClass, Purpose, class_of, is_temporary, normalised},
    runs_its_input,
};

/// Questions of one text that are still everyday.
const FEW_QUESTIONS: usize = 1;

/// The relations between the commands of one pipeline, in order; `acts` are those
/// of its commands and of the substitutions in it.
pub(crate) fn of_pipeline(acts: &[&Act<'_>]) -> Features {
    let mut out = Features::default();
    for (idx, act) in acts.iter().enumerate() {
        let later = || {
            acts[idx + 1..]
                .iter()
                .filter(|other| other.command.stage > act.command.stage)
        };
        // `sh -c "$(…)"`, `eval $(…)`, `bash <(…)`, or a pipeline's earlier part.
        let is_run = later().any(|other| runs_its_input(other.command))
            || acts
                .iter()
                .any(|other| other.command.feeds.as_deref().is_some_and(is_interpreter));
        if fetches(act) && is_run {
            out.fetch_to_interpreter = 1.0;
        }
        if decodes(act) && is_run {
            out.decode_to_interpreter = 1.0;
        }
        let is_sent =
            later().any(|other| sends_its_input(other)) || sends(act) && reads_something(act);
        if is_sent && reads_something(act) {
            out.data_sent = 1.0;
            if act.is(Purpose::Archive) {
                out.archive_sent = 1.0;
            }
            if act.names(PathClass::Secret) {
                out.secret_sent = 1.0;
            }
        }
        let discovers = act.is(Purpose::Discover) && later().any(|other| sends_its_input(other));
        out.data_sent = out.data_sent.max(flag(discovers));
        out.mass_encrypted = out.mass_encrypted.max(flag(
            act.is(Purpose::Archive)
                && later().any(|other| {
                    matches!(other.name, "openssl" | "gpg") && !other.command.has_argument(&["-d"])
                })
                && acts.iter().any(|other| other.name == "rm"),
        ));
    }
    // A command that sends what a substitution prints.
    for act in acts {
        let host_sends = act.command.feeds.as_deref().is_some_and(|host| {
            matches!(
                host,
                "curl" | "wget" | "nc" | "dig" | "nslookup" | "host" | "ping"
            )
        });
        if host_sends && (act.names(PathClass::Secret) || act.reads(PathClass::Secret)) {
            out.secret_sent = 1.0;
            out.data_sent = 1.0;
        }
    }
    out
}

fn reads_something(act: &Act<'_>) -> bool {
    !act.read.is_empty() || act.is(Purpose::Archive) || act.names(PathClass::Secret)
}

fn decodes(act: &Act<'_>) -> bool {
    let command = act.command;
    match act.name {
        "base64" | "base32" | "gpg" => {
            command.has_flag('d')
                || command.has_flag('D')
                || command.has_argument(&["--decode", "--decrypt"])
        }
        "openssl" => command.has_flag('d') && command.has_argument(&["enc", "base64", "-base64"]),
        "xxd" => command.has_flag('r'),
        "gunzip" | "zcat" | "uudecode" | "rev" => true,
        "gzip" => command.has_flag('d'),
        "printf" | "echo" => {
            command.idle_quotes > 3 || act.args().iter().any(|arg| arg.matches("\\x").count() > 3)
        }
        _ => false,
    }
}

/// The relations between all commands of a reading.
pub(crate) fn of_whole(
    reading: &Reading,
    acts: &[Act<'_>],
    surroundings: &Surroundings,
) -> Features {
    let mut out = Features::default();
    let questions: HashSet<&str> = acts.iter().filter_map(question).collect();
    out.discovery_breadth = counted(questions.len().saturating_sub(FEW_QUESTIONS), 7);
    let names_secret = acts
        .iter()
        .any(|act| act.names(PathClass::Secret) && !act.read.is_empty());
    let any_sends = acts.iter().any(|act| {
        sends(act)
            || (sends_its_input(act) && act.command.stage > 0)
            || (act.is_network && !only_loopback(act) && act.says(&["$()"]))
    });
    out.secret_sent = flag(names_secret && any_sends);
    out.archive_sent = flag(acts.iter().any(|act| act.is(Purpose::Archive)) && any_sends);
    written_then_executed(acts, &mut out);
    // A pipe with a name between a shell and a program that talks.
    let makes_pipe = acts
        .iter()
        .any(|act| matches!(act.name, "mkfifo" | "mknod"));
    let talks = acts.iter().any(|act| {
        matches!(
            act.name,
            "nc" | "ncat"
                | "netcat"
                | "telnet"
                | "openssl"
                | "socat"
                | "nc.traditional"
                | "nc.openbsd"
        )
    });
    let bare_shell = acts
        .iter()
        .any(|act| is_shell(act.name) && runs_its_input(act.command));
    let opened = acts.iter().any(|act| {
        act.command
            .redirects
            .iter()
            .any(|r| is_network_device(&r.target))
            && !only_loopback_device(act)
    });
    let reads_descriptor = acts.iter().any(|act| {
        (is_shell(act.name) || act.name == "eval")
            && act.command.redirects.iter().any(|r| r.duplicates)
    });
    out.shell_on_socket = flag(
        ((makes_pipe && talks && bare_shell) || (opened && reads_descriptor))
            && !acts.iter().all(|act| act.is_network && only_loopback(act)),
    );
    let n_hidden = reading
        .layers
        .iter()
        .filter(|layer| layer.is_decoded())
        .count();
    out.decoded_texts = counted(n_hidden, 4);
    out.run_elsewhere = flag(reading.layers.iter().any(|layer| layer.is_elsewhere()));
    out.unread = flag(reading.incomplete);
    out.service_parent = flag(
        surroundings.under_service
            && acts.iter().any(|act| {
                is_shell(act.name)
                    || is_interpreter(act.name)
                    || act.is_network
                    || act.is(Purpose::Discover)
                    || matches!(act.name, "cat" | "ls" | "chmod" | "find")
            }),
    );
    out
}

fn only_loopback_device(act: &Act<'_>) -> bool {
    act.command
        .redirects
        .iter()
        .filter(|r| is_network_device(&r.target))
        .all(|r| {
            r.target.split('/').nth(3).is_some_and(|host| {
                host.starts_with("127.") || host == "localhost" || host == "::1"
            })
        })
}

/// Whether a command asks about the machine.
pub(crate) fn is_question(act: &Act<'_>) -> bool {
    question(act).is_some()
}

/// The question about the machine that a command asks.
fn question<'a>(act: &Act<'a>) -> Option<&'a str> {
    if act.is(Purpose::Discover) {
        // With a program behind them these set something up.
        let only_lists = !matches!(act.name, "env" | "ip" | "route")
            || act.command.operands().all(|o| {
                matches!(
                    o,
                    "a" | "addr" | "show" | "r" | "route" | "neigh" | "link" | "address" | "n"
                )
            });
        return only_lists.then_some(act.name);
    }
    match act.name {
        "cat" | "head" | "less" | "more" | "tail" | "grep" => {
            act.paths.iter().find_map(|(path, class)| match *class {
                PathClass::Accounts => Some("accounts"),
                PathClass::Kernel => Some("kernel"),
                PathClass::SystemConfiguration
                    if path.ends_with("-release")
                        || path.ends_with("/issue")
                        || path.ends_with("hosts")
                        || path.ends_with("resolv.conf") =>
                {
                    Some("release")
                }
                _ => None,
            })
        }
        "crontab" if act.command.has_flag('l') => Some("crontab"),
        "sudo" if act.command.has_flag('l') => Some("sudo"),
        "mount" if act.args().is_empty() => Some("mount"),
        "history" if act.args().is_empty() => Some("history"),
        "systemctl"
            if act
                .command
                .has_argument(&["list-units", "list-timers", "list-unit-files"]) =>
        {
            Some("units")
        }
        "dpkg" | "rpm" if act.command.has_argument(&["-l", "-qa"]) => Some("packages"),
        _ => None,
    }
}

/// Files that one command makes and another runs.
fn written_then_executed(acts: &[Act<'_>], out: &mut Features) {
    let bare = |path: &str| {
        let path = normalised(path);
        path.strip_prefix("./").unwrap_or(&path).to_owned()
    };
    let mut fetched: HashSet<String> = HashSet::new();
    let mut written: HashSet<String> = HashSet::new();
    let mut compiled: HashSet<String> = HashSet::new();
    for act in acts {
        let from_network = fetches(act)
            || decodes(act)
            || acts.iter().any(|other| {
                other.command.pipeline == act.command.pipeline
                    && other.command.layer == act.command.layer
                    && other.command.stage < act.command.stage
                    && (fetches(other) || decodes(other))
            });
        for path in act.written.iter().copied().chain(fetched_file(act)) {
            let path = bare(path);
            if act.is(Purpose::Compile) {
                compiled.insert(path);
            } else if from_network {
                fetched.insert(path);
            } else {
                written.insert(path);
            }
        }
    }
    for act in acts {
        let made_executable: Vec<&str> = if act.name == "chmod" && act.says(&["x", "7", "5"]) {
            act.command.operands().skip(1).collect()
        } else {
            Vec::new()
        };
        let loaded: Vec<&str> = if act.name == "insmod" {
            act.command.operands().collect()
        } else {
            Vec::new()
        };
        for path in act
            .executed
            .iter()
            .copied()
            .chain(made_executable)
            .chain(loaded)
        {
            let path = bare(path);
            let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
            let is_loose = is_temporary(&path) || class_of(&path) == PathClass::Temporary;
            if fetched.contains(&path)
                || fetched.contains(&name)
                || (written.contains(&path) && is_loose)
            {
                out.written_then_executed = 1.0;
            }
            if compiled.contains(&path) && is_loose {
                out.compiled_and_run = 1.0;
            }
        }
    }
}
