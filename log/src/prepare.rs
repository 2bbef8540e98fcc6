//! Files are made ahead of need, in `prepare/`, and renamed into their group's directory once
//! they are durable with their identity (docs/format.md).
//!
//! Where files come from stands behind [`FileSource`], so that files that retention frees can
//! be recycled later without a change here.

use std::time::Duration;

use crate::config::{SEGMENT_BYTES_MIN, SEGMENT_GROWTH};
use crate::format::identity::FileIdentity;
use crate::storage::{FileId, Preparation};

/// A write rate above which a group's next file is preallocated instead of zeroed: its large
/// writes carry the cost that zeroing, which writes each byte twice, would double.
const BUSY_BYTES_PER_SECOND: u64 = 64 << 20;

/// How long to wait before a file is asked for again that there was no room for.
pub(crate) const NO_SPACE_RETRY: Duration = Duration::from_millis(500);

/// How long it is not said again that the disk is full.
pub(crate) const FULL_SAID_INTERVAL: Duration = Duration::from_secs(60);

/// What is wanted of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Its size in bytes.
    pub size: u64,
    /// How fast the group filled its last file, in bytes per second; nothing if it has filled
    /// none in this life.
    pub fill_rate: Option<u64>,
}

/// Where a new file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// It is made, with its blocks readied this way.
    Fresh(Preparation),
}

/// Decides where new files come from.
pub trait FileSource: std::fmt::Debug {
    /// Where the next file comes from.
    fn source(&mut self, want: &Want) -> Source;
}

/// Makes every file anew: zeroed ahead of need, or preallocated for groups that write much
/// (DESIGN.md section 4, Preparation).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FreshFiles;

impl FileSource for FreshFiles {
    fn source(&mut self, want: &Want) -> Source {
        let busy = want
            .fill_rate
            .is_some_and(|rate| rate >= BUSY_BYTES_PER_SECOND);
        Source::Fresh(if busy {
            Preparation::Preallocate
        } else {
            Preparation::Zero
        })
    }
}

/// A file that is ready to be begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prepared {
    pub(crate) file: FileId,
    pub(crate) identity: FileIdentity,
}

impl Prepared {
    /// How many bytes of frames it has room for.
    pub(crate) fn room(&self) -> u64 {
        self.identity.size - u64::from(self.identity.first_frame)
    }
}

/// How far a group's next file is.
#[derive(Debug)]
pub(crate) enum Preparing {
    /// Nobody has asked for it.
    Idle,
    /// It is being made.
    Making(FileIdentity),
    /// There was no room; to be tried again.
    NoSpace(Duration),
    /// It waits to be begun.
    Ready(Prepared),
}

impl Preparing {
    /// Whether a file may be asked for now that nobody has asked for yet.
    pub(crate) fn can_start(&self, now: Duration) -> bool {
        match self {
            Preparing::Idle => true,
            Preparing::NoSpace(retry_at) => now >= *retry_at,
            Preparing::Making(_) | Preparing::Ready(_) => false,
        }
    }

    pub(crate) const fn ready(&self) -> Option<&Prepared> {
        match self {
            Preparing::Ready(prepared) => Some(prepared),
            Preparing::Idle | Preparing::Making(_) | Preparing::NoSpace(_) => None,
        }
    }

    pub(crate) fn take(&mut self) -> Option<Prepared> {
        let prepared = *self.ready()?;
        *self = Preparing::Idle;
        Some(prepared)
    }
}

/// How large the next file is to be: eight times the last if that was at least half filled, up
/// to `segment_bytes`; as large as the last otherwise, so that restarts do not grow a quiet
/// group's files; in any case large enough for what must go into it.
pub(crate) fn next_size(
    last: Option<(u64, u64)>,
    segment_bytes: u64,
    first_frame: u64,
    must_hold: u64,
    align: u64,
) -> u64 {
    let grown = match last {
        None => SEGMENT_BYTES_MIN,
        Some((len, written)) if written >= len / 2 => len.saturating_mul(SEGMENT_GROWTH),
        Some((len, _)) => len,
    };
    let wanted = grown.clamp(SEGMENT_BYTES_MIN, segment_bytes.max(SEGMENT_BYTES_MIN));
    wanted.max(first_frame + must_hold).next_multiple_of(align)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_grow_eightfold_up_to_their_limit() {
        let size = |last| next_size(last, 1 << 20, 4096, 100, 4096);
        assert_eq!(size(None), 64 << 10);
        assert_eq!(size(Some((64 << 10, 60 << 10))), 512 << 10);
        assert_eq!(size(Some((512 << 10, 512 << 10))), 1 << 20);
        assert_eq!(size(Some((512 << 10, 10))), 512 << 10, "hardly used");
        assert_eq!(next_size(None, 1, 4096, 100, 4096), 64 << 10);
    }

    #[test]
    fn a_file_holds_what_must_go_into_it() {
        let size = next_size(None, 1 << 20, 4096, 9_000_001, 4096);
        assert!(size >= 9_004_097 && size.is_multiple_of(4096));
    }

    #[test]
    fn busy_groups_get_preallocated_files() {
        let source = |fill_rate| {
            FreshFiles.source(&Want {
                size: 1 << 20,
                fill_rate,
            })
        };
        assert_eq!(source(None), Source::Fresh(Preparation::Zero));
        assert_eq!(source(Some(1 << 20)), Source::Fresh(Preparation::Zero));
        let preallocated = Source::Fresh(Preparation::Preallocate);
        assert_eq!(source(Some(64 << 20)), preallocated);
    }
}
