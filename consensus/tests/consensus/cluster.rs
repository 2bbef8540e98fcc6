//! A group whose network and disks do as they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater_consensus::{
    AppendOutcome, BeatException, BeatRound, BeatRow, Config, EntryId, EntryKind, EntryMeta, Lane,
    LogIndex, Membership, Message, MessageError, NodeId, Output, ProposeError, ProposedEntry,
    Quarantine, Raft, ReadId, Restored, RoleKind, Session, Term, invariants,
};

use crate::suite::image::{Disk, Image, Op, Stored};
use crate::suite::oracle::Oracle;

pub(crate) fn node(n: u32) -> NodeId {
    NodeId(n)
}

pub(crate) fn term(n: u32) -> Term {
    Term::new(n).unwrap()
}

pub(crate) fn index(n: u64) -> LogIndex {
    LogIndex(n)
}

pub(crate) fn id(t: u32, i: u64) -> EntryId {
    EntryId {
        index: index(i),
        term: term(t),
    }
}

/// Entries of these terms from `first` on.
pub(crate) fn entries(first: u64, terms: &[u32]) -> Vec<EntryMeta> {
    let entry = |(&t, i): (&u32, u64)| EntryMeta {
        id: id(t, i),
        kind: EntryKind::Data,
        size: 100,
    };
    terms.iter().zip(first..).map(entry).collect()
}

/// Something on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) session: Session,
    pub(crate) lane: Lane,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Message(Message, Vec<Stored>),
    Beat(BeatRound, BeatRow),
    BeatAck(BeatRound, Option<BeatException>),
}

/// A node, running or not.
pub(crate) struct Member {
    pub(crate) raft: Option<Raft>,
    config: Config,
    lives: u64,
    /// Bodies of the message that is being handled.
    incoming: Vec<Stored>,
    /// Bodies of proposals.
    proposed: BTreeMap<LogIndex, u64>,
    /// Its disk syncs only when told.
    pub(crate) is_held: bool,
    /// Chunks that its driver has been asked to read.
    reading: Vec<(NodeId, Session, LogIndex, u64)>,
    /// Its log was unreadable to the end, and it has not rejoined: its driver remembers.
    pub(crate) must_rejoin: bool,
    pub(crate) answered: Vec<(ReadId, LogIndex)>,
    pub(crate) failed: Vec<ReadId>,
}

/// A group of members.
pub(crate) struct Cluster {
    pub(crate) now: Duration,
    pub(crate) members: BTreeMap<NodeId, Member>,
    pub(crate) disks: BTreeMap<NodeId, Disk>,
    pub(crate) packets: Vec<Packet>,
    /// Directions in which everything is lost.
    pub(crate) lost: BTreeSet<(NodeId, NodeId)>,
    pub(crate) sessions: BTreeMap<(NodeId, NodeId), Session>,
    pub(crate) oracle: Oracle,
    pub(crate) errors: Vec<MessageError>,
    /// What was put out, in words, if wanted.
    pub(crate) trace: Option<Vec<String>>,
    /// How often what happened.
    pub(crate) seen: BTreeMap<&'static str, u64>,
    pub(crate) membership: Membership,
    seed: u64,
    numbers: u64,
    next_beat: Duration,
}

/// Making one.
impl Cluster {
    /// Voters 1 to `size`, with empty disks, all connected.
    pub(crate) fn new(size: u32) -> Cluster {
        Cluster::with_seed(size, 1)
    }

    pub(crate) fn with_seed(size: u32, seed: u64) -> Cluster {
        let membership = Membership::of_voters((1..=size).map(NodeId));
        Cluster::build(membership, seed, |_| {}, |_| Image::default())
    }

    /// Voters whose logs have entries of these terms, all durable.
    pub(crate) fn with_logs(logs: &[&[u32]]) -> Cluster {
        Cluster::with_images(logs, |image| {
            image.term = image.last().term;
        })
    }

    /// As [`Cluster::with_logs`], all in `current` term.
    pub(crate) fn with_logs_in_term(logs: &[&[u32]], current: u32) -> Cluster {
        Cluster::with_images(logs, |image| image.term = term(current))
    }

    fn with_images(logs: &[&[u32]], finish: impl Fn(&mut Image)) -> Cluster {
        let membership = Membership::of_voters((1..=logs.len() as u32).map(NodeId));
        Cluster::build(
            membership,
            1,
            |_| {},
            |n| {
                let mut image = Image::default();
                for meta in entries(1, logs[n.0 as usize - 1]) {
                    // A body that follows from the identity: equal entries have equal ones.
                    let body = 1_000_000 * u64::from(meta.id.term.get()) + meta.id.index.0;
                    image.entries.push(Stored { meta, body });
                }
                finish(&mut image);
                image
            },
        )
    }

    pub(crate) fn build(
        membership: Membership,
        seed: u64,
        configure: impl Fn(&mut Config),
        image: impl Fn(NodeId) -> Image,
    ) -> Cluster {
        let mut cluster = Cluster {
            now: Duration::from_secs(1),
            members: BTreeMap::new(),
            disks: BTreeMap::new(),
            packets: Vec::new(),
            lost: BTreeSet::new(),
            sessions: BTreeMap::new(),
            oracle: Oracle::default(),
            errors: Vec::new(),
            trace: None,
            seen: BTreeMap::new(),
            membership: membership.clone(),
            seed,
            numbers: 0,
            next_beat: Duration::ZERO,
        };
        for n in membership.members() {
            let mut config = Config::new(n, membership.clone());
            configure(&mut config);
            let image = image(n);
            let disk = Disk {
                memory: image.clone(),
                durable: image,
                ..Disk::default()
            };
            cluster.disks.insert(n, disk);
            cluster.members.insert(n, Member::stopped(config));
            cluster.start(n, Quarantine::None);
        }
        cluster
    }
}

impl Member {
    fn stopped(config: Config) -> Member {
        Member {
            raft: None,
            config,
            lives: 0,
            incoming: Vec::new(),
            proposed: BTreeMap::new(),
            is_held: false,
            reading: Vec::new(),
            must_rejoin: false,
            answered: Vec::new(),
            failed: Vec::new(),
        }
    }
}

/// Lives and links.
impl Cluster {
    pub(crate) fn restart(&mut self, n: u32) {
        self.start(node(n), Quarantine::None);
    }

    pub(crate) fn start(&mut self, n: NodeId, quarantine: Quarantine) {
        let restored = self.disks[&n].durable.restored(quarantine);
        self.start_from(n, restored);
    }

    /// Starts a node whose disk has lost its promises: all, and that it ever made any.
    pub(crate) fn start_without_promises(&mut self, n: u32) {
        let n = node(n);
        let image = &mut self.disks.get_mut(&n).unwrap().durable;
        image.term = Term::ZERO;
        image.vote = None;
        let restored = Restored {
            promises_lost: true,
            ..image.restored(Quarantine::None)
        };
        self.start_from(n, restored);
    }

    fn start_from(&mut self, n: NodeId, restored: Restored) {
        let member = self.members.get_mut(&n).unwrap();
        assert!(member.raft.is_none(), "it runs");
        member.lives += 1;
        member.must_rejoin = matches!(restored.quarantine, Quarantine::ToEnd { .. });
        let seed = self.seed * 1_000_003 + u64::from(n.0) * 1_009 + member.lives;
        let raft = Raft::new(member.config.clone(), restored, seed, self.now).unwrap();
        member.raft = Some(raft);
        self.take_outputs(n);
        for peer in self.running() {
            if peer != n {
                self.connect(n, peer);
            }
        }
    }

    /// Ends the node's life; what was not durable is lost.
    pub(crate) fn crash(&mut self, n: u32) {
        let n = node(n);
        for peer in self.running() {
            self.disconnect(n, peer);
        }
        let member = self.members.get_mut(&n).unwrap();
        member.raft = None;
        member.proposed.clear();
        member.reading.clear();
        self.disks.get_mut(&n).unwrap().crash();
        self.oracle.crashed(n);
    }

    pub(crate) fn running(&self) -> Vec<NodeId> {
        let running = self.members.iter().filter(|(_, m)| m.raft.is_some());
        running.map(|(n, _)| *n).collect()
    }

    /// A new session between the two.
    pub(crate) fn connect(&mut self, a: NodeId, b: NodeId) {
        let session = Session(self.number());
        for (one, other) in [(a, b), (b, a)] {
            self.sessions.insert((one, other), session);
            let now = self.now;
            self.raft_mut(one).handle_peer_up(now, other, session);
            self.take_outputs(one);
        }
    }

    pub(crate) fn disconnect(&mut self, a: NodeId, b: NodeId) {
        for (one, other) in [(a, b), (b, a)] {
            let Some(session) = self.sessions.remove(&(one, other)) else {
                continue;
            };
            let now = self.now;
            self.raft_mut(one).handle_peer_down(now, other, session);
            self.take_outputs(one);
        }
    }

    /// Everything between `n` and the others is lost, silently.
    pub(crate) fn isolate(&mut self, n: u32) {
        for peer in self.members.keys().copied().filter(|&p| p != node(n)) {
            self.lost.insert((node(n), peer));
            self.lost.insert((peer, node(n)));
        }
    }

    /// Nothing is lost any more; links begin new sessions, as they would after such silence.
    pub(crate) fn heal(&mut self) {
        let cut: Vec<(NodeId, NodeId)> = std::mem::take(&mut self.lost).into_iter().collect();
        for (a, b) in cut {
            let both_run = self.members[&a].raft.is_some() && self.members[&b].raft.is_some();
            if a < b && both_run {
                self.disconnect(a, b);
                self.connect(a, b);
            }
        }
    }
}

/// Calls.
impl Cluster {
    pub(crate) fn raft(&self, n: u32) -> &Raft {
        self.members[&node(n)].raft.as_ref().unwrap()
    }

    pub(crate) fn raft_mut(&mut self, n: NodeId) -> &mut Raft {
        self.members.get_mut(&n).unwrap().raft.as_mut().unwrap()
    }

    pub(crate) fn call<T>(&mut self, n: u32, call: impl FnOnce(&mut Raft, Duration) -> T) -> T {
        let now = self.now;
        let result = call(self.raft_mut(node(n)), now);
        self.take_outputs(node(n));
        result
    }

    pub(crate) fn campaign(&mut self, n: u32) {
        self.call(n, |raft, now| raft.campaign(now));
    }

    pub(crate) fn propose(&mut self, n: u32) -> Result<EntryId, ProposeError> {
        self.propose_sized(n, &[100])
    }

    pub(crate) fn propose_sized(&mut self, n: u32, sizes: &[u32]) -> Result<EntryId, ProposeError> {
        let proposal: Vec<ProposedEntry> = sizes
            .iter()
            .map(|&size| ProposedEntry {
                kind: EntryKind::Data,
                size,
            })
            .collect();
        let first = self.raft_mut(node(n)).propose(&proposal)?;
        for at in 0..sizes.len() as u64 {
            let body = self.number();
            let member = self.members.get_mut(&node(n)).unwrap();
            member.proposed.insert(first.index.plus(at), body);
        }
        self.take_outputs(node(n));
        Ok(first)
    }

    pub(crate) fn read(&mut self, n: u32) -> Option<ReadId> {
        let read = self.raft_mut(node(n)).read_index().ok()?;
        self.oracle.read_begins(node(n), read);
        self.take_outputs(node(n));
        Some(read)
    }

    /// Sends the beats of `n`, if it leads.
    pub(crate) fn beat(&mut self, n: NodeId) {
        let round = BeatRound(self.number());
        let peers: Vec<(NodeId, Session)> = self
            .sessions
            .iter()
            .filter(|((from, _), _)| *from == n)
            .map(|((_, to), session)| (*to, *session))
            .collect();
        for (to, session) in peers {
            if let Some(row) = self.raft_mut(n).beat_row(to, round) {
                self.post(Packet {
                    from: n,
                    to,
                    session,
                    lane: Lane::Control,
                    content: Content::Beat(round, row),
                });
            }
        }
    }

    /// A message as if `from` had sent it, at once.
    pub(crate) fn inject(
        &mut self,
        from: u32,
        to: u32,
        message: Message,
    ) -> Result<(), MessageError> {
        let session = self.sessions[&(node(from), node(to))];
        let stored = match &message {
            Message::Append { entries, .. } => entries
                .iter()
                .map(|&meta| Stored {
                    meta,
                    body: 1_000_000 * u64::from(meta.id.term.get()) + meta.id.index.0,
                })
                .collect(),
            _ => Vec::new(),
        };
        self.members.get_mut(&node(to)).unwrap().incoming = stored;
        self.call(to, |raft, now| {
            raft.handle_message(now, node(from), session, message)
        })
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

/// The driver.
impl Cluster {
    pub(crate) fn take_outputs(&mut self, n: NodeId) {
        while let Some(output) = self.raft_mut(n).poll_output() {
            if let Some(trace) = &mut self.trace {
                trace.push(crate::suite::words::output(n, &output));
            }
            self.obey(n, output);
        }
        self.members.get_mut(&n).unwrap().incoming.clear();
        invariants::check(self.members[&n].raft.as_ref().unwrap());
    }

    fn obey(&mut self, n: NodeId, output: Output) {
        if let Some(event) = event(&output) {
            *self.seen.entry(event).or_insert(0) += 1;
        }
        match output {
            Output::HardState { write, term, vote } => {
                self.disk(n).write(write, Op::HardState(term, vote));
            }
            Output::Append { write, entries } => {
                let stored = entries.iter().map(|meta| self.body_of(n, *meta)).collect();
                self.disk(n).write(write, Op::Append(stored));
            }
            Output::Cut { write, first } => self.disk(n).write(write, Op::Cut(first)),
            Output::Base { write, before } => self.disk(n).write(write, Op::Base(before)),
            Output::Send {
                to,
                session,
                lane,
                message,
            } => {
                self.check_promise(n, to, &message);
                let bodies = self.bodies_of(n, &message);
                let content = Content::Message(message, bodies);
                self.post(Packet {
                    from: n,
                    to,
                    session,
                    lane,
                    content,
                });
            }
            Output::Committed { index } => {
                let log = &self.disks[&n].memory;
                let (membership, disks) = (&self.membership, &self.disks);
                self.oracle
                    .reported_committed(n, index, log, membership, disks);
            }
            Output::ReadReady { read, index } => {
                self.oracle.read_answered(n, read, index);
                self.members
                    .get_mut(&n)
                    .unwrap()
                    .answered
                    .push((read, index));
            }
            Output::ReadFailed { read } => {
                self.oracle.read_failed(n, read);
                self.members.get_mut(&n).unwrap().failed.push(read);
            }
            Output::RoleChanged { term, role, .. } => {
                if role == RoleKind::Leader {
                    let log = &self.disks[&n].memory;
                    self.oracle.leader_elected(term, n, log);
                }
            }
            Output::CatchUp {
                to,
                session,
                next,
                max_bytes,
            } => {
                let member = self.members.get_mut(&n).unwrap();
                member.reading.push((to, session, next, max_bytes));
            }
            Output::BeatWanted => self.beat(n),
            Output::QuarantineEnded => self.members.get_mut(&n).unwrap().must_rejoin = false,
            Output::TransferEnded { .. } => {}
        }
    }

    fn disk(&mut self, n: NodeId) -> &mut Disk {
        self.disks.get_mut(&n).unwrap()
    }

    fn body_of(&mut self, n: NodeId, meta: EntryMeta) -> Stored {
        let member = self.members.get_mut(&n).unwrap();
        if let Some(stored) = member.incoming.iter().find(|s| s.meta == meta) {
            return *stored;
        }
        let proposed = member.proposed.remove(&meta.id.index);
        let body = match meta.kind {
            EntryKind::Noop => 1_000_000_000 + u64::from(meta.id.term.get()),
            _ => proposed.expect("an append of what nobody has handed in"),
        };
        Stored { meta, body }
    }

    fn bodies_of(&self, n: NodeId, message: &Message) -> Vec<Stored> {
        let Message::Append { entries, .. } = message else {
            return Vec::new();
        };
        let log = &self.disks[&n].memory;
        let body = |meta: &EntryMeta| {
            let stored = *log.get(meta.id.index).expect("it sends what it has");
            assert_eq!(stored.meta, *meta);
            assert!(log.has(meta.id), "it sends what it cannot read");
            stored
        };
        entries.iter().map(body).collect()
    }

    /// What leaves a node must be covered by its disk (RULES.md, section 5.2).
    fn check_promise(&self, n: NodeId, to: NodeId, message: &Message) {
        let durable = &self.disks[&n].durable;
        match *message {
            Message::Vote { term, .. } => {
                assert_eq!((durable.term, durable.vote), (term, Some(n)), "P03");
            }
            Message::VoteReply {
                term,
                granted: true,
            } => assert_eq!((durable.term, durable.vote), (term, Some(to)), "P03"),
            Message::AppendReply {
                outcome: AppendOutcome::Accepted { promised, .. },
                ..
            } if promised > LogIndex::ZERO => {
                assert!(durable.last().index >= promised, "P20: ack before sync");
                let memory = &self.disks[&n].memory;
                assert_eq!(durable.get(promised), memory.get(promised), "P23");
            }
            _ => {}
        }
    }

    fn post(&mut self, packet: Packet) {
        if !self.lost.contains(&(packet.from, packet.to)) {
            self.packets.push(packet);
        }
    }

    /// Delivers a packet.
    pub(crate) fn deliver(&mut self, packet: Packet) {
        let Packet {
            from,
            to,
            session,
            lane,
            content,
        } = packet;
        let now = self.now;
        let Some(member) = self.members.get_mut(&to).filter(|m| m.raft.is_some()) else {
            return;
        };
        match content {
            Content::Message(message, bodies) => {
                member.incoming = bodies;
                let raft = member.raft.as_mut().unwrap();
                if let Err(error) = raft.handle_message(now, from, session, message) {
                    self.errors.push(error);
                }
            }
            Content::Beat(round, row) => {
                let raft = member.raft.as_mut().unwrap();
                let stood = raft.stands(from, session, row).then(|| raft.observe());
                let exception = raft.handle_beat(now, from, session, row);
                if let Some(before) = stood {
                    assert_eq!(exception, None, "a row that stands is confirmed");
                    assert_eq!(raft.observe(), before, "a row that stands changes nothing");
                    assert!(!raft.has_output(), "nor has anybody to do anything");
                }
                self.post(Packet {
                    from: to,
                    to: from,
                    session,
                    lane,
                    content: Content::BeatAck(round, exception),
                });
            }
            Content::BeatAck(round, exception) => {
                let raft = member.raft.as_mut().unwrap();
                let stood = exception.is_none() && raft.standing_row(from).is_some();
                let before = stood.then(|| raft.observe());
                raft.handle_beat_ack(now, from, session, round, exception);
                if let Some(before) = before {
                    assert_eq!(raft.observe(), before, "nor does its confirmation");
                    assert!(!raft.has_output(), "nor has anybody to do anything");
                }
            }
        }
        self.take_outputs(to);
    }

    /// Makes the oldest write of `n` durable and says so.
    pub(crate) fn sync_one(&mut self, n: NodeId) -> bool {
        let Some(write) = self.disk(n).sync_one() else {
            return false;
        };
        let now = self.now;
        self.raft_mut(n).handle_persisted(now, write);
        self.take_outputs(n);
        true
    }

    /// Hands over the oldest chunk that `n` was asked to read.
    pub(crate) fn read_chunk(&mut self, n: NodeId) -> bool {
        let member = self.members.get_mut(&n).unwrap();
        if member.reading.is_empty() {
            return false;
        }
        let (to, session, next, max_bytes) = member.reading.remove(0);
        let mut bytes = 0;
        let log = &self.disks[&n].memory;
        let chunk: Vec<EntryMeta> = log
            .entries
            .iter()
            .map(|stored| stored.meta)
            .skip_while(|meta| meta.id.index < next)
            .take_while(|meta| log.has(meta.id))
            .take_while(|meta| {
                bytes += u64::from(meta.size);
                bytes <= max_bytes || meta.id.index == next
            })
            .collect();
        // The log may start later by now.
        let is_there = chunk.first().is_some_and(|meta| meta.id.index == next);
        let chunk = if is_there { chunk } else { Vec::new() };
        self.raft_mut(n).handle_chunk(to, session, &chunk);
        self.take_outputs(n);
        true
    }
}

/// What is worth counting.
fn event(output: &Output) -> Option<&'static str> {
    match output {
        Output::Committed { .. } => Some("commit"),
        Output::Cut { .. } => Some("cut"),
        Output::Base { .. } => Some("base"),
        Output::CatchUp { .. } => Some("catch-up"),
        Output::ReadReady { .. } => Some("read"),
        Output::QuarantineEnded => Some("quarantine ended"),
        Output::RoleChanged {
            role: RoleKind::Leader,
            ..
        } => Some("leader"),
        Output::Send { message, .. } => match message {
            Message::AppendReply { outcome, .. } => match outcome {
                AppendOutcome::Conflict { .. } => Some("conflict"),
                AppendOutcome::Busy { .. } => Some("busy"),
                _ => None,
            },
            Message::TimeoutNow { .. } => Some("transfer"),
            _ => None,
        },
        _ => None,
    }
}

/// Letting it run.
impl Cluster {
    /// Delivers the oldest packet from `from` to `to`.
    pub(crate) fn deliver_one(&mut self, from: u32, to: u32) -> bool {
        let is_it = |p: &Packet| p.from == node(from) && p.to == node(to);
        let Some(at) = self.packets.iter().position(is_it) else {
            return false;
        };
        let packet = self.packets.remove(at);
        self.deliver(packet);
        true
    }

    /// Takes all packets from `from` to `to` off the network.
    pub(crate) fn take_packets(&mut self, from: u32, to: u32) -> Vec<Packet> {
        let packets = std::mem::take(&mut self.packets);
        let is_it = |p: &Packet| p.from == node(from) && p.to == node(to);
        let (taken, kept) = packets.into_iter().partition(is_it);
        self.packets = kept;
        taken
    }

    /// Lets the disk of `n` sync only when told, or again by itself.
    pub(crate) fn hold(&mut self, n: u32, is_held: bool) {
        self.members.get_mut(&node(n)).unwrap().is_held = is_held;
    }

    /// Time passes without a beat, so that nobody hears a leader any more.
    pub(crate) fn fall_silent(&mut self) {
        self.now += Duration::from_secs(2);
    }

    /// How often `event` has happened.
    pub(crate) fn count(&self, event: &str) -> u64 {
        self.seen.get(event).copied().unwrap_or(0)
    }

    /// Delivers and syncs everything, but on held disks, until nothing moves.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step() {
                self.oracle.check_logs(&self.disks);
                return;
            }
        }
        let running = self.running().into_iter();
        let states: Vec<_> = running.map(|n| self.raft(n.0).observe()).collect();
        panic!("it never comes to rest: {:?} {states:#?}", self.packets);
    }

    /// Delivers and syncs until `n` leads, and no further.
    pub(crate) fn settle_until_leader(&mut self, n: u32) {
        while self.raft(n).role() != RoleKind::Leader {
            assert!(self.step(), "n{n} is not elected");
        }
    }

    fn step(&mut self) -> bool {
        // The bulk lane is the slowest: whatever can overtake it does.
        let is_quick = |p: &Packet| p.lane != Lane::Bulk;
        if !self.packets.is_empty() {
            let at = self.packets.iter().position(is_quick).unwrap_or(0);
            let packet = self.packets.remove(at);
            self.deliver(packet);
            return true;
        }
        for n in self.running() {
            let may_sync = !self.members[&n].is_held;
            if self.read_chunk(n) || (may_sync && self.sync_one(n)) {
                return true;
            }
        }
        false
    }

    /// Proposes, and lets one thing happen.
    pub(crate) fn propose_between_steps(&mut self, n: u32) {
        let _ = self.propose(n);
        self.step();
    }

    /// Lets time pass, with beats every 150 ms and timeouts when they are due.
    pub(crate) fn run_for(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while self.now < end {
            self.now += Duration::from_millis(25);
            self.beats_and_timeouts();
            self.settle();
        }
    }

    pub(crate) fn beats_and_timeouts(&mut self) {
        let is_beat = self.now >= self.next_beat;
        if is_beat {
            self.next_beat = self.now + Duration::from_millis(150);
        }
        for n in self.running() {
            if is_beat {
                self.beat(n);
            }
            let now = self.now;
            if self.raft_mut(n).next_timeout().is_some_and(|at| at <= now) {
                self.raft_mut(n).handle_timeout(now);
                let next = self.raft_mut(n).next_timeout();
                assert!(
                    next.is_none_or(|next| next > now),
                    "a timer that does not move"
                );
            }
            self.take_outputs(n);
        }
    }

    /// Elects `n` and commits its no-op everywhere.
    pub(crate) fn elect(&mut self, n: u32) {
        self.campaign(n);
        self.settle();
        assert_eq!(
            self.raft(n).role(),
            RoleKind::Leader,
            "n{n} was not elected"
        );
        self.beat(node(n));
        self.settle();
    }

    /// The leader of the highest term.
    pub(crate) fn leader(&self) -> Option<u32> {
        let leads = |n: &NodeId| self.raft(n.0).role() == RoleKind::Leader;
        let leaders = self.running().into_iter().filter(leads);
        leaders.max_by_key(|n| self.raft(n.0).term()).map(|n| n.0)
    }

    pub(crate) fn messages(&self, from: u32, to: u32) -> Vec<Message> {
        let of = |p: &Packet| match &p.content {
            Content::Message(message, _) if (p.from, p.to) == (node(from), node(to)) => {
                Some(message.clone())
            }
            _ => None,
        };
        self.packets.iter().filter_map(of).collect()
    }

    pub(crate) fn log(&self, n: u32) -> Vec<u32> {
        self.disks[&node(n)].memory.terms()
    }

    pub(crate) fn commit(&self, n: u32) -> u64 {
        self.raft(n).commit_index().0
    }
}
