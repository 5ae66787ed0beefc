//! The file of a term model: a line of JSON, then the frequencies and the weights,
//! a byte a bucket each.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{BUCKETS, TermModel, TermOrigin};

const FORMAT: u32 = 1;
const MAX_HEADER_BYTES: usize = 4096;

/// Why a term model's file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermFileError {
    /// The file is of another version: whoever fitted it must do so again.
    #[error("term model of format {got}, this program reads {FORMAT}")]
    OtherFormat {
        /// The file's format.
        got: u32,
    },
    /// The file is damaged.
    #[error("term model: {problem}")]
    Corrupt {
        /// What is wrong.
        problem: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    origin: TermOrigin,
    buckets: usize,
    intercept: f64,
    step: f64,
}

impl TermModel {
    pub(super) fn new(
        origin: TermOrigin,
        intercept: f64,
        step: f64,
        idf: Vec<u8>,
        weights: Vec<i8>,
    ) -> Self {
        let mut model = Self {
            origin,
            intercept,
            step,
            idf,
            weights,
            hash: String::new(),
        };
        let digest = Sha256::digest(model.to_bytes());
        model.hash = digest[..6].iter().map(|b| format!("{b:02x}")).collect();
        model
    }

    /// Reads a model's file.
    ///
    /// # Errors
    /// [`TermFileError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TermFileError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let corrupt = |problem: String| TermFileError::Corrupt { problem };
        let mut start = bytes.iter().take(MAX_HEADER_BYTES);
        let end = start.position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| corrupt("there is no header line".to_owned()))?;
        let (header, rest) = (&bytes[..end], &bytes[end + 1..]);
        let unreadable = |e: serde_json::Error| corrupt(e.to_string());
        let version: Version = serde_json::from_slice(header).map_err(unreadable)?;
        if version.format != FORMAT {
            let got = version.format;
            return Err(TermFileError::OtherFormat { got });
        }
        let header: Header = serde_json::from_slice(header).map_err(unreadable)?;
        if header.buckets != BUCKETS || rest.len() != 2 * BUCKETS {
            return Err(corrupt(format!(
                "{} buckets in {} bytes, expected {BUCKETS} in {}",
                header.buckets,
                rest.len(),
                2 * BUCKETS
            )));
        }
        let is_usable = header.intercept.is_finite() && header.step.is_finite();
        if !is_usable || header.step <= 0.0 {
            return Err(corrupt("a number is not finite".to_owned()));
        }
        let (idf, weights) = rest.split_at(BUCKETS);
        let weights = weights.iter().map(|byte| byte.cast_signed()).collect();
        let (intercept, step) = (header.intercept, header.step);
        Ok(Self::new(
            header.origin,
            intercept,
            step,
            idf.to_vec(),
            weights,
        ))
    }

    /// The model as [`TermModel::parse`] reads it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = Header {
            format: FORMAT,
            origin: self.origin.clone(),
            buckets: BUCKETS,
            intercept: self.intercept,
            step: self.step,
        };
        let mut bytes =
            serde_json::to_vec(&header).expect("a struct of strings and numbers has a JSON form");
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.idf);
        bytes.extend(self.weights.iter().map(|weight| weight.cast_unsigned()));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> TermModel {
        let origin = TermOrigin {
            question: "exec".to_owned(),
            corpus: "c".to_owned(),
            rows: 2,
        };
        let mut weights = vec![0; BUCKETS];
        weights[7] = -128;
        TermModel::new(origin, -0.25, 0.5, vec![24; BUCKETS], weights)
    }

    #[test]
    fn a_model_comes_back_from_its_file() {
        let read = TermModel::parse(&model().to_bytes()).unwrap();
        assert_eq!(read, model());
        assert_eq!(read.log_odds(""), -0.25);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused() {
        let bytes = model().to_bytes();
        let text = String::from_utf8_lossy(&bytes[..200]).into_owned();
        let header = text.lines().next().unwrap();
        let with = |changed: &str| {
            assert_ne!(changed, header);
            let mut changed = changed.as_bytes().to_vec();
            changed.extend_from_slice(&bytes[header.len()..]);
            TermModel::parse(&changed).unwrap_err()
        };
        let other = with(&header.replace("\"format\":1", "\"format\":2"));
        assert_eq!(other, TermFileError::OtherFormat { got: 2 });
        for (from, to) in [
            ("\"buckets\":", "\"buckets\":1"),
            ("\"step\":0.5", "\"step\":0.0"),
            ("\"step\":0.5", "\"step\":1e999"),
            ("\"rows\"", "\"rows_\""),
        ] {
            let refused = with(&header.replace(from, to));
            assert!(matches!(refused, TermFileError::Corrupt { .. }), "{to}");
        }
        for end in [0, 10, header.len(), bytes.len() - 1] {
            let refused = TermModel::parse(&bytes[..end]);
            assert!(
                matches!(refused, Err(TermFileError::Corrupt { .. })),
                "{end}"
            );
        }
    }
}
