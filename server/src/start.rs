//! Starting a node: what is checked before threads exist, then a thread a shard.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use highwater_engine::controller::{ClusterDefaults, Listener, NodeRegistration, RECORD_VERSION};
use highwater_engine::kafka::{Desk, KafkaConfig, KafkaService};
use highwater_engine::{
    CONTROLLER, GroupConfig, GroupId, GroupSpec, NodeId, OpenShardError, Shard, ShardConfig,
    ShardId, Timing,
};
use highwater_log::storage::{
    Access, Choice, DataDirectory, DirectoryError, RealStorage, StorageError,
};
use highwater_log::{
    Damage, Directory, Expected, JOURNAL_HALF_BYTES, OpenError, Recovered, Store, StoreConfig,
};
use highwater_net::kafka::{
    Admission, AdmissionLimits, QuicListener, QuicListenerConfig, ReadLimits, TcpAcceptor, bind_tcp,
};
use highwater_net::peer::{
    Peer, PeerConfig, PeerEndpoint, PeerTransport, StartError as PeersError,
};
use highwater_net::{
    Boot, Credentials, Incarnation, ListenerTls, NodeIdentity, PeerTls, PemError, TlsError, Trust,
};
use highwater_record::{Budget, BufferPool, let_allocator_keep};
use tokio::runtime;
use tokio::task::LocalSet;

use crate::clients::Terms;
use crate::config::{self, Config, ConfigError, StorageChoice};
use crate::mailbox::{Mail, Mailbox};
use crate::metrics;
use crate::peers::Peers;
use crate::thread::{Clock, Ended, Parts, Thread};
use crate::wall_clock;

/// How long a directory that is locked is tried again: a killed process keeps its lock until
/// its last writes have ended.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// How long the links may take to say goodbye to the peers.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// How long a request may take from its first byte to its last.
const REQUEST_READ_MAX: Duration = Duration::from_secs(60);

/// Why a node does not start. Nothing runs then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory is not there, not formatted, or locked.
    #[error("{0}{hint}", hint = hint_of(.0))]
    Directory(#[from] DirectoryError),
    /// The data directory is another's, of a newer version, or its identity is damaged.
    #[error("{path}: {source}")]
    Open {
        /// The data directory.
        path: PathBuf,
        /// Why.
        source: highwater_log::OpenError,
    },
    /// A shard's state cannot be read.
    #[error(transparent)]
    Shard(#[from] OpenShardError),
    /// The configuration names no such node, or names it wrongly.
    #[error("{0}; `highwater init` writes configurations that fit their directories")]
    Membership(String),
    /// A certificate or key cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Certificate and key do not fit.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The peers' address cannot be listened on.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// io_uring was insisted on and is not to be had.
    #[error("storage = \"uring\": {0}; use \"auto\" or \"portable\"")]
    Storage(String),
    /// The system refuses something that every node needs: a thread, randomness.
    #[error("{0}")]
    System(String),
}

impl StartError {
    /// Whether room on the disk would help.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Directory(DirectoryError::Io { kind, .. }) => *kind == io::ErrorKind::StorageFull,
            Self::Open { source, .. } => {
                matches!(source, OpenError::Storage(StorageError::NoSpace { .. }))
            }
            _ => false,
        }
    }
}

fn hint_of(error: &DirectoryError) -> &'static str {
    match error {
        DirectoryError::NotFound { .. } | DirectoryError::NotFormatted { .. } => {
            "; make a cluster with `highwater init DIR`"
        }
        DirectoryError::Locked { .. } => "; another process runs this node",
        _ => "",
    }
}

/// What all threads of a node have in common.
pub(crate) struct Common {
    pub(crate) config: Config,
    pub(crate) directory: Directory,
    pub(crate) data: Arc<DataDirectory>,
    pub(crate) pool: BufferPool,
    pub(crate) admission: Admission,
    pub(crate) mailboxes: Vec<Mailbox>,
    pub(crate) clock: Clock,
    pub(crate) kafka: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) seed: u64,
    /// What time it was when the node ran last, as far as it knew.
    pub(crate) last_known_wall_ms: Option<i64>,
}

/// A node whose threads run.
pub(crate) struct Running {
    pub(crate) common: Arc<Common>,
    pub(crate) threads: Vec<JoinHandle<Ended>>,
}

/// Starts the threads; when this returns, all of them take turns and clients can connect.
pub(crate) fn start(config: Config) -> Result<Running, StartError> {
    let_allocator_keep(ALLOCATOR_KEEPS);
    config.validate()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = config.shard_count(cores);
    let sockets = bind_all(config.listen.kafka, shards)?;
    let kafka = local_address(&sockets[0], config.listen.kafka)?;
    let scrapes = bind(config.listen.metrics, false)?;
    let metrics = local_address(&scrapes, config.listen.metrics)?;
    let budget = usize::try_from(config.limits.memory_bytes).unwrap_or(usize::MAX);
    let data = open_directory(&config)?;
    let pool = BufferPool::new(Budget::new(budget), data.alignment());
    let directory = open_identity(&config, &data, &pool, shards)?;
    report_directory(&directory);
    let limits = AdmissionLimits {
        connections_max: config.limits.connections as usize,
        connections_per_ip_max: config.limits.connections_per_ip as usize,
        ..AdmissionLimits::default()
    };
    let common = Arc::new(Common {
        mailboxes: (0..shards).map(|_| Mailbox::new()).collect(),
        seed: getrandom::u64().map_err(|error| StartError::System(error.to_string()))?,
        admission: Admission::new(limits),
        clock: Clock::start(),
        last_known_wall_ms: wall_clock::read(&wall_clock::path(&config)),
        config,
        directory,
        data,
        pool,
        kafka,
        metrics,
    });
    let mut threads = Vec::new();
    let mut scrapes = Some(scrapes);
    for (number, clients) in sockets.into_iter().enumerate() {
        let shard = ShardId(u16::try_from(number).expect("shards are counted in u16"));
        let metrics = scrapes.take();
        match spawn(&common, shard, Sockets { clients, metrics }) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                stop_all(&common, threads);
                return Err(error);
            }
        }
    }
    Ok(Running { common, threads })
}

fn stop_all(common: &Common, threads: Vec<JoinHandle<Ended>>) {
    for mailbox in &common.mailboxes {
        // One that has ended takes no mail.
        let _ = mailbox.send(Mail::Abort);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// The sockets of one shard.
struct Sockets {
    /// Kafka's clients over TCP.
    clients: TcpListener,
    /// Whoever scrapes metrics, on shard 0.
    metrics: Option<TcpListener>,
}

fn bind_all(address: SocketAddr, shards: u16) -> Result<Vec<TcpListener>, StartError> {
    let shared = shards > 1;
    // Shared ports hide that another process has them: the first socket does not share.
    drop(bind(address, false)?);
    let first = bind(address, shared)?;
    let address = local_address(&first, address)?;
    let mut sockets = vec![first];
    for _ in 1..shards {
        sockets.push(bind(address, shared)?);
    }
    Ok(sockets)
}

fn bind(address: SocketAddr, shared: bool) -> Result<TcpListener, StartError> {
    bind_tcp(address, shared).map_err(|source| StartError::Listen { address, source })
}

fn local_address(socket: &TcpListener, address: SocketAddr) -> Result<SocketAddr, StartError> {
    let local = socket.local_addr();
    local.map_err(|source| StartError::Listen { address, source })
}

fn open_directory(config: &Config) -> Result<Arc<DataDirectory>, StartError> {
    let give_up = std::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match DataDirectory::open(&config.node.data_dir, Access::ReadWrite) {
            Err(DirectoryError::Locked { .. }) if std::time::Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return Ok(result?),
        }
    }
}

/// How much freed memory the C library's allocator is to keep for itself, about, in bytes a thread.
/// Packets and frames come and go by more than it keeps otherwise, and at full load each of three
/// servers took 10,000 page faults a second for it.
const ALLOCATOR_KEEPS: usize = 8 << 20;

/// Reads who the directory is, counts the boot, and holds it against the configuration.
fn open_identity(
    config: &Config,
    data: &Arc<DataDirectory>,
    pool: &BufferPool,
    shards: u16,
) -> Result<Directory, StartError> {
    let storage = RealStorage::open(data.clone(), pool.clone(), Choice::Portable);
    let (mut storage, _) = storage.map_err(|error| StartError::System(error.to_string()))?;
    let member = own_entry(config)?;
    let expected = Expected {
        node: Some(highwater_log::NodeId(config.node.id)),
        cluster: None,
        incarnation: Some(highwater_log::Incarnation(
            incarnation(&member.incarnation)?.to_bytes(),
        )),
    };
    Directory::open(
        &mut storage,
        &expected,
        u32::from(shards),
        JOURNAL_HALF_BYTES,
    )
    .map_err(|source| StartError::Open {
        path: config.node.data_dir.clone(),
        source,
    })
}

fn own_entry(config: &Config) -> Result<&crate::config::ClusterNode, StartError> {
    let id = config.node.id;
    let found = config.cluster.nodes.iter().find(|node| node.id == id);
    found.ok_or_else(|| {
        StartError::Membership(format!("`cluster.nodes` does not name this node, {id}"))
    })
}

fn incarnation(text: &str) -> Result<Incarnation, StartError> {
    text.parse()
        .map_err(|error| StartError::Membership(format!("`cluster.nodes`: {error}")))
}

fn spawn(
    common: &Arc<Common>,
    shard: ShardId,
    sockets: Sockets,
) -> Result<JoinHandle<Ended>, StartError> {
    let (ready, started) = mpsc::channel();
    let common = common.clone();
    let thread = std::thread::Builder::new()
        .name(format!("shard-{}", shard.0))
        .spawn(move || run(&common, shard, sockets, &ready))
        .map_err(|error| StartError::System(format!("cannot start a thread: {error}")))?;
    match started.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(_) => {
            let _ = thread.join();
            Err(StartError::System(
                "a shard panicked at its start".to_owned(),
            ))
        }
    }
}

/// The whole life of a shard's thread.
fn run(
    common: &Arc<Common>,
    shard: ShardId,
    sockets: Sockets,
    ready: &mpsc::Sender<Result<(), StartError>>,
) -> Ended {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(StartError::System(error.to_string())));
            return Ended::Stopped;
        }
    };
    let tasks = LocalSet::new();
    let ended = tasks.block_on(&runtime, async {
        let opened = open_shard(common, shard, sockets);
        let Opened {
            thread,
            acceptor,
            listener,
            scrapes,
            disk,
        } = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = ready.send(Err(error));
                return Ended::Stopped;
            }
        };
        let mut accepting = vec![tokio::task::spawn_local(thread.clone().accept(acceptor))];
        if let Some(listener) = listener {
            accepting.push(tokio::task::spawn_local(
                thread.clone().accept_quic(listener),
            ));
        }
        if let Some(scrapes) = scrapes {
            accepting.push(tokio::task::spawn_local(metrics::serve(
                scrapes,
                common.clone(),
            )));
        }
        if shard.0 == 0 {
            let kept = wall_clock::keep(thread.clone(), wall_clock::path(&common.config));
            accepting.push(tokio::task::spawn_local(kept));
        }
        let _ = ready.send(Ok(()));
        let ended = thread.clone().drive(disk).await;
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
        if let Some(peers) = &thread.peers {
            // With the runtime every socket is closed; a peer that is gone is not waited for.
            let _ = tokio::time::timeout(CLOSE_MAX, peers.close()).await;
        }
        ended
    });
    drop(tasks);
    ended
}

/// A shard that is ready to be driven.
struct Opened {
    thread: Rc<Thread<RealStorage>>,
    acceptor: TcpAcceptor,
    /// Clients over QUIC, on shard 0.
    listener: Option<QuicListener>,
    /// Whoever scrapes metrics, on shard 0.
    scrapes: Option<tokio::net::TcpListener>,
    /// Readable when the disk has completed something.
    disk: OwnedFd,
}

fn open_shard(common: &Arc<Common>, id: ShardId, sockets: Sockets) -> Result<Opened, StartError> {
    let config = &common.config;
    let (storage, why_not) = open_storage(common)?;
    if id.0 == 0 {
        tracing::info!(storage = storage.name(), "disk");
        if let Some(reason) = why_not {
            tracing::warn!(%reason, "io_uring is not used");
        }
        if config.insecure_no_auth {
            tracing::warn!(
                address = %common.kafka,
                "clients are neither encrypted nor authenticated (insecure_no_auth)"
            );
        }
    }
    let disk = storage.event_fd().try_clone_to_owned();
    let disk = disk.map_err(|error| StartError::System(error.to_string()))?;
    let shards = u16::try_from(common.mailboxes.len()).expect("shards are counted in u16");
    let groups = groups_of(&common.directory, id, shards);
    let (store, recovered) = open_store(common, id, shards, storage, &groups)?;
    report(&recovered);
    let service = KafkaService::new(Desk::new(kafka_config(common, id)));
    let shard = Shard::open(
        shard_config(common, id, shards)?,
        store,
        recovered.groups,
        common.pool.clone(),
        service,
        common.clock.now(),
    )?;
    let (peers, listener) = match id.0 {
        0 => (Some(open_peers(common)?), Some(open_quic(common)?)),
        _ => (None, None),
    };
    let refused = |address| move |source| StartError::Listen { address, source };
    let acceptor = TcpAcceptor::new(sockets.clients).map_err(refused(common.kafka))?;
    let scrapes = sockets.metrics.map(tokio::net::TcpListener::from_std);
    let scrapes = scrapes.transpose().map_err(refused(common.metrics))?;
    let thread = Thread::new(Parts {
        id,
        clock: common.clock,
        shard,
        mailboxes: common.mailboxes.clone(),
        terms: Terms {
            pool: common.pool.clone(),
            limits: ReadLimits {
                frame_bytes_max: config.limits.request_bytes as usize,
                idle: Duration::from_millis(config.limits.idle_ms),
                frame: REQUEST_READ_MAX,
            },
        },
        admission: common.admission.clone(),
        peers,
    });
    Ok(Opened {
        thread,
        acceptor,
        listener,
        scrapes,
        disk,
    })
}

fn open_quic(common: &Common) -> Result<QuicListener, StartError> {
    let config = &common.config;
    let tls = Credentials::read(&config.tls.client_certificate, &config.tls.client_key)?;
    let settings = QuicListenerConfig {
        listen: common.kafka,
        idle: Duration::from_millis(config.limits.idle_ms),
        datagrams: config.quic.datagrams(),
    };
    let listener = QuicListener::bind(settings, &ListenerTls::new(&tls)?, common.admission.clone());
    listener.map_err(|source| StartError::Listen {
        address: common.kafka,
        source,
    })
}

fn open_storage(common: &Common) -> Result<(RealStorage, Option<String>), StartError> {
    let choice = match common.config.node.storage {
        StorageChoice::Auto => Choice::Auto,
        StorageChoice::Uring => Choice::Uring,
        StorageChoice::Portable => Choice::Portable,
    };
    let opened = RealStorage::open(common.data.clone(), common.pool.clone(), choice);
    let (storage, why_not) = opened.map_err(|error| StartError::Storage(error.to_string()))?;
    Ok((storage, why_not.map(|error| error.to_string())))
}

fn groups_of(directory: &Directory, id: ShardId, shards: u16) -> Vec<highwater_log::GroupId> {
    let groups = directory.groups().into_iter();
    let mut groups: Vec<_> = groups
        .filter(|group| ShardId::of_group(GroupId(group.0), shards) == id)
        .collect();
    let controller = highwater_log::GroupId(CONTROLLER.0);
    if id.0 == 0 && !groups.contains(&controller) {
        groups.push(controller);
    }
    groups
}

fn open_store(
    common: &Common,
    id: ShardId,
    shards: u16,
    storage: RealStorage,
    groups: &[highwater_log::GroupId],
) -> Result<(Store<RealStorage>, Recovered), StartError> {
    let config = &common.config;
    let per_shard = |bytes: u64| usize::try_from(bytes / u64::from(shards)).unwrap_or(usize::MAX);
    let settings = StoreConfig {
        shard: u32::from(id.0),
        seed: getrandom::u64().map_err(|error| StartError::System(error.to_string()))?,
        tail_cache_bytes: per_shard(config.limits.tail_cache()),
        map_sealed: config.node.map_sealed,
        recycle_bytes: config.node.recycle_bytes / u64::from(shards),
        scrub_bytes_per_second: config
            .node
            .scrub_bytes_per_second
            .div_ceil(u64::from(shards)),
        scrub_interval: Duration::from_secs(config.node.scrub_interval_s),
        ..StoreConfig::default()
    };
    Store::open(
        storage,
        common.pool.clone(),
        settings,
        &common.directory,
        groups,
    )
    .map_err(|source| StartError::Open {
        path: config.node.data_dir.clone(),
        source,
    })
}

/// Says what is wrong with the journals, for whoever reads logs.
fn report_directory(directory: &Directory) {
    for alarm in directory.alarms() {
        match alarm.damage {
            // A crash leaves the one, somebody else the other.
            Damage::JournalLast | Damage::Unknown => tracing::warn!(%alarm, "data directory"),
            _ => tracing::error!(%alarm, "damage on the disk"),
        }
    }
    if directory.promises_lost() {
        tracing::error!(
            incarnation = %directory.identity().incarnation,
            "what this node promised is lost: it keeps copies, but votes and acknowledges nothing \
             any more; replace it by a newly formatted one"
        );
    }
}

/// Says what recovery has found, for whoever reads logs.
fn report(recovered: &Recovered) {
    for alarm in &recovered.alarms {
        tracing::error!(%alarm, "damage on the disk");
    }
    for group in &recovered.groups {
        if let Some(torn) = &group.torn {
            tracing::warn!(
                group = group.group.0,
                ?torn,
                "a write was interrupted; it was never acknowledged"
            );
        }
        if let Some(quarantine) = &group.quarantine {
            tracing::error!(
                group = group.group.0,
                ?quarantine,
                "acknowledged entries are damaged"
            );
        }
    }
}

fn shard_config(common: &Common, id: ShardId, shards: u16) -> Result<ShardConfig, StartError> {
    let identity = common.directory.identity();
    let voters = common
        .config
        .cluster
        .nodes
        .iter()
        .map(|node| NodeId(node.id));
    let controller = (id.0 == 0).then(|| GroupSpec {
        group: CONTROLLER,
        replicas: voters.collect(),
        config: GroupConfig {
            retention_bytes: None,
            retention_ms: None,
            ..GroupConfig::default()
        },
    });
    Ok(ShardConfig {
        cluster: identity.cluster,
        node: NodeId(identity.node.0),
        incarnation: identity.incarnation,
        shard: id,
        shards,
        seed: common.seed ^ u64::from(id.0),
        timing: Timing::default(),
        controller,
        last_known_wall_ms: common.last_known_wall_ms,
    })
}

fn kafka_config(common: &Common, shard: ShardId) -> KafkaConfig {
    let identity = common.directory.identity();
    let config = &common.config;
    let members = u16::try_from(config.cluster.nodes.len()).unwrap_or(u16::MAX);
    let host = match config.listen.advertised_host.as_str() {
        "" => common.kafka.ip().to_string(),
        host => host.to_owned(),
    };
    KafkaConfig {
        registration: NodeRegistration {
            node: NodeId(identity.node.0),
            incarnation: identity.incarnation,
            boot: identity.boots,
            record_versions: (RECORD_VERSION, RECORD_VERSION),
            listeners: vec![Listener {
                name: "kafka".to_owned(),
                host,
                port: common.kafka.port(),
            }],
        },
        shard,
        cluster_id: identity.cluster.to_string(),
        listener: common.kafka.to_string(),
        metrics_listener: common.metrics.to_string(),
        auto_create: config.topics.auto_create,
        defaults: ClusterDefaults {
            partitions: config.topics.default_partitions,
            replication: config.topics.default_replication_factor.min(members),
        },
        seed: common.seed,
    }
}

fn open_peers(common: &Common) -> Result<Peers, StartError> {
    let config = &common.config;
    let trust = Trust::read(&config.tls.ca)?;
    let credentials = Credentials::read(&config.tls.certificate, &config.tls.key)?;
    let tls = PeerTls::new(&trust, &credentials)?;
    check_certificate(common, &tls.identity())?;
    let peers = config
        .cluster
        .nodes
        .iter()
        .map(|node| {
            let id = highwater_net::NodeId::new(node.id);
            Ok(Peer {
                node: id.ok_or_else(|| {
                    StartError::Membership(format!("`cluster.nodes`: {} is no node id", node.id))
                })?,
                incarnation: Some(incarnation(&node.incarnation)?),
                address: node.peer,
            })
        })
        .collect::<Result<Vec<_>, StartError>>()?;
    let boot = Boot(common.directory.identity().boots);
    let mut settings = PeerConfig::new(config.listen.peer, boot, peers, common.pool.clone());
    settings.seed = common.seed;
    settings.transport = match config.peer_transport {
        config::PeerTransport::Quic => PeerTransport::Quic,
        config::PeerTransport::Tcp => PeerTransport::Tcp,
    };
    settings.datagrams = config.quic.datagrams();
    let transport = settings.transport;
    let (endpoint, events) = PeerEndpoint::start(settings, tls)?;
    Ok(Peers::new(endpoint, transport, events))
}

/// A certificate of another node would be refused by every peer; better to say so here.
fn check_certificate(common: &Common, certified: &NodeIdentity) -> Result<(), StartError> {
    let identity = common.directory.identity();
    let same = certified.node.get() == identity.node.0
        && certified.cluster.to_bytes() == identity.cluster.0
        && certified.incarnation.to_bytes() == identity.incarnation.0;
    if same {
        return Ok(());
    }
    Err(StartError::Membership(format!(
        "{} is the certificate of {certified}, not of this data directory's node",
        common.config.tls.certificate.display()
    )))
}
