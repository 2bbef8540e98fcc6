//! Files are made ahead of need, in `prepare/`, and renamed into their group's directory once
//! they are durable with their identity (docs/format.md).
//!
//! Where files come from stands behind [`FileSource`]: made anew, or recycled from files that
//! nobody needs any more. A synced write over blocks that were written before costs the file
//! system no metadata, and nothing has to be zeroed for that (LIMITS.md A1); nor has the device
//! to discard what retention frees.

use std::time::Duration;

use crate::config::{SEGMENT_BYTES_MIN, SEGMENT_GROWTH};
use crate::format::identity::FileIdentity;
use crate::ids::{GroupId, Sequence};
use crate::paths;
use crate::storage::{FileId, Preparation};

/// How much all groups of a store write, in bytes a second, before zeroing, which writes each byte
/// twice, takes from the disk what they need.
const BUSY_BYTES_PER_SECOND: u64 = 64 << 20;

/// How large a write is, in bytes, when zeroing its blocks ahead takes the disk about as long as the
/// file system's journal takes over blocks that were never written: some 100 µs, whatever the size
/// (LIMITS.md A1).
const LARGE_WRITE_BYTES: u64 = 128 << 10;

/// How many files are made at once when those that are wanted wait for one another, and none is
/// zeroed.
const MAKING_MANY: usize = 16;

/// How long to wait before a file is asked for again that there was no room for.
pub(crate) const NO_SPACE_RETRY: Duration = Duration::from_millis(500);

/// How long it is not said again that the disk is full.
pub(crate) const FULL_SAID_INTERVAL: Duration = Duration::from_secs(60);

/// What is wanted of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Its size in bytes, if it is made anew.
    pub size: u64,
    /// How large it must be at least, in bytes.
    pub least: u64,
    /// How large it may be at most, in bytes.
    pub most: u64,
    /// The mean size of the group's writes into its last file, in bytes; nothing if it has left
    /// none in this life.
    pub write_bytes: Option<u64>,
    /// How much all groups of the store have written lately, in bytes a second.
    pub store_rate: u64,
    /// How many other files of the store are being made, or wait to be zeroed.
    pub making: usize,
}

/// Where a new file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// It is made, with its blocks readied this way.
    Fresh(Preparation),
    /// It was another file before.
    Recycled(Spare),
}

/// A file that nobody needs, maps or reads any more. It lies in `prepare/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spare {
    /// Which group it was of.
    pub group: GroupId,
    /// Which of the group's files it was.
    pub sequence: Sequence,
    /// How long it is at least, in bytes.
    pub len: u64,
}

impl Spare {
    pub(crate) fn path(&self) -> String {
        paths::spare(self.group, self.sequence)
    }
}

/// Decides where new files come from, and which old ones are kept for that.
pub trait FileSource: std::fmt::Debug {
    /// Where the next file comes from.
    fn source(&mut self, want: &Want) -> Source;

    /// Whether a file of this length would be kept.
    fn wants(&self, len: u64) -> bool;

    /// Keeps a file. Gives those that are to be unlinked for it, which may be itself.
    fn keep(&mut self, spare: Spare) -> Vec<Spare>;

    /// Bytes of the files that are kept.
    fn kept_bytes(&self) -> u64;

    /// Gives all files that are kept, to be unlinked: the disk is full.
    fn give_up(&mut self) -> Vec<Spare>;
}

/// Makes every file anew: zeroed while the one before it is written, or, while the disk is busy,
/// preallocated for groups whose writes are large, and while many are made at once (DESIGN.md
/// section 4, Preparation).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FreshFiles;

impl FileSource for FreshFiles {
    fn source(&mut self, want: &Want) -> Source {
        let large = want
            .write_bytes
            .is_some_and(|bytes| bytes >= LARGE_WRITE_BYTES);
        let busy = want.store_rate >= BUSY_BYTES_PER_SECOND;
        let many = want.making >= MAKING_MANY;
        Source::Fresh(if many || (large && busy) {
            Preparation::Preallocate
        } else {
            Preparation::Zero
        })
    }

    fn wants(&self, _len: u64) -> bool {
        false
    }

    fn keep(&mut self, spare: Spare) -> Vec<Spare> {
        vec![spare]
    }

    fn kept_bytes(&self) -> u64 {
        0
    }

    fn give_up(&mut self) -> Vec<Spare> {
        Vec::new()
    }
}

/// Files that are kept at most. More of them are small ones, which are made anew as fast.
const SPARES_MAX: usize = 64;

/// Makes new files of old ones of about the size that is wanted, and others anew as
/// [`FreshFiles`] does. What it keeps is bounded in bytes and number; if there is too much, the
/// smallest files go first.
#[derive(Debug, Clone)]
pub struct RecycledFiles {
    /// Ascending by length.
    spares: Vec<Spare>,
    bytes: u64,
    bytes_max: u64,
}

impl RecycledFiles {
    /// Keeps at most so many bytes.
    #[must_use]
    pub const fn new(bytes_max: u64) -> RecycledFiles {
        RecycledFiles {
            spares: Vec::new(),
            bytes: 0,
            bytes_max,
        }
    }

    fn take(&mut self, at: usize) -> Spare {
        let spare = self.spares.remove(at);
        self.bytes -= spare.len;
        spare
    }

    /// How many of the smallest files have to go for one of this length; nothing if it is none of
    /// the larger ones itself.
    fn to_go_for(&self, len: u64) -> Option<usize> {
        if len > self.bytes_max {
            return None;
        }
        let (mut bytes, mut count) = (self.bytes, self.spares.len());
        let fits =
            |bytes: u64, count| bytes.saturating_add(len) <= self.bytes_max && count < SPARES_MAX;
        let smaller = self.spares.iter().take_while(|spare| spare.len < len);
        let mut gone = 0;
        for spare in smaller {
            if fits(bytes, count) {
                break;
            }
            (bytes, count, gone) = (bytes - spare.len, count - 1, gone + 1);
        }
        fits(bytes, count).then_some(gone)
    }
}

impl FileSource for RecycledFiles {
    /// The smallest of those that are not much smaller than wanted, nor larger than the next one may
    /// be: they are there, used or not.
    fn source(&mut self, want: &Want) -> Source {
        let least = want.least.max(want.size / 2);
        let most = want
            .size
            .max(want.most.min(want.size.saturating_mul(SEGMENT_GROWTH)));
        let at = self.spares.partition_point(|spare| spare.len < least);
        match self.spares.get(at) {
            Some(spare) if spare.len <= most => Source::Recycled(self.take(at)),
            _ => FreshFiles.source(want),
        }
    }

    fn wants(&self, len: u64) -> bool {
        self.to_go_for(len).is_some()
    }

    fn keep(&mut self, spare: Spare) -> Vec<Spare> {
        let Some(gone) = self.to_go_for(spare.len) else {
            return vec![spare];
        };
        let gone = (0..gone).map(|_| self.take(0)).collect();
        let at = self.spares.partition_point(|other| other.len < spare.len);
        self.spares.insert(at, spare);
        self.bytes += spare.len;
        gone
    }

    fn kept_bytes(&self) -> u64 {
        self.bytes
    }

    fn give_up(&mut self) -> Vec<Spare> {
        self.bytes = 0;
        std::mem::take(&mut self.spares)
    }
}

/// How much was written lately.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rate {
    /// Since when it is counted.
    since: Duration,
    bytes: u64,
    /// Of the time before, in bytes a second.
    before: u64,
}

impl Rate {
    /// How long is counted.
    const WINDOW: Duration = Duration::from_secs(1);

    pub(crate) fn add(&mut self, now: Duration, bytes: u64) {
        let counted = now.saturating_sub(self.since);
        if counted >= Self::WINDOW {
            *self = Self {
                since: now,
                bytes: 0,
                before: self.over(counted),
            };
        }
        self.bytes += bytes;
    }

    /// In bytes a second.
    pub(crate) fn at(&self, now: Duration) -> u64 {
        let counted = now.saturating_sub(self.since);
        if counted < Self::WINDOW {
            self.before
        } else {
            self.over(counted)
        }
    }

    fn over(&self, counted: Duration) -> u64 {
        let micros = counted.as_micros().max(1);
        let rate = u128::from(self.bytes) * 1_000_000 / micros;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

/// How much of a file is zeroed at once, in bytes: nothing is written to it meanwhile.
const ZEROED_AT_ONCE: u64 = 1 << 20;

/// The next file is asked for when this part of the one before it is written.
pub(crate) const ASKED_AHEAD: u64 = 4;

/// The next file is to be zeroed when this part of the one before it is left.
const ZEROED_AHEAD: u64 = 8;

/// How many bytes of the next file are zeroed at most for each that is written to the one before
/// it. A file that is much larger than that one stays unzeroed behind: a write there costs the file
/// system more, but a disk that is not fast enough for zeros has no time for anything else.
const ZEROED_FOR_EACH: u64 = 2;

/// A file that is ready to be begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prepared {
    pub(crate) file: FileId,
    pub(crate) identity: FileIdentity,
    /// Up to where it is zeroed, or needs not be.
    pub(crate) zeroed: u64,
    pub(crate) zeroing: Zeroing,
}

/// Whether a file is being zeroed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zeroing {
    /// It is not.
    No,
    /// It waits for others.
    Waits,
    /// The next piece of it is.
    UnderWay,
}

impl Prepared {
    pub(crate) fn new(file: FileId, making: &Making) -> Prepared {
        let identity = making.identity;
        let zeroed = match making.is_zeroed_later() {
            true => u64::from(identity.first_frame),
            false => identity.size,
        };
        Prepared {
            file,
            identity,
            zeroed,
            zeroing: Zeroing::No,
        }
    }

    /// Not while it is zeroed: the disk may do either last.
    pub(crate) fn may_be_written(&self) -> bool {
        self.zeroing != Zeroing::UnderWay || mutant!(BegunAmidZeros)
    }

    /// Whether more of it is to be zeroed by now: as much as is written of the file before it,
    /// between when this was asked for and shortly before it is needed. So zeros come as fast as
    /// the group writes, never all at once, and nobody waits for them.
    pub(crate) fn wants_zeros(&self, before_len: u64, before_written: u64) -> bool {
        let asked_at = before_len / ASKED_AHEAD;
        let all_at = before_len - before_len / ZEROED_AHEAD;
        let written = before_written.saturating_sub(asked_at);
        let part = u128::from(written) * u128::from(self.identity.size);
        let part = part / u128::from((all_at - asked_at).max(1));
        let due = part.min(u128::from(written * ZEROED_FOR_EACH));
        let left = self.zeroed < self.identity.size;
        left && u128::from(self.zeroed) < due && self.zeroing == Zeroing::No
    }

    /// The next piece that is to be zeroed: where, and how long.
    pub(crate) fn next_zeros(&self) -> (u64, u64) {
        (
            self.zeroed,
            ZEROED_AT_ONCE.min(self.identity.size - self.zeroed),
        )
    }

    /// How many bytes of frames it has room for.
    pub(crate) fn room(&self) -> u64 {
        self.identity.size - u64::from(self.identity.first_frame)
    }
}

/// A file in the making.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Making {
    pub(crate) identity: FileIdentity,
    pub(crate) source: Source,
    /// Whether it is made ahead of need.
    pub(crate) ahead: bool,
    /// The file that is recycled, while it is open under its old name.
    pub(crate) spare_file: Option<FileId>,
}

impl Making {
    /// Whether it is zeroed piece by piece, while the file before it is written. What is waited for
    /// is zeroed as it is made, if it is small.
    pub(crate) fn is_zeroed_later(&self) -> bool {
        let zeroed = self.source == Source::Fresh(Preparation::Zero);
        zeroed && (self.ahead || self.identity.size > ZEROED_AT_ONCE)
    }
}

/// How far a group's next file is.
#[derive(Debug)]
pub(crate) enum Preparing {
    /// Nobody has asked for it.
    Idle,
    /// It is being made.
    Making(Making),
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

    pub(crate) const fn ready_mut(&mut self) -> Option<&mut Prepared> {
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

/// How long a file lasts at least that is more than twice as large as the one before it, at the rate
/// at which that was filled: thousands of groups that write a little each would have a disk full of
/// room else.
const FILLED_IN: Duration = Duration::from_secs(30);

/// How often what must go into a file fits into it at least: what follows is as large.
const HOLDS_AT_LEAST: u64 = 4;

/// The largest file that a group begins a life with, in bytes.
const FIRST_OF_LIFE_BYTES: u64 = SEGMENT_BYTES_MIN * SEGMENT_GROWTH;

/// The file before the one that is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    /// Its length in bytes.
    pub(crate) len: u64,
    /// How much of it is written.
    pub(crate) written: u64,
    /// For how long it has been written, if it still is.
    pub(crate) age: Option<Duration>,
}

impl Before {
    /// How large the next one is to be: as large again if hardly any of this was used, else twice as
    /// large, or up to eight times if so much is written in [`FILLED_IN`]. A life begins with small
    /// files, since all groups begin one at once.
    fn next(&self) -> u64 {
        let Some(age) = self.age else {
            return self.len.min(FIRST_OF_LIFE_BYTES);
        };
        if self.written < self.len / ASKED_AHEAD / 2 {
            return self.len;
        }
        let grown = self.len.saturating_mul(SEGMENT_GROWTH);
        let millis = age.as_millis().max(1);
        let needed = u128::from(self.written) * FILLED_IN.as_millis() / millis;
        let needed = u64::try_from(needed).unwrap_or(u64::MAX);
        grown.min(needed.max(self.len.saturating_mul(2)))
    }
}

/// How large the next file is to be, up to `segment_bytes`: large enough for what must go into it,
/// in any case, and for some more of that kind.
pub(crate) fn next_size(
    before: Option<Before>,
    segment_bytes: u64,
    first_frame: u64,
    must_hold: u64,
    align: u64,
) -> u64 {
    let grown = before.map_or(SEGMENT_BYTES_MIN, |before| before.next());
    let grown = grown.max(first_frame + must_hold.saturating_mul(HOLDS_AT_LEAST));
    let wanted = grown.clamp(SEGMENT_BYTES_MIN, segment_bytes.max(SEGMENT_BYTES_MIN));
    wanted.max(first_frame + must_hold).next_multiple_of(align)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, Incarnation};

    const KIB: u64 = 1 << 10;

    fn size_after(len: u64, written: u64, age: Option<u64>) -> u64 {
        let age = age.map(Duration::from_millis);
        let before = Before { len, written, age };
        next_size(Some(before), KIB << 10, 4096, 100, 4096)
    }

    #[test]
    fn files_grow_eightfold_up_to_their_limit() {
        assert_eq!(next_size(None, KIB << 10, 4096, 100, 4096), 64 * KIB);
        assert_eq!(next_size(None, 1, 4096, 100, 4096), 64 * KIB);
        assert_eq!(size_after(64 * KIB, 60 * KIB, Some(1)), 512 * KIB);
        assert_eq!(size_after(512 * KIB, 512 * KIB, Some(1)), KIB << 10);
        assert_eq!(size_after(512 * KIB, 10, Some(1)), 512 * KIB, "hardly used");
    }

    #[test]
    fn a_life_begins_with_small_files() {
        assert_eq!(size_after(64 * KIB, 60 * KIB, None), 64 * KIB);
        assert_eq!(size_after(1 << 30, 1 << 30, None), 512 * KIB);
    }

    #[test]
    fn files_that_fill_slowly_grow_slowly() {
        assert_eq!(size_after(64 * KIB, 40 * KIB, Some(0)), 512 * KIB);
        assert_eq!(size_after(64 * KIB, 40 * KIB, Some(6_000)), 200 * KIB);
        assert_eq!(size_after(64 * KIB, 40 * KIB, Some(27_000)), 128 * KIB);
    }

    #[test]
    fn a_file_holds_what_must_go_into_it() {
        let size = next_size(None, 1 << 20, 4096, 9_000_001, 4096);
        assert!((9_004_097..9_010_000).contains(&size) && size.is_multiple_of(4096));
        let size = next_size(None, 128 << 20, 4096, 1 << 20, 4096);
        assert_eq!(size, 4096 + (4 << 20), "and as much again");
    }

    #[test]
    fn large_writes_to_a_busy_disk_get_preallocated_files() {
        let source = |write_bytes, store_rate| {
            FreshFiles.source(&Want {
                write_bytes,
                store_rate,
                ..want(MIB, 0, MIB)
            })
        };
        let zeroed = Source::Fresh(Preparation::Zero);
        assert_eq!(source(None, 1 << 30), zeroed);
        assert_eq!(source(Some(4096), 1 << 30), zeroed);
        assert_eq!(source(Some(1 << 20), 1 << 20), zeroed);
        let preallocated = Source::Fresh(Preparation::Preallocate);
        assert_eq!(source(Some(1 << 20), 64 << 20), preallocated);
        let among = |making| {
            FreshFiles.source(&Want {
                making,
                ..want(MIB, 0, MIB)
            })
        };
        assert_eq!(among(MAKING_MANY - 1), zeroed);
        assert_eq!(among(MAKING_MANY), preallocated);
    }

    const MIB: u64 = 1 << 20;

    const ZEROED: Source = Source::Fresh(Preparation::Zero);

    /// How far the next file is zeroed, by how much of the one before it is written.
    fn zeroed(source: Source, before_len: u64, size: u64) -> Vec<(u64, u64)> {
        let making = Making {
            identity: FileIdentity {
                first_frame: 4096,
                cluster: ClusterId([1; 16]),
                incarnation: Incarnation([1; 16]),
                group: GroupId(1),
                sequence: Sequence(2),
                salt: 3,
                size,
                recycled: false,
            },
            source,
            ahead: true,
            spare_file: None,
        };
        let mut next = Prepared::new(FileId(1), &making);
        let zeroed = |written| {
            while next.wants_zeros(before_len, written) {
                next.zeroed += next.next_zeros().1;
            }
            (written, next.zeroed)
        };
        let steps = 0..=before_len / (16 * KIB);
        steps.map(|step| step * 16 * KIB).map(zeroed).collect()
    }

    #[test]
    fn a_file_is_zeroed_as_fast_as_the_one_before_it_is_written() {
        for size in [60 * KIB, 32 * MIB, 64 * MIB, 1024 * MIB] {
            let of = zeroed(ZEROED, 64 * MIB, size);
            let at = |written| of[usize::try_from(written / (16 * KIB)).unwrap()].1;
            assert_eq!(at(16 * MIB), 4096, "{size}: it was not asked for before");
            for &(written, zeroed) in &of {
                let most = ZEROED_FOR_EACH * written.saturating_sub(16 * MIB) + ZEROED_AT_ONCE;
                assert!(zeroed <= most.max(4096), "{size}: {zeroed} at {written}");
            }
            let all = size.min(ZEROED_FOR_EACH * 40 * MIB);
            assert!(at(56 * MIB) >= all, "{size}: {} of {all}", at(56 * MIB));
            let half = at(36 * MIB);
            assert!(half <= size / 2 + 2 * ZEROED_AT_ONCE, "{size}: {half}");
        }
        let of = zeroed(ZEROED, 64 * KIB, 64 * KIB);
        assert_eq!(of.last(), Some(&(64 * KIB, 64 * KIB)));
    }

    #[test]
    fn what_is_preallocated_or_recycled_is_not_zeroed() {
        for source in [
            Source::Fresh(Preparation::Preallocate),
            Source::Recycled(spare(1, MIB)),
        ] {
            let mut of = zeroed(source, MIB, MIB).into_iter();
            assert!(of.all(|(_, zeroed)| zeroed == MIB), "{source:?}");
        }
    }

    fn spare(sequence: u64, len: u64) -> Spare {
        Spare {
            group: GroupId(1),
            sequence: Sequence(sequence),
            len,
        }
    }

    fn want(size: u64, least: u64, most: u64) -> Want {
        Want {
            size,
            least,
            most,
            write_bytes: None,
            store_rate: 0,
            making: 0,
        }
    }

    #[test]
    fn a_spare_of_about_the_size_is_recycled() {
        let mut files = RecycledFiles::new(1_000 * MIB);
        for (sequence, len) in [(1, 100 * MIB), (2, MIB), (3, 31 * MIB), (4, 30 * MIB)] {
            assert_eq!(files.keep(spare(sequence, len)), []);
        }
        assert_eq!(files.kept_bytes(), 162 * MIB);
        let zeroed = Source::Fresh(Preparation::Zero);
        assert_eq!(files.source(&want(3 * MIB, 0, 128 * MIB)), zeroed);
        let recycled = Source::Recycled(spare(4, 30 * MIB));
        assert_eq!(files.source(&want(32 * MIB, 0, 128 * MIB)), recycled);
        let recycled = Source::Recycled(spare(3, 31 * MIB));
        assert_eq!(files.source(&want(16 * MIB, MIB, 31 * MIB)), recycled);
        let too_large = files.source(&want(64 * MIB, 0, 64 * MIB));
        assert_eq!(too_large, zeroed, "100 MiB");
        assert_eq!(files.kept_bytes(), 101 * MIB);
        let recycled = Source::Recycled(spare(1, 100 * MIB));
        assert_eq!(files.source(&want(16 * MIB, 99 * MIB, 128 * MIB)), recycled);
        assert_eq!(files.give_up(), [spare(2, MIB)]);
        assert_eq!(files.kept_bytes(), 0);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_smallest_go_first() {
        let mut files = RecycledFiles::new(10 * MIB);
        for sequence in 1..=4 {
            assert!(files.wants(sequence * MIB));
            assert_eq!(files.keep(spare(sequence, sequence * MIB)), []);
        }
        assert!(!files.wants(MIB), "nothing smaller could go");
        assert_eq!(files.keep(spare(5, MIB)), [spare(5, MIB)]);
        assert_eq!(
            files.keep(spare(6, 4 * MIB)),
            [spare(1, MIB), spare(2, 2 * MIB), spare(3, 3 * MIB)]
        );
        assert!(!files.wants(11 * MIB), "larger than all");
        assert_eq!(files.kept_bytes(), 8 * MIB);
        let mut files = RecycledFiles::new(u64::MAX);
        for sequence in 0..SPARES_MAX as u64 {
            assert_eq!(files.keep(spare(sequence, sequence + 2)), []);
        }
        assert!(!files.wants(2), "as small as the smallest");
        assert_eq!(files.keep(spare(99, 3)), [spare(0, 2)]);
    }

    #[test]
    fn a_source_of_nothing_keeps_nothing() {
        for mut files in [
            Box::new(FreshFiles) as Box<dyn FileSource>,
            Box::new(RecycledFiles::new(0)),
        ] {
            assert!(!files.wants(1));
            assert_eq!(files.keep(spare(1, 1)), [spare(1, 1)]);
            assert_eq!(files.give_up(), []);
        }
    }

    #[test]
    fn a_rate_is_of_the_last_second_or_two() {
        let at = Duration::from_millis;
        let mut rate = Rate::default();
        assert_eq!(rate.at(at(0)), 0);
        for millis in 0..2_000 {
            rate.add(at(millis), 1_000);
        }
        assert!((900_000..1_100_000).contains(&rate.at(at(2_000))));
        assert!(
            rate.at(at(12_000)) < 100_000,
            "nothing was written for long"
        );
    }
}
