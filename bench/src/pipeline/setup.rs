//! Who the processes are, how they are started, and how they meet.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Error, Result, anyhow};
use highwater_net::peer::{Peer, PeerConfig, PeerEndpoint, PeerEvents};
use highwater_net::{
    Boot, ClusterCa, ClusterId, Credentials, Incarnation, NodeId, NodeIdentity, PeerTls, Trust,
};
use highwater_record::{Budget, BufferPool};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::hub::{Hub, node_id};
use super::{BLOCK_BYTES, Links, PipelineLoad, Role, Start};

/// What a process may hold in received batches, in bytes.
const MEMORY_BYTES: usize = 256 << 20;

/// The files of a process's credentials.
const FILES: [&str; 3] = ["ca.pem", "node.pem", "node.key"];

/// A folder with the credentials of all.
pub(super) struct Setup {
    /// Removed with this.
    _folder: TempDir,
    starts: Vec<Start>,
}

impl Setup {
    pub(super) fn new(folder: &Path, load: &PipelineLoad) -> Result<Setup> {
        let folder = tempfile::Builder::new()
            .prefix("highwater-bench-")
            .tempdir_in(folder)
            .with_context(|| format!("cannot make a folder in {}", folder.display()))?;
        let cluster = ClusterId::random()?;
        let ca = ClusterCa::generate(cluster)?;
        let mut starts = Vec::new();
        for role in [&[Role::Client], &Role::SERVERS[..]].concat() {
            let start = Start {
                role,
                folder: folder.path().join(role.number().to_string()),
                links: load.links(),
                files: load.files,
            };
            std::fs::create_dir(&start.folder)?;
            let identity = NodeIdentity {
                cluster,
                node: node_id(role),
                incarnation: Incarnation::random()?,
            };
            let [authority, certificate, key] = FILES.map(|name| start.folder.join(name));
            std::fs::write(authority, ca.certificate_pem())?;
            ca.issue_node(&identity)?.write(&certificate, &key)?;
            starts.push(start);
        }
        Ok(Setup {
            _folder: folder,
            starts,
        })
    }

    /// Starts the servers.
    pub(super) fn start(&self, executable: &Path, words: &[&str]) -> Result<Vec<Server>> {
        let servers = self.starts.iter().filter(|it| it.role != Role::Client);
        servers
            .map(|start| Server::start(executable, words, start))
            .collect()
    }

    /// All meet. Gives the client's end.
    pub(super) async fn join(&self, servers: &mut [Server]) -> Result<Hub> {
        let own = &self.starts[0];
        let Meeting {
            endpoint,
            events,
            address,
            ..
        } = meet(read_tls(&own.folder)?, own.links)?;
        let mut addresses = vec![(own.role, address)];
        for (server, start) in servers.iter_mut().zip(&self.starts[1..]) {
            server.tell(&serde_json::to_string(start)?).await?;
            addresses.push((start.role, server.hear().await?.parse()?));
        }
        let others = |role: Role| {
            let linked = addresses.iter().filter(move |(other, _)| {
                *other != role && (role == Role::Leader || *other == Role::Leader)
            });
            linked.map(|(other, address)| (other.number(), address.to_string()))
        };
        for (server, start) in servers.iter_mut().zip(&self.starts[1..]) {
            let others: Vec<_> = others(start.role).collect();
            server.tell(&serde_json::to_string(&others)?).await?;
        }
        let leader = peers(&others(Role::Client).collect::<Vec<_>>())?;
        endpoint.set_peers(&leader);
        let mut hub = Hub::new(endpoint, events);
        hub.wait_for(leader.len()).await?;
        for server in servers {
            server.hear().await?;
        }
        Ok(hub)
    }
}

/// The others, as they were named.
pub(super) fn peers(named: &[(u32, String)]) -> Result<Vec<Peer>> {
    let peers = named.iter().map(|(number, address)| {
        Ok(Peer {
            node: NodeId::new(*number).context("a node's number is small")?,
            incarnation: None,
            address: address.parse()?,
        })
    });
    peers.collect()
}

/// An end that knows nobody yet.
pub(super) struct Meeting {
    pub(super) endpoint: PeerEndpoint,
    pub(super) events: PeerEvents,
    pub(super) pool: BufferPool,
    pub(super) address: SocketAddr,
}

/// The credentials in a process's folder.
pub(super) fn read_tls(folder: &Path) -> Result<PeerTls> {
    let [authority, certificate, key] = FILES.map(|name| folder.join(name));
    let credentials = Credentials::read(&certificate, &key)?;
    Ok(PeerTls::new(&Trust::read(&authority)?, &credentials)?)
}

pub(super) fn meet(tls: PeerTls, links: Links) -> Result<Meeting> {
    let pool = BufferPool::new(Budget::new(MEMORY_BYTES), BLOCK_BYTES);
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = PeerConfig::new(listen, Boot(1), Vec::new(), pool.clone());
    config.transport = links.transport.into();
    config.datagrams.loopback_bytes_max = links.datagram_bytes;
    let (endpoint, events) = PeerEndpoint::start(config, tls)?;
    let address = endpoint.local_addr();
    Ok(Meeting {
        endpoint,
        events,
        pool,
        address,
    })
}

/// A process of the leader or a follower. It ends when this is dropped.
pub(super) struct Server {
    role: Role,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Server {
    fn start(executable: &Path, words: &[&str], start: &Start) -> Result<Server> {
        let mut command = Command::new(executable);
        command.args(words).kill_on_drop(true);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", executable.display()))?;
        let input = child.stdin.take().context("its input is a pipe")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        Ok(Server {
            role: start.role,
            child,
            input,
            output: BufReader::new(output).lines(),
        })
    }

    /// Its number; 0 if it has ended.
    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    async fn tell(&mut self, line: &str) -> Result<()> {
        self.input.write_all(line.as_bytes()).await?;
        Ok(self.input.write_all(b"\n").await?)
    }

    async fn hear(&mut self) -> Result<String> {
        let line = self.output.next_line().await?;
        line.with_context(|| format!("{:?} has ended before it was ready", self.role))
    }
}

/// Waits for one of them to end, which it should not do by itself.
pub(super) async fn first_to_end(servers: &mut [Server]) -> Error {
    let ends = servers.iter_mut().map(|server| {
        let role = server.role;
        Box::pin(async move { (role, server.child.wait().await) })
    });
    let ((role, status), _, _) = futures_util::future::select_all(ends).await;
    match status {
        Ok(status) => anyhow!("{role:?} has ended by itself: {status}"),
        Err(error) => anyhow!("{role:?} cannot be waited for: {error}"),
    }
}
