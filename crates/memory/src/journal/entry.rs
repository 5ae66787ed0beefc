//! What a frame holds: one record with its vector, or the removal of one.

use uuid::Uuid;

use crate::{
    record::Record,
    wire::{Malformed, Reader, Writer},
};

/// Which collection an entry belongs to; the numbers are those of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CollectionId {
    Precedents = 0,
    Knowledge = 1,
    Baselines = 2,
}

impl CollectionId {
    pub(crate) const ALL: [Self; 3] = [Self::Precedents, Self::Knowledge, Self::Baselines];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Precedents => "precedents",
            Self::Knowledge => "knowledge",
            Self::Baselines => "baselines",
        }
    }

    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn from_number(number: u8) -> Result<Self, Malformed> {
        Self::ALL
            .into_iter()
            .find(|id| id.number() == number)
            .ok_or(Malformed("an unknown collection"))
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.name() == name)
    }
}

/// An entry of the journal.
#[expect(
    clippy::large_enum_variant,
    reason = "almost every entry is the large one"
)]
#[derive(Clone)]
pub(crate) enum Entry {
    /// The record is there from now on; replaces the one with the same key.
    Put {
        record: Record,
        /// `(dimension,)`, f32, length 1.
        vector: Vec<f32>,
    },
    /// The record with this id is gone from now on.
    Remove { point: Uuid },
}

/// An entry and where it belongs, to be written.
pub(crate) struct EntryRef<'a> {
    pub(crate) collection: CollectionId,
    pub(crate) entry: &'a Entry,
}

const PUT: u8 = 1;
const REMOVE: u8 = 2;

impl EntryRef<'_> {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut writer = Writer::default();
        match self.entry {
            Entry::Put { record, vector } => {
                writer.u8(PUT);
                writer.u8(self.collection.number());
                writer.bytes(&record.to_json()?);
                writer.vector(vector);
            }
            Entry::Remove { point } => {
                writer.u8(REMOVE);
                writer.u8(self.collection.number());
                writer.uuid(*point);
            }
        }
        Ok(writer.bytes)
    }
}

impl Entry {
    pub(crate) fn decode(bytes: &[u8]) -> Result<(CollectionId, Self), Malformed> {
        let mut reader = Reader::new(bytes);
        let operation = reader.u8("operation")?;
        let collection = CollectionId::from_number(reader.u8("collection")?)?;
        let entry = match operation {
            PUT => Self::Put {
                record: Record::from_json(reader.bytes("record")?)?,
                vector: reader.vector("vector")?,
            },
            REMOVE => Self::Remove {
                point: reader.uuid("point")?,
            },
            _ => return Err(Malformed("an unknown operation")),
        };
        reader.end("bytes behind the entry")?;
        Ok((collection, entry))
    }
}
