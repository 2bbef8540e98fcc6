//! What all requests share: parts on several partitions, asked at once and joined.

use std::time::Duration;

use highwater_protocol::{ErrorCode, Response};

use super::refusals::Refusals;
use crate::config::TopicConfigs;
use crate::io::Now;
use crate::ops::{GroupId, Op, OpId, OpQueue, OpResult};

/// What a request's handler wants next.
#[derive(Debug)]
pub(crate) enum Step {
    /// More answers, or [`Handler::handle_timeout`] at the given time; `None` leaves that time
    /// as it was.
    Wait(Option<Duration>),
    /// The request is answered.
    Answer(Response),
    /// The request is over and has no answer (a produce with `acks=0`).
    Silent,
    /// The request has failed and can have no answer: the connection is closed, once what was
    /// asked before is answered.
    Close,
}

/// A request on its way: a state machine that asks operations and is told their answers.
///
/// It is over with [`Step::Answer`] or [`Step::Silent`]; what it has asked and not been told by
/// then is cancelled for it.
pub(crate) trait Handler {
    /// The first step.
    fn start(&mut self, cx: &mut Context<'_>) -> Step;

    /// An operation is answered; `place` is what it was asked with.
    fn handle_done(&mut self, place: usize, result: OpResult, cx: &mut Context<'_>) -> Step;

    /// The time that the last [`Step::Wait`] named has come.
    fn handle_timeout(&mut self, cx: &mut Context<'_>) -> Step;
}

/// What a handler may use in a step.
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) directory: &'a dyn Directory,
    /// What the request's connection was refused.
    pub(crate) refusals: &'a mut Refusals,
    ops: &'a mut OpQueue,
    asked: &'a mut Vec<Asked>,
}

/// An operation that a handler has asked in this step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) id: OpId,
    pub(crate) group: GroupId,
    pub(crate) place: usize,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        now: Now,
        directory: &'a dyn Directory,
        refusals: &'a mut Refusals,
        ops: &'a mut OpQueue,
        asked: &'a mut Vec<Asked>,
    ) -> Self {
        Self {
            now,
            directory,
            refusals,
            ops,
            asked,
        }
    }

    /// Asks `op` of `group`; its answer comes with `place`.
    pub(crate) fn ask(&mut self, place: usize, group: GroupId, op: Op) {
        let id = self.ops.submit(group, op);
        self.asked.push(Asked { id, group, place });
    }
}

/// What handlers must know of the cluster's topics.
pub trait Directory {
    /// A partition of a topic, by the names that a client has sent.
    ///
    /// # Errors
    ///
    /// What to tell the client if there is none, or none is known yet.
    fn partition(&self, topic: &str, index: i32) -> Result<PartitionRef<'_>, ErrorCode>;
}

/// A partition, as handlers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRef<'a> {
    /// The group that replicates it.
    pub group: GroupId,
    /// Its topic's configs, which say what is demanded of batches.
    pub configs: &'a TopicConfigs,
}

/// The answers of a request's parts, by place; complete when none is open.
#[derive(Debug)]
pub(crate) struct Join<T> {
    answers: Vec<Option<T>>,
    open: usize,
}

impl<T> Default for Join<T> {
    fn default() -> Self {
        Self {
            answers: Vec::new(),
            open: 0,
        }
    }
}

impl<T> Join<T> {
    /// Adds a part and returns its place.
    pub(crate) fn add(&mut self) -> usize {
        self.answers.push(None);
        self.open += 1;
        self.answers.len() - 1
    }

    /// Sets the answer of a part; a second one is passed over.
    pub(crate) fn set(&mut self, place: usize, answer: T) {
        if self.answers[place].is_none() {
            self.answers[place] = Some(answer);
            self.open -= 1;
        }
    }

    /// Whether every part has its answer.
    pub(crate) fn is_complete(&self) -> bool {
        self.open == 0
    }

    /// All answers in order of place, those that are missing made by `default`.
    pub(crate) fn take(&mut self, mut default: impl FnMut(usize) -> T) -> Vec<T> {
        self.open = 0;
        let answers = std::mem::take(&mut self.answers);
        answers
            .into_iter()
            .enumerate()
            .map(|(place, answer)| answer.unwrap_or_else(|| default(place)))
            .collect()
    }
}
