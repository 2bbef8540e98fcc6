//! InitProducerId, and where the ids come from: blocks of them, asked from the controller.

use highwater_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use highwater_protocol::{ErrorCode, Response};
use highwater_record::Buffer;

use crate::codec::Take;

/// The ids that this service may give out.
#[derive(Debug, Default)]
pub(super) struct ProducerIds {
    next: i64,
    end: i64,
    /// Somebody waits for more.
    pub(super) wanted: bool,
}

impl ProducerIds {
    /// An id that nobody else has or gets.
    pub(super) fn take(&mut self) -> Option<i64> {
        if self.next == self.end {
            self.wanted = true;
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// A block has come, as [`control`](super::control) writes it. Any rest of the one before is
    /// lost, which does no harm.
    pub(super) fn refill(&mut self, payload: &Buffer) {
        let from = &mut &payload[..];
        match (from.take_i64(), from.take_u32()) {
            (Ok(first), Ok(count)) if first >= 0 => {
                self.wanted = false;
                self.next = first;
                self.end = first.saturating_add(i64::from(count));
            }
            other => tracing::warn!(?other, "the controller gave out no producer ids"),
        }
    }
}

/// Why a request gets no id, whoever waits.
pub(super) fn refusal(request: &InitProducerIdRequest) -> Option<Response> {
    let id = request.transactional_id.as_ref()?;
    Some(refused(if id.is_empty() {
        ErrorCode::InvalidRequest
    } else {
        // There are no transactions yet, and this is the answer that makes clients say so at
        // once, instead of trying again until their time is up.
        ErrorCode::TransactionalIdAuthorizationFailed
    }))
}

/// The answer with an id. Epochs begin at 0 with each.
pub(super) fn granted(id: i64) -> Response {
    InitProducerIdResponse::default()
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(0)
        .into()
}

/// The answer to a client that has waited in vain: as Kafka's while it waits for ids, upon which
/// producers try again.
pub(super) fn late() -> Response {
    refused(ErrorCode::CoordinatorLoadInProgress)
}

fn refused(code: ErrorCode) -> Response {
    InitProducerIdResponse::default()
        .with_error_code(code.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
        .into()
}
