//! An exhaustive explorer: the step function that ships, three nodes, and everything that network,
//! disks, clocks and clients may do to them at small bounds.
//!
//! [`world`] is a state, [`actions`] what may happen in it, [`node`] and [`driver`] are a node and
//! its disk, [`oracle`] is what must hold in each state. [`search`] goes through all states breadth
//! first, so that a violation comes with a shortest trace; [`searches`] says from where and how far.
//! [`mutants`] plants bugs and demands that they are found.
//!
//! **What the network does.** Between two nodes a session is up or not. In it each of the three
//! lanes is a queue of its own in each direction: in order within a lane, in any order between
//! lanes, pairs and directions. Nothing comes twice, as nothing does on a QUIC stream. The head of
//! a lane may be lost while what follows it arrives (a full queue, a frame that fails a check).
//! A session may end, and what is on its way ends with it. Both ends see that at once here: what
//! one end does with late messages of the old session commutes with what the other does in the
//! new one, since neither hears of the other, so no state is missed by that.
//!
//! **What a disk does.** Writes become durable one by one, in order. A crash may find any number
//! of those not yet reported durable nonetheless, in part too: an append of some entries ends
//! within, and hard states, which lie in a file of their own, may be ahead of the log, never
//! behind (the order that [`Output`](crate::Output) asks for). A crash and the start after it are
//! one action: a node that is down for a while is one that nothing happens to. What it has sent
//! still comes as long as it is not back, and whoever gets it may as well get it before the crash.
//!
//! **Time** is not part of a state. Each call finds its node's clock two seconds on, so that no
//! follower is sticky and no leader has been answered lately; timers go off when the search says
//! so. That allows more than real clocks do: what stickiness refuses, a loss would take away too.
//!
//! **Pre-votes** are either explored apart (search `pre-votes`) or granted out of thin air
//! to whoever campaigns: a superset again, which is Raft as in the paper.
//!
//! **Not explored** are retention and bases, chunks that are read late, full disks, learners and
//! joint configurations: the random test in `tests/consensus` has those.
//!
//! Two states are the same if their [essences](Essence) hash alike, to 64 bits: among ten million
//! states the chance that any two of them are taken for one is 3 in a million.

mod actions;
mod driver;
mod mutants;
mod node;
mod oracle;
mod search;
mod searches;
mod world;

use std::hash::Hasher;

use crate::writes::Writes;

/// What of a value decides the future: all but time, chance, and how many writes there were.
/// `writes` are those of its member.
pub(crate) trait Essence {
    /// Hashes it.
    fn essence(&self, writes: &Writes, to: &mut impl Hasher);
}
