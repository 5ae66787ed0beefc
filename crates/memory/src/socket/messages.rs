//! The messages, and the bytes they are.

use uuid::Uuid;

use crate::{
    MemoryStats,
    journal::CollectionId,
    query::{Filter, Ranking},
    record::{ContentHash, Record},
    store::{Change, Found, Question},
    wire::{Malformed, Reader, Writer},
};

/// The first message of a client: who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    pub(super) embedder: String,
    pub(super) dimension: u64,
}

const MAGIC: &[u8; 8] = b"INWMEMO\n";

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(MAGIC);
        writer.u32(self.protocol);
        writer.bytes(self.embedder.as_bytes());
        writer.u64(self.dimension);
        writer.bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.take(MAGIC.len(), "magic")? != MAGIC {
            return Err(Malformed("magic"));
        }
        Ok(Self {
            protocol: reader.u32("protocol")?,
            embedder: reader.text("embedder")?.to_owned(),
            dimension: reader.u64("dimension")?,
        })
    }
}

/// What a client asks.
pub(super) enum Request {
    Differing(CollectionId, Vec<(Uuid, ContentHash)>),
    Change(Change),
    Search(Question),
    List {
        collection: CollectionId,
        filter: Filter,
        after: Option<Uuid>,
        limit: usize,
    },
    Len(CollectionId),
    Digest,
    Stats,
}

const DIFFERING: u8 = 1;
const PUT: u8 = 2;
const REMOVE: u8 = 3;
const SEARCH: u8 = 4;
const LIST: u8 = 5;
const LEN: u8 = 6;
const DIGEST: u8 = 7;
const STATS: u8 = 8;

impl Request {
    pub(super) fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut writer = Writer::default();
        match self {
            Self::Differing(collection, contents) => {
                writer.u8(DIFFERING);
                writer.u8(collection.number());
                writer.count(contents.len());
                for (point, hash) in contents {
                    writer.uuid(*point);
                    writer.raw(hash);
                }
            }
            Self::Change(Change::Put {
                collection,
                records,
            }) => {
                writer.u8(PUT);
                writer.u8(collection.number());
                put_records(&mut writer, records)?;
            }
            Self::Change(Change::Remove { collection, points }) => {
                writer.u8(REMOVE);
                writer.u8(collection.number());
                writer.count(points.len());
                points.iter().for_each(|point| writer.uuid(*point));
            }
            Self::Search(question) => {
                writer.u8(SEARCH);
                writer.u8(question.collection.number());
                writer.vector(&question.vector);
                writer.count(question.words.len());
                question.words.iter().for_each(|word| writer.u32(*word));
                writer.u8(u8::from(question.ranking == Ranking::Hybrid));
                writer.u64(question.limit as u64);
                put_filter(&mut writer, &question.filter)?;
            }
            Self::List {
                collection,
                filter,
                after,
                limit,
            } => {
                writer.u8(LIST);
                writer.u8(collection.number());
                put_filter(&mut writer, filter)?;
                put_optional(&mut writer, *after);
                writer.u64(*limit as u64);
            }
            Self::Len(collection) => {
                writer.u8(LEN);
                writer.u8(collection.number());
            }
            Self::Digest => writer.u8(DIGEST),
            Self::Stats => writer.u8(STATS),
        }
        Ok(writer.bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let request = reader.u8("request")?;
        let collection =
            |reader: &mut Reader<'_>| CollectionId::from_number(reader.u8("collection")?);
        let request = match request {
            DIFFERING => {
                let collection = collection(&mut reader)?;
                let contents = (0..reader.count(48, "contents")?)
                    .map(|_| Ok((reader.uuid("content")?, reader.hash("content")?)))
                    .collect::<Result<_, Malformed>>()?;
                Self::Differing(collection, contents)
            }
            PUT => Self::Change(Change::Put {
                collection: collection(&mut reader)?,
                records: take_records(&mut reader)?,
            }),
            REMOVE => Self::Change(Change::Remove {
                collection: collection(&mut reader)?,
                points: (0..reader.count(16, "points")?)
                    .map(|_| reader.uuid("point"))
                    .collect::<Result<_, _>>()?,
            }),
            SEARCH => Self::Search(Question {
                collection: collection(&mut reader)?,
                vector: reader.vector("vector")?,
                words: (0..reader.count(4, "words")?)
                    .map(|_| reader.u32("word"))
                    .collect::<Result<_, _>>()?,
                ranking: match reader.u8("ranking")? {
                    0 => Ranking::Cosine,
                    1 => Ranking::Hybrid,
                    _ => return Err(Malformed("ranking")),
                },
                limit: take_size(&mut reader)?,
                filter: take_filter(&mut reader)?,
            }),
            LIST => Self::List {
                collection: collection(&mut reader)?,
                filter: take_filter(&mut reader)?,
                after: take_optional(&mut reader)?,
                limit: take_size(&mut reader)?,
            },
            LEN => Self::Len(collection(&mut reader)?),
            DIGEST => Self::Digest,
            STATS => Self::Stats,
            _ => return Err(Malformed("an unknown request")),
        };
        reader.end("bytes behind the request")?;
        Ok(request)
    }
}

/// What the owner answers; the request says which it is.
pub(super) enum Answer {
    Differing(Vec<bool>),
    Changed(u64),
    Found(Vec<Found>),
    Listed(Vec<(Record, Vec<f32>)>, Option<Uuid>),
    Len(u64),
    Digest([u8; 32]),
    /// Boxed, since it is by far the largest.
    Stats(Box<MemoryStats>),
    Refused(String),
}

const REFUSED: u8 = 0;

impl Answer {
    pub(super) fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut writer = Writer::default();
        match self {
            Self::Refused(reason) => {
                writer.u8(REFUSED);
                writer.bytes(reason.as_bytes());
            }
            Self::Differing(flags) => {
                writer.u8(DIFFERING);
                writer.count(flags.len());
                flags.iter().for_each(|flag| writer.u8(u8::from(*flag)));
            }
            Self::Changed(count) => {
                writer.u8(PUT);
                writer.u64(*count);
            }
            Self::Found(found) => {
                writer.u8(SEARCH);
                writer.count(found.len());
                for one in found {
                    writer.f64(one.score);
                    writer.u8(u8::from(one.fused_score.is_some()));
                    writer.f64(one.fused_score.unwrap_or(0.0));
                    writer.bytes(&one.record.to_json()?);
                }
            }
            Self::Listed(records, next) => {
                writer.u8(LIST);
                put_records(&mut writer, records)?;
                put_optional(&mut writer, *next);
            }
            Self::Len(len) => {
                writer.u8(LEN);
                writer.u64(*len);
            }
            Self::Digest(digest) => {
                writer.u8(DIGEST);
                writer.raw(digest);
            }
            Self::Stats(stats) => {
                writer.u8(STATS);
                let json =
                    serde_json::to_vec(stats.as_ref()).map_err(|_| Malformed("statistics"))?;
                writer.bytes(&json);
            }
        }
        Ok(writer.bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let answer = match reader.u8("answer")? {
            REFUSED => Self::Refused(reader.text("reason")?.to_owned()),
            DIFFERING => {
                let count = reader.count(1, "flags")?;
                let flags = reader.take(count, "flags")?;
                Self::Differing(flags.iter().map(|flag| *flag != 0).collect())
            }
            PUT => Self::Changed(reader.u64("count")?),
            SEARCH => Self::Found(
                (0..reader.count(21, "hits")?)
                    .map(|_| take_found(&mut reader))
                    .collect::<Result<_, _>>()?,
            ),
            LIST => Self::Listed(take_records(&mut reader)?, take_optional(&mut reader)?),
            LEN => Self::Len(reader.u64("length")?),
            DIGEST => Self::Digest(reader.hash("digest")?),
            STATS => {
                let json = reader.bytes("statistics")?;
                let stats = serde_json::from_slice(json).map_err(|_| Malformed("statistics"))?;
                Self::Stats(Box::new(stats))
            }
            _ => return Err(Malformed("an unknown answer")),
        };
        reader.end("bytes behind the answer")?;
        Ok(answer)
    }
}

fn take_found(reader: &mut Reader<'_>) -> Result<Found, Malformed> {
    let score = reader.f64("score")?;
    let is_fused = reader.u8("score")? != 0;
    let fused = reader.f64("score")?;
    Ok(Found {
        score,
        fused_score: is_fused.then_some(fused),
        record: Record::from_json(reader.bytes("record")?)?,
    })
}

fn put_records(writer: &mut Writer, records: &[(Record, Vec<f32>)]) -> Result<(), Malformed> {
    writer.count(records.len());
    for (record, vector) in records {
        writer.bytes(&record.to_json()?);
        writer.vector(vector);
    }
    Ok(())
}

fn take_records(reader: &mut Reader<'_>) -> Result<Vec<(Record, Vec<f32>)>, Malformed> {
    (0..reader.count(8, "records")?)
        .map(|_| {
            let record = Record::from_json(reader.bytes("record")?)?;
            Ok((record, reader.vector("vector")?))
        })
        .collect()
}

fn put_filter(writer: &mut Writer, filter: &Filter) -> Result<(), Malformed> {
    let json = serde_json::to_vec(filter).map_err(|_| Malformed("filter"))?;
    writer.bytes(&json);
    Ok(())
}

fn take_filter(reader: &mut Reader<'_>) -> Result<Filter, Malformed> {
    serde_json::from_slice(reader.bytes("filter")?).map_err(|_| Malformed("filter"))
}

fn put_optional(writer: &mut Writer, point: Option<Uuid>) {
    writer.u8(u8::from(point.is_some()));
    writer.uuid(point.unwrap_or_default());
}

fn take_optional(reader: &mut Reader<'_>) -> Result<Option<Uuid>, Malformed> {
    let is_some = reader.u8("id")? != 0;
    let point = reader.uuid("id")?;
    Ok(is_some.then_some(point))
}

fn take_size(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    usize::try_from(reader.u64("size")?).map_err(|_| Malformed("size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_a_round_trip_and_no_prefix_of_one_parses() {
        let filter = Filter {
            tenants: Some(vec!["a".into()]),
            observed_from_unix_ns: Some(5),
            ..Filter::default()
        };
        let requests = [
            Request::Differing(CollectionId::Baselines, vec![(Uuid::from_u128(1), [2; 32])]),
            Request::Change(Change::Remove {
                collection: CollectionId::Knowledge,
                points: vec![Uuid::from_u128(3)],
            }),
            Request::Search(Question {
                collection: CollectionId::Precedents,
                vector: vec![0.5, 0.5],
                words: vec![1, 2],
                ranking: Ranking::Hybrid,
                limit: 7,
                filter: filter.clone(),
            }),
            Request::List {
                collection: CollectionId::Precedents,
                filter,
                after: Some(Uuid::from_u128(9)),
                limit: 3,
            },
            Request::Len(CollectionId::Precedents),
            Request::Digest,
            Request::Stats,
        ];
        for request in requests {
            let bytes = request.encode().unwrap();
            let again = Request::decode(&bytes).map(|request| request.encode().unwrap());
            assert_eq!(again.as_deref(), Ok(bytes.as_slice()));
            for cut in 0..bytes.len() {
                assert!(Request::decode(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn whatever_bytes_come_nothing_panics() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..20_000_usize {
            let bytes: Vec<u8> = (0..round % 90)
                .map(|place| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    let [byte, small, ..] = seed.to_le_bytes();
                    // Mostly valid tags and small counts, so that it gets further.
                    if place < 8 { small % 9 } else { byte }
                })
                .collect();
            drop(Request::decode(&bytes));
            drop(Answer::decode(&bytes));
            drop(Hello::decode(&bytes));
        }
    }
}
