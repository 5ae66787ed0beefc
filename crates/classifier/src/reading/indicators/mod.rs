//! Classes of behaviour that a reading can show, each with its ATT&CK technique.
//!
//! An indicator is evidence, never a verdict: its weight comes from the
//! calibration. Each looks at what commands do to which objects, not at whole
//! strings, so that renaming a host or a file does not change it.

mod files;
mod network;
mod system;

use super::{Command, Reading};
use files::{
    destroys, is_secret, is_temporary, names_secret, reads_secret, runs_temporary,
    writes_persistence,
};
use network::{
    feeds_interpreter, has_public_address, is_decoder, is_downloader, is_network_tool, listens,
    only_loopback, redirects_to, service_shell, socket_shell, uploads,
};
use system::{
    captures, changes_account, discovery, enters_host, evades, is_hostile_tool, raises_privilege,
    shell_from_tool,
};

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
            let touches = |c: &Command| names_secret(c) || redirects_to(c, is_secret);
            reading.commands.iter().any(touches)
                && reading
                    .commands
                    .iter()
                    .any(|c| is_network_tool(c) && !only_loopback(c))
        },
    },
    Indicator {
        name: "secret_upload",
        technique: "T1048.003",
        summary: "a file of credentials goes into a command that uploads",
        shows: |reading, _| reading.commands.iter().any(reads_secret) && uploads(reading),
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

#[cfg(test)]
mod tests;
