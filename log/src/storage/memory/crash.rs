//! Crashes: what may be left of a disk when the power is cut or the process dies, chosen by the
//! caller, drawn by chance, or enumerated whole.

use std::collections::BTreeSet;

use fastrand::Rng;

use super::MemoryDisk;
use super::image::{Image, Node};
use super::node::{ChangeId, Data, DataChange, FileNode};
use super::tree::{EntryChange, Tree};

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR: usize = 512;

/// A change that a crash may undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingChange {
    /// Its name; those of one operation follow each other.
    pub id: ChangeId,
    /// The file it changes, or what it does to directory entries.
    pub what: String,
    /// What it does.
    pub kind: PendingKind,
    /// Whether its operation has not completed.
    pub in_flight: bool,
}

/// What a pending change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingKind {
    /// It writes this many bytes.
    Write {
        /// From which byte of the file.
        offset: u64,
        /// How many.
        len: usize,
    },
    /// It gives the file another size.
    Resize {
        /// The new size in bytes.
        len: u64,
    },
    /// It changes directory entries, all or none.
    Entries,
}

/// What is left of a pending change. For what cannot be torn, all but
/// [`Nothing`](Keep::Nothing) means that it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// It never happened.
    Nothing,
    /// It happened whole.
    Everything,
    /// Of each `unit` bytes of a write the flag says whether they were written; those without
    /// a flag were not.
    Units {
        /// How many bytes a flag speaks of.
        unit: usize,
        /// The flags, in order of offset.
        kept: Vec<bool>,
    },
}

/// How finely [`CrashImages`] tears writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// A write is there or not.
    Whole,
    /// Any number of units from the front of a write is there.
    Prefixes {
        /// Bytes of a unit; [`SECTOR`] is the finest that is real.
        unit: usize,
    },
    /// Any subset of a write's units is there.
    Subsets {
        /// Bytes of a unit; [`SECTOR`] is the finest that is real.
        unit: usize,
    },
}

impl Granularity {
    /// In how many ways this change may be left; nothing if they cannot be counted.
    fn outcomes(self, change: &PendingChange) -> Option<u128> {
        let PendingKind::Write { len, .. } = change.kind else {
            return Some(2);
        };
        match self {
            Self::Whole => Some(2),
            Self::Prefixes { unit } => Some(len.div_ceil(unit) as u128 + 1),
            Self::Subsets { unit } => 1u128.checked_shl(u32::try_from(len.div_ceil(unit)).ok()?),
        }
    }

    /// The outcome of this number, below [`outcomes`](Self::outcomes).
    fn outcome(self, change: &PendingChange, number: u128) -> Keep {
        let kept = |unit: usize, flag: &dyn Fn(usize) -> bool| match change.kind {
            PendingKind::Write { len, .. } => Keep::Units {
                unit,
                kept: (0..len.div_ceil(unit)).map(flag).collect(),
            },
            _ if number == 0 => Keep::Nothing,
            _ => Keep::Everything,
        };
        match self {
            Self::Whole if number == 0 => Keep::Nothing,
            Self::Whole => Keep::Everything,
            Self::Prefixes { unit } => kept(unit, &|index| (index as u128) < number),
            Self::Subsets { unit } => kept(unit, &|index| number >> index & 1 == 1),
        }
    }
}

/// Every disk that a power cut at this moment may leave, by number.
///
/// ```
/// use highwater_log::storage::{CrashImages, Granularity, MemoryDisk, SECTOR};
///
/// let disk = MemoryDisk::new();
/// let images = CrashImages::new(&disk, Granularity::Prefixes { unit: SECTOR });
/// assert_eq!(images.count(), Some(1)); // nothing is pending
/// assert!(images.image(0).files().is_empty());
/// ```
#[derive(Debug)]
pub struct CrashImages {
    disk: MemoryDisk,
    pending: Vec<PendingChange>,
    granularity: Granularity,
}

impl CrashImages {
    /// The images of `disk` as it is now; what happens to it later does not matter.
    #[must_use]
    pub fn new(disk: &MemoryDisk, granularity: Granularity) -> Self {
        let pending = disk.pending();
        Self {
            disk: disk.fork(),
            pending,
            granularity,
        }
    }

    /// What is pending, in the order in which the images' numbers count: the first change is
    /// the fastest digit.
    #[must_use]
    pub fn pending(&self) -> &[PendingChange] {
        &self.pending
    }

    /// How many there are; nothing if they are more than anybody will visit. Two may be alike.
    #[must_use]
    pub fn count(&self) -> Option<u128> {
        let outcomes = |change| self.granularity.outcomes(change);
        self.pending
            .iter()
            .map(outcomes)
            .try_fold(1u128, |product, n| product.checked_mul(n?))
    }

    /// The image of this number. 0 keeps no pending change.
    ///
    /// # Panics
    ///
    /// If there are not so many, or a change's outcomes cannot be counted.
    #[must_use]
    pub fn image(&self, number: u128) -> MemoryDisk {
        let mut digits = number;
        let mut keep = Vec::with_capacity(self.pending.len());
        for change in &self.pending {
            let base = self
                .granularity
                .outcomes(change)
                .expect("outcomes that can be counted");
            keep.push(self.granularity.outcome(change, digits % base));
            digits /= base;
        }
        assert_eq!(digits, 0, "image {number} of {:?}", self.count());
        let image = self.disk.fork();
        let mut keep = keep.into_iter();
        image.power_cut(|_| keep.next().expect("a fork has the same pending changes"));
        image
    }
}

/// Draws what is left of a change: a write is torn at the rate `tears`, to a front part or to
/// any of its sectors; what is not torn is there whole at the rate `keeps`, or not at all.
pub(in crate::storage) fn draw(
    rng: &mut Rng,
    change: &PendingChange,
    keeps: f64,
    tears: f64,
) -> Keep {
    let (torn, kept) = (rng.f64() < tears, rng.f64() < keeps);
    match change.kind {
        PendingKind::Write { len, .. } if torn => {
            let sectors = len.div_ceil(SECTOR);
            let prefix = rng.usize(..=sectors);
            let front = rng.bool();
            let kept = |sector| if front { sector < prefix } else { rng.bool() };
            Keep::Units {
                unit: SECTOR,
                kept: (0..sectors).map(kept).collect(),
            }
        }
        _ if kept => Keep::Everything,
        _ => Keep::Nothing,
    }
}

impl Image {
    /// What a power cut may undo: files in order of creation, then directory entries.
    pub(super) fn pending(&self) -> Vec<PendingChange> {
        let mut pending = Vec::new();
        for (node, held) in &self.nodes {
            if let Node::File(file) = held {
                let path = self.path_of(*node);
                pending.extend(file.changes.iter().map(|change| change.describe(&path)));
            }
        }
        pending.extend(self.tree.pending().iter().map(EntryChange::describe));
        pending
    }

    /// The power is cut: what is durable stays, and of the rest what `choose` keeps. It is
    /// asked about the changes of [`pending`](Self::pending), in that order.
    pub(super) fn power_cut(&mut self, choose: &mut dyn FnMut(&PendingChange) -> Keep) {
        for (path, file) in self.files_with_changes() {
            for change in std::mem::take(&mut file.changes) {
                let keep = choose(&change.describe(&path));
                change.data.apply_parts(file, &keep);
            }
        }
        let keep = self.choose_entries(choose, |keep| *keep != Keep::Nothing);
        self.tree.power_cut(&keep);
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.live = file.durable.clone();
            }
        }
        self.reborn();
    }

    /// The process dies: of what was in flight `choose` says what has happened. What has
    /// happened can be read, and is no more durable than before.
    pub(super) fn kill(&mut self, choose: &mut dyn FnMut(&PendingChange) -> Keep) {
        for (path, file) in self.files_with_changes() {
            let changes = std::mem::take(&mut file.changes);
            file.live = file.durable.clone();
            for change in changes {
                let keep = match change.in_flight {
                    true => choose(&change.describe(&path)),
                    false => Keep::Everything,
                };
                file.survive(change, &keep);
            }
        }
        let choose = &mut |change: &PendingChange| match change.in_flight {
            true => choose(change),
            false => Keep::Everything,
        };
        let drop = self.choose_entries(choose, |keep| *keep == Keep::Nothing);
        self.tree.kill(&drop);
        self.reborn();
    }

    /// The files with pending changes, with their paths, in the order of `pending`.
    fn files_with_changes(&mut self) -> Vec<(String, &mut FileNode)> {
        let paths: Vec<_> = self.nodes.keys().map(|node| self.path_of(*node)).collect();
        let nodes = self.nodes.values_mut().zip(paths);
        let files = nodes.filter_map(|(node, path)| match node {
            Node::File(file) if !file.changes.is_empty() => Some((path, file)),
            _ => None,
        });
        files.collect()
    }

    fn choose_entries(
        &self,
        choose: &mut dyn FnMut(&PendingChange) -> Keep,
        wanted: fn(&Keep) -> bool,
    ) -> BTreeSet<ChangeId> {
        let chosen = self
            .tree
            .pending()
            .iter()
            .filter(|c| wanted(&choose(&c.describe())));
        chosen.map(|change| change.id).collect()
    }

    /// A life has ended: its ids are void.
    fn reborn(&mut self) {
        self.life += 1;
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.open = 0;
            }
        }
        self.collect();
    }
}

impl FileNode {
    /// What `keep` leaves of a change can be read again, and is unsynced.
    fn survive(&mut self, change: DataChange, keep: &Keep) {
        for data in change.data.parts(keep) {
            data.apply(&mut self.live);
            self.changes.push(DataChange {
                id: change.id,
                data,
                in_flight: false,
            });
        }
    }
}

impl Data {
    fn apply_parts(&self, file: &mut FileNode, keep: &Keep) {
        for data in self.parts(keep) {
            data.apply(&mut file.durable);
        }
    }

    /// What `keep` leaves of the change.
    fn parts(&self, keep: &Keep) -> Vec<Data> {
        match (self, keep) {
            (_, Keep::Nothing) => Vec::new(),
            (Self::Write { offset, bytes }, Keep::Units { unit, kept }) => {
                let units = bytes.chunks(*unit).zip(kept).enumerate();
                let kept = units.filter(|(_, (_, kept))| **kept);
                kept.map(|(index, (bytes, _))| Data::Write {
                    offset: offset + (index * unit) as u64,
                    bytes: bytes.into(),
                })
                .collect()
            }
            (change, _) => vec![change.clone()],
        }
    }
}

impl DataChange {
    fn describe(&self, path: &str) -> PendingChange {
        let kind = match &self.data {
            Data::Write { offset, bytes } => PendingKind::Write {
                offset: *offset,
                len: bytes.len(),
            },
            Data::Resize { len } => PendingKind::Resize { len: *len },
        };
        let in_flight = self.in_flight;
        PendingChange {
            id: self.id,
            what: path.to_owned(),
            kind,
            in_flight,
        }
    }
}

impl EntryChange {
    fn describe(&self) -> PendingChange {
        let in_flight = Tree::is_in_flight(self);
        PendingChange {
            id: self.id,
            what: self.what.clone(),
            kind: PendingKind::Entries,
            in_flight,
        }
    }
}
