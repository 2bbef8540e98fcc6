//! The state that the events lead to.

use std::collections::BTreeMap;
use std::fmt;

use highwater_consensus::{LogIndex, NodeId};
use highwater_record::TopicName;

use super::event::{Event, EventError, NodeRegistration, PartitionPlace, Record, TopicRecord};
use crate::config::TopicConfigs;
use crate::ops::{GroupId, GroupSpec};

/// A topic's id: a random UUID, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u128);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A topic that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub(super) record: TopicRecord,
}

impl Topic {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        &self.record.name
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TopicId {
        self.record.id
    }

    /// Its partitions by number; one at least.
    #[must_use]
    pub fn partitions(&self) -> &[PartitionPlace] {
        &self.record.partitions
    }

    /// A partition by the number that a client sent.
    #[must_use]
    pub fn partition(&self, index: i32) -> Option<&PartitionPlace> {
        self.record.partitions.get(usize::try_from(index).ok()?)
    }

    /// How many replicas each partition has.
    #[must_use]
    pub fn replication(&self) -> usize {
        self.record.partitions[0].replicas.len()
    }

    /// Its configs.
    #[must_use]
    pub fn configs(&self) -> &TopicConfigs {
        &self.record.configs
    }

    /// Its groups as shards make them.
    pub fn group_specs(&self) -> impl Iterator<Item = GroupSpec> {
        self.record.partitions.iter().map(|partition| GroupSpec {
            group: partition.group,
            replicas: partition.replicas.clone(),
            config: self.record.configs.group_config(),
        })
    }
}

/// What a record has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A node is new, or elsewhere.
    Node(NodeId),
    /// A topic is new.
    TopicCreated(TopicName),
    /// A topic is gone.
    TopicDeleted(Topic),
    /// A topic has other configs.
    ConfigsChanged(TopicName),
    /// Producer ids were given out.
    ProducerIds(NodeId),
}

/// What came of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It holds.
    Changed(Vec<Change>),
    /// Another record came between it and the one that it was decided upon: nothing happened.
    Void,
}

/// Why a committed record cannot be applied: this program did not write it, or is wrong. The node
/// cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It cannot be read.
    #[error("entry {index} of the controller: {error}")]
    Unreadable {
        /// Its index.
        index: LogIndex,
        /// Why.
        error: EventError,
    },
    /// It contradicts the state.
    #[error("entry {index} of the controller contradicts what is known: {what}")]
    Contradiction {
        /// Its index.
        index: LogIndex,
        /// How.
        what: &'static str,
    },
}

/// What the cluster has decided about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Controller {
    /// The last entry of group 0 that has been seen.
    pub(super) applied: LogIndex,
    /// The last record that holds.
    pub(super) last_record: LogIndex,
    pub(super) nodes: BTreeMap<NodeId, NodeRegistration>,
    pub(super) topics: BTreeMap<TopicName, Topic>,
    /// Of the same topics.
    pub(super) names: BTreeMap<TopicId, TopicName>,
    /// Of their partitions.
    pub(super) groups: BTreeMap<GroupId, (TopicName, u32)>,
    /// How many groups were ever made, the controller's own not counted: the highest number of
    /// one.
    pub(super) groups_made: u64,
    /// The lowest producer id that was never given out.
    pub(super) next_producer_id: i64,
}

impl Controller {
    /// Nothing has been decided yet.
    #[must_use]
    pub fn new() -> Controller {
        Controller::default()
    }

    /// The last entry of group 0 that has been applied or passed over.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The last record that holds.
    #[must_use]
    pub fn last_record(&self) -> LogIndex {
        self.last_record
    }

    /// The nodes that have registered, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRegistration> {
        self.nodes.values()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<&NodeRegistration> {
        self.nodes.get(&node)
    }

    /// The topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    /// A topic. Takes any text, as clients send it.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// A topic by its id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(self.names.get(&id)?)
    }

    /// Which partition a group is.
    #[must_use]
    pub fn partition_of(&self, group: GroupId) -> Option<(&TopicName, u32)> {
        let (name, partition) = self.groups.get(&group)?;
        Some((name, *partition))
    }

    /// Every partition's group, ascending.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.keys().copied()
    }

    /// The number that the next group gets. What is below and not [there](Self::groups) was
    /// deleted.
    #[must_use]
    pub fn next_group(&self) -> GroupId {
        GroupId(self.groups_made + 1)
    }

    /// The lowest producer id that has not been given out.
    #[must_use]
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Passes over an entry of group 0 that is no record.
    ///
    /// # Panics
    ///
    /// If it is not the next one.
    pub fn pass(&mut self, index: LogIndex) {
        assert_eq!(index, self.applied.next(), "entries are applied in order");
        self.applied = index;
    }

    /// Applies the next committed record.
    ///
    /// # Errors
    ///
    /// [`ApplyError`] if that is not possible; the state must not be used any more then.
    ///
    /// # Panics
    ///
    /// If it is not the next entry.
    pub fn apply(&mut self, index: LogIndex, body: &[u8]) -> Result<Applied, ApplyError> {
        self.pass(index);
        let record =
            Record::decode(body).map_err(|error| ApplyError::Unreadable { index, error })?;
        if record.based_on != self.last_record {
            return Ok(Applied::Void);
        }
        self.last_record = index;
        let changes: Result<Vec<Change>, &'static str> =
            record.events.into_iter().map(|e| self.happen(e)).collect();
        changes
            .map(Applied::Changed)
            .map_err(|what| ApplyError::Contradiction { index, what })
    }

    /// Lets an event happen. What is wrong with it, if it cannot.
    pub(super) fn happen(&mut self, event: Event) -> Result<Change, &'static str> {
        match event {
            Event::NodeRegistered(node) => {
                let id = node.node;
                self.nodes.insert(id, node);
                Ok(Change::Node(id))
            }
            Event::TopicCreated(record) => self.create(record),
            Event::TopicDeleted { id } => self.delete(id).map(Change::TopicDeleted),
            Event::ConfigsChanged { id, configs } => {
                let name = self.names.get(&id).ok_or("configs of no topic")?;
                let topic = self.topics.get_mut(name).expect("names are of topics");
                topic.record.configs = configs;
                Ok(Change::ConfigsChanged(name.clone()))
            }
            Event::ProducerIds { node, first, count } => {
                if first != self.next_producer_id {
                    return Err("producer ids out of order");
                }
                self.next_producer_id = first
                    .checked_add(i64::from(count))
                    .ok_or("producer ids used up")?;
                Ok(Change::ProducerIds(node))
            }
        }
    }

    fn create(&mut self, record: TopicRecord) -> Result<Change, &'static str> {
        if self.topics.contains_key(&record.name) || self.names.contains_key(&record.id) {
            return Err("a topic twice");
        }
        let replication = record.partitions.first().map(|place| place.replicas.len());
        if replication.is_none_or(|replicas| replicas == 0) {
            return Err("a topic without partitions or replicas");
        }
        for (number, place) in (0..).zip(&record.partitions) {
            if place.group != self.next_group() {
                return Err("groups out of order");
            }
            if Some(place.replicas.len()) != replication {
                return Err("partitions of different replication");
            }
            self.groups_made += 1;
            self.groups
                .insert(place.group, (record.name.clone(), number));
        }
        self.index_topic(record.clone());
        Ok(Change::TopicCreated(record.name))
    }

    pub(super) fn index_topic(&mut self, record: TopicRecord) {
        self.names.insert(record.id, record.name.clone());
        self.topics.insert(record.name.clone(), Topic { record });
    }

    fn delete(&mut self, id: TopicId) -> Result<Topic, &'static str> {
        let name = self.names.remove(&id).ok_or("deletion of no topic")?;
        let topic = self.topics.remove(&name).expect("names are of topics");
        for place in topic.partitions() {
            self.groups.remove(&place.group);
        }
        Ok(topic)
    }
}
