//! What bytes cost on their way in: frames gathered off a stream, and a frame's way over a link of
//! two nodes on loopback and its answer's back.
//!
//! `cargo bench -p highwater-net --bench net`

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_main};
use highwater_net::kafka::{FrameReader, LENGTH_BYTES, ReadLimits};
use highwater_net::peer::{
    Lane, Peer, PeerConfig, PeerEndpoint, PeerEvent, PeerEvents, PeerTransport, SessionNumber,
};
use highwater_net::{Boot, ClusterCa, ClusterId, Incarnation, NodeId, NodeIdentity, PeerTls};
use highwater_record::{Budget, Buffer, BufferPool};
use tokio::runtime::{Builder, Runtime};

const LIMITS: ReadLimits = ReadLimits {
    frame_bytes_max: 16 << 20,
    idle: Duration::from_secs(60),
    frame: Duration::from_secs(60),
};

/// Lengths of frames, in bytes.
const FRAMES: [usize; 3] = [1 << 10, 16 << 10, 1 << 20];

fn pool() -> BufferPool {
    BufferPool::new(Budget::new(256 << 20), 4096)
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime of one thread")
}

fn throughput(bytes: usize) -> Throughput {
    Throughput::Bytes(u64::try_from(bytes).expect("memory is below 2^64"))
}

/// Off a stream that has it all at once.
fn gathering(criterion: &mut Criterion) {
    let (runtime, pool) = (runtime(), pool());
    let mut group = criterion.benchmark_group("gather");
    for len in FRAMES {
        let prefix = i32::try_from(len).expect("a small frame").to_be_bytes();
        let stream = [prefix.to_vec(), vec![7; len]].concat();
        group.throughput(throughput(LENGTH_BYTES + len));
        group.bench_with_input(
            BenchmarkId::from_parameter(len),
            &stream,
            |bencher, stream| {
                bencher.iter(|| {
                    let mut reader = FrameReader::new(&black_box(stream)[..], pool.clone(), LIMITS);
                    let frame = runtime.block_on(reader.next());
                    frame.expect("within the limits").expect("one is there")
                });
            },
        );
    }
    group.finish();
}

/// An end of a link.
struct End {
    endpoint: PeerEndpoint,
    events: PeerEvents,
}

impl End {
    fn start(ca: &ClusterCa, node: u32, transport: PeerTransport) -> End {
        let identity = NodeIdentity {
            cluster: ca.cluster(),
            node: NodeId::new(node).expect("not 0"),
            incarnation: Incarnation::random().expect("the system has randomness"),
        };
        let credentials = ca.issue_node(&identity).expect("a certificate");
        let tls = PeerTls::new(&ca.trust(), &credentials).expect("it is of this authority");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = PeerConfig {
            transport,
            ..PeerConfig::new(address, Boot(1), Vec::new(), pool())
        };
        let (endpoint, events) = PeerEndpoint::start(config, tls).expect("loopback is there");
        End { endpoint, events }
    }

    fn node(&self) -> NodeId {
        self.endpoint.life().node
    }

    fn as_peer(&self) -> Peer {
        Peer {
            node: self.node(),
            incarnation: Some(self.endpoint.life().incarnation),
            address: self.endpoint.local_addr(),
        }
    }

    async fn up(&mut self) -> SessionNumber {
        loop {
            if let PeerEvent::Up { session, .. } = self.events.recv().await {
                return session.number;
            }
        }
    }

    fn send(&self, to: NodeId, session: SessionNumber, lane: Lane, frame: Bytes) {
        let sent = self.endpoint.send(to, session, lane, &[frame]);
        sent.expect("the outbox is empty");
    }

    async fn frame(&mut self) -> Buffer {
        match self.events.recv().await {
            PeerEvent::Frame { body, .. } => body,
            other => panic!("no frame, but {other:?}"),
        }
    }
}

/// Two nodes with a session, in one runtime.
struct Link {
    ends: [End; 2],
    session: SessionNumber,
}

impl Link {
    async fn join(transport: PeerTransport) -> Link {
        let cluster = ClusterId::random().expect("the system has randomness");
        let ca = ClusterCa::generate(cluster).expect("an authority");
        let mut ends = [1, 2].map(|node| End::start(&ca, node, transport));
        let peers = ends.each_ref().map(End::as_peer);
        for end in &ends {
            end.endpoint.set_peers(&peers);
        }
        let session = ends[0].up().await;
        assert_eq!(ends[1].up().await, session);
        Link { ends, session }
    }

    /// A frame there, and a short answer back.
    async fn round_trip(&mut self, frame: &Bytes) {
        let session = self.session;
        let [one, other] = &mut self.ends;
        one.send(other.node(), session, Lane::Append, frame.clone());
        other.frame().await;
        let answer = Bytes::from_static(b"received");
        other.send(one.node(), session, Lane::Control, answer);
        one.frame().await;
    }
}

fn round_trips(criterion: &mut Criterion) {
    for transport in [PeerTransport::Quic, PeerTransport::Tcp] {
        let runtime = runtime();
        let mut link = runtime.block_on(Link::join(transport));
        let mut group = criterion.benchmark_group(format!("round_trip_by_{transport}"));
        for len in FRAMES {
            let frame = Bytes::from(vec![7; len]);
            group.throughput(throughput(len));
            group.bench_with_input(
                BenchmarkId::from_parameter(len),
                &frame,
                |bencher, frame| {
                    bencher.iter(|| runtime.block_on(link.round_trip(frame)));
                },
            );
        }
        group.finish();
    }
}

/// In a module of their own, since the macro makes them public without a description.
mod groups {
    use super::{gathering, round_trips};

    criterion::criterion_group!(benches, gathering, round_trips);
}

criterion_main!(groups::benches);
