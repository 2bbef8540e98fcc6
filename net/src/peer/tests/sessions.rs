//! Sessions begin, are equal at both ends, end, and begin anew.

use std::thread;

use tokio::sync::oneshot;

use super::*;

over_both! {
    two_peers_hold_the_same_session,
    three_peers_hold_a_session_for_each_pair,
    a_closed_end_is_noticed_and_its_next_life_is_another_session,
    a_killed_acceptor_that_comes_back_resets_the_old_session,
    a_killed_dialer_that_comes_back_supersedes_the_old_session,
    who_leaves_the_membership_is_cut_off_and_may_return,
    a_peer_that_moves_is_dialled_at_its_new_address,
    certificates_can_be_replaced_while_sessions_stand,
    a_node_that_was_never_booted_is_not_started,
}

async fn two_peers_hold_the_same_session(transport: PeerTransport) {
    let (mut first, mut second) = Cluster::new(transport).pair();
    let session = both_up(&mut first, &mut second).await;
    assert_eq!(session.dialer, first.endpoint.life());
    assert_eq!(session.acceptor, second.endpoint.life());
    assert_eq!(session.number.0 >> 32, 1, "the dialer's boot counter");
    assert_eq!(first.endpoint.counters().sessions, 1);
    assert_eq!(second.endpoint.counters().sessions, 1);
}

async fn three_peers_hold_a_session_for_each_pair(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut nodes = [1, 2, 3].map(|node| cluster.start(node));
    introduce(&nodes.each_ref());
    let mut sessions = Vec::new();
    for node in &mut nodes {
        for _ in 0..2 {
            let (_, session) = node.up().await;
            sessions.push((session.dialer.node, session.acceptor.node, session.number));
        }
    }
    sessions.sort_unstable();
    let pairs: Vec<_> = sessions
        .chunks(2)
        .map(|both| (both[0].0, both[0].1))
        .collect();
    assert_eq!(pairs, [(id(1), id(2)), (id(1), id(3)), (id(2), id(3))]);
    assert!(sessions.chunks(2).all(|both| both[0] == both[1]));
}

async fn a_closed_end_is_noticed_and_its_next_life_is_another_session(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let (mut first, mut second) = cluster.pair();
    let session = both_up(&mut first, &mut second).await;
    let address = second.endpoint.local_addr();
    second.endpoint.close().await;
    assert_eq!(second.down().await.2, DownReason::Closed);
    let (peer, number, reason) = first.down().await;
    assert_eq!((peer, number), (second.id(), session.number));
    assert!(
        matches!(reason, DownReason::ConnectionLost { .. }),
        "{reason}"
    );
    let stale = first
        .endpoint
        .send(id(2), session.number, Lane::Append, &[]);
    assert!(matches!(stale, Err(SendError::NotUp { .. })));

    let mut config = config(transport);
    config.listen = address;
    config.boot = Boot(2);
    drop(second);
    let mut second = Node::start(config, cluster.tls(2));
    second.endpoint.set_peers(&[first.as_peer()]);
    let next = both_up(&mut first, &mut second).await;
    assert!(next.number > session.number);
    assert_eq!(next.acceptor.boot, Boot(2));
    assert_eq!(next.dialer, session.dialer);
}

/// A node on a thread of its own, which dies without a word when told to.
struct Mortal {
    kill: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
    address: SocketAddr,
}

impl Mortal {
    fn start(config: PeerConfig, tls: PeerTls, peers: Vec<Peer>) -> Mortal {
        let (kill, killed) = oneshot::channel();
        let (address_to, address) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let node = runtime.block_on(async {
                let node = Node::start(config, tls);
                node.endpoint.set_peers(&peers);
                address_to.send(node.endpoint.local_addr()).unwrap();
                let _ = killed.await;
                node
            });
            // Without its runtime, the endpoint cannot say that it closes.
            drop(runtime);
            drop(node);
        });
        Mortal {
            kill,
            thread,
            address: address.recv().unwrap(),
        }
    }

    fn kill(self) {
        self.kill.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

/// A peer with this id, wherever it listens.
fn at(node: u32, address: SocketAddr) -> Peer {
    Peer {
        node: id(node),
        incarnation: Some(incarnation(node)),
        address,
    }
}

async fn a_killed_acceptor_that_comes_back_resets_the_old_session(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut first = cluster.start(1);
    // Both lives have the same key, which is what resets are signed with.
    let tls = cluster.tls(2);
    let mortal = Mortal::start(config(transport), tls.clone(), vec![first.as_peer()]);
    let address = mortal.address;
    first.endpoint.set_peers(&[at(2, address)]);
    let (_, session) = first.up().await;
    mortal.kill();

    let mut config = config(transport);
    config.listen = address;
    config.boot = Boot(2);
    let mut second = Node::start(config, tls);
    second.endpoint.set_peers(&[first.as_peer()]);
    let (_, number, reason) = first.down().await;
    assert_eq!(number, session.number);
    // Not by the idle timeout, but by the new life's stateless reset, or by the kernel.
    let word = match transport {
        PeerTransport::Quic => "reset",
        PeerTransport::Tcp => "without a goodbye",
    };
    assert!(reason.to_string().contains(word), "{reason}");
    let next = both_up(&mut first, &mut second).await;
    assert!(next.number > session.number);
}

async fn a_killed_dialer_that_comes_back_supersedes_the_old_session(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut second = cluster.start(2);
    let mortal = Mortal::start(config(transport), cluster.tls(1), vec![second.as_peer()]);
    second.endpoint.set_peers(&[at(1, mortal.address)]);
    let (_, session) = second.up().await;
    mortal.kill();

    let mut config = config(transport);
    config.boot = Boot(2);
    let mut first = Node::start(config, cluster.tls(1));
    first.endpoint.set_peers(&[second.as_peer()]);
    let (_, number, reason) = second.down().await;
    assert_eq!(number, session.number);
    match transport {
        PeerTransport::Quic => assert_eq!(reason, DownReason::Superseded),
        // The kernel has closed what was the dead process's.
        PeerTransport::Tcp => assert!(matches!(reason, DownReason::ConnectionLost { .. })),
    }
    let next = both_up(&mut first, &mut second).await;
    assert_eq!(next.dialer.boot, Boot(2));
    assert!(next.number > session.number);
}

async fn who_leaves_the_membership_is_cut_off_and_may_return(transport: PeerTransport) {
    let (mut first, mut second) = Cluster::new(transport).pair();
    let session = both_up(&mut first, &mut second).await;
    second.endpoint.set_peers(&[]);
    assert_eq!(second.down().await.2, DownReason::Closed);
    first.down().await;
    assert_eq!(
        first.dial_failure().await,
        DialError::Refused(RefusalReason::UnknownNode)
    );
    second.endpoint.set_peers(&[first.as_peer()]);
    assert!(both_up(&mut first, &mut second).await.number > session.number);
}

async fn a_peer_that_moves_is_dialled_at_its_new_address(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let (mut first, mut second) = cluster.pair();
    both_up(&mut first, &mut second).await;
    drop(second);
    let mut config = config(transport);
    config.boot = Boot(2);
    let mut second = Node::start(config, cluster.tls(2));
    introduce(&[&first, &second]);
    first.down().await;
    both_up(&mut first, &mut second).await;
}

async fn certificates_can_be_replaced_while_sessions_stand(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let (mut first, mut second) = cluster.pair();
    let session = both_up(&mut first, &mut second).await;
    for (node, number) in [(&first, 1), (&second, 2)] {
        node.endpoint.replace_tls(cluster.tls(number));
    }
    let to_second = first
        .endpoint
        .send(id(2), session.number, Lane::Control, &[]);
    to_second.unwrap();
    assert_eq!(second.frame(Lane::Control).await.len(), 0);
    // The next handshake uses the new ones.
    second.endpoint.set_peers(&[]);
    first.down().await;
    second.down().await;
    second.endpoint.set_peers(&[first.as_peer()]);
    both_up(&mut first, &mut second).await;
}

async fn a_node_that_was_never_booted_is_not_started(transport: PeerTransport) {
    for boot in [0, u64::from(u32::MAX) + 1] {
        let mut config = config(transport);
        config.boot = Boot(boot);
        let refused = PeerEndpoint::start(config, Cluster::new(transport).tls(1));
        assert!(matches!(refused, Err(StartError::Boot(Boot(b))) if b == boot));
    }
    let taken = Cluster::new(transport).start(1);
    let mut config = config(transport);
    config.listen = taken.endpoint.local_addr();
    let refused = PeerEndpoint::start(config, Cluster::new(transport).tls(2));
    assert!(matches!(refused, Err(StartError::Listen { .. })));
}
