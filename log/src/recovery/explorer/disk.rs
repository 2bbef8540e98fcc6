//! A group's files on an abstract disk: frames are symbols, a crash takes or leaves each.

use highwater_record::Offset;

use crate::format::begin::Reason;
use crate::format::journal::SyncedPosition;
use crate::ids::{Chain, LogIndex, Sequence, Term};
use crate::recovery::view::{
    BeginView, Content, FileView, Found, Frames, GroupView, IdentityView, Mark,
};

/// How many small frames share a block: what rots together.
pub(super) const BLOCK_FRAMES: usize = 2;

/// The chain at an entry: over all before it, its index and its term.
pub(super) fn chain_of(before: u32, index: u8, term: u8) -> u32 {
    let mixed = before.rotate_left(7) ^ (u32::from(index) << 8 | u32::from(term));
    mixed.wrapping_mul(0x9E37_79B1) | 1
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Files(pub(super) Vec<File>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct File {
    pub(super) sequence: u8,
    pub(super) name: Name,
    pub(super) identity_rotten: bool,
    /// The first is the `begin`.
    pub(super) frames: Vec<Frame>,
}

/// What is known of a file's directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// There, whatever happens.
    Durable,
    /// There, but the directory is not synced: a power cut may take it.
    Appearing,
    /// Unlinked, but the directory is not synced: a power cut may bring it back.
    Vanishing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Frame {
    pub(super) item: Item,
    pub(super) cell: Cell,
    /// In the page cache only: a power cut may take it.
    pub(super) volatile: bool,
    /// Rot took it, not a crash.
    pub(super) rotten: bool,
}

/// What of a frame can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Cell {
    Whole,
    /// Its header holds, its body does not.
    HeaderOnly,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Begin(Begin),
    Entry(Entry),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Begin {
    pub(super) reason: Reason,
    pub(super) first: u8,
    pub(super) chain: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) index: u8,
    pub(super) term: u8,
    pub(super) chain: u32,
    /// The highest index known to be synced when it was written.
    pub(super) claim: Option<u8>,
}

/// What rots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Rot {
    Identity,
    /// A frame by its number in the file, header and all.
    Header(usize),
    /// A frame's body.
    Body(usize),
    /// All frames that share a block.
    Block(usize),
    /// The file ends before this frame.
    Short(usize),
}

impl Frame {
    pub(super) fn durable(item: Item) -> Frame {
        Frame {
            item,
            cell: Cell::Whole,
            volatile: false,
            rotten: false,
        }
    }

    fn rot(&mut self, to: Cell) {
        if self.cell == Cell::Whole || to == Cell::Gone {
            self.rotten |= self.cell != to;
            self.cell = to;
        }
    }

    /// The entry, if its header can be read.
    pub(super) fn legible(&self) -> Option<Entry> {
        match self.item {
            Item::Entry(entry) if self.cell != Cell::Gone => Some(entry),
            Item::Entry(_) | Item::Begin(_) => None,
        }
    }
}

impl File {
    /// Its `begin`, if it was ever written and can be read.
    pub(super) fn begin(&self) -> Option<Begin> {
        match self.frames.first() {
            Some(Frame {
                item: Item::Begin(begin),
                cell: Cell::Whole,
                ..
            }) => Some(*begin),
            _ => None,
        }
    }

    /// The entry of this index, if every byte of it is good.
    pub(super) fn good_entry(&self, index: u8) -> Option<Entry> {
        self.frames.iter().find_map(|frame| match frame.item {
            Item::Entry(entry) if entry.index == index && frame.cell == Cell::Whole => Some(entry),
            _ => None,
        })
    }

    /// Whether rot, and not a crash, may have taken the entry of this index: it, or something
    /// before it in the file.
    pub(super) fn rotten_through(&self, index: u8) -> bool {
        let before = |frame: &&Frame| match frame.item {
            Item::Begin(_) => true,
            Item::Entry(entry) => entry.index <= index,
        };
        self.identity_rotten || self.frames.iter().filter(before).any(|frame| frame.rotten)
    }

    /// What could rot. Rotting what is bad already changes nothing.
    pub(super) fn rots(&self) -> Vec<Rot> {
        let mut rots = vec![Rot::Identity];
        for (at, frame) in self.frames.iter().enumerate() {
            if frame.cell == Cell::Whole {
                rots.push(Rot::Header(at));
                rots.push(Rot::Body(at));
            }
            rots.push(Rot::Short(at));
        }
        rots.extend((0..self.frames.len().div_ceil(BLOCK_FRAMES)).map(Rot::Block));
        rots
    }

    pub(super) fn rot(&mut self, rot: Rot) {
        match rot {
            Rot::Identity => self.identity_rotten = true,
            Rot::Header(at) => self.frames[at].rot(Cell::Gone),
            Rot::Body(at) => self.frames[at].rot(Cell::HeaderOnly),
            Rot::Block(block) => {
                let block = self.frames.chunks_mut(BLOCK_FRAMES).nth(block);
                let block = block.expect("a block of the file").iter_mut();
                block.for_each(|frame| frame.rot(Cell::Gone));
            }
            Rot::Short(at) => self.frames[at..]
                .iter_mut()
                .for_each(|frame| frame.rot(Cell::Gone)),
        }
    }

    fn view(&self) -> FileView {
        let any_header = self.frames.iter().any(|frame| frame.cell != Cell::Gone);
        FileView {
            sequence: Sequence(u64::from(self.sequence)),
            identity: match self.identity_rotten {
                true => IdentityView::Bad { any_header },
                false => IdentityView::Good,
            },
            content: Content::Frames(self.frames_view()),
        }
    }

    /// As docs of [`Frames`] say: the run from the `begin` on, and what is legible behind it.
    fn frames_view(&self) -> Frames {
        let mut view = Frames::default();
        let mut next = None;
        if let Some(begin) = self.begin() {
            view.begin = Some(BeginView {
                reason: begin.reason,
                first: index(begin.first),
                chain: chain(begin.chain),
            });
            next = Some((begin.first, begin.chain));
        }
        let mut previous: Option<(Entry, bool)> = None;
        for frame in &self.frames {
            let Item::Entry(entry) = frame.item else {
                continue;
            };
            let claim = entry.claim.map(index);
            let continues = next.is_some_and(|(first, before)| {
                entry.index == first && entry.chain == chain_of(before, first, entry.term)
            });
            if continues && frame.cell == Cell::Whole {
                view.run.push(Mark {
                    term: Term(u32::from(entry.term)),
                    chain: chain(entry.chain),
                    end: Offset(0),
                });
                view.run_claim = view.run_claim.max(claim);
                next = Some((entry.index + 1, entry.chain));
                continue;
            }
            next = None;
            view.residue = true;
            if frame.cell == Cell::Gone {
                continue;
            }
            view.beyond.push(Found {
                index: index(entry.index),
                term: Term(u32::from(entry.term)),
                chain: chain(entry.chain),
                end: Offset(0),
                good: frame.cell == Cell::Whole,
                follows: previous.is_some_and(|(previous, good)| {
                    good && previous.index + 1 == entry.index
                        && chain_of(previous.chain, entry.index, entry.term) == entry.chain
                }),
            });
            view.beyond_claim = view.beyond_claim.max(claim);
            previous = Some((entry, frame.cell == Cell::Whole));
        }
        view
    }
}

impl Files {
    pub(super) fn get(&self, sequence: u8) -> Option<&File> {
        self.0.iter().find(|file| file.sequence == sequence)
    }

    pub(super) fn get_mut(&mut self, sequence: u8) -> &mut File {
        let file = self.0.iter_mut().find(|file| file.sequence == sequence);
        file.expect("a file that the process has made")
    }

    /// The files that a process sees.
    pub(super) fn visible(&self) -> impl DoubleEndedIterator<Item = &File> {
        self.0.iter().filter(|file| file.name != Name::Vanishing)
    }

    /// What recovery reads; `position` comes from the journal.
    pub(super) fn view(&self, position: Option<(u8, u8)>) -> GroupView {
        GroupView {
            position: position.map(|(sequence, last)| SyncedPosition {
                sequence: Sequence(u64::from(sequence)),
                index: index(last),
            }),
            files: self.visible().map(File::view).collect(),
        }
    }

    /// Every sync of every file and of the directory.
    pub(super) fn sync(&mut self) {
        self.sync_dir();
        let frames = self.0.iter_mut().flat_map(|file| &mut file.frames);
        frames.for_each(|frame| frame.volatile = false);
    }

    pub(super) fn sync_dir(&mut self) {
        self.0.retain(|file| file.name != Name::Vanishing);
        self.0.iter_mut().for_each(|file| file.name = Name::Durable);
    }

    /// Every disk that a power cut may leave of this one.
    pub(super) fn power_cuts(&self) -> Vec<Files> {
        let mut disks = vec![Files::default()];
        for file in &self.0 {
            let mut next = Vec::new();
            for disk in disks {
                for left in file.power_cuts() {
                    let mut disk = disk.clone();
                    disk.0.extend(left);
                    next.push(disk);
                }
            }
            disks = next;
        }
        disks
    }
}

impl File {
    /// What a power cut may leave of a file.
    fn power_cuts(&self) -> Vec<Option<File>> {
        let mut there = self.clone();
        there.name = Name::Durable;
        let mut left = vec![there];
        for at in 0..self.frames.len() {
            if !self.frames[at].volatile {
                continue;
            }
            left = left
                .into_iter()
                .flat_map(|mut kept| {
                    let mut lost = kept.clone();
                    kept.frames[at].volatile = false;
                    lost.frames[at].volatile = false;
                    lost.frames[at].cell = Cell::Gone;
                    [kept, lost]
                })
                .collect();
        }
        let mut left: Vec<_> = left.into_iter().map(File::trimmed).map(Some).collect();
        if self.name != Name::Durable {
            left.push(None);
        }
        left
    }

    /// Frames of which nothing is left, at the end, are as if they had never been written.
    fn trimmed(mut self) -> File {
        while self.frames.last().is_some_and(Frame::is_forgotten) {
            self.frames.pop();
        }
        self
    }

    /// A write in flight persists this subset of its frames.
    pub(super) fn torn(&self, items: &[Item], cells: &[Cell], volatile: bool) -> File {
        let mut file = self.clone();
        file.frames
            .extend(items.iter().zip(cells).map(|(&item, &cell)| Frame {
                item,
                cell,
                volatile: volatile && cell != Cell::Gone,
                rotten: false,
            }));
        file.trimmed()
    }
}

impl Frame {
    /// A crash left nothing of it. What rot took is remembered, for the specification.
    fn is_forgotten(&self) -> bool {
        self.cell == Cell::Gone && !self.rotten
    }
}

pub(super) fn index(index: u8) -> LogIndex {
    LogIndex(u64::from(index))
}

pub(super) fn chain(chain: u32) -> Chain {
    Chain(u64::from(chain))
}
