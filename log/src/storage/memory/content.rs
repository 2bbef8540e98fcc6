//! A file's bytes, sparse and shared until written, so that copying a disk copies pointers.

use std::hash::Hasher;
use std::sync::Arc;

use twox_hash::XxHash3_64;

const PAGE: usize = 4096;

type Page = Arc<[u8; PAGE]>;

/// A file's bytes. What was never written is zero. Clones share pages until one of them writes.
#[derive(Debug, Clone, Default)]
pub(in crate::storage) struct Content {
    len: u64,
    pages: Arc<Vec<Option<Page>>>,
}

impl Content {
    /// A file of `len` zeros.
    #[cfg(test)]
    pub(in crate::storage) fn zeros(len: u64) -> Self {
        let mut content = Self::default();
        content.resize(len);
        content
    }

    pub(in crate::storage) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes from `offset`, at most `len`, shorter at the end.
    pub(in crate::storage) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let len = self.clip(offset, len);
        let mut out = Vec::with_capacity(len);
        for (page, in_page, part) in parts(offset, len) {
            match self.pages.get(page) {
                Some(Some(bytes)) => {
                    out.extend_from_slice(&bytes[in_page..in_page + part.len()]);
                }
                _ => out.resize(part.end, 0),
            }
        }
        out
    }

    /// Whether these bytes are zero, as far as the file goes.
    pub(in crate::storage) fn is_zero(&self, offset: u64, len: usize) -> bool {
        let mut parts = parts(offset, self.clip(offset, len));
        parts.all(|(page, in_page, part)| match self.pages.get(page) {
            Some(Some(bytes)) => {
                let bytes = &bytes[in_page..in_page + part.len()];
                bytes.iter().all(|byte| *byte == 0)
            }
            _ => true,
        })
    }

    /// Writes what lies within the file.
    pub(in crate::storage) fn write(&mut self, offset: u64, data: &[u8]) {
        let len = self.clip(offset, data.len());
        let pages = Arc::make_mut(&mut self.pages);
        for (page, in_page, part) in parts(offset, len) {
            let page = pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            let to = in_page..in_page + part.len();
            Arc::make_mut(page)[to].copy_from_slice(&data[part]);
        }
    }

    /// Cuts the file, or makes it longer with zeros.
    pub(in crate::storage) fn resize(&mut self, len: u64) {
        let pages = Arc::make_mut(&mut self.pages);
        pages.resize(page_of(len.next_multiple_of(PAGE as u64)), None);
        let in_page = index(len % PAGE as u64);
        if len < self.len && in_page != 0 {
            // What lay behind the cut does not come back when the file grows again.
            if let Some(Some(page)) = pages.last_mut() {
                Arc::make_mut(page)[in_page..].fill(0);
            }
        }
        self.len = len;
    }

    /// Feeds length and bytes to a hash. Pages of zeros count as if they were never written.
    pub(in crate::storage) fn hash_into(&self, hash: &mut XxHash3_64) {
        hash.write(&self.len.to_le_bytes());
        for (number, page) in self.pages.iter().enumerate() {
            if let Some(bytes) = page.as_deref().filter(|bytes| **bytes != [0; PAGE]) {
                hash.write(&number.to_le_bytes());
                hash.write(bytes);
            }
        }
    }

    fn clip(&self, offset: u64, len: usize) -> usize {
        let room = self.len.saturating_sub(offset);
        usize::try_from(room).map_or(len, |room| room.min(len))
    }
}

/// Splits a range into (page, offset in the page, range within the caller's bytes).
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let in_page = index(at % PAGE as u64);
        let part = done..len.min(done + PAGE - in_page);
        done = part.end;
        Some((page_of(at), in_page, part))
    })
}

fn page_of(offset: u64) -> usize {
    index(offset / PAGE as u64)
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("a file in memory is smaller than memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_across_pages_and_shortens_at_the_end() {
        let mut content = Content::zeros(10_000);
        let data: Vec<u8> = (0..6_000u32).map(|n| n as u8).collect();
        content.write(3_000, &data);
        assert_eq!(content.read(3_000, 6_000), data);
        assert_eq!(content.read(2_990, 10), [0; 10]);
        assert_eq!(content.read(9_990, 100).len(), 10);
        assert_eq!(content.read(10_000, 1).len(), 0);
        assert_eq!(content.read(20_000, 1).len(), 0);
    }

    #[test]
    fn what_was_never_written_is_zero() {
        let mut content = Content::zeros(20_000);
        content.write(4_100, &[0, 1]);
        assert!(content.is_zero(0, 4_101));
        assert!(!content.is_zero(0, 4_102));
        assert!(content.is_zero(4_102, usize::MAX));
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut content = Content::zeros(8_192);
        content.write(0, &[7; 8_192]);
        content.resize(5_000);
        content.resize(8_192);
        assert_eq!(content.read(4_999, 2), [7, 0]);
        assert_eq!(content.read(8_191, 2), [0]);
    }

    #[test]
    fn a_copy_is_not_changed_by_writes_to_the_original() {
        let mut content = Content::zeros(4_096);
        let copy = content.clone();
        content.write(0, &[1; 512]);
        assert_eq!(copy.read(0, 512), [0; 512]);
    }
}
