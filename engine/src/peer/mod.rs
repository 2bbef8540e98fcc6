//! What nodes say to one another: frames of sections, each about one group or one round of
//! beats.

use highwater_consensus::Message;

use crate::ops::GroupId;

/// A part of a peer's frame that concerns one shard.
#[derive(Debug, Clone)]
pub enum Section {
    /// A message of consensus about one group.
    Message {
        /// Which group.
        group: GroupId,
        /// What.
        message: Message,
    },
}
