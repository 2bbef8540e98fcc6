//! Clients, their connections, and what is asked of replicas past them.

use std::time::Duration;

use bytes::Bytes;
use highwater_record::{Compression, Offset};

use super::super::client::{
    Admin, Client, Consumer, Load, Manner, Producer, Scene, Wish, number_of,
};
use super::super::history::Partition;
use super::super::oracle::{Violation, demand};
use super::{Asker, EPOCH_MS, Event, Place, World};
use crate::{
    ConnId, Fetch, GroupId, Input, NodeId, Op, OpError, OpResult, Outcome, ReadFrom, ShardId,
    Ticket,
};

/// How long a client that has nothing to ask waits until it looks again.
const IDLE: Duration = Duration::from_millis(500);

/// How long a request or an answer takes at most.
const CLIENT_DELAY_MAX: Duration = Duration::from_millis(2);

/// How long a flood's connection stays at most.
const FLOOD_MAX: Duration = Duration::from_secs(2);

/// A client, and where it sits.
pub(super) struct Seated {
    pub(super) client: Client,
    /// Which of its requests is the last one; what concerns earlier ones is over.
    turn: u64,
    /// Its connection, while it waits for answers.
    conn: Option<(Place, ConnId)>,
    /// How many it waits for.
    asked: usize,
    /// Those that have come.
    answers: Vec<Bytes>,
}

/// A connection whose client waits for answers.
#[derive(Debug)]
pub(super) struct Connection {
    index: usize,
    turn: u64,
    /// How many answers are still to come.
    left: usize,
    /// When the last one arrives at the client.
    answered: Duration,
}

impl Seated {
    /// Another answer: to the request that is next (KIP-98 builds on it: a connection is
    /// answered in order).
    fn take(&mut self, answer: Bytes) -> Result<(), Violation> {
        let number = number_of(&answer);
        demand(
            number == Some(self.answers.len()),
            "answers come in order",
            || format!("{number:?} for {}", self.answers.len()),
        )?;
        self.answers.push(answer);
        Ok(())
    }
}

impl World {
    pub(super) fn seat_clients(&mut self) {
        let plan = &self.plan;
        if plan.topics.is_empty() {
            return;
        }
        let admin = Admin::new(&plan.topics, plan.segment_bytes, plan.churn);
        let mut clients = vec![Client::Admin(admin)];
        let partitions: Vec<Partition> = plan
            .topics
            .iter()
            .flat_map(|topic| (0..topic.partitions).map(|index| Partition::new(&topic.name, index)))
            .collect();
        let kinds = [
            Compression::None,
            Compression::Lz4,
            Compression::Zstd,
            Compression::Snappy,
            Compression::Gzip,
        ];
        let mut process = 100;
        let mut any = |rng: &mut fastrand::Rng| {
            process += 1;
            (process, partitions[rng.usize(..partitions.len())].clone())
        };
        let rng = &mut self.client_rng;
        let passing = u32::from(plan.churn);
        let manners = [
            (Manner::Idempotent, plan.producers),
            (Manner::Pipelined, plan.pipelined_producers),
            (Manner::Plain, plan.plain_producers),
            (Manner::Passing, passing),
        ];
        for (manner, count) in manners {
            for _ in 0..count {
                let (process, partition) = any(rng);
                let kind = if rng.bool() {
                    0
                } else {
                    rng.usize(..kinds.len())
                };
                let load = Load {
                    value_bytes_max: plan.value_bytes_max,
                    batch_records_max: plan.batch_records_max,
                };
                let producer = Producer::new(process, partition, manner, kinds[kind], load);
                clients.push(Client::Producer(producer));
            }
        }
        for _ in 0..plan.consumers {
            let (process, partition) = any(rng);
            clients.push(Client::Consumer(Consumer::new(process, partition)));
        }
        for client in clients {
            let index = self.clients.len();
            self.clients.push(Seated {
                client,
                turn: 0,
                conn: None,
                asked: 0,
                answers: Vec::new(),
            });
            self.at(Duration::ZERO, Event::Client { index, turn: 0 });
        }
    }

    /// The consumers of a partition, as far as they have come.
    pub(super) fn positions(&self) -> impl Iterator<Item = (&Partition, i64)> {
        self.clients
            .iter()
            .filter_map(|seated| match &seated.client {
                Client::Consumer(consumer) => Some((consumer.partition(), consumer.position())),
                _ => None,
            })
    }

    /// A client is answered, has waited long enough, or may go on.
    pub(super) fn client(
        &mut self,
        index: usize,
        turn: u64,
        answer: Option<Option<Bytes>>,
    ) -> Result<(), Violation> {
        let seated = &mut self.clients[index];
        if seated.turn != turn {
            return Ok(());
        }
        if let Some(answer) = answer.flatten() {
            seated.take(answer)?;
            if seated.answers.len() < seated.asked {
                return Ok(());
            }
        }
        seated.turn += 1;
        let turn = seated.turn;
        let was_waiting = std::mem::take(&mut seated.asked) > 0;
        let answers = std::mem::take(&mut seated.answers);
        let left = seated.conn.take();
        let mut scene = Scene {
            rng: &mut self.client_rng,
            history: &mut self.history,
            reached: &mut self.report.reached,
            nodes: self.plan.nodes,
            last_value: &mut self.last_value,
            wall_ms: EPOCH_MS + i64::try_from(self.now.as_millis()).expect("short runs"),
            acked: &mut self.acked,
            passing: &mut self.passing,
            forgets_producers: self.plan.forgets_producers(),
            calm: self.calm,
        };
        if was_waiting {
            let sums = answers.iter().map(|bytes| highwater_record::crc32c(bytes));
            self.trace
                .told(self.now, index, &sums.collect::<Vec<u32>>());
            seated.client.told(&mut scene, &answers)?;
        }
        let wish = seated.client.wish(&mut scene);
        if let Some((place, conn)) = left {
            self.leave(place, conn);
        }
        let Some(wish) = wish else {
            self.after(IDLE, Event::Client { index, turn });
            return Ok(());
        };
        self.send_requests(index, turn, wish);
        Ok(())
    }

    /// Sends a client's requests by a connection of their own.
    fn send_requests(&mut self, index: usize, turn: u64, wish: Wish) {
        let pause = self.client_rng.u64(50_000..self.pause_nanos());
        let delay = self.client_rng.u64(20_000..nanos(CLIENT_DELAY_MAX));
        let node = wish.node;
        let shard = ShardId(self.client_rng.u16(0..self.plan.shards_of(node)));
        let breaks = !self.calm && self.client_rng.f64() < self.plan.hangup;
        let breaks_after = self.client_rng.u64(0..100_000_000);
        self.next_connection += 1;
        let conn = ConnId(self.next_connection);
        let place = Place { node, shard };
        let seated = &mut self.clients[index];
        seated.asked = wish.frames.len();
        seated.conn = Some((place, conn));
        self.connections.insert(
            conn,
            Connection {
                index,
                turn,
                left: wish.frames.len(),
                answered: Duration::ZERO,
            },
        );
        let mut sent = Duration::from_nanos(pause + delay);
        let life = self.nodes[&node].life;
        for frame in wish.frames {
            let request = Event::Request {
                to: place,
                life,
                conn,
                frame,
            };
            self.after(sent, request);
            sent += Duration::from_nanos(self.client_rng.u64(1_000..100_000));
        }
        let enough = sent + self.plan.answer_max;
        self.after(enough, Event::Client { index, turn });
        if breaks {
            self.report
                .reached
                .hit("a client's connection breaks before the answer");
            let lost = Event::Answer {
                index,
                turn,
                answer: None,
            };
            self.after(sent + Duration::from_nanos(breaks_after), lost);
        }
    }

    fn pause_nanos(&self) -> u64 {
        nanos(self.plan.pause_max)
    }

    /// A request arrives, if its connection is still there. At a dead node it is refused, and at
    /// one that has died since it is gone.
    pub(super) fn request(&mut self, to: Place, life: u64, conn: ConnId, frame: &[u8]) {
        if !self.connections.contains_key(&conn) {
            return;
        }
        let is_alive = self.running(to).is_some() && self.nodes[&to.node].life == life;
        // What comes behind a request that is not taken must not be taken without it.
        if !is_alive || !self.take_request(to, conn, frame) {
            self.lose(conn);
        }
    }

    /// Whether a shard has taken a request.
    fn take_request(&mut self, to: Place, conn: ConnId, frame: &[u8]) -> bool {
        let accepts = self.running(to).is_some_and(|it| it.shard.accepts_input());
        if accepts {
            let buffer = self.requests.get(frame.len());
            let mut buffer = buffer.expect("nodes let no more wait than there is memory for");
            buffer.extend_from_slice(frame);
            let frame = buffer.freeze();
            self.input(to, Input::Request { conn, frame });
        } else {
            self.report.reached.hit("a hot node takes no more input");
        }
        accepts
    }

    /// A node answers.
    pub(super) fn respond(&mut self, conn: ConnId, chunks: &[Bytes]) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let wait = Duration::from_nanos(self.client_rng.u64(20_000..nanos(CLIENT_DELAY_MAX)));
        // No answer overtakes the one before.
        let at = (self.now + wait).max(connection.answered + Duration::from_nanos(1));
        connection.answered = at;
        connection.left -= 1;
        let (index, turn) = (connection.index, connection.turn);
        if connection.left == 0 {
            self.connections.remove(&conn);
        }
        let answer = Event::Answer {
            index,
            turn,
            answer: Some(Bytes::from(chunks.concat())),
        };
        self.at(at, answer);
    }

    /// A connection is closed by its node.
    pub(super) fn hang_up(&mut self, conn: ConnId) {
        if !self.lose(conn) {
            self.report.reached.hit("a flood closes a connection");
        }
    }

    /// A client that waits learns that its connection is lost, behind the answers on their way.
    /// Whether there was one.
    fn lose(&mut self, conn: ConnId) -> bool {
        let Some(connection) = self.connections.remove(&conn) else {
            return false;
        };
        let wait = Duration::from_nanos(self.client_rng.u64(20_000..nanos(CLIENT_DELAY_MAX)));
        let behind = connection.answered + Duration::from_nanos(1);
        let lost = Event::Answer {
            index: connection.index,
            turn: connection.turn,
            answer: None,
        };
        self.at(behind.max(self.now + wait), lost);
        true
    }

    /// A client closes its connection.
    pub(super) fn leave(&mut self, place: Place, conn: ConnId) {
        self.connections.remove(&conn);
        self.input(place, Input::ConnClosed { conn });
    }

    /// A node has died: whoever waits for it is told, now or when it has waited long enough.
    pub(super) fn break_connections(&mut self, node: NodeId) {
        let of_node = |seated: &Seated| seated.conn.filter(|(place, _)| place.node == node);
        let broken: Vec<ConnId> = self
            .clients
            .iter()
            .filter_map(|seated| of_node(seated).map(|(_, conn)| conn))
            .collect();
        for conn in broken {
            if !self.connections.contains_key(&conn) {
                continue;
            }
            self.report
                .reached
                .hit("a client's node dies before the answer");
            if self.client_rng.bool() {
                self.hang_up(conn);
            }
        }
    }

    /// A client sends much at once and reads nothing.
    pub(super) fn flood(&mut self, node: NodeId, requests: u32) {
        let place = Place {
            node,
            shard: ShardId(0),
        };
        let mut wishes = Vec::new();
        let mut scene = Scene {
            rng: &mut self.client_rng,
            history: &mut self.history,
            reached: &mut self.report.reached,
            nodes: self.plan.nodes,
            last_value: &mut self.last_value,
            wall_ms: EPOCH_MS + i64::try_from(self.now.as_millis()).expect("short runs"),
            acked: &mut self.acked,
            passing: &mut self.passing,
            forgets_producers: self.plan.forgets_producers(),
            calm: self.calm,
        };
        let topic = self.plan.topics.first().map(|topic| topic.name.as_str());
        let topic = topic.unwrap_or("nothing");
        for _ in 0..requests {
            let partition = Partition::new(topic, 0);
            let mut consumer = Client::Consumer(Consumer::new(0, partition));
            wishes.extend(consumer.wish(&mut scene));
        }
        self.next_connection += 1;
        let conn = ConnId(self.next_connection);
        for frame in wishes.iter().flat_map(|wish| &wish.frames) {
            self.take_request(place, conn, frame);
        }
        let stays = Duration::from_nanos(self.client_rng.u64(0..nanos(FLOOD_MAX)));
        self.after(stays, Event::Leave { at: place, conn });
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("short times")
}

/// Operations that are asked of replicas past all clients.
impl World {
    pub(super) fn ask(&mut self, asker: Asker, to: Place, group: GroupId, op: Op) {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, asker);
        let ticket = Ticket(self.next_ticket);
        self.input(to, Input::Local { ticket, group, op });
    }

    /// Somebody reads from a replica that perhaps does not lead.
    pub(super) fn peek(&mut self, to: Place, group: GroupId, offset: i64) {
        let fetch = Fetch {
            offset: Offset::from_wire(offset).unwrap_or(Offset::ZERO),
            max_bytes: 4_096,
            must_progress: true,
            current_leader_epoch: None,
            from: ReadFrom::AnyReplica,
        };
        let asker = Asker::Peeker(group, offset);
        self.ask(asker, to, group, Op::Fetch(fetch));
    }

    pub(super) fn answered(
        &mut self,
        node: NodeId,
        asker: Asker,
        result: OpResult,
    ) -> Result<(), Violation> {
        let is_storage = matches!(result, Err(OpError::Storage(_)));
        let may_fail = self.plan.disk_errors + self.plan.disk_shortages > 0.0;
        demand(
            !is_storage || may_fail || self.damaged.contains(&node) || self.may_rot(node),
            "L2 a disk without faults serves",
            || format!("{node}: {asker:?} is told {result:?}"),
        )?;
        match asker {
            Asker::Auditor(of, group, life) if self.nodes[&of].life == life => {
                self.audited(of, group, result)
            }
            Asker::Final(of, group) => self.read_finally(of, group, result),
            Asker::Embedded(call) => {
                self.scripted.answer(call, result);
                Ok(())
            }
            Asker::Peeker(group, offset) => self.peeked(node, group, offset, &result),
            Asker::Auditor(..) | Asker::Nobody => {
                if let Ok(Outcome::Transferring { .. }) = result {
                    self.report
                        .reached
                        .hit("a leadership transfer is under way");
                }
                if let Ok(Outcome::LogStart { .. }) = result {
                    self.report.reached.hit("records are deleted");
                }
                Ok(())
            }
        }
    }

    fn peeked(
        &mut self,
        node: NodeId,
        group: GroupId,
        offset: i64,
        result: &OpResult,
    ) -> Result<(), Violation> {
        let Ok(Outcome::Fetched(fetched)) = result else {
            return Ok(());
        };
        let from = Offset::from_wire(offset).unwrap_or(Offset::ZERO);
        if !fetched.spans.is_empty() {
            self.report.reached.hit("a follower serves a read");
        }
        for span in &fetched.spans {
            self.oracle.fetched(node, group, from, span)?;
        }
        demand(
            fetched.spans.is_empty() || fetched.next_offset <= fetched.high_watermark,
            "S6 nothing above the high watermark is served",
            || format!("{:?} of {:?}", fetched.next_offset, fetched.high_watermark),
        )
    }
}
