//! What waits for a link that has no room for it.

use std::collections::VecDeque;

use anyhow::Result;
use bytes::Bytes;
use highwater_net::peer::Lane;

use super::Role;
use super::hub::Hub;

/// Batches for another process, in their order.
///
/// A leader's are buffers of its pool, which bounds them: a follower may fall behind the other one
/// by so much, and then nothing more is read from the client. A client's are bounded by its window.
#[derive(Debug)]
pub(super) struct Backlog {
    to: Role,
    /// In chunks.
    frames: VecDeque<Vec<Bytes>>,
}

impl Backlog {
    pub(super) fn new(to: Role) -> Backlog {
        Backlog {
            to,
            frames: VecDeque::new(),
        }
    }

    /// Sends a batch, as soon as there is room.
    pub(super) fn push(&mut self, frame: Vec<Bytes>, hub: &Hub) -> Result<()> {
        self.frames.push_back(frame);
        self.forward(hub)
    }

    /// Sends what there is room for. To be called whenever one of those before is acknowledged:
    /// while there is no room, some are on their way.
    pub(super) fn forward(&mut self, hub: &Hub) -> Result<()> {
        while let Some(frame) = self.frames.front() {
            if !hub.send_if_room(self.to, Lane::Append, frame)? {
                break;
            }
            self.frames.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::link;
    use super::*;

    /// More than an outbox takes.
    const FRAMES: u8 = 40;

    const FRAME_BYTES: usize = 1 << 20;

    #[test]
    fn what_has_no_room_is_sent_later_and_in_order() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (client, mut leader) = link::joined().await.unwrap();
            let mut backlog = Backlog::new(Role::Leader);
            for number in 0..FRAMES {
                let frame = vec![Bytes::from(vec![number; FRAME_BYTES])];
                backlog.push(frame, &client).unwrap();
            }
            // The runtime has not run since: nothing has left the outbox.
            let waiting = backlog.frames.len();
            assert!((1..usize::from(FRAMES)).contains(&waiting), "{waiting}");
            for number in 0..FRAMES {
                let arrival = leader.receive().await.unwrap();
                assert_eq!(arrival.frame.len(), FRAME_BYTES);
                assert_eq!(arrival.frame[0], number);
                backlog.forward(&client).unwrap();
            }
            assert!(backlog.frames.is_empty());
        });
    }
}
