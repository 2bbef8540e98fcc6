use std::sync::Arc;

use highwater_record::{Budget, BufferPool};
use tokio::io::AsyncWriteExt;

use super::super::{AdmissionLimits, FrameReader, ReadLimits};
use super::*;
use crate::ca::ClusterCa;
use crate::identity::{ClusterId, Incarnation, NodeId, NodeIdentity};
use crate::tls::PeerTls;

const LIMITS: ReadLimits = ReadLimits {
    frame_bytes_max: 16 << 20,
    idle: Duration::from_secs(60),
    frame: Duration::from_secs(30),
};

/// Far above what any wait takes, so that a test that hangs says where.
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    ca: ClusterCa,
    admission: Admission,
    idle: Duration,
}

impl World {
    fn new(limits: AdmissionLimits) -> World {
        World {
            ca: ClusterCa::generate(ClusterId::random().unwrap()).unwrap(),
            admission: Admission::new(limits),
            idle: Duration::from_secs(60),
        }
    }

    fn listen(&self, listen: SocketAddr) -> io::Result<QuicListener> {
        let names = ["localhost", "127.0.0.1"];
        let tls = ListenerTls::new(&self.ca.issue_listener(&names).unwrap()).unwrap();
        let config = QuicListenerConfig {
            listen,
            idle: self.idle,
            datagrams: Datagrams::default(),
        };
        QuicListener::bind(config, &tls, self.admission.clone())
    }

    fn listener(&self) -> QuicListener {
        self.listen("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    fn dialer(&self) -> QuicDialer {
        QuicDialer::new(
            ClientTls::new(&self.ca.trust()).unwrap(),
            Datagrams::default(),
        )
    }

    async fn connect(&self, listener: &QuicListener) -> QuicConnection {
        let dialer = self.dialer();
        dialer
            .connect(listener.local_addr(), "localhost")
            .await
            .unwrap()
    }
}

fn limits(connections_max: usize) -> AdmissionLimits {
    AdmissionLimits {
        connections_max,
        ..AdmissionLimits::default()
    }
}

fn pool() -> BufferPool {
    BufferPool::new(Budget::new(64 << 20), 4096)
}

fn frame(body: &[u8]) -> Vec<Bytes> {
    let length = (body.len() as i32).to_be_bytes().to_vec();
    vec![length.into(), Bytes::copy_from_slice(body)]
}

/// Answers each request with the same bytes.
async fn echo(stream: QuicStream) {
    let mut reader = FrameReader::new(stream.reader, pool(), LIMITS);
    let mut writer = stream.writer;
    while let Ok(Some(request)) = reader.next().await {
        writer.write_chunks(frame(&request)).await.unwrap();
    }
}

async fn accept(listener: &mut QuicListener) -> QuicStream {
    timeout(PATIENCE, listener.accept()).await.unwrap().unwrap()
}

async fn ask(stream: QuicStream, requests: &[Vec<u8>]) {
    let mut reader = FrameReader::new(stream.reader, pool(), LIMITS);
    let mut writer = stream.writer;
    let write = async {
        for request in requests {
            writer.write_chunks(frame(request)).await.unwrap();
        }
    };
    let read = async {
        for request in requests {
            let answer = timeout(PATIENCE, reader.next()).await.unwrap();
            assert_eq!(answer.unwrap().unwrap()[..], request[..]);
        }
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn requests_and_answers_of_all_sizes_on_several_streams() {
    let world = World::new(AdmissionLimits::default());
    let mut listener = world.listener();
    let connection = world.connect(&listener).await;
    tokio::spawn(async move {
        while let Some(stream) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    let sizes = [0, 1, 1_000, 70_000, 1 << 20, 16 << 20];
    let requests: Vec<_> = sizes.iter().map(|&size| vec![size as u8; size]).collect();
    let pipelines = (0..3).map(|_| async {
        ask(connection.open().await.unwrap(), &requests).await;
    });
    futures_util::future::join_all(pipelines).await;
    assert!(connection.is_open());
}

#[tokio::test]
async fn an_ipv4_address_serves_as_a_name() {
    let world = World::new(AdmissionLimits::default());
    let listener = world.listener();
    let dialer = world.dialer();
    let connected = dialer.connect(listener.local_addr(), "127.0.0.1").await;
    connected.unwrap();
}

async fn check_refused(dialer: QuicDialer, listener: &mut QuicListener, name: &str) {
    let refused = dialer.connect(listener.local_addr(), name).await;
    assert!(
        matches!(refused, Err(QuicConnectError::Handshake { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_client_believes_its_authority_and_the_name_only() {
    let world = World::new(AdmissionLimits::default());
    let mut listener = world.listener();
    let other = World::new(AdmissionLimits::default());
    check_refused(other.dialer(), &mut listener, "localhost").await;
    check_refused(world.dialer(), &mut listener, "elsewhere.example").await;
    check_refused(world.dialer(), &mut listener, "127.0.0.2").await;
}

#[tokio::test]
async fn a_node_does_not_pass_for_a_client() {
    let world = World::new(AdmissionLimits::default());
    let mut listener = world.listener();
    let identity = NodeIdentity {
        cluster: world.ca.cluster(),
        node: NodeId::new(1).unwrap(),
        incarnation: Incarnation::from_bytes([1; 16]),
    };
    let node = PeerTls::new(&world.ca.trust(), &world.ca.issue_node(&identity).unwrap());
    let mut dialer = world.dialer();
    // The protocol between nodes, on the clients' port.
    dialer.tls.client = Arc::clone(&node.unwrap().client.quic);
    check_refused(dialer, &mut listener, "localhost").await;
}

#[tokio::test]
async fn connections_and_streams_take_places_and_give_them_back() {
    let world = World::new(limits(3));
    let mut listener = world.listener();
    let connection = world.connect(&listener).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = connection.open().await.unwrap();
        stream.writer.write_all(b"x").await.unwrap();
        streams.push((stream, accept(&mut listener).await));
    }
    assert_eq!(world.admission.connections(), 3);
    // A third stream is one too many: reset.
    let mut third = connection.open().await.unwrap();
    third.writer.write_all(b"x").await.unwrap();
    let mut reader = FrameReader::new(third.reader, pool(), LIMITS);
    assert!(timeout(PATIENCE, reader.next()).await.unwrap().is_err());
    // And so is a second connection.
    check_refused(world.dialer(), &mut listener, "localhost").await;
    drop(streams);
    let mut again = connection.open().await.unwrap();
    again.writer.write_all(b"x").await.unwrap();
    let _served = accept(&mut listener).await;
    assert_eq!(world.admission.connections(), 2);
    connection.close();
}

#[tokio::test]
async fn a_connection_has_so_many_streams_and_no_more() {
    let world = World::new(AdmissionLimits::default());
    let mut listener = world.listener();
    let connection = world.connect(&listener).await;
    let mut held = Vec::new();
    for _ in 0..STREAMS_PER_CONNECTION_MAX {
        let mut stream = connection.open().await.unwrap();
        stream.writer.write_all(b"x").await.unwrap();
        held.push((stream, accept(&mut listener).await));
    }
    let one_more = connection.open();
    tokio::pin!(one_more);
    let waits = futures_util::FutureExt::now_or_never(&mut one_more);
    assert!(waits.is_none());
    // QUIC grants an eighth of them at a time.
    held.truncate(12);
    timeout(PATIENCE, one_more).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_without_streams_is_closed() {
    let mut world = World::new(AdmissionLimits::default());
    world.idle = Duration::from_secs(1);
    let listener = world.listener();
    let connection = world.connect(&listener).await;
    let closed = timeout(PATIENCE, connection.connection.closed()).await;
    closed.unwrap();
    assert!(!connection.is_open());
}

#[tokio::test]
async fn a_closed_listener_tells_its_clients_and_frees_its_port() {
    let world = World::new(AdmissionLimits::default());
    let mut listener = world.listener();
    let address = listener.local_addr();
    let connection = world.connect(&listener).await;
    let mut stream = connection.open().await.unwrap();
    stream.writer.write_all(b"x").await.unwrap();
    let served = accept(&mut listener).await;
    drop(served);
    listener.close().await;
    let mut reader = FrameReader::new(stream.reader, pool(), LIMITS);
    assert!(!matches!(
        timeout(PATIENCE, reader.next()).await,
        Ok(Ok(Some(_)))
    ));
    timeout(PATIENCE, connection.connection.closed())
        .await
        .unwrap();
    world.listen(address).unwrap();
}

#[tokio::test]
async fn a_listeners_certificate_can_be_replaced() {
    let world = World::new(AdmissionLimits::default());
    let listener = world.listener();
    let connection = world.connect(&listener).await;
    let moved = world.ca.issue_listener(&["moved.example"]).unwrap();
    listener.replace_tls(&ListenerTls::new(&moved).unwrap());
    let dialer = world.dialer();
    let by_new_name = dialer.connect(listener.local_addr(), "moved.example").await;
    by_new_name.unwrap();
    let by_old_name = dialer.connect(listener.local_addr(), "localhost").await;
    assert!(by_old_name.is_err());
    assert!(connection.is_open());
}

#[tokio::test]
async fn a_busy_port_is_an_error_of_its_own_kind() {
    let world = World::new(AdmissionLimits::default());
    let listener = world.listener();
    let error = world.listen(listener.local_addr()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn lengths_that_lie_end_the_pipeline_not_the_listener() {
    let world = World::new(AdmissionLimits::default());
    let mut listener = world.listener();
    let connection = world.connect(&listener).await;
    for length in [-1, i32::MIN, i32::MAX, (16 << 20) + 1] {
        let mut stream = connection.open().await.unwrap();
        stream
            .writer
            .write_all(&length.to_be_bytes())
            .await
            .unwrap();
        let served = accept(&mut listener).await;
        let pool = pool();
        let mut reader = FrameReader::new(served.reader, pool.clone(), LIMITS);
        assert!(
            timeout(PATIENCE, reader.next()).await.unwrap().is_err(),
            "{length}"
        );
        assert_eq!(pool.budget().used(), 0);
    }
}
