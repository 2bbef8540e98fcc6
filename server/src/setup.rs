//! Making a cluster: identities, certificates, formatted data directories, configuration files.
//!
//! ```text
//! DIR/ca.pem, ca.key                the cluster's authority; the key is needed for new nodes only
//! DIR/node-0/highwater.toml         what `highwater start --config` reads
//! DIR/node-0/ca.pem                 whom the node trusts
//! DIR/node-0/node.pem, node.key     who the node is, for its peers
//! DIR/node-0/client.pem, client.key who it is for clients over QUIC
//! DIR/node-0/data/                  its data directory
//! ```
//!
//! A node's folder is all that its machine needs.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use highwater_log::storage::{DataDirectory, DirectoryError, PortableStorage, StorageError};
use highwater_log::{Directory, DirectoryFormat, FormatError};
use highwater_net::{
    CaError, ClusterCa, ClusterId, Credentials, Incarnation, NoRandomness, NodeIdentity, PemError,
};
use highwater_record::{ALIGNMENT_MIN, Budget, BufferPool};

use crate::config::{ClusterNode, Config};

/// The name of a node's configuration file.
pub const CONFIG_FILE: &str = "highwater.toml";

/// The name of the cluster's CA certificate, in the cluster's folder and in each node's.
pub const CA_FILE: &str = "ca.pem";

/// More nodes than a group has use for replicas.
const NODES_MAX: u32 = 9;

/// Memory for formatting, in bytes: it writes a few blocks.
const FORMAT_MEMORY_BYTES: usize = 16 << 20;

/// The cluster's folder: its certificate is for everybody, its key is not, and nobody else makes or
/// replaces what is in it, whatever the umask.
const FOLDER_MODE: u32 = 0o755;

/// A node's folder is the node's alone.
const NODE_FOLDER_MODE: u32 = 0o700;

/// As what is in it.
const FILE_MODE: u32 = 0o600;

/// The cluster to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPlan {
    /// How many nodes, 1 to 9, numbered from 0.
    pub nodes: u32,
    /// Where they listen: one address for all of them, or one for each in order of their ids.
    /// Elsewhere than on loopback a node starts with `insecure_no_auth` only, which whoever starts
    /// it must set.
    pub hosts: Vec<IpAddr>,
    /// Kafka's port of node 0; node n listens n higher if it shares the address, for peers 100
    /// and for metrics 200 higher than that.
    pub base_port: u16,
}

impl Default for ClusterPlan {
    fn default() -> Self {
        Self {
            nodes: 3,
            hosts: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            base_port: 9092,
        }
    }
}

/// Why a cluster cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is something in the folder.
    #[error("{0} is not empty; name a folder that does not exist, or an empty one")]
    NotEmpty(PathBuf),
    /// The number of nodes is out of its range.
    #[error("{0} nodes; a cluster has 1 to {NODES_MAX}")]
    Nodes(u32),
    /// There is neither one address nor one for each node.
    #[error("{hosts} addresses for {nodes} nodes; name one for all, or one for each")]
    Hosts {
        /// How many addresses.
        hosts: usize,
        /// How many nodes.
        nodes: u32,
    },
    /// Ports run out.
    #[error("base port {0} leaves no room for the nodes' ports above it")]
    Ports(u16),
    /// A file or folder cannot be made.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// A certificate cannot be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A certificate cannot be written.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A data directory cannot be made.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A data directory cannot be formatted.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The disk cannot be used.
    #[error("{0}")]
    Storage(String),
}

impl SetupError {
    /// Whether room on the disk would help.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let full = io::ErrorKind::StorageFull;
        match self {
            Self::Io { source, .. }
            | Self::Pem(PemError::Io { source, .. })
            | Self::Ca(CaError::Pem(PemError::Io { source, .. })) => source.kind() == full,
            Self::Directory(DirectoryError::Io { kind, .. }) => *kind == full,
            Self::Format(FormatError::Storage(error)) => {
                matches!(error, StorageError::NoSpace { .. })
            }
            _ => false,
        }
    }
}

/// Makes a cluster's files under `folder` and returns the nodes' folders in order of their ids.
///
/// # Errors
/// [`SetupError`]; what was made by then stays and can be removed.
pub fn make_cluster(folder: &Path, plan: &ClusterPlan) -> Result<Vec<PathBuf>, SetupError> {
    if plan.nodes == 0 || plan.nodes > NODES_MAX {
        return Err(SetupError::Nodes(plan.nodes));
    }
    if plan.hosts.len() != 1 && u32::try_from(plan.hosts.len()) != Ok(plan.nodes) {
        let (hosts, nodes) = (plan.hosts.len(), plan.nodes);
        return Err(SetupError::Hosts { hosts, nodes });
    }
    let last = u64::from(plan.base_port) + 200 + u64::from(plan.nodes);
    if plan.base_port == 0 || last > u64::from(u16::MAX) {
        return Err(SetupError::Ports(plan.base_port));
    }
    make_folder(folder, FOLDER_MODE)?;
    if list(folder)?.next().is_some() {
        return Err(SetupError::NotEmpty(folder.to_owned()));
    }
    let cluster = ClusterId::random()?;
    let ca = ClusterCa::generate(cluster)?;
    ca.write(&folder.join(CA_FILE), &folder.join("ca.key"))?;
    let identities = (0..plan.nodes)
        .map(|number| {
            Ok(NodeIdentity {
                cluster,
                node: highwater_net::NodeId::new(number).expect("a few nodes"),
                incarnation: Incarnation::random()?,
            })
        })
        .collect::<Result<Vec<_>, NoRandomness>>()?;
    let nodes: Vec<ClusterNode> = identities
        .iter()
        .map(|identity| ClusterNode {
            id: identity.node.get(),
            incarnation: identity.incarnation.to_string(),
            peer: plan.address(identity.node.get(), 100),
        })
        .collect();
    identities
        .iter()
        .map(|identity| make_node(folder, plan, &ca, identity, &nodes))
        .collect()
}

impl ClusterPlan {
    fn host(&self, node: u32) -> IpAddr {
        match &self.hosts[..] {
            [shared] => *shared,
            each => each[usize::try_from(node).expect("a few nodes")],
        }
    }

    fn address(&self, node: u32, above: u16) -> SocketAddr {
        let port = self.base_port + above;
        let beside = match self.hosts.len() {
            1 => u16::try_from(node).expect("a few nodes"),
            _ => 0,
        };
        SocketAddr::new(self.host(node), port + beside)
    }
}

fn make_node(
    cluster: &Path,
    plan: &ClusterPlan,
    ca: &ClusterCa,
    identity: &NodeIdentity,
    nodes: &[ClusterNode],
) -> Result<PathBuf, SetupError> {
    let id = identity.node.get();
    let folder = cluster.join(format!("node-{id}"));
    make_folder(&folder, NODE_FOLDER_MODE)?;
    let mut config = Config::default();
    config.node.id = id;
    config.listen.kafka = plan.address(id, 0);
    config.listen.peer = plan.address(id, 100);
    config.listen.metrics =
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), plan.address(id, 200).port());
    config.cluster.nodes = nodes.to_vec();
    let tls = &config.tls;
    write(&folder.join(&tls.ca), ca.certificate_pem())?;
    issue(
        &folder,
        &tls.certificate,
        &tls.key,
        &ca.issue_node(identity)?,
    )?;
    let host = plan.host(id).to_string();
    let names = [host.as_str(), "localhost"];
    let listener = ca.issue_listener(&names)?;
    issue(&folder, &tls.client_certificate, &tls.client_key, &listener)?;
    format_directory(&folder.join(&config.node.data_dir), identity)?;
    write(&folder.join(CONFIG_FILE), &config.to_toml())?;
    Ok(folder)
}

fn issue(folder: &Path, pem: &Path, key: &Path, issued: &Credentials) -> Result<(), PemError> {
    issued.write(&folder.join(pem), &folder.join(key))
}

/// Formats a data directory for a node.
fn format_directory(path: &Path, identity: &NodeIdentity) -> Result<(), SetupError> {
    let directory = DataDirectory::create(path)?;
    let pool = BufferPool::new(Budget::new(FORMAT_MEMORY_BYTES), ALIGNMENT_MIN);
    let mut storage = PortableStorage::new(directory, pool)
        .map_err(|error| SetupError::Storage(error.to_string()))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let created_ms = since.map_or(0, |since| since.as_millis());
    let format = DirectoryFormat {
        node: highwater_log::NodeId(identity.node.get()),
        cluster: highwater_log::ClusterId(identity.cluster.to_bytes()),
        incarnation: highwater_log::Incarnation(identity.incarnation.to_bytes()),
        created_ms: i64::try_from(created_ms).unwrap_or(i64::MAX),
    };
    Ok(Directory::format(&mut storage, &format)?)
}

fn make_folder(path: &Path, mode: u32) -> Result<(), SetupError> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(mode).create(path);
    made.map_err(|source| failed(path, source))
}

fn list(path: &Path) -> Result<std::fs::ReadDir, SetupError> {
    std::fs::read_dir(path).map_err(|source| failed(path, source))
}

fn write(path: &Path, text: &str) -> Result<(), SetupError> {
    let mut options = OpenOptions::new();
    let opened = options
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> SetupError {
    SetupError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: u32, hosts: &[&str]) -> ClusterPlan {
        ClusterPlan {
            nodes,
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            base_port: 9092,
        }
    }

    fn addresses(plan: &ClusterPlan, above: u16) -> Vec<String> {
        let nodes = 0..plan.nodes;
        nodes
            .map(|node| plan.address(node, above).to_string())
            .collect()
    }

    #[test]
    fn nodes_of_one_address_have_ports_of_their_own() {
        let one = plan(2, &["127.0.0.1"]);
        assert_eq!(addresses(&one, 0), ["127.0.0.1:9092", "127.0.0.1:9093"]);
        assert_eq!(addresses(&one, 100), ["127.0.0.1:9192", "127.0.0.1:9193"]);
    }

    #[test]
    fn nodes_of_several_addresses_share_ports() {
        let each = plan(2, &["10.0.0.1", "10.0.0.2"]);
        assert_eq!(addresses(&each, 0), ["10.0.0.1:9092", "10.0.0.2:9092"]);
        assert_eq!(addresses(&each, 200), ["10.0.0.1:9292", "10.0.0.2:9292"]);
    }

    #[test]
    fn each_node_has_an_address_or_all_have_one() {
        let folder = tempfile::tempdir().unwrap();
        for hosts in [&["10.0.0.1", "10.0.0.2"][..], &[]] {
            let made = make_cluster(folder.path(), &plan(3, hosts));
            assert!(matches!(made, Err(SetupError::Hosts { nodes: 3, .. })));
        }
        let each = plan(2, &["127.0.0.1", "127.0.0.2"]);
        let folders = make_cluster(folder.path(), &each).unwrap();
        let text = std::fs::read_to_string(folders[1].join(CONFIG_FILE)).unwrap();
        assert!(text.contains("127.0.0.1:9192") && text.contains("127.0.0.2:9192"));
        assert!(text.contains("127.0.0.2:9092"), "{text}");
    }
}
