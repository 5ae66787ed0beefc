//! A greedy search: an attacker who sees the score, rewrites, keeps what lowers
//! it, and has fifty tries.

use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

use super::{
    families::{FAMILIES, Family},
    payload::{Attempt, Payload},
    play::Player,
};

/// What an attacker may ask in one case.
pub(crate) const QUERIES: usize = 50;
/// Families that make one start of one, and so can be put on top of each other.
const MOVES: [&str; 14] = [
    "padding_before",
    "padding_after",
    "arguing",
    "commanding",
    "chat_markup",
    "faked_precedents",
    "comments",
    "variable_names",
    "function_names",
    "wrappers",
    "base64",
    "octal",
    "quoting",
    "variable_splitting",
];
/// Moves that one rewrite is made of, at most.
const MAX_MOVES: usize = 2;
/// Longer command lines would not be started.
const MAX_BYTES: usize = 100_000;

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Search {
    pub(crate) has_evaded: bool,
    pub(crate) queries: usize,
}

/// Searches from `payload`, whose score is `score`.
pub(crate) fn search(
    player: &mut Player<'_>,
    payload: &Payload,
    score: f64,
    seed: u64,
) -> anyhow::Result<Search> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let moves: Vec<&Family> = FAMILIES
        .iter()
        .filter(|family| MOVES.contains(&family.name))
        .collect();
    let (mut best, mut lowest) = (payload.clone(), score);
    for queries in 1..=QUERIES {
        let Some(next) = rewritten(&best, &moves, &mut random) else {
            continue;
        };
        let outcome = player.play(&Attempt::of(next.clone()))?;
        if !outcome.is_detected {
            return Ok(Search {
                has_evaded: true,
                queries,
            });
        }
        if outcome.score <= lowest {
            (best, lowest) = (next, outcome.score);
        }
    }
    Ok(Search {
        has_evaded: false,
        queries: QUERIES,
    })
}

fn rewritten(payload: &Payload, moves: &[&Family], random: &mut ChaCha8Rng) -> Option<Payload> {
    let mut next = payload.clone();
    for _ in 0..random.random_range(1..=MAX_MOVES) {
        let family = moves.choose(random)?;
        let Some(attempt) = (family.rewrite)(&next, random) else {
            continue;
        };
        let bytes: usize = attempt.parts[0].argv.iter().map(String::len).sum();
        if bytes <= MAX_BYTES {
            next = attempt.parts[0].clone();
        }
    }
    (next != *payload).then_some(next)
}
