//! A cursor over bytes from outside: every read is bounded, none can panic.

use crate::error::{Corruption, Fault};

/// Reads the start of a file, of which only a part may be in memory.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
    /// Length of the file, at least that of `bytes`.
    file_len: u64,
}

impl<'a> Cursor<'a> {
    /// Over a whole file.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self::of_start(bytes, bytes.len() as u64)
    }

    /// Over the first bytes of a file of `file_len`.
    pub(crate) fn of_start(bytes: &'a [u8], file_len: u64) -> Self {
        Self {
            bytes,
            offset: 0,
            file_len,
        }
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes from here to the end of the file.
    pub(crate) fn remaining(&self) -> u64 {
        self.file_len.saturating_sub(self.offset as u64)
    }

    /// The next `n_bytes`; the cursor stays where it is if they are not there.
    ///
    /// The fault says how much of the file is left. If that is enough, the bytes
    /// are only not in memory.
    pub(crate) fn take(&mut self, n_bytes: u64, what: &str) -> Result<&'a [u8], Fault> {
        let end = usize::try_from(n_bytes)
            .ok()
            .and_then(|n| self.offset.checked_add(n));
        let Some(taken) = end.and_then(|end| self.bytes.get(self.offset..end)) else {
            let truncated = Corruption::Truncated {
                needed: n_bytes,
                available: self.remaining(),
            };
            return Err(Fault::new(what, self.offset, truncated));
        };
        self.offset += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let taken = self.take(N as u64, what)?;
        let mut array = [0; N];
        array.copy_from_slice(taken);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8, Fault> {
        self.array(what).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, what: &str) -> Result<u16, Fault> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string with a 64-bit length before it.
    pub(crate) fn string(&mut self, limit_bytes: u64, what: &str) -> Result<&'a str, Fault> {
        let at = self.offset;
        let n_bytes = self.u64(what)?;
        limit(n_bytes, limit_bytes, what, at)?;
        let text = self.take(n_bytes, what)?;
        std::str::from_utf8(text).map_err(|error| {
            let at = at + 8 + error.valid_up_to();
            Fault::unexpected(what, "UTF-8", "other bytes").at(at)
        })
    }
}

/// Refuses `value` above `limit`.
pub(crate) fn limit(value: u64, limit: u64, what: &str, at: usize) -> Result<(), Fault> {
    if value > limit {
        return Err(Fault::new(what, at, Corruption::OverLimit { value, limit }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_near_the_integer_limit_is_truncated_not_wrapped() {
        let mut cursor = Cursor::new(&[1, 2, 3]);
        cursor.u8("first").unwrap();
        let fault = cursor.take(u64::MAX, "rest").unwrap_err();
        assert_eq!(fault.at, 1);
        assert_eq!(
            fault.corruption,
            Corruption::Truncated {
                needed: u64::MAX,
                available: 2
            }
        );
        assert_eq!(cursor.offset(), 1);
    }

    #[test]
    fn a_string_that_is_not_utf8_names_its_place() {
        let mut bytes = 3_u64.to_le_bytes().to_vec();
        bytes.extend(b"a\xffb");
        let fault = Cursor::new(&bytes).string(10, "name").unwrap_err();
        assert_eq!(fault.at, 9);
    }
}
