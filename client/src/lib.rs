//! Producer, consumer and admin for Highwater, and for any other broker that speaks Kafka's
//! protocol.
//!
//! A [`Client`] stands for a cluster. From it come a [`Producer`], [`Consumer`]s and an
//! [`Admin`]. All are async and run on the caller's tokio runtime; programs without one use
//! [`blocking`].
//!
//! They find the leader of each partition, follow it when it changes, try again what may be tried
//! again, and say in typed errors what happened: see [`ProduceError`] for what is known about a
//! record that was not acknowledged.

mod admin;
pub mod blocking;
mod client;
mod cluster;
mod connection;
mod consumer;
mod error;
mod offsets;
mod producer;
mod quic;
mod quorum;
mod transport;

pub use admin::{Admin, ClusterDescription, ConfigChange, ConfigEntry, NewTopic};
pub use client::{Client, ClientBuilder};
pub use cluster::{Broker, PartitionDescription, TopicDescription};
pub use consumer::{ConsumedRecord, Consumer, ConsumerBuilder, OutOfRange, StartAt};
pub use error::{
    AdminError, CallError, ConnectError, ConsumeError, IoFailure, MetadataError, ProduceError,
};
pub use producer::{Delivery, Producer, ProducerBuilder, Receipt, Record, partition_of_key};
pub use quic::Quic;
pub use quorum::{QuorumDescription, ReplicaProgress};
pub use transport::{ChunkWriter, Link, Tcp, Transport};

pub use highwater_net::{Datagrams, Trust};
pub use highwater_protocol::{ApiKey, ErrorCode};
pub use highwater_record::{Compression, InvalidTopicName, Offset, TopicName, TopicPartition};
