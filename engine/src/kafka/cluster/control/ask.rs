//! Asking the controller's leader, wherever it is, until it answers or time is up.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_consensus::{LogIndex, NodeId};
use highwater_record::Buffer;

use super::message::{Message, Outcome, What};
use crate::service::ServiceAddress;

/// How long to wait before asking again, when nobody leads or the leader is busy.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// How long to wait for an answer before asking again what may be asked twice.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// How many questions wait at most.
const ASKS_MAX: usize = 4_096;

/// A question's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kafka::cluster) struct AskId(pub(in crate::kafka) u64);

/// What came of a question.
#[derive(Debug, PartialEq)]
pub(in crate::kafka::cluster) enum AskOutput {
    /// Tell another service.
    Send(ServiceAddress, Message),
    /// Tell this one.
    Local(AskId, What),
    /// It is answered; what it needs is applied here.
    Answered(AskId, Buffer),
    /// No answer came in time. It may have happened, or not.
    TimedOut(AskId),
}

/// Whether it does no harm to ask twice, if the first question may have been heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka::cluster) enum Repeat {
    /// What the first has done would be missed, or taken for a refusal: a topic that it has
    /// created is there already for the second.
    Never,
    /// It can be asked until it is answered.
    Harmless,
}

#[derive(Debug)]
struct Asked {
    what: What,
    deadline: Duration,
    repeat: Repeat,
    phase: Phase,
}

#[derive(Debug, PartialEq)]
enum Phase {
    /// To be asked at this time.
    Waiting(Duration),
    /// On its way to there; to be taken for lost at this time.
    Sent(ServiceAddress, Duration),
    /// Answered, but this must be applied here first.
    Applying(LogIndex, Buffer),
}

/// How many of an id's bits count the questions of one life of the node; the others name the life.
const ID_BITS: u32 = 32;

/// The questions that are not answered yet.
///
/// The controller's leader may answer what a life of this node has asked when the next one is
/// there already. So ids are not given out again in later lives: an old answer would be taken for
/// that to another question.
#[derive(Debug)]
pub(in crate::kafka::cluster) struct Asks {
    last: u64,
    asked: BTreeMap<AskId, Asked>,
}

impl Asks {
    /// No questions yet, in this life of the node.
    pub(in crate::kafka::cluster) fn new(boot: u64) -> Asks {
        Asks {
            last: boot << ID_BITS,
            asked: BTreeMap::new(),
        }
    }

    /// Asks. `None` if too many questions wait already.
    pub(in crate::kafka::cluster) fn ask(
        &mut self,
        now: Duration,
        what: What,
        repeat: Repeat,
        deadline: Duration,
    ) -> Option<AskId> {
        if self.asked.len() == ASKS_MAX {
            return None;
        }
        self.last += 1;
        let id = AskId(self.last);
        let asked = Asked {
            what,
            deadline,
            repeat,
            phase: Phase::Waiting(now),
        };
        self.asked.insert(id, asked);
        Some(id)
    }

    /// Takes an answer in. One that nobody waits for is dropped.
    pub(in crate::kafka::cluster) fn handle_answer(
        &mut self,
        now: Duration,
        id: AskId,
        outcome: Outcome,
    ) {
        let Some(asked) = self.asked.get_mut(&id) else {
            return;
        };
        match outcome {
            Outcome::NotController | Outcome::Busy => {
                asked.phase = Phase::Waiting(now + RETRY_AFTER);
            }
            Outcome::Unknown => asked.lose(now + RETRY_AFTER),
            Outcome::Done { index, payload } => asked.phase = Phase::Applying(index, payload),
        }
    }

    /// A node cannot be reached any more: what it was asked may be lost.
    pub(in crate::kafka::cluster) fn handle_unreachable(&mut self, now: Duration, node: NodeId) {
        for asked in self.asked.values_mut() {
            if matches!(asked.phase, Phase::Sent(to, _) if to.node == node) {
                asked.lose(now + RETRY_AFTER);
            }
        }
    }

    /// Everything that is to be done now, `leader` being where the controller's leader is said
    /// to be.
    pub(in crate::kafka::cluster) fn step(
        &mut self,
        now: Duration,
        applied: LogIndex,
        own: ServiceAddress,
        leader: Option<ServiceAddress>,
    ) -> Vec<AskOutput> {
        let mut outputs = Vec::new();
        self.asked.retain(|&id, asked| {
            if let Phase::Applying(index, payload) = &asked.phase
                && *index <= applied
            {
                outputs.push(AskOutput::Answered(id, payload.clone()));
                return false;
            }
            if asked.deadline <= now {
                outputs.push(AskOutput::TimedOut(id));
                return false;
            }
            let due = matches!(asked.phase, Phase::Waiting(at) | Phase::Sent(_, at) if at <= now);
            if due {
                asked.phase = ask_leader(now, id, asked, own, leader, &mut outputs);
            }
            true
        });
        outputs
    }

    /// When to step again.
    pub(in crate::kafka::cluster) fn next_timeout(&self) -> Option<Duration> {
        let due = |asked: &Asked| match asked.phase {
            Phase::Waiting(at) | Phase::Sent(_, at) => at.min(asked.deadline),
            Phase::Applying(..) => asked.deadline,
        };
        self.asked.values().map(due).min()
    }
}

impl Asked {
    /// Nobody knows what has become of it: it is asked again, or its time is up.
    fn lose(&mut self, again_at: Duration) {
        match self.repeat {
            Repeat::Harmless => self.phase = Phase::Waiting(again_at),
            Repeat::Never => self.deadline = Duration::ZERO,
        }
    }
}

fn ask_leader(
    now: Duration,
    id: AskId,
    asked: &Asked,
    own: ServiceAddress,
    leader: Option<ServiceAddress>,
    outputs: &mut Vec<AskOutput>,
) -> Phase {
    let Some(leader) = leader else {
        return Phase::Waiting(now + RETRY_AFTER);
    };
    let what = asked.what.clone();
    outputs.push(if leader == own {
        AskOutput::Local(id, what)
    } else {
        AskOutput::Send(leader, Message::Ask { id: id.0, what })
    });
    let lost_at = match asked.repeat {
        Repeat::Harmless => now + LOST_AFTER,
        Repeat::Never => asked.deadline,
    };
    Phase::Sent(leader, lost_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ShardId;

    const OWN: ServiceAddress = ServiceAddress {
        node: NodeId(1),
        shard: ShardId(1),
    };
    const LEADER: ServiceAddress = ServiceAddress {
        node: NodeId(2),
        shard: ShardId(0),
    };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn request() -> What {
        What::Request(Buffer::from(vec![1]))
    }

    #[test]
    fn a_question_waits_for_a_leader_and_its_answer_for_the_state() {
        let mut asks = Asks::new(1);
        let id = asks
            .ask(ms(0), request(), Repeat::Never, ms(1_000))
            .unwrap();
        assert_eq!(asks.step(ms(0), LogIndex(0), OWN, None), []);
        assert_eq!(asks.next_timeout(), Some(ms(50)));
        let sent = asks.step(ms(50), LogIndex(0), OWN, Some(LEADER));
        let message = Message::Ask {
            id: id.0,
            what: request(),
        };
        assert_eq!(sent, [AskOutput::Send(LEADER, message)]);
        // Not asked twice, however long it takes: the first may have happened.
        assert_eq!(asks.next_timeout(), Some(ms(1_000)));
        assert_eq!(asks.step(ms(999), LogIndex(0), OWN, Some(LEADER)), []);
        let payload = Buffer::from(vec![2]);
        let done = Outcome::Done {
            index: LogIndex(7),
            payload: payload.clone(),
        };
        asks.handle_answer(ms(60), id, done);
        assert_eq!(asks.step(ms(60), LogIndex(6), OWN, Some(LEADER)), []);
        let answered = asks.step(ms(70), LogIndex(7), OWN, Some(LEADER));
        assert_eq!(answered, [AskOutput::Answered(id, payload)]);
        assert_eq!(asks.next_timeout(), None);
    }

    #[test]
    fn an_answer_to_a_question_of_an_earlier_life_is_nobodys() {
        let ask = |asks: &mut Asks| {
            let id = asks.ask(ms(0), request(), Repeat::Never, ms(1_000));
            let id = id.unwrap();
            asks.step(ms(0), LogIndex(0), OWN, Some(LEADER));
            id
        };
        let before = ask(&mut Asks::new(1));
        let mut asks = Asks::new(2);
        ask(&mut asks);
        let done = Outcome::Done {
            index: LogIndex(0),
            payload: Buffer::from(vec![2]),
        };
        asks.handle_answer(ms(1), before, done);
        assert_eq!(asks.step(ms(1), LogIndex(0), OWN, Some(LEADER)), []);
    }

    #[test]
    fn who_does_not_lead_is_not_believed_for_long() {
        let mut asks = Asks::new(1);
        let id = asks
            .ask(ms(0), request(), Repeat::Never, ms(1_000))
            .unwrap();
        asks.step(ms(0), LogIndex(0), OWN, Some(LEADER));
        asks.handle_answer(ms(10), id, Outcome::NotController);
        assert_eq!(asks.step(ms(59), LogIndex(0), OWN, Some(OWN)), []);
        let local = asks.step(ms(60), LogIndex(0), OWN, Some(OWN));
        assert_eq!(local, [AskOutput::Local(id, request())]);
        assert_eq!(
            asks.step(ms(1_000), LogIndex(0), OWN, None),
            [AskOutput::TimedOut(id)]
        );
        asks.handle_answer(ms(1_001), id, Outcome::Busy);
        assert_eq!(asks.next_timeout(), None, "a late answer changes nothing");
    }

    #[test]
    fn only_what_does_no_harm_is_asked_again_after_silence() {
        let mut asks = Asks::new(1);
        asks.ask(ms(0), What::ProducerIds, Repeat::Harmless, ms(10_000));
        assert_eq!(asks.step(ms(0), LogIndex(0), OWN, Some(LEADER)).len(), 1);
        assert_eq!(
            asks.step(ms(1_999), LogIndex(0), OWN, Some(LEADER)).len(),
            0
        );
        assert_eq!(
            asks.step(ms(2_000), LogIndex(0), OWN, Some(LEADER)).len(),
            1
        );
        let mut asks = Asks::new(1);
        let id = asks
            .ask(ms(0), request(), Repeat::Never, ms(10_000))
            .unwrap();
        asks.step(ms(0), LogIndex(0), OWN, Some(LEADER));
        asks.handle_answer(ms(5), id, Outcome::Unknown);
        assert_eq!(
            asks.step(ms(5), LogIndex(0), OWN, Some(LEADER)),
            [AskOutput::TimedOut(id)]
        );
    }

    #[test]
    fn what_an_unreachable_node_was_asked_is_not_waited_for() {
        let mut asks = Asks::new(1);
        let once = asks.ask(ms(0), request(), Repeat::Never, ms(10_000));
        asks.ask(ms(0), What::ProducerIds, Repeat::Harmless, ms(10_000));
        assert_eq!(asks.step(ms(0), LogIndex(0), OWN, Some(LEADER)).len(), 2);
        asks.handle_unreachable(ms(5), OWN.node);
        assert_eq!(asks.step(ms(5), LogIndex(0), OWN, Some(LEADER)), []);
        asks.handle_unreachable(ms(10), LEADER.node);
        let lost = asks.step(ms(10), LogIndex(0), OWN, None);
        assert_eq!(lost, [AskOutput::TimedOut(once.unwrap())]);
        let again = asks.step(ms(60), LogIndex(0), OWN, Some(OWN));
        assert!(matches!(
            again[..],
            [AskOutput::Local(_, What::ProducerIds)]
        ));
    }

    #[test]
    fn the_number_of_questions_is_bounded() {
        let mut asks = Asks::new(1);
        for _ in 0..ASKS_MAX {
            assert!(
                asks.ask(ms(0), What::ProducerIds, Repeat::Harmless, ms(1))
                    .is_some()
            );
        }
        assert!(
            asks.ask(ms(0), What::ProducerIds, Repeat::Harmless, ms(1))
                .is_none()
        );
    }
}
