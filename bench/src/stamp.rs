//! What a value begins with, where it is to be known again when it is read.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// What a value begins with: the number of the run, and when the record was to be sent, in
/// nanoseconds since the run began. Big endian.
pub const STAMP_BYTES: usize = 16;

/// The stamps of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamps {
    run: u64,
    start: Instant,
}

impl Stamps {
    /// Those of a run of this process that begins then.
    pub(crate) fn new(seed: u64, start: Instant) -> Stamps {
        let run = fastrand::Rng::with_seed(seed ^ u64::from(std::process::id())).u64(..);
        Stamps { run, start }
    }

    /// A value that says when it was to be sent; of at least [`STAMP_BYTES`].
    pub(crate) fn put(&self, intended: Instant, noise: &[u8]) -> Bytes {
        let nanos = (intended - self.start).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        let mut value = noise.to_vec();
        value[..8].copy_from_slice(&self.run.to_be_bytes());
        value[8..STAMP_BYTES].copy_from_slice(&nanos.to_be_bytes());
        Bytes::from(value)
    }

    /// When a record of this run was to be sent; none of another's.
    pub(crate) fn read(&self, value: Option<&Bytes>) -> Option<Instant> {
        let (of, nanos) = value?.first_chunk::<STAMP_BYTES>()?.split_first_chunk()?;
        let is_ours = u64::from_be_bytes(*of) == self.run;
        let nanos = u64::from_be_bytes(nanos.try_into().ok()?);
        is_ours.then(|| self.start.checked_add(Duration::from_nanos(nanos)))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_when_it_was_to_be_sent_to_its_own_run_only() {
        let start = Instant::now();
        let (ours, others) = (Stamps::new(7, start), Stamps::new(8, start));
        let intended = start + Duration::from_micros(1_500);
        let value = ours.put(intended, &[0xA5; 20]);
        assert_eq!(value.len(), 20);
        assert_eq!(ours.read(Some(&value)), Some(intended));
        assert_eq!(others.read(Some(&value)), None);
        assert_eq!(ours.read(Some(&value.slice(..15))), None);
        assert_eq!(ours.read(None), None);
    }
}
