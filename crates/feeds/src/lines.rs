//! A stream of event lines, one after another, numbered.

use std::io::{self, BufRead};

use crate::FeedError;
use crate::decode::{DecodedEvent, MAX_LINE_BYTES, decode_event};

/// Reads event lines without a header, as they come from a pipe or a file.
///
/// A bad line is reported and the next one is read: what to do about it is up to
/// the caller. Lines of white space are passed over. After an error of the input
/// itself the iterator ends.
///
/// # Examples
/// ```
/// use inwarden_feeds::EventReader;
///
/// let feed = "{\"id\":1,\"argv\":[\"id\"]}\n\nnot json\n{\"id\":2,\"argv\":[\"ls\"]}";
/// let lines: Vec<_> = EventReader::new(feed.as_bytes())
///     .map(|line| (line.number, line.outcome.is_ok()))
///     .collect();
/// assert_eq!(lines, [(1, true), (3, false), (4, true)]);
/// ```
#[derive(Debug)]
pub struct EventReader<R> {
    lines: Lines<R>,
}

/// What one line held.
#[derive(Debug)]
pub struct NumberedLine {
    /// Counted from 1.
    pub number: u64,
    /// Its event, or what is wrong with it.
    pub outcome: Result<DecodedEvent, FeedError>,
}

impl<R: BufRead> EventReader<R> {
    /// Reads from `input`, whose next line has the number 1.
    #[must_use]
    pub fn new(input: R) -> Self {
        Self {
            lines: Lines::new(input),
        }
    }

    pub(crate) fn after_header(lines: Lines<R>) -> Self {
        Self { lines }
    }
}

impl<R: BufRead> Iterator for EventReader<R> {
    type Item = NumberedLine;

    fn next(&mut self) -> Option<NumberedLine> {
        let outcome = match self.lines.next_line()? {
            Ok(line) => decode_event(line),
            Err(error) => Err(error),
        };
        Some(NumberedLine {
            number: self.lines.number,
            outcome,
        })
    }
}

/// Lines of capped length.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    /// The number of the line read last.
    pub(crate) number: u64,
    /// The line read last.
    line: Vec<u8>,
    failed: bool,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            number: 0,
            line: Vec::new(),
            failed: false,
        }
    }

    /// The next line that is more than white space, without its line end; `None`
    /// at the end.
    pub(crate) fn next_line(&mut self) -> Option<Result<&[u8], FeedError>> {
        loop {
            if self.failed {
                return None;
            }
            match self.read_line() {
                Err(error) => {
                    self.failed = true;
                    self.number += 1;
                    return Some(Err(error.into()));
                }
                Ok(LineRead::End) => return None,
                Ok(LineRead::TooLong) => {
                    self.number += 1;
                    return Some(Err(FeedError::LineTooLong {
                        limit_bytes: MAX_LINE_BYTES,
                    }));
                }
                Ok(LineRead::Whole) => self.number += 1,
            }
            if !self.line.trim_ascii().is_empty() {
                return Some(Ok(self.line.trim_ascii_end()));
            }
        }
    }

    /// Reads to the next line end and keeps at most the cap of it.
    fn read_line(&mut self) -> io::Result<LineRead> {
        self.line.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                break;
            }
            any = true;
            let line_end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..line_end.unwrap_or(available.len())];
            let consumed = line_end.map_or(available.len(), |end| end + 1);
            too_long |= self.line.len() + part.len() > MAX_LINE_BYTES + "\r".len();
            if !too_long {
                self.line.extend_from_slice(part);
            }
            self.input.consume(consumed);
            if line_end.is_some() {
                break;
            }
        }
        Ok(match (any, too_long) {
            (false, _) => LineRead::End,
            (true, true) => LineRead::TooLong,
            (true, false) => LineRead::Whole,
        })
    }
}

enum LineRead {
    Whole,
    TooLong,
    End,
}
