//! Scripted histories: what happens together in each, in the order that matters.

use std::time::Duration;

use highwater_log::GroupId;

use crate::common::world::{GROUPS, World};

/// The group that the scripts write to.
const GROUP: GroupId = GROUPS[0];

/// A step of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A higher term.
    Promise,
    /// A batch of entries in one write.
    Append,
    /// So much that a file is full, and the next one is begun.
    Fill,
    /// The last entries, replaced by others.
    Cut,
    /// While the `begin` of the next file is on its way, entries of the file before are cut away,
    /// and what is left of it is to be sealed.
    CutAmidRoll,
    /// The log is replaced whole.
    Base,
    /// Everything is committed, and closed files are sealed.
    Seal,
    /// The log start moves, and whole files go.
    Retain,
    /// The groups fall idle, and their positions are pushed to the journal.
    Idle,
    /// Half of the journal is all but filled: a few promises on, it goes on in the other one.
    Wrap,
    /// The node dies and starts again.
    Crash,
    /// The step before is not waited for.
    Hold,
}

use Step::{Append, Base, Crash, Cut, CutAmidRoll, Fill, Hold, Idle, Promise, Retain, Seal, Wrap};

/// What a node's life consists of, and what meets in it.
pub(super) const SCRIPTS: [&[Step]; 10] = [
    &[Promise, Append, Append, Promise, Append, Idle, Append],
    &[Promise, Fill, Append, Seal, Fill, Seal, Retain, Append],
    &[Promise, Append, Append, Cut, Append, Cut, Cut, Idle, Append],
    &[Promise, Append, Base, Append, Base, Base, Append, Cut],
    &[Promise, Fill, Append, Cut, Append, Seal, Base, Append],
    &[Promise, Append, Crash, Append, Crash, Promise, Append, Idle],
    &[
        Wrap, Promise, Promise, Promise, Promise, Promise, Promise, Append, Wrap, Promise, Promise,
        Crash, Wrap, Promise, Promise, Promise, Promise, Promise,
    ],
    &[
        Promise, Append, Hold, Fill, Fill, Append, Cut, Crash, Cut, Fill, Seal, Retain,
    ],
    &[Promise, CutAmidRoll, Append, Crash, CutAmidRoll, Seal],
    // Files are recycled.
    &[
        Promise, Fill, Fill, Fill, Fill, Seal, Retain, Fill, Fill, Seal, Retain, Fill, Append, Cut,
        Append, Crash, Append,
    ],
];

impl Step {
    /// Hands the step over; the world's turns do it.
    pub(super) fn stage(self, world: &mut World) {
        match self {
            Step::Promise => world.promise(GROUP),
            Step::Append => world.append(GROUP),
            Step::Fill => (0..5).for_each(|_| world.append_of(GROUP, 15_000)),
            Step::Cut => world.cut(GROUP),
            Step::CutAmidRoll => cut_amid_roll(world),
            Step::Base => world.base(GROUP),
            Step::Seal => world.seal(GROUP),
            Step::Retain => world.retain(GROUP),
            Step::Idle => world.node().now += Duration::from_secs(1),
            Step::Wrap => wrap(world),
            Step::Crash => world.crash(),
            Step::Hold => {}
        }
    }
}

/// Files are as long as three of these entries.
fn cut_amid_roll(world: &mut World) {
    let append = |world: &mut World, count: usize| {
        (0..count).for_each(|_| world.append_of(GROUP, 20_000));
    };
    let rest = |world: &mut World| {
        while world.node().store.is_busy() {
            world.turn();
        }
    };
    world.base(GROUP);
    append(world, 2);
    rest(world);
    world.commit(GROUP);
    append(world, 1);
    rest(world);
    append(world, 1);
    let node = world.node();
    node.store.flush(node.now);
    world.cut_deep(GROUP);
    world.turn();
    world.seal(GROUP);
}

/// Units are one block here, of the half's sixteen; a start begins a half.
fn wrap(world: &mut World) {
    for _ in 0..11 {
        world.promise(GROUP);
        (0..4).for_each(|_| world.turn());
    }
}
