//! The single values that fields hold. Each reader takes `null` as absent.

use inwarden_types::{BootTime, EventId, EventKind, ProcessKey, Tgid};

use crate::FeedError;
use crate::decode::MAX_ID_BYTES;
use crate::json::Cursor;

pub(crate) fn event_id(
    cursor: &mut Cursor<'_>,
    ignored: &mut u64,
) -> Result<Option<EventId>, FeedError> {
    let offset = cursor.offset();
    let id = match cursor.peek() {
        Some(b'n') if cursor.null() => return Ok(None),
        Some(b'{') => return observed_id(cursor, ignored).map(Some),
        Some(b'"') => cursor.string()?.into_owned(),
        Some(b'-' | b'0'..=b'9') => {
            let number = cursor.number()?;
            if number.contains(['.', 'e', 'E']) {
                return Err(wrong_id(offset));
            }
            number.to_owned()
        }
        _ => return Err(wrong_id(offset)),
    };
    if id.len() > MAX_ID_BYTES {
        return Err(FeedError::TooLong {
            field: "id",
            limit_bytes: MAX_ID_BYTES,
            offset,
        });
    }
    Ok(Some(EventId::External(id)))
}

fn wrong_id(offset: usize) -> FeedError {
    FeedError::WrongType {
        field: "id",
        expected: "a string, an integer or an object",
        offset,
    }
}

fn observed_id(cursor: &mut Cursor<'_>, ignored: &mut u64) -> Result<EventId, FeedError> {
    let (mut process, mut event_kind, mut at, mut sequence) = (None, None, None, None);
    cursor.each_field(|cursor, name| {
        match name {
            "process" => process = process_key(cursor, "id.process")?,
            "kind" => event_kind = kind(cursor)?,
            "at_ns" => at = u64_number(cursor, "id.at_ns")?,
            "sequence" => sequence = u64_number(cursor, "id.sequence")?,
            _ => {
                cursor.skip_value()?;
                *ignored += 1;
            }
        }
        Ok(())
    })?;
    Ok(EventId::Observed {
        process: need(process, "id.process")?,
        kind: need(event_kind, "id.kind")?,
        at: BootTime(need(at, "id.at_ns")?),
        sequence: need(sequence, "id.sequence")?,
    })
}

pub(crate) fn kind(cursor: &mut Cursor<'_>) -> Result<Option<EventKind>, FeedError> {
    let offset = cursor.offset();
    let Some(name) = text(cursor, "kind")? else {
        return Ok(None);
    };
    match EventKind::from_name(&name) {
        Some(kind) => Ok(Some(kind)),
        None => Err(FeedError::WrongType {
            field: "kind",
            expected: "fork, exec, exit, loss, tool_call, text, file, connect or dns",
            offset,
        }),
    }
}

pub(crate) fn process_key(
    cursor: &mut Cursor<'_>,
    field: &'static str,
) -> Result<Option<ProcessKey>, FeedError> {
    let offset = cursor.offset();
    let Some(key) = text(cursor, field)? else {
        return Ok(None);
    };
    match parse_process_key(&key) {
        Some(key) => Ok(Some(key)),
        None => Err(FeedError::WrongType {
            field,
            expected: "a process key: boot id, tgid and start in ns, joined by `:`",
            offset,
        }),
    }
}

/// Reads what `Display` of [`ProcessKey`] writes.
fn parse_process_key(key: &str) -> Option<ProcessKey> {
    let (boot_id, rest) = key.split_once(':')?;
    let (tgid, start) = rest.split_once(':')?;
    Some(ProcessKey {
        boot_id: boot_id.parse().ok()?,
        tgid: Tgid(tgid.parse().ok()?),
        start: BootTime(start.parse().ok()?),
    })
}

/// The text of the object at the cursor.
pub(crate) fn raw_object(
    cursor: &mut Cursor<'_>,
    field: &'static str,
) -> Result<Option<String>, FeedError> {
    if cursor.null() {
        return Ok(None);
    }
    expect(cursor, field, b'{', "an object")?;
    cursor.raw_value().map(|raw| Some(raw.to_owned()))
}

pub(crate) fn text(
    cursor: &mut Cursor<'_>,
    field: &'static str,
) -> Result<Option<String>, FeedError> {
    if cursor.null() {
        return Ok(None);
    }
    expect(cursor, field, b'"', "a string")?;
    Ok(Some(cursor.string()?.into_owned()))
}

pub(crate) fn boolean(
    cursor: &mut Cursor<'_>,
    field: &'static str,
) -> Result<Option<bool>, FeedError> {
    if cursor.null() {
        return Ok(None);
    }
    let offset = cursor.offset();
    if !matches!(cursor.peek(), Some(b't' | b'f')) {
        return Err(FeedError::WrongType {
            field,
            expected: "true or false",
            offset,
        });
    }
    cursor.boolean().map(Some)
}

pub(crate) fn u64_number(
    cursor: &mut Cursor<'_>,
    field: &'static str,
) -> Result<Option<u64>, FeedError> {
    number(cursor, field, u64::MAX)
}

pub(crate) fn u32_number(
    cursor: &mut Cursor<'_>,
    field: &'static str,
) -> Result<Option<u32>, FeedError> {
    let number = number(cursor, field, u32::MAX.into())?;
    Ok(number.and_then(|number| u32::try_from(number).ok()))
}

pub(crate) fn u8_number(
    cursor: &mut Cursor<'_>,
    field: &'static str,
) -> Result<Option<u8>, FeedError> {
    let number = number(cursor, field, u8::MAX.into())?;
    Ok(number.and_then(|number| u8::try_from(number).ok()))
}

/// An integer in `0..=max`; a fraction or an exponent makes another type of it,
/// since a reader that went through floating point would round it.
fn number(
    cursor: &mut Cursor<'_>,
    field: &'static str,
    max: u64,
) -> Result<Option<u64>, FeedError> {
    if cursor.null() {
        return Ok(None);
    }
    let offset = cursor.offset();
    let wrong_type = FeedError::WrongType {
        field,
        expected: "an integer",
        offset,
    };
    if !matches!(cursor.peek(), Some(b'-' | b'0'..=b'9')) {
        return Err(wrong_type);
    }
    let number = cursor.number()?;
    if number.contains(['.', 'e', 'E']) {
        return Err(wrong_type);
    }
    match number.parse() {
        Ok(number) if number <= max => Ok(Some(number)),
        _ => Err(FeedError::OutOfRange { field, max, offset }),
    }
}

/// Checks how the value at the cursor begins; its offset.
pub(crate) fn expect(
    cursor: &mut Cursor<'_>,
    field: &'static str,
    first: u8,
    expected: &'static str,
) -> Result<usize, FeedError> {
    let offset = cursor.offset();
    if cursor.peek() == Some(first) {
        return Ok(offset);
    }
    Err(FeedError::WrongType {
        field,
        expected,
        offset,
    })
}

/// The value of a field that must be there.
pub(crate) fn need<T>(value: Option<T>, field: &'static str) -> Result<T, FeedError> {
    value.ok_or(FeedError::MissingField { field })
}
