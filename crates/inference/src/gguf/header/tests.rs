//! Hostile headers: each a typed fault, never a panic.

use rand::{Rng, SeedableRng};

use super::*;

fn parse(bytes: &[u8]) -> Result<Header, Fault> {
    Header::parse(bytes, bytes.len() as u64)
}

const GOLDEN: &[u8] = include_bytes!("../../../../../models/golden/qwen2-tiny/model.gguf");

/// Writes a header: metadata entries, then tensors, then data.
struct File {
    metadata: Vec<u8>,
    n_metadata: u64,
    tensors: Vec<u8>,
    n_tensors: u64,
    n_data_bytes: usize,
}

fn file() -> File {
    File {
        metadata: Vec::new(),
        n_metadata: 0,
        tensors: Vec::new(),
        n_tensors: 0,
        n_data_bytes: 256,
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl File {
    fn value(mut self, key: &str, value_type: u32, value: &[u8]) -> Self {
        self.metadata.extend(text(key));
        self.metadata.extend(value_type.to_le_bytes());
        self.metadata.extend(value);
        self.n_metadata += 1;
        self
    }

    fn tensor(mut self, name: &str, shape: &[u64], type_id: u32, offset: u64) -> Self {
        self.tensors.extend(text(name));
        let n_dimensions = u32::try_from(shape.len()).unwrap();
        self.tensors.extend(n_dimensions.to_le_bytes());
        for size in shape {
            self.tensors.extend(size.to_le_bytes());
        }
        self.tensors.extend(type_id.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.n_tensors += 1;
        self
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(self.n_tensors.to_le_bytes());
        bytes.extend(self.n_metadata.to_le_bytes());
        bytes.extend(self.metadata);
        bytes.extend(self.tensors);
        bytes.resize(bytes.len().next_multiple_of(32) + self.n_data_bytes, 0);
        bytes
    }

    fn fault(self) -> Fault {
        parse(&self.bytes()).unwrap_err()
    }
}

#[test]
fn a_tensor_is_placed_behind_the_aligned_header() {
    let bytes = file().tensor("t", &[8, 2], 0, 32).bytes();
    let header = parse(&bytes).unwrap();
    let tensor = &header.tensors[0];
    assert_eq!(tensor.shape, [2, 8]);
    assert_eq!(tensor.range, bytes.len() - 256 + 32..bytes.len() - 256 + 96);
}

#[test]
fn an_alignment_that_is_no_power_of_two_is_refused() {
    for alignment in [0, 1, 7, 24, 1 << 20, u32::MAX] {
        let fault = file()
            .value("general.alignment", 4, &alignment.to_le_bytes())
            .fault();
        assert_eq!(fault.what, "general.alignment", "{alignment}");
    }
}

#[test]
fn absurd_counts_are_refused_before_any_loop() {
    for (offset, what) in [(8, "tensor count"), (16, "metadata count")] {
        let mut bytes = file().bytes();
        bytes[offset..offset + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let fault = parse(&bytes).unwrap_err();
        assert_eq!(fault.what, what);
        assert_eq!(fault.at, offset as u64);
    }
}

#[test]
fn absurd_array_lengths_are_refused_before_any_loop() {
    for element in [0_u32, 5, 8, 10] {
        for count in [1 << 20, u64::MAX / 8, u64::MAX] {
            let array = [&element.to_le_bytes()[..], &u64::to_le_bytes(count)].concat();
            assert_eq!(file().value("k", TYPE_ARRAY, &array).fault().what, "k");
        }
    }
    let nested = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
    assert_eq!(file().value("k", TYPE_ARRAY, &nested).fault().what, "k");
}

#[test]
fn shapes_that_overflow_or_are_empty_are_refused() {
    for shape in [
        &[u64::MAX, u64::MAX][..],
        &[1 << 32, 1 << 32],
        &[1 << 62],
        &[0, 4],
        &[],
        &[1, 1, 1, 1, 1],
    ] {
        assert_eq!(file().tensor("t", shape, 0, 0).fault().what, "t");
    }
    // Not whole blocks of 256.
    assert_eq!(file().tensor("t", &[128], 12, 0).fault().what, "t");
    // A type that we do not read.
    assert_eq!(file().tensor("t", &[32], 99, 0).fault().what, "t");
}

#[test]
fn tensors_outside_the_file_are_refused() {
    for offset in [224, 1 << 40, u64::MAX - 31] {
        let fault = file().tensor("t", &[16], 0, offset).fault();
        assert_eq!(fault.what, "t", "{offset}");
    }
    assert_eq!(
        file().tensor("t", &[4], 0, 8).fault().what,
        "t",
        "unaligned"
    );
}

#[test]
fn overlapping_tensors_are_refused() {
    let fault = file()
        .tensor("b", &[16], 0, 32)
        .tensor("a", &[16], 0, 0)
        .fault();
    let with = "a".to_owned();
    assert_eq!(fault.corruption, Corruption::Overlap { with });
}

#[test]
fn a_key_that_occurs_twice_is_refused() {
    let fault = file().value("k", 0, &[1]).value("k", 0, &[2]).fault();
    assert_eq!(fault.corruption, Corruption::Duplicate);
}

#[test]
fn other_formats_and_versions_are_refused() {
    for start in [
        &b""[..],
        b"GGU",
        b"GGML\x03\0\0\0",
        b"GGUF\x01\0\0\0",
        b"GGUF\0\0\0\x03",
    ] {
        assert!(parse(start).is_err(), "{start:?}");
    }
}

#[test]
fn every_truncation_of_a_real_header_is_an_error() {
    let header = parse(GOLDEN).unwrap();
    let end = header.tensors.iter().map(|tensor| tensor.range.end).max();
    for len in (0..GOLDEN.len()).filter(|len| *len < 8_000 || len % 997 == 0) {
        let parsed = parse(&GOLDEN[..len]);
        assert_eq!(parsed.is_err(), len < end.unwrap(), "{len}");
    }
}

#[test]
fn random_damage_to_a_real_header_never_panics() {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    for _ in 0..3_000 {
        let mut bytes = GOLDEN.to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..8_000);
            bytes[at] = random.random();
        }
        if let Ok(header) = parse(&bytes) {
            assert!(header.tensors.iter().all(|t| t.range.end <= bytes.len()));
        }
    }
}
