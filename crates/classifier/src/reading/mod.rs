//! Reading a command line: which simple commands it holds, how they are joined,
//! what they act on, and what program text hides inside.
//!
//! A text is parsed (`shell`), its constants are evaluated (`evaluate`), wrappers
//! are looked through (`command`, `embedded`), encodings undone (`decode`). Texts
//! that come out of that are layers of their own. What commands and layers show is
//! in `features`.
//!
//! Nothing here runs anything, fails, recurses over its input or depends on time.
//! Every step has a cap, and [`Reading::incomplete`] says if one was reached.

mod code;
mod command;
mod decode;
mod embedded;
mod evaluate;
mod features;
mod indicators;
mod layers;
mod objects;
mod parts;
mod reader;
mod shell;
mod unicode;

pub(crate) use code::Language;
pub(crate) use command::Command;
pub(crate) use evaluate::runs_its_input;
pub(crate) use features::{Act, Features, Surroundings, acts_of, is_question};
pub(crate) use indicators::{INDICATORS, shown_by};
pub(crate) use layers::{Layer, Origin, Reading};
pub(crate) use objects::{
    AddressClass, Host, PathClass, Purpose, class_of, has_purpose, hosts_in, is_masquerade,
    is_temporary, normalised, paths_in,
};
pub(crate) use reader::{Read, Reader};
pub(crate) use shell::{Outline, PLACEHOLDER, inert_arguments, outline};

/// Whether a program name is a shell's.
pub(crate) fn is_shell(name: &str) -> bool {
    matches!(
        name.trim_start_matches('-'),
        "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" | "fish" | "rbash" | "mksh" | "csh" | "tcsh"
    )
}

/// Whether a program runs program text it is given.
pub(crate) fn is_interpreter(name: &str) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    is_shell(name)
        || matches!(
            stem,
            "python" | "pypy" | "perl" | "ruby" | "node" | "nodejs" | "php" | "lua" | "source"
                | "eval" | "."
        )
        // `trim_end_matches` takes the dot of the builtin away.
        || name == "."
}
