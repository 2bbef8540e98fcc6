//! The client over QUIC.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and so may its helpers"
)]

mod support;

use std::time::Duration;

use highwater_client::{CallError, Client, ConnectError, Offset, Quic, Record, StartAt, TopicName};
use highwater_net::{ClusterCa, ClusterId};
use support::{Cluster, Faults};

fn new_ca() -> ClusterCa {
    ClusterCa::generate(ClusterId::random().unwrap()).unwrap()
}

/// Large records, so that chunks are spliced, and lost pipelines.
#[tokio::test]
async fn once_and_in_order_over_quic() {
    let ca = new_ca();
    let cluster = Cluster::start_quic(3, &[("t", 2)], 5, &ca);
    let client = Client::builder()
        .bootstrap(&cluster.bootstrap)
        .transport(Quic::shared(&ca.trust()).unwrap())
        .connect()
        .await
        .unwrap();
    cluster.set_faults(Faults {
        lose_answer: 4,
        lose_request: 4,
        move_leader: 4,
        time_out: 4,
    });
    let topic = TopicName::new("t").unwrap();
    let producer = client.producer().batch_bytes(10_000).build();
    let value = |number: u32| format!("{number}:{}", "x".repeat(3_000));
    let mut deliveries = Vec::new();
    for number in 0..300 {
        let record = Record::new(&topic)
            .partition(number % 2)
            .value(value(number));
        deliveries.push(producer.send(record).await.unwrap());
    }
    for (number, delivery) in (0..).zip(deliveries) {
        let receipt = delivery.await.unwrap();
        assert_eq!(receipt.offset, Offset(number / 2));
    }
    let mut consumer = client.consumer().build();
    consumer
        .assign_topic(&topic, StartAt::Earliest)
        .await
        .unwrap();
    for _ in 0..300 {
        let record = consumer.recv().await.unwrap();
        let number = 2 * u32::try_from(record.offset.0).unwrap() + record.partition.partition;
        assert_eq!(record.value.unwrap(), value(number));
    }
}

#[tokio::test]
async fn a_broker_of_another_cluster_is_not_believed() {
    let cluster = Cluster::start_quic(1, &[], 1, &new_ca());
    let error = Client::builder()
        .bootstrap(&cluster.bootstrap)
        .transport(Quic::shared(&new_ca().trust()).unwrap())
        .connect()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_known_by_silence() {
    let ca = new_ca();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let error = Client::builder()
        .bootstrap(&address)
        .transport(Quic::shared(&ca.trust()).unwrap())
        .connect_timeout(Duration::from_millis(300))
        .connect()
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&address), "{error}");
    assert!(error.to_string().contains("300ms"), "{error}");
}

#[tokio::test]
async fn trust_comes_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (ca_file, key_file) = (folder.path().join("ca.pem"), folder.path().join("ca.key"));
    let ca = new_ca();
    ca.write(&ca_file, &key_file).unwrap();
    let cluster = Cluster::start_quic(1, &[], 1, &ca);
    let builder = Client::builder().bootstrap(&cluster.bootstrap);
    builder.clone().quic(&ca_file).connect().await.unwrap();
    let nothing = folder.path().join("nothing.pem");
    let error = builder.quic(&nothing).connect().await.unwrap_err();
    assert!(matches!(
        error,
        CallError::Connect(ConnectError::Trust { .. })
    ));
    assert!(error.to_string().contains("nothing.pem"), "{error}");
}
