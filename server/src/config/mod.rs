//! Configuration: one TOML file, environment variables, and flags.
//!
//! Later layers win: defaults, the file, `HIGHWATER_*` variables, `--set key=value`. Every
//! option has one row in [`options::OPTIONS`], from which `docs/config.md` is generated and
//! which a test compares with [`Config`].

mod layers;
mod options;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use highwater_net::Datagrams;
use serde::{Deserialize, Serialize};

pub use layers::{Layers, Origin};
pub use options::{OPTIONS, OptionDoc, reference_page};

/// Everything a node is told from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Accept clients from other machines although they are neither encrypted nor authenticated.
    pub insecure_no_auth: bool,
    /// What carries the links between nodes; the same on all of them.
    pub peer_transport: PeerTransport,
    /// This node.
    pub node: NodeSection,
    /// Where it listens.
    pub listen: ListenSection,
    /// Its keys and whom it trusts.
    pub tls: TlsSection,
    /// What its packets over QUIC are like.
    pub quic: QuicSection,
    /// What new topics get.
    pub topics: TopicsSection,
    /// Bounds.
    pub limits: LimitsSection,
    /// Who else is in the cluster, and where; filled by `highwater init`.
    pub cluster: ClusterSection,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSection {
    /// Its id in the cluster, from 0.
    pub id: u32,
    /// The formatted data directory, made by `highwater init`.
    pub data_dir: PathBuf,
    /// Threads that each own a part of the partitions; 0 chooses by the number of cores.
    pub shards: u16,
    /// How the disk is written.
    pub storage: StorageChoice,
    /// Read sealed files through mappings rather than with `pread`.
    pub map_sealed: bool,
    /// How much of files that nobody needs is kept to be recycled, in bytes, over all shards.
    pub recycle_bytes: u64,
    /// How much of sealed files is read again in a second, over all shards; 0: nothing.
    pub scrub_bytes_per_second: u64,
    /// How long a pass over all of them takes at least, in seconds.
    pub scrub_interval_s: u64,
}

/// What carries the links between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerTransport {
    /// QUIC, over UDP.
    #[default]
    Quic,
    /// TCP with TLS 1.3 in it.
    Tcp,
}

/// How the disk is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageChoice {
    /// io_uring where the kernel and the file system allow it, else portable.
    Auto,
    /// io_uring, or refuse to start.
    Uring,
    /// Plain system calls on threads.
    Portable,
}

/// Where the node listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSection {
    /// Kafka's protocol over TCP, and over QUIC on the same number of UDP.
    pub kafka: SocketAddr,
    /// The other nodes, over UDP or TCP as `peer_transport` says, with mutual TLS.
    pub peer: SocketAddr,
    /// Metrics in Prometheus' text format, over HTTP; loopback only.
    pub metrics: SocketAddr,
    /// The host name or address that clients are told; empty: the one of `listen.kafka`.
    pub advertised_host: String,
}

/// Keys and trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// The cluster's CA certificate.
    pub ca: PathBuf,
    /// This node's certificate, which carries cluster id, node id and incarnation.
    pub certificate: PathBuf,
    /// Its key, readable by the owner alone.
    pub key: PathBuf,
    /// The certificate shown to clients over QUIC.
    pub client_certificate: PathBuf,
    /// Its key, readable by the owner alone.
    pub client_key: PathBuf,
}

/// QUIC, between nodes and with clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuicSection {
    /// The largest UDP payload that is tried towards other machines, in bytes.
    pub datagram_bytes: u16,
    /// The same towards this machine.
    pub loopback_datagram_bytes: u16,
}

/// What new topics get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopicsSection {
    /// Make a topic when a client first asks for it.
    pub auto_create: bool,
    /// Partitions of a topic whose creator does not say.
    pub default_partitions: u32,
    /// Replicas of a partition whose creator does not say; at most the number of nodes.
    pub default_replication_factor: u16,
    /// Bytes a log file holds before the next one begins, where the topic does not say.
    pub segment_bytes: u64,
}

/// Bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Bytes of all buffers of the node together.
    pub memory_bytes: u64,
    /// Bytes of synced records kept in memory for readers at the tail, all shards together; no more
    /// than half of `memory_bytes`.
    pub tail_cache_bytes: u64,
    /// Client connections at once.
    pub connections: u32,
    /// Client connections at once from one address.
    pub connections_per_ip: u32,
    /// Bytes of the largest request that is read.
    pub request_bytes: u32,
    /// Milliseconds after which a silent client connection is closed.
    pub idle_ms: u64,
}

/// Who is in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSection {
    /// All nodes, this one among them.
    pub nodes: Vec<ClusterNode>,
}

/// One node of the cluster, as the others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterNode {
    /// Its id.
    pub id: u32,
    /// The 128-bit number drawn when its directory was formatted, in hexadecimal.
    pub incarnation: String,
    /// Where its peers reach it.
    pub peer: SocketAddr,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            id: 0,
            data_dir: PathBuf::from("data"),
            shards: 0,
            storage: StorageChoice::Auto,
            map_sealed: true,
            recycle_bytes: 2 << 30,
            scrub_bytes_per_second: 4 << 20,
            scrub_interval_s: 24 * 3_600,
        }
    }
}

impl Default for ListenSection {
    fn default() -> Self {
        Self {
            kafka: SocketAddr::from(([127, 0, 0, 1], 9092)),
            peer: SocketAddr::from(([127, 0, 0, 1], 9192)),
            metrics: SocketAddr::from(([127, 0, 0, 1], 9292)),
            advertised_host: String::new(),
        }
    }
}

impl Default for TlsSection {
    fn default() -> Self {
        Self {
            ca: PathBuf::from("ca.pem"),
            certificate: PathBuf::from("node.pem"),
            key: PathBuf::from("node.key"),
            client_certificate: PathBuf::from("client.pem"),
            client_key: PathBuf::from("client.key"),
        }
    }
}

impl Default for QuicSection {
    fn default() -> Self {
        let Datagrams {
            network_bytes_max,
            loopback_bytes_max,
        } = Datagrams::default();
        Self {
            datagram_bytes: network_bytes_max,
            loopback_datagram_bytes: loopback_bytes_max,
        }
    }
}

impl QuicSection {
    /// As the network takes it.
    pub(crate) fn datagrams(&self) -> Datagrams {
        Datagrams {
            network_bytes_max: self.datagram_bytes,
            loopback_bytes_max: self.loopback_datagram_bytes,
        }
    }
}

impl Default for TopicsSection {
    fn default() -> Self {
        Self {
            auto_create: false,
            default_partitions: 1,
            default_replication_factor: 3,
            segment_bytes: 1 << 30,
        }
    }
}

impl LimitsSection {
    /// Bytes of synced records that are kept in memory.
    pub(crate) fn tail_cache(&self) -> u64 {
        self.tail_cache_bytes.min(self.memory_bytes / 2)
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            tail_cache_bytes: 96 << 20,
            connections: 10_000,
            connections_per_ip: 4_000,
            request_bytes: 16 << 20,
            idle_ms: 600_000,
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}; make one with `highwater init`")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}: {reason}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// There is no such option.
    #[error("{origin}: there is no option `{key}`; `highwater config --help` lists them{hint}")]
    Unknown {
        /// Where it was set.
        origin: Origin,
        /// What was set.
        key: String,
        /// The nearest option, or nothing.
        hint: String,
    },
    /// The value does not fit its option.
    #[error("{origin}: `{key}`: {reason}")]
    Value {
        /// Where it was set.
        origin: Origin,
        /// Which option.
        key: String,
        /// What would fit.
        reason: String,
    },
    /// Each value is right, together they are not.
    #[error("{0}")]
    Conflict(String),
}

impl Config {
    /// Reads a configuration file, such as [`make_cluster`](crate::setup::make_cluster) writes
    /// into each node's folder. Relative paths in the result start there.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, names an option that does not exist, or a value does
    /// not fit.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let mut layers = Layers::new();
        layers.file(path)?;
        layers.finish()
    }

    /// The number of shards to run: as configured, else one up to two cores, then one per core
    /// but one.
    #[must_use]
    pub fn shard_count(&self, cores: usize) -> u16 {
        match self.node.shards {
            0 => u16::try_from(cores.saturating_sub(1).max(1)).unwrap_or(u16::MAX),
            shards => shards,
        }
    }

    /// Checks what a single value cannot show.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] names the options and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let conflict = |reason: String| Err(ConfigError::Conflict(reason));
        if !self.listen.kafka.ip().is_loopback() && !self.insecure_no_auth {
            return conflict(format!(
                "`listen.kafka` = {} is reachable from other machines, and clients are neither \
                 encrypted nor authenticated yet; listen on 127.0.0.1, or pass --insecure-no-auth",
                self.listen.kafka
            ));
        }
        if !self.listen.metrics.ip().is_loopback() {
            return conflict(format!(
                "`listen.metrics` = {} must be a loopback address",
                self.listen.metrics
            ));
        }
        for (option, bytes) in [
            ("quic.datagram_bytes", self.quic.datagram_bytes),
            (
                "quic.loopback_datagram_bytes",
                self.quic.loopback_datagram_bytes,
            ),
        ] {
            if !DATAGRAM_BYTES.contains(&bytes) {
                return conflict(format!(
                    "`{option}` = {bytes} must be from {} to {}",
                    DATAGRAM_BYTES.start(),
                    DATAGRAM_BYTES.end()
                ));
            }
        }
        let limits = &self.limits;
        if limits.memory_bytes < 4 * u64::from(limits.request_bytes) {
            return conflict(format!(
                "`limits.memory_bytes` = {} holds fewer than four requests of \
                 `limits.request_bytes` = {}",
                limits.memory_bytes, limits.request_bytes
            ));
        }
        if self.topics.default_partitions == 0 {
            return conflict("`topics.default_partitions` must be at least 1".to_owned());
        }
        if self.node.shards > SHARDS_MAX {
            return conflict(format!(
                "`node.shards` = {} is more than {SHARDS_MAX}",
                self.node.shards
            ));
        }
        Ok(())
    }

    /// The configuration as a TOML file.
    ///
    /// # Panics
    /// Never: every field has a TOML form.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("every field has a TOML form")
    }
}

/// More threads than any machine we know of has use for.
const SHARDS_MAX: u16 = 256;

/// UDP payloads that QUIC can be told to try: from what each network must carry (RFC 9000, section
/// 14) to what loopback does.
const DATAGRAM_BYTES: std::ops::RangeInclusive<u16> = 1_200..=65_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn another_address_needs_the_flag() {
        let mut config = Config::default();
        config.listen.kafka = "0.0.0.0:9092".parse().unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("--insecure-no-auth"), "{error}");
        config.insecure_no_auth = true;
        config.validate().unwrap();
    }

    #[test]
    fn datagrams_are_what_every_network_carries_at_least() {
        let mut config = Config::default();
        assert_eq!(config.quic.datagrams(), Datagrams::default());
        for (bytes, is_valid) in [
            (1_199, false),
            (1_200, true),
            (65_000, true),
            (65_001, false),
        ] {
            config.quic.datagram_bytes = bytes;
            assert_eq!(config.validate().is_ok(), is_valid, "{bytes}");
        }
        config.quic = QuicSection {
            loopback_datagram_bytes: 0,
            ..QuicSection::default()
        };
        let refused = config.validate().unwrap_err().to_string();
        assert!(
            refused.contains("`quic.loopback_datagram_bytes` = 0"),
            "{refused}"
        );
    }

    #[test]
    fn one_shard_up_to_two_cores_then_all_but_one() {
        let config = Config::default();
        let shards = [1, 2, 3, 8].map(|cores| config.shard_count(cores));
        assert_eq!(shards, [1, 1, 2, 7]);
    }

    #[test]
    fn a_printed_configuration_reads_back() {
        let config = Config::default();
        let back: Config = toml::from_str(&config.to_toml()).unwrap();
        assert_eq!(back, config);
    }
}
