//! Learning on the user's machine: rows and recordings in, a set for the judge out.
//!
//! [`learn`] reads rows, mines recordings for ordinary work that looks like an
//! attack (`mine.rs`), computes the model's hidden states and fits. [`WorkRecorder`]
//! (`record.rs`) makes rows of what goes on. [`LearnedSets`] (`sets.rs`) is what an
//! analyst takes of a directory of learnt sets.
//!
//! What is not here: how anything is fitted (`inwarden-classifier`). Of texts, the
//! working directory holds hashes and the model's numbers, the learnt set weights.

mod mine;
mod record;
mod sets;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read as _},
    ops::ControlFlow,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use inwarden_classifier::{
    ClassifierError, Extraction, LearnRow, LearnTask, LearnedOrigin, Prompt, Question, ReportCard,
    StateStore, distinct_rows, extract_states, kept_states, read_rows, shipped_corpus,
};
use inwarden_inference::Qwen2;

pub(crate) use self::sets::LearnedSets;
pub use self::{
    mine::Mined,
    record::{RecordedWork, WorkRecorder},
    sets::{HeadSource, LearnedUse, head_sources},
};
use crate::{Analyst, AnalystConfig, EngineError, analyst::fingerprint_of, store};

/// The largest file of rows.
const MAX_ROWS_BYTES: u64 = 256 << 20;
/// Parts of the cross-validation.
const FOLDS: usize = 8;

/// What is learnt, and from what.
#[derive(Clone, Debug)]
pub struct LearnConfig {
    /// What is to be answered; there is nothing to learn for [`Question::Events`].
    pub question: Question,
    /// Files of labelled rows in the format of the corpus. Of a text that is also in
    /// the shipped corpus, these labels count.
    pub rows: Vec<PathBuf>,
    /// Whether the shipped corpus is learnt from, too.
    pub corpus: CorpusChoice,
    /// Recordings of ordinary work, to be mined for what looks like an attack; for
    /// [`Question::Exec`] alone.
    pub recordings: Vec<PathBuf>,
    /// Most rows that are mined.
    pub max_mined: usize,
    /// Where the model's hidden states are kept, so that a run that was broken off
    /// goes on: some 2 kB a token with the 0.5B, 7 kB with the 7B, so a few GB for the
    /// shipped corpus.
    pub work_dir: PathBuf,
    /// Where the learnt set goes, beside those of other questions.
    pub out_dir: PathBuf,
}

/// Whether the shipped corpus is learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorpusChoice {
    /// It is.
    Shipped,
    /// It is not: the user's rows are all there is.
    OwnRowsOnly,
}

/// How far learning is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum LearnStep {
    /// Recordings were read, or candidates are being judged.
    Mining(Mined),
    /// The rows are together.
    Rows {
        /// The user's.
        own: usize,
        /// Mined from recordings.
        mined: usize,
        /// Of the shipped corpus.
        shipped: usize,
        /// Those of all that differ, which are learnt from.
        distinct: usize,
    },
    /// Hidden states are being computed.
    Extracting(Extraction),
    /// Everything is there and is being fitted, which takes a minute or two.
    Fitting,
}

/// How learning ended.
#[derive(Clone, Debug)]
pub enum LearnOutcome {
    /// It was broken off; the next run goes on.
    Interrupted,
    /// A set was learnt and written.
    Learned {
        /// How well it does, by cross-fitted scores.
        card: Box<ReportCard>,
        /// The file that names the set.
        set: PathBuf,
    },
}

/// Learns for the model, the memory and the rules of `analyst`. `step` is told how far
/// it is and may break off.
///
/// The processor computes, whatever device `analyst` names.
///
/// # Errors
/// [`EngineError::LearnUsage`] if `config` asks for what cannot be,
/// [`EngineError::LearnFile`] and those of the rooms below. A former set stays whole.
pub fn learn(
    analyst: &AnalystConfig,
    config: &LearnConfig,
    step: &mut dyn FnMut(LearnStep) -> ControlFlow<()>,
) -> Result<LearnOutcome, EngineError> {
    let question = config.question;
    if question == Question::Events {
        return Err(EngineError::LearnUsage(
            "there are no rows of several events",
        ));
    }
    if question != Question::Exec && !config.recordings.is_empty() {
        return Err(EngineError::LearnUsage(
            "recordings are mined for program starts alone",
        ));
    }
    let Some(model_id) = &analyst.model else {
        return Err(EngineError::LearnUsage("there is no model to learn for"));
    };
    let Some(rows) = gather(analyst, config, step)? else {
        return Ok(LearnOutcome::Interrupted);
    };
    let _alone = lock(&config.work_dir)?;
    let files = analyst.models.locate(model_id)?;
    let fingerprint = fingerprint_of(&files.sha256);
    let mut options = analyst.load.clone();
    options.fingerprint = options.fingerprint.or(Some(fingerprint));
    let model = Arc::new(Qwen2::load(&files.files, &options)?);
    let compute = format!("{:?}", model.weight_form());
    let prompt = Prompt::of(question);
    let choice = kept_states(model.config().num_hidden_layers);
    let mut store = StateStore::open(model, model_id, &prompt, choice, &config.work_dir)?;
    let mut texts: Vec<String> = rows.iter().map(|row| row.text.clone()).collect();
    texts.extend_from_slice(&prompt.content_free);
    let missing = extract_states(&mut store, &texts, &mut |at| {
        step(LearnStep::Extracting(at))
    })?;
    if missing > 0 || step(LearnStep::Fitting).is_break() {
        return Ok(LearnOutcome::Interrupted);
    }
    let memory = match question {
        Question::Exec => store::open(&analyst.memory, &analyst.models)?.map(Arc::new),
        _ => None,
    };
    let task = LearnTask {
        question,
        rows: &rows,
        n_folds: FOLDS,
        memory,
    };
    let learned = inwarden_classifier::learn(&task, &mut store)?;
    let origin = LearnedOrigin::of(question, model_id, &hex(&fingerprint.0), compute);
    let set = learned.write(&config.out_dir, &origin)?;
    Ok(LearnOutcome::Learned {
        card: Box::new(learned.card),
        set,
    })
}

/// The rows that are learnt from, or `None` if `step` broke off.
fn gather(
    analyst: &AnalystConfig,
    config: &LearnConfig,
    step: &mut dyn FnMut(LearnStep) -> ControlFlow<()>,
) -> Result<Option<Vec<LearnRow>>, EngineError> {
    let question = config.question;
    let mut rows = Vec::new();
    for path in &config.rows {
        rows.extend(rows_of_file(path)?);
    }
    rows.retain(|row| row.question == question);
    let own = rows.len();
    let shipped = match config.corpus {
        CorpusChoice::Shipped => shipped_corpus(question)?,
        CorpusChoice::OwnRowsOnly => Vec::new(),
    };
    let n_shipped = shipped.len();
    // What a row of the corpus says goes before what was mined.
    rows.extend(shipped);
    let mut n_mined = 0;
    if !config.recordings.is_empty() {
        let analyst = Analyst::load(analyst)?;
        let Some(mined) = mine::mine(&analyst, &config.recordings, config.max_mined, step)? else {
            return Ok(None);
        };
        n_mined = mined.len();
        rows.extend(mined);
    }
    let rows = distinct_rows(question, rows);
    let gathered = LearnStep::Rows {
        own,
        mined: n_mined,
        shipped: n_shipped,
        distinct: rows.len(),
    };
    Ok(step(gathered).is_continue().then_some(rows))
}

fn rows_of_file(path: &Path) -> Result<Vec<LearnRow>, EngineError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| {
        file.take(MAX_ROWS_BYTES + 1).read_to_string(&mut text)?;
        match text.len() as u64 > MAX_ROWS_BYTES {
            true => Err(io::Error::other("more than 256 MiB")),
            false => Ok(()),
        }
    });
    read.map_err(|source| file_error(path, source))?;
    let rows: Result<_, ClassifierError> = read_rows(&path.display().to_string(), &text);
    Ok(rows?)
}

/// Makes `dir` for its owner and keeps other learners out while the file lives.
fn lock(dir: &Path) -> Result<File, EngineError> {
    let path = dir.join("learning.lock");
    let locked = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| fs::OpenOptions::new().create(true).append(true).open(&path))
        .and_then(|file| {
            file.try_lock().map_err(io::Error::from)?;
            Ok(file)
        });
    locked.map_err(|source| file_error(&path, source))
}

fn file_error(path: &Path, source: io::Error) -> EngineError {
    EngineError::LearnFile {
        path: path.to_owned(),
        source,
    }
}

/// The digits of a model's hash, as they stand in a learnt set.
fn hex(fingerprint: &[u8; 32]) -> String {
    fingerprint
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
