//! One suite for both indexes, the embedded one and that of a server, through the
//! public interface; and what becomes of a store whose server goes away, forgets or
//! lies.
//!
//! The server is the one that `INWARDEN_TEST_QDRANT_URL` names (with a key in
//! `INWARDEN_TEST_QDRANT_KEY`, if it asks for one), or else the generated gRPC service
//! of `qdrant-client` over embedded shards, in this process. The last line says which
//! of the two it was, so this binary has a runner of its own. An argument that is not
//! an option selects the checks whose names contain it.

#![expect(clippy::print_stdout, reason = "it reports like the standard runner")]

// `cfg(test)` always holds here; it tells clippy that these are tests.
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod searching;
#[cfg(test)]
mod service;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod subject;
#[cfg(test)]
#[expect(dead_code, reason = "the other binary uses all of it")]
#[path = "../store/support.rs"]
mod support;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use subject::{Backend, TestServer};

/// Says why a check did not run.
fn say(what: &str) {
    println!("{what}");
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_listing = arguments.iter().any(|argument| argument == "--list");
    let wanted: Vec<_> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let server = (!is_listing).then(TestServer::find);
    let (mut n_passed, mut failed) = (0, Vec::new());
    let mut run = |name: String, check: &dyn Fn(&TestServer)| {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(*part)) {
            return;
        }
        let Some(server) = &server else {
            println!("{name}: test");
            return;
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| check(server)));
        println!(
            "test {name} ... {}",
            ["FAILED", "ok"][usize::from(outcome.is_ok())]
        );
        match outcome {
            Ok(()) => n_passed += 1,
            Err(_) => failed.push(name),
        }
    };
    for (name, check) in searching::CHECKS {
        run(format!("embedded::{name}"), &|_| check(&Backend::Embedded));
        run(format!("server::{name}"), &|server| {
            check(&Backend::Server(server.options()))
        });
    }
    for (name, check) in serving::CHECKS {
        run(format!("serving::{name}"), &|server| check(server));
    }
    let Some(server) = server else {
        return ExitCode::SUCCESS;
    };
    server.clean_up();
    let result = if failed.is_empty() { "ok" } else { "FAILED" };
    for name in &failed {
        println!("failed: {name}");
    }
    println!(
        "\ntest result: {result}. {n_passed} passed; {} failed",
        failed.len()
    );
    println!("{}", server.description());
    ExitCode::from(u8::from(!failed.is_empty()))
}
