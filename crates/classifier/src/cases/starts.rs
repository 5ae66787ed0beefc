//! What a program start shows, in the light of a case.

use inwarden_types::Image;

use super::{
    activity::{Scene, is_odd_place, share},
    kinds::{Kind, Shown},
    programs::{is_backup, is_keeper, name_of, runs_containers},
    secrets::SecretKind,
};
use crate::{
    reading::{
        Act, Features, PathClass, Purpose, Reading, acts_of, has_purpose, is_interpreter,
        is_masquerade, is_question, is_temporary,
    },
    render::base_name,
};

/// What the words of a program start say by themselves. It is the same for the same
/// words, so that it is found out once.
#[derive(Debug)]
pub(super) struct StartWords {
    /// Of what only attacks show often.
    strength: f64,
    discovery_breadth: f64,
    /// Programs that ask about the machine, and how much they ask.
    questions: Vec<(String, usize)>,
    /// Files run as programs or scripts, in odd places.
    executed: Vec<String>,
    uses_engine: bool,
    is_privileged: bool,
    /// Files written in temporary or odd places.
    written: Vec<String>,
    /// Secrets read by what they are not for.
    secrets: Vec<SecretKind>,
    fetches_raw: bool,
    sends: bool,
}

impl StartWords {
    pub(super) fn of(reading: &Reading, features: &Features) -> Self {
        let acts = acts_of(&reading.commands);
        let questions = acts.iter().map(|act| (act, question_weight(act)));
        let executed = acts.iter().flat_map(|act| act.executed.iter().copied());
        let written = acts.iter().flat_map(|act| act.written.iter().copied());
        let read = acts.iter().flat_map(|act| {
            let kinds = act.read.iter().filter_map(|path| SecretKind::of(path));
            kinds.filter(|kind| !kind.is_for(act.name))
        });
        let fetches = acts
            .iter()
            .any(|act| has_purpose(act.name, Purpose::Download));
        let by_command = features.data_sent > 0.0 || features.archive_sent > 0.0;
        Self {
            strength: act_strength(features),
            discovery_breadth: f64::from(features.discovery_breadth),
            questions: questions
                .filter(|(_, weight)| *weight > 0)
                .map(|(act, weight)| (act.name.to_owned(), weight))
                .collect(),
            executed: executed
                .filter(|path| !path.is_empty() && is_odd_place(path))
                .map(str::to_owned)
                .collect(),
            uses_engine: acts
                .iter()
                .any(|act| act.names(PathClass::EngineSocket) && !runs_containers(act.name)),
            is_privileged: features.privileged_container > 0.0,
            written: written
                .filter(|path| is_temporary(path) || is_odd_place(path))
                .map(str::to_owned)
                .collect(),
            secrets: read.collect(),
            fetches_raw: fetches && features.address_public > 0.0,
            sends: by_command && !acts.iter().any(|act| is_backup(act.name)),
        }
    }
}

impl Scene<'_> {
    /// `words` are those of the arguments.
    pub(super) fn start(&mut self, words: &StartWords) -> Shown {
        let mut shown = Shown::default();
        let image = &self.event.process.image;
        let name = name_of(image);
        let strength = words.strength;
        shown.raise(Kind::SteeredAct, strength);
        self.questions(words, &mut shown);
        shown.mark(
            Kind::ServiceShell,
            self.above.service && is_interpreter(name),
        );
        if self.above.service {
            shown.raise(Kind::ServiceAct, strength);
        }
        if self.above.runtime {
            shown.raise(Kind::RuntimeAct, strength);
        }
        self.run_files(image, words, &mut shown);
        shown.mark(Kind::Masquerade, is_masquerade(&image.exe));
        shown.mark(
            Kind::EngineSocket,
            words.uses_engine && (words.is_privileged || !is_keeper(name)),
        );
        self.remember(words, name);
        self.left(words, &mut shown);
        shown
    }

    fn questions(&mut self, words: &StartWords, shown: &mut Shown) {
        let weight = words.questions.iter().map(|(_, weight)| weight).sum();
        let mut breadth = 0;
        for (name, _) in &words.questions {
            breadth = breadth.max(self.tree.asked(name, self.now_ns));
        }
        let asked = share(weight, 2).max(words.discovery_breadth);
        if self.above.service {
            shown.raise(Kind::ServiceDiscovery, asked);
        }
        if self.above.runtime {
            shown.raise(Kind::RuntimeDiscovery, asked);
        }
        // Scripts of packages ask before they set up.
        if !self.above.keeper {
            shown.raise(Kind::DiscoveryBurst, share(breadth.saturating_sub(2), 3));
        }
    }

    fn run_files(&mut self, image: &Image, words: &StartWords, shown: &mut Shown) {
        if self.above.keeper {
            return;
        }
        let own = Some(image.exe.as_str()).filter(|path| !path.is_empty() && is_odd_place(path));
        for path in words.executed.iter().map(String::as_str).chain(own) {
            shown.mark(Kind::OddPlaceRun, true);
            let written = self.tree.has_written(path) || self.group.has_written(path);
            shown.mark(Kind::DroppedRun, written);
            let raw = self.tree.raw_fetch || self.group.raw_fetch;
            shown.mark(Kind::RawDroppedRun, raw);
        }
    }

    /// Keeps what later events are judged by.
    fn remember(&mut self, words: &StartWords, name: &str) {
        for path in &words.written {
            self.tree.wrote(path);
            self.group.wrote(path);
        }
        if !is_backup(name) && !is_keeper(name) {
            for kind in &words.secrets {
                self.tree.read_secret(*kind, self.now_ns);
                self.group.read_secret(*kind, self.now_ns);
            }
        }
        if words.fetches_raw {
            self.tree.raw_fetch = true;
            self.group.raw_fetch = true;
        }
    }

    /// Data goes out by a command after a secret was read.
    fn left(&self, words: &StartWords, shown: &mut Shown) {
        if words.sends {
            let after = self.tree.knows_secret(self.now_ns);
            shown.mark(Kind::SentAfterSecret, after);
            let elsewhere = self.group.knows_secret(self.now_ns);
            shown.mark(Kind::GroupSentAfterSecret, elsewhere);
        }
    }
}

/// How much a command asks about the machine: 2 is what programs rarely ask.
fn question_weight(act: &Act<'_>) -> usize {
    match base_name(act.name) {
        "whoami" | "id" | "w" | "who" | "last" | "groups" | "ifconfig" | "arp" | "getcap"
        | "sudo" | "lastlog" | "netstat" => 2,
        "uname" if act.args().iter().any(|arg| arg == "-a") => 2,
        "cat" | "head" | "less" | "tail" | "more"
            if act.names(PathClass::Accounts) || act.names(PathClass::Sudoers) =>
        {
            2
        }
        "ls" | "pwd" | "printenv" | "set" => 1,
        name if has_purpose(name, Purpose::Discover) => usize::from(is_question(act)),
        _ => 0,
    }
}

/// The strongest of the features that only attacks show often.
fn act_strength(features: &Features) -> f64 {
    let strong = [
        features.fetch_to_interpreter,
        features.decode_to_interpreter,
        features.written_then_executed,
        features.temporary_executed,
        features.hidden_executed,
        features.memory_executed,
        features.masquerade,
        features.shell_on_socket,
        features.network_device,
        features.listener,
        features.tunnel,
        features.secret_read,
        features.secret_sent,
        features.secret_searched,
        features.accounts_written,
        features.persistence_written,
        features.persistence_scheduled,
        features.preload_changed,
        features.sudoers_changed,
        features.host_reached,
        features.privileged_container,
        features.mining,
        features.offensive_tool,
        features.defence_disabled,
        features.log_wiped,
        features.history_wiped,
        features.kernel_module,
        features.compiled_and_run,
        features.metadata_asked,
        features.account_changed,
        features.set_id,
    ];
    f64::from(strong.into_iter().fold(0.0, f32::max))
}
