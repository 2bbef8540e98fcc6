//! CRC-32C (Castagnoli, RFC 3720 appendix B.4): what guards Kafka's batches and our frames'
//! bodies.

/// The Castagnoli polynomial without its leading term, bits reflected: the highest bit is x^0.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x^0.
const ONE: u32 = 1 << 31;

/// x^(8 * d * 256^n) modulo the polynomial, for every digit d of every byte n of a length.
static POWERS: [[u32; 256]; 8] = powers();

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
    multiply(power_of_bytes(back_len), front) ^ back
}

/// How many bytes of a buffer are summed at once while they are filled: few enough to be in the
/// processor's cache still, enough that putting their sums together is nothing beside.
pub(crate) const PIECE_BYTES: usize = 32 << 10;

/// x^(8 * `PIECE_BYTES`): moves a CRC over a piece.
const OVER_A_PIECE: u32 = {
    let (mut power, mut bytes) = (ONE >> 8, 1);
    while bytes < PIECE_BYTES {
        power = multiply(power, power);
        bytes *= 2;
    }
    power
};

/// The CRC-32C of `bytes`, which begin `at` bytes behind where the first piece does, of those
/// whose `sums` are known. Only what lies in no such piece is read.
pub(crate) fn crc32c_of_pieces(bytes: &[u8], at: usize, sums: &[u32]) -> u32 {
    let first = at.div_ceil(PIECE_BYTES);
    let known = ((at + bytes.len()) / PIECE_BYTES).min(sums.len());
    if first >= known {
        return crc32c(bytes);
    }
    let (front, rest) = bytes.split_at(first * PIECE_BYTES - at);
    let back = &rest[(known - first) * PIECE_BYTES..];
    let pieces = sums[first..known].iter();
    let crc = pieces.fold(crc32c(front), |crc, sum| multiply(OVER_A_PIECE, crc) ^ sum);
    let back_len = u64::try_from(back.len()).expect("a slice's length fits 64 bits");
    crc32c_combine(crc, crc32c(back), back_len)
}

/// x^(8 * `count`) modulo the polynomial: multiplied by it, a CRC moves over `count` zero bytes.
///
/// A product per byte of `count` that is not 0. `crc_fast::checksum_combine` squares matrices
/// instead, and takes as long as the CRC of a megabyte.
fn power_of_bytes(count: u64) -> u32 {
    let digits = count.to_le_bytes().into_iter().zip(&POWERS);
    let digits = digits.filter(|(digit, _)| *digit != 0);
    digits.fold(ONE, |product, (digit, powers)| {
        multiply(powers[usize::from(digit)], product)
    })
}

/// The product of two polynomials, modulo the polynomial, bits reflected.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = ONE;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        let carry = b & 1;
        b = (b >> 1) ^ (POLYNOMIAL & carry.wrapping_neg());
        bit >>= 1;
    }
    product
}

const fn powers() -> [[u32; 256]; 8] {
    let mut powers = [[ONE; 256]; 8];
    // A byte is x^8.
    let mut step = ONE >> 8;
    let mut n = 0;
    while n < powers.len() {
        let mut digit = 1;
        while digit < 256 {
            powers[n][digit] = multiply(powers[n][digit - 1], step);
            digit += 1;
        }
        step = multiply(powers[n][255], step);
        n += 1;
    }
    powers
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

    /// Lengths that no test could allocate, against the library's own way.
    #[test]
    fn combining_agrees_with_the_library() {
        let mut rng = fastrand::Rng::with_seed(2);
        for bits in 0..64 {
            let len = (rng.u64(..) | 1 << 63) >> (63 - bits);
            let (front, back) = (rng.u32(..), rng.u32(..));
            let library = crc_fast::checksum_combine(
                crc_fast::CrcAlgorithm::Crc32Iscsi,
                front.into(),
                back.into(),
                len,
            );
            let own = crc32c_combine(front, back, len);
            assert_eq!(u64::from(own), library, "{front:#x}, {back:#x}, {len}");
        }
    }
}
