//! How fast a link between two nodes is on this machine: each end on a thread and a runtime of
//! its own, frames one way on the append lane, received into a pool and dropped.
//!
//! `cargo run --release -p highwater-net --example throughput -- [frame KiB] [total MiB]`

use std::error::Error;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use highwater_net::peer::{Lane, Peer, PeerConfig, PeerEndpoint, PeerEvent, PeerEvents, SendError};
use highwater_net::{
    Boot, ClusterCa, ClusterId, Credentials, Incarnation, NodeId, NodeIdentity, PeerTls, Trust,
};
use highwater_record::{Budget, BufferPool};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let frame_bytes = arguments.next().transpose()?.unwrap_or(256) << 10;
    let total_bytes = arguments.next().transpose()?.unwrap_or(4_096) << 20;
    let frames = total_bytes.div_ceil(frame_bytes);

    let ca = ClusterCa::generate(ClusterId::random()?)?;
    let trust = ca.trust();
    let [sender, receiver] = [1, 2].map(|number| certify(&ca, number));
    let (sender, receiver) = (sender?, receiver?);
    let (address_to, address) = mpsc::channel();
    let receiving = thread::spawn({
        let trust = trust.clone();
        move || run(receive(trust, receiver, address_to, frames))
    });
    let address = address.recv()?;
    let begun_cpu = cpu_seconds()?;
    let seconds = run(send(trust, sender, address, frame_bytes, frames))?;
    receiving.join().map_err(|_| "the receiver panicked")??;
    let bytes = (frames * frame_bytes) as f64;
    println!(
        "{frames} frames of {frame_bytes} bytes: {:.0} MB/s, {:.2} CPU-s/GB (both ends)",
        bytes / 1e6 / seconds,
        (cpu_seconds()? - begun_cpu) / (bytes / 1e9),
    );
    Ok(())
}

fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

fn certify(ca: &ClusterCa, number: u32) -> Result<Credentials, Failure> {
    Ok(ca.issue_node(&NodeIdentity {
        cluster: ca.cluster(),
        node: NodeId::new(number).ok_or("a small number")?,
        incarnation: Incarnation::random()?,
    })?)
}

fn start(
    trust: &Trust,
    credentials: &Credentials,
    peer: u32,
    address: SocketAddr,
) -> Result<(PeerEndpoint, PeerEvents), Failure> {
    let peer = Peer {
        node: NodeId::new(peer).ok_or("a small number")?,
        incarnation: None,
        address,
    };
    let pool = BufferPool::new(Budget::new(256 << 20), 4096);
    let config = PeerConfig::new("127.0.0.1:0".parse()?, Boot(1), vec![peer], pool);
    Ok(PeerEndpoint::start(
        config,
        PeerTls::new(trust, credentials)?,
    )?)
}

async fn receive(
    trust: Trust,
    credentials: Credentials,
    address: mpsc::Sender<SocketAddr>,
    frames: usize,
) -> Result<(), Failure> {
    // The acceptor does not dial, so any address will do.
    let (endpoint, mut events) = start(&trust, &credentials, 1, "127.0.0.1:1".parse()?)?;
    address.send(endpoint.local_addr())?;
    let mut received = 0;
    let mut session = None;
    while received < frames {
        match events.recv().await {
            PeerEvent::Up { session: begun, .. } => session = Some(begun),
            PeerEvent::Frame { .. } => received += 1,
            PeerEvent::Down { reason, .. } => return Err(reason.into()),
            PeerEvent::DialFailed { .. } | PeerEvent::Refused { .. } => {}
        }
    }
    let session = session.ok_or("frames come in sessions")?;
    endpoint.send(session.dialer.node, session.number, Lane::Control, &[])?;
    // Until the sender has gone.
    while !matches!(events.recv().await, PeerEvent::Down { .. }) {}
    Ok(())
}

/// How many seconds the receiver needed to have everything.
async fn send(
    trust: Trust,
    credentials: Credentials,
    address: SocketAddr,
    frame_bytes: usize,
    frames: usize,
) -> Result<f64, Failure> {
    let (endpoint, mut events) = start(&trust, &credentials, 2, address)?;
    let session = loop {
        if let PeerEvent::Up { session, .. } = events.recv().await {
            break session;
        }
    };
    let frame = [Bytes::from(vec![7; frame_bytes])];
    let (to, number) = (session.acceptor.node, session.number);
    let begun = Instant::now();
    let mut sent = 0;
    while sent < frames {
        match endpoint.send(to, number, Lane::Append, &frame) {
            Ok(()) => sent += 1,
            Err(SendError::OutboxFull { .. }) => endpoint.room(to, number, Lane::Append).await?,
            Err(error) => return Err(error.into()),
        }
    }
    while !matches!(events.recv().await, PeerEvent::Frame { .. }) {}
    let seconds = begun.elapsed().as_secs_f64();
    endpoint.close().await;
    Ok(seconds)
}

/// User and system time of this process: fields 14 and 15 of proc(5)'s `stat`, in hundredths.
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no process name")?;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}
