//! Frames: a length, a checksum and a place in a group before every entry.
//!
//! ```text
//! header   magic 8 | version u32 | reserved u32 | salt u64 | crc32c u32 | zero u32
//! frame    len u32 | crc32c u32 | group u64 | after u32 | entry of len bytes
//! ```
//!
//! A *group* is what one `fdatasync` covered; `after` counts the frames of the
//! same group behind this one. The next group is written only when the one
//! before is on the disk, so a crash can damage the last group alone, and its
//! writers never heard that it was stored. Whatever does not check and is not of
//! the last group is damage, not the trace of a crash.
//!
//! The checksum covers the salt, the rest of the frame's head and the entry. The
//! salt is random for each file: a stored text cannot pretend to be a frame.

use crate::wire::{Reader, Writer};

pub(super) const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"INWJRNL\n";
pub(super) const HEADER_BYTES: usize = 32;
pub(super) const HEAD_BYTES: usize = 20;

/// The longest entry; `len` says no more, whatever the bytes are.
pub(super) const MAX_ENTRY_BYTES: usize = 64 * 1024 * 1024;

/// Where a frame belongs: its group, and how many frames of it come after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: u64,
    pub(super) after: u32,
}

/// Why the start of a file is not the header of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// It is shorter than a header, or its checksum does not fit.
    Damaged,
    /// It is a journal of this version, which is not known here.
    Version(u32),
}

pub(super) fn header(salt: u64) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.raw(MAGIC);
    writer.u32(VERSION);
    writer.u32(0);
    writer.u64(salt);
    let crc = crc32c::crc32c(&writer.bytes);
    writer.u32(crc);
    writer.u32(0);
    writer.bytes
}

/// The salt of the file that starts with `bytes`.
pub(super) fn parse_header(bytes: &[u8]) -> Result<u64, HeaderError> {
    let mut reader = Reader::new(bytes);
    let mut parse = || {
        let magic = reader.take(MAGIC.len(), "magic")?;
        let version = reader.u32("version")?;
        let _reserved = reader.u32("reserved")?;
        let salt = reader.u64("salt")?;
        let crc = reader.u32("checksum")?;
        reader.u32("padding")?;
        Ok::<_, crate::wire::Malformed>((magic, version, salt, crc))
    };
    let (magic, version, salt, crc) = parse().map_err(|_| HeaderError::Damaged)?;
    if magic != MAGIC || crc32c::crc32c(&bytes[..24]) != crc {
        return Err(HeaderError::Damaged);
    }
    if version != VERSION {
        return Err(HeaderError::Version(version));
    }
    Ok(salt)
}

/// Appends the frame of `entry` to `out`. The entry is at most
/// [`MAX_ENTRY_BYTES`] long, which the caller has checked.
pub(super) fn push(out: &mut Vec<u8>, salt: u64, place: Place, entry: &[u8]) {
    let len = u32::try_from(entry.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&checksum(salt, len, place, entry).to_le_bytes());
    out.extend_from_slice(&place.group.to_le_bytes());
    out.extend_from_slice(&place.after.to_le_bytes());
    out.extend_from_slice(entry);
}

/// The frame that starts at `bytes`, if it is whole and its checksum fits.
pub(super) fn parse(bytes: &[u8], salt: u64) -> Option<(Place, &[u8])> {
    let mut reader = Reader::new(bytes);
    let len = reader.u32("length").ok()?;
    let crc = reader.u32("checksum").ok()?;
    let place = Place {
        group: reader.u64("group").ok()?,
        after: reader.u32("after").ok()?,
    };
    let len_usize = usize::try_from(len).ok()?;
    if len_usize > MAX_ENTRY_BYTES {
        return None;
    }
    let entry = reader.take(len_usize, "entry").ok()?;
    (checksum(salt, len, place, entry) == crc).then_some((place, entry))
}

fn checksum(salt: u64, len: u32, place: Place, entry: &[u8]) -> u32 {
    let mut head = [0; 24];
    head[..8].copy_from_slice(&salt.to_le_bytes());
    head[8..12].copy_from_slice(&len.to_le_bytes());
    head[12..20].copy_from_slice(&place.group.to_le_bytes());
    head[20..].copy_from_slice(&place.after.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&head), entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { group: 7, after: 1 };

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let mut bytes = Vec::new();
        push(&mut bytes, 99, PLACE, b"an entry");
        assert_eq!(parse(&bytes, 99), Some((PLACE, b"an entry".as_slice())));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&flipped, 99), None, "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut], 99), None, "{cut}");
        }
    }

    #[test]
    fn a_frame_of_another_file_is_none() {
        let mut bytes = Vec::new();
        push(&mut bytes, 1, PLACE, b"an entry");
        assert_eq!(parse(&bytes, 2), None);
    }

    #[test]
    fn a_header_tells_damage_from_a_newer_version() {
        let good = header(5);
        assert_eq!(good.len(), HEADER_BYTES);
        assert_eq!(parse_header(&good), Ok(5));
        assert_eq!(parse_header(&good[..10]), Err(HeaderError::Damaged));
        let mut newer = good.clone();
        newer[8] = 2;
        assert_eq!(parse_header(&newer), Err(HeaderError::Damaged));
        let crc = crc32c::crc32c(&newer[..24]);
        newer[24..28].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(parse_header(&newer), Err(HeaderError::Version(2)));
    }
}
