//! CRC-32C (Castagnoli, RFC 3720 appendix B.4): what guards Kafka's batches and our frames'
//! bodies.

use crc_fast::CrcAlgorithm::Crc32Iscsi;

/// The CRC-32C of `bytes`.
///
/// ```
/// assert_eq!(highwater_record::crc32c(b"123456789"), 0xe306_9283);
/// ```
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The CRC-32C of two pieces in a row, from `front`, that of the first, and `back`, that of the
/// second, which is `back_len` bytes long. The bytes themselves are not needed.
///
/// ```
/// use highwater_record::{crc32c, crc32c_combine};
///
/// let whole = crc32c_combine(crc32c(b"12345"), crc32c(b"6789"), 4);
/// assert_eq!(whole, crc32c(b"123456789"));
/// ```
#[must_use]
pub fn crc32c_combine(front: u32, back: u32, back_len: u64) -> u32 {
    let crc = crc_fast::checksum_combine(Crc32Iscsi, front.into(), back.into(), back_len);
    u32::try_from(crc).expect("a CRC-32 has 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
    }

    #[test]
    fn combining_equals_one_pass_at_every_split() {
        let mut rng = fastrand::Rng::with_seed(1);
        let bytes: Vec<u8> = (0..4096).map(|_| rng.u8(..)).collect();
        for split in [0, 1, 20, 21, 61, 1000, 4095, 4096] {
            let (front, back) = bytes.split_at(split);
            let len = u64::try_from(back.len()).expect("a small number");
            let combined = crc32c_combine(crc32c(front), crc32c(back), len);
            assert_eq!(combined, crc32c(&bytes), "split at {split}");
        }
    }
}
