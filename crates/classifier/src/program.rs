//! What runs in a case: its command line read, under the name of what really runs.

use std::sync::Arc;

use inwarden_types::{Case, EventData, Image};

use crate::{
    reading::{Read, Reader, Surroundings, is_interpreter},
    render::base_name,
    screen::command_of,
};

/// Reads the command line of a case's last event; `None` where it has none.
pub(crate) fn read_program(reader: &Reader, case: &Case) -> Option<Arc<Read>> {
    let event = case.last();
    let around = surroundings_of(case);
    match &event.data {
        EventData::Exec => Some(read_image(reader, &event.process.image, &around)),
        EventData::ToolCall(call) => command_of(call)
            .line
            .map(|line| reader.line(&line, &around)),
        _ => None,
    }
}

/// What the parents of a case's process say.
pub(crate) fn surroundings_of(case: &Case) -> Surroundings {
    let parents: Vec<&str> = parent_names(case).collect();
    Surroundings::of_parents(&parents)
}

/// Reads the arguments under the name of what runs, not what it calls itself.
pub(crate) fn read_image(reader: &Reader, image: &Image, around: &Surroundings) -> Arc<Read> {
    let exe = image.exe.as_str();
    let args = &image.argv.args;
    let argv0 = args.first().map_or("", |argv0| base_name(argv0));
    let elsewhere = !is_known_program(exe);
    if exe.is_empty() || (argv0 == base_name(exe) && !elsewhere) {
        return reader.argv(args, None, around);
    }
    // It may be an interpreter by either name: program text is looked for by both.
    if is_interpreter(argv0.trim_start_matches('-')) && argv0 != base_name(exe) {
        let other = elsewhere || !is_interpreter(base_name(exe));
        return reader.argv(args, other.then_some(exe), around);
    }
    let mut args = args.clone();
    match args.first_mut() {
        Some(argv0) => exe.clone_into(argv0),
        None => args.push(exe.to_owned()),
    }
    reader.argv(&args, None, around)
}

/// Whether a program lies where only the administrator puts programs, so that its
/// name says what it is; also where its path is not known.
pub(crate) fn is_known_program(exe: &str) -> bool {
    const DIRECTORIES: [&str; 6] = [
        "/bin",
        "/sbin",
        "/usr/bin",
        "/usr/sbin",
        "/usr/local/bin",
        "/usr/local/sbin",
    ];
    let Some((directory, name)) = exe.rsplit_once('/') else {
        return exe.is_empty();
    };
    // Libraries keep their programs in directories of their own.
    let below = ["/usr/lib/", "/usr/lib32/", "/usr/lib64/", "/usr/libexec/"];
    (DIRECTORIES.contains(&directory) || below.iter().any(|root| exe.starts_with(root)))
        && !exe.split('/').any(|part| part == "..")
        && !name.ends_with(" (deleted)")
}

fn parent_names(case: &Case) -> impl Iterator<Item = &str> {
    case.last().ancestors.iter().map(|ancestor| {
        let image = &ancestor.image;
        if image.exe.is_empty() {
            image.comm.as_str()
        } else {
            base_name(&image.exe)
        }
    })
}
