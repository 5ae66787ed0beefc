//! Ancestors and bounds, without a kernel.

use inwarden_types::Argv;

use super::*;

/// Knows one process, 500.
struct OneProcess;

impl ProcessFiles for OneProcess {
    fn look_up(&self, tgid: u32, start_ns: u64) -> Option<(Image, u32)> {
        (tgid == 500 && start_ns == 5000).then(|| (image("daemon"), 1))
    }
}

fn key(tgid: u32) -> NodeKey {
    NodeKey {
        tgid,
        start_ns: u64::from(tgid) * 10,
    }
}

fn image(name: &str) -> Image {
    Image {
        exe: format!("/bin/{name}"),
        comm: name.to_owned(),
        argv: Argv::complete(vec![name.to_owned()]),
        cwd: "/".to_owned(),
        exec_at: None,
    }
}

fn tree(max_bytes: usize) -> Tree {
    Tree::new(max_bytes, 1000, Box::new(OneProcess))
}

fn names(tree: &mut Tree, of: NodeKey) -> Vec<String> {
    tree.ancestors(of, 8)
        .into_iter()
        .map(|(_, image)| image.comm.clone())
        .collect()
}

#[test]
fn a_fork_inherits_the_image_until_it_execs() {
    let mut tree = tree(1 << 20);
    tree.execed(key(2), key(1), image("bash"));
    assert_eq!(tree.forked(key(3), key(2), "x").comm, "bash");
    assert_eq!(tree.forked(key(4), key(3), "x").comm, "bash");
    assert_eq!(names(&mut tree, key(4)), ["bash", "bash", ""]);
    tree.execed(key(3), key(2), image("curl"));
    assert_eq!(names(&mut tree, key(4)), ["curl", "bash", ""]);
}

#[test]
fn ancestors_are_at_most_as_many_as_asked_for() {
    let mut tree = tree(1 << 20);
    for tgid in 2..40 {
        tree.forked(key(tgid), key(tgid - 1), "x");
    }
    assert_eq!(tree.ancestors(key(39), 8).len(), 8);
    assert_eq!(tree.ancestors(key(39), 8)[0].0, key(38));
}

#[test]
fn an_unknown_ancestor_is_looked_up_in_proc() {
    let mut tree = tree(1 << 20);
    tree.execed(key(501), key(500), image("child"));
    assert_eq!(names(&mut tree, key(501)), ["daemon"]);
    tree.found(key(500), None, "other");
    assert_eq!(names(&mut tree, key(501)), ["daemon"]);
}

#[test]
fn a_parent_that_ended_stays_while_its_child_lives() {
    let mut tree = tree(1 << 20);
    tree.execed(key(2), key(0), image("launcher"));
    tree.forked(key(3), key(2), "x");
    assert!(tree.ended(key(2), 100, "x").is_some());
    // Long after its retention something else ends.
    tree.forked(key(4), key(3), "x");
    tree.ended(key(4), 100_000, "x");
    assert_eq!(names(&mut tree, key(3)), ["launcher"]);
    // Once the child is gone too, all are forgotten.
    tree.ended(key(3), 200_000, "x");
    for at in [300_000, 400_000, 500_000, 600_000] {
        tree.forked(key(9), key(0), "x");
        tree.ended(key(9), at, "x");
    }
    assert_eq!(tree.parent(key(3)), None);
    assert!(tree.usage().processes <= 2, "{:?}", tree.usage());
}

#[test]
fn the_end_of_a_process_is_reported_once() {
    let mut tree = tree(1 << 20);
    tree.execed(key(2), key(0), image("a"));
    assert!(tree.ended(key(2), 100, "a").is_some());
    assert!(tree.ended(key(2), 101, "a").is_none());
    assert_eq!(tree.ended(key(77), 101, "unseen").unwrap().comm, "unseen");
}

#[test]
fn the_tree_stays_within_its_bytes_and_counts_what_it_forgets() {
    let limit = 100_000;
    let mut tree = tree(limit);
    for tgid in 2..5000 {
        let mut image = image("worker");
        image.argv = Argv::complete(vec!["x".repeat(usize::try_from(tgid % 300).unwrap())]);
        tree.execed(key(tgid), key(1), image);
        assert!(tree.usage().bytes <= limit, "{:?}", tree.usage());
        if tgid % 3 == 0 {
            tree.ended(key(tgid), u64::from(tgid), "x");
        }
    }
    let usage = tree.usage();
    assert!(
        usage.forgotten_living > 0 && usage.processes > 50,
        "{usage:?}"
    );
    let counted: usize = tree.nodes.values().map(Node::bytes).sum();
    assert_eq!(counted, usage.bytes);
    assert!(tree.births.len() <= 2 * usage.processes + 64);
}

#[test]
fn one_process_larger_than_the_tree_does_not_hang_it() {
    let mut tree = tree(10);
    tree.execed(key(2), key(1), image("a"));
    tree.execed(key(2), key(1), image("b"));
    tree.execed(key(3), key(1), image("c"));
    assert_eq!(tree.usage().processes, 1);
}

#[test]
fn a_reused_number_is_another_process() {
    let mut tree = tree(1 << 20);
    tree.execed(key(2), key(0), image("first"));
    tree.ended(key(2), 100, "x");
    let again = NodeKey {
        tgid: 2,
        start_ns: 999,
    };
    tree.execed(again, key(0), image("second"));
    assert_eq!(tree.living(2), Some(again));
    tree.forked(key(5), again, "x");
    assert_eq!(names(&mut tree, key(5)), ["second"]);
}
