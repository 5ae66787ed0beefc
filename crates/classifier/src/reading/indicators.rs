//! Classes of behaviour that a reading can show, each with its ATT&CK technique.
//!
//! An indicator is evidence, never a verdict: its weight comes from the
//! calibration. Each is a view of the features, with the words that explain it.

use super::Features;

/// A class of behaviour.
pub(crate) struct Indicator {
    /// Stable name; the calibration file uses it.
    pub(crate) name: &'static str,
    /// ATT&CK technique id.
    pub(crate) technique: &'static str,
    /// What it says, as evidence.
    pub(crate) summary: &'static str,
    /// Above 0 if it shows.
    strength: fn(&Features) -> f32,
}

/// The indicators that these features show, in the order of [`INDICATORS`].
pub(crate) fn shown_by(features: &Features) -> Vec<bool> {
    INDICATORS
        .iter()
        .map(|indicator| (indicator.strength)(features) > 0.0)
        .collect()
}

/// All indicators.
pub(crate) const INDICATORS: &[Indicator] = &[
    Indicator {
        name: "socket_shell",
        technique: "T1059.004",
        summary: "a shell or interpreter is tied to a network socket",
        strength: |f| f.shell_on_socket,
    },
    Indicator {
        name: "download_to_interpreter",
        technique: "T1105",
        summary: "downloaded text goes straight into an interpreter",
        strength: |f| f.fetch_to_interpreter,
    },
    Indicator {
        name: "decode_to_interpreter",
        technique: "T1027",
        summary: "decoded text goes straight into an interpreter",
        strength: |f| f.decode_to_interpreter,
    },
    Indicator {
        name: "hidden_text",
        technique: "T1140",
        summary: "an argument holds encoded commands",
        strength: |f| f.decoded_texts,
    },
    Indicator {
        name: "secret_read",
        technique: "T1552.001",
        summary: "a file of credentials is read",
        strength: |f| f.secret_read,
    },
    Indicator {
        name: "secret_and_network",
        technique: "T1048",
        summary: "credentials are read and sent in one command line",
        strength: |f| f.secret_sent,
    },
    Indicator {
        name: "secret_upload",
        technique: "T1048.003",
        summary: "a file of credentials goes into a command that uploads",
        strength: |f| f.secret_sent.min(f.data_sent),
    },
    Indicator {
        name: "persistence_write",
        technique: "T1053.003",
        summary: "a place from which programs start by themselves is written",
        strength: |f| {
            f.persistence_written
                .max(f.persistence_scheduled)
                .max(f.accounts_written)
        },
    },
    Indicator {
        name: "temporary_program",
        technique: "T1059.004",
        summary: "a program in a temporary or hidden place is made executable or run",
        strength: |f| {
            f.temporary_executed
                .max(f.memory_executed)
                .max(f.hidden_executed)
        },
    },
    Indicator {
        name: "privilege",
        technique: "T1548.001",
        summary: "set-id bits, capabilities or sudo rules are changed",
        strength: |f| f.set_id.max(f.capability_given).max(f.sudoers_changed),
    },
    Indicator {
        name: "container_escape",
        technique: "T1611",
        summary: "the host is reached from a container",
        strength: |f| f.host_reached.max(f.privileged_container),
    },
    Indicator {
        name: "evasion",
        technique: "T1562.001",
        summary: "logging, history, firewall or monitoring is switched off or wiped",
        strength: |f| {
            f.log_wiped
                .max(f.history_wiped)
                .max(f.defence_disabled)
                .max(f.trace_altered)
                .max(f.protection_lowered)
        },
    },
    Indicator {
        name: "shell_from_tool",
        technique: "T1059.004",
        summary: "a tool that is no shell is made to start one",
        strength: |f| f.shell_from_tool,
    },
    Indicator {
        name: "preload",
        technique: "T1574.006",
        summary: "a library is forced into other programs",
        strength: |f| f.preload_changed,
    },
    Indicator {
        name: "discovery",
        technique: "T1082",
        summary: "several questions about the machine and its users at once",
        strength: |f| f.discovery_breadth - 0.2,
    },
    Indicator {
        name: "cloud_metadata",
        technique: "T1552.005",
        summary: "the cloud's credential service is asked",
        strength: |f| f.metadata_asked,
    },
    Indicator {
        name: "hostile_tool",
        technique: "T1588.002",
        summary: "a scanner, miner, cracker or tunnel is used",
        strength: |f| f.offensive_tool.max(f.mining).max(f.tunnel),
    },
    Indicator {
        name: "raw_address",
        technique: "T1071.001",
        summary: "a network tool talks to a bare public address",
        strength: |f| f.address_public,
    },
    Indicator {
        name: "service_shell",
        technique: "T1505.003",
        summary: "a network service starts a shell or an administration tool",
        strength: |f| f.service_parent,
    },
    Indicator {
        name: "destruction",
        technique: "T1485",
        summary: "data or disks are destroyed",
        strength: |f| {
            f.system_deleted
                .max(f.data_destroyed)
                .max(f.mass_encrypted)
                .max(f.exhaustion)
        },
    },
    Indicator {
        name: "account_change",
        technique: "T1136.001",
        summary: "accounts or passwords are changed",
        strength: |f| f.account_changed,
    },
    Indicator {
        name: "upload",
        technique: "T1048.003",
        summary: "a file or command output is sent to another machine",
        strength: |f| f.data_sent,
    },
    Indicator {
        name: "listener",
        technique: "T1571",
        summary: "a port is opened or forwarded by hand",
        strength: |f| f.listener,
    },
    Indicator {
        name: "kernel_change",
        technique: "T1547.006",
        summary: "kernel modules or settings are changed",
        strength: |f| f.kernel_module,
    },
    Indicator {
        name: "capture",
        technique: "T1040",
        summary: "traffic, keys or another process's memory are recorded",
        strength: |f| f.captured.max(f.process_inspected),
    },
];

#[cfg(test)]
#[path = "indicator_tests.rs"]
mod tests;
