//! `inwarden-bench`: measures what the README claims.
//!
//! `llm` measures the loaded model: prefill and decode in tokens per second,
//! and the time to a label verdict over a cached prefix. Each figure is given
//! as the median of its runs with minimum and maximum beside it, together with
//! the machine, the commit, the model's hash and the number of threads.

mod llm;
mod machine;
mod sample;

use std::{io::Write, num::NonZeroUsize, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about = "Measures what Inwarden claims.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prefill, decode and verdict rate of a model.
    Llm(LlmOptions),
}

#[derive(Args, Debug)]
struct LlmOptions {
    /// Model id.
    #[arg(long, default_value = "qwen2.5-coder-0.5b-instruct-q4_k_m")]
    model: String,
    /// Threads; default: all.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Runs of each measurement.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Write the figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Command::Llm(options) = Arguments::parse().command;
    match llm::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody listens if even this is closed.
            let _closed = writeln!(std::io::stderr(), "inwarden-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
