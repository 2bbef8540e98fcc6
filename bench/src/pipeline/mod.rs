//! The bare replicated path, as a limit for the whole: a client, a leader and two followers, each
//! a process, over the links and the storages that a node has, and nothing between them. No Raft,
//! no records, no index.
//!
//! The client sends batches to the leader, which hands each, as it lies in memory, to its own disk
//! and to both followers. A batch is acknowledged when it is durable on two of the three. Whoever
//! receives it verifies its checksum. On each machine its bytes are copied once, by the link,
//! from QUIC's packets, or out of TLS, into the buffer that goes to the disk and to the followers.

mod backlog;
mod client;
mod disk;
mod hub;
mod link;
mod node;
mod setup;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use highwater_net::peer::{self, LOOPBACK_DATAGRAM_BYTES_MAX};
use serde::{Deserialize, Serialize};

use crate::latency::Percentiles;
use crate::spread::Spread;

pub(crate) use link::measure as measure_link;
pub use node::run as run_node;

/// Files are multiples of this, batches too, so that each can be written past the page cache.
pub const BLOCK_BYTES: usize = 4096;

/// The largest batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// How much may be on its way from the client, in bytes: what a link has room for.
pub const WINDOW_BYTES_MAX: usize = 16 << 20;

/// How the files are that batches are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Files {
    /// Only allocated, the next one while one is written: what a node does with a partition that
    /// is written to fast.
    Fresh,
    /// Written once before, and used again and again.
    Steady,
}

/// What carries the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerTransport {
    /// QUIC, as nodes do by default.
    #[default]
    Quic,
    /// TCP with TLS in it.
    Tcp,
}

impl From<PeerTransport> for peer::PeerTransport {
    fn from(transport: PeerTransport) -> peer::PeerTransport {
        match transport {
            PeerTransport::Quic => peer::PeerTransport::Quic,
            PeerTransport::Tcp => peer::PeerTransport::Tcp,
        }
    }
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct PipelineLoad {
    /// A batch, in bytes: a multiple of [`BLOCK_BYTES`], at most [`BATCH_BYTES_MAX`].
    pub batch_bytes: usize,
    /// How much is on its way at once, in bytes; at least one batch is.
    pub window_bytes: usize,
    /// Batches a second; as many as are acknowledged, if there is none.
    pub rate: Option<u32>,
    /// What carries the links.
    pub peer_transport: PeerTransport,
    /// The largest UDP payload of QUIC, in bytes; as large as loopback takes, if there is none.
    pub datagram_bytes: Option<u16>,
    /// How files are.
    pub files: Files,
    /// How often.
    pub runs: usize,
    /// How long nothing is counted before each run.
    pub warm_up: Duration,
    /// How long a run is counted.
    pub duration: Duration,
}

impl Default for PipelineLoad {
    /// As much as is acknowledged, over what loopback takes, into files that are only allocated.
    fn default() -> Self {
        Self {
            batch_bytes: 1 << 20,
            window_bytes: 8 << 20,
            rate: None,
            peer_transport: PeerTransport::Quic,
            datagram_bytes: None,
            files: Files::Fresh,
            runs: 5,
            warm_up: Duration::from_secs(1),
            duration: Duration::from_secs(3),
        }
    }
}

/// What the path can do.
#[derive(Debug, Clone, Serialize)]
pub struct PipelineReport {
    /// Bytes of a batch.
    pub batch_bytes: usize,
    /// Bytes on their way at once, at most.
    pub window_bytes: usize,
    /// Batches a second that were to be sent; nothing if as many as were acknowledged.
    pub rate: Option<u32>,
    /// What carried the links.
    pub peer_transport: PeerTransport,
    /// The largest UDP payload that was tried, in bytes; nothing with TCP.
    pub datagram_bytes: Option<u16>,
    /// How files were.
    pub files: Files,
    /// How many runs.
    pub runs: usize,
    /// Batches acknowledged, in 10^6 bytes a second.
    pub mb_per_second: Spread,
    /// Processor seconds of all four processes for each 10^9 bytes.
    pub cpu_seconds_per_gb: Spread,
    /// From when a batch was to be sent to its acknowledgement, over all runs.
    pub latency: Percentiles,
}

/// Who a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Role {
    Client,
    Leader,
    Follower(u32),
}

impl Role {
    const SERVERS: [Role; 3] = [Role::Leader, Role::Follower(0), Role::Follower(1)];

    /// Its node's number. Who has the lower one dials.
    const fn number(self) -> u32 {
        match self {
            Role::Client => 1,
            Role::Leader => 2,
            Role::Follower(nth) => 3 + nth,
        }
    }
}

/// How an end's links are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Links {
    transport: PeerTransport,
    datagram_bytes: u16,
}

/// What a process is started with: one line of JSON on its standard input. It ends when that does.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Start {
    role: Role,
    /// Where its credentials and its data are.
    folder: PathBuf,
    links: Links,
    files: Files,
}

impl PipelineLoad {
    fn links(&self) -> Links {
        Links {
            transport: self.peer_transport,
            datagram_bytes: self.datagram_bytes.unwrap_or(LOOPBACK_DATAGRAM_BYTES_MAX),
        }
    }

    fn check(&self) -> Result<()> {
        let Self {
            batch_bytes,
            window_bytes,
            runs,
            ..
        } = *self;
        if batch_bytes == 0 || batch_bytes % BLOCK_BYTES != 0 || batch_bytes > BATCH_BYTES_MAX {
            bail!(
                "a batch of {batch_bytes} bytes cannot be written: give a multiple of \
                 {BLOCK_BYTES}, at most {BATCH_BYTES_MAX}"
            );
        }
        if window_bytes > WINDOW_BYTES_MAX {
            bail!(
                "a link has no room for {window_bytes} bytes on their way: at most \
                 {WINDOW_BYTES_MAX}"
            );
        }
        if self.peer_transport == PeerTransport::Tcp && self.datagram_bytes.is_some() {
            bail!("TCP has no datagrams: its packets are the network's");
        }
        if runs == 0 || self.duration.is_zero() {
            bail!("no run, or none of any length, measures nothing");
        }
        Ok(())
    }
}

/// Measures, in a temporary folder below `folder`, with processes that run `executable` with the
/// words `node_words`, each of which has to call [`run_node`]. The client is in the runtime that
/// this is called in, which should have one thread, as a node's has.
///
/// # Errors
/// When a process cannot be started or ends early, the disk fails, or the load cannot be sent.
pub async fn measure(
    executable: &Path,
    node_words: &[&str],
    folder: &Path,
    load: &PipelineLoad,
) -> Result<PipelineReport> {
    load.check()?;
    let setup = setup::Setup::new(folder, load)?;
    let mut servers = setup.start(executable, node_words)?;
    let hub = setup.join(&mut servers).await?;
    let pids: Vec<u32> = servers.iter().map(setup::Server::pid).collect();
    tokio::select! {
        measured = client::measure(hub, load, &pids) => measured,
        ended = setup::first_to_end(&mut servers) => Err(ended),
    }
}
