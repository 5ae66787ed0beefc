//! Hidden states of many texts, computed once and kept in a file.
//!
//! A file belongs to one model, prompt, way of computing and choice of states; its
//! name says so. A record is written when its numbers are there, with a checksum, so
//! that a run that was cut off goes on where it ended: of a damaged end, whole
//! records are kept.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{BufReader, Read, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use inwarden_inference::{HiddenRequest, LabelRequest, Pooling, Prefix, PreparedLabels, Qwen2};
use sha2::{Digest as _, Sha256};

use super::{HeadOrigin, LearnRow, rows_hash};
use crate::{
    ClassifierError,
    judge::{Frame, Framed, Prompt, Question, labels_of},
    rendering_hash,
};

/// Of the file.
const FORMAT: u32 = 2;
/// Texts that are computed before the time is looked at.
const CHUNK: usize = 16;
const KEY_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;
/// Before the numbers: how many there are.
const COUNT_BYTES: usize = 4;
/// More numbers than a record can have: the windows of an event at every layer.
const MAX_NUMBERS: usize = 1 << 26;
/// Numbers before the states: the labels' log-odds.
const N_SCORES: usize = 1;

/// Where in a text's tokens a state is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// The last token before the label.
    Answer,
    /// The last token of the question.
    Question,
    /// The last token of the event.
    EventEnd,
    /// The mean over the event's tokens.
    EventMean,
    /// The mean over the tokens of the event's last line: of a tool call, the call.
    LastLine,
    /// The means over 16 tokens of the event each, which overlap by 8. It is the
    /// last of a text's positions, since a text has one or many.
    Windows,
}

impl Position {
    /// The name in files: `answer`, `question`, `event_end`, `event_mean`,
    /// `last_line`, `windows`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Question => "question",
            Self::EventEnd => "event_end",
            Self::EventMean => "event_mean",
            Self::LastLine => "last_line",
            Self::Windows => "windows",
        }
    }

    /// The position with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::Answer,
            Self::Question,
            Self::EventEnd,
            Self::EventMean,
            Self::LastLine,
            Self::Windows,
        ];
        all.into_iter().find(|position| position.name() == name)
    }

    fn tokens(self, framed: &Framed) -> Vec<std::ops::Range<usize>> {
        let single = |end: usize| end - 1..end;
        let range = match self {
            Self::Answer => single(framed.tokens.len()),
            Self::Question => single(framed.question_end),
            Self::EventEnd => single(framed.event.end),
            Self::EventMean => framed.event.clone(),
            Self::LastLine => framed.last_line.clone(),
            Self::Windows => return framed.windows(),
        };
        vec![range]
    }
}

/// Which states of a text are kept: of each position, those after each of these
/// numbers of layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChoice {
    /// In the order in which they are kept.
    pub positions: Vec<Position>,
    /// `0..=num_hidden_layers`, in the order in which they are kept.
    pub layers: Vec<usize>,
}

impl StateChoice {
    pub(crate) fn request(&self, framed: &Framed) -> HiddenRequest {
        let ranges = self.positions.iter().flat_map(|at| at.tokens(framed));
        HiddenRequest {
            layers: self.layers.clone(),
            pooling: Pooling::Means(ranges.collect()),
        }
    }

    /// How many states a head reads at once: [`Position::Windows`] counts as one.
    pub(crate) fn n_states(&self) -> usize {
        self.positions.len() * self.layers.len()
    }

    /// Whether a text has these states once, or once for each of its windows.
    pub(crate) fn is_of_windows(&self) -> bool {
        self.positions == [Position::Windows]
    }

    /// Whether [`Position::Windows`], if it is one of them, is the last.
    fn has_windows_last(&self) -> bool {
        let at = self
            .positions
            .iter()
            .position(|at| *at == Position::Windows);
        at.is_none_or(|at| at + 1 == self.positions.len())
    }

    /// Where the state of `position` and `layer` lies among those of a text; of
    /// windows, of the first.
    #[must_use]
    pub fn index(&self, position: Position, layer: usize) -> Option<usize> {
        let position = self.positions.iter().position(|&at| at == position)?;
        let layer = self.layers.iter().position(|&at| at == layer)?;
        Some(position * self.layers.len() + layer)
    }
}

/// What one pass over a text gave.
#[derive(Clone, Debug, PartialEq)]
pub struct TextStates {
    /// Log-odds of the labels in nats, without the prior taken off.
    pub label_log_odds: f64,
    /// `(positions, layers, hidden_size)`, f32, row-major; each window of
    /// [`Position::Windows`] is a position of its own.
    pub states: Vec<f32>,
}

/// Computes states and keeps them.
pub struct StateStore {
    model: Arc<Qwen2>,
    model_id: String,
    prompt_hash: String,
    frame: Frame,
    prefix: Prefix,
    labels: Arc<PreparedLabels>,
    choice: StateChoice,
    file: File,
    path: PathBuf,
    /// Where each record's numbers begin, and how many it has.
    offsets: HashMap<[u8; KEY_BYTES], (u64, usize)>,
    /// Where the next record goes.
    end: u64,
}

impl StateStore {
    /// Opens or begins the file for these in `dir`, which exists. `model_id`
    /// names the weights; costs one prefill of the prompt.
    ///
    /// # Errors
    /// [`ClassifierError::Model`] if the model cannot take the prompt or has no
    /// such layer, [`ClassifierError::StateFile`] if the file cannot be used.
    pub fn open(
        model: Arc<Qwen2>,
        model_id: &str,
        prompt: &Prompt,
        choice: StateChoice,
        dir: &Path,
    ) -> Result<Self, ClassifierError> {
        if !choice.has_windows_last() {
            return Err(ClassifierError::LearnRows(
                "windows are not the last states",
            ));
        }
        let frame = Frame::new(model.tokenizer(), prompt)?;
        let prefix = model.prefix(&frame.prefix)?;
        let (labels, normalization) = labels_of(model.tokenizer(), prompt)?;
        let labels = model.prepare_labels(&labels, normalization)?;
        let identity = format!(
            "{FORMAT} {model_id} prompt:{} {:?} {:?} {} {choice:?}",
            prompt.content_hash(),
            model.weight_form(),
            model.key_value_form(),
            model.instruction_set(),
        );
        let digest = Sha256::digest(&identity);
        let name: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
        let path = dir.join(format!("states-{name}.bin"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| unusable(&path, source))?;
        let mut store = Self {
            model,
            model_id: model_id.to_owned(),
            prompt_hash: prompt.content_hash(),
            frame,
            prefix,
            labels,
            choice,
            file,
            path,
            offsets: HashMap::new(),
            end: 0,
        };
        let scanned = store.scan();
        scanned.map_err(|source| unusable(&store.path, source))?;
        Ok(store)
    }

    /// Computes what is missing of `texts`, shortest first, until `deadline`.
    /// Returns how many are still missing. `progress` gets that number as it falls.
    ///
    /// # Errors
    /// [`ClassifierError::Model`], [`ClassifierError::StateFile`]; what was
    /// computed before stays.
    pub fn extract(
        &mut self,
        texts: &[String],
        deadline: Option<Instant>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<usize, ClassifierError> {
        let mut missing = HashMap::new();
        for text in texts {
            let key = key_of(text);
            if !self.offsets.contains_key(&key) {
                let framed = self.frame.frame(self.model.tokenizer(), text)?;
                missing.insert(key, framed);
            }
        }
        let mut missing: Vec<_> = missing.into_iter().collect();
        missing.sort_by(|(a_key, a), (b_key, b)| {
            (a.tokens.len(), a_key).cmp(&(b.tokens.len(), b_key))
        });
        let mut n_missing = missing.len();
        for chunk in missing.chunks(CHUNK) {
            progress(n_missing);
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(n_missing);
            }
            self.extract_chunk(chunk)?;
            n_missing -= chunk.len();
        }
        progress(n_missing);
        Ok(n_missing)
    }

    /// Whether the states of `text` are kept.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.offsets.contains_key(&key_of(text))
    }

    /// What is kept of `text`.
    ///
    /// # Errors
    /// [`ClassifierError::StateFile`] if it cannot be read any more.
    pub fn find(&mut self, text: &str) -> Result<Option<TextStates>, ClassifierError> {
        let Some(&(offset, n_numbers)) = self.offsets.get(&key_of(text)) else {
            return Ok(None);
        };
        let mut bytes = vec![0; n_numbers * 4];
        let read = self.file.seek(SeekFrom::Start(offset));
        read.and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|source| unusable(&self.path, source))?;
        let mut numbers = bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        let label_log_odds = f64::from(numbers.next().unwrap_or(f32::NAN));
        Ok(Some(TextStates {
            label_log_odds,
            states: numbers.collect(),
        }))
    }

    /// What a head that is trained on these states is of.
    #[must_use]
    pub fn origin(&self, question: Question, rows: &[LearnRow]) -> HeadOrigin {
        HeadOrigin {
            question: question.name().to_owned(),
            model: self.model_id.clone(),
            compute: format!("{:?}", self.model.weight_form()),
            prompt: self.prompt_hash.clone(),
            rendering: rendering_hash(),
            corpus: rows_hash(rows),
            rows: rows.len(),
        }
    }

    /// The width of one state.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.model.config().hidden_size
    }

    /// Which states are kept.
    #[must_use]
    pub fn choice(&self) -> &StateChoice {
        &self.choice
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn extract_chunk(
        &mut self,
        chunk: &[([u8; KEY_BYTES], Framed)],
    ) -> Result<(), ClassifierError> {
        let hidden: Vec<_> = chunk
            .iter()
            .map(|(_, framed)| self.choice.request(framed))
            .collect();
        let requests: Vec<_> = chunk
            .iter()
            .zip(&hidden)
            .map(|((_, framed), hidden)| LabelRequest {
                prefix: &self.prefix,
                suffix: &framed.tokens,
                labels: &self.labels,
                hidden: Some(hidden),
            })
            .collect();
        let scores = self.model.score_labels_batch(&requests)?;
        let mut bytes = Vec::new();
        let mut starts = Vec::with_capacity(chunk.len());
        for ((key, _), scores) in chunk.iter().zip(scores) {
            let start = bytes.len();
            let n_numbers = N_SCORES + scores.hidden.len();
            #[expect(clippy::cast_possible_truncation, reason = "under MAX_NUMBERS")]
            let count = (n_numbers as u32).to_le_bytes();
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(&count);
            starts.push((*key, (self.end + bytes.len() as u64, n_numbers)));
            let log_odds = match scores.log_probabilities.as_slice() {
                [malicious, benign] => malicious - benign,
                _ => f64::NAN,
            };
            #[expect(clippy::cast_possible_truncation, reason = "kept in f32")]
            let log_odds = log_odds as f32;
            bytes.extend_from_slice(&log_odds.to_le_bytes());
            for state in &scores.hidden {
                bytes.extend_from_slice(&state.to_le_bytes());
            }
            let checksum = checksum(&bytes[start..]);
            bytes.extend_from_slice(&checksum);
        }
        let written = self.file.seek(SeekFrom::Start(self.end));
        written
            .and_then(|_| self.file.write_all(&bytes))
            .map_err(|source| unusable(&self.path, source))?;
        self.end += bytes.len() as u64;
        self.offsets.extend(starts);
        Ok(())
    }

    /// Whether a text can have so many numbers.
    fn is_of_choice(&self, n_numbers: usize) -> bool {
        let of_position = self.choice.layers.len() * self.hidden_size();
        let states = n_numbers - N_SCORES;
        let least = self.choice.positions.len() * of_position;
        let has_windows = self.choice.positions.contains(&Position::Windows);
        states == least || (has_windows && states > least && states.is_multiple_of(of_position))
    }

    /// Finds the records of the file and cuts off what is not whole.
    fn scan(&mut self) -> std::io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        let (mut end, mut offsets) = (0, HashMap::new());
        while let Some(body) = read_record(&mut reader)? {
            let mut key = [0; KEY_BYTES];
            key.copy_from_slice(&body[..KEY_BYTES]);
            let numbers = body.len() - KEY_BYTES - COUNT_BYTES;
            if !self.is_of_choice(numbers / 4) {
                break;
            }
            let start = end + (KEY_BYTES + COUNT_BYTES) as u64;
            offsets.insert(key, (start, numbers / 4));
            end += (body.len() + CHECKSUM_BYTES) as u64;
        }
        self.file.set_len(end)?;
        (self.end, self.offsets) = (end, offsets);
        Ok(())
    }
}

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateStore")
            .field("path", &self.path)
            .field("texts", &self.offsets.len())
            .finish_non_exhaustive()
    }
}

/// The next whole record without its checksum, or `None` where there is none.
fn read_record(reader: &mut impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut body = vec![0; KEY_BYTES + COUNT_BYTES];
    let mut sum = [0; CHECKSUM_BYTES];
    let mut read = || -> std::io::Result<bool> {
        reader.read_exact(&mut body)?;
        let mut count = [0; COUNT_BYTES];
        count.copy_from_slice(&body[KEY_BYTES..]);
        let n_numbers = u32::from_le_bytes(count) as usize;
        if !(N_SCORES..MAX_NUMBERS).contains(&n_numbers) {
            return Ok(false);
        }
        let begin = body.len();
        body.resize(begin + n_numbers * 4, 0);
        reader.read_exact(&mut body[begin..])?;
        reader.read_exact(&mut sum)?;
        Ok(checksum(&body) == sum)
    };
    match read() {
        Ok(is_whole) => Ok(is_whole.then_some(body)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn key_of(text: &str) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key.copy_from_slice(&Sha256::digest(text)[..KEY_BYTES]);
    key
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&Sha256::digest(bytes)[..CHECKSUM_BYTES]);
    sum
}

fn unusable(path: &Path, source: std::io::Error) -> ClassifierError {
    ClassifierError::StateFile {
        path: path.to_owned(),
        source,
    }
}
