use bytes::Bytes;
use highwater_protocol::messages::{
    AlterConfigsResource, AlterableConfig, ApiVersionsRequest, CreatableTopic, CreateTopicsRequest,
    DeleteTopicState, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeConfigsResource, DescribeQuorumRequest, FindCoordinatorRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, ListOffsetsPartition,
    ListOffsetsRequest, ListOffsetsTopic, MetadataRequest, MetadataRequestTopic, MetadataResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic, QuorumPartition,
    QuorumPartitionResponse, QuorumTopic, StrBytes, TopicName, TransactionalId, Uuid,
};
use highwater_protocol::{
    Acks, ErrorCode, FetchPartition, FetchRequest, FetchTopic, ProducePartition,
    ProducePartitionResponse, ProduceRequest, ProduceTopic,
};
use highwater_record::{Compression, ProducerStamp, RecordBatchBuilder, SplitBatches};

use super::*;

mod producers;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn metadata(topics: &[&str]) -> MetadataRequest {
    let topics = topics
        .iter()
        .map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic))));
    MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(true)
}

fn codes(metadata: &MetadataResponse) -> Vec<ErrorCode> {
    let topics = metadata.topics.iter();
    topics
        .map(|topic| ErrorCode::from_code(topic.error_code))
        .collect()
}

fn batch(time: i64, values: &[&str], producer: Option<ProducerStamp>) -> Bytes {
    let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
    for value in values {
        builder
            .append(time, None, Some(value.as_bytes()), &[])
            .unwrap();
    }
    if let Some(producer) = producer {
        builder.set_producer(producer);
    }
    Bytes::from(builder.seal().unwrap())
}

fn produce(topic: &str, parts: &[(i32, Bytes)]) -> ProduceRequest<Bytes> {
    ProduceRequest {
        transactional_id: None,
        acks: Acks::All,
        timeout_ms: 10_000,
        topics: vec![ProduceTopic {
            name: text(topic),
            partitions: parts
                .iter()
                .map(|(index, records)| ProducePartition {
                    index: *index,
                    records: Some(records.clone()),
                })
                .collect(),
        }],
    }
}

fn fetch(topic: &str, parts: &[(i32, i64)]) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 << 20,
        topics: vec![FetchTopic {
            name: text(topic),
            partitions: parts
                .iter()
                .map(|(index, offset)| FetchPartition {
                    index: *index,
                    current_leader_epoch: -1,
                    fetch_offset: *offset,
                    last_fetched_epoch: -1,
                    log_start_offset: -1,
                    max_bytes: 1 << 20,
                })
                .collect(),
        }],
        ..FetchRequest::default()
    }
}

fn list(topic: &str, parts: &[(i32, i64)]) -> ListOffsetsRequest {
    let partitions = parts.iter().map(|(index, timestamp)| {
        ListOffsetsPartition::default()
            .with_partition_index(*index)
            .with_timestamp(*timestamp)
            .with_current_leader_epoch(-1)
    });
    let topic = ListOffsetsTopic::default()
        .with_name(name(topic))
        .with_partitions(partitions.collect());
    ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![topic])
}

impl Nodes {
    /// Produces to wherever the partition's leader is, trying again as clients do.
    fn produce(
        &mut self,
        client: Client,
        topic: &str,
        part: i32,
        records: &Bytes,
    ) -> ProducePartitionResponse {
        for _ in 0..100 {
            let request = produce(topic, &[(part, records.clone())]);
            let mut answer = self.ask(client, &request, 9);
            let partition = answer.topics.remove(0).partitions.remove(0);
            if !partition.error.is_retriable() {
                return partition;
            }
            self.run_for(Duration::from_millis(100));
        }
        panic!("no leader for {topic} {part}");
    }

    /// The values in a partition from an offset on, and its high watermark.
    fn read(&mut self, client: Client, topic: &str, part: i32, offset: i64) -> (Vec<String>, i64) {
        let mut answer = self.ask(client, &fetch(topic, &[(part, offset)]), 12);
        let partition = answer.topics.remove(0).partitions.remove(0);
        assert_eq!(partition.error, ErrorCode::None);
        let records = partition.records.unwrap_or_default();
        (values(&records), partition.high_watermark)
    }
}

fn values(records: &[u8]) -> Vec<String> {
    let limits = highwater_record::BatchLimits::consumer();
    let mut values = Vec::new();
    for batch in SplitBatches::new(records) {
        let batch = highwater_record::RecordBatch::parse(batch.unwrap(), &limits).unwrap();
        for record in &batch.records(&limits).unwrap() {
            let value = record.unwrap().value.unwrap().to_vec();
            values.push(String::from_utf8(value).unwrap());
        }
    }
    values
}

#[test]
fn a_single_node_serves_a_client_from_hello_to_fetch() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    let versions = nodes.ask::<ApiVersionsRequest>(client, &api_versions(), 4);
    assert!(versions.api_keys.len() > 10);

    let created = nodes.ask(client, &metadata(&["flights"]), 12);
    assert_eq!(codes(&created), [ErrorCode::None]);
    assert_eq!(created.topics[0].partitions.len(), 4);
    assert!(!created.topics[0].topic_id.is_nil());
    let broker = &created.brokers[0];
    assert_eq!(
        (&*broker.host, broker.port, broker.node_id.0),
        ("node1", 9092, 1)
    );
    assert_eq!(created.controller_id.0, 1);
    assert_eq!(created.cluster_id.as_deref(), Some("nodes"));

    let time = nodes.wall_ms();
    let first = nodes.produce(client, "flights", 2, &batch(time, &["a", "b"], None));
    assert_eq!((first.error, first.base_offset), (ErrorCode::None, 0));
    let second = nodes.produce(client, "flights", 2, &batch(time + 5, &["c"], None));
    assert_eq!(second.base_offset, 2);

    let (read, high_watermark) = nodes.read(client, "flights", 2, 0);
    assert_eq!(
        (read, high_watermark),
        (vec!["a".into(), "b".into(), "c".into()], 3)
    );
    let (read, _) = nodes.read(client, "flights", 2, 2);
    assert_eq!(read, ["c"]);

    let wanted = [(2, -2), (2, -1), (9, -1)];
    let listed = nodes.ask(client, &list("flights", &wanted), 7);
    let listed = &listed.topics[0].partitions;
    let offsets: Vec<(i64, i16)> = listed.iter().map(|p| (p.offset, p.error_code)).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(offsets, [(0, 0), (3, 0), (-1, unknown)]);

    let leaders = nodes.ask(client, &metadata(&["flights"]), 12);
    let partition = &leaders.topics[0].partitions[2];
    assert_eq!(partition.leader_id.0, 1);
    assert!(partition.leader_epoch > 0);
    assert_eq!(
        (partition.isr_nodes.len(), partition.offline_replicas.len()),
        (1, 0)
    );
}

fn api_versions() -> ApiVersionsRequest {
    highwater_protocol::api_versions_request()
}

fn init_producer_id() -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_producer_id((-1).into())
}

#[test]
fn a_poll_waits_for_the_next_record() {
    let mut nodes = Nodes::single();
    let (reader, writer) = (nodes.connect(1, 0), nodes.connect(1, 0));
    nodes.ask(reader, &metadata(&["t"]), 12);
    let time = nodes.wall_ms();
    // Both partitions, so that neither has to be elected for first.
    for part in 0..2 {
        nodes.produce(writer, "t", part, &batch(time, &["old"], None));
    }
    let before = nodes.now;
    nodes.send(reader, &fetch("t", &[(0, 1), (1, 1)]), 12);
    nodes.run_for(Duration::from_millis(200));
    let new = batch(time, &["new"], None);
    nodes.send(writer, &produce("t", &[(0, new)]), 9);
    let answer = nodes.answer::<FetchRequest>(reader, 12);
    let records = answer.topics[0].partitions[0].records.clone().unwrap();
    assert_eq!(values(&records), ["new"]);
    let waited = nodes.now - before;
    assert!(waited < Duration::from_millis(450), "woken, not timed out");

    // And with nothing new, it ends when it was told to.
    let before = nodes.now;
    let (read, _) = nodes.read(reader, "t", 0, 2);
    assert!(read.is_empty());
    let waited = nodes.now - before;
    assert!(waited >= Duration::from_millis(500), "{waited:?}");
    assert!(waited < Duration::from_millis(600), "{waited:?}");
}

fn error_codes(codes: impl IntoIterator<Item = i16>) -> Vec<ErrorCode> {
    codes.into_iter().map(ErrorCode::from_code).collect()
}

#[test]
fn topics_are_created_described_changed_and_deleted() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    let topic = |topic: &str, partitions: i32| {
        CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(-1)
    };
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic("a", 2), topic("b", 0), topic("a b", 1)])
        .with_timeout_ms(5_000);
    let created = nodes.ask(client, &request, 7).topics;
    assert_eq!(
        error_codes(created.iter().map(|topic| topic.error_code)),
        [
            ErrorCode::None,
            ErrorCode::InvalidPartitions,
            ErrorCode::InvalidTopicException,
        ]
    );
    assert_eq!(created[0].num_partitions, 2);
    assert_eq!(created[0].replication_factor, 1);
    let again = nodes.ask(client, &request, 7);
    let code = ErrorCode::from_code(again.topics[0].error_code);
    assert_eq!(code, ErrorCode::TopicAlreadyExists);

    let resource = |kind: i8, resource: &str, config: &str, value: &str| {
        let config = AlterableConfig::default()
            .with_name(text(config))
            .with_config_operation(0)
            .with_value(Some(text(value)));
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(resource))
            .with_configs(vec![config])
    };
    let alter = IncrementalAlterConfigsRequest::default().with_resources(vec![
        resource(4, "1", "x", "1"),
        resource(2, "a", "max.message.bytes", "300"),
        resource(2, "nowhere", "retention.ms", "300"),
    ]);
    let altered = nodes.ask(client, &alter, 1).responses;
    assert_eq!(
        error_codes(altered.iter().map(|resource| resource.error_code)),
        [
            ErrorCode::InvalidRequest,
            ErrorCode::None,
            ErrorCode::UnknownTopicOrPartition,
        ]
    );

    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("a"))
        .with_configuration_keys(None);
    let describe = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    let described = nodes.ask(client, &describe, 4);
    let configs = &described.results[0].configs;
    assert_eq!(configs.len(), crate::TOPIC_CONFIGS.len());
    let mut configs = configs.iter();
    let size = configs.find(|config| &*config.name == "max.message.bytes");
    let size = size.unwrap();
    assert_eq!(size.value.as_deref(), Some("300"));
    assert_eq!((size.config_source, size.synonyms.len()), (1, 2));

    let time = nodes.wall_ms();
    let large = batch(time, &["x".repeat(300).as_str()], None);
    let refused = nodes.produce(client, "a", 0, &large).error;
    assert_eq!(refused, ErrorCode::MessageTooLarge);
    let small = batch(time, &["x"], None);
    assert_eq!(nodes.produce(client, "a", 0, &small).base_offset, 0);

    let controller = nodes.desk(NodeId(1)).controller();
    let group = controller.topic("a").unwrap().partitions()[0].group;
    assert!(nodes.has_group(NodeId(1), group));
    let delete = DeleteTopicsRequest::default()
        .with_topic_names(vec![name("a"), name("b")])
        .with_timeout_ms(5_000);
    let deleted = nodes.ask(client, &delete, 5).responses;
    assert_eq!(
        error_codes(deleted.iter().map(|topic| topic.error_code)),
        [ErrorCode::None, ErrorCode::UnknownTopicOrPartition]
    );
    nodes.run_until("its groups are gone", |nodes| {
        !nodes.has_group(NodeId(1), group)
    });
    let all = MetadataRequest::default().with_topics(None);
    assert!(nodes.ask(client, &all, 12).topics.is_empty());
}

#[test]
fn what_a_deleted_topic_left_is_gone_after_a_restart() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    nodes.ask(client, &metadata(&["a", "b"]), 12);
    let delete = DeleteTopicsRequest::default()
        .with_topic_names(vec![name("a")])
        .with_timeout_ms(5_000);
    nodes.ask(client, &delete, 5);
    nodes.kill(NodeId(1));
    nodes.start(NodeId(1));
    nodes.run_until("it is back", Nodes::is_ready);
    let controller = nodes.desk(NodeId(1)).controller();
    let live: Vec<_> = controller.groups().collect();
    assert_eq!(live.len(), 4);
    for group in (1..controller.next_group().0).map(crate::GroupId) {
        let is_here = nodes.has_group(NodeId(1), group);
        assert_eq!(is_here, live.contains(&group), "{group}");
    }
}

#[test]
fn several_shards_answer_for_each_other() {
    let mut nodes = Nodes::new(Shape {
        nodes: 1,
        shards: 3,
        auto_create: true,
    });
    let client = nodes.connect(1, 2);
    nodes.ask(client, &metadata(&["t"]), 12);
    let time = nodes.wall_ms();
    for part in 0..4 {
        nodes.produce(client, "t", part, &batch(time, &["x"], None));
    }
    let parts: Vec<(i32, Bytes)> = (0..4).map(|p| (p, batch(time, &["y"], None))).collect();
    let answer = nodes.ask(client, &produce("t", &parts), 9);
    let parts = answer.topics[0].partitions.iter();
    let offsets: Vec<_> = parts.map(|part| (part.error, part.base_offset)).collect();
    assert_eq!(offsets, [(ErrorCode::None, 1); 4]);
    // Another shard's client reads all of them in one request.
    let reader = nodes.connect(1, 1);
    let wanted: Vec<(i32, i64)> = (0..4).map(|part| (part, 0)).collect();
    let answer = nodes.ask(reader, &fetch("t", &wanted), 12);
    for part in &answer.topics[0].partitions {
        assert_eq!(values(&part.records.clone().unwrap()), ["x", "y"]);
    }
    // Producer ids come from blocks of each shard's own.
    let one = nodes.ask(client, &init_producer_id(), 4).producer_id;
    let other = nodes.ask(reader, &init_producer_id(), 4).producer_id;
    assert_ne!(one, other);
}

#[test]
fn three_nodes_create_from_anywhere_and_go_on_without_the_leader() {
    let mut nodes = Nodes::new(Shape {
        nodes: 3,
        shards: 1,
        auto_create: true,
    });
    let clients: Vec<Client> = (1..=3).map(|node| nodes.connect(node, 0)).collect();
    // One of them leads the controller; the others must ask it.
    for (client, topic) in clients.iter().zip(["a", "b", "c"]) {
        let answer = nodes.ask(*client, &metadata(&[topic]), 12);
        assert_eq!(codes(&answer), [ErrorCode::None], "{topic}");
        assert_eq!(answer.topics[0].partitions[0].replica_nodes.len(), 3);
        assert_eq!(answer.brokers.len(), 3);
    }
    let time = nodes.wall_ms();
    let leader_of = |nodes: &mut Nodes, client: Client| {
        let answer = nodes.ask(client, &metadata(&["a"]), 12);
        answer.topics[0].partitions[0].leader_id.0
    };
    let leader = leader_of(&mut nodes, clients[0]);
    let at = |node: i32| clients[usize::try_from(node - 1).unwrap()];
    let acked = nodes.produce(at(leader), "a", 0, &batch(time, &["kept"], None));
    assert_eq!((acked.error, acked.base_offset), (ErrorCode::None, 0));

    let dead = NodeId(u32::try_from(leader).unwrap());
    nodes.kill(dead);
    let mut survivors = clients.iter();
    let survivor = *survivors.find(|client| client.node != dead).unwrap();
    let mut next = -1;
    for _ in 0..100 {
        next = leader_of(&mut nodes, survivor);
        if next != -1 && next != leader {
            break;
        }
        nodes.run_for(Duration::from_millis(100));
    }
    assert!(next != -1 && next != leader, "nobody took over");
    let acked = nodes.produce(at(next), "a", 0, &batch(time, &["more"], None));
    assert_eq!(acked.base_offset, 1);
    let (read, _) = nodes.read(at(next), "a", 0, 0);
    assert_eq!(read, ["kept", "more"]);
    // Topics can be created by the two that are left, and the third learns of it.
    let answer = nodes.ask(survivor, &metadata(&["d"]), 12);
    assert_eq!(codes(&answer), [ErrorCode::None]);
    assert_eq!(answer.brokers.len(), 2);
    let mut partitions = answer.topics[0].partitions.iter();
    assert!(partitions.all(|partition| partition.offline_replicas.len() == 1));
    nodes.start(dead);
    nodes.run_until("it is back", Nodes::is_ready);
    assert!(nodes.desk(dead).controller().topic("d").is_some());
}

#[test]
fn hostile_bytes_close_the_connection_and_nothing_else() {
    let mut nodes = Nodes::single();
    let good = nodes.connect(1, 0);
    nodes.ask(good, &metadata(&["t"]), 12);
    let mut random = fastrand::Rng::with_seed(7);
    let time = nodes.wall_ms();
    let records = || batch(time, &["x"], None);
    let examples = [
        frame(&metadata(&["t"]), 12),
        frame(&produce("t", &[(0, records())]), 9),
        frame(&fetch("t", &[(0, 0)]), 12),
        frame(&list("t", &[(0, -1)]), 7),
    ];
    for round in 0..2_000 {
        let client = nodes.connect(1, 0);
        let mut frame = examples[round % examples.len()].clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..frame.len());
            frame[at] = random.u8(..);
        }
        if random.bool() {
            frame.truncate(random.usize(..=frame.len()));
        }
        nodes.send_bytes(client, &frame);
        nodes.turn();
    }
    nodes.run_for(Duration::from_secs(1));
    let acked = nodes.produce(good, "t", 1, &records());
    assert_eq!(acked.base_offset, 0);
    let hostile = nodes.connect(1, 0);
    nodes.send_bytes(hostile, b"GET / HTTP/1.1");
    nodes.run_until("it is closed", |nodes| nodes.is_closed(hostile));
}

fn frame<C: Call>(call: &C, version: i16) -> Vec<u8> {
    let header = RequestHeader {
        key: C::KEY,
        version,
        correlation_id: 1,
        client_id: Some(text("somebody")),
    };
    let chunks = call.encode(&header).unwrap();
    chunks.concat()[LENGTH_BYTES..].to_vec()
}

/// Asks in every version that is served; all of them must be understood and answered.
fn in_every_version<C: Call>(nodes: &mut Nodes, mut request: impl FnMut(i16) -> C) {
    let client = nodes.connect(1, 0);
    let versions = C::KEY.versions();
    for version in versions.served_min..=versions.max {
        nodes.ask(client, &request(version), version);
    }
    assert!(!nodes.is_closed(client));
}

#[test]
fn every_request_is_answered_in_every_version() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    nodes.ask(client, &metadata(&["t"]), 12);
    let time = nodes.wall_ms();
    nodes.produce(client, "t", 0, &batch(time, &["x"], None));
    let nodes = &mut nodes;

    in_every_version(nodes, |version| match version {
        0..3 => ApiVersionsRequest::default(),
        _ => api_versions(),
    });
    in_every_version(nodes, |version| {
        let request = MetadataRequest::default().with_allow_auto_topic_creation(true);
        let topic = MetadataRequestTopic::default().with_name(Some(name(&format!("t{version}"))));
        request.with_topics(Some(vec![topic]))
    });
    in_every_version(nodes, |_| {
        produce("t", &[(0, batch(time, &["x"], None)), (7, Bytes::new())])
    });
    in_every_version(nodes, |_| fetch("t", &[(0, 0), (7, 0), (1, -1)]));
    in_every_version(nodes, |_| list("t", &[(0, -1), (0, -2), (7, -1)]));
    in_every_version(nodes, |_| {
        let partition = OffsetForLeaderPartition::default()
            .with_current_leader_epoch(-1)
            .with_leader_epoch(1);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(name("t"))
            .with_partitions(vec![partition]);
        OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
    });
    in_every_version(nodes, |version| match version {
        0..4 => FindCoordinatorRequest::default().with_key(text("group")),
        _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("group")]),
    });
    in_every_version(nodes, |_| init_producer_id());
    in_every_version(nodes, |version| {
        let topic = CreatableTopic::default()
            .with_name(name(&format!("created{version}")))
            .with_num_partitions(2)
            .with_replication_factor(1);
        let wrong = topic.clone().with_name(name("a/b"));
        CreateTopicsRequest::default().with_topics(vec![topic, wrong])
    });
    in_every_version(nodes, |version| {
        let known = name(&format!("created{}", version + 1));
        let request = DeleteTopicsRequest::default().with_timeout_ms(1_000);
        match version {
            ..6 => request.with_topic_names(vec![known, name("nowhere")]),
            _ => {
                let state = |name| DeleteTopicState::default().with_name(name);
                request.with_topics(vec![state(Some(known)), state(None)])
            }
        }
    });
    in_every_version(nodes, |_| {
        let resource = |kind, resource: &str| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(resource))
                .with_configuration_keys(None)
        };
        let resources = [
            (2, "t"),
            (2, "nowhere"),
            (4, "1"),
            (4, "9"),
            (4, ""),
            (8, "1"),
        ];
        let resources = resources.map(|(kind, name)| resource(kind, name));
        DescribeConfigsRequest::default().with_resources(resources.to_vec())
    });
    in_every_version(nodes, |_| {
        let config = AlterableConfig::default().with_name(text("retention.ms"));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config.with_config_operation(1).with_value(None)]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    });
    in_every_version(nodes, |_| {
        quorums(&[("t", 0), ("t", 7), ("__cluster_metadata", 0)])
    });
    in_every_version(nodes, |_| DescribeClusterRequest::default());
}

fn quorums(parts: &[(&str, i32)]) -> DescribeQuorumRequest {
    let topics = parts.iter().map(|(topic, index)| {
        let partition = QuorumPartition::default().with_partition_index(*index);
        QuorumTopic::default()
            .with_topic_name(name(topic))
            .with_partitions(vec![partition])
    });
    DescribeQuorumRequest::default().with_topics(topics.collect())
}

fn voters(part: &QuorumPartitionResponse) -> Vec<(i32, i64)> {
    let voters = part.current_voters.iter();
    voters
        .map(|voter| (voter.replica_id.0, voter.log_end_offset))
        .collect()
}

#[test]
fn the_leader_describes_its_quorum_and_the_others_refer_to_it() {
    let mut nodes = Nodes::new(Shape {
        nodes: 3,
        shards: 2,
        auto_create: true,
    });
    let clients: Vec<Client> = (1..=3).map(|node| nodes.connect(node, 0)).collect();
    let topics = nodes.ask(clients[0], &metadata(&["a"]), 12).topics;
    let leader = topics[0].partitions[0].leader_id.0;
    let at = |node: i32| clients[usize::try_from(node - 1).unwrap()];
    let time = nodes.wall_ms();
    nodes.produce(at(leader), "a", 0, &batch(time, &["x", "y"], None));
    nodes.run_for(Duration::from_secs(1));
    for node in 1..=3 {
        let answer = nodes.ask(at(node), &quorums(&[("a", 0), ("a", 9)]), 1);
        assert_eq!(answer.error_code, 0);
        let part = &answer.topics[0].partitions[0];
        let expected = match node == leader {
            true => ErrorCode::None,
            false => ErrorCode::NotLeaderOrFollower,
        };
        assert_eq!(ErrorCode::from_code(part.error_code), expected);
        if node == leader {
            assert_eq!((part.leader_id.0, part.high_watermark), (leader, 2));
            assert_eq!(voters(part), [(1, 2), (2, 2), (3, 2)]);
        }
        let unknown = ErrorCode::from_code(answer.topics[1].partitions[0].error_code);
        assert_eq!(unknown, ErrorCode::UnknownTopicOrPartition);
    }
}

#[test]
fn the_metadata_log_of_kafkas_tools_is_the_controllers() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    let request = quorums(&[("__cluster_metadata", 0), ("__cluster_metadata", 1)]);
    let answer = nodes.ask(client, &request, 1);
    let part = &answer.topics[0].partitions[0];
    assert_eq!((part.error_code, part.leader_id.0), (0, 1));
    assert!(part.high_watermark > 0, "an entry counts as an offset");
    assert_eq!(voters(part), [(1, part.high_watermark)]);
    let unknown = ErrorCode::from_code(answer.topics[1].partitions[0].error_code);
    assert_eq!(unknown, ErrorCode::UnknownTopicOrPartition);
    // It is no topic that could be read.
    let read = nodes.ask(client, &fetch("__cluster_metadata", &[(0, 0)]), 12);
    let code = read.topics[0].partitions[0].error;
    assert_eq!(code, ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn a_node_tells_its_own_settings_and_nobody_elses() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    let resource = |node: &str| {
        DescribeConfigsResource::default()
            .with_resource_type(4)
            .with_resource_name(text(node))
            .with_configuration_keys(None)
    };
    let request =
        DescribeConfigsRequest::default().with_resources(vec![resource("1"), resource("2")]);
    let answer = nodes.ask(client, &request, 4);
    let told: Vec<(&str, &str, bool)> = (answer.results[0].configs.iter())
        .map(|config| {
            let value = config.value.as_deref().unwrap();
            (&*config.name, value, config.read_only)
        })
        .collect();
    for expected in [
        ("node.id", "1", true),
        ("listeners", "PLAINTEXT://127.0.0.1:9092", true),
        ("advertised.listeners", "PLAINTEXT://node1:9092", true),
        ("metrics.listener", "127.0.0.1:9292", true),
    ] {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
    let other = ErrorCode::from_code(answer.results[1].error_code);
    assert_eq!(other, ErrorCode::InvalidRequest);
}

#[test]
fn metadata_names_topics_as_each_version_may() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    let created = nodes.ask(client, &metadata(&["t"]), 12);
    let id = created.topics[0].topic_id;
    let count = |nodes: &mut Nodes, request: MetadataRequest, version: i16| {
        nodes.ask(client, &request, version).topics.len()
    };
    let none = || MetadataRequest::default().with_topics(Some(Vec::new()));
    let all = || MetadataRequest::default().with_topics(None);
    assert_eq!(
        count(&mut nodes, none(), 0),
        1,
        "version 0 means all by none"
    );
    assert_eq!(count(&mut nodes, none(), 1), 0);
    assert_eq!(count(&mut nodes, all(), 1), 1);
    let by_id = |id| {
        let topic = MetadataRequestTopic::default()
            .with_name(None)
            .with_topic_id(id);
        MetadataRequest::default().with_topics(Some(vec![topic]))
    };
    let found = nodes.ask(client, &by_id(id), 12);
    assert_eq!(
        found.topics[0].name.as_ref().map(|name| &***name),
        Some("t")
    );
    let unknown = nodes.ask(client, &by_id(Uuid::from_u128(5)), 12);
    assert_eq!(codes(&unknown), [ErrorCode::UnknownTopicId]);
    // Nobody may create what cannot be, or is not to be.
    let refused = nodes.ask(client, &metadata(&["a b", ""]), 12);
    assert_eq!(codes(&refused), [ErrorCode::InvalidTopicException; 2]);
    let only_looking = metadata(&["new"]).with_allow_auto_topic_creation(false);
    let refused = nodes.ask(client, &only_looking, 12);
    assert_eq!(codes(&refused), [ErrorCode::UnknownTopicOrPartition]);
    let mut strict = Nodes::new(Shape {
        nodes: 1,
        shards: 1,
        auto_create: false,
    });
    let client = strict.connect(1, 0);
    let refused = strict.ask(client, &metadata(&["new"]), 12);
    assert_eq!(codes(&refused), [ErrorCode::UnknownTopicOrPartition]);
}

#[test]
fn small_requests_do_not_become_huge_answers() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    nodes.ask(client, &metadata(&["t"]), 12);
    let repeated = vec!["t"; 30_000];
    let answer = nodes.ask(client, &metadata(&repeated), 12);
    assert_eq!(answer.topics.len(), 1);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource; 1_001]);
    let results = nodes.ask(client, &request, 4).results;
    assert!(!results[999].configs.is_empty());
    assert!(results[1_000].configs.is_empty());
    let code = ErrorCode::from_code(results[1_000].error_code);
    assert_eq!(code, ErrorCode::PolicyViolation);
}

#[test]
fn more_requests_at_once_than_allowed_close_the_connection() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    nodes.ask(client, &metadata(&["t"]), 12);
    let record = batch(nodes.wall_ms(), &["x"], None);
    nodes.produce(client, "t", 0, &record);
    // Each waits for what does not come.
    let poll = fetch("t", &[(0, 1)]);
    for _ in 0..crate::kafka::REQUESTS_IN_FLIGHT_MAX {
        nodes.send(client, &poll, 12);
    }
    nodes.run_for(Duration::from_millis(100));
    assert!(!nodes.is_closed(client));
    nodes.send(client, &poll, 12);
    nodes.run_until("it is closed", |nodes| nodes.is_closed(client));
    let service = nodes.nodes[&NodeId(1)].shards[0].service();
    assert!(service.requests_running() <= crate::kafka::REQUESTS_IN_FLIGHT_MAX);
}

#[test]
fn records_are_found_by_time() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    nodes.ask(client, &metadata(&["t"]), 12);
    let time = nodes.wall_ms();
    nodes.produce(client, "t", 0, &batch(time, &["a", "b"], None));
    nodes.produce(client, "t", 0, &batch(time + 10, &["c"], None));
    nodes.produce(client, "t", 0, &batch(time + 5, &["d"], None));
    let wanted = [time - 1, time, time + 1, time + 10, time + 11, -3];
    for (timestamp, offset) in wanted.into_iter().zip([0, 0, 2, 2, -1, 2]) {
        let listed = nodes.ask(client, &list("t", &[(0, timestamp)]), 7);
        let found = &listed.topics[0].partitions[0];
        assert_eq!(
            (found.error_code, found.offset),
            (0, offset),
            "{}",
            timestamp - time
        );
    }
}

#[test]
fn the_controllers_state_comes_from_a_footer_and_the_records_behind_it() {
    let mut nodes = Nodes::single();
    let client = nodes.connect(1, 0);
    nodes.ask(client, &metadata(&["t"]), 12);
    // The first file of a group has 64 KiB.
    for value in 0..500 {
        let config = AlterableConfig::default()
            .with_name(text("retention.ms"))
            .with_config_operation(0)
            .with_value(Some(text(&(1_000_000 + value).to_string())));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config]);
        let alter = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let altered = nodes.ask(client, &alter, 1);
        assert_eq!(altered.responses[0].error_code, 0);
    }
    let before = nodes.desk(NodeId(1)).controller().clone();
    nodes.run_for(Duration::from_secs(5));
    nodes.kill(NodeId(1));
    nodes.start(NodeId(1));
    nodes.run_until("it is back", Nodes::is_ready);
    let desk = nodes.desk(NodeId(1));
    let restored = desk.restored_at();
    assert!(
        restored > crate::LogIndex(100),
        "no footer was used: {restored:?}"
    );
    assert!(restored < before.applied());
    assert_eq!(desk.controller().topic("t"), before.topic("t"));
    assert_eq!(desk.controller().next_group(), before.next_group());
    let client = nodes.connect(1, 0);
    let record = batch(nodes.wall_ms(), &["x"], None);
    assert_eq!(nodes.produce(client, "t", 0, &record).base_offset, 0);
}
