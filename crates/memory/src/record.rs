//! What is stored and what is found, and how both look on disk.

use std::fmt;

use inwarden_types::{Label, Provenance, SourceKind, Technique, WallTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{MemoryError, MemoryOptions, wire::Malformed};

/// A case with the label it turned out to have.
///
/// The `Debug` output shows the length of the text, never the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Precedent {
    /// Unique within the tenant.
    pub id: String,
    /// The text that is embedded and compared: the rendered case.
    pub text: String,
    /// What the case was.
    pub label: Label,
    /// What kind of case it was, in the caller's words (`exec`, `prompt`); none if
    /// that is not known.
    pub kind: Option<String>,
    /// The technique, if it was an attack of a known one.
    pub technique: Option<Technique>,
    /// Whose precedent it is.
    pub tenant: String,
    /// When the case was seen; none for a precedent that was written by hand.
    pub observed: Option<WallTime>,
    /// The version of its source (a file's hash, a release).
    pub version: String,
}

/// A document or a part of one: a technique note, a runbook step.
///
/// The `Debug` output shows the length of the text, never the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// Unique within the tenant.
    pub id: String,
    /// The text that is embedded and compared.
    pub text: String,
    /// The technique it is about, if it is about one.
    pub technique: Option<Technique>,
    /// Whose document it is.
    pub tenant: String,
    /// When it was written.
    pub observed: Option<WallTime>,
    /// The version of its source (a file's hash, a release).
    pub version: String,
}

/// Something a workload ordinarily does.
///
/// The `Debug` output shows the length of the text, never the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Baseline {
    /// Unique within the tenant.
    pub id: String,
    /// The text that is embedded and compared: the rendered behaviour.
    pub text: String,
    /// Which workload does it.
    pub workload: String,
    /// What kind of behaviour it is, in the caller's words.
    pub kind: Option<String>,
    /// How often it was seen.
    pub seen: u64,
    /// Whose workload it is.
    pub tenant: String,
    /// When it was last seen.
    pub observed: Option<WallTime>,
    /// The version of its source.
    pub version: String,
}

/// Names one record of a collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// Whose record it is.
    pub tenant: String,
    /// Its id within the tenant.
    pub id: String,
}

/// A precedent that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct PrecedentHit {
    /// What was found.
    pub precedent: Precedent,
    /// Cosine similarity with the text looked for, -1 to 1; higher is closer.
    pub score: f64,
    /// The score by which a [`crate::Ranking::Hybrid`] query ordered it: the sum of the
    /// reciprocal ranks, above 0; higher is closer. None for other queries.
    pub fused_score: Option<f64>,
    /// Where it came from; carries the cosine similarity.
    pub provenance: Provenance,
}

/// A document that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct KnowledgeHit {
    /// What was found.
    pub document: Document,
    /// Cosine similarity with the text looked for, -1 to 1; higher is closer.
    pub score: f64,
    /// The score by which a [`crate::Ranking::Hybrid`] query ordered it: the sum of the
    /// reciprocal ranks, above 0; higher is closer. None for other queries.
    pub fused_score: Option<f64>,
    /// Where it came from; carries the cosine similarity.
    pub provenance: Provenance,
}

/// A baseline that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct BaselineHit {
    /// What was found.
    pub baseline: Baseline,
    /// Cosine similarity with the text looked for, -1 to 1; higher is closer.
    pub score: f64,
    /// As in [`PrecedentHit::fused_score`].
    pub fused_score: Option<f64>,
}

impl fmt::Debug for Precedent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Precedent")
            .field("id", &self.id)
            .field("text_bytes", &self.text.len())
            .field("label", &self.label)
            .field("kind", &self.kind)
            .field("technique", &self.technique)
            .field("tenant", &self.tenant)
            .field("observed", &self.observed)
            .field("version", &self.version)
            .finish()
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("id", &self.id)
            .field("text_bytes", &self.text.len())
            .field("technique", &self.technique)
            .field("tenant", &self.tenant)
            .field("observed", &self.observed)
            .field("version", &self.version)
            .finish()
    }
}

impl fmt::Debug for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Baseline")
            .field("id", &self.id)
            .field("text_bytes", &self.text.len())
            .field("workload", &self.workload)
            .field("kind", &self.kind)
            .field("seen", &self.seen)
            .field("tenant", &self.tenant)
            .field("observed", &self.observed)
            .field("version", &self.version)
            .finish()
    }
}

/// What all collections store: a precedent has a label, a baseline a workload and
/// a count, a document none of them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) text: String,
    #[serde(with = "label_name", skip_serializing_if = "Option::is_none", default)]
    pub(crate) label: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) technique: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) observed_unix_ns: Option<u64>,
    pub(crate) version: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) workload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) seen: Option<u64>,
}

/// The SHA-256 over all fields of a record.
pub(crate) type ContentHash = [u8; 32];

impl Record {
    /// The id of the point that holds the record with `key`: the same in every
    /// store.
    pub(crate) fn point_id(tenant: &str, id: &str) -> Uuid {
        const NAMESPACE: Uuid = Uuid::from_u128(0x8c0e_52fb_6f5d_4f6c_9b0a_2b6f_0f4a_7d13);
        let mut name = Vec::with_capacity(8 + tenant.len() + id.len());
        name.extend_from_slice(&(tenant.len() as u64).to_le_bytes());
        name.extend_from_slice(tenant.as_bytes());
        name.extend_from_slice(id.as_bytes());
        Uuid::new_v5(&NAMESPACE, &name)
    }

    pub(crate) fn content_hash(&self) -> ContentHash {
        let mut hasher = Sha256::new();
        hasher.update(b"inwarden memory record 2");
        let mut field = |present: Option<&[u8]>| match present {
            None => hasher.update([0]),
            Some(bytes) => {
                hasher.update([1]);
                hasher.update((bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            }
        };
        field(Some(self.id.as_bytes()));
        field(Some(self.tenant.as_bytes()));
        field(Some(self.text.as_bytes()));
        field(self.label.map(|label| label.name().as_bytes()));
        field(self.technique.as_deref().map(str::as_bytes));
        field(
            self.observed_unix_ns
                .map(u64::to_le_bytes)
                .as_ref()
                .map(<[u8; 8]>::as_slice),
        );
        field(Some(self.version.as_bytes()));
        field(self.kind.as_deref().map(str::as_bytes));
        field(self.workload.as_deref().map(str::as_bytes));
        field(
            self.seen
                .map(u64::to_le_bytes)
                .as_ref()
                .map(<[u8; 8]>::as_slice),
        );
        hasher.finalize().into()
    }

    pub(crate) fn point(&self) -> Uuid {
        Self::point_id(&self.tenant, &self.id)
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, Malformed> {
        serde_json::to_vec(self).map_err(|_| Malformed("a record that cannot be written"))
    }

    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, Malformed> {
        // The error is not quoted: it can hold the text.
        serde_json::from_slice(bytes).map_err(|_| Malformed("a record that does not parse"))
    }

    /// A generous bound on what storing the record adds to the disk: fields and
    /// vector in the journal, and twice that in the index while it is built.
    pub(crate) fn max_written_bytes(&self, dimension: usize) -> u64 {
        let optional = [&self.technique, &self.kind, &self.workload];
        let optional: usize = optional.into_iter().flatten().map(String::len).sum();
        let text = self.id.len() + self.tenant.len() + self.text.len() + self.version.len();
        (4 * (text + optional) + 16 * dimension + 1024) as u64
    }

    pub(crate) fn check(&self, options: &MemoryOptions) -> Result<(), MemoryError> {
        check_text(&self.text, options)?;
        let fields = [
            ("id", self.id.len(), 1),
            ("tenant", self.tenant.len(), 1),
            ("version", self.version.len(), 0),
            (
                "technique",
                self.technique.as_ref().map_or(0, String::len),
                0,
            ),
            ("kind", self.kind.as_ref().map_or(0, String::len), 0),
            ("workload", self.workload.as_ref().map_or(0, String::len), 0),
        ];
        for (field, bytes, min) in fields {
            check_length(field, bytes, min, options.max_field_bytes)?;
        }
        Ok(())
    }

    pub(crate) fn into_precedent(self) -> Result<Precedent, &'static str> {
        Ok(Precedent {
            label: self.label.ok_or("a precedent without a label")?,
            id: self.id,
            text: self.text,
            kind: self.kind,
            technique: self.technique.map(Technique),
            tenant: self.tenant,
            observed: self.observed_unix_ns.map(WallTime),
            version: self.version,
        })
    }

    pub(crate) fn into_baseline(self) -> Result<Baseline, &'static str> {
        Ok(Baseline {
            workload: self.workload.ok_or("a baseline without a workload")?,
            seen: self.seen.ok_or("a baseline without a count")?,
            id: self.id,
            text: self.text,
            kind: self.kind,
            tenant: self.tenant,
            observed: self.observed_unix_ns.map(WallTime),
            version: self.version,
        })
    }

    pub(crate) fn into_document(self) -> Document {
        Document {
            id: self.id,
            text: self.text,
            technique: self.technique.map(Technique),
            tenant: self.tenant,
            observed: self.observed_unix_ns.map(WallTime),
            version: self.version,
        }
    }

    pub(crate) fn provenance(&self, kind: SourceKind, score: f64) -> Provenance {
        Provenance {
            kind,
            source_id: self.id.clone(),
            version: self.version.clone(),
            observed: self.observed_unix_ns.map(WallTime),
            span: None,
            score: Some(score),
        }
    }
}

impl From<&Precedent> for Record {
    fn from(precedent: &Precedent) -> Self {
        Self {
            id: precedent.id.clone(),
            tenant: precedent.tenant.clone(),
            text: precedent.text.clone(),
            label: Some(precedent.label),
            technique: precedent.technique.as_ref().map(|t| t.0.clone()),
            observed_unix_ns: precedent.observed.map(|time| time.0),
            version: precedent.version.clone(),
            kind: precedent.kind.clone(),
            workload: None,
            seen: None,
        }
    }
}

impl From<&Document> for Record {
    fn from(document: &Document) -> Self {
        Self {
            id: document.id.clone(),
            tenant: document.tenant.clone(),
            text: document.text.clone(),
            label: None,
            technique: document.technique.as_ref().map(|t| t.0.clone()),
            observed_unix_ns: document.observed.map(|time| time.0),
            version: document.version.clone(),
            kind: None,
            workload: None,
            seen: None,
        }
    }
}

impl From<&Baseline> for Record {
    fn from(baseline: &Baseline) -> Self {
        Self {
            id: baseline.id.clone(),
            tenant: baseline.tenant.clone(),
            text: baseline.text.clone(),
            label: None,
            technique: None,
            observed_unix_ns: baseline.observed.map(|time| time.0),
            version: baseline.version.clone(),
            kind: baseline.kind.clone(),
            workload: Some(baseline.workload.clone()),
            seen: Some(baseline.seen),
        }
    }
}

pub(crate) fn check_text(text: &str, options: &MemoryOptions) -> Result<(), MemoryError> {
    check_length("text", text.len(), 1, options.max_text_bytes)
}

/// Fails unless `vector` is `(dimension,)`, finite, and of length about 1.
pub(crate) fn check_vector(vector: &[f32], dimension: usize) -> Result<(), MemoryError> {
    let square: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
    if vector.len() == dimension && (square - 1.0).abs() < 1e-3 {
        return Ok(());
    }
    Err(MemoryError::Vector {
        len: vector.len(),
        dimension,
    })
}

fn check_length(
    field: &'static str,
    bytes: usize,
    min: usize,
    max: usize,
) -> Result<(), MemoryError> {
    if (min..=max).contains(&bytes) {
        return Ok(());
    }
    Err(MemoryError::Length {
        field,
        bytes,
        min,
        max,
    })
}

/// A label as the name it has in files.
pub(crate) mod label_name {
    use inwarden_types::Label;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        label: &Option<Label>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match label {
            Some(label) => serializer.serialize_str(label.name()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Label>, D::Error> {
        let Some(name) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        [Label::Benign, Label::Malicious, Label::Undetermined]
            .into_iter()
            .find(|label| label.name() == name)
            .map(Some)
            .ok_or_else(|| D::Error::custom("unknown label"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            id: "a".into(),
            tenant: "t".into(),
            text: "ls -l".into(),
            label: Some(Label::Benign),
            technique: None,
            observed_unix_ns: Some(7),
            version: "1".into(),
            kind: None,
            workload: None,
            seen: None,
        }
    }

    #[test]
    fn every_field_changes_the_content_hash() {
        let base = record();
        let changes: [fn(&mut Record); 10] = [
            |r| r.id.push('x'),
            |r| r.tenant.push('x'),
            |r| r.text.push('x'),
            |r| r.label = Some(Label::Malicious),
            |r| r.technique = Some(String::new()),
            |r| r.observed_unix_ns = None,
            |r| r.version.push('x'),
            |r| r.kind = Some("exec".into()),
            |r| r.workload = Some("web".into()),
            |r| r.seen = Some(0),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut changed = record();
            change(&mut changed);
            assert_ne!(
                changed.content_hash(),
                base.content_hash(),
                "change {index}"
            );
        }
        assert_eq!(record().content_hash(), base.content_hash());
    }

    #[test]
    fn moving_a_byte_between_fields_changes_hash_and_point_id() {
        let mut moved = record();
        moved.id = "at".into();
        moved.tenant = String::new();
        assert_ne!(moved.content_hash(), record().content_hash());
        assert_ne!(Record::point_id("ab", "c"), Record::point_id("a", "bc"));
    }

    #[test]
    fn point_ids_never_change_between_versions() {
        assert_eq!(
            Record::point_id("shared", "p1").to_string(),
            "c39529b3-b128-57eb-9455-0e2ee301cf91"
        );
    }

    #[test]
    fn payload_survives_a_round_trip_and_rejects_what_it_does_not_know() {
        let json = serde_json::to_string(&record()).unwrap();
        let back: Record = serde_json::from_str(&json).unwrap();
        assert!(back == record());
        let unknown = json.replacen('{', "{\"extra\":1,", 1);
        assert!(serde_json::from_str::<Record>(&unknown).is_err());
        let label = json.replace("benign", "good");
        assert!(serde_json::from_str::<Record>(&label).is_err());
    }

    #[test]
    fn debug_output_holds_no_text() {
        let precedent = record().into_precedent().unwrap();
        let shown = format!("{precedent:?}");
        assert!(!shown.contains("ls -l"), "{shown}");
        assert!(shown.contains("text_bytes: 5"), "{shown}");
    }
}
