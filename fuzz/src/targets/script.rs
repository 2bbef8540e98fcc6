//! Bytes as decisions.

/// Takes decisions off the front of bytes; once they are used up, all are zero.
pub(crate) struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (front, rest) = self.rest.split_at(N.min(self.rest.len()));
        array[..front.len()].copy_from_slice(front);
        self.rest = rest;
        array
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// One of `count` places, if there are any.
    pub(crate) fn place(&mut self, count: usize) -> usize {
        usize::from(self.u16()) % count.max(1)
    }

    /// Up to `max` bytes, as many as the next two say.
    pub(crate) fn bytes(&mut self, max: usize) -> &'a [u8] {
        let wanted = usize::from(self.u16()).min(max).min(self.rest.len());
        let (front, rest) = self.rest.split_at(wanted);
        self.rest = rest;
        front
    }
}
