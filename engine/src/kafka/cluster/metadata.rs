//! Metadata: which nodes and topics there are, and who leads what. Topics that are asked for come
//! into being, if that is wanted.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::messages::{
    BrokerId, MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic, StrBytes, TopicName, Uuid,
};
use highwater_protocol::{ErrorCode, Response};
use highwater_record::{self as record, Buffer};

use super::admin::{auto_created, auto_creation};
use super::view::View;
use crate::controller::{PartitionPlace, Topic, TopicId};

/// How many topics one request brings into being at most.
const AUTO_CREATED_MAX: usize = 100;

/// The first version that says whether topics may come into being; before, they may.
const ALLOW_VERSION_MIN: i16 = 4;

/// What a request for metadata waits for.
#[derive(Debug)]
pub(super) enum Progress {
    /// To be gone on with when the cluster's state has changed.
    Wait,
    /// For these topics to be created: a question to the controller.
    Create(Buffer),
    /// It is answered.
    Done(Response),
}

/// A request for metadata on its way.
#[derive(Debug)]
pub(super) struct MetadataJob {
    /// `None` asks for all.
    topics: Option<Vec<MetadataRequestTopic>>,
    /// Missing topics are to be made, and have not been asked for yet.
    may_create: bool,
    /// Topics that were asked for, with what became of them: until it is known, they may be on
    /// their way.
    creating: BTreeMap<StrBytes, ErrorCode>,
}

impl MetadataJob {
    pub(super) fn new(request: MetadataRequest, version: i16, view: &View) -> MetadataJob {
        // In version 0 an empty list asks for all topics; later null does, and an empty one for
        // none.
        let topics = request
            .topics
            .filter(|topics| version > 0 || !topics.is_empty());
        MetadataJob {
            topics,
            may_create: view.config.auto_create
                && (version < ALLOW_VERSION_MIN || request.allow_auto_topic_creation),
            creating: BTreeMap::new(),
        }
    }

    /// Goes as far as it can be gone.
    pub(super) fn go_on(&mut self, view: &View) -> Progress {
        if !view.is_current() {
            return Progress::Wait;
        }
        if std::mem::take(&mut self.may_create)
            && let Some(question) = self.create_missing(view)
        {
            return Progress::Create(question);
        }
        Progress::Done(self.reply(view))
    }

    /// The controller has answered; or, with `None`, nobody knows what came of it.
    pub(super) fn created(&mut self, answer: Option<&Buffer>, view: &View) -> Response {
        for (name, code) in answer.into_iter().flat_map(auto_created) {
            self.creating.insert(name, code);
        }
        self.reply(view)
    }

    /// The question that asks for the topics that are not there, if there are such.
    fn create_missing(&mut self, view: &View) -> Option<Buffer> {
        let named = self.topics.iter().flatten();
        let missing = named
            .filter_map(|topic| topic.name.as_ref())
            .filter(|name| view.state.topic(name).is_none())
            .filter(|name| record::TopicName::new(name).is_ok())
            .take(AUTO_CREATED_MAX);
        for name in missing {
            self.creating
                .insert(name.0.clone(), ErrorCode::LeaderNotAvailable);
        }
        let names: Vec<StrBytes> = self.creating.keys().cloned().collect();
        (!names.is_empty()).then(|| auto_creation(&names))
    }

    /// What is known now.
    pub(super) fn reply(&self, view: &View) -> Response {
        let topics = match &self.topics {
            None => view
                .state
                .topics()
                .map(|topic| describe(topic, view))
                .collect(),
            Some(topics) => {
                // Each once: a request that repeats a large topic's name would become a response
                // of gigabytes.
                let mut seen = BTreeSet::new();
                let topics = topics.iter();
                topics
                    .filter(|topic| seen.insert((&topic.name, topic.topic_id)))
                    .map(|topic| self.describe_asked(topic, view))
                    .collect()
            }
        };
        MetadataResponse::default()
            .with_brokers(brokers(view))
            .with_cluster_id(Some(StrBytes::from_string(view.config.cluster_id.clone())))
            .with_controller_id(broker_id(view.controller()))
            .with_topics(topics)
            .into()
    }

    fn describe_asked(&self, asked: &MetadataRequestTopic, view: &View) -> MetadataResponseTopic {
        let failed = |code: ErrorCode| {
            MetadataResponseTopic::default()
                .with_error_code(code.code())
                .with_name(asked.name.clone())
                .with_topic_id(asked.topic_id)
        };
        let Some(name) = &asked.name else {
            let id = TopicId(asked.topic_id.as_u128());
            return match view.state.topic_by_id(id) {
                Some(topic) => describe(topic, view),
                None => failed(ErrorCode::UnknownTopicId),
            };
        };
        match view.state.topic(name) {
            Some(topic) => describe(topic, view),
            None if record::TopicName::new(name).is_err() => {
                failed(ErrorCode::InvalidTopicException)
            }
            None => match self.creating.get(&name.0) {
                Some(ErrorCode::None) => failed(ErrorCode::LeaderNotAvailable),
                Some(code) => failed(*code),
                None if view.is_current() => failed(ErrorCode::UnknownTopicOrPartition),
                None => failed(ErrorCode::LeaderNotAvailable),
            },
        }
    }
}

fn brokers(view: &View) -> Vec<MetadataResponseBroker> {
    let nodes = view.live_nodes().map(|node| {
        let listener = &node.listeners[0];
        MetadataResponseBroker::default()
            .with_node_id(broker_id(Some(node.node)))
            .with_host(StrBytes::from_string(listener.host.clone()))
            .with_port(i32::from(listener.port))
    });
    nodes.collect()
}

/// A node as Kafka's messages name it; -1 for nobody.
pub(in crate::kafka) fn broker_id(node: Option<highwater_consensus::NodeId>) -> BrokerId {
    BrokerId(node.map_or(-1, |node| i32::try_from(node.0).unwrap_or(-1)))
}

fn describe(topic: &Topic, view: &View) -> MetadataResponseTopic {
    let partitions = (0..).zip(topic.partitions());
    let partitions = partitions.map(|(index, place)| describe_partition(index, place, view));
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(
            topic.name().to_string(),
        ))))
        .with_topic_id(Uuid::from_u128(topic.id().0))
        .with_partitions(partitions.collect())
}

fn describe_partition(
    index: i32,
    place: &PartitionPlace,
    view: &View,
) -> MetadataResponsePartition {
    let ids = |live: Option<bool>| {
        let nodes = place.replicas.iter().copied();
        nodes
            .filter(|node| live.is_none_or(|live| view.is_reachable(*node) == live))
            .map(|node| broker_id(Some(node)))
            .collect()
    };
    let leader = view.leader(place);
    let code = match leader {
        Some(_) => ErrorCode::None,
        None => ErrorCode::LeaderNotAvailable,
    };
    MetadataResponsePartition::default()
        .with_error_code(code.code())
        .with_partition_index(index)
        .with_leader_id(broker_id(leader.map(|leader| leader.node)))
        .with_leader_epoch(leader.map_or(-1, |leader| leader.epoch))
        .with_replica_nodes(ids(None))
        .with_isr_nodes(ids(Some(true)))
        .with_offline_replicas(ids(Some(false)))
}
