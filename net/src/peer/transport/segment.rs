//! What lies in the TLS of a lane over TCP: segments.
//!
//! TCP has no word for "I am still there" that the process at the other end must say itself, and
//! none for "I close, because". So the bytes of a lane go in segments, little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | kind: 1 data, 2 alive, 3 goodbye |
//! | 4 | data: how many bytes of the lane follow, 1 to 262,144; alive: 0; goodbye: its code |

use std::io;

use bytes::Bytes;
use highwater_record::BufferMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::{Goodbye, IDLE_TIMEOUT, Lost, Written};
use crate::kafka::write_chunks;

/// Bytes in front of every segment.
const HEAD_BYTES: usize = 5;

/// The largest data segment, in bytes: what is encrypted and handed to the kernel at once.
pub(super) const SEGMENT_BYTES_MAX: usize = 256 << 10;

/// What a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// So many bytes of the lane follow.
    Data(usize),
    /// This end is there.
    Alive,
    /// Nothing follows, because of this.
    Goodbye(u32),
}

impl Head {
    fn encode(self) -> Bytes {
        let (kind, value) = match self {
            Head::Data(bytes) => {
                let bytes = u32::try_from(bytes).expect("segments are small");
                (1, bytes)
            }
            Head::Alive => (2, 0),
            Head::Goodbye(code) => (3, code),
        };
        let mut bytes = [kind, 0, 0, 0, 0];
        bytes[1..].copy_from_slice(&u32::to_le_bytes(value));
        Bytes::copy_from_slice(&bytes)
    }

    /// Nothing if it is none.
    fn decode([kind, value @ ..]: [u8; HEAD_BYTES]) -> Option<Head> {
        let value = u32::from_le_bytes(value);
        match kind {
            1 => {
                let bytes = usize::try_from(value).ok()?;
                (1..=SEGMENT_BYTES_MAX)
                    .contains(&bytes)
                    .then_some(Head::Data(bytes))
            }
            2 => (value == 0).then_some(Head::Alive),
            3 => Some(Head::Goodbye(value)),
            _ => None,
        }
    }
}

/// Writes segments.
pub(super) struct SegmentWriter<W> {
    stream: W,
    /// Whether the last segment has been written to its end, so that another may follow.
    whole: bool,
}

impl<W: AsyncWrite + Unpin> SegmentWriter<W> {
    pub(super) fn new(stream: W) -> SegmentWriter<W> {
        SegmentWriter {
            stream,
            whole: true,
        }
    }

    /// Writes one data segment of the chunks' first bytes, gathered.
    pub(super) async fn write(&mut self, chunks: &mut [Bytes]) -> Result<Written, Lost> {
        let (data, written) = cut(chunks);
        if written.bytes > 0 {
            self.put(Head::Data(written.bytes), data).await?;
        }
        Ok(written)
    }

    /// Says that this end is there.
    pub(super) async fn alive(&mut self) -> Result<(), Lost> {
        self.put(Head::Alive, Vec::new()).await
    }

    /// Says why this end closes, and that nothing follows; not within a segment that was given up.
    pub(super) async fn goodbye(&mut self, why: Goodbye) -> Result<(), Lost> {
        if self.whole {
            self.put(Head::Goodbye(why.code()), Vec::new()).await?;
            self.finish().await?;
        }
        Ok(())
    }

    /// Says that nothing follows.
    pub(super) async fn finish(&mut self) -> Result<(), Lost> {
        self.stream.shutdown().await.map_err(Lost::new)
    }

    async fn put(&mut self, head: Head, data: Vec<Bytes>) -> Result<(), Lost> {
        let mut chunks = Vec::with_capacity(1 + data.len());
        chunks.push(head.encode());
        chunks.extend(data);
        self.whole = false;
        let written = write_chunks(&mut self.stream, chunks).await;
        self.whole = written.is_ok();
        written.map_err(Lost::new)
    }
}

/// Takes the chunks' first bytes, as many as a segment holds.
fn cut(chunks: &mut [Bytes]) -> (Vec<Bytes>, Written) {
    let mut data = Vec::new();
    let mut written = Written {
        bytes: 0,
        chunks: 0,
    };
    for chunk in chunks {
        let room = SEGMENT_BYTES_MAX - written.bytes;
        if chunk.len() > room {
            data.push(chunk.split_to(room));
            written.bytes += room;
            break;
        }
        written.bytes += chunk.len();
        written.chunks += 1;
        data.push(std::mem::take(chunk));
    }
    (data, written)
}

/// Reads what segments carry.
pub(super) struct SegmentReader<R> {
    stream: R,
    /// How many bytes of a data segment are still to come.
    left: usize,
}

impl<R: AsyncRead + Unpin> SegmentReader<R> {
    pub(super) fn new(stream: R) -> SegmentReader<R> {
        SegmentReader { stream, left: 0 }
    }

    /// Fills `target`; `false` when the stream ends before.
    pub(super) async fn read_array(&mut self, target: &mut [u8]) -> Result<bool, Lost> {
        let mut done = 0;
        while done < target.len() {
            match self.read(&mut target[done..]).await? {
                0 => return Ok(false),
                read => done += read,
            }
        }
        Ok(true)
    }

    /// Appends to `buffer` until it has `length` bytes; `false` when the stream ends before.
    pub(super) async fn read_buffer(
        &mut self,
        buffer: &mut BufferMut,
        length: usize,
    ) -> Result<bool, Lost> {
        while buffer.len() < length {
            let missing = length - buffer.len();
            match self.read(&mut buffer.spare_mut()[..missing]).await? {
                0 => return Ok(false),
                read => {
                    buffer.advance(read);
                    buffer.sum_written();
                }
            }
        }
        Ok(true)
    }

    /// The lane's next bytes; 0 when it has been finished.
    async fn read(&mut self, target: &mut [u8]) -> Result<usize, Lost> {
        while self.left == 0 {
            match self.head().await? {
                None => return Ok(0),
                Some(Head::Data(bytes)) => self.left = bytes,
                Some(Head::Alive) => {}
                Some(Head::Goodbye(code)) => return Err(closed(code)),
            }
        }
        let most = self.left.min(target.len());
        match self.some(&mut target[..most]).await? {
            0 => Err(Lost::new("the stream ended within a segment")),
            read => {
                self.left -= read;
                Ok(read)
            }
        }
    }

    /// The next segment's head; nothing where the stream ends in front of it.
    async fn head(&mut self) -> Result<Option<Head>, Lost> {
        let mut bytes = [0; HEAD_BYTES];
        let mut have = 0;
        while have < HEAD_BYTES {
            match self.some(&mut bytes[have..]).await? {
                0 if have == 0 => return Ok(None),
                0 => return Err(Lost::new("the stream ended within a segment")),
                read => have += read,
            }
        }
        match Head::decode(bytes) {
            Some(head) => Ok(Some(head)),
            None => Err(Lost::new("what came is no segment")),
        }
    }

    /// Some bytes of the stream. Only here silence counts: what is not waited for is not missed.
    async fn some(&mut self, target: &mut [u8]) -> Result<usize, Lost> {
        match timeout(IDLE_TIMEOUT, self.stream.read(target)).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Lost::new("the connection ended without a goodbye"))
            }
            Ok(Err(error)) => Err(Lost::new(error)),
            Err(_) => Err(Lost::new("timed out")),
        }
    }
}

fn closed(code: u32) -> Lost {
    let refusal = Goodbye::refusal(code.into());
    let text = match refusal {
        Some(reason) => reason.to_string(),
        None if code == Goodbye::SessionEnded.code() => Goodbye::SessionEnded.text(),
        None => format!("closed by the peer (code {code})"),
    };
    Lost { refusal, text }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::peer::RefusalReason;

    fn pair(bytes: usize) -> (SegmentWriter<DuplexStream>, SegmentReader<DuplexStream>) {
        let (ours, theirs) = duplex(bytes);
        (SegmentWriter::new(ours), SegmentReader::new(theirs))
    }

    /// Reads what somebody has written who is no [`SegmentWriter`].
    async fn reading(bytes: &[u8]) -> Result<bool, Lost> {
        let mut reader = SegmentReader::new(bytes);
        reader.read_array(&mut [0; 4]).await
    }

    #[test]
    fn golden_bytes() {
        for (head, bytes) in [
            (Head::Data(0x0002_0103), [1, 3, 1, 2, 0]),
            (Head::Alive, [2, 0, 0, 0, 0]),
            (Head::Goodbye(0x0403_0201), [3, 1, 2, 3, 4]),
        ] {
            assert_eq!(head.encode()[..], bytes);
            assert_eq!(Head::decode(bytes), Some(head));
        }
    }

    #[test]
    fn other_bytes_are_no_heads() {
        for kind in (0..=u8::MAX).filter(|kind| !(1..=3).contains(kind)) {
            assert_eq!(Head::decode([kind, 1, 0, 0, 0]), None);
        }
        assert_eq!(Head::decode([2, 1, 0, 0, 0]), None);
    }

    #[test]
    fn a_data_segment_has_its_bounds() {
        let head = |bytes: usize| Head::decode(Head::Data(bytes).encode()[..].try_into().unwrap());
        for bytes in [1, SEGMENT_BYTES_MAX] {
            assert_eq!(head(bytes), Some(Head::Data(bytes)));
        }
        for bytes in [0, SEGMENT_BYTES_MAX + 1, u32::MAX as usize] {
            assert_eq!(head(bytes), None, "{bytes}");
        }
    }

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_whatever_the_segments() {
        let (mut writer, mut reader) = pair(1_000);
        let whole: Vec<u8> = (0..=250).cycle().take(2 * SEGMENT_BYTES_MAX + 7).collect();
        let (first, rest) = whole.split_at(SEGMENT_BYTES_MAX - 1);
        let mut chunks = [first, &[], rest].map(Bytes::copy_from_slice);
        let write = async {
            let mut waiting = &mut chunks[..];
            let mut segments = Vec::new();
            while !waiting.is_empty() {
                writer.alive().await.unwrap();
                let written = writer.write(waiting).await.unwrap();
                waiting = &mut waiting[written.chunks..];
                segments.push(written.bytes);
            }
            segments
        };
        let mut read = vec![0; whole.len()];
        let (segments, complete) = tokio::join!(write, reader.read_array(&mut read));
        assert_eq!(complete, Ok(true));
        assert!(read == whole);
        assert_eq!(segments, [SEGMENT_BYTES_MAX, SEGMENT_BYTES_MAX, 7]);
    }

    #[tokio::test]
    async fn a_goodbye_says_why() {
        let refused = Goodbye::Refused(RefusalReason::UnknownNode);
        for (why, refusal) in [
            (Goodbye::SessionEnded, None),
            (refused, Some(RefusalReason::UnknownNode)),
        ] {
            let (mut writer, mut reader) = pair(1_000);
            writer.goodbye(why).await.unwrap();
            let lost = reader.read_array(&mut [0]).await.unwrap_err();
            assert_eq!(lost.refusal, refusal);
        }
    }

    #[tokio::test]
    async fn nothing_is_said_within_a_segment_that_was_given_up() {
        let (mut writer, mut reader) = pair(100);
        let mut chunks = [Bytes::from(vec![7; 1_000])];
        let given_up = timeout(std::time::Duration::ZERO, writer.write(&mut chunks)).await;
        assert!(given_up.is_err(), "nobody reads");
        let reading = tokio::spawn(async move { reader.read_array(&mut [0; 1_000]).await });
        writer.goodbye(Goodbye::SessionEnded).await.unwrap();
        drop(writer);
        let lost = reading.await.unwrap().unwrap_err();
        assert!(lost.text.contains("within a segment"), "{lost}");
    }

    #[tokio::test]
    async fn a_stream_ends_between_segments_only() {
        assert_eq!(reading(&[]).await, Ok(false));
        assert_eq!(reading(&[2, 0, 0, 0, 0]).await, Ok(false));
        assert_eq!(reading(&[1, 2, 0, 0, 0, 7, 7]).await, Ok(false));
        for cut in 1..HEAD_BYTES {
            assert!(reading(&[1, 2, 0, 0, 0][..cut]).await.is_err(), "{cut}");
        }
        assert!(reading(&[1, 2, 0, 0, 0, 7]).await.is_err());
        assert!(reading(b"GET / HTTP/1.1\r\n").await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_given_up_and_one_that_says_so_is_there() {
        let (mut writer, mut reader) = pair(100);
        let begun = tokio::time::Instant::now();
        let alive = async {
            for _ in 0..20 {
                tokio::time::sleep(IDLE_TIMEOUT / 2).await;
                writer.alive().await.unwrap();
            }
        };
        let mut byte = [0];
        let (lost, ()) = tokio::join!(reader.read_array(&mut byte), alive);
        assert_eq!(lost.unwrap_err().text, "timed out");
        assert_eq!(begun.elapsed(), 11 * IDLE_TIMEOUT);
    }
}
