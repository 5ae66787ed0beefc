//! The vectors of the texts: computed once by the real model, kept in a file.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use inwarden_classifier::MiniLmEmbed;
use inwarden_inference::Embedder;
use inwarden_memory::{Embed, EmbedError};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{MemoryOptions, measure::spread, texts::Texts};
use crate::{accuracy::progress, model_files};

/// Texts that are embedded together.
const BATCH: usize = 64;

/// Every text with its vector, as an embedder that knows nothing else.
pub(crate) struct Vectors {
    identity: String,
    dimension: usize,
    of: Arc<HashMap<String, Vec<f32>>>,
    embedding_ms: Vec<Duration>,
    texts_per_second: Option<f64>,
}

impl Vectors {
    /// None if there was not enough time; another run goes on.
    pub(crate) fn of(texts: &Texts, options: &MemoryOptions) -> anyhow::Result<Option<Self>> {
        let files = model_files::cache()?.locate(inwarden::EMBEDDING_MODEL)?;
        let embed = MiniLmEmbed::new(Embedder::load(&files.dir)?, inwarden::EMBEDDING_MODEL);
        let stored: Vec<&str> = texts.stored.iter().map(|row| row.text.as_str()).collect();
        let Some((vectors, texts_per_second)) = embed_all(&embed, &stored, options)? else {
            return Ok(None);
        };
        let mut of: HashMap<String, Vec<f32>> =
            stored.into_iter().map(str::to_owned).zip(vectors).collect();
        // One at a time, as a case comes.
        let mut embedding_ms = Vec::with_capacity(texts.queries.len());
        for query in &texts.queries {
            let start = Instant::now();
            let vector = embed.embed(&[query])?.pop().context("no vector")?;
            embedding_ms.push(start.elapsed());
            of.insert(query.clone(), vector);
        }
        Ok(Some(Self {
            identity: embed.identity(),
            dimension: embed.dimension(),
            of: Arc::new(of),
            embedding_ms,
            texts_per_second,
        }))
    }

    /// `(dimension,)`, f32, length 1; of a text that was drawn.
    pub(crate) fn vector(&self, text: &str) -> anyhow::Result<&[f32]> {
        self.of
            .get(text)
            .map(Vec::as_slice)
            .context("a text that was not drawn")
    }

    /// How long one text takes, and how many a second in batches.
    pub(crate) fn embedding_ms(&self) -> Value {
        let mut figures = spread(&mut self.embedding_ms.clone());
        figures["batched_texts_per_second"] = json!(self.texts_per_second);
        figures
    }
}

impl Clone for Vectors {
    fn clone(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            dimension: self.dimension,
            of: Arc::clone(&self.of),
            embedding_ms: self.embedding_ms.clone(),
            texts_per_second: self.texts_per_second,
        }
    }
}

impl Embed for Vectors {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let one = |text: &&str| {
            self.of.get(*text).cloned().ok_or_else(|| EmbedError {
                embedder: self.identity.clone(),
                reason: "a text that was not drawn".to_owned(),
            })
        };
        texts.iter().map(one).collect()
    }
}

/// The vectors and how many texts a second, if any had to be embedded.
type Embedded = (Vec<Vec<f32>>, Option<f64>);

fn embed_all(
    embed: &dyn Embed,
    texts: &[&str],
    options: &MemoryOptions,
) -> anyhow::Result<Option<Embedded>> {
    let (mut vectors, mut file) = match &options.cache {
        Some(dir) => {
            let (known, file) = kept(dir, embed, texts)?;
            (known, Some(file))
        }
        None => (Vec::new(), None),
    };
    let n_known = vectors.len();
    let start = Instant::now();
    let limit = options.embed_seconds.map(Duration::from_secs);
    let mut told = start;
    for batch in texts[n_known..].chunks(BATCH) {
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            progress(&format!(
                "{} of {} texts are embedded; run it again to go on",
                vectors.len(),
                texts.len()
            ));
            return Ok(None);
        }
        let embedded = embed.embed(batch)?;
        if let Some(file) = &mut file {
            let bytes: Vec<u8> = embedded
                .iter()
                .flatten()
                .flat_map(|x| x.to_le_bytes())
                .collect();
            file.write_all(&bytes)
                .context("the vectors cannot be kept")?;
        }
        vectors.extend(embedded);
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            progress(&format!("embedded: {} of {}", vectors.len(), texts.len()));
        }
    }
    let n_new = texts.len() - n_known;
    let rate = (n_new > 0).then(|| small(n_new) / start.elapsed().as_secs_f64());
    Ok(Some((vectors, rate)))
}

/// The vectors of the first texts that an earlier run kept, and the file to add to.
fn kept(dir: &Path, embed: &dyn Embed, texts: &[&str]) -> anyhow::Result<(Vec<Vec<f32>>, File)> {
    let mut hasher = Sha256::new();
    hasher.update(embed.identity());
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    let name: String = hasher.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let path = dir.join(format!("vectors-{name}.f32"));
    let open = || -> std::io::Result<(Vec<u8>, File)> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let vector_bytes = 4 * embed.dimension();
        // The last one may have been cut off.
        bytes.truncate(bytes.len() / vector_bytes * vector_bytes);
        file.set_len(bytes.len() as u64)?;
        Ok((bytes, file))
    };
    let (bytes, file) = open().with_context(|| format!("{} cannot be used", path.display()))?;
    let numbers: Vec<f32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    let known: Vec<Vec<f32>> = numbers
        .chunks_exact(embed.dimension())
        .map(<[f32]>::to_vec)
        .collect();
    ensure!(
        known.len() <= texts.len(),
        "{} holds too many vectors",
        path.display()
    );
    Ok((known, file))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a number of texts, far below 2^53"
)]
fn small(count: usize) -> f64 {
    count as f64
}
