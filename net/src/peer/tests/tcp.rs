//! What only TCP has: connections without TLS, an older TLS, segments, bytes that are heard and
//! said again.

use std::sync::{Arc, Mutex};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::old_client;

const TCP: PeerTransport = PeerTransport::Tcp;

/// A node 2 that knows a node 1, which is not there.
fn lonely(cluster: &Cluster) -> Node {
    let node = cluster.start(2);
    let absent = Peer {
        node: id(1),
        incarnation: None,
        address: loopback(),
    };
    node.endpoint.set_peers(&[absent]);
    node
}

/// A good node 1 by its certificate, that speaks TLS and then what it likes.
async fn let_in(cluster: &Cluster, node: &Node) -> TlsStream<TcpStream> {
    let name = node.endpoint.owner_identity().peer_name();
    let name = ServerName::try_from(name).unwrap();
    let stream = TcpStream::connect(node.endpoint.local_addr())
        .await
        .unwrap();
    let connector = TlsConnector::from(cluster.tls(1).client.tcp);
    connector.connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn with_an_older_tls() {
    let cluster = Cluster::new(TCP);
    let mut node = lonely(&cluster);
    let credentials = cluster.ca.issue_node(&cluster.identity(1)).unwrap();
    let connector = TlsConnector::from(old_client(&cluster.ca.trust(), &credentials));
    let name = ServerName::try_from(node.endpoint.owner_identity().peer_name()).unwrap();
    let stream = TcpStream::connect(node.endpoint.local_addr())
        .await
        .unwrap();
    let error = connector.connect(name, stream).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    assert_eq!(node.refusal().await, RefusalReason::Tls);
}

#[tokio::test]
async fn without_tls() {
    let mut node = lonely(&Cluster::new(TCP));
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[0xff; 100]] {
        let mut stream = TcpStream::connect(node.endpoint.local_addr())
            .await
            .unwrap();
        stream.write_all(bytes).await.unwrap();
        assert_eq!(node.refusal().await, RefusalReason::Tls);
    }
}

#[tokio::test]
async fn with_bytes_that_are_no_segments() {
    let cluster = Cluster::new(TCP);
    let mut node = lonely(&cluster);
    let too_long = [1, 1, 0, 4, 0];
    let longest = [1, 0xff, 0xff, 0xff, 0xff];
    for bytes in [too_long, longest, [1, 0, 0, 0, 0], [9; 5]] {
        let mut stream = let_in(&cluster, &node).await;
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(node.refusal().await, RefusalReason::Malformed, "{bytes:?}");
    }
    assert_eq!(node.endpoint.counters().frames_received, 0);
}

/// Neither those who say nothing at all nor those who say "alive" for ever keep a place.
#[tokio::test]
async fn a_flood_of_the_silent_is_bounded_and_passes() {
    let cluster = Cluster::new(TCP);
    let mut node = lonely(&cluster);
    let mut talker = let_in(&cluster, &node).await;
    let talking = tokio::spawn(async move {
        while talker.write_all(&[2, 0, 0, 0, 0]).await.is_ok() {
            let flushed = talker.flush().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            if flushed.is_err() {
                break;
            }
        }
    });
    let mut silent = Vec::new();
    for _ in 0..INCOMING_MAX + 10 {
        silent.push(
            TcpStream::connect(node.endpoint.local_addr())
                .await
                .unwrap(),
        );
    }
    let endpoint = node.endpoint.clone();
    until(|| endpoint.counters().refused_for(RefusalReason::Busy) > 10).await;
    let timed_out = || endpoint.counters().refused_for(RefusalReason::Timeout) as usize;
    until(|| timed_out() == INCOMING_MAX).await;
    timeout(PATIENCE, talking).await.unwrap().unwrap();
    let mut first = cluster.start(1);
    introduce(&[&first, &node]);
    both_up(&mut first, &mut node).await;
}

/// Both ends say that they are there, whatever they have to say.
#[tokio::test]
async fn an_idle_link_stands() {
    let (mut first, mut second) = Cluster::new(TCP).pair();
    let number = both_up(&mut first, &mut second).await.number;
    // The clock goes on when everybody waits, to the next time at which somebody wants to wake.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(60)).await;
    tokio::time::resume();
    let word = bytes::Bytes::from("still there");
    let sent = first.endpoint.send(id(2), number, Lane::Append, &[word]);
    sent.unwrap();
    assert_eq!(second.frame(Lane::Append).await[..], *b"still there");
}

type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

/// Passes on what comes in at `front` to `to`, and keeps what the first side says by connection.
async fn eavesdrop(front: TcpListener, to: SocketAddr, heard: Heard) {
    loop {
        let (first, _) = front.accept().await.unwrap();
        let second = TcpStream::connect(to).await.unwrap();
        let number = {
            let mut heard = heard.lock().unwrap();
            heard.push(Vec::new());
            heard.len() - 1
        };
        let (mut said, mut say_back) = first.into_split();
        let (mut answered, mut say) = second.into_split();
        let heard = heard.clone();
        tokio::spawn(async move {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(read @ 1..) = said.read(&mut bytes).await {
                heard.lock().unwrap()[number].extend_from_slice(&bytes[..read]);
                say.write_all(&bytes[..read]).await.unwrap();
            }
        });
        tokio::spawn(async move { tokio::io::copy(&mut answered, &mut say_back).await });
    }
}

#[tokio::test]
async fn x17_what_was_heard_on_the_way_says_nothing_when_it_is_said_again() {
    let cluster = Cluster::new(TCP);
    let (mut first, mut second) = (cluster.start(1), cluster.start(2));
    let front = TcpListener::bind(loopback()).await.unwrap();
    let detour = Peer {
        address: front.local_addr().unwrap(),
        ..second.as_peer()
    };
    let heard = Heard::default();
    let address = second.endpoint.local_addr();
    let between = tokio::spawn(eavesdrop(front, address, heard.clone()));
    first.endpoint.set_peers(&[detour]);
    second.endpoint.set_peers(&[first.as_peer()]);
    let number = both_up(&mut first, &mut second).await.number;
    let say = |word: &'static str| {
        let word = bytes::Bytes::from(word);
        let sent = first.endpoint.send(id(2), number, Lane::Append, &[word]);
        sent.unwrap();
    };
    for word in ["one", "two", "three"] {
        say(word);
        assert_eq!(second.frame(Lane::Append).await[..], *word.as_bytes());
    }
    let received = second.endpoint.counters().frames_received;
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.len(), Lane::ALL.len());
    for bytes in &heard {
        let mut again = TcpStream::connect(address).await.unwrap();
        // The end may come while it is still being said.
        let _ = again.write_all(bytes).await;
        assert_eq!(second.refusal().await, RefusalReason::Tls);
    }
    say("four");
    // The very next frame, in the same session: `frame` takes its end for a failure.
    assert_eq!(second.frame(Lane::Append).await[..], *b"four");
    assert_eq!(second.endpoint.counters().frames_received, received + 1);
    between.abort();
}
