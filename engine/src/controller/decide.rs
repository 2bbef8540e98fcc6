//! Commands: what is asked of the controller, and what it decides.

use std::collections::BTreeSet;

use highwater_consensus::NodeId;
use highwater_record::TopicName;

use super::event::{
    Event, HOST_BYTES_MAX, LISTENERS_MAX, NodeRegistration, PartitionPlace, RECORD_BYTES_MAX,
    RECORD_VERSION, Record, TopicRecord,
};
use super::placement::Placement;
use super::state::{Controller, Topic, TopicId};
use crate::config::{ConfigChange, ConfigError, TopicConfigs};
use crate::ops::GroupId;

/// The most topics of a cluster.
pub const TOPICS_MAX: usize = 50_000;

/// The most partitions of a cluster.
pub const PARTITIONS_MAX: usize = 200_000;

/// The most partitions that one command may create.
pub const PARTITIONS_PER_COMMAND_MAX: usize = 1_000;

/// The most nodes of a cluster.
const NODES_MAX: usize = 1_000;

/// How many producer ids a node gets at once.
pub const PRODUCER_IDS_PER_BLOCK: u32 = 1_000;

/// Something asked of the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A node says who and where it is. Answered by [`Answer::Registered`].
    Register(NodeRegistration),
    /// Create topics. Answered by [`Answer::Created`].
    CreateTopics {
        /// Which.
        topics: Vec<NewTopic>,
        /// Only say whether it could be done.
        validate_only: bool,
    },
    /// Delete topics. Answered by [`Answer::Deleted`].
    DeleteTopics {
        /// Which.
        topics: Vec<TopicRef>,
    },
    /// Change topics' configs. Answered by [`Answer::Altered`].
    AlterConfigs {
        /// By topic.
        topics: Vec<ConfigChanges>,
        /// Only say whether it could be done.
        validate_only: bool,
    },
    /// Give producer ids to a node. Answered by [`Answer::ProducerIds`].
    ProducerIds {
        /// Which.
        node: NodeId,
    },
}

impl Command {
    /// Whether it leaves the number of a topic's replicas to the cluster, and fewer nodes than
    /// that have registered.
    #[must_use]
    pub fn lacks_nodes(&self, defaults: &ClusterDefaults, state: &Controller) -> bool {
        let Command::CreateTopics { topics, .. } = self else {
            return false;
        };
        let wanted = topics
            .iter()
            .filter_map(|it| it.default_replication(defaults));
        wanted.max() > Some(state.nodes().count())
    }
}

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name as sent.
    pub name: String,
    /// How many partitions; -1 for the default.
    pub partitions: i32,
    /// How many replicas of each; -1 for the default.
    pub replication: i16,
    /// Where they are to be, if the asker has chosen; both numbers are -1 then.
    pub assignment: Vec<AssignedReplicas>,
    /// What it is to have of its own, as sent.
    pub configs: Vec<(String, Option<String>)>,
}

/// A partition's replicas as somebody chose them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedReplicas {
    /// The partition as sent.
    pub partition: i32,
    /// The nodes as sent, in order of preference.
    pub replicas: Vec<i32>,
}

impl NewTopic {
    /// How many replicas the cluster's default gives it, if that is to decide.
    fn default_replication(&self, defaults: &ClusterDefaults) -> Option<usize> {
        let is_open = self.replication == -1 && self.assignment.is_empty();
        is_open.then(|| usize::from(defaults.replication))
    }
}

/// A topic by either of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicRef {
    /// By name, as sent.
    Name(String),
    /// By id.
    Id(TopicId),
}

/// Changes to one topic's configs, which happen together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChanges {
    /// The topic's name as sent.
    pub topic: String,
    /// Config and change.
    pub changes: Vec<(String, OwnedConfigChange)>,
}

/// A [`ConfigChange`] that owns its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnedConfigChange {
    /// See [`ConfigChange::Set`].
    Set(String),
    /// See [`ConfigChange::Unset`].
    Unset,
    /// See [`ConfigChange::Append`].
    Append(String),
    /// See [`ConfigChange::Subtract`].
    Subtract(String),
}

impl OwnedConfigChange {
    fn borrow(&self) -> ConfigChange<'_> {
        match self {
            OwnedConfigChange::Set(value) => ConfigChange::Set(value),
            OwnedConfigChange::Unset => ConfigChange::Unset,
            OwnedConfigChange::Append(value) => ConfigChange::Append(value),
            OwnedConfigChange::Subtract(value) => ConfigChange::Subtract(value),
        }
    }
}

/// What the cluster's configuration says where a command leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterDefaults {
    /// Partitions of a topic, 1 at least.
    pub partitions: u32,
    /// Replicas of a partition, no more than the cluster has members. With fewer a topic is not
    /// created: nobody would notice that it is not what the cluster promises.
    pub replication: u16,
}

impl Default for ClusterDefaults {
    fn default() -> ClusterDefaults {
        ClusterDefaults {
            partitions: 1,
            replication: 3,
        }
    }
}

/// What came of a command, once its events are committed. Lists have an element for each of the
/// command's, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Whether the node is registered.
    Registered(Result<(), Refusal>),
    /// The topics, or why not.
    Created(Vec<Result<CreatedTopic, Refusal>>),
    /// The topics that were deleted, or why not.
    Deleted(Vec<Result<(TopicName, TopicId), Refusal>>),
    /// Whether the configs are changed.
    Altered(Vec<Result<(), Refusal>>),
    /// The ids.
    ProducerIds {
        /// The first.
        first: i64,
        /// How many.
        count: u32,
    },
}

/// A topic that was created, or could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its name.
    pub name: TopicName,
    /// Its id.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: usize,
    /// How many replicas of each.
    pub replication: usize,
    /// Its configs.
    pub configs: TopicConfigs,
}

/// Why a part of a command was refused; nothing came of that part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of reason it is.
    pub reason: RefusalReason,
    /// For people.
    pub message: String,
}

/// Kinds of reasons, as clients tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// No topic may have this name.
    InvalidTopic,
    /// There is a topic of this name.
    TopicExists,
    /// There is none of this name.
    UnknownTopic,
    /// There is none of this id.
    UnknownTopicId,
    /// The number of partitions cannot be.
    InvalidPartitions,
    /// The number of replicas cannot be, or not yet.
    InvalidReplication,
    /// The replicas cannot be where they are wanted.
    InvalidAssignment,
    /// A config is unknown or has an impossible value.
    InvalidConfig,
    /// The command contradicts itself.
    InvalidRequest,
    /// A limit would be exceeded.
    Limit,
    /// The node is not who it was.
    Identity,
}

/// What follows from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What is to happen; `None` if nothing.
    pub record: Option<Record>,
    /// What to answer once it has.
    pub answer: Answer,
}

fn refuse(reason: RefusalReason, message: impl Into<String>) -> Refusal {
    Refusal {
        reason,
        message: message.into(),
    }
}

impl Controller {
    /// Decides upon a command. Changes nothing: what follows is to be committed first.
    ///
    /// New topics get their ids from `random`.
    #[must_use]
    pub fn decide(
        &self,
        command: &Command,
        defaults: &ClusterDefaults,
        random: &mut fastrand::Rng,
    ) -> Decision {
        let (events, answer) = match command {
            Command::Register(node) => self.decide_register(node),
            Command::CreateTopics {
                topics,
                validate_only,
            } => {
                let mut creation = Creation::new(self, topics, defaults, random);
                let answers = topics.iter().map(|topic| creation.create(topic)).collect();
                let events = if *validate_only {
                    Vec::new()
                } else {
                    creation.events
                };
                (events, Answer::Created(answers))
            }
            Command::DeleteTopics { topics } => self.decide_delete(topics),
            Command::AlterConfigs {
                topics,
                validate_only,
            } => {
                let (events, answer) = self.decide_alter(topics);
                (if *validate_only { Vec::new() } else { events }, answer)
            }
            Command::ProducerIds { node } => self.decide_producer_ids(*node),
        };
        let record = (!events.is_empty()).then_some(Record {
            based_on: self.last_record(),
            events,
        });
        Decision { record, answer }
    }

    fn decide_register(&self, node: &NodeRegistration) -> (Vec<Event>, Answer) {
        let known = self.node(node.node);
        let refusal = registration_refusal(node, known, self.nodes.len());
        let events = match refusal {
            None if known != Some(node) => vec![Event::NodeRegistered(node.clone())],
            _ => Vec::new(),
        };
        (events, Answer::Registered(refusal.map_or(Ok(()), Err)))
    }

    fn decide_delete(&self, topics: &[TopicRef]) -> (Vec<Event>, Answer) {
        let mut deleted = BTreeSet::new();
        let mut answers = Vec::with_capacity(topics.len());
        for topic in topics {
            let found = self.find(topic).and_then(|topic| {
                if deleted.insert(topic.id()) {
                    Ok((topic.name().clone(), topic.id()))
                } else {
                    Err(refuse(
                        RefusalReason::InvalidRequest,
                        "the topic is named twice",
                    ))
                }
            });
            answers.push(found);
        }
        let events = deleted.into_iter().map(|id| Event::TopicDeleted { id });
        (events.collect(), Answer::Deleted(answers))
    }

    fn find(&self, topic: &TopicRef) -> Result<&Topic, Refusal> {
        match topic {
            TopicRef::Name(name) => self
                .topic(name)
                .ok_or_else(|| refuse(RefusalReason::UnknownTopic, "there is no such topic")),
            TopicRef::Id(id) => self
                .topic_by_id(*id)
                .ok_or_else(|| refuse(RefusalReason::UnknownTopicId, "there is no such topic")),
        }
    }

    fn decide_alter(&self, topics: &[ConfigChanges]) -> (Vec<Event>, Answer) {
        let mut events = Vec::new();
        let mut seen = BTreeSet::new();
        let mut answers = Vec::with_capacity(topics.len());
        for changes in topics {
            let altered = if seen.insert(&changes.topic) {
                self.alter(changes)
            } else {
                Err(refuse(
                    RefusalReason::InvalidRequest,
                    "the topic is named twice",
                ))
            };
            answers.push(altered.map(|event| events.extend(event)));
        }
        (events, Answer::Altered(answers))
    }

    fn alter(&self, changes: &ConfigChanges) -> Result<Option<Event>, Refusal> {
        let topic = self.find(&TopicRef::Name(changes.topic.clone()))?;
        let mut configs = topic.configs().clone();
        let mut seen = BTreeSet::new();
        for (name, change) in &changes.changes {
            if !seen.insert(name) {
                return Err(refuse(
                    RefusalReason::InvalidRequest,
                    format!("{name} twice"),
                ));
            }
            configs.change(name, change.borrow(), topic.replication())?;
        }
        let id = topic.id();
        let changed = configs != *topic.configs();
        Ok(changed.then_some(Event::ConfigsChanged { id, configs }))
    }

    fn decide_producer_ids(&self, node: NodeId) -> (Vec<Event>, Answer) {
        let first = self.next_producer_id();
        let count = PRODUCER_IDS_PER_BLOCK;
        let event = Event::ProducerIds { node, first, count };
        (vec![event], Answer::ProducerIds { first, count })
    }
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Refusal {
        refuse(RefusalReason::InvalidConfig, error.to_string())
    }
}

fn registration_refusal(
    node: &NodeRegistration,
    known: Option<&NodeRegistration>,
    nodes: usize,
) -> Option<Refusal> {
    let too_long = |text: &String| text.len() > HOST_BYTES_MAX;
    let listeners = &node.listeners;
    if listeners.is_empty()
        || listeners.len() > LISTENERS_MAX
        || listeners
            .iter()
            .any(|l| too_long(&l.name) || too_long(&l.host))
    {
        let message = format!("a node has 1 to {LISTENERS_MAX} listeners with short names");
        return Some(refuse(RefusalReason::InvalidRequest, message));
    }
    let (lowest, highest) = node.record_versions;
    if !(lowest..=highest).contains(&RECORD_VERSION) {
        let message = format!("records of version {RECORD_VERSION} cannot be read there");
        return Some(refuse(RefusalReason::Identity, message));
    }
    let Some(known) = known else {
        let full = nodes >= NODES_MAX;
        return full.then(|| refuse(RefusalReason::Limit, format!("{NODES_MAX} nodes at most")));
    };
    if known.incarnation != node.incarnation {
        let message = format!(
            "node {} was formatted anew ({}, known as {}): it has forgotten its promises",
            node.node, node.incarnation, known.incarnation
        );
        return Some(refuse(RefusalReason::Identity, message));
    }
    (node.boot < known.boot).then(|| {
        let message = format!(
            "node {} starts for the {}th time after its {}th: its disk is an old copy",
            node.node, node.boot, known.boot
        );
        refuse(RefusalReason::Identity, message)
    })
}

/// The creation of several topics at once.
struct Creation<'a> {
    state: &'a Controller,
    defaults: &'a ClusterDefaults,
    random: &'a mut fastrand::Rng,
    placement: Placement,
    /// Names that the command has more than once, as nobody knows which was meant.
    doubled: BTreeSet<&'a str>,
    next_group: GroupId,
    topics: usize,
    partitions: usize,
    record_bytes: usize,
    events: Vec<Event>,
}

/// Bytes of a record in front of its events, and then some.
const RECORD_HEADER_BYTES: usize = 64;

impl<'a> Creation<'a> {
    fn new(
        state: &'a Controller,
        topics: &'a [NewTopic],
        defaults: &'a ClusterDefaults,
        random: &'a mut fastrand::Rng,
    ) -> Creation<'a> {
        let mut seen = BTreeSet::new();
        let names = topics.iter().map(|topic| topic.name.as_str());
        Creation {
            state,
            defaults,
            random,
            placement: Placement::new(state),
            doubled: names.filter(|name| !seen.insert(*name)).collect(),
            next_group: state.next_group(),
            topics: state.topics.len(),
            partitions: 0,
            record_bytes: RECORD_HEADER_BYTES,
            events: Vec::new(),
        }
    }

    fn create(&mut self, new: &NewTopic) -> Result<CreatedTopic, Refusal> {
        let name = TopicName::new(&new.name)
            .map_err(|error| refuse(RefusalReason::InvalidTopic, error.to_string()))?;
        if self.doubled.contains(new.name.as_str()) {
            let message = "the topic is named twice";
            return Err(refuse(RefusalReason::InvalidRequest, message));
        }
        if self.state.topics.contains_key(&name) {
            let message = format!("topic '{name}' already exists");
            return Err(refuse(RefusalReason::TopicExists, message));
        }
        let (partitions, replication) = self.shape(new)?;
        self.check_room(partitions)?;
        let configs = own_configs(new, replication)?;
        let replicas = self.replicas(new, partitions, replication)?;
        let record = self.record(name, replicas, configs);
        let bytes = encoded_bytes(&record);
        if self.record_bytes + bytes > RECORD_BYTES_MAX {
            let message = "too many topics at once: their record becomes too large";
            return Err(refuse(RefusalReason::Limit, message));
        }
        self.record_bytes += bytes;
        self.topics += 1;
        self.partitions += partitions;
        self.next_group = GroupId(self.next_group.0 + u64::try_from(partitions).expect("few"));
        let created = CreatedTopic {
            name: record.name.clone(),
            id: record.id,
            partitions,
            replication,
            configs: record.configs.clone(),
        };
        self.events.push(Event::TopicCreated(record));
        Ok(created)
    }

    /// How many partitions and replicas of each.
    fn shape(&self, new: &NewTopic) -> Result<(usize, usize), Refusal> {
        if !new.assignment.is_empty() {
            if (new.partitions, new.replication) != (-1, -1) {
                let message = "with replicas assigned, both numbers must be -1";
                return Err(refuse(RefusalReason::InvalidRequest, message));
            }
            return Ok((new.assignment.len(), new.assignment[0].replicas.len()));
        }
        let partitions = match new.partitions {
            -1 => Some(self.defaults.partitions),
            count => u32::try_from(count).ok(),
        };
        let partitions = partitions
            .filter(|&count| count > 0)
            .and_then(|count| usize::try_from(count).ok())
            .ok_or_else(|| {
                let message = format!("{} partitions: must be 1 or more", new.partitions);
                refuse(RefusalReason::InvalidPartitions, message)
            })?;
        Ok((partitions, self.replication(new.replication)?))
    }

    fn replication(&self, asked: i16) -> Result<usize, Refusal> {
        let nodes = self.placement.nodes();
        let replication = match asked {
            -1 => usize::from(self.defaults.replication),
            count => usize::try_from(count).unwrap_or(0),
        };
        if (1..=nodes).contains(&replication) {
            return Ok(replication);
        }
        let message = format!("{replication} replicas: {nodes} nodes have joined the cluster");
        Err(refuse(RefusalReason::InvalidReplication, message))
    }

    fn check_room(&self, partitions: usize) -> Result<(), Refusal> {
        let limit = |message: String| Err(refuse(RefusalReason::Limit, message));
        if self.partitions.saturating_add(partitions) > PARTITIONS_PER_COMMAND_MAX {
            return limit(format!(
                "at most {PARTITIONS_PER_COMMAND_MAX} partitions at once"
            ));
        }
        if self.topics >= TOPICS_MAX {
            return limit(format!("a cluster has at most {TOPICS_MAX} topics"));
        }
        if self.state.groups.len() + self.partitions + partitions > PARTITIONS_MAX {
            return limit(format!("a cluster has at most {PARTITIONS_MAX} partitions"));
        }
        Ok(())
    }

    fn replicas(
        &mut self,
        new: &NewTopic,
        partitions: usize,
        replication: usize,
    ) -> Result<Vec<Vec<NodeId>>, Refusal> {
        if new.assignment.is_empty() {
            let place = |_| self.placement.place(replication);
            return Ok((0..partitions).map(place).collect());
        }
        let mut assigned = new.assignment.clone();
        assigned.sort_by_key(|assigned| assigned.partition);
        let mut replicas = Vec::with_capacity(partitions);
        for (number, partition) in (0..).zip(&assigned) {
            replicas.push(self.assigned(number, partition, replication)?);
        }
        for partition in &replicas {
            self.placement.count(partition);
        }
        Ok(replicas)
    }

    fn assigned(
        &self,
        number: i32,
        assigned: &AssignedReplicas,
        replication: usize,
    ) -> Result<Vec<NodeId>, Refusal> {
        let wrong = |what: &str| {
            let message = format!("partition {}: {what}", assigned.partition);
            Err(refuse(RefusalReason::InvalidAssignment, message))
        };
        if assigned.partition != number {
            return wrong("partitions must be numbered from 0, each once");
        }
        if assigned.replicas.len() != replication || replication == 0 {
            return wrong("every partition must have the same number of replicas, 1 or more");
        }
        let mut replicas = Vec::with_capacity(replication);
        for &replica in &assigned.replicas {
            let node = u32::try_from(replica).map(NodeId);
            match node {
                Ok(node) if !self.placement.has(node) => return wrong("no such node"),
                Ok(node) if replicas.contains(&node) => return wrong("a node is named twice"),
                Ok(node) => replicas.push(node),
                Err(_) => return wrong("no such node"),
            }
        }
        Ok(replicas)
    }

    fn record(
        &mut self,
        name: TopicName,
        replicas: Vec<Vec<NodeId>>,
        configs: TopicConfigs,
    ) -> TopicRecord {
        let groups = (self.next_group.0..).map(GroupId);
        let partitions = groups
            .zip(replicas)
            .map(|(group, replicas)| PartitionPlace { group, replicas });
        TopicRecord {
            name,
            id: self.unused_id(),
            partitions: partitions.collect(),
            configs,
        }
    }

    /// An id that no topic has. Chance repeats itself where a machine is started twice from one
    /// image, and a topic twice in the controller's log would end every node that reads it.
    fn unused_id(&mut self) -> TopicId {
        loop {
            let id = random_id(self.random);
            if !self.state.names.contains_key(&id) {
                return id;
            }
        }
    }
}

fn own_configs(new: &NewTopic, replication: usize) -> Result<TopicConfigs, Refusal> {
    let mut configs = TopicConfigs::default();
    let mut seen = BTreeSet::new();
    for (name, value) in &new.configs {
        let Some(value) = value else {
            let message = format!("{name}: a config cannot be null");
            return Err(refuse(RefusalReason::InvalidConfig, message));
        };
        if !seen.insert(name) {
            return Err(refuse(
                RefusalReason::InvalidRequest,
                format!("{name} twice"),
            ));
        }
        configs.change(name, ConfigChange::Set(value), replication)?;
    }
    Ok(configs)
}

fn encoded_bytes(topic: &TopicRecord) -> usize {
    let mut bytes = Vec::new();
    topic.encode(&mut bytes);
    bytes.len()
}

/// A random UUID of version 4 (RFC 9562, section 5.4).
fn random_id(random: &mut fastrand::Rng) -> TopicId {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    TopicId(random.u128(..) & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62)
}
