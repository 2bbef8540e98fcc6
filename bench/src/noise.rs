//! Values that no codec and no disk can make smaller.

use bytes::Bytes;

/// The bytes that values are cut from.
const NOISE_BYTES: usize = 4 << 20;

/// The largest value, in bytes.
pub const RECORD_BYTES_MAX: usize = NOISE_BYTES / 2;

/// Random bytes.
#[derive(Debug, Clone)]
pub(crate) struct Noise(Bytes);

impl Noise {
    pub(crate) fn new(seed: u64) -> Noise {
        let mut noise = vec![0; NOISE_BYTES];
        fastrand::Rng::with_seed(seed).fill(&mut noise);
        Noise(Bytes::from(noise))
    }

    /// The value of the record of this number; at most [`RECORD_BYTES_MAX`] bytes.
    pub(crate) fn value(&self, number: u64, len: usize) -> Bytes {
        // One behind the other, as an application's would lie in the processor's cache: values from
        // all over the place cost more to fetch than to send.
        let stride = u64::try_from(len + 1).unwrap_or(1);
        let room = u64::try_from(NOISE_BYTES - len).unwrap_or(1);
        let at = number.wrapping_mul(stride) % room;
        let at = usize::try_from(at).unwrap_or(0);
        self.0.slice(at..at + len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_length_and_are_not_alike() {
        let noise = Noise::new(1);
        let (first, second) = (noise.value(0, 1_024), noise.value(1, 1_024));
        assert_eq!((first.len(), second.len()), (1_024, 1_024));
        assert_ne!(first, second);
        assert_eq!(
            noise.value(u64::MAX, RECORD_BYTES_MAX).len(),
            RECORD_BYTES_MAX
        );
    }
}
