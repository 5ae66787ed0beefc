//! A prefix on disk, loaded by the golden model and then put to use.
//!
//! Input that begins with a 0 is the file. Else what follows is put between a
//! right beginning (magic, version, model, format) and a right checksum, to get
//! further than the first comparison. With `SEED_CORPUS` set, right files of
//! both kinds are written to that directory.

#![no_main]

use std::{fs, path::PathBuf, sync::LazyLock};

use inwarden_inference::{Fingerprint, LoadOptions, Qwen2, TokenId};
use sha2::{Digest, Sha256};

struct Bench {
    model: Qwen2,
    beginning: Vec<u8>,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../models/golden/qwen2-tiny/model.gguf"
    );
    let options = LoadOptions {
        threads: std::num::NonZeroUsize::MIN,
        max_context_tokens: 256,
        fingerprint: Some(Fingerprint([7; 32])),
        ..LoadOptions::default()
    };
    let model = Qwen2::load(&[golden.into()], &options).expect("the golden model");
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let path = dir.path().join("prefix");
    let prefix = model.prefix(&[TokenId(3); 70]).expect("a prefix");
    model.save_prefix(&prefix, None, &path).expect("saved");
    let file = fs::read(&path).expect("just written");
    // Magic, version and fingerprint take 44 bytes; a text with its length follows.
    let n_format = u32::from_le_bytes(file[44..48].try_into().expect("four bytes")) as usize;
    if let Some(corpus) = std::env::var_os("SEED_CORPUS") {
        let body = &file[48 + n_format..file.len() - 32];
        fs::write(
            PathBuf::from(&corpus).join("whole"),
            [&[0], &*file].concat(),
        )
        .expect("a seed");
        fs::write(PathBuf::from(&corpus).join("body"), [&[1], body].concat()).expect("a seed");
    }
    let beginning = file[..48 + n_format].to_vec();
    Bench {
        model,
        beginning,
        path,
        _dir: dir,
    }
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else {
        return;
    };
    let mut file = bytes.to_vec();
    if kind != 0 {
        file = [&BENCH.beginning, bytes].concat();
        file.extend(Sha256::digest(&file));
    }
    fs::write(&BENCH.path, file).expect("memory is writable");
    if let Ok(saved) = BENCH.model.load_prefix(&BENCH.path) {
        // Any numbers are right, and so is an error.
        drop(BENCH.model.logits(Some(&saved.prefix), &[TokenId(5)]));
    }
});
