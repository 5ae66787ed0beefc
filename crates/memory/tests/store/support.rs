//! A small deterministic embedder and records to go with it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use inwarden_memory::{
    Document, Embed, EmbedError, Memory, MemoryError, MemoryOptions, Precedent, RecordKey,
};
use inwarden_types::{Label, Technique, WallTime};

/// Hashes each word to one signed place of the vector (FNV-1a).
pub(crate) struct HashingEmbed {
    pub(crate) identity: &'static str,
    pub(crate) dimension: usize,
    pub(crate) embedded_texts: AtomicUsize,
}

impl HashingEmbed {
    pub(crate) fn new() -> Arc<Self> {
        Self::with("hashing@1", 64)
    }

    pub(crate) fn with(identity: &'static str, dimension: usize) -> Arc<Self> {
        Arc::new(Self {
            identity,
            dimension,
            embedded_texts: AtomicUsize::new(0),
        })
    }

    pub(crate) fn embedded_texts(&self) -> usize {
        self.embedded_texts.load(Ordering::SeqCst)
    }
}

impl Embed for HashingEmbed {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn identity(&self) -> String {
        self.identity.to_owned()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embedded_texts.fetch_add(texts.len(), Ordering::SeqCst);
        Ok(texts
            .iter()
            .map(|text| {
                let mut vector = vec![0.0; self.dimension];
                // Never zero: words add whole numbers.
                vector[0] = 0.5;
                for word in text.split_whitespace() {
                    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                    });
                    let place = usize::try_from(hash >> 1).unwrap() % self.dimension;
                    vector[place] += if hash & 1 == 0 { 1.0 } else { -1.0 };
                }
                vector
            })
            .collect())
    }
}

pub(crate) fn open(dir: &Path) -> Result<Memory, MemoryError> {
    Memory::open(dir, HashingEmbed::new(), MemoryOptions::default())
}

pub(crate) fn precedent(id: &str, text: &str, label: Label) -> Precedent {
    Precedent {
        id: id.to_owned(),
        text: text.to_owned(),
        label,
        kind: Some("exec".to_owned()),
        technique: (label == Label::Malicious).then(|| Technique("T1059.004".to_owned())),
        tenant: "shared".to_owned(),
        observed: Some(WallTime(1_700_000_000_123_456_789)),
        version: "seed-1".to_owned(),
    }
}

pub(crate) fn document(id: &str, text: &str) -> Document {
    Document {
        id: id.to_owned(),
        text: text.to_owned(),
        technique: Some(Technique("T1003".to_owned())),
        tenant: "shared".to_owned(),
        observed: None,
        version: "notes-1".to_owned(),
    }
}

/// Options under which a few hundred records already get an index.
pub(crate) fn indexing_early() -> MemoryOptions {
    MemoryOptions {
        index_from_records: 200,
        index_tail_records: 50,
        index_full_scan_records: 600,
        ..MemoryOptions::default()
    }
}

/// Waits until `reached` or fails after a minute.
pub(crate) fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !reached() {
        assert!(std::time::Instant::now() < until, "not in a minute: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Every file below `dir` with its contents.
pub(crate) fn snapshot(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("the directory is there") {
        let path = entry.expect("the directory can be read").path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else if path.is_file() {
            let contents = std::fs::read(&path).expect("the file can be read");
            files.push((path, contents));
        }
    }
    files.sort();
    files
}

/// A store as the first released format left it: `p1` was changed once, `p4`
/// removed. Made with the embedder `hashing@1` of dimension 16.
pub(crate) fn unpack_format_1(dir: &Path) {
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/store-v1.tar.gz");
    let unpacked = std::process::Command::new("tar")
        .args(["-xzf", archive, "-C"])
        .arg(dir)
        .status()
        .expect("tar is installed");
    assert!(unpacked.success());
}

pub(crate) fn key(id: &str) -> RecordKey {
    RecordKey {
        tenant: "shared".to_owned(),
        id: id.to_owned(),
    }
}
