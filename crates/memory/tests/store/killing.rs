//! Killed at any moment, also while it builds its index, a store loses nothing that
//! was acknowledged.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use inwarden_memory::{Memory, PrecedentQuery};
use inwarden_types::Label;

use crate::support::{HashingEmbed, indexing_early, key, open, precedent};

const CHILD_DIR: &str = "INWARDEN_MEMORY_KILL_CHILD_DIR";
const CHILD_ROUND: &str = "INWARDEN_MEMORY_KILL_CHILD_ROUND";
/// How often the process is killed; the release check asks for 100.
const KILLS: &str = "INWARDEN_TEST_MEMORY_KILLS";

const WRITERS: usize = 2;
const BATCH: usize = 8;

fn id(round: usize, writer: usize, batch: usize, n: usize) -> String {
    format!("{round}-{writer}-{batch}-{n}")
}

fn states(memory: &Memory, step: &str, prefix: (usize, usize, usize)) {
    let (round, writer, batch) = prefix;
    let with = |label| -> Vec<_> {
        (0..BATCH)
            .map(|n| {
                let id = id(round, writer, batch, n);
                precedent(&id, &id, label)
            })
            .collect()
    };
    match step {
        "benign" => memory.upsert_precedents(&with(Label::Benign)).unwrap(),
        "malicious" => memory.upsert_precedents(&with(Label::Malicious)).unwrap(),
        _ => {
            let keys: Vec<_> = (0..BATCH)
                .map(|n| key(&id(round, writer, batch, n)))
                .collect();
            memory.remove_precedents(&keys).unwrap();
        }
    }
}

/// The steps of a batch, in order; every third batch is removed at last.
fn steps(batch: usize) -> &'static [&'static str] {
    if batch.is_multiple_of(3) {
        &["benign", "malicious", "removed"]
    } else {
        &["benign", "malicious"]
    }
}

/// Not a test of its own: the process that the test below starts and kills.
#[test]
#[ignore = "the child process of the test in this file"]
fn child_writes_from_two_threads_until_killed() {
    let (Some(dir), Ok(round)) = (env::var_os(CHILD_DIR), env::var(CHILD_ROUND)) else {
        return;
    };
    let round: usize = round.parse().unwrap();
    let memory = Memory::open(Path::new(&dir), HashingEmbed::new(), indexing_early()).unwrap();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let memory = &memory;
            scope.spawn(move || {
                for batch in 0.. {
                    for step in steps(batch) {
                        states(memory, step, (round, writer, batch));
                        let line = format!("\nack {writer} {batch} {step}\n");
                        let mut out = std::io::stdout().lock();
                        out.write_all(line.as_bytes()).unwrap();
                        out.flush().unwrap();
                    }
                }
            });
        }
    });
}

fn start(dir: &Path, round: usize) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "killing::child_writes_from_two_threads_until_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD_DIR, dir)
        .env(CHILD_ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The steps that the child acknowledged: (writer, batch) to how many.
fn acknowledged(child: &mut Child) -> BTreeMap<(usize, usize), usize> {
    let mut done = BTreeMap::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Ok(line) = line else { break };
        let mut parts = line.split(' ');
        if parts.next() != Some("ack") {
            continue;
        }
        let (Some(writer), Some(batch), Some(step)) = (parts.next(), parts.next(), parts.next())
        else {
            break;
        };
        let batch: usize = batch.parse().unwrap();
        // The last line can be cut off.
        let Some(step) = steps(batch).iter().position(|known| *known == step) else {
            break;
        };
        done.insert((writer.parse().unwrap(), batch), step + 1);
    }
    done
}

fn all(memory: &Memory) -> BTreeMap<String, Label> {
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        let query = PrecedentQuery::nearest(4096);
        let (page, next) = memory.list_precedents(&query, after).unwrap();
        found.extend(page.into_iter().map(|one| (one.id, one.label)));
        match next {
            Some(_) => after = next,
            None => return found,
        }
    }
}

/// What a record can be after `count` steps of its batch.
fn state_after(batch: usize, count: usize) -> Option<Label> {
    match count.checked_sub(1).map(|last| steps(batch)[last]) {
        Some("benign") => Some(Label::Benign),
        Some("malicious") => Some(Label::Malicious),
        _ => None,
    }
}

fn is_building(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir.join("index/precedents")) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("building-"))
}

#[test]
fn nothing_acknowledged_is_lost_however_often_it_is_killed() {
    let kills = env::var(KILLS).map_or(10, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut expected: BTreeMap<String, Label> = BTreeMap::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    println!("seed {seed}");
    let (mut during_builds, mut acknowledged_batches) = (0, 0);
    for round in 0..kills {
        let mut child = start(dir.path(), round);
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // Every other time it waits until the index is being built.
        if round % 2 == 1 {
            let until = std::time::Instant::now() + Duration::from_secs(3);
            while !is_building(dir.path()) && std::time::Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
        }
        thread::sleep(Duration::from_millis(seed % 300));
        child.kill().unwrap();
        during_builds += usize::from(is_building(dir.path()));
        let done = acknowledged(&mut child);
        child.wait().unwrap();
        acknowledged_batches += done.len();

        // Without an index of its own in the making, which would look like the child's.
        let memory = open(dir.path()).unwrap();
        let found = all(&memory);
        for (id, label) in &expected {
            assert_eq!(found.get(id), Some(label), "round {round}: {id}");
        }
        for ((writer, batch), count) in &done {
            for n in 0..BATCH {
                let id = id(round, *writer, *batch, n);
                let now = found.get(&id).copied();
                // What came after the last acknowledgement may be there, too.
                let next = (*count + 1).min(steps(*batch).len());
                let allowed = [state_after(*batch, *count), state_after(*batch, next)];
                assert!(allowed.contains(&now), "round {round}: {id} is {now:?}");
            }
        }
        expected = found;
        assert!(memory.stats().unwrap().torn_bytes < 1 << 20);
        // What is there is also found.
        if let Some((id, label)) = expected.iter().next_back() {
            let hits = memory
                .precedents(id, &PrecedentQuery::nearest(256))
                .unwrap();
            let hit = hits.iter().find(|hit| hit.precedent.id == *id).unwrap();
            assert_eq!(hit.precedent.label, *label);
        }
    }
    println!(
        "killed {kills} times, {during_builds} while the index was built; {acknowledged_batches} \
         batches acknowledged, {} records at last",
        expected.len()
    );
    assert!(
        acknowledged_batches > kills,
        "the children wrote too little"
    );
    assert!(during_builds > 0, "no kill hit a build");
}
