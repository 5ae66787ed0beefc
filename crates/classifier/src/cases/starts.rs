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
        is_masquerade, is_temporary,
    },
    render::base_name,
};

impl Scene<'_> {
    /// `reading` is that of the arguments, `features` what it shows.
    pub(super) fn start(&mut self, reading: &Reading, features: &Features) -> Shown {
        let mut shown = Shown::default();
        let image = &self.event.process.image;
        let name = name_of(image).to_owned();
        let acts = acts_of(&reading.commands);
        let strength = act_strength(features);
        shown.raise(Kind::SteeredAct, strength);
        self.questions(&acts, features, &mut shown);
        shown.mark(
            Kind::ServiceShell,
            self.above.service && is_interpreter(&name),
        );
        if self.above.service {
            shown.raise(Kind::ServiceAct, strength);
        }
        if self.above.runtime {
            shown.raise(Kind::RuntimeAct, strength);
        }
        self.run_files(image, &acts, &mut shown);
        shown.mark(Kind::Masquerade, is_masquerade(&image.exe));
        let engine = acts
            .iter()
            .any(|act| act.names(PathClass::EngineSocket) && !runs_containers(act.name));
        let is_mounted = features.privileged_container > 0.0;
        shown.mark(
            Kind::EngineSocket,
            engine && (is_mounted || !is_keeper(&name)),
        );
        self.remember(&acts, features, &name);
        self.left(&acts, features, &mut shown);
        shown
    }

    fn questions(&mut self, acts: &[Act<'_>], features: &Features, shown: &mut Shown) {
        let mut weight = 0;
        let mut breadth = 0;
        for act in acts {
            let question = question_weight(act);
            if question > 0 {
                weight += question;
                breadth = breadth.max(self.tree.asked(act.name, self.now_ns));
            }
        }
        let asked = share(weight, 2).max(f64::from(features.discovery_breadth));
        if self.above.service {
            shown.raise(Kind::ServiceDiscovery, asked);
        }
        if self.above.runtime {
            shown.raise(Kind::RuntimeDiscovery, asked);
        }
        shown.raise(Kind::DiscoveryBurst, share(breadth.saturating_sub(2), 3));
    }

    fn run_files(&mut self, image: &Image, acts: &[Act<'_>], shown: &mut Shown) {
        let executed = acts.iter().flat_map(|act| act.executed.iter().copied());
        for path in executed.chain([image.exe.as_str()]) {
            if path.is_empty() || !is_odd_place(path) || self.above.keeper {
                continue;
            }
            shown.mark(Kind::OddPlaceRun, true);
            let written = self.tree.has_written(path) || self.group.has_written(path);
            shown.mark(Kind::DroppedRun, written);
            let raw = self.tree.raw_fetch || self.group.raw_fetch;
            shown.mark(Kind::RawDroppedRun, raw);
        }
    }

    /// Keeps what later events are judged by.
    fn remember(&mut self, acts: &[Act<'_>], features: &Features, name: &str) {
        for act in acts {
            for path in act
                .written
                .iter()
                .filter(|path| is_temporary(path) || is_odd_place(path))
            {
                self.tree.wrote(path);
                self.group.wrote(path);
            }
            if is_backup(name) || is_keeper(name) {
                continue;
            }
            let read = act.read.iter().filter_map(|path| SecretKind::of(path));
            for kind in read.filter(|kind| !kind.is_for(act.name)) {
                self.tree.read_secret(kind, self.now_ns);
                self.group.read_secret(kind, self.now_ns);
            }
        }
        let fetches = acts
            .iter()
            .any(|act| has_purpose(act.name, Purpose::Download));
        if fetches && features.address_public > 0.0 {
            self.tree.raw_fetch = true;
            self.group.raw_fetch = true;
        }
    }

    /// Data goes out by a command after a secret was read.
    fn left(&self, acts: &[Act<'_>], features: &Features, shown: &mut Shown) {
        let by_command = features.data_sent > 0.0 || features.archive_sent > 0.0;
        let is_trade = acts.iter().any(|act| is_backup(act.name));
        if by_command && !is_trade {
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
        "ls" | "pwd" | "env" | "printenv" | "set" => 1,
        name if has_purpose(name, Purpose::Discover) => 1,
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
