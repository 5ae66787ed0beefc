//! The rules that come with the crate; a test keeps the list complete.

use super::RuleSource;

macro_rules! rules {
    ($($file:literal),* $(,)?) => {
        &[$(RuleSource {
            name: $file,
            text: include_str!(concat!("../../data/rules/", $file)),
        }),*]
    };
}

/// Every file in `data/rules`, in order of name.
pub(super) const RULES: &[RuleSource<'static>] = rules![
    "container_takes_host_root.yml",
    "cron_entry_runs_download.yml",
    "decoded_text_to_shell.yml",
    "descriptor_commands_evaluated.yml",
    "docker_socket_binds_host_root.yml",
    "fifo_shell_over_network.yml",
    "interpreter_shell_on_socket.yml",
    "loader_preload_written.yml",
    "memory_payload_downloaded_and_run.yml",
    "miner_pool_protocol.yml",
    "private_key_sent.yml",
    "relay_executes_shell.yml",
    "release_agent_written.yml",
    "service_account_token_sent.yml",
    "setuid_shell_made.yml",
    "shadow_file_sent.yml",
    "shell_history_unset_and_wiped.yml",
    "shell_history_wiped_in_sealing.yml",
    "shell_to_network_device.yml",
    "sudoers_without_password.yml",
    "web_server_child_explores.yml",
];
