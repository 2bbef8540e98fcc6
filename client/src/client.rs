//! Where everything starts: which cluster, and how to reach it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use highwater_net::{Datagrams, Trust};
use highwater_protocol::messages::StrBytes;

use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::connection::ConnectionOptions;
use crate::consumer::ConsumerBuilder;
use crate::error::{CallError, ConnectError};
use crate::producer::ProducerBuilder;
use crate::quic::Quic;
use crate::transport::{Tcp, Transport};

/// A client of one cluster. Cheap to clone; clones share metadata and connections, which close
/// when the last clone and everything made from it is dropped.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use highwater_client::{Client, Record, TopicName};
///
/// let client = Client::builder().bootstrap("127.0.0.1:9092").tcp().connect().await?;
/// let producer = client.producer().build();
/// let flights = TopicName::new("flights")?;
/// let delivery = producer.send(Record::new(&flights).key("UA").value("UA,1545")).await?;
/// println!("acknowledged at offset {}", delivery.await?.offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) cluster: Arc<Cluster>,
}

/// How much freed memory the C library's allocator is to keep, about, in bytes a thread: two
/// answers to fetches, as large as they are asked for by default.
const ALLOCATOR_KEEPS: usize = 32 << 20;

/// Says which cluster, and how to reach it. Made by [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    bootstrap: Vec<String>,
    transport: Choice,
    datagrams: Datagrams,
    client_id: String,
    connect_timeout: Duration,
    request_timeout: Duration,
    allow_auto_topic_creation: bool,
}

/// How brokers are reached.
#[derive(Debug, Clone)]
enum Choice {
    /// By QUIC, trusting the authority in this file, or else in that of [`CA_VARIABLE`].
    Quic {
        ca: Option<PathBuf>,
    },
    Given(Arc<dyn Transport>),
}

/// The environment variable that names the file of the authority to trust.
const CA_VARIABLE: &str = "HIGHWATER_CA";

impl Choice {
    fn make(self, datagrams: Datagrams) -> Result<Arc<dyn Transport>, ConnectError> {
        let ca = match self {
            Self::Given(transport) => return Ok(transport),
            Self::Quic { ca } => ca.or_else(|| std::env::var_os(CA_VARIABLE).map(PathBuf::from)),
        };
        let path = ca.ok_or(ConnectError::NoTrust)?;
        let unusable = |reason: &dyn std::fmt::Display| ConnectError::Trust {
            path: path.clone(),
            reason: reason.to_string(),
        };
        let trust = Trust::read(&path).map_err(|error| unusable(&error))?;
        Quic::shared_with(&trust, datagrams).map_err(|error| unusable(&error))
    }
}

impl Client {
    /// Begins to say which cluster.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            bootstrap: Vec::new(),
            transport: Choice::Quic { ca: None },
            datagrams: Datagrams::default(),
            client_id: "highwater".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            allow_auto_topic_creation: true,
        }
    }

    /// Begins to configure a producer.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(Arc::clone(&self.cluster))
    }

    /// Begins to configure a consumer.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(Arc::clone(&self.cluster))
    }

    /// Topics, configurations, offsets.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.cluster))
    }
}

impl ClientBuilder {
    /// Adds addresses to start from: `host:port`, several separated by commas. One that answers
    /// is enough; the others are found through it.
    pub fn bootstrap(mut self, addresses: &str) -> Self {
        let addresses = addresses.split(',').map(str::trim);
        self.bootstrap
            .extend(addresses.filter(|a| !a.is_empty()).map(str::to_owned));
        self
    }

    /// Talks QUIC, and trusts brokers whose certificates the authority in this PEM file has
    /// signed: `ca.pem` of the cluster.
    ///
    /// Default: QUIC, with the file that the environment variable `HIGHWATER_CA` names.
    pub fn quic(mut self, ca: impl Into<PathBuf>) -> Self {
        self.transport = Choice::Quic {
            ca: Some(ca.into()),
        };
        self
    }

    /// The largest UDP payloads to try towards brokers, where it talks QUIC. Default: right for
    /// Ethernet and the Internet.
    pub fn datagrams(mut self, datagrams: Datagrams) -> Self {
        self.datagrams = datagrams;
        self
    }

    /// Talks plain TCP, as every Kafka broker does.
    pub fn tcp(self) -> Self {
        self.transport(Tcp::shared())
    }

    /// Talks over a transport of its own, such as a [`Quic`] whose trust is no file.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Choice::Given(transport);
        self
    }

    /// The name that brokers see, for their logs and quotas. Default: `highwater`.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = client_id.into();
        self
    }

    /// How long connecting to a broker may take, handshake included. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a broker may take to answer. When it does not, the connection is given up.
    /// Default: 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Whether asking for a topic may create it, where the cluster allows that. Default: yes.
    pub fn allow_auto_topic_creation(mut self, allow: bool) -> Self {
        self.allow_auto_topic_creation = allow;
        self
    }

    /// Connects and learns the brokers of the cluster.
    ///
    /// Runs on the calling tokio runtime, and so does everything made from the client. Has glibc's
    /// allocator, if that is the program's, keep some 32 MiB of freed memory a thread: records come
    /// and go by megabytes, and to fault their pages in anew each time took a consumer a third of its
    /// time.
    ///
    /// # Errors
    /// [`CallError`] if an address is none, or no broker can be reached.
    pub async fn connect(self) -> Result<Client, CallError> {
        if self.bootstrap.is_empty() {
            return Err(ConnectError::NoBootstrap.into());
        }
        highwater_record::let_allocator_keep(ALLOCATOR_KEEPS);
        let bootstrap = self
            .bootstrap
            .iter()
            .map(|address| split_address(address))
            .collect::<Result<_, _>>()?;
        let options = ConnectionOptions {
            client_id: StrBytes::from_string(self.client_id),
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
        };
        let cluster = Cluster::new(
            options,
            self.transport.make(self.datagrams)?,
            bootstrap,
            self.allow_auto_topic_creation,
        );
        cluster.refresh(&[]).await?;
        Ok(Client {
            cluster: Arc::new(cluster),
        })
    }
}

/// `host:port`, with brackets round an IPv6 address.
fn split_address(address: &str) -> Result<(String, u16), ConnectError> {
    let malformed = || ConnectError::Address {
        address: address.to_owned(),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port = port.parse().map_err(|_| malformed())?;
    if host.is_empty() {
        return Err(malformed());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is handed to `tokio::spawn` must be able to move between threads.
    #[test]
    fn everything_moves_between_threads() {
        fn is_send<T: Send>() {}
        fn is_sync<T: Sync>() {}
        fn is_send_value<T: Send>(_: &T) {}
        is_send::<Client>();
        is_sync::<Client>();
        is_send::<crate::Producer>();
        is_sync::<crate::Producer>();
        is_send::<crate::Delivery>();
        is_send::<crate::Consumer>();
        let _ = |producer: crate::Producer, record: crate::Record| {
            is_send_value(&producer.send(record));
            is_send_value(&producer.flush());
        };
        let _ = |mut consumer: crate::Consumer| is_send_value(&consumer.recv());
    }

    #[test]
    fn addresses_are_host_and_port() {
        let good = |address: &str| split_address(address).unwrap();
        assert_eq!(good("localhost:9092"), ("localhost".to_owned(), 9092));
        assert_eq!(good("[::1]:9092"), ("::1".to_owned(), 9092));
        for bad in ["localhost", ":9092", "localhost:", "localhost:70000"] {
            assert!(split_address(bad).is_err(), "{bad}");
        }
    }
}
