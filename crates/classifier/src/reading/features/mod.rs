//! What a reading says, as numbers: classes of objects and of acts.
//!
//! A feature is a property of the text that anybody can check, not a memory of
//! known attacks. All are non-negative, and more text never lowers one: those of a
//! whole are the maximum over its parts and what the parts show together. So with
//! non-negative weights nothing that is added can make a score smaller.
//!
//! What excuses rather than accuses is not here: it must not come from text that
//! an attacker may write. See [`Surroundings`].

mod act;
mod code;
mod files;
mod hiding;
mod network;
mod relations;
mod surroundings;
mod system;

pub(crate) use act::Act;
pub(crate) use hiding::text_features;
pub(crate) use relations::{is_question, of_pipeline, of_whole};
pub(crate) use surroundings::Surroundings;

use super::{Command, Layer};

macro_rules! features {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// One number per class; 0 is absent. Flags are 0 or 1, counts and shares
        /// are squeezed into `0.0..=1.0`.
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub(crate) struct Features {
            $($(#[doc = $doc])+ pub(crate) $name: f32,)+
        }

        impl Features {
            /// The names, in the order of [`Features::values`].
            pub(crate) const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];
            pub(crate) const COUNT: usize = Self::NAMES.len();

            /// All values, each in `0.0..=1.0`.
            pub(crate) fn values(&self) -> [f32; Self::COUNT] {
                [$(self.$name),+]
            }

            /// Takes the larger value of each.
            pub(crate) fn raise(&mut self, other: &Self) {
                $(self.$name = self.$name.max(other.$name);)+
            }
        }
    };
}

features! {
    /// A file of keys, passwords, tokens or histories is named.
    secret_named,
    /// Such a file is read, copied or packed.
    secret_read,
    /// Such a file is named by a program that has nothing to do with such files.
    secret_by_stranger,
    /// A secret is read where data leaves for another machine.
    secret_sent,
    /// Files are searched for passwords, keys or set-id programs.
    secret_searched,
    /// The files of accounts or passwords are written.
    accounts_written,
    /// A place from which programs start by themselves is written.
    persistence_written,
    /// Such a place, or who may use sudo or log in, is named by a program that has
    /// nothing to do with such files.
    startup_by_stranger,
    /// A job or unit is scheduled by command.
    persistence_scheduled,
    /// A library is put before others of every or this program.
    preload_changed,
    /// Who may use sudo is changed.
    sudoers_changed,
    /// A program in a world-writable place is run or made executable.
    temporary_executed,
    /// A program in a hidden place is run.
    hidden_executed,
    /// A file is fetched, decoded or put into a temporary place, and then run.
    written_then_executed,
    /// A program without a file is run: memory or a removed file.
    memory_executed,
    /// A program bears the name of a system's part in a place where that is not.
    masquerade,
    /// Source is compiled in a temporary place or from text, and the result run.
    compiled_and_run,
    /// A bare public address is named by a program that talks.
    address_public,
    /// A bare private address is named by a program that talks.
    address_private,
    /// The own machine is named by a program that talks.
    address_loopback,
    /// A cloud's credential service is asked.
    metadata_asked,
    /// Something is fetched without encryption from another machine.
    fetched_in_clear,
    /// What is fetched is a program or script by its name.
    fetched_program,
    /// The shell's own network device is opened to another machine.
    network_device,
    /// Descriptors above 2 are opened, or input and output point to one place.
    descriptor_juggling,
    /// A shell or interpreter is tied to a socket.
    shell_on_socket,
    /// A port is opened or forwarded by hand.
    listener,
    /// A program that carries connections through others.
    tunnel,
    /// What is fetched goes straight into an interpreter.
    fetch_to_interpreter,
    /// What is decoded goes straight into an interpreter.
    decode_to_interpreter,
    /// A file or output is sent to another machine.
    data_sent,
    /// What is packed is sent.
    archive_sent,
    /// Texts that were hidden by an encoding: 1 for one, up to 4.
    decoded_texts,
    /// A program's name or a word is put together from variables or patterns.
    assembled,
    /// Quotes or escapes that change nothing split words: up to 6.
    idle_quotes,
    /// Invisible, direction-changing or look-alike characters.
    hidden_characters,
    /// The longest word that looks random, by length.
    random_word,
    /// Program text of another language is given as an argument.
    inline_program,
    /// A tool that is no shell is made to start one.
    shell_from_tool,
    /// Wrappers around the program: up to 4.
    wrapper_depth,
    /// Text is run on another machine or in another container.
    run_elsewhere,
    /// Set-id bits are set.
    set_id,
    /// Something is made writable for everybody.
    world_writable,
    /// Capabilities are given to a file.
    capability_given,
    /// A kernel setting that protects is changed.
    protection_lowered,
    /// A kernel module is loaded or removed.
    kernel_module,
    /// Logs are wiped.
    log_wiped,
    /// The shell's history is wiped or switched off.
    history_wiped,
    /// Firewall, audit or protection software is stopped or removed.
    defence_disabled,
    /// Traces are altered: times copied, attributes locked.
    trace_altered,
    /// Different questions about the machine in one text: from 2 up to 8.
    discovery_breadth,
    /// The host is reached from a container.
    host_reached,
    /// A container is started with the host's rights or files.
    privileged_container,
    /// Another process's memory is read or steered.
    process_inspected,
    /// Traffic, keys, screen or sound are recorded.
    captured,
    /// A currency is mined.
    mining,
    /// A scanner, cracker or attack tool.
    offensive_tool,
    /// A system's directories are deleted.
    system_deleted,
    /// A disk is overwritten or a file destroyed beyond repair.
    data_destroyed,
    /// Many files are encrypted or their backups deleted.
    mass_encrypted,
    /// Processes multiply without end.
    exhaustion,
    /// Accounts, passwords or privileged groups are changed.
    account_changed,
    /// A network service runs a shell, a tool or a question.
    service_parent,
    /// Something was not read: a cap was reached or the text is broken off.
    unread,
}

/// A flag.
pub(super) fn flag(set: bool) -> f32 {
    if set { 1.0 } else { 0.0 }
}

/// A count as a share of `full`.
pub(super) fn counted(count: usize, full: u16) -> f32 {
    let count = u16::try_from(count).unwrap_or(u16::MAX).min(full);
    f32::from(count) / f32::from(full.max(1))
}

/// The features that one command shows alone.
pub(crate) fn of_command(act: &Act<'_>) -> Features {
    let mut features = Features::default();
    files::mark(act, &mut features);
    network::mark(act, &mut features);
    system::mark(act, &mut features);
    hiding::mark(act, &mut features);
    features
}

/// The features of a text by itself, of whatever language.
pub(crate) fn of_layer(layer: &Layer) -> Features {
    let mut features = text_features(&layer.text);
    code::mark(layer, &mut features);
    features
}

/// The acts of commands, in order.
pub(crate) fn acts_of(commands: &[Command]) -> Vec<Act<'_>> {
    commands.iter().map(Act::of).collect()
}

#[cfg(test)]
mod tests;
