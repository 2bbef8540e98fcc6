//! What concerns the cluster: its topics and nodes, and the requests about them.
//!
//! A [`Desk`] on each shard follows the controller's log, so that it knows every topic; it answers
//! what can be answered from that, and puts the rest as questions to the desk where the
//! controller's leader is, which decides. The desk of shard 0 also registers its node, and tells
//! the node's shards which groups there are.

mod admin;
mod config;
mod configs;
mod control;
mod metadata;
mod nodes;
mod producer_ids;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use highwater_consensus::{LogIndex, NodeId};
use highwater_protocol::{ErrorCode, Request, RequestHeader, Response};
use highwater_record::Buffer;

pub use config::KafkaConfig;
pub(super) use metadata::broker_id;

use self::admin::AdminRequest;
use self::control::{
    AskId, AskOutput, Asks, FORWARDED_BYTES_MAX, Followed, Follower, Lead, Message, Origin, Repeat,
    What,
};
use self::metadata::{MetadataJob, Progress};
use self::producer_ids::ProducerIds;
use self::view::View;
use super::connection::RequestId;
use super::handler::{Directory, PartitionRef};
use super::service::{Cluster, ClusterOutput};
use crate::controller::{Change, Controller};
use crate::io::{LeaderHint, Now, ShardId};
use crate::ops::{CONTROLLER, GroupCommand, GroupId, OpId, OpQueue, OpResult};
use crate::service::ServiceAddress;

/// How long a registration or a block of producer ids is waited for before it is asked for anew.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How long a client waits at most for a node that has just started to know the cluster, for
/// topics to come into being, or for a producer id.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Knows the cluster's topics and nodes, and answers the requests about them.
pub struct Desk {
    view: View,
    follower: Follower,
    lead: Lead,
    asks: Asks,
    waiting: BTreeMap<RequestId, Waiting>,
    deadlines: BTreeSet<(Duration, RequestId)>,
    /// Whose questions they are; the desk's own are not in it.
    askers: BTreeMap<AskId, RequestId>,
    producer_ids: ProducerIds,
    /// The question for more producer ids.
    refill: Option<AskId>,
    /// The question to be registered.
    registration: Option<AskId>,
    /// Which groups there are was told once, all of them; from then on, what changes.
    groups_told: bool,
    /// The last entry that was taken in by a restored state, not applied one by one.
    restored: LogIndex,
    outputs: VecDeque<ClusterOutput>,
    failed: bool,
}

/// A request that is not answered yet.
#[derive(Debug)]
struct Waiting {
    deadline: Duration,
    task: Task,
}

#[derive(Debug)]
enum Task {
    Metadata(MetadataJob),
    Admin(AdminRequest),
    ProducerId,
}

impl Desk {
    /// A desk that knows nothing of the cluster yet.
    #[must_use]
    pub fn new(config: KafkaConfig) -> Desk {
        let mut random = fastrand::Rng::with_seed(config.seed);
        let asks = Asks::new(config.registration.boot);
        Desk {
            lead: Lead::new(config.defaults, random.fork()),
            view: View::new(config),
            follower: Follower::default(),
            asks,
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            askers: BTreeMap::new(),
            producer_ids: ProducerIds::default(),
            refill: None,
            registration: None,
            groups_told: false,
            restored: LogIndex::ZERO,
            outputs: VecDeque::new(),
            failed: false,
        }
    }

    /// What the cluster has decided, as far as it is known here.
    #[must_use]
    pub fn controller(&self) -> &Controller {
        &self.view.state
    }

    /// Who leads the controller's group, if that is known and the node can be reached.
    #[must_use]
    pub fn controller_leader(&self) -> Option<NodeId> {
        self.view.controller()
    }

    /// Whether the node is registered in this life, so that what it says of topics is to be
    /// believed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.view.is_current()
    }

    /// Up to which entry of the controller's log the state came as a whole, from a file's footer
    /// or from the leader; what follows was applied entry by entry.
    #[must_use]
    pub fn restored_at(&self) -> LogIndex {
        self.restored
    }

    fn is_on_first_shard(&self) -> bool {
        self.view.config.shard == ShardId(0)
    }

    // Requests.

    fn answer(&mut self, id: RequestId, response: impl Into<Response>) {
        let response = response.into();
        self.outputs.push_back(ClusterOutput::Answer(id, response));
    }

    fn wait(&mut self, id: RequestId, deadline: Duration, task: Task) {
        self.deadlines.insert((deadline, id));
        self.waiting.insert(id, Waiting { deadline, task });
    }

    fn stop_waiting(&mut self, id: RequestId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.deadlines.remove(&(waiting.deadline, id));
        Some(waiting)
    }

    fn begin(&mut self, now: Now, id: RequestId, header: &RequestHeader, request: Request<Buffer>) {
        let soon = now.monotonic + WAIT_MAX;
        match request {
            Request::Metadata(request) => {
                let job = MetadataJob::new(request, header.version, &self.view);
                self.go_on(now, id, soon, Task::Metadata(job));
            }
            Request::InitProducerId(request) => match producer_ids::refusal(&request) {
                Some(refusal) => self.answer(id, refusal),
                None => self.go_on(now, id, soon, Task::ProducerId),
            },
            Request::DescribeConfigs(request) => {
                self.answer(id, configs::describe(&request, &self.view));
            }
            Request::DescribeCluster(request) => {
                self.answer(id, nodes::describe(&request, &self.view));
            }
            request => {
                let key = request.key();
                let admin = AdminRequest::new(header, request);
                let admin = admin.unwrap_or_else(|| unreachable!("{key} is no desk's matter"));
                self.begin_admin(now, id, admin);
            }
        }
    }

    fn begin_admin(&mut self, now: Now, id: RequestId, admin: AdminRequest) {
        let refuse =
            |admin: &AdminRequest, code: ErrorCode, message: &str| admin.refuse_all(code, message);
        let question = match admin.question() {
            Ok(question) if question.len() <= FORWARDED_BYTES_MAX => question,
            Ok(question) => {
                let bytes = question.len();
                let message = format!("{bytes} bytes at once; at most {FORWARDED_BYTES_MAX}");
                let refusal = refuse(&admin, ErrorCode::PolicyViolation, &message);
                return self.answer(id, refusal);
            }
            Err(error) => {
                let refusal = refuse(&admin, ErrorCode::InvalidRequest, &error.to_string());
                return self.answer(id, refusal);
            }
        };
        let deadline = now.monotonic + admin.wait();
        match self.asks.ask(
            now.monotonic,
            What::Request(question),
            Repeat::Never,
            deadline,
        ) {
            Some(ask) => {
                self.askers.insert(ask, id);
                // The question is over by its deadline, which answers the request.
                self.wait(id, deadline + WAIT_MAX, Task::Admin(admin));
            }
            None => {
                let message = "too many commands wait for the controller";
                let refusal = refuse(&admin, ErrorCode::RequestTimedOut, message);
                self.answer(id, refusal);
            }
        }
    }

    /// Takes a request that depends on the state further.
    fn go_on(&mut self, now: Now, id: RequestId, deadline: Duration, mut task: Task) {
        match &mut task {
            Task::Metadata(job) => match job.go_on(&self.view) {
                Progress::Done(response) => return self.answer(id, response),
                Progress::Wait => {}
                Progress::Create(question) => {
                    let what = What::Request(question);
                    // A topic that the first question has created is what is wanted.
                    let repeat = Repeat::Harmless;
                    match self.asks.ask(now.monotonic, what, repeat, deadline) {
                        Some(ask) => drop(self.askers.insert(ask, id)),
                        None => {
                            let response = job.reply(&self.view);
                            return self.answer(id, response);
                        }
                    }
                }
            },
            Task::ProducerId => {
                if let Some(producer) = self.producer_ids.take() {
                    return self.answer(id, producer_ids::granted(producer));
                }
            }
            // It waits for its answer only.
            Task::Admin(_) => {}
        }
        self.wait(id, deadline, task);
    }

    /// The state has changed, or there are producer ids: whoever waits for either goes on.
    fn wake(&mut self, now: Now) {
        let asked: BTreeSet<RequestId> = self.askers.values().copied().collect();
        let sleeping = self.waiting.keys().filter(|id| !asked.contains(id));
        for id in sleeping.copied().collect::<Vec<RequestId>>() {
            let waiting = self.stop_waiting(id).expect("it was just found");
            self.go_on(now, id, waiting.deadline, waiting.task);
        }
    }

    /// A request is answered with what is known, as nothing better will come.
    fn give_up(&mut self, id: RequestId, task: &Task) {
        let response = match task {
            Task::Metadata(job) => job.reply(&self.view),
            Task::ProducerId => producer_ids::late(),
            Task::Admin(admin) => {
                let message = "the controller did not answer in time; it may have been done";
                admin.refuse_all(ErrorCode::RequestTimedOut, message)
            }
        };
        self.answer(id, response);
    }

    // The controller.

    fn followed(&mut self, now: Now, followed: &Followed, ops: &mut OpQueue) {
        for change in &followed.changes {
            self.changed(change, ops);
        }
        if followed.caught_up && !self.groups_told && self.is_on_first_shard() {
            self.tell_groups(ops);
        }
        if followed.advanced {
            self.wake(now);
        }
    }

    fn changed(&mut self, change: &Change, ops: &mut OpQueue) {
        if let Change::TopicDeleted(topic) = change {
            for place in topic.partitions() {
                self.view.forget(place.group);
            }
        }
        if !self.groups_told {
            return;
        }
        let own = self.view.own_address().node;
        match change {
            Change::TopicCreated(name) => self.create_groups(name.as_str(), ops),
            Change::TopicDeleted(topic) => {
                let specs = topic
                    .group_specs()
                    .filter(|spec| spec.replicas.contains(&own));
                specs.for_each(|spec| ops.command(GroupCommand::Drop(spec.group)));
            }
            Change::ConfigsChanged(name) => self.configure_groups(name.as_str(), ops),
            Change::Node(_) | Change::ProducerIds(_) => {}
        }
    }

    fn create_groups(&self, topic: &str, ops: &mut OpQueue) {
        let own = self.view.own_address().node;
        let topic = self.view.state.topic(topic).into_iter();
        let specs = topic.flat_map(|topic| topic.group_specs());
        for spec in specs.filter(|spec| spec.replicas.contains(&own)) {
            ops.command(GroupCommand::Create(spec));
        }
    }

    fn configure_groups(&self, topic: &str, ops: &mut OpQueue) {
        let own = self.view.own_address().node;
        let topic = self.view.state.topic(topic).into_iter();
        let specs = topic.flat_map(|topic| topic.group_specs());
        for spec in specs.filter(|spec| spec.replicas.contains(&own)) {
            let (group, config) = (spec.group, spec.config);
            ops.command(GroupCommand::Configure { group, config });
        }
    }

    /// Tells which groups there are, after a start or a restored state: those that are new or
    /// were deleted meanwhile are not told one by one.
    fn tell_groups(&mut self, ops: &mut OpQueue) {
        if self.view.state.applied() == LogIndex::ZERO {
            return;
        }
        self.groups_told = true;
        ops.command(GroupCommand::Retain {
            below: self.view.state.next_group(),
            live: self.view.state.groups().collect(),
        });
        for topic in self.view.state.topics() {
            self.create_groups(topic.name().as_str(), ops);
            self.configure_groups(topic.name().as_str(), ops);
        }
    }

    /// Moves questions and decisions on as far as they go.
    fn drive(&mut self, now: Now, ops: &mut OpQueue) {
        if self.failed {
            return;
        }
        loop {
            self.ask_for_own(now);
            let outputs = self.asks.step(
                now.monotonic,
                self.view.state.applied(),
                self.view.own_address(),
                self.view.controller_address(),
            );
            let mut idle = outputs.is_empty();
            for output in outputs {
                self.handle_ask_output(now, output);
            }
            self.lead
                .step(now.monotonic, &self.view.state, &self.follower, ops);
            while let Some((origin, outcome)) = self.lead.poll_answer() {
                idle = false;
                match origin {
                    Origin::Local(id) => self.asks.handle_answer(now.monotonic, id, outcome),
                    Origin::Remote(to, id) => self.send(to, &Message::Answer { id, outcome }),
                }
            }
            if idle {
                return;
            }
        }
    }

    /// Asks for what the desk itself needs.
    fn ask_for_own(&mut self, now: Now) {
        let deadline = now.monotonic + ASK_AGAIN_AFTER;
        if self.is_on_first_shard() && self.registration.is_none() && !self.view.is_current() {
            let what = What::Register(self.view.config.registration.clone());
            let repeat = Repeat::Harmless;
            self.registration = self.asks.ask(now.monotonic, what, repeat, deadline);
        }
        if self.producer_ids.wanted && self.refill.is_none() {
            // Ids that are given out twice over are lost; there are enough of them.
            let (what, repeat) = (What::ProducerIds, Repeat::Harmless);
            self.refill = self.asks.ask(now.monotonic, what, repeat, deadline);
        }
    }

    fn handle_ask_output(&mut self, now: Now, output: AskOutput) {
        match output {
            AskOutput::Send(to, message) => self.send(to, &message),
            AskOutput::Local(id, what) => {
                let own = self.view.own_address().node;
                self.lead.ask(now.monotonic, Origin::Local(id), own, what);
            }
            AskOutput::Answered(id, payload) => self.answered(now, id, Some(&payload)),
            AskOutput::TimedOut(id) => self.answered(now, id, None),
        }
    }

    fn answered(&mut self, now: Now, id: AskId, answer: Option<&Buffer>) {
        if self.registration == Some(id) {
            self.registration = None;
            if let Some(refusal) = answer.filter(|refusal| !refusal.is_empty()) {
                self.fail(String::from_utf8_lossy(refusal).into_owned());
            }
        } else if self.refill == Some(id) {
            self.refill = None;
            if let Some(block) = answer {
                self.producer_ids.refill(block);
                self.wake(now);
            }
        } else if let Some(request) = self.askers.remove(&id) {
            self.answered_request(request, answer);
        }
    }

    fn answered_request(&mut self, id: RequestId, answer: Option<&Buffer>) {
        let Some(mut waiting) = self.stop_waiting(id) else {
            return;
        };
        match (&mut waiting.task, answer) {
            (Task::Metadata(job), answer) => {
                let response = job.created(answer, &self.view);
                self.answer(id, response);
            }
            (Task::Admin(admin), Some(frame)) => match admin.response(frame) {
                Ok(response) => self.answer(id, response),
                Err(error) => {
                    tracing::warn!(%error, "the controller's answer cannot be read");
                    self.give_up(id, &waiting.task);
                }
            },
            _ => self.give_up(id, &waiting.task),
        }
    }

    fn send(&mut self, to: ServiceAddress, message: &Message) {
        let message = message.encode();
        self.outputs
            .push_back(ClusterOutput::Message { to, message });
    }

    fn fail(&mut self, reason: String) {
        self.failed = true;
        self.outputs.push_back(ClusterOutput::Failed { reason });
    }
}

impl Directory for Desk {
    fn partition(&self, topic: &str, index: i32) -> Result<PartitionRef<'_>, ErrorCode> {
        let topic = self.view.topic(topic)?;
        let place = topic.partition(index);
        let place = place.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        Ok(PartitionRef {
            group: place.group,
            configs: topic.configs(),
        })
    }
}

impl Cluster for Desk {
    fn handle_start(&mut self, now: Now, ops: &mut OpQueue) {
        self.follower.read(&self.view.state, ops);
        self.drive(now, ops);
    }

    fn handle_request(
        &mut self,
        now: Now,
        id: RequestId,
        header: &RequestHeader,
        request: Request<Buffer>,
        ops: &mut OpQueue,
    ) {
        self.begin(now, id, header, request);
        self.drive(now, ops);
    }

    fn handle_forgotten(&mut self, id: RequestId) {
        self.stop_waiting(id);
        self.askers.retain(|_, request| *request != id);
    }

    fn handle_done(&mut self, now: Now, id: OpId, result: OpResult, ops: &mut OpQueue) {
        if self.failed {
            return;
        }
        if self.lead.has_asked(id) {
            self.lead.handle_done(result);
        } else if self.follower.has_asked(id) {
            let state = &mut self.view.state;
            match self.follower.handle_done(now, result, state, ops) {
                Ok(followed) => self.followed(now, &followed, ops),
                Err(error) => self.fail(error.to_string()),
            }
        }
        self.drive(now, ops);
    }

    fn poll_output(&mut self) -> Option<ClusterOutput> {
        self.outputs.pop_front()
    }

    fn handle_leader(&mut self, _now: Now, hint: LeaderHint) {
        self.view.handle_leader(hint);
    }

    fn handle_peer(&mut self, now: Now, node: NodeId, reachable: bool) {
        self.view.handle_peer(node, reachable);
        if !reachable {
            self.asks.handle_unreachable(now.monotonic, node);
        }
    }

    fn handle_message(
        &mut self,
        now: Now,
        from: ServiceAddress,
        message: Buffer,
        ops: &mut OpQueue,
    ) {
        match Message::decode(&message) {
            Ok(Message::Ask { id, what }) => {
                let origin = Origin::Remote(from, id);
                self.lead.ask(now.monotonic, origin, from.node, what);
            }
            Ok(Message::Answer { id, outcome }) => {
                self.asks.handle_answer(now.monotonic, AskId(id), outcome);
            }
            Err(error) => tracing::warn!(?from, %error, "a message between services is dropped"),
        }
        self.drive(now, ops);
    }

    fn handle_restored(
        &mut self,
        now: Now,
        group: GroupId,
        at: LogIndex,
        state: Buffer,
        ops: &mut OpQueue,
    ) {
        if group != CONTROLLER || at <= self.view.state.applied() {
            return;
        }
        match Controller::decode(&state) {
            Ok(state) => {
                self.view.state = state;
                self.restored = at;
                self.groups_told = false;
                self.wake(now);
            }
            Err(error) => self.fail(error.to_string()),
        }
        self.drive(now, ops);
    }

    fn snapshot(&self, group: GroupId) -> Option<(LogIndex, Vec<u8>)> {
        (group == CONTROLLER && self.is_on_first_shard())
            .then(|| (self.view.state.applied(), self.view.state.encode()))
    }

    fn handle_timeout(&mut self, now: Now, ops: &mut OpQueue) {
        let due = self.follower.next_timeout();
        if due.is_some_and(|due| due <= now.monotonic) {
            self.follower.read(&self.view.state, ops);
        }
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now.monotonic
        {
            let waiting = self
                .stop_waiting(id)
                .expect("deadlines are of those who wait");
            self.askers.retain(|_, request| *request != id);
            self.give_up(id, &waiting.task);
        }
        self.drive(now, ops);
    }

    fn next_timeout(&self) -> Option<Duration> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let others = [
            self.follower.next_timeout(),
            self.asks.next_timeout(),
            self.lead.next_timeout(),
        ];
        others.into_iter().flatten().chain(deadline).min()
    }
}
