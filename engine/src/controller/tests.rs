use std::collections::BTreeSet;

use highwater_consensus::{LogIndex, NodeId};
use highwater_log::Incarnation;
use proptest::prelude::*;

use super::*;
use crate::ops::GroupId;

/// A controller with its log.
#[derive(Default)]
struct Cluster {
    state: Controller,
    log: Vec<Vec<u8>>,
    random: Option<fastrand::Rng>,
    defaults: ClusterDefaults,
}

impl Cluster {
    fn of(nodes: u32) -> Cluster {
        let mut cluster = Cluster::default();
        for node in 1..=nodes {
            cluster.registered(registration(node)).unwrap();
        }
        cluster
    }

    fn decide(&mut self, command: &Command) -> Decision {
        let random = self
            .random
            .get_or_insert_with(|| fastrand::Rng::with_seed(1));
        self.state.decide(command, &self.defaults, random)
    }

    /// The node that decides is started again, and its chance is what it was.
    fn repeat_chance(&mut self) {
        self.random = None;
    }

    fn commit(&mut self, record: &Record) -> Applied {
        let body = record.encode();
        assert_eq!(Record::decode(&body).as_ref(), Ok(record));
        let applied = self
            .state
            .apply(self.state.applied().next(), &body)
            .unwrap();
        self.log.push(body);
        applied
    }

    fn run(&mut self, command: &Command) -> Answer {
        let decision = self.decide(command);
        if let Some(record) = &decision.record {
            assert!(matches!(self.commit(record), Applied::Changed(_)));
        }
        decision.answer
    }

    fn registered(&mut self, node: NodeRegistration) -> Result<(), Refusal> {
        match self.run(&Command::Register(node)) {
            Answer::Registered(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, topics: Vec<NewTopic>) -> Vec<Result<CreatedTopic, RefusalReason>> {
        let command = Command::CreateTopics {
            topics,
            validate_only: false,
        };
        match self.run(&command) {
            Answer::Created(answers) => answers.into_iter().map(|a| a.map_err(|e| e.reason)),
            other => panic!("{other:?}"),
        }
        .collect()
    }

    fn create_one(&mut self, topic: NewTopic) -> Result<CreatedTopic, RefusalReason> {
        self.create(vec![topic]).remove(0)
    }

    fn delete(&mut self, name: &str) -> Result<(), RefusalReason> {
        let topics = vec![TopicRef::Name(name.to_owned())];
        match self.run(&Command::DeleteTopics { topics }) {
            Answer::Deleted(mut answers) => answers.remove(0).map(drop).map_err(|e| e.reason),
            other => panic!("{other:?}"),
        }
    }

    fn groups_of(&self, name: &str) -> Vec<u64> {
        let topic = self.state.topic(name).unwrap();
        topic.partitions().iter().map(|p| p.group.0).collect()
    }
}

fn registration(node: u32) -> NodeRegistration {
    NodeRegistration {
        node: NodeId(node),
        incarnation: Incarnation([node.to_le_bytes()[0]; 16]),
        boot: 1,
        record_versions: (1, 1),
        listeners: vec![Listener {
            name: "kafka".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 9092,
        }],
    }
}

fn topic(name: &str, partitions: i32, replication: i16) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions,
        replication,
        assignment: Vec::new(),
        configs: Vec::new(),
    }
}

fn assigned(partitions: &[(i32, &[i32])]) -> NewTopic {
    let assignment = partitions
        .iter()
        .map(|(partition, replicas)| AssignedReplicas {
            partition: *partition,
            replicas: replicas.to_vec(),
        });
    NewTopic {
        assignment: assignment.collect(),
        ..topic("assigned", -1, -1)
    }
}

#[test]
fn a_topic_gets_groups_replicas_and_an_id() {
    let mut cluster = Cluster::of(3);
    let created = cluster.create_one(topic("flights", 6, 3)).unwrap();
    assert_eq!((created.partitions, created.replication), (6, 3));
    let found = cluster.state.topic("flights").unwrap();
    assert_eq!(cluster.state.topic_by_id(created.id), Some(found));
    assert_eq!(cluster.groups_of("flights"), [1, 2, 3, 4, 5, 6]);
    assert_eq!(created.id.0 >> 76 & 0xf, 4, "a UUID of version 4");
    assert_eq!(created.id.0 >> 62 & 3, 2, "of the RFC's variant");
    let first_choices: Vec<u32> = found.partitions().iter().map(|p| p.replicas[0].0).collect();
    for node in 1..=3 {
        assert_eq!(first_choices.iter().filter(|&&n| n == node).count(), 2);
    }
    let second_choices: BTreeSet<u32> =
        found.partitions().iter().map(|p| p.replicas[1].0).collect();
    assert!(second_choices.len() > 1, "they lead when the first fails");
    let name = found.name().clone();
    assert_eq!(cluster.state.partition_of(GroupId(3)), Some((&name, 2)));
    assert_eq!(found.partition(5).unwrap().group, GroupId(6));
    assert!(found.partition(6).is_none() && found.partition(-1).is_none());
}

#[test]
fn placement_is_even_over_nodes_that_outnumber_the_replicas() {
    let mut cluster = Cluster::of(5);
    cluster.create_one(topic("a", 20, 3)).unwrap();
    let places = cluster.state.topic("a").unwrap().partitions();
    for node in (1..=5).map(NodeId) {
        let preferred = places.iter().filter(|p| p.replicas[0] == node).count();
        let replicas = places.iter().filter(|p| p.replicas.contains(&node)).count();
        assert_eq!(preferred, 4, "{node}");
        assert!((11..=13).contains(&replicas), "{node} has {replicas} of 60");
    }
    for place in places {
        let different: BTreeSet<_> = place.replicas.iter().collect();
        assert_eq!(different.len(), 3);
    }
}

#[test]
fn a_new_topic_has_an_id_of_its_own_though_chance_repeats_itself() {
    let mut cluster = Cluster::of(1);
    let first = cluster.create_one(topic("a", 1, 1)).unwrap();
    cluster.repeat_chance();
    let second = cluster.create_one(topic("b", 1, 1)).unwrap();
    assert_ne!(first.id, second.id);
}

#[test]
fn group_numbers_are_never_used_again() {
    let mut cluster = Cluster::of(1);
    cluster.create_one(topic("a", 2, 1)).unwrap();
    let first = cluster.state.topic("a").unwrap().id();
    cluster.delete("a").unwrap();
    assert_eq!(cluster.state.groups().count(), 0);
    assert_eq!(cluster.delete("a"), Err(RefusalReason::UnknownTopic));
    cluster.create_one(topic("a", 1, 1)).unwrap();
    assert_eq!(cluster.groups_of("a"), [3]);
    assert_ne!(cluster.state.topic("a").unwrap().id(), first);
    assert_eq!(cluster.state.topic_by_id(first), None);
}

#[test]
fn defaults_hold_where_the_command_leaves_it_open() {
    let mut cluster = Cluster::of(2);
    cluster.defaults.partitions = 4;
    // The third node has not registered yet: two replicas are not what was promised.
    let refused = cluster.create_one(topic("a", -1, -1));
    assert_eq!(refused, Err(RefusalReason::InvalidReplication));
    cluster.registered(registration(3)).unwrap();
    let created = cluster.create_one(topic("a", -1, -1)).unwrap();
    assert_eq!((created.partitions, created.replication), (4, 3));
    let mut cluster = Cluster::of(5);
    let created = cluster.create_one(topic("a", -1, -1)).unwrap();
    assert_eq!((created.partitions, created.replication), (1, 3));
}

#[test]
fn impossible_topics_are_refused_one_by_one() {
    let mut cluster = Cluster::of(3);
    cluster.create_one(topic("old", 1, 1)).unwrap();
    let with_config = |name: &str, value: Option<&str>| NewTopic {
        configs: vec![(name.to_owned(), value.map(str::to_owned))],
        ..topic("configured", 1, 3)
    };
    let cases = [
        (topic("", 1, 1), RefusalReason::InvalidTopic),
        (topic("a/b", 1, 1), RefusalReason::InvalidTopic),
        (topic("old", 1, 1), RefusalReason::TopicExists),
        (topic("new", 0, 1), RefusalReason::InvalidPartitions),
        (topic("new", -2, 1), RefusalReason::InvalidPartitions),
        (topic("new", i32::MAX, 1), RefusalReason::Limit),
        (topic("new", 1, 0), RefusalReason::InvalidReplication),
        (topic("new", 1, 4), RefusalReason::InvalidReplication),
        (topic("new", 1, -2), RefusalReason::InvalidReplication),
        (
            assigned(&[(0, &[1]), (2, &[1])]),
            RefusalReason::InvalidAssignment,
        ),
        (
            assigned(&[(0, &[1]), (0, &[1])]),
            RefusalReason::InvalidAssignment,
        ),
        (
            assigned(&[(0, &[1]), (1, &[1, 2])]),
            RefusalReason::InvalidAssignment,
        ),
        (assigned(&[(0, &[])]), RefusalReason::InvalidAssignment),
        (assigned(&[(0, &[4])]), RefusalReason::InvalidAssignment),
        (assigned(&[(0, &[-1])]), RefusalReason::InvalidAssignment),
        (assigned(&[(0, &[1, 1])]), RefusalReason::InvalidAssignment),
        (
            NewTopic {
                partitions: 1,
                ..assigned(&[(0, &[1])])
            },
            RefusalReason::InvalidRequest,
        ),
        (
            with_config("min.insync.replicas", Some("3")),
            RefusalReason::InvalidConfig,
        ),
        (
            with_config("retention.ms", None),
            RefusalReason::InvalidConfig,
        ),
        (
            with_config("nonsense", Some("1")),
            RefusalReason::InvalidConfig,
        ),
    ];
    let before = cluster.state.clone();
    for (new, reason) in cases {
        assert_eq!(
            cluster.create_one(new.clone()).unwrap_err(),
            reason,
            "{new:?}"
        );
    }
    assert_eq!(cluster.state, before);
    // The good ones of a command are created all the same, but for those named twice.
    let answers = cluster.create(vec![
        topic("good", 1, 1),
        topic("", 1, 1),
        topic("twice", 1, 1),
        topic("twice", 2, 1),
        assigned(&[(1, &[3, 1]), (0, &[2, 3])]),
    ]);
    let reasons: Vec<_> = answers.iter().map(|a| a.as_ref().err().copied()).collect();
    let invalid = Some(RefusalReason::InvalidRequest);
    assert_eq!(
        reasons,
        [
            None,
            Some(RefusalReason::InvalidTopic),
            invalid,
            invalid,
            None
        ]
    );
    let place = &cluster.state.topic("assigned").unwrap().partitions()[0];
    assert_eq!(place.replicas, [NodeId(2), NodeId(3)]);
}

#[test]
fn a_command_creates_a_bounded_number_of_partitions() {
    let mut cluster = Cluster::of(1);
    let at_most = i32::try_from(PARTITIONS_PER_COMMAND_MAX).unwrap();
    assert!(cluster.create_one(topic("most", at_most, 1)).is_ok());
    assert_eq!(
        cluster
            .create_one(topic("more", at_most + 1, 1))
            .unwrap_err(),
        RefusalReason::Limit
    );
    let answers = cluster.create(vec![topic("a", at_most, 1), topic("b", 1, 1)]);
    assert!(answers[0].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err(), &RefusalReason::Limit);
}

#[test]
fn validate_only_changes_nothing() {
    let mut cluster = Cluster::of(1);
    let before = cluster.state.clone();
    let command = Command::CreateTopics {
        topics: vec![topic("a", 1, 1)],
        validate_only: true,
    };
    let Answer::Created(answers) = cluster.run(&command) else {
        panic!("another answer");
    };
    assert!(answers[0].is_ok());
    assert_eq!(cluster.state, before);
}

#[test]
fn configs_change_together_or_not_at_all() {
    let mut cluster = Cluster::of(1);
    cluster.create_one(topic("a", 1, 1)).unwrap();
    let set = |name: &str, value: &str| (name.to_owned(), OwnedConfigChange::Set(value.to_owned()));
    let mut alter = |changes| {
        let topics = vec![ConfigChanges {
            topic: "a".to_owned(),
            changes,
        }];
        let command = Command::AlterConfigs {
            topics,
            validate_only: false,
        };
        match cluster.run(&command) {
            Answer::Altered(mut answers) => answers.remove(0).map_err(|e| e.reason),
            other => panic!("{other:?}"),
        }
    };
    alter(vec![set("retention.ms", "5"), set("segment.ms", "7")]).unwrap();
    assert_eq!(
        alter(vec![set("retention.ms", "6"), set("segment.ms", "0")]),
        Err(RefusalReason::InvalidConfig)
    );
    assert_eq!(
        alter(vec![set("retention.ms", "6"), set("retention.ms", "7")]),
        Err(RefusalReason::InvalidRequest)
    );
    alter(vec![("segment.ms".to_owned(), OwnedConfigChange::Unset)]).unwrap();
    let own: Vec<_> = cluster.state.topic("a").unwrap().configs().own().collect();
    assert_eq!(own, [("retention.ms", "5")]);
}

#[test]
fn a_decision_that_another_has_overtaken_is_void() {
    let mut cluster = Cluster::of(1);
    let create = |name: &str| Command::CreateTopics {
        topics: vec![topic(name, 1, 1)],
        validate_only: false,
    };
    // Two leaders, one of them deposed without knowing it, decide upon the same state.
    let first = cluster.decide(&create("same")).record.unwrap();
    let second = cluster.decide(&create("same")).record.unwrap();
    let third = cluster.decide(&create("other")).record.unwrap();
    assert!(matches!(cluster.commit(&first), Applied::Changed(_)));
    let id = cluster.state.topic("same").unwrap().id();
    assert_eq!(cluster.commit(&second), Applied::Void);
    assert_eq!(cluster.commit(&third), Applied::Void);
    assert_eq!(cluster.state.topic("same").unwrap().id(), id);
    assert_eq!(cluster.state.topic("other"), None);
    // Decided again, it holds, whatever lay between.
    cluster.state.pass(cluster.state.applied().next());
    cluster.log.push(Vec::new());
    let again = cluster.decide(&create("other")).record.unwrap();
    assert!(matches!(cluster.commit(&again), Applied::Changed(_)));
    assert_eq!(cluster.groups_of("other"), [2]);
}

#[test]
fn a_node_stays_who_it_was() {
    let mut cluster = Cluster::of(1);
    let mut node = registration(1);
    let records = cluster.log.len();
    cluster.registered(node.clone()).unwrap();
    assert_eq!(cluster.log.len(), records, "nothing new, no record");
    node.boot = 2;
    node.listeners[0].port = 9093;
    cluster.registered(node.clone()).unwrap();
    assert_eq!(cluster.state.node(NodeId(1)), Some(&node));
    let older = NodeRegistration {
        boot: 1,
        ..node.clone()
    };
    assert_eq!(
        cluster.registered(older).unwrap_err().reason,
        RefusalReason::Identity
    );
    let other = NodeRegistration {
        incarnation: Incarnation([9; 16]),
        boot: 3,
        ..node.clone()
    };
    assert_eq!(
        cluster.registered(other).unwrap_err().reason,
        RefusalReason::Identity
    );
    let newer = NodeRegistration {
        record_versions: (2, 3),
        ..registration(2)
    };
    assert_eq!(
        cluster.registered(newer).unwrap_err().reason,
        RefusalReason::Identity
    );
    let nowhere = NodeRegistration {
        listeners: Vec::new(),
        ..registration(2)
    };
    assert_eq!(
        cluster.registered(nowhere).unwrap_err().reason,
        RefusalReason::InvalidRequest
    );
}

#[test]
fn producer_ids_are_given_out_once() {
    let mut cluster = Cluster::of(2);
    let mut block = |node| cluster.run(&Command::ProducerIds { node: NodeId(node) });
    let count = PRODUCER_IDS_PER_BLOCK;
    assert_eq!(block(1), Answer::ProducerIds { first: 0, count });
    assert_eq!(
        block(2),
        Answer::ProducerIds {
            first: 1_000,
            count
        }
    );
    assert_eq!(
        block(1),
        Answer::ProducerIds {
            first: 2_000,
            count
        }
    );
}

#[test]
fn golden_record() {
    let record = Record {
        based_on: LogIndex(5),
        events: vec![
            Event::TopicCreated(TopicRecord {
                name: highwater_record::TopicName::new("t").unwrap(),
                id: TopicId(1),
                partitions: vec![PartitionPlace {
                    group: GroupId(7),
                    replicas: vec![NodeId(2), NodeId(3)],
                }],
                configs: crate::config::TopicConfigs::default(),
            }),
            Event::ProducerIds {
                node: NodeId(1),
                first: 3,
                count: 4,
            },
        ],
    };
    let expected = [
        &[1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0][..],
        &[
            2, 1, 0, 0, 0, b't', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
        &[
            1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0,
        ],
        &[0, 0, 0, 0],
        &[5, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0],
    ]
    .concat();
    assert_eq!(record.encode(), expected);
}

#[test]
fn records_and_states_that_lie_are_refused() {
    let mut cluster = Cluster::of(2);
    cluster.create_one(topic("a", 2, 2)).unwrap();
    let record = cluster.log.last().unwrap().clone();
    for length in 0..record.len() {
        assert!(
            Record::decode(&record[..length]).is_err(),
            "cut at {length}"
        );
    }
    let mut many = record.clone();
    many[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        Record::decode(&many),
        Err(EventError::Truncated(_))
    ));
    let longer = [&record[..], &[0]].concat();
    assert_eq!(Record::decode(&longer), Err(EventError::TrailingBytes(1)));
    assert_eq!(Record::decode(&[2, 0]), Err(EventError::Version(2)));

    let state = cluster.state.encode();
    for length in 0..state.len() {
        assert!(
            Controller::decode(&state[..length]).is_err(),
            "cut at {length}"
        );
    }
    let longer = [&state[..], &[0]].concat();
    assert_eq!(
        Controller::decode(&longer),
        Err(ControllerSnapshotError::TrailingBytes(1))
    );
}

#[test]
fn what_contradicts_the_state_stops_the_node() {
    let mut cluster = Cluster::of(1);
    let record = Record {
        based_on: cluster.state.last_record(),
        events: vec![Event::TopicDeleted { id: TopicId(1) }],
    };
    let next = cluster.state.applied().next();
    assert!(matches!(
        cluster.state.apply(next, &record.encode()),
        Err(ApplyError::Contradiction { .. })
    ));
    assert!(matches!(
        cluster.state.apply(next.next(), b"nonsense"),
        Err(ApplyError::Unreadable { .. })
    ));
}

#[derive(Debug, Clone)]
enum Step {
    Create(u8, i32),
    Delete(u8),
    Alter(u8, u32),
    Ids,
    Register(u8),
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6_u8, 1..5_i32).prop_map(|(name, partitions)| Step::Create(name, partitions)),
        (0..6_u8).prop_map(Step::Delete),
        (0..6_u8, 1..3_u32).prop_map(|(name, value)| Step::Alter(name, value)),
        Just(Step::Ids),
        (1..5_u8).prop_map(Step::Register),
        Just(Step::Snapshot),
    ]
}

proptest! {
    #[test]
    fn a_snapshot_and_the_records_behind_it_are_the_state(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut cluster = Cluster::of(1);
        let mut kept = (cluster.state.encode(), cluster.log.len());
        let mut groups_seen = BTreeSet::new();
        for step in steps {
            let groups_before: BTreeSet<GroupId> = cluster.state.groups().collect();
            match step {
                Step::Create(name, partitions) => {
                    let _ = cluster.create_one(topic(&format!("t{name}"), partitions, -1));
                }
                Step::Delete(name) => drop(cluster.delete(&format!("t{name}"))),
                Step::Alter(name, value) => {
                    let topics = vec![ConfigChanges {
                        topic: format!("t{name}"),
                        changes: vec![(
                            "segment.ms".to_owned(),
                            OwnedConfigChange::Set(value.to_string()),
                        )],
                    }];
                    cluster.run(&Command::AlterConfigs { topics, validate_only: false });
                }
                Step::Ids => drop(cluster.run(&Command::ProducerIds { node: NodeId(1) })),
                Step::Register(node) => drop(cluster.registered(registration(node.into()))),
                Step::Snapshot => kept = (cluster.state.encode(), cluster.log.len()),
            }
            for group in cluster.state.groups() {
                prop_assert!(group < cluster.state.next_group());
                let is_new = groups_seen.insert(group);
                prop_assert!(is_new || groups_before.contains(&group), "{group} again");
            }
            let mut restored = Controller::decode(&kept.0).unwrap();
            prop_assert_eq!(restored.encode(), kept.0.clone());
            for body in &cluster.log[kept.1..] {
                restored.apply(restored.applied().next(), body).unwrap();
            }
            prop_assert_eq!(&restored, &cluster.state);
        }
    }
}
