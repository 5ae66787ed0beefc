//! Split GGUF files.

use std::path::{Path, PathBuf};

use inwarden_inference::InferenceError;

use crate::golden::{self, Golden, Tensor, load, logits};

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Writes the first or the second half of the tensors; the metadata is in the first.
fn write_part(dir: &Path, golden: &Golden, number: u16, total: i32) -> PathBuf {
    let (first, second) = golden.tensors.split_at(golden.tensors.len() / 2);
    let (tensors, metadata, n_metadata) = match number {
        0 => (first, &*golden.metadata, golden.n_metadata),
        _ => (second, &[][..], 0),
    };
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((n_metadata + 3).to_le_bytes());
    file.extend(metadata);
    for (key, value_type, value) in [
        ("split.no", 2_u32, number.to_le_bytes().to_vec()),
        ("split.count", 2, 2_u16.to_le_bytes().to_vec()),
        ("split.tensors.count", 5, total.to_le_bytes().to_vec()),
    ] {
        file.extend(text(key));
        file.extend(value_type.to_le_bytes());
        file.extend(value);
    }
    let mut data = Vec::new();
    for tensor in tensors {
        file.extend(description(tensor, data.len()));
        data.extend(&tensor.data);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    let path = dir.join(format!("model-0000{}-of-00002.gguf", number + 1));
    std::fs::write(&path, file).expect("a temporary directory is writable");
    path
}

fn description(tensor: &Tensor, start: usize) -> Vec<u8> {
    let mut bytes = text(&tensor.name);
    let n_dimensions = u32::try_from(tensor.shape.len()).expect("few dimensions");
    bytes.extend(n_dimensions.to_le_bytes());
    for size in tensor.shape.iter().rev() {
        bytes.extend(size.to_le_bytes());
    }
    bytes.extend(u32::from(tensor.is_half).to_le_bytes());
    bytes.extend((start as u64).to_le_bytes());
    bytes
}

#[test]
fn a_split_model_computes_the_same_as_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Golden::read();
    let total = i32::try_from(golden.tensors.len()).unwrap();
    let parts = [0, 1].map(|number| write_part(dir.path(), &golden, number, total));
    assert_eq!(logits(&parts), logits(&[golden::path()]));
}

#[test]
fn missing_swapped_or_incomplete_parts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Golden::read();
    let total = i32::try_from(golden.tensors.len()).unwrap();
    let check = |files: &[PathBuf], field: &str| match load(files) {
        Err(InferenceError::Corrupt { what, .. }) => assert_eq!(what, field),
        other => panic!("{field}: {:?}", other.map(|_| ())),
    };
    let [first, second] = [0, 1].map(|number| write_part(dir.path(), &golden, number, total));
    check(std::slice::from_ref(&first), "split.count");
    check(&[second.clone(), first.clone()], "split.no");
    check(&[first.clone(), first.clone()], "split.no");
    let short = write_part(dir.path(), &golden, 0, total + 1);
    check(&[short, second], "split.tensors.count");
}
