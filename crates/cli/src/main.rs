//! `inwarden`: arguments and configuration in, exit code out.
//!
//! Exit codes: 0 done; 1 done, but some input was malformed; 2 wrong usage or
//! configuration; 3 it could not be done (the message says what is missing);
//! 130 interrupted.

mod arguments;
mod commands;
mod config;
mod console;
mod interrupt;
mod scene;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;

use crate::arguments::{Arguments, Command};

/// How a command ended; see the module's list of exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Done,
    SomeMalformed,
    Interrupted,
}

/// Marks an error as one of usage or configuration: exit code 2.
#[derive(Debug)]
struct Misuse;

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("wrong usage or configuration")
    }
}

impl std::error::Error for Misuse {}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("INWARDEN_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .init();
    let arguments = Arguments::parse();
    let ended = config::Config::resolve(&arguments)
        .and_then(|config| {
            // The others end at once, as a program does by itself.
            let ends_at_once = matches!(
                arguments.command,
                Command::Doctor | Command::Feedback(_) | Command::Import(_) | Command::Models(_)
            );
            if !ends_at_once {
                interrupt::install()?;
            }
            Ok(config)
        })
        .and_then(|config| match arguments.command {
            Command::Demo(options) => commands::demo::run(&config, &options),
            Command::Watch(options) => commands::watch::run(&config, &options),
            Command::Classify(options) => commands::classify::run(&config, &options),
            Command::Replay(options) => commands::replay::run(&config, &options),
            Command::Import(options) => commands::import::run(&config, &options),
            Command::Feedback(options) => commands::feedback::run(&config, &options),
            Command::Learn(options) => commands::learn::run(&config, &options),
            Command::Doctor => commands::doctor::run(&config),
            Command::Models(options) => commands::models::run(&config, &options),
        });
    match ended {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::SomeMalformed) => ExitCode::from(1),
        Ok(Ended::Interrupted) => ExitCode::from(130),
        Err(error) => {
            console::complain(&error);
            match error.is::<Misuse>() {
                true => ExitCode::from(2),
                false => ExitCode::from(3),
            }
        }
    }
}
