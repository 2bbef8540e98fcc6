//! The controller: what the cluster has decided about itself, kept by group 0.
//!
//! Nodes, topics, partitions, their groups, replicas and configs, and which producer ids have been
//! given out are the state of a machine fed by [`Event`]s. A [`Command`] is held against the state
//! by [`Controller::decide`], which answers with events or refuses; the events become one control
//! entry of group 0, a [`Record`]; and every node that has a replica of group 0 applies the
//! committed records in order. Who leads what is no part of it.
//!
//! A record names the one that it was decided upon. If another has come between, because a
//! deposed leader's decision was committed after all, or two were made at once, the later one is
//! void on all replicas alike, and whoever made it decides again. So nothing about this depends
//! on who leads, or on who believes to.

mod decide;
mod event;
mod placement;
mod replay;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

pub use decide::{
    Answer, AssignedReplicas, ClusterDefaults, Command, ConfigChanges, CreatedTopic, Decision,
    NewTopic, OwnedConfigChange, PARTITIONS_MAX, PARTITIONS_PER_COMMAND_MAX,
    PRODUCER_IDS_PER_BLOCK, Refusal, RefusalReason, TOPICS_MAX, TopicRef,
};
pub use event::{
    Event, EventError, HOST_BYTES_MAX, LISTENERS_MAX, Listener, NodeRegistration, PartitionPlace,
    RECORD_BYTES_MAX, RECORD_VERSION, Record, TopicRecord,
};
pub use snapshot::{CONTROLLER_SNAPSHOT_VERSION, ControllerSnapshotError};
pub use state::{Applied, ApplyError, Change, Controller, Topic, TopicId};
