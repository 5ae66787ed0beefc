//! `inwarden-bench`: measures what the README claims.
//!
//! `llm` measures the model by itself and beside other engines, `accuracy` what
//! the resident form of the weights costs, `memory` the search for precedents,
//! `replay` the way of recorded events, and
//! `random-model` makes models of a given shape to measure with. `benches/README.md`
//! documents the figures.

mod accuracy;
mod attack;
mod candle_qwen2;
mod eval;
mod llm;
mod machine;
mod memory;
mod model_files;
mod peer;
mod random_model;
mod replay;
mod sample;
mod subject;
mod workload;

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about = "Measures what Inwarden claims.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prefill, decode, verdicts, memory and start of a model, beside its peers.
    Llm(Box<llm::LlmOptions>),
    /// What the resident form of the weights costs in accuracy.
    Accuracy(accuracy::AccuracyOptions),
    /// The report card: how well attacks are told from ordinary work.
    Eval(eval::EvalOptions),
    /// The classifier under attack: rewritten attacks and baited ordinary work.
    Attack(attack::AttackOptions),
    /// How long the memory takes to find a record, and what it misses.
    Memory(memory::MemoryOptions),
    /// A recording played several times: first sight, rate when known, decisions.
    Replay(replay::ReplayOptions),
    /// Makes a model with random weights, in the shape and types of a real one.
    RandomModel(random_model::RandomModelOptions),
    /// One start, as `llm` measures it: in a process of its own.
    #[command(hide = true)]
    ColdStart(llm::ColdStartOptions),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Llm(options) => llm::run(&options),
        Command::Accuracy(options) => accuracy::run(&options),
        Command::Eval(options) => eval::run(&options),
        Command::Attack(options) => attack::run(&options),
        Command::Memory(options) => memory::run(&options),
        Command::Replay(options) => replay::run(&options),
        Command::RandomModel(options) => random_model::run(&options),
        Command::ColdStart(options) => llm::start_cold(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody listens if even this is closed.
            let _closed = writeln!(std::io::stderr(), "inwarden-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
