//! Programs that talk, with whom, and what for.

use super::{Act, Features, act::is_network_device, flag};
use crate::reading::{
    Command, is_interpreter, is_shell,
    objects::{AddressClass, Host, PathClass, Purpose, hosts_in, url_of},
};

pub(super) fn mark(act: &Act<'_>, out: &mut Features) {
    let talks = act.is_network || act.args().iter().any(|arg| arg.contains("://"));
    let names = |class| talks && act.hosts.contains(&Host::Address(class));
    let device = act
        .command
        .redirects
        .iter()
        .find(|r| is_network_device(&r.target));
    let device_host = device.map(|r| hosts_in(&r.target));
    let device_is = |class| {
        device_host
            .as_ref()
            .is_some_and(|hosts| hosts.contains(&Host::Address(class)))
    };
    out.address_public = flag(names(AddressClass::Public) || device_is(AddressClass::Public));
    out.address_private = flag(names(AddressClass::Private) || device_is(AddressClass::Private));
    out.address_loopback = flag(names(AddressClass::Loopback) || device_is(AddressClass::Loopback));
    out.metadata_asked = flag(act.hosts.contains(&Host::Address(AddressClass::Metadata)));
    if act.is(Purpose::Download) {
        out.fetched_in_clear = flag(act.args().iter().any(|arg| is_clear(arg)));
        out.fetched_program = flag(act.args().iter().any(|arg| names_program(arg)));
    }
    out.network_device = flag(device.is_some() && !device_is(AddressClass::Loopback));
    out.descriptor_juggling = flag(juggles(act.command));
    out.shell_on_socket = flag(ties_shell(act));
    out.listener = flag(listens(act));
    out.tunnel = flag(act.is(Purpose::Tunnel) || tunnels(act));
    out.data_sent = flag(sends(act));
    out.mining = flag(mines(act));
}

fn is_clear(arg: &str) -> bool {
    url_of(arg).is_some_and(|url| {
        let elsewhere = !hosts_in(arg).contains(&Host::Address(AddressClass::Loopback));
        matches!(url.scheme, "http" | "ftp" | "tftp") && elsewhere
    })
}

fn names_program(arg: &str) -> bool {
    let Some(url) = url_of(arg) else { return false };
    let path = url.path.split(['?', '#']).next().unwrap_or("");
    let name = path.rsplit('/').next().unwrap_or("");
    [
        ".sh", ".py", ".pl", ".elf", ".bin", ".so", ".ko", ".out", ".run", ".c", ".php", ".jar",
        ".rb",
    ]
    .iter()
    .any(|end| name.ends_with(end))
}

/// Input and output of one command go to one place, or high descriptors are used.
fn juggles(command: &Command) -> bool {
    let duplicates_input = command
        .redirects
        .iter()
        .any(|r| r.duplicates && (r.fd == Some(0) || (r.fd.is_none() && !r.writes)));
    let opens_high = command
        .redirects
        .iter()
        .any(|r| !r.duplicates && r.fd.is_some_and(|fd| fd > 2) && is_network_device(&r.target));
    let uses_high = command
        .redirects
        .iter()
        .filter(|r| r.duplicates && r.target.parse::<u32>().is_ok_and(|fd| fd > 2))
        .count()
        >= 2;
    duplicates_input || opens_high || uses_high
}

fn ties_shell(act: &Act<'_>) -> bool {
    let command = act.command;
    let names_shell = act.args().iter().any(|arg| names_shell(arg));
    let by_tool = match act.name {
        "nc" | "ncat" | "netcat" | "nc.traditional" | "nc.openbsd" => {
            (command.has_flag('e')
                || command.has_flag('c')
                || command.has_argument(&["--exec", "--sh-exec", "--lua-exec"]))
                && names_shell
        }
        "socat" => {
            act.args().iter().any(|arg| {
                let upper = arg.to_uppercase();
                (upper.contains("EXEC:") || upper.contains("SYSTEM:")) && names_shell
            }) && act.args().iter().any(|arg| {
                let upper = arg.to_uppercase();
                ["TCP", "UDP", "SSL", "OPENSSL", "SCTP", "VSOCK"]
                    .iter()
                    .any(|kind| upper.starts_with(kind))
            })
        }
        _ => false,
    };
    let device_remote = command.redirects.iter().any(|r| {
        is_network_device(&r.target)
            && !hosts_in(&r.target).contains(&Host::Address(AddressClass::Loopback))
    });
    by_tool || (device_remote && is_interpreter(act.name))
}

fn names_shell(arg: &str) -> bool {
    arg.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '.')))
        .any(|piece| is_shell(piece.rsplit('/').next().unwrap_or(piece)) && piece != "-")
}

fn listens(act: &Act<'_>) -> bool {
    let command = act.command;
    match act.name {
        "nc" | "ncat" | "netcat" | "nc.traditional" | "nc.openbsd" => {
            command.has_flag('l') || command.has_argument(&["--listen"])
        }
        "socat" => act
            .args()
            .iter()
            .any(|arg| arg.to_uppercase().contains("LISTEN")),
        "ssh" => act.args().iter().any(|arg| forwards(arg)),
        "php" => command.has_flag('S'),
        name if name.starts_with("python") => command.has_argument(&[
            "http.server",
            "SimpleHTTPServer",
            "pyftpdlib",
            "uploadserver",
        ]),
        _ => false,
    }
}

/// `-R`, `-D` and `-w` of ssh.
fn forwards(arg: &str) -> bool {
    arg.starts_with('-')
        && !arg.starts_with("--")
        && !arg.starts_with("-o")
        && arg
            .chars()
            .skip(1)
            .take(4)
            .any(|c| matches!(c, 'R' | 'D' | 'w'))
}

fn tunnels(act: &Act<'_>) -> bool {
    match act.name {
        "ssh" => act.args().iter().any(|arg| forwards(arg)),
        "socat" => {
            let upper: Vec<String> = act.args().iter().map(|arg| arg.to_uppercase()).collect();
            upper.iter().any(|arg| arg.contains("LISTEN"))
                && upper
                    .iter()
                    .filter(|arg| arg.starts_with("TCP") || arg.starts_with("UDP"))
                    .count()
                    > 1
        }
        _ => false,
    }
}

/// Whether this command sends a file or its input to another machine.
pub(super) fn sends(act: &Act<'_>) -> bool {
    let command = act.command;
    let args = act.args();
    if !act.is_network || only_loopback(act) {
        return false;
    }
    match act.name {
        "curl" => {
            command.option(&["-T", "--upload-file"]).is_some()
                || args.iter().any(|arg| carries_file(arg))
                || args.windows(2).any(|pair| {
                    is_body_option(&pair[0])
                        && (pair[1].contains('@')
                            && !pair[1].contains("@-")
                            && !looks_like_mail(&pair[1])
                            || pair[1].contains("$()"))
                })
        }
        "wget" => args
            .iter()
            .any(|arg| arg.starts_with("--post-file") || arg.starts_with("--body-file")),
        "scp" | "rsync" | "croc" | "rclone" => {
            command.operands().last().is_some_and(is_remote) && command.operands().count() > 1
        }
        "tftp" | "ftp" | "sftp" | "lftp" | "smbclient" => {
            args.iter().any(|arg| arg.contains("put"))
        }
        "nc" | "ncat" | "netcat" | "socat" | "telnet" => {
            !act.read.is_empty() && command.read().next().is_some()
        }
        "aws" | "gsutil" | "s3cmd" | "mc" | "az" => {
            command.has_argument(&["cp", "put", "sync", "mv", "upload"])
                && command
                    .operands()
                    .last()
                    .is_some_and(|to| to.contains("://"))
        }
        "dig" | "nslookup" | "host" => args.iter().any(|arg| arg.contains("$()")),
        "mail" | "mailx" | "mutt" | "sendmail" | "swaks" => {
            command.option(&["-a", "-A", "--attach"]).is_some() || command.read().next().is_some()
        }
        _ => command.written().any(is_network_device),
    }
}

fn is_body_option(option: &str) -> bool {
    matches!(
        option,
        "-d" | "--data"
            | "--data-binary"
            | "-F"
            | "--form"
            | "--data-raw"
            | "--data-urlencode"
            | "--json"
    )
}

fn carries_file(arg: &str) -> bool {
    [
        "-d@",
        "--data-binary=@",
        "-F@",
        "--data=@",
        "--data-urlencode=@",
    ]
    .iter()
    .any(|start| arg.starts_with(start) && !arg.ends_with("@-"))
        || (arg.starts_with("-F") && arg.contains("=@"))
}

fn looks_like_mail(value: &str) -> bool {
    value.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && !user.ends_with('=') && host.contains('.') && !host.contains('/')
    })
}

/// `host:path` or a URL.
fn is_remote(operand: &str) -> bool {
    operand.contains("://")
        || operand
            .split_once(':')
            .is_some_and(|(host, _)| !host.is_empty() && !host.contains('/'))
}

/// Whether a sender takes what is piped into it.
pub(super) fn sends_its_input(act: &Act<'_>) -> bool {
    let args = act.args();
    if only_loopback(act) {
        return false;
    }
    match act.name {
        "nc" | "ncat" | "netcat" | "socat" | "telnet" | "nc.traditional" | "nc.openbsd" => {
            !listens(act) || act.command.has_flag('w')
        }
        "curl" => {
            args.iter()
                .any(|arg| arg.ends_with("@-") || arg == "-T-" || arg == "-F-")
                || act
                    .command
                    .option(&["-T", "--upload-file"])
                    .is_some_and(|f| f == "-" || f == ".")
        }
        "wget" => args.iter().any(|arg| arg.ends_with("=-")),
        "ssh" => act.command.operands().count() > 1,
        "mail" | "mailx" | "mutt" | "sendmail" | "swaks" => true,
        "aws" | "gsutil" | "rclone" => {
            args.iter().any(|arg| arg == "-") || act.command.has_argument(&["rcat"])
        }
        "openssl" => act.command.has_argument(&["s_client"]),
        _ => act.command.written().any(is_network_device),
    }
}

/// Whether the only hosts it names are the own machine.
pub(super) fn only_loopback(act: &Act<'_>) -> bool {
    !act.hosts.is_empty()
        && act
            .hosts
            .iter()
            .all(|host| *host == Host::Address(AddressClass::Loopback))
}

/// Whether it fetches from another machine.
pub(super) fn fetches(act: &Act<'_>) -> bool {
    act.is(Purpose::Download) && !only_loopback(act)
        || (matches!(act.name, "nc" | "ncat" | "netcat")
            && !listens(act)
            && act.command.operands().count() > 1)
        || act.command.read().any(is_network_device)
}

fn mines(act: &Act<'_>) -> bool {
    act.is(Purpose::Mine)
        || act.says(&[
            "stratum+tcp",
            "stratum+ssl",
            "stratum2+",
            "--donate-level",
            "--randomx",
            "--coin=",
            "--rig-id",
        ])
        || (act.names(PathClass::Temporary)
            && act.says(&["--threads", "-t"])
            && act.says(&["pool.", ":3333", ":14444"]))
}
