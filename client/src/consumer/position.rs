//! Where reading a partition begins, and where it is.

use highwater_record::Offset;

/// Where to begin to read a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record there is.
    Earliest,
    /// Behind the last record there is.
    Latest,
    /// At this offset.
    Offset(Offset),
    /// At the first record whose timestamp, in milliseconds since the Unix epoch, is at least
    /// this; behind the last record if there is none.
    TimestampMs(i64),
}

/// Kafka's timestamps that mean a place rather than a time.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

impl StartAt {
    /// What ListOffsets must be asked, unless the offset is known.
    pub(crate) fn timestamp(self) -> Result<Offset, i64> {
        match self {
            Self::Earliest => Err(EARLIEST),
            Self::Latest => Err(LATEST),
            Self::TimestampMs(timestamp) => Err(timestamp.max(0)),
            Self::Offset(offset) => Ok(offset),
        }
    }
}
