//! Nobody gets in who should not: rules X14, X15 and X17.

use std::sync::{Arc, Mutex};

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use tokio::net::UdpSocket;

use super::stranger::{PEER, Stranger, hello, open, turned_away};
use super::*;
use crate::ca::params;
use crate::peer::handshake::{Hello, read};
use crate::tls::ALPN_KAFKA;

over_both! {
    a_stranger_by_the_other_transport_is_not_the_peer,
    a_peer_of_the_other_transport_is_told_from_one_that_is_not_there,
    without_a_certificate,
    with_a_certificate_of_another_authority,
    with_a_self_signed_certificate,
    with_a_listeners_certificate,
    with_another_protocol,
    with_an_expired_certificate,
    with_the_certificate_of_something_else,
    with_a_handshake_of_somebody_else,
    with_bytes_that_are_no_handshake,
    for_a_lane_twice_or_an_old_session,
    a_dialer_refuses_whom_it_did_not_dial,
    a_dialer_refuses_another_incarnation_and_another_authority,
}

/// A node 2 that knows a node 1 and a node 3, neither of which is there.
fn lonely(cluster: &Cluster) -> Node {
    let node = cluster.start(2);
    let absent = |number| Peer {
        node: id(number),
        incarnation: Some(incarnation(number)),
        // Nobody listens on the discard port; node 2 dials only node 3.
        address: "127.0.0.1:9".parse().unwrap(),
    };
    node.endpoint.set_peers(&[absent(1), absent(3)]);
    node
}

async fn check_tls(node: &mut Node, stranger: &Stranger) {
    // The client may believe itself connected before the server has looked at its certificate.
    if let Ok(connection) = stranger.connect(node).await {
        let lost = turned_away(connection).await;
        assert_eq!(lost.refusal, None, "{lost}");
    }
    assert_eq!(node.refusal().await, RefusalReason::Tls);
    assert_eq!(node.endpoint.counters().refused_for(RefusalReason::Tls), 1);
}

async fn without_a_certificate(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let stranger = Stranger::new(&cluster, None, PEER);
    check_tls(&mut lonely(&cluster), &stranger).await;
}

async fn with_a_certificate_of_another_authority(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let other = Cluster::new(transport);
    let credentials = other.ca.issue_node(&other.identity(1)).unwrap();
    let stranger = Stranger::new(&cluster, Some(&credentials), PEER);
    check_tls(&mut lonely(&cluster), &stranger).await;
}

async fn with_a_self_signed_certificate(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let credentials = crate::ca::self_signed(&cluster.identity(1));
    let stranger = Stranger::new(&cluster, Some(&credentials), PEER);
    check_tls(&mut lonely(&cluster), &stranger).await;
}

async fn with_a_listeners_certificate(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let credentials = cluster.ca.issue_listener(&["localhost"]).unwrap();
    let stranger = Stranger::new(&cluster, Some(&credentials), PEER);
    check_tls(&mut lonely(&cluster), &stranger).await;
}

async fn with_another_protocol(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let credentials = cluster.ca.issue_node(&cluster.identity(1)).unwrap();
    let stranger = Stranger::new(&cluster, Some(&credentials), [ALPN_KAFKA; 2]);
    check_tls(&mut lonely(&cluster), &stranger).await;
    let client = Stranger::new(&cluster, None, [ALPN_KAFKA; 2]);
    assert!(client.connect(&lonely(&cluster)).await.is_err());
}

async fn with_an_expired_certificate(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut params = params("node 1".to_owned());
    params.subject_alt_names = vec![uri(&cluster.identity(1))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_after = params.not_before;
    let credentials = cluster.ca.issue(params).unwrap();
    let stranger = Stranger::new(&cluster, Some(&credentials), PEER);
    check_tls(&mut lonely(&cluster), &stranger).await;
}

fn uri(identity: &NodeIdentity) -> SanType {
    SanType::URI(identity.to_string().as_str().try_into().unwrap())
}

/// A certificate of the right authority, good for a client of TLS, that names `names`.
fn certified(cluster: &Cluster, names: Vec<SanType>) -> Stranger {
    let mut params = params("somebody".to_owned());
    params.subject_alt_names = names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let credentials = cluster.ca.issue(params).unwrap();
    Stranger::new(cluster, Some(&credentials), PEER)
}

async fn check_certificate(cluster: &Cluster, names: Vec<SanType>, reason: RefusalReason) {
    let mut node = lonely(cluster);
    let connection = certified(cluster, names).connect(&node).await.unwrap();
    assert_eq!(turned_away(connection).await.refusal, Some(reason));
    assert_eq!(node.refusal().await, reason);
    assert_eq!(node.endpoint.counters().refused_for(reason), 1);
}

async fn with_the_certificate_of_something_else(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let other = NodeIdentity {
        cluster: ClusterId::random().unwrap(),
        ..cluster.identity(1)
    };
    let again = NodeIdentity {
        incarnation: incarnation(9),
        ..cluster.identity(1)
    };
    let both = vec![uri(&cluster.identity(1)), uri(&cluster.identity(3))];
    check_certificate(&cluster, vec![], RefusalReason::NotANode).await;
    check_certificate(&cluster, both, RefusalReason::NotANode).await;
    check_certificate(&cluster, vec![uri(&other)], RefusalReason::OtherCluster).await;
    check_certificate(&cluster, vec![uri(&again)], RefusalReason::OtherIncarnation).await;
    let unknown = vec![uri(&cluster.identity(7))];
    check_certificate(&cluster, unknown, RefusalReason::UnknownNode).await;
    // Our own id is no peer's.
    let ourselves = vec![uri(&cluster.identity(2))];
    check_certificate(&cluster, ourselves, RefusalReason::UnknownNode).await;
}

async fn check_saying(cluster: &Cluster, from: u32, bytes: &[u8], reason: RefusalReason) {
    let mut node = lonely(cluster);
    let lost = Stranger::node(cluster, from).say(&node, bytes).await;
    assert_eq!(lost.refusal, Some(reason), "{lost}");
    assert_eq!(node.refusal().await, reason);
    assert_eq!(node.endpoint.counters().refused_for(reason), 1);
    assert_eq!(node.endpoint.counters().frames_received, 0);
}

async fn with_a_handshake_of_somebody_else(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let to = cluster.start(2);
    let good = hello(&cluster, 1, &to);
    let life = good.from;
    let as_three = Hello {
        from: Life {
            node: id(3),
            incarnation: incarnation(3),
            ..life
        },
        ..good
    };
    let as_another_life = Hello {
        from: Life {
            incarnation: incarnation(9),
            ..life
        },
        ..good
    };
    let of_another_cluster = Hello {
        cluster: ClusterId::random().unwrap(),
        ..good
    };
    let to_another = Hello { to: id(3), ..good };
    let to_another_life = Hello {
        to_incarnation: Some(incarnation(9)),
        ..good
    };
    let of_another_version = Hello {
        version_min: 7,
        version_max: 9,
        ..good
    };
    let of_another_boot = Hello {
        session: SessionNumber(2 << 32 | 1),
        ..good
    };
    for (hello, reason) in [
        (as_three, RefusalReason::NotTheSender),
        (as_another_life, RefusalReason::NotTheSender),
        (of_another_cluster, RefusalReason::OtherCluster),
        (to_another, RefusalReason::NotTheReceiver),
        (to_another_life, RefusalReason::NotTheReceiver),
        (of_another_version, RefusalReason::Version),
        (of_another_boot, RefusalReason::Malformed),
    ] {
        check_saying(&cluster, 1, &hello.encode(), reason).await;
    }
    let higher = hello(&cluster, 3, &to).encode();
    check_saying(&cluster, 3, &higher, RefusalReason::WrongDirection).await;
}

async fn with_bytes_that_are_no_handshake(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut lying = hello(&cluster, 1, &cluster.start(2)).encode();
    lying[4..6].copy_from_slice(&[0xff; 2]);
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 100],
        &[0xff; 100],
        &lying,
    ] {
        check_saying(&cluster, 1, bytes, RefusalReason::Malformed).await;
    }
}

async fn for_a_lane_twice_or_an_old_session(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let node = lonely(&cluster);
    let stranger = Stranger::node(&cluster, 1);
    let current = Hello {
        session: SessionNumber(1 << 32 | 5),
        ..hello(&cluster, 1, &node)
    };
    let mut connection = stranger.connect(&node).await.unwrap();
    let (_send, mut receive) = open(&mut connection, &current.encode()).await;
    let answer = read(&mut receive).await.unwrap().unwrap();
    assert_eq!(answer.from, node.endpoint.life());
    let old = Hello {
        session: SessionNumber(1 << 32 | 4),
        ..current
    };
    for hello in [current, old] {
        let lost = stranger.say(&node, &hello.encode()).await;
        assert_eq!(lost.refusal, Some(RefusalReason::OldSession));
    }
    // Another lane of the same session is welcome.
    let second = Hello {
        lane: Lane::Bulk,
        ..current
    };
    let mut connection = stranger.connect(&node).await.unwrap();
    let (_send, mut receive) = open(&mut connection, &second.encode()).await;
    assert!(read(&mut receive).await.unwrap().is_some());
}

/// The second node, as if it were where `another` is.
fn second_at(another: &Node) -> Peer {
    Peer {
        node: id(2),
        incarnation: Some(incarnation(2)),
        address: another.endpoint.local_addr(),
    }
}

/// A node that answers on another node's address is not taken for it.
async fn a_dialer_refuses_whom_it_did_not_dial(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut first = cluster.start(1);
    let third = cluster.start(3);
    third.endpoint.set_peers(&[first.as_peer()]);
    first.endpoint.set_peers(&[second_at(&third)]);
    let failure = first.dial_failure().await;
    assert!(
        matches!(&failure, DialError::Connection(text) if text.contains("certificate")),
        "{failure}"
    );
}

async fn a_dialer_refuses_another_incarnation_and_another_authority(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut first = cluster.start(1);
    let second = cluster.start(2);
    second.endpoint.set_peers(&[first.as_peer()]);
    let expected = Peer {
        incarnation: Some(incarnation(9)),
        ..second.as_peer()
    };
    first.endpoint.set_peers(&[expected]);
    assert_eq!(
        first.dial_failure().await,
        DialError::NotThePeer(RefusalReason::OtherIncarnation)
    );

    let other = Cluster::new(transport);
    let mut first = other.start(1);
    first.endpoint.set_peers(&[second.as_peer()]);
    let failure = first.dial_failure().await;
    assert!(matches!(failure, DialError::Connection(_)), "{failure}");
}

async fn a_peer_of_the_other_transport_is_told_from_one_that_is_not_there(
    transport: PeerTransport,
) {
    let cluster = Cluster::new(transport);
    let mut first = cluster.start(1);
    let mut second = Node::start(config(transport.other()), cluster.tls(2));
    second.endpoint.set_peers(&[first.as_peer()]);
    let absent = Peer {
        node: id(3),
        incarnation: None,
        address: "127.0.0.1:9".parse().unwrap(),
    };
    first.endpoint.set_peers(&[second.as_peer(), absent]);
    let told = first.wait(|event| match event {
        PeerEvent::DialFailed {
            peer,
            reason: DialError::OtherTransport { theirs, ours },
        } => Some((peer, theirs, ours)),
        _ => None,
    });
    assert_eq!(told.await, (id(2), transport.other(), transport));
    let other = second.wait(|event| match event {
        PeerEvent::Refused { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(other.await, RefusalReason::OtherTransport);
    // Where the mistake is mended, the link stands. On another port: the same number may be taken in
    // the other transport.
    second.endpoint.close().await;
    let mut mended = config(transport);
    mended.boot = Boot(2);
    let mut second = Node::start(mended, cluster.tls(2));
    introduce(&[&first, &second]);
    both_up(&mut first, &mut second).await;
}

/// Who has no certificate of the peer's proves nothing by answering.
async fn a_stranger_by_the_other_transport_is_not_the_peer(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut first = cluster.start(1);
    let third = Node::start(config(transport.other()), cluster.tls(3));
    third.endpoint.set_peers(&[first.as_peer()]);
    first.endpoint.set_peers(&[second_at(&third)]);
    // It has been knocked at: by TLS, which ended for the wrong name.
    let knocked = third.endpoint.clone();
    until(|| knocked.counters().refused_for(RefusalReason::Tls) >= 2).await;
    while let Some(event) = first.events.try_recv() {
        let other = matches!(
            event,
            PeerEvent::DialFailed {
                reason: DialError::OtherTransport { .. },
                ..
            }
        );
        assert!(!other, "{event:?}");
    }
}

#[test]
fn a_listeners_credentials_make_no_node() {
    let cluster = Cluster::new(PeerTransport::default());
    let credentials = cluster.ca.issue_listener(&["localhost"]).unwrap();
    let refused = PeerTls::new(&cluster.ca.trust(), &credentials);
    assert!(matches!(refused, Err(crate::tls::TlsError::Identity(_))));
}

/// Somebody on the way between two nodes, who passes on all that is said and keeps what the first
/// one says.
struct Eavesdropper {
    /// Where the first node believes the second to be.
    front: Arc<UdpSocket>,
    /// As whom the second node knows the first.
    back: Arc<UdpSocket>,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Eavesdropper {
    async fn before(node: &Node) -> Eavesdropper {
        let front = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
        let back = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
        back.connect(node.endpoint.local_addr()).await.unwrap();
        let heard = Arc::<Mutex<Vec<_>>>::default();
        tokio::spawn(pass_on(front.clone(), back.clone(), heard.clone()));
        Eavesdropper { front, back, heard }
    }
}

async fn pass_on(front: Arc<UdpSocket>, back: Arc<UdpSocket>, heard: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut first = None;
    let (mut said, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            received = front.recv_from(&mut said) => {
                let (length, from) = received.unwrap();
                first = Some(from);
                heard.lock().unwrap().push(said[..length].to_vec());
                back.send(&said[..length]).await.unwrap();
            }
            received = back.recv(&mut answered) => {
                let length = received.unwrap();
                let first = first.expect("the first node dials");
                front.send_to(&answered[..length], first).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn x17_what_was_heard_on_the_way_says_nothing_when_it_is_said_again() {
    let cluster = Cluster::new(PeerTransport::Quic);
    let (mut first, mut second) = (cluster.start(1), cluster.start(2));
    let between = Eavesdropper::before(&second).await;
    let detour = Peer {
        address: between.front.local_addr().unwrap(),
        ..second.as_peer()
    };
    first.endpoint.set_peers(&[detour]);
    second.endpoint.set_peers(&[first.as_peer()]);
    let number = both_up(&mut first, &mut second).await.number;
    let say = |first: &Node, to: &Node, word: &'static str| {
        let word = bytes::Bytes::from(word);
        let sent = first.endpoint.send(to.id(), number, Lane::Append, &[word]);
        sent.unwrap();
    };
    for word in ["one", "two", "three"] {
        say(&first, &second, word);
        assert_eq!(second.frame(Lane::Append).await[..], *word.as_bytes());
    }
    let received = second.endpoint.counters().frames_received;
    let heard = between.heard.lock().unwrap().clone();
    // From where it came, and from somewhere else.
    let elsewhere = UdpSocket::bind(loopback()).await.unwrap();
    for datagram in &heard {
        between.back.send(datagram).await.unwrap();
        let to = second.endpoint.local_addr();
        elsewhere.send_to(datagram, to).await.unwrap();
    }
    say(&first, &second, "four");
    // The very next frame, in the same session: `frame` takes its end for a failure.
    assert_eq!(second.frame(Lane::Append).await[..], *b"four");
    assert_eq!(second.endpoint.counters().frames_received, received + 1);
}
