//! Idempotent producers, as a client sees them.

use super::*;

fn idempotent(time: i64, value: &str, id: i64, sequence: i32) -> Bytes {
    let producer = ProducerStamp {
        producer_id: id,
        producer_epoch: 0,
        base_sequence: sequence,
    };
    batch(time, &[value], Some(producer))
}

/// The first of two batches comes before the node knows the topic, the second behind that.
#[test]
fn what_is_behind_a_refused_batch_is_refused_alike_until_that_comes_again() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    let time = nodes.wall_ms();
    let id = nodes.ask(client, &init_producer_id(), 4).producer_id.0;
    let batches: Vec<Bytes> = (0..3)
        .map(|n| idempotent(time, &n.to_string(), id, n))
        .collect();
    let once = |nodes: &mut Nodes, batch: &Bytes| {
        let request = produce("t", &[(0, batch.clone())]);
        let answer = nodes.ask(client, &request, 9);
        answer.topics[0].partitions[0].error
    };
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(once(&mut nodes, &batches[0]), unknown);
    nodes.ask(client, &metadata(&["t"]), 12);
    for batch in &batches[1..] {
        assert_eq!(once(&mut nodes, batch), unknown);
    }
    let stranger = nodes.connect(1, 0);
    let code = nodes.produce(stranger, "t", 0, &batches[1]).error;
    assert_eq!(code, ErrorCode::UnknownProducerId);
    for (offset, batch) in (0..).zip(&batches) {
        assert_eq!(nodes.produce(client, "t", 0, batch).base_offset, offset);
    }
    let gap = idempotent(time, "x", id, 7);
    let code = nodes.produce(client, "t", 0, &gap).error;
    assert_eq!(code, ErrorCode::OutOfOrderSequenceNumber);
}

#[test]
fn an_idempotent_producer_gets_an_id_and_is_known_again_after_a_restart() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    let id = nodes.ask(client, &init_producer_id(), 4);
    assert_eq!((id.error_code, id.producer_epoch), (0, 0));
    let other = nodes.ask(client, &init_producer_id(), 4);
    assert_ne!(other.producer_id, id.producer_id);
    let transactional = TransactionalId(text("t"));
    let transactional = init_producer_id().with_transactional_id(Some(transactional));
    assert_eq!(
        ErrorCode::from_code(nodes.ask(client, &transactional, 4).error_code),
        ErrorCode::TransactionalIdAuthorizationFailed
    );

    nodes.ask(client, &metadata(&["t"]), 12);
    let time = nodes.wall_ms();
    let batches: Vec<Bytes> = (0..3)
        .map(|n| idempotent(time, &n.to_string(), id.producer_id.0, n))
        .collect();
    for (offset, batch) in (0..).zip(&batches) {
        assert_eq!(nodes.produce(client, "t", 0, batch).base_offset, offset);
    }
    assert_eq!(nodes.produce(client, "t", 0, &batches[1]).base_offset, 1);
    let gap = idempotent(time, "x", id.producer_id.0, 7);
    let code = nodes.produce(client, "t", 0, &gap).error;
    assert_eq!(code, ErrorCode::OutOfOrderSequenceNumber);

    nodes.kill(NodeId(1));
    nodes.start(NodeId(1));
    nodes.run_until("it is back", Nodes::is_ready);
    let client = nodes.connect(1, 0);
    assert_eq!(nodes.produce(client, "t", 0, &batches[2]).base_offset, 2);
    let next = idempotent(time, "3", id.producer_id.0, 3);
    assert_eq!(nodes.produce(client, "t", 0, &next).base_offset, 3);
    let (read, _) = nodes.read(client, "t", 0, 0);
    assert_eq!(read, ["0", "1", "2", "3"]);
    let after = nodes.ask(client, &init_producer_id(), 4);
    assert!(
        after.producer_id.0 > other.producer_id.0,
        "ids are given out once"
    );
}
