//! Produces to a cluster that is not ours and reads everything back: with each codec, idempotent
//! and not, with keys and without, and compares.
//!
//!     python3 .ci/mock_cluster.py            # prints the addresses
//!     cargo run -p highwater-client --example mock_roundtrip -- ADDRESSES
//!
//! Ends with 0 if everything came back as it was sent, once and in order.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_client::{
    Client, Compression, ConsumedRecord, Delivery, Offset, Record, StartAt, TopicName,
    TopicPartition, blocking,
};

type Failure = Box<dyn std::error::Error>;

/// Records of each round.
const RECORDS: usize = 20_000;

/// Nothing here should take longer.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let bootstrap = std::env::args()
        .nth(1)
        .ok_or("usage: mock_roundtrip ADDRESSES")?;
    let client = Client::builder()
        .bootstrap(&bootstrap)
        .tcp()
        .connect()
        .await?;
    let cluster = client.admin().describe_cluster().await?;
    println!("{} brokers", cluster.brokers.len());
    for compression in Compression::ALL {
        for idempotent in [true, false] {
            round_trip(&client, compression, idempotent).await?;
        }
    }
    seeks(&client).await?;
    std::thread::spawn(move || blocking_round_trip(&bootstrap).map_err(|error| error.to_string()))
        .join()
        .map_err(|_| "the blocking round trip panicked")??;
    println!("all of it came back");
    Ok(())
}

/// Sends keyed and keyless records, and reads them back.
async fn round_trip(
    client: &Client,
    compression: Compression,
    idempotent: bool,
) -> Result<(), Failure> {
    let topic = TopicName::new(&format!("round-{}-{idempotent}", compression.name()))?;
    let producer = client
        .producer()
        .compression(compression)
        .idempotent(idempotent)
        .batch_bytes(16 << 10)
        .build();
    let mut deliveries = Vec::with_capacity(RECORDS);
    for number in 0..RECORDS {
        deliveries.push(producer.send(record(&topic, number)).await?);
    }
    producer.flush().await;
    let sent = acknowledged(deliveries).await?;
    let read = read_all(client, &topic, RECORDS).await?;
    compare(&sent, &read)?;
    println!(
        "{:>6} {}: {} records in {} partitions",
        compression.name(),
        if idempotent {
            "idempotent"
        } else {
            "plain     "
        },
        read.len(),
        sent.len(),
    );
    Ok(())
}

fn record(topic: &TopicName, number: usize) -> Record {
    let record = Record::new(topic)
        .value(value(number))
        .timestamp_ms(timestamp(number))
        .header("n", number.to_string())
        .header("n", "again");
    match number % 3 {
        0 => record,
        _ => record.key(format!("key-{}", number % 17)),
    }
}

fn value(number: usize) -> String {
    format!("{number}:{}", "x".repeat(number % 200))
}

fn timestamp(number: usize) -> i64 {
    1_700_000_000_000 + i64::try_from(number).expect("a small number")
}

/// The numbers of the records of each partition by offset, as the producer was told.
async fn acknowledged(
    deliveries: Vec<Delivery>,
) -> Result<BTreeMap<TopicPartition, BTreeMap<Offset, usize>>, Failure> {
    let mut sent: BTreeMap<TopicPartition, BTreeMap<Offset, usize>> = BTreeMap::new();
    for (number, delivery) in deliveries.into_iter().enumerate() {
        let receipt = delivery.await?;
        let partition = sent.entry(receipt.partition).or_default();
        if let Some(other) = partition.insert(receipt.offset, number) {
            return Err(format!("records {other} and {number} have one offset").into());
        }
    }
    Ok(sent)
}

async fn read_all(
    client: &Client,
    topic: &TopicName,
    count: usize,
) -> Result<Vec<ConsumedRecord>, Failure> {
    let mut consumer = client.consumer().build();
    consumer.assign_topic(topic, StartAt::Earliest).await?;
    let mut read = Vec::with_capacity(count);
    while read.len() < count {
        read.push(tokio::time::timeout(PATIENCE, consumer.recv()).await??);
    }
    Ok(read)
}

fn compare(
    sent: &BTreeMap<TopicPartition, BTreeMap<Offset, usize>>,
    read: &[ConsumedRecord],
) -> Result<(), Failure> {
    let mut next: BTreeMap<&TopicPartition, Offset> = BTreeMap::new();
    for record in read {
        let expected = next.entry(&record.partition).or_insert(Offset::ZERO);
        if record.offset != *expected {
            return Err(format!(
                "{}: {} came, not {expected}",
                record.partition, record.offset
            )
            .into());
        }
        *expected = expected.next();
        let number = sent
            .get(&record.partition)
            .and_then(|partition| partition.get(&record.offset))
            .ok_or_else(|| format!("{} {} was never sent", record.partition, record.offset))?;
        let headers = [
            ("n".into(), Some(number.to_string().into())),
            ("n".into(), Some("again".into())),
        ];
        let key = match number % 3 {
            0 => None,
            _ => Some(format!("key-{}", number % 17).into()),
        };
        if record.value.as_deref() != Some(value(*number).as_bytes())
            || record.key != key
            || record.timestamp_ms != timestamp(*number)
            || record.headers != headers
        {
            return Err(format!("record {number} came back as {record:?}").into());
        }
    }
    Ok(())
}

/// Offset, end and beginning.
async fn seeks(client: &Client) -> Result<(), Failure> {
    let topic = TopicName::new("round-none-true")?;
    let description = client.admin().describe_topic(&topic).await?;
    let partition = TopicPartition {
        topic: topic.clone(),
        partition: *description
            .partitions
            .keys()
            .next()
            .ok_or("no partitions")?,
    };
    let end = client.admin().offset(&partition, StartAt::Latest).await?;
    let mut consumer = client.consumer().build();
    consumer
        .assign(partition.clone(), StartAt::Offset(Offset(100)))
        .await?;
    let first = tokio::time::timeout(PATIENCE, consumer.recv()).await??;
    if first.offset != Offset(100) {
        return Err(format!("asked for 100, got {}", first.offset).into());
    }
    consumer.seek(&partition, StartAt::Earliest)?;
    let first = tokio::time::timeout(PATIENCE, consumer.recv()).await??;
    if first.offset != Offset::ZERO {
        return Err(format!("asked for the beginning, got {}", first.offset).into());
    }
    consumer.seek(&partition, StartAt::Latest)?;
    let waited = tokio::time::timeout(Duration::from_millis(500), consumer.recv()).await;
    if let Ok(record) = waited {
        return Err(format!("nothing is behind the end, but {record:?} came").into());
    }
    let producer = client.producer().linger(Duration::ZERO).build();
    let late = Record::new(&topic)
        .partition(partition.partition)
        .value("late");
    let receipt = producer.send(late).await?.await?;
    let record = tokio::time::timeout(PATIENCE, consumer.recv()).await??;
    if (receipt.offset, record.offset) != (end, end) {
        return Err(format!("{end} expected, {record:?} came").into());
    }
    println!("seeks: offset, beginning, end");
    Ok(())
}

fn blocking_round_trip(bootstrap: &str) -> Result<(), Failure> {
    let client = blocking::Client::connect(Client::builder().bootstrap(bootstrap).tcp())?;
    let topic = TopicName::new("blocking")?;
    let producer = client.producer(|producer| producer.linger(Duration::ZERO));
    let delivery = producer.send(Record::new(&topic).partition(0).value("hello"))?;
    producer.flush();
    let receipt = client.wait(delivery)?;
    let mut consumer = client.consumer(|consumer| consumer);
    consumer.assign(receipt.partition, StartAt::Earliest)?;
    let record = consumer.recv_timeout(PATIENCE)?.ok_or("nothing came")?;
    if record.value.as_deref() != Some(b"hello") {
        return Err(format!("{record:?} came").into());
    }
    println!("blocking: sent and received");
    Ok(())
}
