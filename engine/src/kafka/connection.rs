//! One client's connection: requests in, answers out in the same order.

use std::collections::VecDeque;

use bytes::Bytes;

use super::refusals::Refusals;

/// How many requests of one connection may be on their way. The server stops reading before
/// that; a connection that passes it all the same is closed.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 64;

/// A request's number in the life of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The answers of one connection, which leave in the order of the requests (Kafka's protocol
/// guide: "the server guarantees that on a single TCP connection, requests will be processed in
/// the order they are sent and responses will return in that order as well").
#[derive(Debug, Default)]
pub(crate) struct Connection {
    slots: VecDeque<Slot>,
    /// Nothing is taken any more; what is under way is answered, then the connection closed.
    closing: bool,
    close_told: bool,
    pub(crate) refusals: Refusals,
}

#[derive(Debug)]
struct Slot {
    request: RequestId,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    /// On its way.
    Open,
    /// Done; the answer waits for those before it.
    Answered(Vec<Bytes>),
    /// Done without an answer.
    Silent,
}

/// What a connection gives out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// An answer; none for a request that has none, which makes room all the same.
    Response(Vec<Bytes>),
    /// Close it.
    Close,
}

impl Connection {
    /// Takes a request in, unless the connection is closing or full.
    pub(crate) fn open(&mut self, request: RequestId) -> bool {
        if self.closing || self.slots.len() >= REQUESTS_IN_FLIGHT_MAX {
            self.closing = true;
            return false;
        }
        self.slots.push_back(Slot {
            request,
            state: SlotState::Open,
        });
        true
    }

    /// The answer of a request; an empty one for none.
    pub(crate) fn answer(&mut self, request: RequestId, chunks: Option<Vec<Bytes>>) {
        let slot = self.slots.iter_mut().find(|slot| slot.request == request);
        if let Some(slot) = slot {
            slot.state = chunks.map_or(SlotState::Silent, SlotState::Answered);
        }
    }

    /// Ends the connection once what is under way is answered.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// What is to be sent next.
    pub(crate) fn poll(&mut self) -> Option<Outgoing> {
        match self.slots.front_mut().map(|slot| &mut slot.state) {
            Some(SlotState::Open) => None,
            Some(SlotState::Answered(chunks)) => {
                let chunks = std::mem::take(chunks);
                self.slots.pop_front();
                Some(Outgoing::Response(chunks))
            }
            Some(SlotState::Silent) => {
                self.slots.pop_front();
                Some(Outgoing::Response(Vec::new()))
            }
            None if self.closing && !self.close_told => {
                self.close_told = true;
                Some(Outgoing::Close)
            }
            None => None,
        }
    }

    /// The requests on their way.
    pub(crate) fn requests(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.slots.iter().map(|slot| slot.request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &'static str) -> Option<Vec<Bytes>> {
        Some(vec![Bytes::from_static(text.as_bytes())])
    }

    fn response(text: &'static str) -> Option<Outgoing> {
        chunks(text).map(Outgoing::Response)
    }

    #[test]
    fn answers_leave_in_the_order_of_requests() {
        let mut connection = Connection::default();
        for number in 0..3 {
            assert!(connection.open(RequestId(number)));
        }
        connection.answer(RequestId(2), chunks("c"));
        connection.answer(RequestId(1), None);
        assert_eq!(connection.poll(), None, "the first is not answered yet");
        connection.answer(RequestId(0), chunks("a"));
        assert_eq!(connection.poll(), response("a"));
        assert_eq!(connection.poll(), Some(Outgoing::Response(Vec::new())));
        assert_eq!(connection.poll(), response("c"));
        assert_eq!(connection.poll(), None);
    }

    #[test]
    fn one_more_than_allowed_closes_after_the_answers() {
        let mut connection = Connection::default();
        for number in 0..REQUESTS_IN_FLIGHT_MAX {
            assert!(connection.open(RequestId(number as u64)));
        }
        assert!(!connection.open(RequestId(99)));
        for number in 0..REQUESTS_IN_FLIGHT_MAX {
            connection.answer(RequestId(number as u64), chunks("x"));
            assert_eq!(connection.poll(), response("x"));
        }
        assert_eq!(connection.poll(), Some(Outgoing::Close));
        assert_eq!(connection.poll(), None, "it is said once");
    }
}
