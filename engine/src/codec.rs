//! Fixed-width little-endian fields, written to and taken from bytes: what the engine's own
//! formats are made of.

/// A value reaches beyond the end of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{needed} bytes are announced, {left} are left")]
pub struct Truncated {
    /// What the value needs.
    pub needed: usize,
    /// What there is.
    pub left: usize,
}

/// Writes fields at the end.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
    fn put_u128(&mut self, value: u128) {
        self.put(&value.to_le_bytes());
    }
    fn put_i16(&mut self, value: i16) {
        self.put(&value.to_le_bytes());
    }
    fn put_i32(&mut self, value: i32) {
        self.put(&value.to_le_bytes());
    }
    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_le_bytes());
    }

    /// A count of elements or bytes, as a u32.
    ///
    /// # Panics
    ///
    /// Above `u32::MAX`; what is counted here is bounded far below.
    fn put_count(&mut self, count: usize) {
        self.put_u32(u32::try_from(count).expect("counts here are bounded far below 2^32"));
    }

    /// A text behind its length.
    fn put_text(&mut self, text: &str) {
        self.put_count(text.len());
        self.put(text.as_bytes());
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Takes fields off the front.
pub(crate) trait Take<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Truncated>;

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many bytes as asked for"))
    }
    fn take_u8(&mut self) -> Result<u8, Truncated> {
        self.take_array().map(u8::from_le_bytes)
    }
    fn take_u16(&mut self) -> Result<u16, Truncated> {
        self.take_array().map(u16::from_le_bytes)
    }
    fn take_u32(&mut self) -> Result<u32, Truncated> {
        self.take_array().map(u32::from_le_bytes)
    }
    fn take_u64(&mut self) -> Result<u64, Truncated> {
        self.take_array().map(u64::from_le_bytes)
    }
    fn take_u128(&mut self) -> Result<u128, Truncated> {
        self.take_array().map(u128::from_le_bytes)
    }
    fn take_i16(&mut self) -> Result<i16, Truncated> {
        self.take_array().map(i16::from_le_bytes)
    }
    fn take_i32(&mut self) -> Result<i32, Truncated> {
        self.take_array().map(i32::from_le_bytes)
    }
    fn take_i64(&mut self) -> Result<i64, Truncated> {
        self.take_array().map(i64::from_le_bytes)
    }

    /// The number of elements that follow, each of which has `bytes_min` bytes at least: more
    /// than fit into what is left are refused, so memory may be taken for them.
    fn take_count(&mut self, bytes_min: usize) -> Result<usize, Truncated>;

    /// The bytes behind their length.
    fn take_sized(&mut self) -> Result<&'a [u8], Truncated> {
        let length = self.take_count(1)?;
        self.take(length)
    }
}

impl<'a> Take<'a> for &'a [u8] {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (front, rest) = self.split_at_checked(count).ok_or(Truncated {
            needed: count,
            left: self.len(),
        })?;
        *self = rest;
        Ok(front)
    }

    fn take_count(&mut self, bytes_min: usize) -> Result<usize, Truncated> {
        let count = self.take_u32()?;
        let needed = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .saturating_mul(bytes_min);
        if needed > self.len() {
            return Err(Truncated {
                needed,
                left: self.len(),
            });
        }
        Ok(usize::try_from(count).expect("as many as there are bytes at most"))
    }
}
