//! Frames arrive whole, in order, on their lanes.

use bytes::Bytes;
use highwater_record::Buffer;

use super::*;

over_both! {
    frames_of_all_sizes_on_all_lanes_both_ways,
    a_frame_is_the_sum_of_its_chunks,
    thousands_of_frames_keep_their_order,
    received_frames_lie_in_the_pool_and_are_charged,
}

/// Bytes that tell a shifted or mixed frame from the right one.
fn pattern(length: usize, seed: u64) -> Bytes {
    let mut rng = fastrand::Rng::with_seed(seed ^ length as u64);
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes);
    bytes.into()
}

async fn frames_of_all_sizes_on_all_lanes_both_ways(transport: PeerTransport) {
    let (mut first, mut second) = Cluster::new(transport).pair();
    let number = both_up(&mut first, &mut second).await.number;
    for lane in Lane::ALL {
        let sizes = [
            0,
            1,
            3,
            4,
            1_023,
            1_024,
            65_000,
            1 << 20,
            lane.frame_bytes_max(),
        ];
        for size in sizes {
            let frame = pattern(size, 1);
            let back = pattern(size, 2);
            let to = (second.id(), first.id());
            first
                .endpoint
                .send(to.0, number, lane, std::slice::from_ref(&frame))
                .unwrap();
            second
                .endpoint
                .send(to.1, number, lane, std::slice::from_ref(&back))
                .unwrap();
            assert_eq!(second.frame(lane).await[..], frame[..], "{lane:?} {size}");
            assert_eq!(first.frame(lane).await[..], back[..], "{lane:?} {size}");
        }
        let too_large = pattern(lane.frame_bytes_max() + 1, 1);
        assert_eq!(
            first.endpoint.send(second.id(), number, lane, &[too_large]),
            Err(SendError::TooLarge {
                lane,
                bytes: lane.frame_bytes_max() + 1,
                max: lane.frame_bytes_max()
            })
        );
    }
}

async fn a_frame_is_the_sum_of_its_chunks(transport: PeerTransport) {
    let (mut first, mut second) = Cluster::new(transport).pair();
    let number = both_up(&mut first, &mut second).await.number;
    let whole = pattern(300_000, 3);
    for cuts in [
        vec![],
        vec![0],
        vec![1, 2, 3],
        vec![1_000, 200_000, 200_001],
    ] {
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts {
            chunks.push(whole.slice(from..cut));
            from = cut;
        }
        chunks.push(whole.slice(from..));
        first
            .endpoint
            .send(second.id(), number, Lane::Append, &chunks)
            .unwrap();
        assert_eq!(second.frame(Lane::Append).await[..], whole[..]);
    }
}

async fn thousands_of_frames_keep_their_order(transport: PeerTransport) {
    let (mut first, mut second) = Cluster::new(transport).pair();
    let number = both_up(&mut first, &mut second).await.number;
    let frame = |count: u32| Bytes::from(vec![count as u8; (count % 700) as usize]);
    for count in 0..5_000 {
        for lane in Lane::ALL {
            first
                .endpoint
                .send(second.id(), number, lane, &[frame(count)])
                .unwrap();
        }
    }
    let mut next = [0; 3];
    while next.iter().any(|&count| count < 5_000) {
        let (lane, body): (Lane, Buffer) = second
            .wait(|event| match event {
                PeerEvent::Frame { lane, body, .. } => Some((lane, body)),
                other => panic!("{other:?}"),
            })
            .await;
        assert_eq!(body[..], frame(next[lane.index()])[..], "{lane:?}");
        next[lane.index()] += 1;
    }
    let sent = first.endpoint.counters();
    let received = second.endpoint.counters();
    assert_eq!(sent.frames_sent, 15_000);
    assert_eq!(received.frames_received, 15_000);
    assert_eq!(sent.bytes_sent, received.bytes_received);
}

async fn received_frames_lie_in_the_pool_and_are_charged(transport: PeerTransport) {
    let cluster = Cluster::new(transport);
    let mut config = config(transport);
    let pool = pool(64 << 20);
    config.pool = pool.clone();
    let mut first = cluster.start(1);
    let mut second = Node::start(config, cluster.tls(2));
    introduce(&[&first, &second]);
    let number = both_up(&mut first, &mut second).await.number;
    assert_eq!(pool.budget().used(), 0);
    let frame = pattern(100_000, 4);
    first
        .endpoint
        .send(id(2), number, Lane::Append, &[frame])
        .unwrap();
    let body = second.frame(Lane::Append).await;
    assert!(body.is_aligned(pool.alignment()));
    assert!(pool.budget().used() >= body.len());
    drop(body);
    assert_eq!(pool.budget().used(), 0);
    // Control has memory of its own.
    first
        .endpoint
        .send(id(2), number, Lane::Control, &[pattern(100, 5)])
        .unwrap();
    let _body = second.frame(Lane::Control).await;
    assert_eq!(pool.budget().used(), 0);
}
