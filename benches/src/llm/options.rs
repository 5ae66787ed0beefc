//! What `inwarden-bench llm` is told.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use inwarden_inference::{KeyValueForm, LoadOptions, WeightForm};

use crate::{model_files::ModelChoice, peer::PeerAddress, sample::Effort};

#[derive(Args, Debug)]
pub(crate) struct LlmOptions {
    #[command(flatten)]
    pub(crate) model: ModelChoice,
    #[command(flatten)]
    pub(crate) engine: EngineOptions,
    /// Thread counts of the grid; the comparison takes the largest. Default: 1
    /// and all.
    #[arg(long, value_delimiter = ',')]
    threads: Vec<NonZeroUsize>,
    /// Prefix lengths of the grid, in tokens; the comparison takes the longest.
    #[arg(long, value_delimiter = ',', value_name = "TOKENS")]
    prefixes: Vec<usize>,
    /// Event lengths of the grid, in tokens.
    #[arg(long, value_delimiter = ',', value_name = "TOKENS")]
    events: Vec<NonZeroUsize>,
    /// Batch sizes of the grid.
    #[arg(long, value_delimiter = ',')]
    batches: Vec<NonZeroUsize>,
    /// Runs of each measurement; default: 7.
    #[arg(long)]
    runs: Option<usize>,
    /// No further run of a measurement begins after so many seconds; default: 120.
    #[arg(long, value_name = "SECONDS")]
    limit_s: Option<u64>,
    /// Fewer runs of fewer cells: ends within 40 seconds on two cores.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these parts.
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    only: Vec<Part>,
    /// Write the figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a plot, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Another engine: the URL of a llama.cpp or OpenAI-compatible server.
    /// May be given several times.
    #[arg(long = "peer", value_name = "[NAME=]URL")]
    pub(crate) peers: Vec<PeerAddress>,
    /// Another engine: candle's quantized Qwen2, in this process.
    #[arg(long)]
    pub(crate) peer_candle: bool,
}

/// How our engine is set up.
#[derive(Args, Clone, Debug)]
pub(crate) struct EngineOptions {
    /// How the weights are kept in memory; default: what the engine chooses.
    #[arg(long, value_enum)]
    weights: Option<Weights>,
    /// How keys and values are kept; default: bf16, or f32 beside weights of f32.
    #[arg(long, value_enum)]
    keys_values: Option<KeysValues>,
    /// The instruction set of the kernels: avx512-vnni-bf16, avx512-vnni, avx-vnni,
    /// avx2 or scalar, if the processor has it; auto is the fastest it has.
    #[arg(long, default_value = AUTO, value_name = "NAME")]
    variant: String,
}

/// Stands for the fastest instruction set that the processor has.
const AUTO: &str = "auto";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Weights {
    Compact,
    Int8,
    F32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KeysValues {
    Bf16,
    Int8,
    F32,
}

impl EngineOptions {
    pub(crate) fn load_options(&self, threads: NonZeroUsize) -> LoadOptions {
        let mut options = LoadOptions {
            threads,
            instruction_set: (self.variant != AUTO).then(|| self.variant.clone()),
            ..LoadOptions::default()
        };
        if let Some(weights) = self.weights {
            options.weight_form = match weights {
                Weights::Compact => WeightForm::Compact,
                Weights::Int8 => WeightForm::Int8,
                Weights::F32 => WeightForm::F32,
            };
        }
        options.key_value_form = self.keys_values.map(|keys_values| match keys_values {
            KeysValues::Bf16 => KeyValueForm::Bf16,
            KeysValues::Int8 => KeyValueForm::Int8,
            KeysValues::F32 => KeyValueForm::F32,
        });
        options
    }

    /// The same options for a child process.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let weights = self.weights.and_then(|form| form.to_possible_value());
        let weights = weights.map(|form| format!("--weights={}", form.get_name()));
        let keys_values = self.keys_values.and_then(|form| form.to_possible_value());
        let keys_values = keys_values.map(|form| format!("--keys-values={}", form.get_name()));
        let variant = format!("--variant={}", self.variant);
        let forms = weights.into_iter().chain(keys_values);
        forms.chain([variant]).collect()
    }

    /// The instruction set that the kernels use.
    pub(crate) fn instruction_set(&self) -> &str {
        match LoadOptions::instruction_sets().first() {
            Some(fastest) if self.variant == AUTO => fastest,
            _ => &self.variant,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Ours and its peers in turns, over the longest prefix.
    Compare,
    /// Ours by event length, prefix length, batch size and threads.
    Grid,
    /// The start of a fresh process, and the memory it takes.
    ColdStart,
}

impl LlmOptions {
    pub(crate) fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub(crate) fn effort(&self) -> Effort {
        let (runs, limit) = match self.quick {
            true => (3, Duration::from_secs(2)),
            false => (7, Duration::from_secs(120)),
        };
        Effort {
            runs: self.runs.unwrap_or(runs).max(1),
            limit: self.limit_s.map_or(limit, Duration::from_secs),
        }
    }

    pub(crate) fn threads(&self) -> Vec<NonZeroUsize> {
        if !self.threads.is_empty() {
            return self.threads.clone();
        }
        let all = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let mut threads = vec![NonZeroUsize::MIN, all];
        threads.dedup();
        match self.quick {
            true => vec![all],
            false => threads,
        }
    }

    pub(crate) fn most_threads(&self) -> NonZeroUsize {
        let threads = self.threads();
        threads.into_iter().max().unwrap_or(NonZeroUsize::MIN)
    }

    pub(crate) fn prefixes(&self) -> Vec<usize> {
        given_or(&self.prefixes, &[0, 256, 1000], &[0, 1000], self.quick)
    }

    pub(crate) fn longest_prefix(&self) -> usize {
        self.prefixes().into_iter().max().unwrap_or(0)
    }

    pub(crate) fn events(&self) -> Vec<usize> {
        let given: Vec<usize> = self.events.iter().map(|n| n.get()).collect();
        given_or(&given, &[32, 64, 128], &[64], self.quick)
    }

    pub(crate) fn batches(&self) -> Vec<usize> {
        let given: Vec<usize> = self.batches.iter().map(|n| n.get()).collect();
        given_or(&given, &[1, 4, 16], &[1], self.quick)
    }
}

fn given_or(given: &[usize], full: &[usize], quick: &[usize], is_quick: bool) -> Vec<usize> {
    match (given, is_quick) {
        ([], true) => quick.to_vec(),
        ([], false) => full.to_vec(),
        (given, _) => given.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        engine: EngineOptions,
    }

    fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>) -> EngineOptions {
        let arguments = std::iter::once("bench").chain(arguments);
        Command::try_parse_from(arguments).unwrap().engine
    }

    #[test]
    fn the_variant_is_the_fastest_unless_one_is_named() {
        let available = LoadOptions::instruction_sets();
        let auto = parse([]);
        assert_eq!(auto.instruction_set(), available[0]);
        assert_eq!(auto.load_options(NonZeroUsize::MIN).instruction_set, None);
        for name in available.into_iter().chain(["abacus"]) {
            let named = parse(["--variant", name]);
            assert_eq!(named.instruction_set(), name);
            let load = named.load_options(NonZeroUsize::MIN);
            assert_eq!(load.instruction_set.as_deref(), Some(name));
        }
    }

    #[test]
    fn a_child_process_gets_the_same_options() {
        for given in [
            vec![],
            vec!["--weights=int8"],
            vec!["--variant=avx2", "--weights=compact", "--keys-values=int8"],
        ] {
            let options = parse(given);
            let arguments = options.arguments();
            let child = parse(arguments.iter().map(String::as_str));
            assert_eq!(format!("{child:?}"), format!("{options:?}"));
        }
    }
}
