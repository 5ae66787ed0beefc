//! The process tree: who forked whom, and what each runs.
//!
//! A process inherits its parent's image until it execs. One that ended stays
//! a while, and longer while it has living children, so that they keep their
//! ancestors. The tree never holds more than its bytes: then the processes
//! that ended longest ago go first, after them the oldest.

use std::{
    collections::{HashMap, VecDeque},
    mem::size_of,
    sync::Arc,
};

use inwarden_types::Image;

use crate::procfs::ProcessFiles;

/// TGID and `start_boottime`, within this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeKey {
    pub(crate) tgid: u32,
    pub(crate) start_ns: u64,
}

/// How large the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TreeUsage {
    /// Processes it knows.
    pub processes: usize,
    /// Bytes they take, counted generously.
    pub bytes: usize,
    /// Living processes that were forgotten for want of room, since the start.
    pub forgotten_living: u64,
}

#[derive(Debug)]
struct Node {
    parent: Option<NodeKey>,
    image: Arc<Image>,
    ended: bool,
    children: u32,
}

impl Node {
    /// An inherited image counts for each process that holds it.
    fn bytes(&self) -> usize {
        let image = &self.image;
        let args: usize = image
            .argv
            .args
            .iter()
            .map(|arg| size_of::<String>() + arg.len())
            .sum();
        let texts = image.exe.len() + image.comm.len() + image.cwd.len() + args;
        // The node, its image, and its places in the map and the queues.
        size_of::<Self>() + size_of::<Image>() + 4 * size_of::<NodeKey>() + texts
    }
}

/// The tree; see the module.
pub(crate) struct Tree {
    nodes: HashMap<NodeKey, Node>,
    /// The living by number, to find parents that `/proc` names.
    living: HashMap<u32, NodeKey>,
    /// In the order of their birth or discovery; may name forgotten ones.
    births: VecDeque<NodeKey>,
    /// Those that ended, with the time from which they may be forgotten.
    ended: VecDeque<(u64, NodeKey)>,
    bytes: usize,
    max_bytes: usize,
    retention_ns: u64,
    forgotten_living: u64,
    files: Box<dyn ProcessFiles>,
}

impl Tree {
    pub(crate) fn new(max_bytes: usize, retention_ns: u64, files: Box<dyn ProcessFiles>) -> Self {
        Self {
            nodes: HashMap::new(),
            living: HashMap::new(),
            births: VecDeque::new(),
            ended: VecDeque::new(),
            bytes: 0,
            max_bytes,
            retention_ns,
            forgotten_living: 0,
            files,
        }
    }

    /// A process that runs already. Does nothing if it is known.
    pub(crate) fn found(&mut self, key: NodeKey, parent: Option<NodeKey>, comm: &str) {
        if self.nodes.contains_key(&key) {
            return;
        }
        let image = self
            .files
            .look_up(key.tgid, key.start_ns)
            .map_or_else(|| named(comm), |(image, _)| image);
        self.insert(key, parent, Arc::new(image));
    }

    /// `forker` gave birth to `key`; returns the inherited image.
    pub(crate) fn forked(&mut self, key: NodeKey, forker: NodeKey, comm: &str) -> Arc<Image> {
        self.ensure(forker);
        let image = self
            .nodes
            .get(&forker)
            .map_or_else(|| Arc::new(named(comm)), |node| Arc::clone(&node.image));
        self.insert(key, Some(forker), Arc::clone(&image));
        image
    }

    /// `key` runs `image` now. `parent` is used if its birth was not seen.
    pub(crate) fn execed(&mut self, key: NodeKey, parent: NodeKey, image: Image) -> Arc<Image> {
        let image = Arc::new(image);
        let parent = match self.nodes.get(&key) {
            Some(node) => node.parent,
            None => Some(parent),
        };
        self.insert(key, parent, Arc::clone(&image));
        image
    }

    /// `key` ended at `at_ns`. Returns its image, or `None` if it had already
    /// ended: before Linux 6.16 two threads can both report the end.
    pub(crate) fn ended(&mut self, key: NodeKey, at_ns: u64, comm: &str) -> Option<Arc<Image>> {
        let Some(node) = self.nodes.get_mut(&key) else {
            return Some(Arc::new(named(comm)));
        };
        if node.ended {
            return None;
        }
        node.ended = true;
        let image = Arc::clone(&node.image);
        if self.living.get(&key.tgid) == Some(&key) {
            self.living.remove(&key.tgid);
        }
        self.ended
            .push_back((at_ns.saturating_add(self.retention_ns), key));
        self.forget_ended_before(at_ns);
        Some(image)
    }

    /// The parent: who forked it, where that was seen.
    pub(crate) fn parent(&self, key: NodeKey) -> Option<NodeKey> {
        self.nodes.get(&key)?.parent
    }

    /// Up to `limit` ancestors, nearest first. Where the tree does not know one,
    /// `/proc` is asked; where that does not either, the line ends with a key
    /// and an empty image.
    pub(crate) fn ancestors(&mut self, key: NodeKey, limit: usize) -> Vec<(NodeKey, Arc<Image>)> {
        let mut line: Vec<(NodeKey, Arc<Image>)> = Vec::with_capacity(limit);
        let mut next = self.parent(key);
        while let Some(ancestor) = next {
            // Process 0 is the kernel's own. A cycle cannot be, but costs nothing to stop.
            if line.len() == limit || ancestor.tgid == 0 || line.iter().any(|(k, _)| *k == ancestor)
            {
                break;
            }
            self.ensure(ancestor);
            let Some(node) = self.nodes.get(&ancestor) else {
                line.push((ancestor, Arc::new(Image::default())));
                break;
            };
            line.push((ancestor, Arc::clone(&node.image)));
            next = node.parent;
        }
        line
    }

    /// The living process with this number.
    pub(crate) fn living(&self, tgid: u32) -> Option<NodeKey> {
        self.living.get(&tgid).copied()
    }

    pub(crate) fn usage(&self) -> TreeUsage {
        TreeUsage {
            processes: self.nodes.len(),
            bytes: self.bytes,
            forgotten_living: self.forgotten_living,
        }
    }

    /// Asks `/proc` about a process the tree does not know.
    fn ensure(&mut self, key: NodeKey) {
        if key.tgid == 0 || self.nodes.contains_key(&key) {
            return;
        }
        if let Some((image, parent_tgid)) = self.files.look_up(key.tgid, key.start_ns) {
            let parent = self.living(parent_tgid);
            self.insert(key, parent, Arc::new(image));
        }
    }

    fn insert(&mut self, key: NodeKey, parent: Option<NodeKey>, image: Arc<Image>) {
        let (children, known) = match self.remove(key) {
            Some(old) => (old.children, true),
            None => (0, false),
        };
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children += 1;
        }
        let node = Node {
            parent,
            image,
            ended: false,
            children,
        };
        self.bytes += node.bytes();
        self.nodes.insert(key, node);
        self.living.insert(key.tgid, key);
        if !known {
            self.births.push_back(key);
        }
        self.make_room(key);
    }

    fn remove(&mut self, key: NodeKey) -> Option<Node> {
        let node = self.nodes.remove(&key)?;
        self.bytes -= node.bytes();
        if let Some(parent) = node.parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children = parent.children.saturating_sub(1);
        }
        if self.living.get(&key.tgid) == Some(&key) {
            self.living.remove(&key.tgid);
        }
        Some(node)
    }

    /// Forgets processes whose time has come, except parents of known ones.
    fn forget_ended_before(&mut self, now_ns: u64) {
        for _ in 0..self.ended.len() {
            match self.ended.front() {
                Some((due, _)) if *due <= now_ns => {}
                _ => break,
            }
            let Some((_, key)) = self.ended.pop_front() else {
                break;
            };
            let Some(node) = self.nodes.get(&key).filter(|node| node.ended) else {
                continue;
            };
            if node.children > 0 {
                let later = now_ns.saturating_add(self.retention_ns.max(1));
                self.ended.push_back((later, key));
            } else {
                self.remove(key);
            }
        }
        self.tidy_births();
    }

    fn make_room(&mut self, keep: NodeKey) {
        while self.bytes > self.max_bytes {
            if let Some((_, key)) = self.ended.pop_front() {
                if key != keep && self.nodes.get(&key).is_some_and(|node| node.ended) {
                    self.remove(key);
                }
                continue;
            }
            let Some(key) = self.births.pop_front() else {
                break;
            };
            if key == keep {
                if self.births.is_empty() {
                    self.births.push_back(key);
                    break;
                }
                self.births.push_back(key);
                continue;
            }
            if self.remove(key).is_some() {
                self.forgotten_living += 1;
            }
        }
        self.tidy_births();
    }

    /// The queue names forgotten processes until they are half of it.
    fn tidy_births(&mut self) {
        if self.births.len() > 2 * self.nodes.len() + 64 {
            let nodes = &self.nodes;
            self.births.retain(|key| nodes.contains_key(key));
        }
    }
}

/// All that is known of a process nobody saw start.
fn named(comm: &str) -> Image {
    Image {
        comm: comm.to_owned(),
        ..Image::default()
    }
}

#[cfg(test)]
mod tests;
