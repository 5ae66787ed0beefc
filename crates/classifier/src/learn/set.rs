//! What was learnt, in a directory: for each question a `QUESTION.toml` that names
//! head, words and weights and says what they belong to.
//!
//! The three files have their hash in their name and in `QUESTION.toml`, which is
//! replaced at once: a reader finds the old set or the new one, whole.

use std::{
    fmt::Display,
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use inwarden_inference::LanguageModel;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::fit::{LearnedParts, LearnedWeights};
use crate::{
    Calibration, ClassifierError, TextCalibration, feature_names,
    head::{Head, HeadError},
    indicator_names,
    judge::{CallText, Prompt, Question},
    rendering_hash,
    terms::TermModel,
    texts::{call_columns, text_columns},
};

const FORMAT: u32 = 1;
const MAX_MANIFEST_BYTES: u64 = 64 << 10;
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Why a learnt set is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LearnedError {
    /// A file cannot be read or written: the operator must look.
    #[error("learnt set: {} cannot be used", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may write the directory: the operator must correct it.
    #[error("learnt set: others may write {}", path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
    },
    /// The set is of another version: it must be learnt again.
    #[error("learnt set of format {got}, this program reads {FORMAT}")]
    OtherFormat {
        /// The set's format.
        got: u32,
    },
    /// The set is of something else: it must be learnt anew for what is in use.
    #[error("the set was learnt with {what} {learned}, in use is {used}")]
    Differs {
        /// `question`, `model`, `model_sha256`, `prompt`, `compute`, `rendering` or
        /// `features`.
        what: &'static str,
        /// What it was learnt with.
        learned: String,
        /// What it was to be used with.
        used: String,
    },
    /// A file is damaged.
    #[error("learnt set: {}: {problem}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The head does not fit the model.
    #[error(transparent)]
    Head(#[from] HeadError),
}

/// What a learnt set belongs to: with anything else its numbers mean nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnedOrigin {
    /// [`Question::name`].
    pub question: String,
    /// The id of the model.
    pub model: String,
    /// SHA-256 of its files, in hexadecimal digits.
    pub model_sha256: String,
    /// [`Prompt::content_hash`].
    pub prompt: String,
    /// How the model's weights are kept.
    pub compute: String,
    /// [`rendering_hash`].
    pub rendering: String,
    /// Hash of the names of what is weighed beside the model.
    pub features: String,
}

impl LearnedOrigin {
    /// That of this program with the model `model_id`, whose files have
    /// `model_sha256` and whose arithmetic is `compute`
    /// ([`LanguageModel::arithmetic`]).
    #[must_use]
    pub fn of(question: Question, model_id: &str, model_sha256: &str, compute: String) -> Self {
        Self {
            question: question.name().to_owned(),
            model: model_id.to_owned(),
            model_sha256: model_sha256.to_owned(),
            prompt: Prompt::of(question).content_hash(),
            compute,
            rendering: rendering_hash(),
            features: features_hash(question),
        }
    }

    /// The first difference to what is in `used`.
    fn check(&self, used: &Self) -> Result<(), LearnedError> {
        let pairs = [
            ("question", &self.question, &used.question),
            ("model", &self.model, &used.model),
            ("model_sha256", &self.model_sha256, &used.model_sha256),
            ("prompt", &self.prompt, &used.prompt),
            ("compute", &self.compute, &used.compute),
            ("rendering", &self.rendering, &used.rendering),
            ("features", &self.features, &used.features),
        ];
        match pairs.into_iter().find(|(_, learned, used)| learned != used) {
            None => Ok(()),
            Some((what, learned, used)) => Err(LearnedError::Differs {
                what,
                learned: learned.clone(),
                used: used.clone(),
            }),
        }
    }
}

/// A learnt set that fits what is in use.
#[derive(Clone, Debug)]
pub struct LearnedSet {
    /// Reads the model's hidden states.
    pub head: Head,
    /// Reads the words.
    pub terms: TermModel,
    /// Weighs these and the others.
    pub weights: LearnedWeights,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    head: Named,
    words: Named,
    weights: Named,
    origin: LearnedOrigin,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    file: String,
    sha256: String,
}

impl LearnedSet {
    /// Reads the set of `used.question` from `dir`: `None` if there is none.
    ///
    /// # Errors
    /// [`LearnedError`]; first of all that the set was learnt with something else.
    pub fn load(
        dir: &Path,
        question: Question,
        used: &LearnedOrigin,
        model: &LanguageModel,
    ) -> Result<Option<Self>, LearnedError> {
        let Some(set) = Self::read(dir, question, used)? else {
            return Ok(None);
        };
        set.head.check(model, &used.model, &Prompt::of(question))?;
        Ok(Some(set))
    }

    /// As [`LearnedSet::load`], before the model itself is looked at.
    fn read(
        dir: &Path,
        question: Question,
        used: &LearnedOrigin,
    ) -> Result<Option<Self>, LearnedError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let path = manifest_path(dir, question);
        let text = match read_file(&path, MAX_MANIFEST_BYTES) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|e| corrupt(&path, e))?,
            Err(LearnedError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let version: Version = toml::from_str(&text).map_err(|e| corrupt(&path, e))?;
        if version.format != FORMAT {
            let got = version.format;
            return Err(LearnedError::OtherFormat { got });
        }
        let manifest: Manifest = toml::from_str(&text).map_err(|e| corrupt(&path, e))?;
        manifest.origin.check(used)?;
        let (path, text) = part_text(dir, &manifest.head)?;
        let head = Head::parse(&text).map_err(|e| corrupt(&path, e))?;
        if head.origin().question != question.name() {
            return Err(corrupt(&path, "the head is of another question"));
        }
        let (path, bytes) = part(dir, &manifest.words)?;
        let terms = TermModel::parse(&bytes).map_err(|e| corrupt(&path, e))?;
        if terms.origin().question != question.name() {
            return Err(corrupt(&path, "the words are of another question"));
        }
        let (path, text) = part_text(dir, &manifest.weights)?;
        let weights = weights_of(question, &text).map_err(|e| corrupt(&path, e))?;
        Ok(Some(Self {
            head,
            terms,
            weights,
        }))
    }
}

fn weights_of(question: Question, text: &str) -> Result<LearnedWeights, ClassifierError> {
    if question == Question::Exec {
        return Ok(LearnedWeights::Exec(Box::new(Calibration::parse(text)?)));
    }
    let calibration = TextCalibration::parse(text)?;
    if calibration.question != question.name() {
        let other = calibration.question;
        return Err(ClassifierError::Calibration(format!("it is of {other}")));
    }
    Ok(LearnedWeights::Texts(Box::new(calibration)))
}

impl LearnedParts {
    /// Keeps what was learnt in `dir`, which is made for its owner alone, in place
    /// of what was kept there for the question; gives the file that names the set.
    ///
    /// # Errors
    /// [`LearnedError::Io`]; the former set is then still whole.
    pub fn write(&self, dir: &Path, origin: &LearnedOrigin) -> Result<PathBuf, LearnedError> {
        let question = &origin.question;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| io_error(dir, source))?;
        let weights = self.weights.to_text().map_err(|e| corrupt(dir, e))?;
        let keep = |what: &str, bytes: &[u8]| -> Result<Named, LearnedError> {
            let sha256 = hex(&Sha256::digest(bytes));
            let file = format!("{question}-{}.{what}", &sha256[..12]);
            replace(&dir.join(&file), bytes)?;
            Ok(Named { file, sha256 })
        };
        let manifest = Manifest {
            format: FORMAT,
            head: keep("head.json", self.head.to_text().as_bytes())?,
            words: keep("words.bin", &self.terms.to_bytes())?,
            weights: keep("weights.toml", weights.as_bytes())?,
            origin: origin.clone(),
        };
        let path = dir.join(format!("{question}.toml"));
        let text = toml::to_string(&manifest).map_err(|e| corrupt(&path, e))?;
        replace(&path, text.as_bytes())?;
        let named = [&manifest.head, &manifest.words, &manifest.weights];
        remove_others(dir, question, &named.map(|named| named.file.as_str()));
        Ok(path)
    }
}

/// Removes what earlier sets of `question` left; what stays harms nobody.
fn remove_others(dir: &Path, question: &str, named: &[&str]) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_part = name
            .strip_prefix(question)
            .is_some_and(|rest| rest.starts_with('-'))
            && [".head.json", ".words.bin", ".weights.toml"]
                .iter()
                .any(|ending| name.ends_with(ending));
        if is_part
            && !named.contains(&name.as_str())
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::info!(%error, "a part of a former learnt set stays");
        }
    }
}

fn manifest_path(dir: &Path, question: Question) -> PathBuf {
    dir.join(format!("{}.toml", question.name()))
}

/// The bytes of a part, which are what the manifest says.
fn part(dir: &Path, named: &Named) -> Result<(PathBuf, Vec<u8>), LearnedError> {
    let path = dir.join(&named.file);
    let is_plain = Path::new(&named.file).file_name() == Some(named.file.as_ref());
    if !is_plain {
        return Err(corrupt(dir, "a part lies in another directory"));
    }
    let bytes = read_file(&path, MAX_FILE_BYTES)?;
    if hex(&Sha256::digest(&bytes)) != named.sha256 {
        return Err(corrupt(&path, "it is not what was written"));
    }
    Ok((path, bytes))
}

fn part_text(dir: &Path, named: &Named) -> Result<(PathBuf, String), LearnedError> {
    let (path, bytes) = part(dir, named)?;
    let text = String::from_utf8(bytes).map_err(|e| corrupt(&path, e))?;
    Ok((path, text))
}

fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, LearnedError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(max_bytes + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| io_error(path, source))?;
    if bytes.len() as u64 > max_bytes {
        return Err(corrupt(path, format!("more than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// Writes `bytes` beside `path` and puts them in its place at once.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), LearnedError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|source| io_error(path, source))
}

/// Hash of the names of what is weighed beside the model.
fn features_hash(question: Question) -> String {
    let names: Vec<&str> = match question {
        Question::Exec | Question::Events => [feature_names(), &indicator_names()].concat(),
        Question::UserText | Question::ToolOutput => names_of(&text_columns("")),
        Question::ToolCall => names_of(&call_columns(&CallText::default())),
    };
    hex(&Sha256::digest(names.join("\n"))[..8])
}

fn names_of(columns: &[(&'static str, f64)]) -> Vec<&'static str> {
    columns.iter().map(|(name, _)| *name).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn corrupt(path: &Path, problem: impl Display) -> LearnedError {
    LearnedError::Corrupt {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

fn io_error(path: &Path, source: io::Error) -> LearnedError {
    LearnedError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
