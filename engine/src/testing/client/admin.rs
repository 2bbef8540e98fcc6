//! Who creates and deletes topics.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::ErrorCode;
use highwater_protocol::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, DeleteTopicsRequest, TopicName,
};

use super::super::history::Action;
use super::super::oracle::{Violation, demand};
use super::super::plan::TopicPlan;
use super::{Scene, Wish, read, text, the, wish};

const CREATE_VERSION: i16 = 5;
const DELETE_VERSION: i16 = 4;

/// How long the controller may take, in milliseconds.
const TIMEOUT_MS: i32 = 3_000;

/// The history's name for who deletes topics.
const PROCESS: u64 = 1;

/// Creates the topics of a plan, then, if it is to, others that it deletes again.
#[derive(Debug)]
pub(in super::super) struct Admin {
    missing: VecDeque<TopicPlan>,
    segment_bytes: u64,
    /// What topics that come and go are like.
    passing: Option<TopicPlan>,
    made: u32,
    doing: Option<Doing>,
    /// How often it has asked for what it is doing.
    asked: u32,
}

#[derive(Debug, Clone)]
enum Doing {
    Create(TopicPlan),
    Delete(Arc<str>),
}

impl Admin {
    pub(in super::super) fn new(topics: &[TopicPlan], segment_bytes: u64, churn: bool) -> Admin {
        Admin {
            missing: topics.iter().cloned().collect(),
            segment_bytes,
            passing: topics.first().filter(|_| churn).cloned(),
            made: 0,
            doing: None,
            asked: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.missing.is_empty() && self.doing.is_none()
    }

    pub(super) fn wish(&mut self, scene: &mut Scene<'_>) -> Option<Wish> {
        if self.doing.is_none() {
            self.doing = self.next(scene);
            self.asked = 0;
        }
        self.asked += 1;
        let node = scene.any_node();
        Some(match self.doing.as_ref()? {
            Doing::Create(topic) => wish(node, &self.create(topic), CREATE_VERSION),
            Doing::Delete(topic) => {
                let request = DeleteTopicsRequest::default()
                    .with_topic_names(vec![TopicName(text(topic))])
                    .with_timeout_ms(TIMEOUT_MS);
                wish(node, &request, DELETE_VERSION)
            }
        })
    }

    fn next(&mut self, scene: &mut Scene<'_>) -> Option<Doing> {
        if let Some(topic) = self.missing.front() {
            return Some(Doing::Create(topic.clone()));
        }
        if scene.calm || scene.rng.u8(..4) > 0 {
            return None;
        }
        let like = self.passing.as_ref()?;
        if let Some(topic) = scene.passing.take() {
            let action = Action::DeleteTopic {
                topic: Arc::clone(&topic),
            };
            let open = scene.history.invoke(PROCESS, action.clone());
            scene.history.info(open, action);
            return Some(Doing::Delete(topic));
        }
        self.made += 1;
        Some(Doing::Create(TopicPlan {
            name: format!("passing-{}", self.made),
            partitions: 1,
            ..like.clone()
        }))
    }

    fn create(&self, topic: &TopicPlan) -> CreateTopicsRequest {
        let config = |name: &str, value: u64| {
            CreatableTopicConfig::default()
                .with_name(text(name))
                .with_value(Some(text(&value.to_string())))
        };
        let mut configs = vec![config("segment.bytes", self.segment_bytes)];
        configs.extend(
            topic
                .retention_bytes
                .map(|bytes| config("retention.bytes", bytes)),
        );
        configs.extend(topic.retention_ms.map(|ms| config("retention.ms", ms)));
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(&topic.name)))
            .with_num_partitions(topic.partitions)
            .with_replication_factor(topic.replication)
            .with_configs(configs);
        CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(TIMEOUT_MS)
    }

    pub(super) fn told(
        &mut self,
        scene: &mut Scene<'_>,
        answer: Option<&Bytes>,
    ) -> Result<(), Violation> {
        let (Some(doing), Some(answer)) = (self.doing.clone(), answer) else {
            return Ok(());
        };
        match doing {
            Doing::Create(topic) => {
                let answer = read::<CreateTopicsRequest>(CREATE_VERSION, answer)?;
                let told = the(answer.topics.first(), "CreateTopics names its topic")?;
                self.told_created(scene, &topic, ErrorCode::from_code(told.error_code))
            }
            Doing::Delete(_) => {
                let answer = read::<DeleteTopicsRequest>(DELETE_VERSION, answer)?;
                let told = the(answer.responses.first(), "DeleteTopics names its topic")?;
                self.told_deleted(scene, ErrorCode::from_code(told.error_code))
            }
        }
    }

    fn told_created(
        &mut self,
        scene: &mut Scene<'_>,
        topic: &TopicPlan,
        code: ErrorCode,
    ) -> Result<(), Violation> {
        match code {
            ErrorCode::None => scene.reached.hit("a topic is created"),
            ErrorCode::TopicAlreadyExists => scene.reached.hit("a topic was created unheard"),
            // Nodes that have not registered yet are not there.
            ErrorCode::InvalidReplicationFactor => {
                scene.reached.hit("a topic wants more nodes than there are");
                return Ok(());
            }
            other => return is_to_be_repeated(scene, other),
        }
        // An earlier question may still be on its way, and would make the topic anew after it was
        // deleted: a request names no topic but by its name.
        if self.missing.pop_front().is_none() && self.asked == 1 {
            *scene.passing = Some(Arc::from(topic.name.as_str()));
        }
        self.doing = None;
        Ok(())
    }

    fn told_deleted(&mut self, scene: &mut Scene<'_>, code: ErrorCode) -> Result<(), Violation> {
        match code {
            ErrorCode::None => scene.reached.hit("a topic is deleted"),
            ErrorCode::UnknownTopicOrPartition => scene.reached.hit("a topic was deleted unheard"),
            other => return is_to_be_repeated(scene, other),
        }
        self.doing = None;
        Ok(())
    }
}

fn is_to_be_repeated(scene: &mut Scene<'_>, code: ErrorCode) -> Result<(), Violation> {
    scene.reached.hit("an administrator has to ask again");
    demand(code.is_retriable(), "answers fit their questions", || {
        format!("{code:?} about a topic")
    })
}
