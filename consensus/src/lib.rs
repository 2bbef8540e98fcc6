//! The rules of agreement: Raft, without clocks, threads or I/O.
//!
//! A [`Raft`] is one member of one group. It sees of an entry its [`EntryMeta`] (index, term,
//! kind, size), never its bytes; it gets time as an argument, chance from a seed, and asks for
//! disk and network by [`Output`]s. What the disk has not made durable it does not promise:
//! votes, requests for votes and acknowledgements wait for [`Raft::handle_persisted`].
//!
//! A group of one, on a disk that syncs at once:
//!
//! ```
//! use std::time::Duration;
//! use highwater_consensus::{
//!     Config, EntryKind, LogIndex, Membership, NodeId, Output, ProposedEntry, Raft, Restored,
//! };
//!
//! let node = NodeId(1);
//! let config = Config::new(node, Membership::of_voters([node]));
//! let now = Duration::ZERO;
//! let mut raft = Raft::new(config, Restored::default(), 42, now)?;
//! let mut committed = LogIndex::ZERO;
//! let mut drive = |raft: &mut Raft| {
//!     while let Some(output) = raft.poll_output() {
//!         match output {
//!             Output::HardState { write, .. } | Output::Append { write, .. } => {
//!                 // Write it, sync, and only then:
//!                 raft.handle_persisted(now, write);
//!             }
//!             Output::Committed { index } => committed = index,
//!             _ => {}
//!         }
//!     }
//! };
//! drive(&mut raft); // It elects itself and commits a no-op.
//! let entry = raft.propose(&[ProposedEntry { kind: EntryKind::Data, size: 100 }])?;
//! drive(&mut raft);
//! assert_eq!(entry.index, LogIndex(2));
//! assert_eq!(committed, entry.index);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where to read on: `role.rs` has the transition table, `election.rs` who leads, `replication.rs`
//! and `follow.rs` the two sides of the log, `writes.rs` what counts as durable. The tests tell
//! it as stories in `testdata/*.txt`.
//!
//! References: "the paper" is Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm (Extended Version)", 2014; "the thesis" is Ongaro, "Consensus: Bridging Theory and
//! Practice", 2014.

#[macro_use]
mod mutant;

// The suite speaks of this crate as others do.
#[cfg(test)]
extern crate self as highwater_consensus;

mod beat;
mod commit;
mod config;
mod election;
mod error;
#[cfg(test)]
mod explore;
mod follow;
pub mod invariants;
mod membership;
mod message;
mod output;
mod progress;
mod quarantine;
mod raft;
mod read;
mod replication;
mod role;
#[cfg(test)]
#[path = "../tests/consensus/main.rs"]
mod suite;
mod tail;
mod types;
mod writes;

pub use config::{Config, Priority, Quarantine, Restored};
pub use error::{ConfigError, MessageError, ProposeError, ReadError, TransferError};
pub use membership::Membership;
pub use message::{AppendOutcome, BeatException, BeatRow, Lane, Message};
pub use output::{Output, RoleKind};
pub use raft::Raft;
pub use types::{
    BeatRound, EntryId, EntryKind, EntryMeta, LogIndex, NodeId, ProposedEntry, ReadId, Session,
    Term, WriteId,
};
