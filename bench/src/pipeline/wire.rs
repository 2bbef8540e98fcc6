//! What the processes say to each other.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use highwater_record::{Buffer, crc32c};

use super::BLOCK_BYTES;

/// Behind a batch: its number and its checksum. In front of it they would keep it from the block
/// boundary at which the disk wants it.
pub(super) const TRAILER_BYTES: usize = 16;

/// A batch, as it came.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) number: u64,
    /// What goes to the disk.
    pub(super) data: Buffer,
    /// What goes to the followers.
    pub(super) frame: Buffer,
}

/// What stands behind a batch.
pub(super) fn trailer(number: u64, crc: u32) -> [u8; TRAILER_BYTES] {
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..8].copy_from_slice(&number.to_le_bytes());
    trailer[8..12].copy_from_slice(&crc.to_le_bytes());
    trailer
}

/// Takes a frame apart, and verifies it.
pub(super) fn batch(frame: Buffer) -> Result<Batch> {
    let number = number(&frame)?;
    let (data, trailer) = frame.split_at(frame.len() - TRAILER_BYTES);
    let crc = trailer[8..].first_chunk().context("a checksum")?;
    ensure!(
        crc32c(data) == u32::from_le_bytes(*crc),
        "batch {number} has another checksum than when it was sent"
    );
    Ok(Batch {
        number,
        data: frame.slice(..data.len()),
        frame,
    })
}

/// The number of the batch in a frame, which is not verified.
pub(super) fn number(frame: &[u8]) -> Result<u64> {
    let len = frame.len().checked_sub(TRAILER_BYTES);
    let len = len.filter(|len| len % BLOCK_BYTES == 0);
    let len = len.with_context(|| format!("a frame of {} bytes is no batch", frame.len()))?;
    let number = frame[len..].first_chunk().context("a number")?;
    Ok(u64::from_le_bytes(*number))
}

/// Says that a batch is durable.
pub(super) fn acknowledgement(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

/// Which batch is durable.
pub(super) fn acknowledged(frame: &[u8]) -> Result<u64> {
    let number = <[u8; 8]>::try_from(frame);
    Ok(u64::from_le_bytes(
        number.context("an acknowledgement is a number")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u64) -> Vec<u8> {
        let mut frame = vec![7; BLOCK_BYTES];
        let crc = crc32c(&frame);
        frame.extend_from_slice(&trailer(number, crc));
        frame
    }

    #[test]
    fn a_batch_is_what_was_sent_and_nothing_else_is_one() {
        let batch = batch(Buffer::from(frame(9))).unwrap();
        assert_eq!((batch.number, batch.data.len()), (9, BLOCK_BYTES));
        let mut garbled = frame(9);
        garbled[17] ^= 1;
        assert_eq!(number(&garbled).unwrap(), 9);
        assert!(number(&garbled[1..]).is_err());
        assert!(super::batch(Buffer::from(garbled)).is_err());
        assert!(super::batch(Buffer::from(frame(9)[1..].to_vec())).is_err());
        assert!(super::batch(Buffer::from(vec![0; 3])).is_err());
    }

    #[test]
    fn an_acknowledgement_names_its_batch() {
        assert_eq!(acknowledged(&acknowledgement(u64::MAX)).unwrap(), u64::MAX);
        assert!(acknowledged(&[1, 2]).is_err());
    }
}
