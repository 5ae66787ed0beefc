//! What becomes of a store when its server goes away, is silent, forgets or lies.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use inwarden_memory::{
    Memory, MemoryOptions, MemoryStats, PrecedentQuery, ServerKey, ServerOptions,
};
use inwarden_types::Label;

use crate::{
    proxy::{Proxy, Wire},
    service::{Lie, Service},
    subject::{Backend, TestServer, wait_caught_up},
    support::{HashingEmbed, key, precedent, wait_until},
};

/// A check with its name.
type Check = (&'static str, fn(&TestServer));

/// All of them.
pub(crate) const CHECKS: &[Check] = &[
    (
        "writes_and_searches_go_on_without_the_server_and_it_catches_up",
        outage,
    ),
    (
        "a_silent_server_costs_a_search_its_deadline_and_no_more",
        silence,
    ),
    (
        "a_store_opens_writes_and_answers_without_its_server",
        absent,
    ),
    (
        "a_reopened_store_sends_only_what_the_server_lacks",
        reopened,
    ),
    ("a_server_that_forgot_everything_is_filled_again", forgotten),
    ("a_server_that_lost_one_record_gets_it_again", lost_one),
    ("two_stores_on_one_server_do_not_see_each_other", two_stores),
    (
        "a_collection_of_another_dimension_is_refused_and_left_alone",
        other_dimension,
    ),
    ("a_server_that_lies_is_not_believed", lies),
    ("a_key_is_sent_and_never_shown", keys),
];

fn ids(memory: &Memory, text: &str, limit: usize) -> Vec<String> {
    let hits = memory.precedents(text, &PrecedentQuery::hybrid(limit));
    hits.expect("the search succeeds")
        .into_iter()
        .map(|hit| hit.precedent.id)
        .collect()
}

fn put(memory: &Memory, id: &str, text: &str) {
    memory
        .upsert_precedents(&[precedent(id, text, Label::Benign)])
        .expect("it is stored");
}

fn stats(memory: &Memory) -> MemoryStats {
    memory.stats().expect("we own it")
}

fn wait_failed(memory: &Memory) {
    wait_until("the failure is noticed", || {
        let stats = stats(memory);
        stats.server_failures > 0 && !stats.server_answers
    });
}

/// A store behind a wire that can be cut; none if there is no way between.
fn behind_proxy(server: &TestServer, dir: &Path) -> Option<(Proxy, Memory)> {
    let Some(target) = server.clear_address() else {
        crate::say("not run: the server is reached through TLS");
        return None;
    };
    let proxy = Proxy::start(target);
    let mut options = server.options_through(&format!("http://{}", proxy.address));
    options.search_deadline = Duration::from_millis(300);
    options.call_deadline = Duration::from_secs(2);
    let memory = Backend::Server(options).open(dir);
    Some((proxy, memory))
}

fn outage(server: &TestServer) {
    let dir = tempfile::tempdir().expect("there is a place");
    let Some((proxy, memory)) = behind_proxy(server, dir.path()) else {
        return;
    };
    for n in 0..20 {
        put(&memory, &format!("p{n}"), &format!("make target{n}"));
    }
    wait_caught_up(&memory);
    assert_eq!(ids(&memory, "make target7", 1), ["p7"]);
    let before = stats(&memory);
    assert_eq!(
        (before.server_searches, before.server_puts),
        (1, 20),
        "{before:?}"
    );

    proxy.set(Wire::Cut);
    for n in 20..40 {
        put(&memory, &format!("p{n}"), &format!("make target{n}"));
        // What was acknowledged is found, without the server too.
        assert_eq!(
            ids(&memory, &format!("make target{n}"), 1),
            [format!("p{n}")]
        );
    }
    let gone = memory.remove_precedents(&[key("p3"), key("p25")]);
    assert_eq!(gone.expect("they are removed"), 2);
    assert!(!ids(&memory, "make target3", 40).contains(&"p3".to_owned()));
    wait_failed(&memory);
    let away = stats(&memory);
    assert_eq!(away.server_searches, before.server_searches, "{away:?}");
    assert!(
        away.server_fallbacks >= 20 && away.last_server_error.is_some(),
        "{away:?}"
    );

    proxy.set(Wire::Whole);
    wait_caught_up(&memory);
    assert_eq!(ids(&memory, "make target33", 1), ["p33"]);
    assert_eq!(ids(&memory, "make target3", 40).len(), 38);
    let back = stats(&memory);
    assert_eq!(back.server_searches, before.server_searches + 2, "{back:?}");
    // The nineteen that stayed, and nothing twice.
    assert_eq!(back.server_puts, 39, "{back:?}");
    assert_eq!(back.server_removals, 1, "{back:?}");
}

fn silence(server: &TestServer) {
    let dir = tempfile::tempdir().expect("there is a place");
    let Some((proxy, memory)) = behind_proxy(server, dir.path()) else {
        return;
    };
    put(&memory, "p1", "make test");
    wait_caught_up(&memory);
    proxy.set(Wire::Silent);
    let start = Instant::now();
    assert_eq!(ids(&memory, "make test", 1), ["p1"]);
    let first = start.elapsed();
    assert!(
        first >= Duration::from_millis(300) && first < Duration::from_secs(2),
        "{first:?}"
    );
    // Those after it do not wait.
    let start = Instant::now();
    for _ in 0..50 {
        assert_eq!(ids(&memory, "make test", 1), ["p1"]);
    }
    assert!(
        start.elapsed() < Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
    proxy.set(Wire::Whole);
    wait_caught_up(&memory);
}

fn absent(server: &TestServer) {
    let dir = tempfile::tempdir().expect("there is a place");
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        format!("http://{}", listener.local_addr().expect("it is bound"))
    };
    let memory = Backend::Server(server.options_through(&nobody)).open(dir.path());
    put(&memory, "p1", "make test");
    assert_eq!(ids(&memory, "make test", 1), ["p1"]);
    wait_failed(&memory);
    let said = stats(&memory).last_server_error.expect("it is noted");
    assert!(said.contains(&nobody) && !said.contains("make"), "{said}");
    drop(memory);
    let memory = Backend::Server(server.options()).open(dir.path());
    wait_caught_up(&memory);
    assert_eq!(ids(&memory, "make test", 1), ["p1"]);
    assert_eq!(stats(&memory).server_searches, 1);
}

fn reopened(server: &TestServer) {
    let dir = tempfile::tempdir().expect("there is a place");
    let backend = Backend::Server(server.options());
    let memory = backend.open(dir.path());
    let many: Vec<_> = (0..700)
        .map(|n| precedent(&format!("p{n}"), &format!("make target{n}"), Label::Benign))
        .collect();
    memory.upsert_precedents(&many).expect("they are stored");
    wait_caught_up(&memory);
    assert_eq!(stats(&memory).server_puts, 700);
    drop(memory);

    let memory = Backend::Embedded.open(dir.path());
    put(&memory, "p5", "another text");
    put(&memory, "new", "make news");
    let gone = memory.remove_precedents(&[key("p6"), key("p7")]);
    assert_eq!(gone.expect("they are removed"), 2);
    drop(memory);

    let memory = backend.open(dir.path());
    wait_caught_up(&memory);
    let after = stats(&memory);
    assert_eq!(
        (after.server_puts, after.server_removals),
        (2, 2),
        "{after:?}"
    );
    assert_eq!(ids(&memory, "another text", 1), ["p5"]);
    assert_eq!(ids(&memory, "make news", 1), ["new"]);
    assert_eq!(stats(&memory).server_searches, 2);
}

fn forgotten(server: &TestServer) {
    let dir = tempfile::tempdir().expect("there is a place");
    let memory = Backend::Server(server.options()).open(dir.path());
    for n in 0..10 {
        put(&memory, &format!("p{n}"), &format!("make target{n}"));
    }
    wait_caught_up(&memory);
    server.drop_collection("precedents");
    // Searching finds out, and is answered all the same.
    assert_eq!(ids(&memory, "make target7", 1), ["p7"]);
    assert_eq!(stats(&memory).server_fallbacks, 1);
    wait_caught_up(&memory);
    assert_eq!(ids(&memory, "make target8", 1), ["p8"]);
    let after = stats(&memory);
    assert_eq!(
        (after.server_puts, after.server_searches),
        (20, 1),
        "{after:?}"
    );
}

fn lost_one(server: &TestServer) {
    let dir = tempfile::tempdir().expect("there is a place");
    let prefix = format!("inwarden-test-lost-{}", std::process::id());
    let options = server.options().with_collection_prefix(&prefix);
    let mut options = options.expect("the prefix is one");
    options.check_every = Duration::from_millis(50);
    let memory = Backend::Server(options).open(dir.path());
    for n in 0..4 {
        put(&memory, &format!("p{n}"), &format!("make target{n}"));
    }
    wait_caught_up(&memory);
    server.remove_one_point(&format!("{prefix}-precedents"));
    // Nobody searches; the counts tell.
    wait_until("the record is sent again", || {
        stats(&memory).server_puts == 5
    });
    wait_caught_up(&memory);
    assert_eq!(ids(&memory, "make target1", 4).len(), 4);
    let after = stats(&memory);
    assert_eq!(
        (after.server_searches, after.server_failures),
        (1, 0),
        "{after:?}"
    );
    drop(memory);
    server.drop_all(&prefix);
}

fn two_stores(server: &TestServer) {
    let dirs = [tempfile::tempdir(), tempfile::tempdir()].map(|dir| dir.expect("there is a place"));
    let backend = Backend::Server(server.options());
    let [left, right] = [&dirs[0], &dirs[1]].map(|dir| backend.open(dir.path()));
    put(&left, "p1", "make left");
    put(&left, "p2", "make both");
    put(&right, "p1", "make right");
    for memory in [&left, &right] {
        wait_caught_up(memory);
    }
    let hits = right.precedents("make left", &PrecedentQuery::nearest(5));
    let hits = hits.expect("the search succeeds");
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].precedent.text, "make right");
    let gone = right.remove_precedents(&[key("p1")]);
    assert_eq!(gone.expect("it is removed"), 1);
    wait_caught_up(&right);
    assert_eq!(ids(&left, "make left", 5), ["p1", "p2"]);
    assert_eq!(stats(&left).server_searches, 1);
}

fn other_dimension(server: &TestServer) {
    let dirs = [tempfile::tempdir(), tempfile::tempdir()].map(|dir| dir.expect("there is a place"));
    let first = Backend::Server(server.options()).open(dirs[0].path());
    put(&first, "p1", "make test");
    wait_caught_up(&first);
    let options = MemoryOptions {
        server: Some(server.options()),
        ..MemoryOptions::default()
    };
    let embed = HashingEmbed::with("hashing@1", 32);
    let second = Memory::open(dirs[1].path(), embed, options).expect("it opens");
    put(&second, "p1", "make test");
    wait_failed(&second);
    let said = stats(&second).last_server_error.expect("it is noted");
    assert!(said.contains("length 64, not 32"), "{said}");
    assert_eq!(ids(&second, "make test", 1), ["p1"]);
    assert_eq!(ids(&first, "make test", 5), ["p1"]);
    assert_eq!(stats(&first).server_searches, 1);
}

fn lies(server: &TestServer) {
    let Some(service) = &server.service else {
        crate::say("not run: a real server cannot be told to lie");
        return;
    };
    let dir = tempfile::tempdir().expect("there is a place");
    let memory = Backend::Server(server.options()).open(dir.path());
    for n in 0..5 {
        put(&memory, &format!("p{n}"), &format!("make target{n}"));
    }
    let untold = {
        wait_caught_up(&memory);
        ids(&memory, "make target2", 3)
    };
    for lie in [
        Lie::UnknownRecords,
        Lie::NotNumbers,
        Lie::OneRecordTwice,
        Lie::TooFewLists,
        Lie::Nothing,
    ] {
        wait_caught_up(&memory);
        let before = stats(&memory);
        service.lie(lie);
        let hits = memory.precedents("make target2", &PrecedentQuery::nearest(3));
        service.lie(Lie::None);
        let hits = hits.expect("the embedded index answers");
        assert_eq!(hits[0].precedent.id, "p2", "{lie:?}");
        assert_eq!(hits.len(), 3, "{lie:?}");
        let after = stats(&memory);
        assert_eq!(
            after.server_fallbacks,
            before.server_fallbacks + 1,
            "{lie:?}"
        );
    }
    wait_caught_up(&memory);
    assert_eq!(ids(&memory, "make target2", 3), untold);
}

fn keys(_: &TestServer) {
    const KEY: &str = "hush-hush-hush";
    let service = Service::start(Some(KEY));
    let options = |key: &str| {
        let url = format!("http://{}", service.address);
        let mut options = ServerOptions::new(&url).expect("the address is one");
        options.api_key = Some(ServerKey::new(key).expect("the key is one"));
        options.retry_after = Duration::from_millis(50);
        options.search_deadline = Duration::from_secs(10);
        options
    };
    let dir = tempfile::tempdir().expect("there is a place");
    let memory = Backend::Server(options("wrong-wrong")).open(dir.path());
    put(&memory, "p1", "make test");
    wait_failed(&memory);
    let shown = format!(
        "{:?} {memory:?} {:?}",
        stats(&memory),
        options("wrong-wrong")
    );
    assert!(shown.contains("Unauthenticated"), "{shown}");
    assert!(!shown.contains("wrong-wrong"), "{shown}");
    assert_eq!(ids(&memory, "make test", 1), ["p1"]);
    drop(memory);
    let memory = Backend::Server(options(KEY)).open(dir.path());
    wait_caught_up(&memory);
    assert_eq!(ids(&memory, "make test", 1), ["p1"]);
    assert_eq!(stats(&memory).server_searches, 1);
}
