//! Zigzag varints, as records write their lengths and deltas (Protocol Buffers' `sint32` and
//! `sint64`; Kafka's `ByteUtils`).

/// The most bytes that a 32-bit varint takes.
pub(crate) const VARINT_BYTES_MAX: usize = 5;

/// The most bytes that a 64-bit varint takes.
pub(crate) const VARLONG_BYTES_MAX: usize = 10;

/// Takes a 64-bit varint off the front of `bytes`; nothing if it does not end within
/// [`VARLONG_BYTES_MAX`] bytes or has more than 64 bits.
///
/// Longer forms than needed are accepted, as Kafka does.
#[inline]
pub(crate) fn take_varlong(bytes: &mut &[u8]) -> Option<i64> {
    take(bytes, VARLONG_BYTES_MAX, 1)
}

/// Takes a 32-bit varint off the front of `bytes`; nothing if it does not end within
/// [`VARINT_BYTES_MAX`] bytes or has more than 32 bits.
#[inline]
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<i32> {
    let value = take(bytes, VARINT_BYTES_MAX, 0x0f)?;
    i32::try_from(value).ok()
}

/// Takes a varint of at most `bytes_max` bytes, of which a last one is at most `last_max`.
#[inline]
fn take(bytes: &mut &[u8], bytes_max: usize, last_max: u8) -> Option<i64> {
    // Nearly all are small: null, short lengths, deltas within a batch.
    match **bytes {
        [first, ref rest @ ..] if first < 0x80 => {
            *bytes = rest;
            Some(unzigzag(first.into()))
        }
        [first, second, ref rest @ ..] if second < 0x80 => {
            *bytes = rest;
            Some(unzigzag(u64::from(first & 0x7f) | u64::from(second) << 7))
        }
        _ => take_long(bytes, bytes_max, last_max),
    }
}

fn take_long(bytes: &mut &[u8], bytes_max: usize, last_max: u8) -> Option<i64> {
    let mut value = 0_u64;
    for (place, &byte) in bytes.iter().enumerate().take(bytes_max) {
        if place == bytes_max - 1 && byte > last_max {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            *bytes = &bytes[place + 1..];
            return Some(unzigzag(value));
        }
    }
    None
}

/// Appends `value`.
pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

/// Appends `value`; a 32-bit varint is the 64-bit one of the same number.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_varlong(out, value.into());
}

/// How many bytes [`put_varlong`] appends.
pub(crate) fn varlong_len(value: i64) -> usize {
    let bits = 64 - zigzag(value).leading_zeros();
    usize::try_from(bits.div_ceil(7).max(1)).expect("at most ten")
}

/// How many bytes [`put_varint`] appends.
pub(crate) fn varint_len(value: i32) -> usize {
    varlong_len(value.into())
}

fn zigzag(value: i64) -> u64 {
    (value << 1).cast_unsigned() ^ (value >> 63).cast_unsigned()
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        put_varlong(&mut out, value);
        out
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(-1), [1]);
        assert_eq!(encoded(1), [2]);
        assert_eq!(encoded(63), [0x7e]);
        assert_eq!(encoded(64), [0x80, 1]);
        assert_eq!(encoded(300), [0xd8, 4]);
        let smallest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(encoded(i64::MIN), smallest);
    }

    #[test]
    fn every_power_of_two_and_its_neighbours_come_back() {
        for shift in 0..64 {
            for near in [-1_i64, 0, 1] {
                for value in [
                    (1_i64 << shift).wrapping_add(near),
                    near.wrapping_sub(1 << shift),
                ] {
                    let bytes = encoded(value);
                    assert_eq!(bytes.len(), varlong_len(value));
                    let mut rest = &bytes[..];
                    assert_eq!(take_varlong(&mut rest), Some(value));
                    assert!(rest.is_empty());
                    let narrow = take_varint(&mut &bytes[..]);
                    assert_eq!(narrow, i32::try_from(value).ok());
                }
            }
        }
    }

    #[test]
    fn unended_and_too_wide_ones_are_nothing() {
        let check = |bytes: &[u8], narrow: Option<i32>, wide: Option<i64>| {
            assert_eq!(take_varint(&mut &bytes[..]), narrow, "{bytes:x?}");
            assert_eq!(take_varlong(&mut &bytes[..]), wide, "{bytes:x?}");
        };
        check(&[], None, None);
        check(&[0x80], None, None);
        check(&[0x80; 20], None, None);
        check(&[0x80, 0x80, 0x80, 0x80, 0x00], Some(0), Some(0));
        check(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], None, Some(0));
        check(
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            Some(i32::MIN),
            Some(i32::MIN.into()),
        );
        check(&[0xff, 0xff, 0xff, 0xff, 0x1f], None, Some(-(1 << 32)));
        let mut wide = [0xff; 10];
        wide[9] = 2;
        check(&wide, None, None);
    }
}
