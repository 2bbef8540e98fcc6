//! The controller's state as bytes, for footers and bases of group 0.
//!
//! Little-endian, with the forms of [`event`](super::event). Version 1:
//!
//! | field | |
//! |---|---|
//! | version u16 | 1 |
//! | applied u64, last record u64 | indexes |
//! | groups made u64 | |
//! | next producer id i64 | not negative |
//! | nodes list | as in "node registered", ascending |
//! | topics list | as in "topic created", ascending by name |

use highwater_consensus::LogIndex;
use highwater_log::SNAPSHOT_BYTES_MAX;

use super::event::{EventError, NodeRegistration, TopicRecord, decode_list};
use super::state::Controller;
use crate::codec::{Put, Take, Truncated};

/// The version that is written, and the only one that is read.
pub const CONTROLLER_SNAPSHOT_VERSION: u16 = 1;

/// Why bytes are no state of the controller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerSnapshotError {
    /// Of a version that this program does not know.
    #[error("controller state of version {0}; this program reads {CONTROLLER_SNAPSHOT_VERSION}")]
    Version(u16),
    /// The bytes end too early.
    #[error("controller state: {0}")]
    Truncated(#[from] Truncated),
    /// A part cannot be read.
    #[error("controller state: {0}")]
    Part(#[from] EventError),
    /// The parts do not fit together.
    #[error("controller state: {0}")]
    Contradiction(&'static str),
    /// More bytes than state.
    #[error("{0} bytes follow the controller state")]
    TrailingBytes(usize),
}

impl Controller {
    /// The state as bytes, equal for equal states.
    ///
    /// # Panics
    ///
    /// If they are more than a footer holds, [`SNAPSHOT_BYTES_MAX`]: the limits on commands are
    /// chosen so that they cannot be.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_u16(CONTROLLER_SNAPSHOT_VERSION);
        bytes.put_u64(self.applied.0);
        bytes.put_u64(self.last_record.0);
        bytes.put_u64(self.groups_made);
        bytes.put_i64(self.next_producer_id);
        bytes.put_count(self.nodes.len());
        for node in self.nodes.values() {
            node.encode(&mut bytes);
        }
        bytes.put_count(self.topics.len());
        for topic in self.topics.values() {
            topic.record.encode(&mut bytes);
        }
        assert!(
            bytes.len() <= SNAPSHOT_BYTES_MAX,
            "the limits on commands bound the state"
        );
        bytes
    }

    /// The state that [`encode`](Self::encode) has written.
    ///
    /// # Errors
    ///
    /// [`ControllerSnapshotError`] if the bytes hold none.
    pub fn decode(mut bytes: &[u8]) -> Result<Controller, ControllerSnapshotError> {
        let from = &mut bytes;
        let version = from.take_u16()?;
        if version != CONTROLLER_SNAPSHOT_VERSION {
            return Err(ControllerSnapshotError::Version(version));
        }
        let mut state = Controller {
            applied: LogIndex(from.take_u64()?),
            last_record: LogIndex(from.take_u64()?),
            groups_made: from.take_u64()?,
            next_producer_id: from.take_i64()?,
            ..Controller::default()
        };
        if state.last_record > state.applied || state.next_producer_id < 0 {
            return Err(ControllerSnapshotError::Contradiction("impossible numbers"));
        }
        for node in decode_list(from, 4 + 16 + 8 + 4 + 4, NodeRegistration::decode)? {
            state.nodes.insert(node.node, node);
        }
        for topic in decode_list(from, 4 + 1 + 16 + 4 + 4, TopicRecord::decode)? {
            state.restore_topic(topic)?;
        }
        match bytes.len() {
            0 => Ok(state),
            left => Err(ControllerSnapshotError::TrailingBytes(left)),
        }
    }

    fn restore_topic(&mut self, topic: TopicRecord) -> Result<(), ControllerSnapshotError> {
        let wrong = ControllerSnapshotError::Contradiction;
        if self.topics.contains_key(&topic.name) || self.names.contains_key(&topic.id) {
            return Err(wrong("a topic twice"));
        }
        let replication = topic.partitions.first().map(|place| place.replicas.len());
        if replication.is_none_or(|replicas| replicas == 0) {
            return Err(wrong("a topic without partitions or replicas"));
        }
        for (number, place) in (0..).zip(&topic.partitions) {
            if place.group.0 == 0 || place.group.0 > self.groups_made {
                return Err(wrong("a group that was not made"));
            }
            if Some(place.replicas.len()) != replication {
                return Err(wrong("partitions of different replication"));
            }
            let partition = (topic.name.clone(), number);
            if self.groups.insert(place.group, partition).is_some() {
                return Err(wrong("a group of two partitions"));
            }
        }
        self.index_topic(topic);
        Ok(())
    }
}
