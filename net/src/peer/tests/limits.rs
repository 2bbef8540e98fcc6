//! Everything has a bound, and at the bound it waits, refuses or ends, as it should.

use bytes::Bytes;

use super::stranger::{Stranger, hello, open};
use super::*;
use crate::peer::handshake::{Hello, read};
use crate::peer::transport::{Connection, Receiver, Sender};

over_both! {
    a_peer_that_takes_nothing_stops_appends_but_not_control,
    a_peer_that_takes_no_control_frames_is_given_up,
    nothing_is_read_while_the_budget_is_exhausted,
    a_frame_above_the_whole_budget_ends_the_session,
    a_length_that_lies_ends_the_session_and_takes_no_memory,
    half_a_frame_is_never_delivered,
    a_flood_of_newcomers_is_bounded_and_passes,
    nothing_of_a_session_comes_after_its_end,
    who_was_refused_can_wait_for_room,
}

const MIB: usize = 1 << 20;

fn frame(bytes: usize, count: usize) -> Bytes {
    Bytes::from(vec![count as u8; bytes])
}

/// Sends until the other node's queue is full and so is the outbox here.
async fn fill(node: &Node, to: &Node, number: SessionNumber, lane: Lane) -> usize {
    let mut sent = 0;
    loop {
        let frame = frame(MIB, sent);
        match node.endpoint.send(to.id(), number, lane, &[frame]) {
            Ok(()) => sent += 1,
            Err(error) => {
                assert!(matches!(error, SendError::OutboxFull { .. }), "{error}");
                // The queue's 32 MiB, and one that does not fit.
                if to.endpoint.counters().frames_received > 32 {
                    return sent;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn a_peer_that_takes_nothing_stops_appends_but_not_control(transport: PeerTransport) {
    let (mut first, mut second) = Cluster::new(transport).pair();
    let number = both_up(&mut first, &mut second).await.number;
    let to = second.id();
    let sent = fill(&first, &second, number, Lane::Append).await;
    // Queue, outbox, and between them QUIC's windows or the kernel's buffers.
    let between = match transport {
        PeerTransport::Quic => 8 + 16,
        PeerTransport::Tcp => 64,
    };
    assert!((33 + 15..=33 + 16 + between).contains(&sent), "{sent} MiB");
    assert!(first.endpoint.counters().outbox_full > 0);
    first
        .endpoint
        .send(to, number, Lane::Control, &[Bytes::from("vote")])
        .unwrap();
    first
        .endpoint
        .send(to, number, Lane::Bulk, &[Bytes::from("base")])
        .unwrap();
    let first_in = second.wait(|event| match event {
        PeerEvent::Frame { lane, .. } => Some(lane),
        _ => None,
    });
    // Appends wait already; control overtakes them once it is there.
    let mut next = usize::from(first_in.await == Lane::Append);
    assert_eq!(second.events_until(Lane::Control, &mut next).await, b"vote");
    while next < sent {
        let body = second.frame(Lane::Append).await;
        assert_eq!(body[..], frame(MIB, next)[..], "frame {next}");
        next += 1;
    }
}

impl Node {
    /// The next frame on `lane`, counting the appends that come before it.
    async fn events_until(&mut self, lane: Lane, appends: &mut usize) -> Vec<u8> {
        self.wait(|event| match event {
            PeerEvent::Frame {
                lane: from, body, ..
            } if from == lane => Some(body.to_vec()),
            PeerEvent::Frame {
                lane: Lane::Append, ..
            } => {
                *appends += 1;
                None
            }
            _ => None,
        })
        .await
    }
}

async fn a_peer_that_takes_no_control_frames_is_given_up(transport: PeerTransport) {
    let (mut first, mut second) = Cluster::new(transport).pair();
    let number = both_up(&mut first, &mut second).await.number;
    let given_up = timeout(PATIENCE, async {
        while first
            .endpoint
            .send(second.id(), number, Lane::Control, &[frame(MIB, 0)])
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
    });
    given_up.await.unwrap();
    let limit = OutboxLimits::default().control;
    assert_eq!(first.down().await.2, DownReason::ControlOverflow { limit });
    second.down().await;
    both_up(&mut first, &mut second).await;
}

async fn nothing_is_read_while_the_budget_is_exhausted(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut config = config(transport);
    config.pool = pool(3 * MIB);
    let mut first = cluster.start(1);
    let mut second = Node::start(config, cluster.tls(2));
    introduce(&[&first, &second]);
    let number = both_up(&mut first, &mut second).await.number;
    for count in 0..4 {
        first
            .endpoint
            .send(id(2), number, Lane::Append, &[frame(MIB, count)])
            .unwrap();
    }
    let held = [
        second.frame(Lane::Append).await,
        second.frame(Lane::Append).await,
    ];
    let endpoint = second.endpoint.clone();
    until(|| endpoint.counters().budget_waits > 10).await;
    // A third would fit, and leave the log nothing to write with.
    assert_eq!(endpoint.counters().frames_received, 2);
    // Votes go on.
    first
        .endpoint
        .send(id(2), number, Lane::Control, &[frame(100, 7)])
        .unwrap();
    let mut appends = 2;
    assert_eq!(
        second.events_until(Lane::Control, &mut appends).await,
        [7; 100]
    );
    drop(held);
    while appends < 4 {
        let body = second.frame(Lane::Append).await;
        assert_eq!(body[..], frame(MIB, appends)[..]);
        appends += 1;
    }
}

async fn a_frame_above_the_whole_budget_ends_the_session(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut config = config(transport);
    config.pool = pool(MIB);
    let mut first = cluster.start(1);
    let mut second = Node::start(config, cluster.tls(2));
    introduce(&[&first, &second]);
    let number = both_up(&mut first, &mut second).await.number;
    first
        .endpoint
        .send(id(2), number, Lane::Bulk, &[frame(2 * MIB, 0)])
        .unwrap();
    let (_, _, reason) = second.down().await;
    let above = DownReason::AboveBudget {
        lane: Lane::Bulk,
        bytes: 2 << 20,
    };
    assert_eq!(reason, above);
}

/// A lane of somebody who has been let in.
struct OpenLane {
    _connection: Connection,
    send: Sender,
    receive: Receiver,
}

/// A good node 1 by its handshake, which says what it likes afterwards.
async fn three_lanes(cluster: &Cluster, to: &Node) -> Vec<OpenLane> {
    let stranger = Stranger::node(cluster, 1);
    let mut lanes = Vec::new();
    for lane in Lane::ALL {
        let mut connection = stranger.connect(to).await.unwrap();
        let hello = Hello {
            lane,
            ..hello(cluster, 1, to)
        };
        let (send, mut receive) = open(&mut connection, &hello.encode()).await;
        read(&mut receive).await.unwrap().unwrap();
        lanes.push(OpenLane {
            _connection: connection,
            send,
            receive,
        });
    }
    lanes
}

async fn say(send: &mut Sender, bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    send.write_all(&mut [bytes]).await.unwrap();
}

async fn a_length_that_lies_ends_the_session_and_takes_no_memory(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    for lane in Lane::ALL {
        for bytes in [lane.frame_bytes_max() as u32 + 1, 1 << 31, u32::MAX] {
            let mut config = config(transport);
            let pool = pool(64 * MIB);
            config.pool = pool.clone();
            let mut node = Node::start(config, cluster.tls(2));
            let dialer = Peer {
                node: id(1),
                incarnation: None,
                address: loopback(),
            };
            node.endpoint.set_peers(&[dialer]);
            let mut lanes = three_lanes(&cluster, &node).await;
            node.up().await;
            say(&mut lanes[lane.index()].send, &bytes.to_le_bytes()).await;
            let max = lane.frame_bytes_max();
            let expected = DownReason::FrameTooLarge { lane, bytes, max };
            assert_eq!(node.down().await.2, expected);
            assert_eq!(pool.budget().used(), 0);
            // The other lanes go with it.
            for mut lane in lanes {
                let mut byte = [0];
                let over = timeout(PATIENCE, lane.receive.read_array(&mut byte));
                assert_ne!(over.await.unwrap(), Ok(true));
            }
        }
    }
}

async fn half_a_frame_is_never_delivered(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut node = cluster.start(2);
    let dialer = Peer {
        node: id(1),
        incarnation: None,
        address: loopback(),
    };
    node.endpoint.set_peers(&[dialer]);
    let mut lanes = three_lanes(&cluster, &node).await;
    node.up().await;
    let send = &mut lanes[Lane::Append.index()].send;
    say(send, &100_u32.to_le_bytes()).await;
    say(send, &[7; 99]).await;
    send.finish().await;
    let (_, _, reason) = node.down().await;
    assert!(
        matches!(
            reason,
            DownReason::ConnectionLost {
                lane: Lane::Append,
                ..
            }
        ),
        "{reason}"
    );
    assert_eq!(node.endpoint.counters().frames_received, 0);
}

async fn a_flood_of_newcomers_is_bounded_and_passes(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut node = cluster.start(2);
    // Connections that say nothing.
    let stranger = Stranger::node(&cluster, 1);
    let absent = Peer {
        node: id(1),
        incarnation: None,
        address: loopback(),
    };
    node.endpoint.set_peers(&[absent]);
    let connecting = (0..INCOMING_MAX + 10).map(|_| stranger.connect(&node));
    let connected = futures_util::future::join_all(connecting).await;
    let silent: Vec<_> = connected.into_iter().flatten().collect();
    let refused = (INCOMING_MAX + 10 - silent.len()) as u64;
    // Who is refused may knock again.
    let counters = node.endpoint.counters();
    assert!(counters.refused_for(RefusalReason::Busy) >= refused);
    assert!(refused >= 1, "{} got in at once", silent.len());
    assert!(silent.len() >= INCOMING_MAX);
    // They are shown out after their time, and a good node gets in.
    let mut first = cluster.start(1);
    introduce(&[&first, &node]);
    both_up(&mut first, &mut node).await;
    let timed_out = node.endpoint.clone();
    until(|| timed_out.counters().refused_for(RefusalReason::Timeout) as usize == silent.len())
        .await;
}

async fn nothing_of_a_session_comes_after_its_end(transport: PeerTransport) {
    let (mut first, mut second) = Cluster::new(transport).pair();
    let number = both_up(&mut first, &mut second).await.number;
    for count in 0..8 {
        first
            .endpoint
            .send(second.id(), number, Lane::Append, &[frame(MIB, count)])
            .unwrap();
    }
    let endpoint = second.endpoint.clone();
    until(|| endpoint.counters().frames_received == 8).await;
    endpoint.close().await;
    assert_eq!(second.down().await.2, DownReason::Closed);
    assert!(second.events.try_recv().is_none());
}

async fn who_was_refused_can_wait_for_room(transport: PeerTransport) {
    let (mut first, mut second) = Cluster::new(transport).pair();
    let number = both_up(&mut first, &mut second).await.number;
    let to = second.id();
    fill(&first, &second, number, Lane::Append).await;
    let endpoint = first.endpoint.clone();
    let waiting = tokio::spawn(async move { endpoint.room(to, number, Lane::Append).await });
    while !waiting.is_finished() {
        second.frame(Lane::Append).await;
    }
    assert_eq!(waiting.await.unwrap(), Ok(()));
    first
        .endpoint
        .send(to, number, Lane::Append, &[frame(MIB, 0)])
        .unwrap();
    // A session that ends lets go who waits.
    fill(&first, &second, number, Lane::Append).await;
    let endpoint = first.endpoint.clone();
    let waiting = tokio::spawn(async move { endpoint.room(to, number, Lane::Append).await });
    second.endpoint.close().await;
    timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    first.down().await;
    assert_eq!(
        first.endpoint.room(to, number, Lane::Append).await,
        Err(SendError::NotUp {
            to,
            session: number
        })
    );
}
