//! Frames off a stream.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use highwater_net::kafka::{FrameReader, ReadError, ReadLimits};
use highwater_protocol::{FrameError, split_frame};
use highwater_record::{Budget, BufferPool};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use super::memory::{self, SMALL};

/// As a node has it by default.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// Memory is taken for 16 KiB of a frame at first, then for sixteen times what has come.
const GROWTH: usize = 17;

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        Builder::new_current_thread().enable_time().build().expect("a thread has room for one"),
    );
}

/// A stream that gives what it has in pieces, whose lengths follow from a seed.
struct Pieces<'a> {
    left: &'a [u8],
    rng: fastrand::Rng,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let magnitude = self.rng.u32(0..14);
        let most = 1 + self.rng.usize(..1 << magnitude);
        let count = most.min(self.left.len()).min(into.remaining());
        let (piece, left) = self.left.split_at(count);
        into.put_slice(piece);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

/// The first byte decides how the others are cut. They are read as the same frames as if they had
/// come at once.
pub(crate) fn check(data: &[u8]) {
    let Some((&seed, stream)) = data.split_first() else {
        return;
    };
    let bound = GROWTH * stream.len() + 4 * SMALL;
    memory::at_most(bound, "the reader of frames", || compare(seed, stream));
}

fn compare(seed: u8, stream: &[u8]) {
    let limits = ReadLimits {
        frame_bytes_max: FRAME_BYTES_MAX,
        idle: Duration::from_secs(60),
        frame: Duration::from_secs(60),
    };
    let pieces = Pieces {
        left: stream,
        rng: fastrand::Rng::with_seed(seed.into()),
    };
    let pool = BufferPool::new(Budget::new(2 * FRAME_BYTES_MAX), 4_096);
    let mut reader = FrameReader::new(pieces, pool.clone(), limits);
    let mut whole = BytesMut::from(stream);
    loop {
        let next = RUNTIME.with_borrow(|runtime| runtime.block_on(reader.next()));
        match (next, split_frame(&mut whole, FRAME_BYTES_MAX)) {
            (Ok(Some(frame)), Ok(Some(expected))) => assert_eq!(&frame[..], &expected[..]),
            (Ok(None), Ok(None)) => return assert!(whole.is_empty()),
            (Err(ReadError::Truncated), Ok(None)) => return assert!(!whole.is_empty()),
            (Err(ReadError::Negative { .. }), Err(FrameError::Negative { .. }))
            | (Err(ReadError::TooLarge { .. }), Err(FrameError::TooLarge { .. })) => return,
            (read, split) => panic!("{read:?}, but {split:?}"),
        }
    }
}
