//! What waits to be sent on one lane.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::Notify;

/// Bytes of the length in front of every frame.
pub(super) const LENGTH_BYTES: usize = 4;

/// Chunks below this size are copied together: a chunk of its own costs quinn more than moving so
/// few bytes.
const SPLICE_BYTES_MIN: usize = 1_024;

/// A bounded queue of frames, already in wire form: a length (little-endian) and the frame's
/// bytes.
#[derive(Debug)]
pub(super) struct Outbox {
    limit: usize,
    waiting: Mutex<Waiting>,
    ready: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    chunks: Vec<Bytes>,
    /// The small chunks that follow the last one.
    tail: BytesMut,
    /// Everything that has been pushed and not released.
    bytes: usize,
    closed: bool,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) waiting: usize,
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Outbox {
        Outbox {
            limit,
            waiting: Mutex::default(),
            ready: Notify::new(),
            room: Notify::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .expect("nothing panics while it holds an outbox")
    }

    /// Takes a frame of `length` bytes in `chunks`. An empty outbox takes any.
    pub(super) fn push(&self, chunks: &[Bytes], length: u32) -> Result<(), Full> {
        let bytes = LENGTH_BYTES + length as usize;
        let mut waiting = self.waiting();
        if waiting.bytes > 0 && waiting.bytes + bytes > self.limit {
            return Err(Full {
                waiting: waiting.bytes,
            });
        }
        waiting.bytes += bytes;
        waiting.tail.put_u32_le(length);
        for chunk in chunks {
            waiting.splice(chunk);
        }
        drop(waiting);
        self.ready.notify_one();
        Ok(())
    }

    /// Everything that waits, at least one chunk. For one taker.
    pub(super) async fn take(&self) -> Vec<Bytes> {
        loop {
            let chunks = self.waiting().take();
            if !chunks.is_empty() {
                return chunks;
            }
            self.ready.notified().await;
        }
    }

    /// Makes room: so many bytes of what was taken have gone into QUIC's send window.
    pub(super) fn release(&self, bytes: usize) {
        let mut waiting = self.waiting();
        let was_above = waiting.bytes > self.limit / 2;
        waiting.bytes -= bytes;
        if was_above && waiting.bytes <= self.limit / 2 {
            drop(waiting);
            self.room.notify_waiters();
        }
    }

    /// Waits until it is at most half full, or closed.
    pub(super) async fn room(&self) {
        loop {
            let mut room = pin!(self.room.notified());
            // From here on a release is not missed.
            room.as_mut().enable();
            if self.has_room() {
                return;
            }
            room.await;
        }
    }

    fn has_room(&self) -> bool {
        let waiting = self.waiting();
        waiting.closed || waiting.bytes <= self.limit / 2
    }

    /// Lets go whoever waits for room: nothing is sent any more.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.room.notify_waiters();
    }
}

impl Waiting {
    fn splice(&mut self, chunk: &Bytes) {
        if chunk.len() < SPLICE_BYTES_MIN {
            self.tail.extend_from_slice(chunk);
            return;
        }
        self.cut_tail();
        self.chunks.push(chunk.clone());
    }

    fn cut_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.cut_tail();
        std::mem::take(&mut self.chunks)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn taken(outbox: &Outbox) -> Option<Vec<Bytes>> {
        outbox.take().now_or_never()
    }

    #[test]
    fn frames_leave_in_order_with_their_lengths() {
        let outbox = Outbox::new(1 << 20);
        assert_eq!(taken(&outbox), None);
        let large = Bytes::from(vec![7; SPLICE_BYTES_MIN]);
        outbox
            .push(&[Bytes::from("ab"), Bytes::from("c")], 3)
            .unwrap();
        outbox.push(&[], 0).unwrap();
        outbox
            .push(&[Bytes::from("x"), large.clone(), Bytes::from("y")], 1_026)
            .unwrap();
        let chunks = taken(&outbox).unwrap();
        assert_eq!(
            chunks,
            [
                Bytes::from_static(b"\x03\0\0\0abc\0\0\0\0\x02\x04\0\0x"),
                large.clone(),
                Bytes::from_static(b"y"),
            ]
        );
        assert_eq!(
            chunks[1].as_ptr(),
            large.as_ptr(),
            "large chunks are not copied"
        );
        assert_eq!(taken(&outbox), None);
    }

    #[test]
    fn room_is_what_has_not_been_released() {
        let outbox = Outbox::new(100);
        let frame = [Bytes::from(vec![0; 46])];
        outbox.push(&frame, 46).unwrap();
        outbox.push(&frame, 46).unwrap();
        assert_eq!(outbox.push(&[], 0), Err(Full { waiting: 100 }));
        taken(&outbox).unwrap();
        assert_eq!(outbox.push(&[], 0), Err(Full { waiting: 100 }));
        outbox.release(4);
        assert_eq!(outbox.push(&[], 0), Ok(()));
        assert_eq!(outbox.push(&[], 0), Err(Full { waiting: 100 }));
    }

    #[test]
    fn who_waits_for_room_is_woken_at_half() {
        let outbox = Outbox::new(100);
        outbox.push(&[Bytes::from(vec![0; 96])], 96).unwrap();
        let mut room = Box::pin(outbox.room());
        assert_eq!(room.as_mut().now_or_never(), None);
        outbox.release(49);
        assert_eq!(room.as_mut().now_or_never(), None);
        outbox.release(1);
        assert_eq!(room.as_mut().now_or_never(), Some(()));
    }

    #[test]
    fn who_waits_for_room_is_let_go_at_the_end() {
        let outbox = Outbox::new(100);
        outbox.push(&[Bytes::from(vec![0; 96])], 96).unwrap();
        let mut room = Box::pin(outbox.room());
        assert_eq!(room.as_mut().now_or_never(), None);
        outbox.close();
        assert_eq!(room.as_mut().now_or_never(), Some(()));
    }

    #[test]
    fn an_empty_outbox_takes_any_frame() {
        let outbox = Outbox::new(10);
        let frame = [Bytes::from(vec![0; 50])];
        outbox.push(&frame, 50).unwrap();
        assert_eq!(outbox.push(&frame, 50), Err(Full { waiting: 54 }));
        taken(&outbox).unwrap();
        outbox.release(54);
        outbox.push(&frame, 50).unwrap();
    }
}
