//! What operations on files, connections and lookups show, in the light of a case.

use inwarden_types::{Connection, Event, FileAccess, FileOp, Peer};

use super::{
    facts::Facts,
    kinds::{Kind, Shown},
    programs::{Above, is_backup, is_editor, is_keeper, is_service, name_of, runs_containers},
    secrets::SecretKind,
};
use crate::reading::{
    AddressClass, Host, PathClass, Purpose, class_of, has_purpose, hosts_in, is_interpreter,
    is_temporary, normalised,
};

/// Who does it, and in which case.
pub(super) struct Scene<'a> {
    pub(super) event: &'a Event,
    pub(super) above: Above,
    pub(super) now_ns: u64,
    /// Of the same tree of processes.
    pub(super) tree: &'a mut Facts,
    /// Of the same cgroup or session.
    pub(super) group: &'a mut Facts,
}

impl Scene<'_> {
    pub(super) fn file(&mut self, access: &FileAccess) -> Shown {
        let mut shown = Shown::default();
        let changes = !matches!(access.op, FileOp::Read | FileOp::Connect);
        // What a rename or link leads to is what is written.
        let target = match access.op {
            FileOp::Rename | FileOp::Link => access.to.as_deref().unwrap_or(&access.path),
            _ => &access.path,
        };
        let class = class_of(target);
        if class == PathClass::EngineSocket {
            let name = name_of(&self.event.process.image);
            shown.mark(Kind::EngineSocket, !runs_containers(name));
        }
        match access.op {
            FileOp::Read => self.read(&access.path, &mut shown),
            FileOp::Unlink | FileOp::Truncate => self.removed(&access.path, &mut shown),
            FileOp::Rename => {
                self.removed(&access.path, &mut shown);
                self.written(target, class, &mut shown);
            }
            _ if changes => self.written(target, class, &mut shown),
            _ => {}
        }
        // A link to a secret is a way to read it.
        if access.op == FileOp::Link {
            self.read(&access.path, &mut shown);
        }
        shown
    }

    fn read(&mut self, path: &str, shown: &mut Shown) {
        let Some(kind) = SecretKind::of(path) else {
            return;
        };
        let name = name_of(&self.event.process.image);
        if kind.is_for(name) {
            return;
        }
        let is_backup = self.is_backup();
        let is_small = matches!(kind, SecretKind::Application | SecretKind::History);
        let strength = if is_backup {
            0.0
        } else if is_small {
            // A person's look at settings of an application is no theft.
            0.3
        } else if is_keeper(name) || self.above.keeper {
            0.4
        } else {
            1.0
        };
        shown.raise(Kind::SecretByStranger, strength);
        if strength >= 0.5 {
            shown.raise(Kind::InjectedSecret, self.group.instructed);
        }
        let of_machine = !matches!(kind, SecretKind::Application | SecretKind::Cluster);
        let is_served = self.above.service || is_service(name);
        shown.mark(Kind::SecretByService, is_served && of_machine);
        if !is_backup {
            self.tree.read_secret(kind, self.now_ns);
            self.group.read_secret(kind, self.now_ns);
        }
        let kinds = self.tree.kinds_of_secrets(self.now_ns);
        shown.raise(Kind::ManySecrets, share(kinds.saturating_sub(1), 2));
    }

    fn removed(&mut self, path: &str, shown: &mut Shown) {
        let name = name_of(&self.event.process.image);
        let kept = is_keeper(name) || self.above.keeper;
        let is_history = SecretKind::of(path) == Some(SecretKind::History);
        shown.mark(Kind::HistoryRemoved, is_history && !kept);
        let is_plain = is_interpreter(name) || is_plain_tool(name);
        let is_log = class_of(path) == PathClass::Log;
        shown.mark(Kind::LogRemoved, is_log && is_plain && !kept);
    }

    fn written(&mut self, path: &str, class: PathClass, shown: &mut Shown) {
        let name = name_of(&self.event.process.image);
        self.tree.wrote(path);
        self.group.wrote(path);
        let is_served = self.above.service || is_service(name);
        // Who edits does it at a person's wish, whoever installs by trade.
        if is_keeper(name) || self.above.keeper || is_editor(name) {
            return;
        }
        let is_plain = is_interpreter(name) || is_plain_tool(name) || is_odd_place(self.program());
        match class {
            PathClass::Persistence if is_startup_file(path) => {
                shown.mark(Kind::StartupFile, is_plain);
                shown.mark(Kind::PersistenceByService, is_served);
                self.persisted(path, shown);
            }
            PathClass::Persistence if !is_of_repository(path) => {
                shown.mark(Kind::PersistenceByShell, is_plain);
                shown.mark(Kind::PersistenceByService, is_served);
                self.persisted(path, shown);
            }
            PathClass::Sudoers | PathClass::Accounts | PathClass::Preload => {
                shown.mark(Kind::PrivilegeFile, true);
            }
            PathClass::Secret => {
                let kind = SecretKind::of(path);
                shown.mark(Kind::PrivilegeFile, kind == Some(SecretKind::Shadow));
            }
            PathClass::KernelDoor => shown.mark(Kind::KernelDoor, true),
            PathClass::SystemProgram => {
                let is_program = !path.starts_with("/usr/local") && !path.starts_with("/usr/share");
                shown.mark(Kind::ProgramReplaced, is_plain && is_program);
            }
            _ => {}
        }
        let is_script = [".php", ".phtml", ".jsp", ".jspx", ".aspx", ".war", ".cgi"]
            .iter()
            .any(|end| path.to_lowercase().ends_with(end));
        let is_cache = path.contains("/cache/") || path.contains("/compiled/");
        shown.mark(Kind::WebShell, is_script && is_served && !is_cache);
    }

    fn persisted(&mut self, path: &str, shown: &mut Shown) {
        let places = self.tree.persisted(path).max(self.group.persisted(path));
        let more = share(places.saturating_sub(1), 1);
        shown.raise(Kind::PersistenceRepeated, more);
    }

    pub(super) fn connection(&mut self, connection: &Connection) -> Shown {
        let mut shown = Shown::default();
        let name = name_of(&self.event.process.image).to_owned();
        let port = connection.port.unwrap_or(0);
        let host = match &connection.peer {
            Peer::Address(address) => hosts_in(&address.to_string()),
            Peer::Name(name) => hosts_in(name),
        };
        let host = host.into_iter().next();
        let class = match &host {
            Some(Host::Address(class)) => Some(*class),
            _ => None,
        };
        if let Some(Host::Name(name)) = &host {
            self.named(name, &mut shown);
        }
        let is_outside = matches!(class, None | Some(AddressClass::Public));
        let is_plain = is_interpreter(&name) || has_purpose(&name, Purpose::Network);
        shown.mark(
            Kind::MetadataAsked,
            class == Some(AddressClass::Metadata)
                && (is_plain || is_odd_place(self.program()))
                && !self.above.keeper,
        );
        if !is_outside {
            return shown;
        }
        shown.mark(Kind::OddPort, port > 0 && !is_usual_port(port));
        shown.mark(Kind::AttackPort, is_attack_port(port));
        let is_shell = crate::reading::is_shell(&name);
        shown.mark(Kind::ShellConnects, is_shell);
        shown.mark(Kind::DroppedConnects, is_odd_place(self.program()));
        self.leaves(&name, &mut shown);
        shown
    }

    pub(super) fn lookup(&mut self, name: &str) -> Shown {
        let mut shown = Shown::default();
        let name = name.trim_end_matches('.').to_lowercase();
        self.named(&name, &mut shown);
        let longest = name.split('.').map(str::len).max().unwrap_or(0);
        let carries = longest >= 40 || name.len() >= 120;
        shown.mark(Kind::LongName, carries && !name.ends_with(".arpa"));
        shown
    }

    fn named(&self, name: &str, shown: &mut Shown) {
        let has = |pieces: &[&str]| pieces.iter().any(|piece| name.contains(piece));
        let mining = [
            "xmr",
            "monero",
            "minexmr",
            "nanopool",
            "nicehash",
            "ethermine",
            "miningpool",
        ];
        let is_pool = has(&mining)
            || name
                .split('.')
                .any(|label| label == "pool" || label == "stratum")
                && !has(&["ntp"]);
        shown.mark(Kind::MiningName, is_pool);
        let sites = [
            "ngrok",
            "webhook.site",
            "transfer.sh",
            "requestbin",
            "interact.sh",
            "oast.",
            "pipedream",
            "burpcollaborator",
            "pastebin.",
            "trycloudflare",
            "serveo.net",
            "duckdns",
            "0x0.st",
            "file.io",
            "anonfiles",
            "gofile.io",
            ".onion",
            "dnslog",
            "localhost.run",
            "termbin",
            "beeceptor",
        ];
        shown.mark(Kind::DropSite, has(&sites));
    }

    /// Something goes out; `name` sends it.
    fn leaves(&self, name: &str, shown: &mut Shown) {
        let is_trade = is_backup(name) || is_keeper(name) || self.is_backup();
        let after = self.tree.knows_secret(self.now_ns) && !is_trade;
        shown.mark(Kind::SentAfterSecret, after);
        let elsewhere = self.group.knows_secret(self.now_ns) && !is_trade;
        shown.mark(Kind::GroupSentAfterSecret, elsewhere);
    }

    fn is_backup(&self) -> bool {
        self.above.backup || is_backup(name_of(&self.event.process.image))
    }

    fn program(&self) -> &str {
        &self.event.process.image.exe
    }
}

/// Copies, moves and writes at a script's or person's wish.
fn is_plain_tool(name: &str) -> bool {
    has_purpose(name, Purpose::Download)
        || matches!(
            name,
            "cp" | "mv"
                | "rm"
                | "ln"
                | "tee"
                | "install"
                | "dd"
                | "touch"
                | "truncate"
                | "shred"
                | "sed"
                | "awk"
                | "gawk"
                | "mawk"
                | "busybox"
                | "nc"
                | "socat"
                | "scp"
                | "chattr"
                | "unlink"
                | "cat"
                | "base64"
                | "tar"
                | "unzip"
        )
}

/// A place where no installed program lies.
pub(super) fn is_odd_place(path: &str) -> bool {
    let path = normalised(path);
    let hidden = |part: &str| part.len() > 1 && part.starts_with('.');
    let is_own_tool = [
        ".local", ".cargo", ".nvm", ".npm", ".cache", ".vscode", ".rustup", ".pyenv",
    ]
    .iter()
    .any(|known| path.split('/').any(|part| part.starts_with(known)));
    is_temporary(&path)
        || path.starts_with("memfd:")
        || path.ends_with(" (deleted)")
        || path.contains("/uploads/")
        || (path.split('/').any(hidden) && !is_own_tool && !path.contains("/.venv/"))
}

/// Hooks and settings of a repository belong to whoever works on it.
fn is_of_repository(path: &str) -> bool {
    path.contains(".git/hooks/") || path.ends_with(".vimrc") || path.ends_with(".ssh/config")
}

fn is_startup_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with("rc")
        || name.contains("profile")
        || name.starts_with(".bash")
        || name == ".zshenv"
}

fn is_usual_port(port: u16) -> bool {
    matches!(
        port,
        20 | 21
            | 22
            | 25
            | 43
            | 53
            | 80
            | 110
            | 119
            | 123
            | 143
            | 389
            | 443
            | 465
            | 514
            | 563
            | 587
            | 636
            | 853
            | 873
            | 989
            | 990
            | 993
            | 995
            | 1194
            | 1433
            | 1521
            | 1883
            | 2049
            | 3128
            | 3268
            | 3306
            | 3389
            | 3478
            | 3690
            | 5060
            | 5061
            | 5222
            | 5349
            | 5432
            | 5671
            | 5672
            | 6379
            | 6443
            | 8000
            | 8080
            | 8086
            | 8140
            | 8443
            | 8883
            | 9000
            | 9092
            | 9200
            | 9300
            | 9418
            | 10_050
            | 10_051
            | 11_371
            | 15_672
            | 19_302
            | 27_017
            | 41_641
            | 51_820
    )
}

fn is_attack_port(port: u16) -> bool {
    matches!(
        port,
        1337 | 3333 | 4242 | 4443..=4446 | 5555 | 6666..=6669 | 7777 | 9001 | 9030 | 12_345
            | 13_337 | 14_433 | 14_444 | 31_337 | 45_560 | 45_700
    )
}

/// `count` as a share of `full`.
pub(super) fn share(count: usize, full: u8) -> f64 {
    let count = u8::try_from(count).unwrap_or(u8::MAX).min(full);
    f64::from(count) / f64::from(full.max(1))
}
