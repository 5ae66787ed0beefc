//! The golden GGUF file taken apart, to be put together in other ways.

use std::path::PathBuf;

use inwarden_inference::{InferenceError, LoadOptions, Qwen2, TokenId};

pub(crate) fn path() -> PathBuf {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/golden");
    PathBuf::from(golden).join("qwen2-tiny/model.gguf")
}

pub(crate) fn load(files: &[PathBuf]) -> Result<Qwen2, InferenceError> {
    Qwen2::load(files, &LoadOptions::default())
}

/// What a model computes, to be compared with what another does.
pub(crate) fn logits(files: &[PathBuf]) -> Vec<f32> {
    let tokens: Vec<TokenId> = (3..30).map(TokenId).collect();
    let model = load(files).expect("the files are right");
    model.logits(None, &tokens).expect("the tokens are right")
}

/// The file's parts.
pub(crate) struct Golden {
    /// All entries of the metadata as they are in the file.
    pub(crate) metadata: Vec<u8>,
    pub(crate) n_metadata: u64,
    pub(crate) tokens: Vec<String>,
    pub(crate) kinds: Vec<u32>,
    pub(crate) merges: Vec<String>,
    pub(crate) tensors: Vec<Tensor>,
}

pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Rows first.
    pub(crate) shape: Vec<u64>,
    /// f16 if set, else f32.
    pub(crate) is_half: bool,
    pub(crate) data: Vec<u8>,
}

struct Reader {
    bytes: Vec<u8>,
    at: usize,
}

impl Reader {
    fn take(&mut self, n_bytes: usize) -> &[u8] {
        self.at += n_bytes;
        &self.bytes[self.at - n_bytes..self.at]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn size(&mut self) -> usize {
        usize::try_from(self.u64()).expect("a small file")
    }

    fn text(&mut self) -> String {
        let n_bytes = self.size();
        String::from_utf8(self.take(n_bytes).to_vec()).expect("texts are UTF-8")
    }
}

impl Golden {
    pub(crate) fn read() -> Self {
        let bytes = std::fs::read(path()).expect("the golden model is there");
        let mut reader = Reader { bytes, at: 8 };
        let (n_tensors, n_metadata) = (reader.u64(), reader.u64());
        let mut golden = Self {
            metadata: Vec::new(),
            n_metadata,
            tokens: Vec::new(),
            kinds: Vec::new(),
            merges: Vec::new(),
            tensors: Vec::new(),
        };
        for _ in 0..n_metadata {
            golden.read_entry(&mut reader);
        }
        golden.metadata = reader.bytes[24..reader.at].to_vec();
        let mut places = Vec::new();
        for _ in 0..n_tensors {
            let name = reader.text();
            let n_dimensions = reader.u32();
            let mut shape: Vec<u64> = (0..n_dimensions).map(|_| reader.u64()).collect();
            shape.reverse();
            let is_half = reader.u32() == 1;
            places.push((name, shape, is_half, reader.size()));
        }
        let data = &reader.bytes[reader.at.next_multiple_of(32)..];
        for (name, shape, is_half, start) in places {
            let n_values = usize::try_from(shape.iter().product::<u64>()).expect("small");
            let n_bytes = n_values * if is_half { 2 } else { 4 };
            golden.tensors.push(Tensor {
                name,
                shape,
                is_half,
                data: data[start..start + n_bytes].to_vec(),
            });
        }
        golden
    }

    fn read_entry(&mut self, reader: &mut Reader) {
        let key = reader.text();
        match reader.u32() {
            8 => drop(reader.text()),
            9 => {
                let element = reader.u32();
                let n_elements = reader.u64();
                for _ in 0..n_elements {
                    match (element, &*key) {
                        (5, _) => self.kinds.push(reader.u32()),
                        (_, "tokenizer.ggml.tokens") => self.tokens.push(reader.text()),
                        _ => self.merges.push(reader.text()),
                    }
                }
            }
            _ => drop(reader.u32()),
        }
    }
}
