//! One command with its objects, looked up once for all features.

use crate::reading::{
    Command, Language,
    objects::{Host, PathClass, Purpose, class_of, has_purpose, hosts_in, paths_in},
};
use crate::render::script_index;

/// A command and what it acts on.
#[derive(Debug)]
pub(crate) struct Act<'a> {
    pub(crate) command: &'a Command,
    pub(crate) name: &'a str,
    /// Every path it names, program text left out.
    pub(crate) paths: Vec<(&'a str, PathClass)>,
    pub(crate) written: Vec<&'a str>,
    pub(crate) read: Vec<&'a str>,
    /// Files it runs as programs or scripts.
    pub(crate) executed: Vec<&'a str>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) is_network: bool,
}

impl<'a> Act<'a> {
    pub(crate) fn of(command: &'a Command) -> Self {
        let name = command.name();
        let body_idx = script_index(&command.words);
        let operands: Vec<&str> = command
            .words
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(idx, _)| Some(*idx) != body_idx)
            .map(|(_, word)| word.as_str())
            .collect();
        let prints = matches!(name, "echo" | "printf" | ":" | "true");
        let mut paths: Vec<(&str, PathClass)> = Vec::new();
        if !prints {
            paths = operands
                .iter()
                .flat_map(|word| paths_in(word))
                .map(|p| (p, class_of(p)))
                .collect();
        }
        let redirected = command
            .redirects
            .iter()
            .filter(|r| !r.duplicates)
            .map(|r| r.target.as_str());
        paths.extend(redirected.map(|target| (target, class_of(target))));
        let is_network = has_purpose(name, Purpose::Network)
            || has_purpose(name, Purpose::Tunnel)
            || command
                .redirects
                .iter()
                .any(|r| is_network_device(&r.target));
        let hosts = if prints {
            Vec::new()
        } else {
            operands.iter().flat_map(|word| hosts_in(word)).collect()
        };
        let mut act = Self {
            command,
            name,
            paths,
            written: command.written().collect(),
            read: command.read().collect(),
            executed: Vec::new(),
            hosts,
            is_network,
        };
        act.find_written();
        act.find_read();
        act.find_executed();
        act
    }

    pub(crate) fn args(&self) -> &'a [String] {
        self.command.arguments()
    }

    pub(crate) fn names(&self, class: PathClass) -> bool {
        self.paths.iter().any(|(_, found)| *found == class)
    }

    pub(crate) fn writes(&self, class: PathClass) -> bool {
        self.written.iter().any(|path| class_of(path) == class)
    }

    pub(crate) fn reads(&self, class: PathClass) -> bool {
        self.read.iter().any(|path| class_of(path) == class)
    }

    pub(crate) fn is(&self, purpose: Purpose) -> bool {
        has_purpose(self.name, purpose)
    }

    /// Whether an argument contains one of `pieces`.
    pub(crate) fn says(&self, pieces: &[&str]) -> bool {
        self.args()
            .iter()
            .any(|arg| pieces.iter().any(|piece| arg.contains(piece)))
    }

    fn find_written(&mut self) {
        let command = self.command;
        let operands = || command.operands();
        match self.name {
            "tee" | "sponge" | "touch" | "truncate" => self.written.extend(operands()),
            "cp" | "mv" | "ln" | "install" | "rsync" | "scp" => {
                let into = command
                    .option(&["-t", "--target-directory"])
                    .filter(|_| self.name != "rsync" && self.name != "scp");
                self.written.extend(into.or_else(|| operands().last()));
            }
            "dd" => self.written.extend(
                command
                    .arguments()
                    .iter()
                    .filter_map(|arg| arg.strip_prefix("of=")),
            ),
            "sed" | "perl" if command.has_flag('i') => self.written.extend(operands().skip(1)),
            "curl" => self.written.extend(command.option(&["-o", "--output"])),
            "wget" => self.written.extend(
                command
                    .option(&["-O", "--output-document"])
                    .filter(|f| *f != "-"),
            ),
            "openssl" | "gpg" => self
                .written
                .extend(command.option(&["-out", "-o", "--output"])),
            "sqlite3" | "vipw" => {}
            _ => self.written.extend(outputs(command)),
        }
    }

    fn find_read(&mut self) {
        let command = self.command;
        if !self.is(Purpose::Read) && Language::of_interpreter(self.name).is_none() {
            return;
        }
        let all = self.paths.iter().map(|(path, _)| *path);
        let written = &self.written;
        let read: Vec<&str> = all.filter(|path| !written.contains(path)).collect();
        self.read.extend(read);
        if self.name == "dd" {
            self.read.extend(
                command
                    .arguments()
                    .iter()
                    .filter_map(|arg| arg.strip_prefix("if=")),
            );
        }
    }

    fn find_executed(&mut self) {
        let command = self.command;
        let program = command.program();
        if program.contains('/') || program.starts_with("memfd:") || program.ends_with(" (deleted)")
        {
            self.executed.push(program);
        }
        let takes_script = Language::of_interpreter(self.name).is_some()
            && !matches!(self.name, "awk" | "gawk" | "mawk" | "nawk" | "eval");
        if (takes_script || self.name == ".")
            && script_index(&command.words).is_none()
            && !command.has_argument(&["-m"])
        {
            self.executed.extend(
                command
                    .operands()
                    .next()
                    .filter(|script| !script.contains(' ')),
            );
        }
        let is_loader = self.name.starts_with("ld-linux")
            || self.name.starts_with("ld.so")
            || self.name.starts_with("ld-musl");
        if is_loader {
            self.executed.extend(command.operands().next());
        }
    }
}

/// The values of options that say where a program of any kind writes. What is not
/// the name of a file, such as a format, is of no class and does no harm.
fn outputs(command: &Command) -> impl Iterator<Item = &str> {
    const NAMES: [&str; 12] = [
        "out", "output", "report", "save", "dump", "export", "write", "dest", "log", "xml",
        "trace", "file",
    ];
    let says = |option: &str| {
        matches!(option, "-o" | "-O" | "-w")
            || option.strip_prefix("--").is_some_and(|long| {
                let mut words = long.split(['-', '_']);
                words.any(|word| {
                    NAMES
                        .iter()
                        .any(|name| word.to_lowercase().starts_with(name))
                })
            })
    };
    let words = command.arguments();
    words.iter().enumerate().filter_map(move |(idx, word)| {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word.as_str(), words.get(idx + 1).map(String::as_str)),
        };
        value.filter(|value| says(option) && !value.starts_with('-'))
    })
}

/// `/dev/tcp/host/port` of the shell.
pub(super) fn is_network_device(path: &str) -> bool {
    path.starts_with("/dev/tcp/") || path.starts_with("/dev/udp/")
}
