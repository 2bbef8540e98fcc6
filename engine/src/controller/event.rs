//! What can happen to the cluster's metadata, and how it is written into group 0's log.
//!
//! A record is the body of one control entry. Little-endian; a text is a u32 length and UTF-8, a
//! list a u32 count and its elements. Version 1:
//!
//! | field | |
//! |---|---|
//! | version u16 | 1 |
//! | based on u64 | the index of the record that this one was decided upon, 0 if there was none |
//! | events list | |
//! | · kind u8 | |
//! | · 1 node registered | node u32, incarnation 16 bytes, boot u64, versions u16 u16, listeners list (name text, host text, port u16) |
//! | · 2 topic created | name text, id u128, partitions list (group u64, replicas list of u32), configs list (name text, value text) |
//! | · 3 topic deleted | id u128 |
//! | · 4 configs changed | id u128, configs list: all that the topic has of its own now |
//! | · 5 producer ids given out | node u32, first i64, count u32 |
//!
//! The entry's frame carries a checksum. A record that cannot be read was written by a newer
//! program, and a node that meets one stops.

use highwater_consensus::{LogIndex, NodeId};
use highwater_log::Incarnation;
use highwater_record::TopicName;

use super::state::TopicId;
use crate::codec::{Put, Take, Truncated};
use crate::config::{ConfigChange, TopicConfigs};
use crate::ops::GroupId;

/// The version of records that is written, and the only one that is read.
pub const RECORD_VERSION: u16 = 1;

/// The largest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// The most listeners of a node.
pub const LISTENERS_MAX: usize = 16;

/// The longest host or name of a listener, in bytes.
pub const HOST_BYTES_MAX: usize = 255;

/// Events that were decided together: all of them happen, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The record that they were decided upon: if it is not the last one any more, they are void.
    pub based_on: LogIndex,
    /// What happens.
    pub events: Vec<Event>,
}

/// Something that happens to the cluster's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A node says who and where it is, once per start.
    NodeRegistered(NodeRegistration),
    /// There is a topic.
    TopicCreated(TopicRecord),
    /// It is no more; its groups' numbers stay used.
    TopicDeleted {
        /// Which.
        id: TopicId,
    },
    /// A topic has other configs of its own.
    ConfigsChanged {
        /// Which.
        id: TopicId,
        /// All of them.
        configs: TopicConfigs,
    },
    /// A node may hand out these producer ids.
    ProducerIds {
        /// Which node.
        node: NodeId,
        /// The first id.
        first: i64,
        /// How many.
        count: u32,
    },
}

/// A node and where its clients find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRegistration {
    /// Its number.
    pub node: NodeId,
    /// Drawn when its data directory was formatted: another one is another node.
    pub incarnation: Incarnation,
    /// How often it was started.
    pub boot: u64,
    /// The lowest and highest version of records that it can read.
    pub record_versions: (u16, u16),
    /// Where its clients find it; the first is the one that metadata names.
    pub listeners: Vec<Listener>,
}

/// An address, as clients are to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What it is called in the configuration.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// TCP port, and UDP port for QUIC.
    pub port: u16,
}

/// A topic as it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRecord {
    /// Its name.
    pub name: TopicName,
    /// Its id, which no other topic ever has, of the same name or not.
    pub id: TopicId,
    /// By number.
    pub partitions: Vec<PartitionPlace>,
    /// What it has of its own.
    pub configs: TopicConfigs,
}

/// Where a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionPlace {
    /// Its group.
    pub group: GroupId,
    /// Its replicas in order of preference: the first is to lead when all are well.
    pub replicas: Vec<NodeId>,
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Of a version that this program does not know.
    #[error("controller record of version {0}; this program reads {RECORD_VERSION}")]
    Version(u16),
    /// An event that this program does not know.
    #[error("controller event of kind {0} is not known")]
    Kind(u8),
    /// The bytes end too early.
    #[error("controller record: {0}")]
    Truncated(#[from] Truncated),
    /// More bytes than events.
    #[error("{0} bytes follow the controller record")]
    TrailingBytes(usize),
    /// A value that nothing has.
    #[error("controller record: impossible {0}")]
    Impossible(&'static str),
}

mod kind {
    pub(super) const NODE_REGISTERED: u8 = 1;
    pub(super) const TOPIC_CREATED: u8 = 2;
    pub(super) const TOPIC_DELETED: u8 = 3;
    pub(super) const CONFIGS_CHANGED: u8 = 4;
    pub(super) const PRODUCER_IDS: u8 = 5;
}

impl Record {
    /// The record as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_u16(RECORD_VERSION);
        bytes.put_u64(self.based_on.0);
        bytes.put_count(self.events.len());
        for event in &self.events {
            event.encode(&mut bytes);
        }
        bytes
    }

    /// The record that [`encode`](Record::encode) has written.
    ///
    /// # Errors
    ///
    /// [`EventError`] if the bytes hold none.
    pub fn decode(mut bytes: &[u8]) -> Result<Record, EventError> {
        let from = &mut bytes;
        let version = from.take_u16()?;
        if version != RECORD_VERSION {
            return Err(EventError::Version(version));
        }
        let based_on = LogIndex(from.take_u64()?);
        let events = decode_list(from, 1, Event::decode)?;
        match bytes.len() {
            0 => Ok(Record { based_on, events }),
            left => Err(EventError::TrailingBytes(left)),
        }
    }
}

impl Event {
    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Event::NodeRegistered(node) => {
                bytes.put_u8(kind::NODE_REGISTERED);
                node.encode(bytes);
            }
            Event::TopicCreated(topic) => {
                bytes.put_u8(kind::TOPIC_CREATED);
                topic.encode(bytes);
            }
            Event::TopicDeleted { id } => {
                bytes.put_u8(kind::TOPIC_DELETED);
                bytes.put_u128(id.0);
            }
            Event::ConfigsChanged { id, configs } => {
                bytes.put_u8(kind::CONFIGS_CHANGED);
                bytes.put_u128(id.0);
                encode_configs(configs, bytes);
            }
            Event::ProducerIds { node, first, count } => {
                bytes.put_u8(kind::PRODUCER_IDS);
                bytes.put_u32(node.0);
                bytes.put_i64(*first);
                bytes.put_u32(*count);
            }
        }
    }

    fn decode(from: &mut &[u8]) -> Result<Event, EventError> {
        Ok(match from.take_u8()? {
            kind::NODE_REGISTERED => Event::NodeRegistered(NodeRegistration::decode(from)?),
            kind::TOPIC_CREATED => Event::TopicCreated(TopicRecord::decode(from)?),
            kind::TOPIC_DELETED => Event::TopicDeleted {
                id: TopicId(from.take_u128()?),
            },
            kind::CONFIGS_CHANGED => Event::ConfigsChanged {
                id: TopicId(from.take_u128()?),
                configs: decode_configs(from)?,
            },
            kind::PRODUCER_IDS => Event::ProducerIds {
                node: NodeId(from.take_u32()?),
                first: from.take_i64()?,
                count: from.take_u32()?,
            },
            unknown => return Err(EventError::Kind(unknown)),
        })
    }
}

impl NodeRegistration {
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.put_u32(self.node.0);
        bytes.put(&self.incarnation.0);
        bytes.put_u64(self.boot);
        bytes.put_u16(self.record_versions.0);
        bytes.put_u16(self.record_versions.1);
        bytes.put_count(self.listeners.len());
        for listener in &self.listeners {
            bytes.put_text(&listener.name);
            bytes.put_text(&listener.host);
            bytes.put_u16(listener.port);
        }
    }

    pub(crate) fn decode(from: &mut &[u8]) -> Result<NodeRegistration, EventError> {
        let registration = NodeRegistration {
            node: NodeId(from.take_u32()?),
            incarnation: Incarnation(from.take_array()?),
            boot: from.take_u64()?,
            record_versions: (from.take_u16()?, from.take_u16()?),
            listeners: decode_list(from, 4 + 4 + 2, Listener::decode)?,
        };
        if registration.listeners.len() > LISTENERS_MAX {
            return Err(EventError::Impossible("number of listeners"));
        }
        Ok(registration)
    }
}

impl Listener {
    fn decode(from: &mut &[u8]) -> Result<Listener, EventError> {
        let listener = Listener {
            name: take_text(from)?.to_owned(),
            host: take_text(from)?.to_owned(),
            port: from.take_u16()?,
        };
        if listener.name.len().max(listener.host.len()) > HOST_BYTES_MAX {
            return Err(EventError::Impossible("length of a host"));
        }
        Ok(listener)
    }
}

impl TopicRecord {
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.put_text(self.name.as_str());
        bytes.put_u128(self.id.0);
        bytes.put_count(self.partitions.len());
        for partition in &self.partitions {
            bytes.put_u64(partition.group.0);
            bytes.put_count(partition.replicas.len());
            for replica in &partition.replicas {
                bytes.put_u32(replica.0);
            }
        }
        encode_configs(&self.configs, bytes);
    }

    pub(super) fn decode(from: &mut &[u8]) -> Result<TopicRecord, EventError> {
        Ok(TopicRecord {
            name: TopicName::new(take_text(from)?)
                .map_err(|_| EventError::Impossible("topic name"))?,
            id: TopicId(from.take_u128()?),
            partitions: decode_list(from, 8 + 4, |from| {
                Ok(PartitionPlace {
                    group: GroupId(from.take_u64()?),
                    replicas: decode_list(from, 4, |from| Ok(NodeId(from.take_u32()?)))?,
                })
            })?,
            configs: decode_configs(from)?,
        })
    }
}

fn encode_configs(configs: &TopicConfigs, bytes: &mut Vec<u8>) {
    bytes.put_count(configs.own().count());
    for (name, value) in configs.own() {
        bytes.put_text(name);
        bytes.put_text(value);
    }
}

/// The majority that bounds `min.insync.replicas` was looked at when the configs were set, so any
/// number of replicas will do here.
const REPLICAS_ANY: usize = usize::MAX / 2;

fn decode_configs(from: &mut &[u8]) -> Result<TopicConfigs, EventError> {
    let mut configs = TopicConfigs::default();
    for _ in 0..from.take_count(4 + 4)? {
        let name = take_text(from)?;
        let value = take_text(from)?;
        configs
            .change(name, ConfigChange::Set(value), REPLICAS_ANY)
            .map_err(|_| EventError::Impossible("topic config"))?;
    }
    Ok(configs)
}

pub(super) fn decode_list<T>(
    from: &mut &[u8],
    bytes_min: usize,
    decode: impl Fn(&mut &[u8]) -> Result<T, EventError>,
) -> Result<Vec<T>, EventError> {
    // An element is no more than some ten times larger in memory than the least that it takes
    // here, so room is made as they come, not for all that are announced.
    let count = from.take_count(bytes_min)?;
    (0..count).map(|_| decode(from)).collect()
}

fn take_text<'a>(from: &mut &'a [u8]) -> Result<&'a str, EventError> {
    std::str::from_utf8(from.take_sized()?).map_err(|_| EventError::Impossible("text"))
}
