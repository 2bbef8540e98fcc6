//! What the client promises when answers get lost and leaders move.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and so may its helpers"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use highwater_client::{
    Client, ConsumeError, Delivery, ErrorCode, MetadataError, Offset, OutOfRange, ProduceError,
    Record, StartAt, TopicName, TopicPartition,
};
use support::{Cluster, Faults};

/// Far longer than anything here should take, and far shorter than an hour.
const PATIENCE: Duration = Duration::from_secs(120);

const ALL_FAULTS: Faults = Faults {
    lose_answer: 4,
    lose_request: 4,
    move_leader: 4,
    time_out: 4,
};

async fn connect(cluster: &Cluster) -> Client {
    Client::builder()
        .bootstrap(&cluster.bootstrap)
        .tcp()
        .connect()
        .await
        .unwrap()
}

fn topic() -> TopicName {
    TopicName::new("t").unwrap()
}

fn partition(partition: u32) -> TopicPartition {
    TopicPartition {
        topic: topic(),
        partition,
    }
}

/// Sends numbered records round the partitions.
async fn send_numbers(
    producer: &highwater_client::Producer,
    partitions: u32,
    numbers: std::ops::Range<u32>,
) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = Record::new(&topic())
            .partition(number % partitions)
            .value(number.to_string());
        deliveries.push(producer.send(record).await.unwrap());
    }
    deliveries
}

/// An idempotent producer's records are in the log once, in order, at the offsets it was told,
/// whatever gets lost on the way.
#[tokio::test]
async fn once_and_in_order_through_lost_answers_and_moving_leaders() {
    const PARTITIONS: u32 = 3;
    for seed in 0..3 {
        let cluster = Cluster::start(3, &[("t", 3)], seed).await;
        let client = connect(&cluster).await;
        cluster.set_faults(ALL_FAULTS);
        let producer = client
            .producer()
            .batch_bytes(300)
            .linger(Duration::ZERO)
            .build();
        let deliveries = send_numbers(&producer, PARTITIONS, 0..1_500).await;
        producer.flush().await;
        let mut told: BTreeMap<u32, Vec<(Offset, String)>> = BTreeMap::new();
        for (number, delivery) in (0_u32..).zip(deliveries) {
            let receipt = delivery.await.unwrap();
            let values = told.entry(receipt.partition.partition).or_default();
            values.push((receipt.offset, number.to_string()));
        }
        for (partition, told) in told {
            let log = cluster.values("t", usize::try_from(partition).unwrap());
            let offsets = (0..).map(Offset);
            let log: Vec<_> = offsets.zip(log).collect();
            assert_eq!(told, log, "seed {seed}, partition {partition}");
        }
    }
}

/// A batch that the broker refuses for good takes nothing else with it.
#[tokio::test]
async fn a_refused_batch_leaves_the_others_whole_and_in_order() {
    let cluster = Cluster::start(1, &[("t", 1)], 1).await;
    let client = connect(&cluster).await;
    cluster.set_batch_bytes_max(1_000);
    let producer = client
        .producer()
        .batch_bytes(200)
        .linger(Duration::ZERO)
        .build();
    let mut deliveries = Vec::new();
    for number in 0..200 {
        let value = match number % 20 {
            7 => "x".repeat(2_000),
            _ => number.to_string(),
        };
        let record = Record::new(&topic()).partition(0).value(value);
        deliveries.push(producer.send(record).await.unwrap());
    }
    let mut expected = Vec::new();
    for (number, delivery) in (0..).zip(deliveries) {
        match delivery.await {
            Ok(receipt) => {
                assert_eq!(receipt.offset, Offset(expected.len().try_into().unwrap()));
                expected.push(number.to_string());
            }
            Err(ProduceError::Refused { error, .. }) => {
                assert_eq!(error, ErrorCode::MessageTooLarge);
                assert_eq!(number % 20, 7, "record {number}");
            }
            Err(error) => panic!("record {number}: {error}"),
        }
    }
    assert_eq!(expected.len(), 190);
    assert_eq!(cluster.values("t", 0), expected);
}

#[tokio::test]
async fn without_a_leader_a_record_expires_and_is_not_in_the_log() {
    let cluster = Cluster::start(1, &[("t", 1)], 1).await;
    let client = connect(&cluster).await;
    cluster.set_led(false);
    let producer = client
        .producer()
        .delivery_timeout(Duration::from_millis(300))
        .build();
    let deliveries = send_numbers(&producer, 1, 0..3).await;
    for delivery in deliveries {
        let error = delivery.await.unwrap_err();
        assert!(matches!(error, ProduceError::Expired { .. }), "{error}");
    }
    cluster.set_led(true);
    let late = send_numbers(&producer, 1, 3..4).await;
    for delivery in late {
        assert_eq!(delivery.await.unwrap().offset, Offset::ZERO);
    }
    assert_eq!(cluster.values("t", 0), ["3"]);
}

#[tokio::test]
async fn without_an_answer_the_outcome_is_called_unknown() {
    let cluster = Cluster::start(1, &[("t", 1)], 1).await;
    let client = connect(&cluster).await;
    cluster.set_faults(Faults {
        lose_answer: 100,
        ..Faults::default()
    });
    let producer = client
        .producer()
        .delivery_timeout(Duration::from_millis(300))
        .build();
    let delivery = send_numbers(&producer, 1, 0..1).await.pop().unwrap();
    let error = delivery.await.unwrap_err();
    assert!(
        matches!(error, ProduceError::OutcomeUnknown { .. }),
        "{error}"
    );
    assert_eq!(cluster.values("t", 0), ["0"], "it was in the log, once");
}

#[tokio::test]
async fn memory_is_bounded_and_nothing_lingers_while_somebody_waits() {
    let cluster = Cluster::start(1, &[("t", 1)], 1).await;
    let client = connect(&cluster).await;
    let producer = client
        .producer()
        .record_bytes_max(2_000)
        .memory_bytes(10_000)
        .linger(Duration::from_secs(3_600))
        .build();
    let mut deliveries = Vec::new();
    for _ in 0..50 {
        let record = Record::new(&topic()).partition(0).value("x".repeat(1_000));
        deliveries.push(producer.send(record).await.unwrap());
        assert!(producer.pending_bytes() <= 10_000);
    }
    producer.flush().await;
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    assert_eq!(producer.pending_bytes(), 0);
    let large = Record::new(&topic()).value("x".repeat(2_000));
    let error = producer.send(large).await.unwrap_err();
    assert!(
        matches!(error, ProduceError::RecordTooLarge { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn lingering_makes_batches() {
    let cluster = Cluster::start(1, &[("t", 1)], 1).await;
    let client = connect(&cluster).await;
    let producer = client.producer().linger(Duration::from_secs(3_600)).build();
    send_numbers(&producer, 1, 0..100).await;
    producer.flush().await;
    assert_eq!(cluster.batches("t", 0), 1);
}

#[tokio::test]
async fn what_was_taken_is_sent_after_the_last_handle_is_dropped() {
    let cluster = Cluster::start(1, &[("t", 1)], 1).await;
    let client = connect(&cluster).await;
    let producer = client.producer().linger(Duration::from_secs(3_600)).build();
    let deliveries = send_numbers(&producer, 1, 0..10).await;
    drop(producer);
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    assert_eq!(cluster.values("t", 0).len(), 10);
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let cluster = Cluster::start(1, &[("t", 2)], 1).await;
    let client = Client::builder()
        .bootstrap(&cluster.bootstrap)
        .tcp()
        .allow_auto_topic_creation(false)
        .connect()
        .await
        .unwrap();
    let producer = client.producer().build();
    let nowhere = TopicName::new("nowhere").unwrap();
    let error = producer.send(Record::new(&nowhere)).await.unwrap_err();
    assert_eq!(error.to_string(), "topic nowhere does not exist");
    let error = producer
        .send(Record::new(&topic()).partition(2))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "topic t has 2 partitions, there is no 2");
    let mut consumer = client.consumer().build();
    assert_eq!(consumer.recv().await, Err(ConsumeError::NothingAssigned));
    let assigned = consumer.assign(partition(5), StartAt::Earliest).await;
    assert!(matches!(
        assigned,
        Err(ConsumeError::Metadata(
            MetadataError::UnknownPartition { .. }
        ))
    ));
}

/// As where a broker has registered a moment ago, and the topic was created meanwhile.
#[tokio::test]
async fn a_topic_that_a_broker_has_not_heard_of_is_asked_for_again() {
    let cluster = Cluster::start(1, &[("t", 1)], 1).await;
    let client = Client::builder()
        .bootstrap(&cluster.bootstrap)
        .tcp()
        .allow_auto_topic_creation(false)
        .connect()
        .await
        .unwrap();
    cluster.set_unheard(2);
    let producer = client.producer().build();
    let delivery = producer.send(Record::new(&topic()).value("here")).await;
    delivery.unwrap().await.unwrap();
    assert_eq!(cluster.values("t", 0), ["here"]);
}

#[tokio::test]
async fn an_absent_server_is_an_error_that_says_where() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Client::builder()
        .bootstrap(&address)
        .tcp()
        .connect()
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&address), "{error}");
}

/// Readers see each record once and in order while connections break and leaders move.
#[tokio::test]
async fn a_consumer_misses_and_doubles_nothing() {
    const PARTITIONS: u32 = 3;
    for seed in 0..2 {
        let cluster = Cluster::start(3, &[("t", 3)], seed).await;
        let client = connect(&cluster).await;
        let producer = client.producer().batch_bytes(200).build();
        send_numbers(&producer, PARTITIONS, 0..1_500).await;
        producer.flush().await;
        cluster.set_faults(ALL_FAULTS);
        let mut consumer = client
            .consumer()
            .partition_bytes_max(500)
            .prefetch_bytes(2_000)
            .build();
        consumer
            .assign_topic(&topic(), StartAt::Earliest)
            .await
            .unwrap();
        let mut next = [0_u32, 1, 2];
        for _ in 0..1_500 {
            let record = consumer.recv().await.unwrap();
            let expected = &mut next[usize::try_from(record.partition.partition).unwrap()];
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            assert_eq!(value, expected.to_string(), "seed {seed}");
            *expected += PARTITIONS;
        }
        for index in 0..PARTITIONS {
            assert_eq!(consumer.position(&partition(index)), Some(Offset(500)));
            assert_eq!(
                consumer.high_watermark(&partition(index)),
                Some(Offset(500))
            );
        }
    }
}

#[tokio::test]
async fn out_of_range_is_an_error_or_goes_where_it_was_told() {
    let cluster = Cluster::start(1, &[("t", 1)], 1).await;
    let client = connect(&cluster).await;
    let producer = client.producer().batch_bytes(100).build();
    send_numbers(&producer, 1, 0..100).await;
    producer.flush().await;
    cluster.delete_below("t", 0, 50);
    let start = StartAt::Offset(Offset(3));

    let mut strict = client.consumer().build();
    strict.assign(partition(0), start).await.unwrap();
    let out_of_range = ConsumeError::OffsetOutOfRange {
        partition: partition(0),
        offset: Offset(3),
    };
    assert_eq!(strict.recv().await, Err(out_of_range.clone()));
    assert_eq!(strict.recv().await, Err(out_of_range), "it stays so");
    strict
        .seek(&partition(0), StartAt::Offset(Offset(99)))
        .unwrap();
    assert_eq!(strict.recv().await.unwrap().offset, Offset(99));

    let mut earliest = client.consumer().out_of_range(OutOfRange::Earliest).build();
    earliest.assign(partition(0), start).await.unwrap();
    assert!(earliest.recv().await.unwrap().offset >= Offset(50));
}

#[tokio::test]
async fn a_corrupt_batch_is_named_and_can_be_passed_over() {
    let cluster = Cluster::start(1, &[("t", 1)], 1).await;
    let client = connect(&cluster).await;
    let producer = client.producer().linger(Duration::ZERO).build();
    for number in 0..3 {
        send_numbers(&producer, 1, number..number + 1).await;
        producer.flush().await;
    }
    cluster.corrupt("t", 0, 1);
    let mut consumer = client.consumer().build();
    consumer
        .assign(partition(0), StartAt::Earliest)
        .await
        .unwrap();
    assert_eq!(consumer.recv().await.unwrap().offset, Offset(0));
    for _ in 0..2 {
        let error = consumer.recv().await.unwrap_err();
        assert!(
            matches!(
                error,
                ConsumeError::CorruptBatch {
                    offset: Offset(1),
                    ..
                }
            ),
            "{error}"
        );
    }
    consumer
        .seek(&partition(0), StartAt::Offset(Offset(2)))
        .unwrap();
    assert_eq!(consumer.recv().await.unwrap().offset, Offset(2));
}

#[tokio::test]
async fn a_time_is_found_and_one_behind_the_last_record_is_the_end() {
    let cluster = Cluster::start(1, &[("t", 1)], 1).await;
    let client = connect(&cluster).await;
    let producer = client.producer().build();
    for number in 0..10 {
        let record = Record::new(&topic())
            .value(number.to_string())
            .timestamp_ms(1_000 + 10 * number);
        drop(producer.send(record).await.unwrap());
    }
    producer.flush().await;
    for (timestamp, offset) in [(0, 0), (1_000, 0), (1_041, 5), (1_090, 9), (1_091, 10)] {
        let at = StartAt::TimestampMs(timestamp);
        let found = client.admin().offset(&partition(0), at).await.unwrap();
        assert_eq!(found, Offset(offset), "time {timestamp}");
    }
    let mut consumer = client.consumer().build();
    consumer
        .assign(partition(0), StartAt::TimestampMs(1_041))
        .await
        .unwrap();
    assert_eq!(consumer.recv().await.unwrap().offset, Offset(5));
}

#[tokio::test]
async fn a_consumer_is_a_stream() {
    let cluster = Cluster::start(2, &[("t", 2)], 1).await;
    let client = connect(&cluster).await;
    let producer = client.producer().build();
    send_numbers(&producer, 2, 0..100).await;
    producer.flush().await;
    let mut consumer = client.consumer().build();
    consumer
        .assign_topic(&topic(), StartAt::Earliest)
        .await
        .unwrap();
    let records: Vec<_> = consumer.take(100).collect().await;
    assert!(records.iter().all(Result::is_ok));
}

/// A stopped process keeps its connections, and answers nothing. Its successor is found by the
/// metadata long before a request times out.
#[tokio::test]
async fn a_hung_leader_is_left_for_its_successor() {
    let cluster = Cluster::start(3, &[("t", 1)], 1).await;
    let client = Client::builder()
        .bootstrap(&cluster.bootstrap)
        .tcp()
        .request_timeout(Duration::from_secs(3_600))
        .connect()
        .await
        .unwrap();
    let producer = client
        .producer()
        .delivery_timeout(Duration::from_secs(3_600))
        .build();
    let mut consumer = client.consumer().build();
    consumer
        .assign(partition(0), StartAt::Offset(Offset(0)))
        .await
        .unwrap();
    for delivery in send_numbers(&producer, 1, 0..1).await {
        delivery.await.unwrap();
    }
    assert_eq!(consumer.recv().await.unwrap().offset, Offset(0));
    cluster.hang(0, 1);
    let late = send_numbers(&producer, 1, 1..2).await;
    assert_eq!(consumer.recv().await.unwrap().offset, Offset(1));
    for delivery in late {
        assert_eq!(delivery.await.unwrap().offset, Offset(1));
    }
    assert_eq!(cluster.values("t", 0), ["0", "1"]);
}

/// Over QUIC a process that has gone is one that is silent. Whatever any broker can answer is
/// asked of the next one too, long before a connection or a request times out.
#[tokio::test]
async fn a_silent_broker_holds_up_nobody() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let cluster = Cluster::start(3, &[("t", 1)], 1).await;
    let client = Client::builder()
        .bootstrap(&cluster.bootstrap)
        .tcp()
        .connect_timeout(HOUR)
        .request_timeout(HOUR)
        .connect()
        .await
        .unwrap();
    cluster.hang(0, 1);
    // Each call begins at another broker.
    for _ in 0..3 {
        let described = client.admin().describe_topic(&topic()).await.unwrap();
        assert_eq!(described.partitions[&0].leader, Some(1));
        let producer = client.producer().delivery_timeout(HOUR).build();
        for delivery in send_numbers(&producer, 1, 0..1).await {
            delivery.await.unwrap();
        }
    }
}

/// A consumer that has no connection to a leader yet does not wait for one that was deposed.
#[tokio::test]
async fn a_leader_that_cannot_be_dialled_is_left_for_its_successor() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let cluster = Cluster::start(3, &[("t", 2)], 1).await;
    let client = Client::builder()
        .bootstrap(&cluster.bootstrap)
        .tcp()
        .connect_timeout(HOUR)
        .request_timeout(HOUR)
        .connect()
        .await
        .unwrap();
    let producer = client.producer().build();
    for delivery in send_numbers(&producer, 2, 0..20).await {
        delivery.await.unwrap();
    }
    cluster.hang(0, 1);
    let mut consumer = client.consumer().build();
    for index in 0..2 {
        let start = StartAt::Offset(Offset(0));
        consumer.assign(partition(index), start).await.unwrap();
    }
    let read = async {
        let mut next = [0, 1];
        for _ in 0..20 {
            let record = consumer.recv().await.unwrap();
            let expected = &mut next[usize::try_from(record.partition.partition).unwrap()];
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            assert_eq!(value, expected.to_string());
            *expected += 2;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap();
}
