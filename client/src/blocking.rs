//! The client for programs without an async runtime: each call waits.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use highwater_client::{Client, Record, StartAt, TopicName, blocking};
//!
//! let client = blocking::Client::connect(Client::builder().bootstrap("127.0.0.1:9092").tcp())?;
//! let flights = TopicName::new("flights")?;
//! let producer = client.producer(|producer| producer);
//! let delivery = producer.send(Record::new(&flights).value("UA,1545"))?;
//! println!("acknowledged at offset {}", client.wait(delivery)?.offset);
//!
//! let mut consumer = client.consumer(|consumer| consumer);
//! consumer.assign_topic(&flights, StartAt::Earliest)?;
//! println!("{:?}", consumer.recv()?.value);
//! # Ok(())
//! # }
//! ```

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use highwater_record::{Offset, TopicName, TopicPartition};
use thiserror::Error;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::{
    CallError, ConsumeError, ConsumedRecord, ConsumerBuilder, Delivery, ProduceError,
    ProducerBuilder, Record, StartAt,
};

/// The client could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The system gave no thread, or not what an event loop needs.
    #[error("cannot start the client's thread: {0}")]
    Thread(#[from] io::Error),
    /// The cluster cannot be reached.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// The thread on which the async client runs; ends when the last user is dropped.
#[derive(Debug)]
struct Engine {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("highwater-client".to_owned())
            .spawn(move || {
                // An error says that the sender is gone, which means the same.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn wait<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread runs no code of the caller's that could panic.
            let _ = thread.join();
        }
    }
}

/// A client of one cluster. Must not be used on a thread of an async runtime.
#[derive(Debug, Clone)]
pub struct Client {
    client: crate::Client,
    engine: Arc<Engine>,
}

impl Client {
    /// Starts a thread for the client, and connects.
    ///
    /// # Errors
    /// [`StartError`] if the system or the cluster does not let it.
    pub fn connect(builder: crate::ClientBuilder) -> Result<Self, StartError> {
        let engine = Engine::start()?;
        let client = engine.wait(builder.connect())?;
        Ok(Self {
            client,
            engine: Arc::new(engine),
        })
    }

    /// A producer, configured by `configure`.
    #[must_use]
    pub fn producer(&self, configure: impl FnOnce(ProducerBuilder) -> ProducerBuilder) -> Producer {
        let builder = configure(self.client.producer());
        Producer {
            producer: self.engine.wait(async { builder.build() }),
            engine: Arc::clone(&self.engine),
        }
    }

    /// A consumer, configured by `configure`.
    #[must_use]
    pub fn consumer(&self, configure: impl FnOnce(ConsumerBuilder) -> ConsumerBuilder) -> Consumer {
        Consumer {
            consumer: configure(self.client.consumer()).build(),
            engine: Arc::clone(&self.engine),
        }
    }

    /// The async admin, whose futures [`Client::wait`] waits for.
    #[must_use]
    pub fn admin(&self) -> crate::Admin {
        self.client.admin()
    }

    /// Waits for a future of the async client: a [`Delivery`], or a task of
    /// [`Client::admin`].
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.engine.wait(future)
    }
}

/// Sends records.
#[derive(Debug, Clone)]
pub struct Producer {
    producer: crate::Producer,
    engine: Arc<Engine>,
}

impl Producer {
    /// Takes a record for sending; waits for metadata and memory only. See
    /// [`crate::Producer::send`].
    ///
    /// # Errors
    /// As [`crate::Producer::send`].
    pub fn send(&self, record: Record) -> Result<Delivery, ProduceError> {
        self.engine.wait(self.producer.send(record))
    }

    /// Waits until everything taken so far is acknowledged or given up.
    pub fn flush(&self) {
        self.engine.wait(self.producer.flush());
    }
}

/// Reads records.
#[derive(Debug)]
pub struct Consumer {
    consumer: crate::Consumer,
    engine: Arc<Engine>,
}

impl Consumer {
    /// Reads a partition too, from `start`.
    ///
    /// # Errors
    /// As [`crate::Consumer::assign`].
    pub fn assign(
        &mut self,
        partition: TopicPartition,
        start: StartAt,
    ) -> Result<(), ConsumeError> {
        self.engine.wait(self.consumer.assign(partition, start))
    }

    /// Reads all partitions of a topic too, from `start`.
    ///
    /// # Errors
    /// As [`crate::Consumer::assign_topic`].
    pub fn assign_topic(&mut self, topic: &TopicName, start: StartAt) -> Result<(), ConsumeError> {
        self.engine.wait(self.consumer.assign_topic(topic, start))
    }

    /// Goes on at another place.
    ///
    /// # Errors
    /// As [`crate::Consumer::seek`].
    pub fn seek(&mut self, partition: &TopicPartition, to: StartAt) -> Result<(), ConsumeError> {
        self.consumer.seek(partition, to)
    }

    /// The offset of the next record that is given out, if it is known yet.
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.consumer.position(partition)
    }

    /// The next record; waits for one.
    ///
    /// # Errors
    /// As [`crate::Consumer::recv`].
    pub fn recv(&mut self) -> Result<ConsumedRecord, ConsumeError> {
        self.engine.wait(self.consumer.recv())
    }

    /// The next record, if one comes in time.
    ///
    /// # Errors
    /// As [`crate::Consumer::recv`].
    pub fn recv_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<ConsumedRecord>, ConsumeError> {
        let received = self
            .engine
            .wait(async { tokio::time::timeout(timeout, self.consumer.recv()).await });
        received.ok().transpose()
    }
}
