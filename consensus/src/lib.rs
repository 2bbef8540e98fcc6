//! The rules of agreement: Raft, without clocks, threads or I/O.
//!
//! A [`Raft`] is one member of one group. It sees of an entry its [`EntryMeta`] (index, term,
//! kind, size), never its bytes; it gets time as an argument, chance from a seed, and asks for
//! disk and network by [`Output`]s. What the disk has not made durable it does not promise:
//! votes, requests for votes and acknowledgements wait for [`Raft::handle_persisted`].
//!
//! References: "the paper" is Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm (Extended Version)", 2014; "the thesis" is Ongaro, "Consensus: Bridging Theory and
//! Practice", 2014.

mod beat;
mod commit;
mod config;
mod election;
mod error;
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
