//! The kinds of evidence that a sequence of events shows.

macro_rules! kinds {
    ($($variant:ident $name:literal $technique:literal $summary:literal,)+) => {
        /// A kind of evidence; what it means is its summary.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Kind {
            $(
                #[doc = $summary]
                $variant,
            )+
        }

        impl Kind {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),+];
            pub(crate) const COUNT: usize = Self::ALL.len();

            /// The name in the file of weights.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The technique it hints at.
            pub(crate) fn technique(self) -> &'static str {
                match self {
                    $(Self::$variant => $technique,)+
                }
            }

            /// What it says, in words for people.
            pub(crate) fn summary(self) -> &'static str {
                match self {
                    $(Self::$variant => $summary,)+
                }
            }
        }
    };
}

kinds! {
    ServiceShell "service_shell" "T1059.004" "a network service runs a shell or an interpreter",
    ServiceDiscovery "service_discovery" "T1505.003" "a network service asks about the machine or its users",
    ServiceAct "service_act" "T1505.003" "a network service does what services do not: fetch and run, open a shell, read secrets",
    RuntimeDiscovery "runtime_discovery" "T1190" "an application asks about the machine or its users",
    RuntimeAct "runtime_act" "T1190" "an application does what applications do not: fetch and run, open a shell, read secrets",
    DroppedRun "dropped_run" "T1105" "a file that this case wrote in a temporary or hidden place is run",
    RawDroppedRun "raw_dropped_run" "T1105" "a file is run from a temporary place after a fetch from a bare address",
    OddPlaceRun "odd_place_run" "T1036.005" "a program is run from a temporary or hidden place",
    Masquerade "masquerade" "T1036.005" "a program bears a system's name in an odd place",
    DiscoveryBurst "discovery_burst" "T1082" "several different questions about the machine in short time",
    SteeredAct "steered_act" "T1059" "the command line itself shows an attack's act",
    PersistenceByShell "persistence_by_shell" "T1053.003" "a shell or a plain tool writes where programs start by themselves",
    StartupFile "startup_file" "T1546.004" "a shell or a plain tool writes a start-up file of shells",
    PersistenceByService "persistence_by_service" "T1505" "a network service writes where programs start by themselves",
    PersistenceRepeated "persistence_repeated" "T1543" "one case writes several places where programs start by themselves",
    PrivilegeFile "privilege_file" "T1548.003" "who may do what is changed by a program that does not keep it",
    KernelDoor "kernel_door" "T1611" "a kernel setting that leads out of a container is written",
    ProgramReplaced "program_replaced" "T1554" "a program of the system is written by something that installs nothing",
    WebShell "web_shell" "T1505.003" "a script is put where a web server runs it, by what serves it",
    HistoryRemoved "history_removed" "T1070.003" "a history of commands is removed",
    LogRemoved "log_removed" "T1070.002" "a log is removed by a program that does not keep it",
    SecretByStranger "secret_by_stranger" "T1552" "a secret is read by a program that it is not for",
    SecretByService "secret_by_service" "T1552" "a network service reads keys or passwords of the machine",
    ManySecrets "many_secrets" "T1555" "secrets of several kinds are read in one case",
    EngineSocket "engine_socket" "T1611" "a container engine's socket is used by a program that does not run containers",
    SentAfterSecret "sent_after_secret" "T1041" "a connection leaves after a secret was read by the same processes",
    GroupSentAfterSecret "group_sent_after_secret" "T1041" "a connection leaves after a secret was read in the same place",
    OddPort "odd_port" "T1571" "a connection to a public address on an unusual port",
    AttackPort "attack_port" "T1571" "a connection to a port that attack tools and mining use",
    ShellConnects "shell_connects" "T1059.004" "a shell itself connects to another machine",
    DroppedConnects "dropped_connects" "T1071" "a program from a temporary or hidden place connects out",
    MetadataAsked "metadata_asked" "T1552.005" "a plain tool asks a cloud's credential service",
    MiningName "mining_name" "T1496" "a name of a mining pool",
    DropSite "drop_site" "T1567" "a host that is made for dropping and collecting data",
    LongName "long_name" "T1048.003" "a looked-up name that carries data",
    InjectedSecret "injected_secret" "T1552.001" "a tool call reaches for a secret after a text that instructs",
    InjectedTarget "injected_target" "T1567" "a tool call goes where only an instructing text pointed",
    SecretInArguments "secret_in_arguments" "T1041" "the arguments of a tool call hold key material",
    SentAfterSecretCall "sent_after_secret_call" "T1041" "a tool call sends after one that read a secret",
    SecretUnasked "secret_unasked" "T1552.001" "a tool call reaches for a key that the user did not name",
    EarlierSuspicion "earlier_suspicion" "T1059" "earlier events of the same processes were suspicious",
}

/// How strongly each kind is shown, `0.0..=1.0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shown([f64; Kind::COUNT]);

impl Default for Shown {
    fn default() -> Self {
        Self([0.0; Kind::COUNT])
    }
}

impl Shown {
    pub(crate) fn of(&self, kind: Kind) -> f64 {
        self.0[kind as usize]
    }

    /// Shows `kind` at least as strongly as `strength`.
    pub(crate) fn raise(&mut self, kind: Kind, strength: f64) {
        let known = &mut self.0[kind as usize];
        *known = known.max(strength.clamp(0.0, 1.0));
    }

    pub(crate) fn mark(&mut self, kind: Kind, is_shown: bool) {
        self.raise(kind, f64::from(u8::from(is_shown)));
    }

    pub(crate) fn values(&self) -> &[f64] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|strength| *strength == 0.0)
    }
}
