//! Frames off and onto a byte stream.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes};
use highwater_record::{Buffer, BufferMut, BufferPool};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedWriteHalf, WriteHalf};
use tokio::time::timeout;

use crate::counter::Counter;
use crate::memory::reserve;

/// The bytes of a frame's length prefix.
pub const LENGTH_BYTES: usize = 4;

/// How much of a frame is read before more memory is taken on the word of its length, in bytes: as
/// many clients as one address may have take a quarter of the usual budget with it, not all.
const FIRST_BYTES: usize = 16 << 10;

/// How much is read at once, in bytes, before it is summed: little enough to be in the processor's
/// cache still.
const READ_BYTES: usize = 128 << 10;

/// How much memory is taken for the rest, as a multiple of what has come: a sender of nothing but
/// lengths must not take the memory of those who send. What has come is copied then, once for
/// frames up to 256 KiB, twice up to 4 MiB and three times above.
const GROWTH: usize = 16;

/// What part of the memory clients' frames leave to others: the log's writes, and peers, without
/// whom nothing that clients wait for is done.
const OTHERS_DIVISOR: usize = 8;

/// How many chunks go out in one system call.
const SLICES_MAX: usize = 64;

/// What a reader puts up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// The largest frame, in bytes, without its length.
    pub frame_bytes_max: usize,
    /// How long the stream may be silent between two frames.
    pub idle: Duration,
    /// How long a frame may take from its first byte to its length, and how long from there to
    /// its last byte. A sender that gives a byte now and then does not hold a buffer for ever.
    /// Time in which nothing of a frame is read yet, for want of memory, is not held against it.
    pub frame: Duration,
}

/// Why there is no further frame. The stream is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The length is negative.
    #[error("a frame of {length} bytes")]
    Negative {
        /// The length as sent.
        length: i32,
    },
    /// The frame is larger than allowed.
    #[error("a frame of {length} bytes; at most {limit} are read")]
    TooLarge {
        /// The length as sent.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// Nothing came for too long.
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    /// A frame took too long.
    #[error("a frame was not complete after {0:?}")]
    Slow(Duration),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads frames off a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    pool: BufferPool,
    limits: ReadLimits,
    memory_waits: Counter,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader whose frames lie in memory of `pool`.
    pub fn new(stream: R, pool: BufferPool, limits: ReadLimits) -> Self {
        Self {
            stream,
            pool,
            limits,
            memory_waits: Counter::default(),
        }
    }

    /// How often the stream was not read because the memory budget was exhausted.
    pub fn memory_waits(&self) -> u64 {
        self.memory_waits.get()
    }

    /// The next frame without its length, or `None` where the stream ends between two.
    ///
    /// Not to be dropped before it is done: what was read of a frame is lost with it.
    ///
    /// # Errors
    /// [`ReadError`]; the stream is of no use after it.
    pub async fn next(&mut self) -> Result<Option<Buffer>, ReadError> {
        let idle = self.limits.idle;
        let mut prefix = [0; LENGTH_BYTES];
        let first = timeout(idle, self.stream.read(&mut prefix)).await;
        let have = first.map_err(|_| ReadError::Idle(idle))??;
        if have == 0 {
            return Ok(None);
        }
        self.in_time(async |reader| {
            let rest = reader.stream.read_exact(&mut prefix[have..]).await;
            rest.map_err(end_is_truncation)
        })
        .await?;
        let length = self.check(i32::from_be_bytes(prefix))?;
        // Charged before the first byte is read.
        let buffer = self.reserve(length.min(FIRST_BYTES)).await?;
        let body = self
            .in_time(async |reader| reader.read_growing(buffer, length).await)
            .await?;
        Ok(Some(body.freeze()))
    }

    /// The body of a frame, into memory that grows with what comes. Whoever holds some and waits
    /// for more does so within the frame's time: all could be waiting for one another.
    async fn read_growing(
        &mut self,
        mut buffer: BufferMut,
        length: usize,
    ) -> Result<BufferMut, ReadError> {
        loop {
            let until = length.min(buffer.capacity());
            buffer = self.read_body(buffer, until).await?;
            if until == length {
                return Ok(buffer);
            }
            let mut larger = self.reserve(length.min(until * GROWTH)).await?;
            larger.begin_with(&buffer);
            buffer = larger;
        }
    }

    /// Gives up on a part of a frame that takes too long.
    async fn in_time<T>(
        &mut self,
        read: impl AsyncFnOnce(&mut Self) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let slow = self.limits.frame;
        let done = timeout(slow, read(self)).await;
        done.map_err(|_| ReadError::Slow(slow))?
    }

    async fn read_body(
        &mut self,
        mut buffer: BufferMut,
        length: usize,
    ) -> Result<BufferMut, ReadError> {
        while buffer.len() < length {
            let missing = (length - buffer.len()).min(READ_BYTES);
            let read = self.stream.read(&mut buffer.spare_mut()[..missing]).await?;
            if read == 0 {
                return Err(ReadError::Truncated);
            }
            buffer.advance(read);
            buffer.sum_written();
        }
        Ok(buffer)
    }

    fn check(&self, length: i32) -> Result<usize, ReadError> {
        let limit = self.limits.frame_bytes_max;
        match usize::try_from(length) {
            Err(_) => Err(ReadError::Negative { length }),
            Ok(length) if length > limit => Err(ReadError::TooLarge { length, limit }),
            Ok(length) => Ok(length),
        }
    }

    /// Memory for a frame, as soon as the budget has it; nothing is read meanwhile.
    async fn reserve(&self, length: usize) -> Result<BufferMut, ReadError> {
        let limit = self.pool.budget().limit();
        let others = limit / OTHERS_DIVISOR;
        let buffer = reserve(&self.pool, length, others, &self.memory_waits).await;
        buffer.map_err(|_| ReadError::TooLarge {
            length,
            limit: limit - others,
        })
    }
}

fn end_is_truncation(error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Truncated,
        _ => ReadError::Io(error),
    }
}

/// Somewhere that refcounted chunks go, in order, without being copied together.
pub trait ChunkWrite {
    /// Writes all chunks, and gives them up.
    ///
    /// Its errors are those of the stream; part of the chunks may have been written then. The
    /// same holds if it is dropped before it is done.
    fn write_chunks(&mut self, chunks: Vec<Bytes>) -> impl Future<Output = io::Result<()>> + Send;
}

impl ChunkWrite for OwnedWriteHalf {
    async fn write_chunks(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        write_chunks(self, chunks).await
    }
}

impl ChunkWrite for WriteHalf<'_> {
    async fn write_chunks(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        write_chunks(self, chunks).await
    }
}

/// Writes chunks in order, many in one system call, without copying them together.
///
/// # Errors
/// When the stream fails; part of the chunks may have been written.
pub async fn write_chunks<W: AsyncWrite + Unpin>(
    stream: &mut W,
    mut chunks: Vec<Bytes>,
) -> io::Result<()> {
    let mut first = 0;
    while first < chunks.len() {
        if chunks[first].is_empty() {
            first += 1;
            continue;
        }
        let waiting = &chunks[first..];
        let slices: Vec<IoSlice<'_>> = waiting
            .iter()
            .take(SLICES_MAX)
            .map(|chunk| IoSlice::new(chunk))
            .collect();
        let mut written = stream.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while written > 0 {
            let step = written.min(chunks[first].len());
            chunks[first].advance(step);
            written -= step;
            if chunks[first].is_empty() {
                first += 1;
            }
        }
    }
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use highwater_record::Budget;
    use tokio::io::duplex;

    use super::*;

    const LIMITS: ReadLimits = ReadLimits {
        frame_bytes_max: 64,
        idle: Duration::from_secs(60),
        frame: Duration::from_secs(5),
    };

    fn pool() -> BufferPool {
        BufferPool::new(Budget::new(1 << 20), 4096)
    }

    async fn read_all(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<ReadError>) {
        let mut reader = FrameReader::new(bytes, pool(), LIMITS);
        let mut frames = Vec::new();
        loop {
            match reader.next().await {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn frames_come_one_by_one() {
        let (frames, error) = read_all(b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c").await;
        assert_eq!(frames, [b"ab".to_vec(), b"".to_vec(), b"c".to_vec()]);
        assert!(error.is_none());
    }

    #[tokio::test]
    async fn lengths_are_not_believed() {
        let (_, error) = read_all(&[0xff; 4]).await;
        assert!(matches!(error, Some(ReadError::Negative { length: -1 })));
        let (_, error) = read_all(&[0x7f, 0xff, 0xff, 0xff]).await;
        assert!(matches!(error, Some(ReadError::TooLarge { limit: 64, .. })));
        let (_, error) = read_all(&[0, 0, 0, 65]).await;
        assert!(matches!(
            error,
            Some(ReadError::TooLarge { length: 65, .. })
        ));
    }

    #[tokio::test]
    async fn an_end_within_a_frame_is_an_error() {
        for bytes in [&b"\0\0"[..], b"\0\0\0\x02a"] {
            let (_, error) = read_all(bytes).await;
            assert!(matches!(error, Some(ReadError::Truncated)), "{error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_frame_does_not_hold_the_reader_for_ever() {
        let (mut sender, stream) = duplex(64);
        let mut reader = FrameReader::new(stream, pool(), LIMITS);
        sender.write_all(b"\0\0\0\x02a").await.unwrap();
        assert!(matches!(reader.next().await, Err(ReadError::Slow(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_the_idle_time() {
        let (_sender, stream) = duplex(64);
        let mut reader = FrameReader::new(stream, pool(), LIMITS);
        assert!(matches!(reader.next().await, Err(ReadError::Idle(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_while_memory_is_exhausted() {
        let budget = Budget::new(1 << 16);
        let pool = BufferPool::new(budget.clone(), 4096);
        let held = budget.charge(1 << 16).unwrap();
        let mut reader = FrameReader::new(&b"\0\0\0\x02ab"[..], pool, LIMITS);
        let mut next = Box::pin(reader.next());
        // Longer than a frame may take: it is not the sender who is slow.
        let waiting = timeout(2 * LIMITS.frame, &mut next).await;
        assert!(waiting.is_err(), "the budget is exhausted");
        drop(held);
        assert_eq!(next.await.unwrap().as_deref(), Some(&b"ab"[..]));
        assert!(reader.memory_waits() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_leave_memory_to_others() {
        let budget = Budget::new(8 << 20);
        let pool = BufferPool::new(budget.clone(), 4096);
        let held = budget.charge(7 << 20).unwrap();
        let mut reader = FrameReader::new(&b"\0\0\0\x02ab"[..], pool.clone(), LIMITS);
        let mut next = Box::pin(reader.next());
        let waiting = timeout(Duration::from_secs(1), &mut next).await;
        assert!(waiting.is_err(), "the rest is not for clients");
        let for_a_peer = reserve(&pool, 512 << 10, 0, &Counter::default()).await;
        assert!(for_a_peer.is_ok(), "it is for peers");
        drop((for_a_peer, held));
        assert_eq!(next.await.unwrap().as_deref(), Some(&b"ab"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_taken_for_what_has_come_not_for_what_is_claimed() {
        let limits = ReadLimits {
            frame_bytes_max: 16 << 20,
            ..LIMITS
        };
        let budget = Budget::new(64 << 20);
        let pool = BufferPool::new(budget.clone(), 4096);
        let (mut sender, stream) = duplex(1 << 20);
        let mut reader = FrameReader::new(stream, pool, limits);
        let body: Vec<u8> = (0..=u8::MAX).cycle().take(3 << 20).collect();
        let send = async {
            let length = u32::try_from(body.len()).unwrap();
            sender.write_all(&length.to_be_bytes()).await.unwrap();
            sender.write_all(&body[..10]).await.unwrap();
            // The paused clock goes on when the reader has nothing left to do.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let before = budget.used();
            sender.write_all(&body[10..]).await.unwrap();
            before
        };
        let (frame, before) = tokio::join!(reader.next(), send);
        assert!((1..=2 * FIRST_BYTES).contains(&before), "{before}");
        assert!(frame.unwrap().unwrap()[..] == body[..]);
    }

    #[tokio::test(start_paused = true)]
    async fn part_of_a_frame_is_not_held_for_ever_while_memory_is_exhausted() {
        let limits = ReadLimits {
            frame_bytes_max: 16 << 20,
            ..LIMITS
        };
        let budget = Budget::new(1 << 20);
        let pool = BufferPool::new(budget.clone(), 4096);
        let others = budget.limit() / OTHERS_DIVISOR;
        let held = budget.charge((1 << 20) - others - FIRST_BYTES).unwrap();
        let mut bytes = (200_u32 << 10).to_be_bytes().to_vec();
        bytes.resize(LENGTH_BYTES + (200 << 10), 1);
        let mut reader = FrameReader::new(&bytes[..], pool, limits);
        assert!(matches!(reader.next().await, Err(ReadError::Slow(_))));
        assert_eq!(budget.used(), held.bytes());
    }

    #[tokio::test]
    async fn chunks_are_written_in_order_whatever_the_stream_takes() {
        let (mut stream, mut receiver) = duplex(3);
        let chunks: Vec<Bytes> = ["a", "", "bcdefg", "h"].map(Bytes::from).to_vec();
        let write = async {
            write_chunks(&mut stream, chunks).await.unwrap();
            drop(stream);
        };
        let mut read = Vec::new();
        let (_, result) = tokio::join!(write, receiver.read_to_end(&mut read));
        result.unwrap();
        assert_eq!(read, b"abcdefgh");
    }
}
