//! Deciding, where the controller's leader is: one command after the other is held against the
//! state, proposed, and answered once its record is applied here.
//!
//! Nothing here asks whether this node leads. Group 0 does: it refuses a proposal elsewhere, and
//! a record that was decided upon an old state is void.

use std::collections::VecDeque;
use std::time::Duration;

use highwater_consensus::{LogIndex, NodeId};
use highwater_record::Buffer;

use super::super::admin::AdminRequest;
use super::message::{Outcome, What};
use super::{AskId, Follower};
use crate::codec::Put;
use crate::controller::{Answer, ClusterDefaults, Command, Controller};
use crate::ops::{self, CONTROLLER, Op, OpError, OpId, OpQueue, OpResult};
use crate::service::ServiceAddress;

/// How many commands wait at most; further ones are told to come back.
const WAITING_MAX: usize = 256;

/// How often a command is decided again because another was faster.
const DECISIONS_MAX: u32 = 16;

/// How long a command waits in the queue at most: whoever asked has given up by then.
const WAITING_TIME_MAX: Duration = Duration::from_secs(60);

/// How long the creation of a topic waits for nodes that have not registered yet, where it
/// leaves the number of replicas to the cluster: at its first start they come one by one.
const JOINING_MAX: Duration = Duration::from_secs(5);

/// Who is to get the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka::cluster) enum Origin {
    /// This service.
    Local(AskId),
    /// Another, and its name for the question.
    Remote(ServiceAddress, u64),
}

/// A command and how to answer it.
#[derive(Debug)]
struct Task {
    origin: Origin,
    asked_at: Duration,
    what: Work,
}

#[derive(Debug)]
enum Work {
    Admin(Box<AdminRequest>),
    Other(Command),
}

impl Work {
    fn waits_for_nodes(&self, defaults: &ClusterDefaults, state: &Controller) -> bool {
        match self {
            Work::Admin(request) => request.command().lacks_nodes(defaults, state),
            Work::Other(_) => false,
        }
    }
}

#[derive(Debug)]
struct Active {
    task: Task,
    answer: Answer,
    decisions: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Proposing(OpId),
    Applying(LogIndex),
}

/// The commands that wait here, and the one that is being carried out.
#[derive(Debug)]
pub(in crate::kafka::cluster) struct Lead {
    defaults: ClusterDefaults,
    random: fastrand::Rng,
    waiting: VecDeque<Task>,
    active: Option<Active>,
    answers: VecDeque<(Origin, Outcome)>,
}

impl Lead {
    pub(in crate::kafka::cluster) fn new(defaults: ClusterDefaults, random: fastrand::Rng) -> Lead {
        Lead {
            defaults,
            random,
            waiting: VecDeque::new(),
            active: None,
            answers: VecDeque::new(),
        }
    }

    /// Takes a command in; [`step`](Lead::step) goes on with it.
    pub(in crate::kafka::cluster) fn ask(
        &mut self,
        now: Duration,
        origin: Origin,
        from: NodeId,
        what: What,
    ) {
        if self.waiting.len() == WAITING_MAX {
            self.answers.push_back((origin, Outcome::Busy));
            return;
        }
        let what = match what {
            What::Request(frame) => match AdminRequest::decode(&frame) {
                Ok(request) => Work::Admin(Box::new(request)),
                Err(error) => {
                    // The asking node has decoded it before, so it knows more than this one.
                    tracing::warn!(%from, %error, "a forwarded request cannot be read");
                    self.answers.push_back((origin, Outcome::Unknown));
                    return;
                }
            },
            What::ProducerIds => Work::Other(Command::ProducerIds { node: from }),
            What::Register(node) if node.node == from => Work::Other(Command::Register(node)),
            What::Register(node) => {
                // The link has authenticated who asks.
                tracing::warn!(%from, node = %node.node, "a node registers another");
                self.answers.push_back((origin, Outcome::Unknown));
                return;
            }
        };
        self.waiting.push_back(Task {
            origin,
            asked_at: now,
            what,
        });
    }

    /// Whether this operation is the proposal under way; [`handle_done`](Lead::handle_done)
    /// wants its result then.
    pub(in crate::kafka::cluster) fn has_asked(&self, id: OpId) -> bool {
        let active = self.active.as_ref();
        active.is_some_and(|active| active.phase == Phase::Proposing(id))
    }

    /// The proposal is answered; [`step`](Lead::step) goes on.
    pub(in crate::kafka::cluster) fn handle_done(&mut self, result: OpResult) {
        let mut active = self.active.take().expect("a proposal was under way");
        let outcome = match result {
            Ok(ops::Outcome::Proposed { index }) => {
                active.phase = Phase::Applying(index);
                self.active = Some(active);
                return;
            }
            Ok(other) => unreachable!("{other:?} answers no proposal"),
            Err(OpError::NotLeader { .. } | OpError::UnknownGroup) => Outcome::NotController,
            Err(OpError::Busy(_) | OpError::TooLarge { .. } | OpError::Storage(_)) => Outcome::Busy,
            Err(_) => Outcome::Unknown,
        };
        if outcome == Outcome::NotController {
            // The others would hear the same.
            for task in self.waiting.drain(..) {
                self.answers
                    .push_back((task.origin, Outcome::NotController));
            }
        }
        self.answers.push_back((active.task.origin, outcome));
    }

    /// Goes on as far as possible: after commands came, an answer came, or the state advanced.
    pub(in crate::kafka::cluster) fn step(
        &mut self,
        now: Duration,
        state: &Controller,
        follower: &Follower,
        ops: &mut OpQueue,
    ) {
        loop {
            if let Some(active) = self.active.take() {
                let Phase::Applying(index) = active.phase else {
                    self.active = Some(active);
                    return;
                };
                if state.applied() < index {
                    self.active = Some(active);
                    return;
                }
                self.applied(active, index, state, follower, ops);
            } else if let Some(task) = self.next_task(now, state) {
                if now.saturating_sub(task.asked_at) < WAITING_TIME_MAX {
                    self.decide(task, 1, state, ops);
                }
            } else {
                return;
            }
        }
    }

    /// The first that can be decided.
    fn next_task(&mut self, now: Duration, state: &Controller) -> Option<Task> {
        let is_ready = |task: &Task| {
            now >= task.asked_at + JOINING_MAX || !task.what.waits_for_nodes(&self.defaults, state)
        };
        let at = self.waiting.iter().position(is_ready)?;
        self.waiting.remove(at)
    }

    /// When [`step`](Lead::step) has something to do though nothing has come.
    pub(in crate::kafka::cluster) fn next_timeout(&self) -> Option<Duration> {
        // What waits while nothing is under way waits for nodes.
        let joining = self.waiting.iter().filter(|_| self.active.is_none());
        joining.map(|task| task.asked_at + JOINING_MAX).min()
    }

    /// The next answer to be given.
    pub(in crate::kafka::cluster) fn poll_answer(&mut self) -> Option<(Origin, Outcome)> {
        self.answers.pop_front()
    }

    fn decide(&mut self, task: Task, decisions: u32, state: &Controller, ops: &mut OpQueue) {
        let command = match &task.what {
            Work::Admin(request) => &request.command(),
            Work::Other(command) => command,
        };
        let decision = state.decide(command, &self.defaults, &mut self.random);
        let Some(record) = decision.record else {
            self.answer(&task, &decision.answer, state.applied());
            return;
        };
        let body = Buffer::from(record.encode());
        let proposed = ops.submit(CONTROLLER, Op::Propose { body });
        self.active = Some(Active {
            task,
            answer: decision.answer,
            decisions,
            phase: Phase::Proposing(proposed),
        });
    }

    fn applied(
        &mut self,
        active: Active,
        index: LogIndex,
        state: &Controller,
        follower: &Follower,
        ops: &mut OpQueue,
    ) {
        match follower.outcome_of(index) {
            Some(true) => self.answer(&active.task, &active.answer, index),
            Some(false) if active.decisions < DECISIONS_MAX => {
                self.decide(active.task, active.decisions + 1, state, ops);
            }
            Some(false) => self.answers.push_back((active.task.origin, Outcome::Busy)),
            // Another record followed within the same read, or a restored state holds it: what
            // came of it is not known any more.
            None if state.last_record() == index => {
                self.answer(&active.task, &active.answer, index);
            }
            None => self
                .answers
                .push_back((active.task.origin, Outcome::Unknown)),
        }
    }

    fn answer(&mut self, task: &Task, answer: &Answer, index: LogIndex) {
        let payload = match (&task.what, answer) {
            (Work::Admin(request), answer) => request.answer(answer),
            (Work::Other(_), Answer::ProducerIds { first, count }) => {
                let mut bytes = Vec::new();
                bytes.put_i64(*first);
                bytes.put_u32(*count);
                Buffer::from(bytes)
            }
            (Work::Other(_), Answer::Registered(Ok(()))) => Buffer::default(),
            (Work::Other(_), Answer::Registered(Err(refusal))) => {
                Buffer::from(refusal.message.clone().into_bytes())
            }
            (Work::Other(command), answer) => unreachable!("{answer:?} answers no {command:?}"),
        };
        self.answers
            .push_back((task.origin, Outcome::Done { index, payload }));
    }
}

#[cfg(test)]
mod tests {
    use highwater_log::Incarnation;
    use highwater_protocol::messages::{CreatableTopic, CreateTopicsRequest, StrBytes};
    use highwater_protocol::{ApiKey, Call, LENGTH_BYTES, RequestHeader};
    use highwater_record::LeaderEpoch;

    use super::*;
    use crate::controller::{Listener, NodeRegistration, RECORD_VERSION, Record};
    use crate::io::Now;
    use crate::ops::{Asked, CommittedEntry, CommittedKind, Outcome as OpOutcome};

    /// The deciding side with its log, in which others may write too.
    struct Rig {
        lead: Lead,
        follower: Follower,
        state: Controller,
        ops: OpQueue,
        log: Vec<Buffer>,
    }

    const NOW: Now = Now {
        monotonic: Duration::ZERO,
        wall_ms: 0,
    };

    impl Rig {
        fn new() -> Rig {
            let random = fastrand::Rng::with_seed(1);
            let mut rig = Rig {
                lead: Lead::new(ClusterDefaults::default(), random),
                follower: Follower::default(),
                state: Controller::new(),
                ops: OpQueue::new(),
                log: Vec::new(),
            };
            rig.follower.read(&rig.state, &mut rig.ops);
            rig
        }

        fn ask(&mut self, id: u64) {
            let origin = Origin::Local(AskId(id));
            self.lead
                .ask(NOW.monotonic, origin, NodeId(1), What::ProducerIds);
            self.step();
        }

        /// Asks for a topic whose replicas are as many as the cluster says.
        fn ask_for_topic(&mut self, id: u64) {
            let topic = CreatableTopic::default()
                .with_name(StrBytes::from_static_str("a").into())
                .with_num_partitions(1)
                .with_replication_factor(-1);
            let request = CreateTopicsRequest::default().with_topics(vec![topic]);
            let header = RequestHeader {
                key: ApiKey::CreateTopics,
                version: ApiKey::CreateTopics.versions().max,
                correlation_id: 0,
                client_id: None,
            };
            let frame = request.encode(&header).unwrap().concat();
            let what = What::Request(Buffer::from(frame).slice(LENGTH_BYTES..));
            let origin = Origin::Local(AskId(id));
            self.lead.ask(NOW.monotonic, origin, NodeId(1), what);
            self.step();
        }

        fn register(&mut self, node: NodeId) {
            let registration = NodeRegistration {
                node,
                incarnation: Incarnation([node.0.to_le_bytes()[0]; 16]),
                boot: 1,
                record_versions: (RECORD_VERSION, RECORD_VERSION),
                listeners: vec![Listener {
                    name: "kafka".to_owned(),
                    host: "127.0.0.1".to_owned(),
                    port: 9092,
                }],
            };
            let origin = Origin::Local(AskId(100 + u64::from(node.0)));
            let what = What::Register(registration);
            self.lead.ask(NOW.monotonic, origin, node, what);
            self.step();
            let body = self.proposal().expect("a registration waits for nobody");
            let index = self.commit(body);
            self.proposed(index);
            let (answered, _) = self.lead.poll_answer().expect("an answer");
            assert_eq!(answered, origin);
        }

        fn step(&mut self) {
            self.lead
                .step(NOW.monotonic, &self.state, &self.follower, &mut self.ops);
        }

        /// The proposal under way.
        fn proposal(&mut self) -> Option<Buffer> {
            std::iter::from_fn(|| self.ops.take()).find_map(|asked| match asked {
                Asked::Op {
                    id,
                    op: Op::Propose { body },
                    ..
                } => {
                    assert!(self.lead.has_asked(id));
                    Some(body)
                }
                _ => None,
            })
        }

        /// An entry is committed, and applied here.
        fn commit(&mut self, body: Buffer) -> LogIndex {
            self.log.push(body.clone());
            let index = LogIndex(self.log.len() as u64);
            let entry = CommittedEntry {
                index,
                kind: CommittedKind::Control,
                body,
            };
            let result = Ok(OpOutcome::Entries {
                entries: vec![entry],
                commit_index: index,
            });
            self.follower
                .handle_done(NOW, result, &mut self.state, &mut self.ops)
                .unwrap();
            index
        }

        fn proposed(&mut self, index: LogIndex) {
            self.lead.handle_done(Ok(OpOutcome::Proposed { index }));
            self.step();
        }

        fn first_id(&mut self, id: u64) -> i64 {
            let (origin, outcome) = self.lead.poll_answer().expect("an answer");
            assert_eq!(origin, Origin::Local(AskId(id)));
            let Outcome::Done { payload, .. } = outcome else {
                panic!("{outcome:?}");
            };
            i64::from_le_bytes(payload[..8].try_into().unwrap())
        }
    }

    #[test]
    fn commands_are_carried_out_one_after_the_other() {
        let mut rig = Rig::new();
        rig.ask(1);
        rig.ask(2);
        let body = rig.proposal().unwrap();
        assert!(rig.proposal().is_none(), "the second waits for the first");
        let index = rig.commit(body);
        rig.proposed(index);
        assert_eq!(rig.first_id(1), 0);
        let body = rig.proposal().unwrap();
        // Whichever comes first, the news that it is committed or the entry itself.
        rig.proposed(LogIndex(2));
        assert!(rig.lead.poll_answer().is_none(), "it is not applied yet");
        rig.commit(body);
        rig.step();
        assert_eq!(rig.first_id(2), 1_000);
    }

    #[test]
    fn what_another_has_overtaken_is_decided_again() {
        let mut rig = Rig::new();
        rig.ask(1);
        let body = rig.proposal().unwrap();
        // A leader of an earlier term has its record committed first; it gave out the same ids.
        let mut other = Record::decode(&body).unwrap();
        assert_eq!(other.events.len(), 1);
        other.based_on = LogIndex::ZERO;
        rig.commit(Buffer::from(other.encode()));
        let index = rig.commit(body);
        rig.proposed(index);
        assert!(rig.lead.poll_answer().is_none());
        let again = rig.proposal().unwrap();
        let index = rig.commit(again);
        rig.proposed(index);
        assert_eq!(rig.first_id(1), 1_000, "no id twice");
    }

    #[test]
    fn a_topic_waits_for_the_nodes_that_its_replicas_need() {
        let mut rig = Rig::new();
        rig.ask_for_topic(1);
        assert!(rig.proposal().is_none(), "no node has registered");
        for node in 1..=3 {
            rig.register(NodeId(node));
        }
        let body = rig.proposal().expect("now there are three");
        let index = rig.commit(body);
        rig.proposed(index);
        let topic = rig.state.topic("a").expect("it is created");
        assert_eq!(topic.replication(), 3);
        // And what does not come is not waited for.
        let mut rig = Rig::new();
        rig.ask_for_topic(1);
        rig.register(NodeId(1));
        let due = rig.lead.next_timeout().expect("it does not wait for ever");
        rig.lead.step(due, &rig.state, &rig.follower, &mut rig.ops);
        let (_, outcome) = rig.lead.poll_answer().expect("a refusal");
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        assert!(rig.state.topic("a").is_none());
        assert_eq!(rig.lead.next_timeout(), None);
    }

    #[test]
    fn who_does_not_lead_sends_everybody_away() {
        let mut rig = Rig::new();
        rig.ask(1);
        rig.ask(2);
        let epoch = LeaderEpoch::ZERO;
        let error = OpError::NotLeader {
            leader: None,
            epoch,
        };
        rig.lead.handle_done(Err(error));
        rig.step();
        for _ in 0..2 {
            let (_, outcome) = rig.lead.poll_answer().unwrap();
            assert_eq!(outcome, Outcome::NotController);
        }
        rig.ask(3);
        rig.lead.handle_done(Err(OpError::Indefinite));
        let (_, outcome) = rig.lead.poll_answer().unwrap();
        assert_eq!(outcome, Outcome::Unknown, "it may be committed yet");
    }

    #[test]
    fn a_bounded_number_waits() {
        let mut rig = Rig::new();
        for id in 0..=1 + WAITING_MAX as u64 {
            rig.ask(id);
        }
        let (origin, outcome) = rig.lead.poll_answer().unwrap();
        assert_eq!(origin, Origin::Local(AskId(1 + WAITING_MAX as u64)));
        assert_eq!(outcome, Outcome::Busy);
        assert!(rig.lead.poll_answer().is_none());
    }
}
