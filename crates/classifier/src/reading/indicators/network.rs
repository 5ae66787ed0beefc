//! Programs that talk, and where their words go.

use crate::reading::{Command, Reading, is_interpreter, is_shell};
use crate::render::script_index;

pub(super) fn socket_shell(reading: &Reading, _: &[&str]) -> bool {
    let redirected = reading.commands.iter().any(|c| {
        (is_shell(c.name()) || c.name() == "exec")
            && redirects_to(c, |target| {
                let peer = target
                    .strip_prefix("/dev/tcp/")
                    .or_else(|| target.strip_prefix("/dev/udp/"));
                peer.is_some_and(|peer| !peer.starts_with("127.") && !peer.starts_with("localhost"))
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
        && reading
            .commands
            .iter()
            .any(|c| is_shell(c.name()) && script_index(&c.words).is_none());
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
    let in_text = reading.says(&["/dev/tcp/", "/dev/udp/"])
        && reading.says(&["0>&1", "<&", ">&", "exec "])
        && !reading.says(&["/dev/tcp/127.", "/dev/tcp/localhost"]);
    redirected || by_tool || by_fifo || by_code || in_text
}

/// Whether output of a command that `source` names reaches an interpreter that
/// would run it.
pub(super) fn feeds_interpreter(reading: &Reading, source: fn(&Command) -> bool) -> bool {
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

pub(super) fn is_downloader(command: &Command) -> bool {
    matches!(
        command.name(),
        "curl" | "wget" | "fetch" | "aria2c" | "lwp-download" | "http"
    ) && !only_loopback(command)
}

pub(super) fn is_decoder(command: &Command) -> bool {
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

pub(super) fn is_network_tool(command: &Command) -> bool {
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

pub(super) fn only_loopback(command: &Command) -> bool {
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

pub(super) fn redirects_to(command: &Command, matches: impl Fn(&str) -> bool) -> bool {
    command.redirects.iter().any(|r| matches(&r.target))
}

/// Whether a word holds an IPv4 address that is neither loopback nor private.
pub(super) fn has_public_address(word: &str) -> bool {
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

pub(super) fn uploads(reading: &Reading) -> bool {
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

pub(super) fn listens(command: &Command) -> bool {
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

pub(super) fn service_shell(reading: &Reading, parents: &[&str]) -> bool {
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
