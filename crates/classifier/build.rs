//! Packs the corpus, so that a program that learns has it in it: 5 MB of text
//! become 1.3 MB.

use std::{
    env, fs,
    io::{self, Write as _},
    path::PathBuf,
};

use flate2::{Compression, write::GzEncoder};

/// The files that `inwarden learn` reads.
const KINDS: [&str; 3] = ["exec-", "prompts-", "toolcalls-"];

fn main() -> io::Result<()> {
    let corpus = PathBuf::from("data/corpus");
    println!("cargo:rerun-if-changed={}", corpus.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(&corpus)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".jsonl") && KINDS.iter().any(|kind| name.starts_with(kind)) {
            files.push(path.clone());
        }
    }
    files.sort();
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    let packed = fs::File::create(PathBuf::from(out).join("corpus.jsonl.gz"))?;
    let mut packed = GzEncoder::new(packed, Compression::best());
    for file in files {
        let text = fs::read(file)?;
        packed.write_all(&text)?;
        if text.last().is_some_and(|last| *last != b'\n') {
            packed.write_all(b"\n")?;
        }
    }
    packed.finish()?.flush()
}
