//! What was acknowledged is there again, however the writer ended.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::support::{key, open, precedent};
use inwarden_memory::{Memory, MemoryError, PrecedentQuery};
use inwarden_types::{Label, Tgid};

const CHILD_DIR: &str = "INWARDEN_MEMORY_TEST_CHILD_DIR";

/// Not a test of its own: the process that the tests below start and kill.
#[test]
#[ignore = "the child process of the tests in this file"]
fn child_writes_until_killed() {
    let Some(dir) = env::var_os(CHILD_DIR) else {
        return;
    };
    let memory = open(Path::new(&dir)).unwrap();
    let mut stdout = std::io::stdout().lock();
    for n in 0_u32.. {
        let id = format!("p{n}");
        // Written, then changed; every third is removed again.
        memory
            .upsert_precedents(&[precedent(&id, &id, Label::Benign)])
            .unwrap();
        memory
            .upsert_precedents(&[precedent(&id, &id, Label::Malicious)])
            .unwrap();
        let state = if n % 3 == 0 {
            memory.remove_precedents(&[key(&id)]).unwrap();
            "removed"
        } else {
            "malicious"
        };
        writeln!(stdout, "\nack {id} {state} {}", memory.content_hash()).unwrap();
        stdout.flush().unwrap();
    }
}

fn start_child(dir: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "durability::child_writes_until_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads the child's acknowledgements until `count` have come, and returns them
/// with the last content hash.
fn read_acknowledged(child: &mut Child, count: usize) -> (BTreeMap<String, bool>, String) {
    let mut acknowledged = BTreeMap::new();
    let mut hash = String::new();
    for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
        let line = line.unwrap();
        let Some(ack) = line.strip_prefix("ack ") else {
            continue;
        };
        let mut parts = ack.split(' ');
        let id = parts.next().unwrap().to_owned();
        acknowledged.insert(id, parts.next().unwrap() == "malicious");
        hash = parts.next().unwrap().to_owned();
        if acknowledged.len() == count {
            break;
        }
    }
    assert_eq!(acknowledged.len(), count, "the child ended early");
    (acknowledged, hash)
}

fn check_present(memory: &Memory, acknowledged: &BTreeMap<String, bool>) {
    for (id, present) in acknowledged {
        let hits = memory
            .precedents(id, &PrecedentQuery::nearest(256))
            .unwrap();
        let found = hits.iter().find(|hit| hit.precedent.id == *id);
        assert_eq!(found.is_some(), *present, "{id}");
        if let Some(hit) = found {
            assert_eq!(hit.precedent.label, Label::Malicious, "{id}");
        }
    }
}

#[test]
fn everything_acknowledged_is_there_after_drop() {
    let dir = tempfile::tempdir().unwrap();
    let mut hash = String::new();
    for round in 0..3 {
        let memory = open(dir.path()).unwrap();
        if round > 0 {
            assert_eq!(memory.content_hash(), hash, "round {round}");
        }
        for n in 0..12 {
            let id = format!("p{round}-{n}");
            memory
                .upsert_precedents(&[precedent(&id, &id, Label::Malicious)])
                .unwrap();
        }
        hash = memory.content_hash();
    }
    let memory = open(dir.path()).unwrap();
    assert_eq!(memory.precedents_len(), 36);
    assert_eq!(memory.content_hash(), hash);
    let all = (0..3)
        .flat_map(|round| (0..12).map(move |n| (format!("p{round}-{n}"), true)))
        .collect();
    check_present(&memory, &all);
}

#[test]
fn everything_acknowledged_is_there_after_sigkill() {
    for count in [1, 12] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = start_child(dir.path());
        let (acknowledged, _) = read_acknowledged(&mut child, count);
        child.kill().unwrap();
        child.wait().unwrap();
        let memory = open(dir.path()).unwrap();
        check_present(&memory, &acknowledged);
        // Writes go on after the crash, also over what was there.
        memory
            .upsert_precedents(&[precedent("p1", "p1", Label::Benign)])
            .unwrap();
        drop(memory);
        let memory = open(dir.path()).unwrap();
        let hits = memory
            .precedents("p1", &PrecedentQuery::nearest(256))
            .unwrap();
        let rewritten = hits.iter().find(|hit| hit.precedent.id == "p1").unwrap();
        assert_eq!(rewritten.precedent.label, Label::Benign, "after {count}");
    }
}

#[test]
fn the_second_process_learns_who_owns_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start_child(dir.path());
    read_acknowledged(&mut child, 1);
    let refused = open(dir.path());
    let owner = Tgid(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        matches!(&refused, Err(MemoryError::Locked { owner: Some(found), .. }) if *found == owner),
        "{refused:?}"
    );
    // The lock dies with the process, whatever the lock file says.
    open(dir.path()).unwrap();
}
