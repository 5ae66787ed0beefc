//! Split GGUF files: the golden model cut in two must compute the same.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside the test functions"
)]

use std::path::{Path, PathBuf};

use inwarden_inference::{InferenceError, LoadOptions, Qwen2, TokenId};

fn golden() -> PathBuf {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/golden");
    PathBuf::from(golden).join("qwen2-tiny/model.gguf")
}

/// The header of the golden file, cut into its pieces.
struct Pieces {
    metadata: Vec<u8>,
    n_metadata: u64,
    /// Description without the offset, and data.
    tensors: Vec<(Vec<u8>, Vec<u8>)>,
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    let number = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    usize::try_from(number).unwrap()
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let number = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    usize::try_from(number).unwrap()
}

fn pieces() -> Pieces {
    let bytes = std::fs::read(golden()).unwrap();
    let (n_tensors, n_metadata) = (u64_at(&bytes, 8), u64_at(&bytes, 16));
    // The first tensor's name, which no metadata contains.
    let name = b"token_embd.weight";
    let start = bytes.windows(name.len()).position(|at| at == name).unwrap() - 8;
    let mut at = start;
    let mut described = Vec::new();
    for _ in 0..n_tensors {
        let begin = at;
        at += 8 + u64_at(&bytes, at);
        let n_dimensions = u32_at(&bytes, at);
        let sizes = (0..n_dimensions).map(|d| u64_at(&bytes, at + 4 + 8 * d));
        let n_elements: usize = sizes.product();
        at += 4 + 8 * n_dimensions;
        let n_bytes = n_elements * if u32_at(&bytes, at) == 1 { 2 } else { 4 };
        described.push((begin..at + 4, u64_at(&bytes, at + 4), n_bytes));
        at += 12;
    }
    let data = &bytes[at.next_multiple_of(32)..];
    let tensors = described.into_iter().map(|(description, offset, n_bytes)| {
        let data = data[offset..offset + n_bytes].to_vec();
        (bytes[description].to_vec(), data)
    });
    Pieces {
        metadata: bytes[24..start].to_vec(),
        n_metadata: n_metadata as u64,
        tensors: tensors.collect(),
    }
}

fn write_part(dir: &Path, pieces: &Pieces, number: u16, total: i32) -> PathBuf {
    let half = pieces.tensors.len() / 2;
    let tensors = if number == 0 {
        &pieces.tensors[..half]
    } else {
        &pieces.tensors[half..]
    };
    let mut metadata = if number == 0 {
        pieces.metadata.clone()
    } else {
        Vec::new()
    };
    for (key, value_type, value) in [
        ("split.no", 2_u32, number.to_le_bytes().to_vec()),
        ("split.count", 2, 2_u16.to_le_bytes().to_vec()),
        ("split.tensors.count", 5, total.to_le_bytes().to_vec()),
    ] {
        metadata.extend((key.len() as u64).to_le_bytes());
        metadata.extend(key.as_bytes());
        metadata.extend(value_type.to_le_bytes());
        metadata.extend(value);
    }
    let n_metadata = if number == 0 {
        pieces.n_metadata + 3
    } else {
        3
    };
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(n_metadata.to_le_bytes());
    file.extend(metadata);
    let mut data = Vec::new();
    for (description, values) in tensors {
        file.extend(description);
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(values);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    let path = dir.join(format!("model-0000{}-of-00002.gguf", number + 1));
    std::fs::write(&path, file).unwrap();
    path
}

fn load(files: &[PathBuf]) -> Result<Qwen2, InferenceError> {
    Qwen2::load(files, &LoadOptions::default())
}

#[test]
fn a_split_model_computes_the_same_as_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces();
    let total = i32::try_from(pieces.tensors.len()).unwrap();
    let parts = [0, 1].map(|number| write_part(dir.path(), &pieces, number, total));
    let tokens: Vec<TokenId> = (3..30).map(TokenId).collect();
    let logits = |files: &[PathBuf]| load(files).unwrap().logits(None, &tokens).unwrap();
    assert_eq!(logits(&parts), logits(&[golden()]));
}

#[test]
fn missing_swapped_or_incomplete_parts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces();
    let total = i32::try_from(pieces.tensors.len()).unwrap();
    let check = |files: &[PathBuf], field: &str| match load(files) {
        Err(InferenceError::Corrupt { what, .. }) => assert_eq!(what, field),
        other => panic!("{field}: {:?}", other.map(|_| ())),
    };
    let [first, second] = [0, 1].map(|number| write_part(dir.path(), &pieces, number, total));
    check(std::slice::from_ref(&first), "split.count");
    check(&[second.clone(), first.clone()], "split.no");
    check(&[first.clone(), first.clone()], "split.no");
    let short = write_part(dir.path(), &pieces, 0, total + 1);
    check(&[short, second], "split.tensors.count");
}
