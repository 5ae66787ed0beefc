//! Bytes in order: how entries of the journal and messages of the socket are
//! written and read. All numbers are little-endian; every length is checked
//! against what is left before anything is taken or allocated.

use uuid::Uuid;

/// Bytes that do not hold what was expected; names the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Appends values to a buffer.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn uuid(&mut self, id: Uuid) {
        self.bytes.extend_from_slice(id.as_bytes());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A count; what is longer than `u32` is cut, and the reader then sees too few.
    pub(crate) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    pub(crate) fn vector(&mut self, vector: &[f32]) {
        self.count(vector.len());
        for x in vector {
            self.raw(&x.to_le_bytes());
        }
    }
}

/// Takes values from the front of a slice.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(crate) fn f64(&mut self, what: &'static str) -> Result<f64, Malformed> {
        self.array(what).map(f64::from_le_bytes)
    }

    pub(crate) fn uuid(&mut self, what: &'static str) -> Result<Uuid, Malformed> {
        self.array(what).map(Uuid::from_bytes)
    }

    pub(crate) fn hash(&mut self, what: &'static str) -> Result<[u8; 32], Malformed> {
        self.array(what)
    }

    /// A count of items of at least `item_bytes` each that all are still to come.
    pub(crate) fn count(
        &mut self,
        item_bytes: usize,
        what: &'static str,
    ) -> Result<usize, Malformed> {
        let count = usize::try_from(self.u32(what)?).map_err(|_| Malformed(what))?;
        if count > self.rest.len() / item_bytes.max(1) {
            return Err(Malformed(what));
        }
        Ok(count)
    }

    pub(crate) fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let len = self.count(1, what)?;
        self.take(len, what)
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| Malformed(what))
    }

    pub(crate) fn vector(&mut self, what: &'static str) -> Result<Vec<f32>, Malformed> {
        let len = self.count(4, what)?;
        let bytes = self.take(4 * len, what)?;
        let (values, _) = bytes.as_chunks::<4>();
        Ok(values.iter().map(|x| f32::from_le_bytes(*x)).collect())
    }

    pub(crate) fn end(&self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Malformed(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_no_prefix_of_it_is() {
        let mut writer = Writer::default();
        writer.u8(7);
        writer.u32(8);
        writer.u64(9);
        writer.f64(0.5);
        writer.uuid(Uuid::from_u128(10));
        writer.bytes("text".as_bytes());
        writer.vector(&[1.0, -2.0]);
        let read = |bytes: &[u8]| -> Result<(), Malformed> {
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.u8("a")?, 7);
            assert_eq!(reader.u32("b")?, 8);
            assert_eq!(reader.u64("c")?, 9);
            assert_eq!(reader.f64("d")?, 0.5);
            assert_eq!(reader.uuid("e")?, Uuid::from_u128(10));
            assert_eq!(reader.text("f")?, "text");
            assert_eq!(reader.vector("g")?, [1.0, -2.0]);
            reader.end("end")
        };
        read(&writer.bytes).unwrap();
        for cut in 0..writer.bytes.len() {
            assert!(read(&writer.bytes[..cut]).is_err(), "{cut}");
        }
        writer.u8(0);
        assert_eq!(read(&writer.bytes), Err(Malformed("end")));
    }

    #[test]
    fn a_count_larger_than_the_rest_is_refused_before_anything_is_allocated() {
        let huge = u32::MAX.to_le_bytes();
        assert!(Reader::new(&huge).vector("v").is_err());
        assert!(Reader::new(&huge).bytes("b").is_err());
        assert!(Reader::new(&huge).count(1, "n").is_err());
    }
}
