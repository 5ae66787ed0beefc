//! Measures a store of many precedents: how long a search takes, also while records
//! are written, and how much of the exact answer it finds.
//!
//! ```sh
//! cargo run --release -p inwarden-memory --example retrieval -- 100000
//! ```
//!
//! The vectors are synthetic: unit vectors of 384 components in clusters of about
//! fifty, whose members have a cosine of about 0.7. So embedding takes no time worth
//! naming, and what is measured is the store.

#![expect(clippy::print_stdout, reason = "it is what this program is for")]

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use inwarden_memory::{
    Embed, EmbedError, Memory, MemoryError, MemoryOptions, Precedent, PrecedentQuery,
};
use inwarden_types::{Label, WallTime};

const DIMENSION: usize = 384;
const QUERIES: usize = 400;
const PROGRAMS: [&str; 8] = [
    "curl", "bash", "python3", "tar", "ssh", "chmod", "nc", "find",
];

/// Gives the text of record `n` the vector of its cluster with noise of its own.
struct Synthetic {
    clusters: u64,
}

impl Synthetic {
    fn vector(&self, text: &str) -> Vec<f32> {
        let number = |word: Option<&str>| -> u64 {
            let digits = word
                .unwrap_or("")
                .trim_start_matches(|c: char| !c.is_ascii_digit());
            digits.parse().unwrap_or(0)
        };
        let mut words = text.rsplit(' ');
        // The last word names the record, the one before a variation of it.
        let (n, variation) = (number(words.next()), number(words.next()));
        let centre = noise(n % self.clusters + 1);
        let own = noise((n + 1) << 24);
        let varied = noise(variation << 44 | 7);
        let mut vector: Vec<f32> = centre
            .zip(own)
            .zip(varied)
            .map(|((c, o), v)| c + 0.65 * o + 0.15 * v)
            .take(DIMENSION)
            .collect();
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= length);
        vector
    }
}

impl Embed for Synthetic {
    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn identity(&self) -> String {
        "synthetic@1".to_owned()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| self.vector(text)).collect())
    }
}

fn noise(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let [a, b, ..] = state.to_be_bytes();
        f32::from(u16::from_be_bytes([a, b])) / 32_768.0 - 1.0
    })
}

fn text(n: usize, variation: usize) -> String {
    let program = PROGRAMS[n % 8];
    format!(
        "exec: {program} --opt{} /srv/d{}/f{n} v{variation} r{n}",
        n % 40,
        n % 2_000
    )
}

fn tenant(n: usize) -> &'static str {
    if n.is_multiple_of(10) { "a" } else { "b" }
}

fn record(n: usize) -> Precedent {
    Precedent {
        id: format!("p{n}"),
        text: text(n, 0),
        label: if n.is_multiple_of(2) {
            Label::Benign
        } else {
            Label::Malicious
        },
        kind: Some("exec".to_owned()),
        technique: None,
        tenant: tenant(n).to_owned(),
        observed: Some(WallTime(n as u64)),
        version: "1".to_owned(),
    }
}

fn main() -> Result<(), MemoryError> {
    let records: usize = std::env::args()
        .nth(1)
        .map_or(100_000, |n| n.parse().unwrap_or(100_000));
    let embed = Arc::new(Synthetic {
        clusters: (records / 50).max(1) as u64,
    });
    let dir = std::env::temp_dir().join(format!("inwarden-measure-{}", std::process::id()));
    let options = MemoryOptions {
        index_threads: 2,
        ..MemoryOptions::default()
    };
    let memory = Memory::open(&dir, embed.clone(), options.clone())?;

    let start = Instant::now();
    let all: Vec<_> = (0..records).map(record).collect();
    for batch in all.chunks(4096) {
        memory.upsert_precedents(batch)?;
    }
    println!("written: {records} records in {:.1?}", start.elapsed());
    searches("before the index", &memory, records)?;
    wait_indexed(&memory)?;
    println!("indexed after {:.1?}", start.elapsed());
    searches("indexed", &memory, records)?;
    recall(&memory, &embed, records)?;
    during_inserts(&memory, records)?;
    println!("{:?}", memory.stats()?);

    drop(memory);
    let start = Instant::now();
    let memory = Memory::open(&dir, embed, options)?;
    println!("opened again in {:.1?}", start.elapsed());
    drop(memory);
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        println!("{} stays: {error}", dir.display());
    }
    Ok(())
}

fn wait_indexed(memory: &Memory) -> Result<(), MemoryError> {
    while memory.stats()?.unindexed_records.precedents >= 4096 {
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn queries() -> [(&'static str, PrecedentQuery); 4] {
    let filtered = |query: PrecedentQuery| PrecedentQuery {
        tenants: Some(vec!["a".to_owned()]),
        labels: Some(vec![Label::Benign]),
        ..query
    };
    [
        ("cosine", PrecedentQuery::nearest(10)),
        ("cosine, filtered", filtered(PrecedentQuery::nearest(10))),
        ("hybrid", PrecedentQuery::hybrid(10)),
        ("hybrid, filtered", filtered(PrecedentQuery::hybrid(10))),
    ]
}

fn searches(when: &str, memory: &Memory, records: usize) -> Result<(), MemoryError> {
    for (name, query) in queries() {
        let mut times = Vec::with_capacity(QUERIES);
        for n in 0..QUERIES {
            let question = text(n * 7_919 % records, n + 1);
            let start = Instant::now();
            memory.precedents(&question, &query)?;
            times.push(start.elapsed());
        }
        println!("{when}: {name}: {}", spread(&mut times));
    }
    Ok(())
}

fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100];
    format!("p50 {:.2?}, p95 {:.2?}, p99 {:.2?}", at(50), at(95), at(99))
}

fn recall(memory: &Memory, embed: &Synthetic, records: usize) -> Result<(), MemoryError> {
    let vectors: Vec<_> = (0..records).map(|n| embed.vector(&text(n, 0))).collect();
    for (name, query) in &queries()[..2] {
        let (mut found, mut wanted) = (0, 0);
        for n in 0..100 {
            let question = text(n * 7_919 % records, n + 1);
            let asked = embed.vector(&question);
            let passes =
                |n: &usize| query.tenants.is_none() || (tenant(*n) == "a" && n.is_multiple_of(2));
            let mut exact: Vec<(f32, usize)> = (0..records)
                .filter(passes)
                .map(|n| (asked.iter().zip(&vectors[n]).map(|(l, r)| l * r).sum(), n))
                .collect();
            exact.sort_unstable_by(|left, right| right.0.total_cmp(&left.0));
            let hits = memory.precedents(&question, query)?;
            let ids: HashSet<_> = hits.into_iter().map(|hit| hit.precedent.id).collect();
            let best = exact.iter().take(10);
            found += best
                .clone()
                .filter(|(_, n)| ids.contains(&format!("p{n}")))
                .count();
            wanted += best.count();
        }
        println!("recall@10 against the exact search, {name}: {found} of {wanted}");
    }
    Ok(())
}

fn during_inserts(memory: &Memory, records: usize) -> Result<(), MemoryError> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<Vec<Duration>, MemoryError> {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                memory.upsert_precedents(&[record(records + times.len())])?;
                times.push(start.elapsed());
                thread::sleep(Duration::from_millis(2));
            }
            Ok(times)
        });
        let searched = searches("during inserts", memory, records);
        stop.store(true, Ordering::Relaxed);
        match writer.join() {
            Ok(Ok(mut times)) => {
                println!(
                    "{} inserts of one record: {}",
                    times.len(),
                    spread(&mut times)
                );
                searched
            }
            Ok(Err(error)) => Err(error),
            Err(_) => searched,
        }
    })
}
