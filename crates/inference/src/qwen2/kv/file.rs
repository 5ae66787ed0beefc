//! Prefixes on disk: our own format, versioned and checksummed.
//!
//! All numbers little endian: [`MAGIC`], version (u32), fingerprint of the
//! weights (32 bytes), format of the computation (u32 length, text), number of
//! tokens (u64), tokens (u32 each), prior (u8 flag; then key of 32 bytes, u32
//! count, f64 each), blocks (each layer's, in the kernels' own layout), SHA-256
//! over everything before. A file of another model or format is refused before
//! its checksum is looked at; nothing is allocated by what a file claims before
//! its length has been compared with it.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use inwarden_kernels::{KV_BLOCK, KvBlock};
use sha2::{Digest, Sha256};

use super::{
    block::{Block, BlockShape},
    prefix::{Identity, Prefix},
};
use crate::{
    error::{Corruption, Fault, InferenceError},
    tokenizer::TokenId,
};

const MAGIC: &[u8; 8] = b"INWKVPFX";

/// Also to be raised when a kernel computes other numbers than before.
const VERSION: u32 = 1;

/// Length of a checksum, a fingerprint and a prior's key.
const HASH_BYTES: usize = 32;

const MAX_FORMAT_BYTES: u32 = 1024;
const MAX_PRIOR_VALUES: u32 = 4096;

/// What a prompt says about a text without content, to be taken off what it says
/// about others (contextual calibration: Zhao et al. 2021, arXiv:2102.09690).
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    /// Stands for everything it was computed from besides the prefix, such as
    /// labels and texts: the caller's own hash, compared by the caller.
    pub key: [u8; HASH_BYTES],
    /// The numbers, as the caller defines them; at most 4,096.
    pub values: Vec<f64>,
}

/// What a prefix file held.
#[derive(Clone, Debug)]
pub struct SavedPrefix {
    /// The prefix; its tokens say which.
    pub prefix: Prefix,
    /// What was saved beside it.
    pub prior: Option<Prior>,
}

pub(in crate::qwen2) fn save(
    model: &Identity,
    prefix: &Prefix,
    prior: Option<&Prior>,
    path: &Path,
) -> Result<(), InferenceError> {
    let fingerprint = model.fingerprint.ok_or(InferenceError::NoFingerprint)?;
    if prior.is_some_and(|prior| prior.values.len() > MAX_PRIOR_VALUES as usize) {
        return Err(InferenceError::InvalidOption {
            name: "prior",
            allowed: "at most 4,096 values",
            value: "more".into(),
        });
    }
    let io = |source| InferenceError::Io {
        path: path.to_owned(),
        source,
    };
    let unfinished = Unfinished::create(path).map_err(io)?;
    let mut writer = Checksummed::new(BufWriter::new(&unfinished.file));
    let written = write(&mut writer, &fingerprint.0, &model.format, prefix, prior)
        .and_then(|()| writer.finish_writing());
    written.and_then(|()| unfinished.rename(path)).map_err(io)
}

fn write(
    to: &mut impl Write,
    fingerprint: &[u8; HASH_BYTES],
    format: &str,
    prefix: &Prefix,
    prior: Option<&Prior>,
) -> std::io::Result<()> {
    to.write_all(MAGIC)?;
    to.write_all(&VERSION.to_le_bytes())?;
    to.write_all(fingerprint)?;
    to.write_all(&length(format.len()).to_le_bytes())?;
    to.write_all(format.as_bytes())?;
    to.write_all(&(prefix.len() as u64).to_le_bytes())?;
    for token in prefix.tokens() {
        to.write_all(&token.0.to_le_bytes())?;
    }
    to.write_all(&[u8::from(prior.is_some())])?;
    if let Some(prior) = prior {
        to.write_all(&prior.key)?;
        to.write_all(&length(prior.values.len()).to_le_bytes())?;
        for value in &prior.values {
            to.write_all(&value.to_le_bytes())?;
        }
    }
    let n_rest = prefix.len() % KV_BLOCK;
    for (block_idx, block) in prefix.blocks().iter().enumerate() {
        for layer in block.layers() {
            if block_idx == prefix.len() / KV_BLOCK {
                // What lies behind belongs to another sequence.
                let mut own = KvBlock::new(layer.shape());
                own.copy_slots_from(layer, n_rest);
                to.write_all(&own.to_le_bytes())?;
            } else {
                to.write_all(&layer.to_le_bytes())?;
            }
        }
    }
    Ok(())
}

/// Of a format or a prior, both of which are limited.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A file under another name, which is gone unless it is renamed.
struct Unfinished {
    file: File,
    path: Option<PathBuf>,
}

impl Unfinished {
    fn create(path: &Path) -> std::io::Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| std::io::Error::other("not the path of a file"))?;
        let mut attempt = 0_u32;
        loop {
            let mut unfinished = name.to_owned();
            unfinished.push(format!(".{}-{attempt}.unfinished", std::process::id()));
            let unfinished = path.with_file_name(unfinished);
            let file = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&unfinished);
            match file {
                Ok(file) => {
                    let path = Some(unfinished);
                    return Ok(Self { file, path });
                }
                Err(error)
                    if error.kind() == std::io::ErrorKind::AlreadyExists && attempt < 100 =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn rename(mut self, path: &Path) -> std::io::Result<()> {
        self.file.sync_all()?;
        if let Some(unfinished) = &self.path {
            std::fs::rename(unfinished, path)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // The caller gets the error that led here.
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(in crate::qwen2) fn load(
    model: &Identity,
    shape: &BlockShape,
    max_context_tokens: usize,
    path: &Path,
) -> Result<SavedPrefix, InferenceError> {
    let io = |source| InferenceError::Io {
        path: path.to_owned(),
        source,
    };
    model.fingerprint.ok_or(InferenceError::NoFingerprint)?;
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(io(std::io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(io)?;
    let reader = Reader {
        at: 0,
        len: file.metadata().map_err(io)?.len(),
        from: Checksummed::new(BufReader::new(file)),
    };
    let target = Target {
        model,
        shape,
        max_context_tokens,
    };
    target.read(reader).map_err(|failure| match failure {
        Failure::Read(source) => io(source),
        Failure::Fault(fault) => fault.in_file(path),
        Failure::Refused(error) => error,
        Failure::Other {
            what,
            expected,
            found,
        } => InferenceError::OtherPrefixFormat {
            path: path.to_owned(),
            what,
            expected,
            found,
        },
    })
}

/// Why a file was not read; its path is added at the end.
enum Failure {
    Read(std::io::Error),
    Fault(Fault),
    Refused(InferenceError),
    Other {
        what: &'static str,
        expected: String,
        found: String,
    },
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What a file is read for.
struct Target<'a> {
    model: &'a Identity,
    shape: &'a BlockShape,
    max_context_tokens: usize,
}

impl Target<'_> {
    fn read(&self, mut reader: Reader<impl Read>) -> Result<SavedPrefix, Failure> {
        self.check_format(&mut reader)?;
        let tokens = self.read_tokens(&mut reader)?;
        let prior = read_prior(&mut reader)?;
        let n_blocks = tokens.len().div_ceil(KV_BLOCK);
        let layer_bytes = KvBlock::n_bytes(&self.shape.layer);
        let expected = reader.at
            + (n_blocks * self.shape.n_layers) as u64 * layer_bytes as u64
            + HASH_BYTES as u64;
        if reader.len != expected {
            let (expected, found) = (format!("{expected} bytes"), reader.len);
            return Err(Fault::unexpected("length", expected, found).into());
        }
        let mut bytes = vec![0; layer_bytes];
        let mut blocks = Vec::with_capacity(n_blocks);
        for _ in 0..n_blocks {
            let mut layers = Vec::with_capacity(self.shape.n_layers);
            for _ in 0..self.shape.n_layers {
                reader.fill(&mut bytes, "block")?;
                let layer = KvBlock::from_le_bytes(&self.shape.layer, &bytes);
                layers.push(layer.ok_or_else(|| {
                    let expected = "finite keys and values";
                    Fault::unexpected("block", expected, "others")
                })?);
            }
            blocks.push(Arc::new(Block::from_layers(layers)));
        }
        reader.check()?;
        let prefix = Prefix::new(tokens, blocks, self.model);
        Ok(SavedPrefix { prefix, prior })
    }

    fn check_format(&self, reader: &mut Reader<impl Read>) -> Result<(), Failure> {
        let magic: [u8; 8] = reader.array("magic")?;
        if &magic != MAGIC {
            return Err(Fault::unexpected("magic", "a prefix file", "another file").into());
        }
        let version = u32::from_le_bytes(reader.array("version")?);
        compare("version", &VERSION, &version)?;
        let fingerprint: [u8; HASH_BYTES] = reader.array("fingerprint")?;
        let expected = self.model.fingerprint.map(|fingerprint| fingerprint.0);
        compare(
            "fingerprint of the weights",
            &expected.map(|bytes| hex(&bytes)).unwrap_or_default(),
            &hex(&fingerprint),
        )?;
        let n_bytes = reader.count("format", MAX_FORMAT_BYTES)?;
        let mut format = vec![0; n_bytes];
        reader.fill(&mut format, "format")?;
        let format = String::from_utf8_lossy(&format);
        compare("format", &self.model.format, format.as_ref())
    }

    fn read_tokens(&self, reader: &mut Reader<impl Read>) -> Result<Vec<TokenId>, Failure> {
        let n_tokens = u64::from_le_bytes(reader.array("number of tokens")?);
        if n_tokens > (reader.len - reader.at) / size_of::<u32>() as u64 {
            let truncated = Corruption::Truncated {
                needed: n_tokens.saturating_mul(size_of::<u32>() as u64),
                available: reader.len - reader.at,
            };
            return Err(Fault::new("tokens", 0, truncated).into());
        }
        let limit = self.max_context_tokens;
        let positions = usize::try_from(n_tokens).unwrap_or(usize::MAX);
        if positions > limit {
            let overflow = InferenceError::ContextOverflow { positions, limit };
            return Err(Failure::Refused(overflow));
        }
        let tokens = (0..positions).map(|_| {
            let id = u32::from_le_bytes(reader.array("tokens")?);
            Ok(TokenId(id))
        });
        tokens.collect()
    }
}

fn compare<T: PartialEq<U> + std::fmt::Display + ?Sized, U: std::fmt::Display + ?Sized>(
    what: &'static str,
    expected: &T,
    found: &U,
) -> Result<(), Failure> {
    if expected == found {
        return Ok(());
    }
    Err(Failure::Other {
        what,
        expected: expected.to_string(),
        found: found.to_string(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_prior(reader: &mut Reader<impl Read>) -> Result<Option<Prior>, Failure> {
    match reader.array("prior")? {
        [0] => Ok(None),
        [1] => {
            let key = reader.array("prior")?;
            let n_values = reader.count("prior", MAX_PRIOR_VALUES)?;
            let values = (0..n_values).map(|_| reader.array("prior").map(f64::from_le_bytes));
            let values = values.collect::<Result<_, _>>()?;
            Ok(Some(Prior { key, values }))
        }
        [other] => Err(Fault::unexpected("prior", "0 or 1", other).into()),
    }
}

/// Reads a file of a known length.
struct Reader<R> {
    from: Checksummed<R>,
    at: u64,
    len: u64,
}

impl<R: Read> Reader<R> {
    fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<(), Failure> {
        let filled = self.from.read_exact(bytes);
        if filled.as_ref().is_err_and(is_end) {
            let truncated = Corruption::Truncated {
                needed: bytes.len() as u64,
                available: self.len.saturating_sub(self.at),
            };
            let at = usize::try_from(self.at).unwrap_or(usize::MAX);
            return Err(Fault::new(what, at, truncated).into());
        }
        self.at += bytes.len() as u64;
        filled.map_err(Failure::Read)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Failure> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn count(&mut self, what: &str, limit: u32) -> Result<usize, Failure> {
        let value = u32::from_le_bytes(self.array(what)?);
        if value > limit {
            let (value, limit) = (value.into(), limit.into());
            return Err(Fault::new(what, 0, Corruption::OverLimit { value, limit }).into());
        }
        Ok(value as usize)
    }

    /// Compares the checksum, which is what is left.
    fn check(mut self) -> Result<(), Failure> {
        let computed: [u8; HASH_BYTES] = self.from.hash.clone().finalize().into();
        let stored: [u8; HASH_BYTES] = self.array("checksum")?;
        if computed != stored {
            return Err(Fault::unexpected("checksum", hex(&computed), hex(&stored)).into());
        }
        Ok(())
    }
}

fn is_end(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::UnexpectedEof
}

/// Hashes what goes through.
struct Checksummed<S> {
    stream: S,
    hash: Sha256,
}

impl<S> Checksummed<S> {
    fn new(stream: S) -> Self {
        let hash = Sha256::new();
        Self { stream, hash }
    }
}

impl<S: Write> Checksummed<S> {
    fn finish_writing(mut self) -> std::io::Result<()> {
        self.stream.write_all(&self.hash.finalize())?;
        self.stream.flush()
    }
}

impl<S: Write> Write for Checksummed<S> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n_written = self.stream.write(bytes)?;
        self.hash.update(&bytes[..n_written]);
        Ok(n_written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

impl<S: Read> Read for Checksummed<S> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let n_read = self.stream.read(bytes)?;
        self.hash.update(&bytes[..n_read]);
        Ok(n_read)
    }
}
