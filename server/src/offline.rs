//! For tools that read a stopped node's files: which topic a group is.

use highwater_engine::LogIndex;
use highwater_engine::controller::Controller;
use highwater_log::GroupId;
use highwater_record::TopicPartition;

/// The group that holds the cluster's metadata.
pub const CONTROLLER_GROUP: GroupId = GroupId(0);

/// Topics and partitions by group, as far as a node's copy of group 0 tells.
#[derive(Debug, Default)]
pub struct Topics {
    /// Nothing if an entry was missing or unreadable: what follows cannot be understood then.
    controller: Option<Controller>,
}

impl Topics {
    /// Knows of no topic.
    #[must_use]
    pub fn new() -> Self {
        Self {
            controller: Some(Controller::new()),
        }
    }

    /// Takes the next entry of [`CONTROLLER_GROUP`], by index from 1, with its body if that is
    /// readable.
    pub fn entry(&mut self, index: highwater_log::LogIndex, body: Option<&[u8]>) {
        let Some(mut controller) = self.controller.take() else {
            return;
        };
        let index = LogIndex(index.0);
        let is_next = index == controller.applied().next();
        let replayed = body.filter(|_| is_next);
        let replayed = replayed.map(|body| controller.replay(index, body));
        if let Some(Ok(())) = replayed {
            self.controller = Some(controller);
        }
    }

    /// Whether all entries so far were understood.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.controller.is_some()
    }

    /// Which partition a group is.
    #[must_use]
    pub fn partition(&self, group: GroupId) -> Option<TopicPartition> {
        let (topic, partition) = self.controller.as_ref()?.partition_of(group)?;
        Some(TopicPartition {
            topic: topic.clone(),
            partition,
        })
    }
}

#[cfg(test)]
mod tests {
    use highwater_log::LogIndex;

    use super::*;

    #[test]
    fn a_gap_ends_what_is_understood() {
        let mut topics = Topics::new();
        topics.entry(LogIndex(1), Some(&[0]));
        assert!(topics.is_complete());
        assert_eq!(topics.partition(GroupId(1)), None);
        topics.entry(LogIndex(3), Some(&[0]));
        assert!(!topics.is_complete());
        let mut topics = Topics::new();
        topics.entry(LogIndex(1), None);
        assert!(!topics.is_complete());
    }
}
