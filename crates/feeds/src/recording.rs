//! Recordings: a header line, then one event a line.

use std::io::{BufRead, Write};

use inwarden_types::{BootId, Event};

use crate::FeedError;
use crate::decode::{MAX_DEPTH, check_schema, checked_text, decode_event};
use crate::encode::encode_event;
use crate::json::{Cursor, push_string};
use crate::lines::{EventReader, Lines};
use crate::values::text;

/// The value of `schema` in the header line this crate writes.
pub const RECORDING_SCHEMA: &str = "inwarden.recording/1";

/// The first line of a recording: `{"schema":"inwarden.recording/1"}`, with the
/// fields `boot_id`, `kernel` and `note` if they are known.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RecordingHeader {
    /// The boot the events were observed in.
    pub boot_id: Option<BootId>,
    /// The release of the kernel they were observed on.
    pub kernel: Option<String>,
    /// What the recording shows, for people.
    pub note: Option<String>,
}

/// Reads the events of a recording in order.
///
/// Each error but those of [`RecordingReader::new`] is a [`FeedError::AtLine`].
/// After a bad line the next one is read; whether to go on is up to the caller.
///
/// # Examples
/// ```
/// use inwarden_feeds::RecordingReader;
///
/// let recording = "{\"schema\":\"inwarden.recording/1\",\"kernel\":\"6.12.0\"}\n\
///                  {\"id\":1,\"argv\":[\"id\"]}\n";
/// let mut reader = RecordingReader::new(recording.as_bytes())?;
/// assert_eq!(reader.header().kernel.as_deref(), Some("6.12.0"));
/// assert_eq!(reader.next().expect("one event")?.process.image.argv.args, ["id"]);
/// assert!(reader.next().is_none());
/// # Ok::<(), inwarden_feeds::FeedError>(())
/// ```
#[derive(Debug)]
pub struct RecordingReader<R> {
    header: RecordingHeader,
    events: EventReader<R>,
    ignored_fields: u64,
}

impl<R: BufRead> RecordingReader<R> {
    /// Reads the header from `input`.
    ///
    /// # Errors
    /// [`FeedError::NoHeader`] if there is no line, else [`FeedError::AtLine`]
    /// with [`FeedError::WrongSchema`] or [`FeedError::NewerSchema`] if the first
    /// line is not a header, or with what is wrong with it.
    pub fn new(input: R) -> Result<Self, FeedError> {
        let mut lines = Lines::new(input);
        let first = lines.next_line().ok_or(FeedError::NoHeader)?;
        let decoded = first.and_then(decode_header);
        let (header, ignored_fields) = decoded.map_err(|error| error.at_line(lines.number))?;
        Ok(Self {
            header,
            events: EventReader::after_header(lines),
            ignored_fields,
        })
    }

    /// The first line.
    #[must_use]
    pub fn header(&self) -> &RecordingHeader {
        &self.header
    }

    /// How many fields were passed over so far, in the header and in events.
    #[must_use]
    pub fn ignored_fields(&self) -> u64 {
        self.ignored_fields
    }
}

impl<R: BufRead> Iterator for RecordingReader<R> {
    type Item = Result<Event, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.events.next()?;
        Some(match line.outcome {
            Ok(decoded) => {
                self.ignored_fields += decoded.ignored_fields;
                Ok(decoded.event)
            }
            Err(error) => Err(error.at_line(line.number)),
        })
    }
}

/// Writes a recording; what [`write`](Self::write) has accepted is flushed.
///
/// # Examples
/// ```
/// use inwarden_feeds::{RecordingHeader, RecordingReader, RecordingWriter, decode_event};
///
/// let event = decode_event(br#"{"id":"a","argv":["id"]}"#)?.event;
/// let mut writer = RecordingWriter::new(Vec::new(), &RecordingHeader::default())?;
/// writer.write(&event)?;
/// let bytes = writer.into_inner();
/// assert_eq!(RecordingReader::new(&bytes[..])?.next().expect("one event")?, event);
/// # Ok::<(), inwarden_feeds::FeedError>(())
/// ```
#[derive(Debug)]
pub struct RecordingWriter<W> {
    output: W,
}

impl<W: Write> RecordingWriter<W> {
    /// Writes the header to `output` and flushes it.
    ///
    /// # Errors
    /// [`FeedError::Io`]; a part of the line may have been written.
    /// [`FeedError::LineTooLong`]; nothing was written.
    pub fn new(output: W, header: &RecordingHeader) -> Result<Self, FeedError> {
        let line = encode_header(header);
        decode_header(line.as_bytes())?;
        let mut writer = Self { output };
        writer.write_line(line)?;
        Ok(writer)
    }

    /// Writes one event and flushes it.
    ///
    /// # Errors
    /// [`FeedError::Io`]; a part of the line may have been written.
    ///
    /// Any other error is about this event alone, and nothing was written: the
    /// event does not keep the caps of [`decode_event`], and its line would be
    /// refused with this error, whose offsets count from the start of that line.
    /// The next event can be written.
    pub fn write(&mut self, event: &Event) -> Result<(), FeedError> {
        let line = encode_event(event);
        decode_event(line.as_bytes())?;
        self.write_line(line)
    }

    /// Hands the output back.
    #[must_use]
    pub fn into_inner(self) -> W {
        self.output
    }

    fn write_line(&mut self, mut line: String) -> Result<(), FeedError> {
        line.push('\n');
        self.output.write_all(line.as_bytes())?;
        Ok(self.output.flush()?)
    }
}

fn encode_header(header: &RecordingHeader) -> String {
    let mut line = format!("{{\"schema\":\"{RECORDING_SCHEMA}\"");
    let boot_id = header.boot_id.map(|boot_id| boot_id.to_string());
    let fields = [
        ("boot_id", &boot_id),
        ("kernel", &header.kernel),
        ("note", &header.note),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            line.push(',');
            push_string(&mut line, name);
            line.push(':');
            push_string(&mut line, value);
        }
    }
    line.push('}');
    line
}

/// The header, and how many fields of its line were passed over.
fn decode_header(line: &[u8]) -> Result<(RecordingHeader, u64), FeedError> {
    let mut cursor = Cursor::new(checked_text(line)?, MAX_DEPTH);
    let (mut header, mut ignored, mut has_schema) = (RecordingHeader::default(), 0, false);
    cursor.each_field(|cursor, name| {
        match name {
            "schema" => {
                has_schema = !cursor.null();
                if has_schema {
                    check_schema(cursor, RECORDING_SCHEMA)?;
                }
            }
            "boot_id" => header.boot_id = boot_id(cursor)?,
            "kernel" => header.kernel = text(cursor, "kernel")?,
            "note" => header.note = text(cursor, "note")?,
            _ => {
                cursor.skip_value()?;
                ignored += 1;
            }
        }
        Ok(())
    })?;
    cursor.end()?;
    if has_schema {
        Ok((header, ignored))
    } else {
        Err(FeedError::WrongSchema {
            expected: RECORDING_SCHEMA,
        })
    }
}

fn boot_id(cursor: &mut Cursor<'_>) -> Result<Option<BootId>, FeedError> {
    let offset = cursor.offset();
    let Some(digits) = text(cursor, "boot_id")? else {
        return Ok(None);
    };
    match digits.parse() {
        Ok(boot_id) => Ok(Some(boot_id)),
        Err(_) => Err(FeedError::WrongType {
            field: "boot_id",
            expected: "32 hexadecimal digits",
            offset,
        }),
    }
}
