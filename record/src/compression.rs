//! The four codecs, as Kafka's clients write and read them, bounded on the way out.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use crate::error::DecompressError;
use crate::limits::BatchLimits;

/// How a batch's records are compressed, as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip (RFC 1952); several members in a row are read as one.
    Gzip,
    /// Snappy. Written in snappy-java's framing, which every client reads; read in that and
    /// as a bare block, as librdkafka writes it.
    Snappy,
    /// LZ4's frame format. Written with independent blocks of 64 KiB, without checksums of
    /// content: the Java client refuses linked blocks.
    Lz4,
    /// Zstandard (RFC 8878, KIP-110).
    Zstd,
}

/// The compression level of gzip, its usual default and Kafka's.
const GZIP_LEVEL: u32 = 6;

/// The compression level of zstd, its usual default and Kafka's.
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// All of them, in the order of their codes.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// The three bits that say so in a batch's attributes.
    #[must_use]
    pub fn codec(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// The codec of these bits, if there is one.
    #[must_use]
    pub fn from_codec(codec: u8) -> Option<Compression> {
        Compression::ALL.get(usize::from(codec)).copied()
    }

    /// Its name in Kafka's configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no codec's. Whoever configured it wrote it wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {name:?}; known are none, gzip, snappy, lz4 and zstd")]
pub struct UnknownCompression {
    /// The name.
    pub name: String,
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Compression, UnknownCompression> {
        let named = |compression: &Compression| compression.name() == name;
        let found = Compression::ALL.into_iter().find(named);
        found.ok_or_else(|| UnknownCompression {
            name: name.to_owned(),
        })
    }
}

thread_local! {
    /// What zstd works with. To make it takes longer than to compress a small batch, so each thread
    /// keeps its own; nothing of one batch is left in it for the next.
    static ZSTD_WRITER: RefCell<zstd::bulk::Compressor<'static>> = RefCell::new(
        zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("the level is one of zstd's"),
    );

    /// The same for reading. It keeps the window of a large frame, at most as large as the limits
    /// let it be, until zstd has seen that many smaller ones in a row that it gives it up.
    static ZSTD_READER: RefCell<zstd::zstd_safe::DCtx<'static>> =
        RefCell::new(zstd::zstd_safe::DCtx::create());
}

/// Appends `body` to `out`, compressed.
///
/// # Errors
///
/// What the codec's library says; in memory that can only be a lack of it.
pub(crate) fn compress(codec: Compression, body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match codec {
        Compression::None => out.extend_from_slice(body),
        Compression::Gzip => {
            let level = flate2::Compression::new(GZIP_LEVEL);
            let mut encoder = flate2::write::GzEncoder::new(out, level);
            encoder.write_all(body)?;
            encoder.finish()?;
        }
        Compression::Snappy => xerial::compress(body, out)?,
        Compression::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
            encoder.write_all(body)?;
            encoder.finish()?;
        }
        Compression::Zstd => {
            out.extend(ZSTD_WRITER.with_borrow_mut(|writer| writer.compress(body))?);
        }
    }
    Ok(())
}

/// What `body` was before it was compressed.
///
/// Memory grows as bytes come out, never by what the body claims of itself, and stops growing
/// at the limits.
pub(crate) fn decompress(
    codec: Compression,
    body: &[u8],
    limits: &BatchLimits,
) -> Result<Vec<u8>, DecompressError> {
    let mut sink = Sink::new(body.len(), limits);
    match codec {
        Compression::None => sink.fill(body)?,
        Compression::Gzip => sink.fill(flate2::bufread::MultiGzDecoder::new(body))?,
        Compression::Snappy => xerial::decompress(body, &mut sink)?,
        Compression::Lz4 => lz4_frames(body, &mut sink)?,
        Compression::Zstd => ZSTD_READER.with_borrow_mut(|reader| {
            let mut decoder = zstd::Decoder::with_context(body, reader);
            decoder
                .window_log_max(limits.zstd_window_log_max)
                .map_err(malformed)?;
            sink.fill(decoder)
        })?,
    }
    Ok(sink.bytes)
}

/// A decoder per frame: one that goes on to the next frame keeps buffers sized for the last.
fn lz4_frames(mut body: &[u8], sink: &mut Sink) -> Result<(), DecompressError> {
    const END_MARK: [u8; 4] = [0; 4];
    // The library reads the format before this one too, which no Kafka client writes, and takes
    // 16 MiB for the smallest of its frames.
    const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
    while !body.is_empty() {
        if !body.starts_with(&MAGIC) {
            return Err(malformed("no lz4 frame begins here"));
        }
        // The decoder takes the end of input for the end of the frame. So it gets an end mark
        // behind the input: if it needs that one, the frame's own is missing.
        let mut marked = body.chain(&END_MARK[..]);
        sink.fill(lz4_flex::frame::FrameDecoder::new(&mut marked))?;
        let (rest, mark) = marked.into_inner();
        if mark.len() < END_MARK.len() {
            return Err(malformed("lz4 frame ends without its end mark"));
        }
        assert!(rest.len() < body.len(), "a frame has a header");
        body = rest;
    }
    Ok(())
}

fn malformed(error: impl fmt::Display) -> DecompressError {
    DecompressError::Malformed {
        reason: error.to_string(),
    }
}

/// Decompressed bytes up to a bound.
struct Sink {
    bytes: Vec<u8>,
    bound: usize,
    /// What is wrong if the bound is passed.
    excess: DecompressError,
}

impl Sink {
    fn new(compressed: usize, limits: &BatchLimits) -> Sink {
        let ratio = limits.decompression_ratio_max;
        let in_proportion = compressed
            .saturating_mul(ratio)
            .max(limits.decompression_ratio_free_bytes);
        let limit = limits.decompressed_bytes_max;
        let (bound, excess) = if in_proportion < limit {
            (in_proportion, DecompressError::Ratio { compressed, ratio })
        } else {
            (limit, DecompressError::TooLarge { limit })
        };
        Sink {
            bytes: Vec::new(),
            bound,
            excess,
        }
    }

    fn room(&self) -> usize {
        self.bound - self.bytes.len()
    }

    /// Takes all that `decoder` gives, but never more than a byte above the bound.
    fn fill(&mut self, decoder: impl Read) -> Result<(), DecompressError> {
        let room = u64::try_from(self.room()).expect("memory is below 2^64");
        decoder
            .take(room.saturating_add(1))
            .read_to_end(&mut self.bytes)
            .map_err(malformed)?;
        match self.bytes.len() <= self.bound {
            true => Ok(()),
            false => Err(self.excess.clone()),
        }
    }
}

/// Snappy in the framing of snappy-java ("xerial"), which Kafka's Java client writes:
///
/// | bytes | |
/// |---|---|
/// | 8 | `82 53 4e 41 50 50 59 00` |
/// | 4 | version, 1, big-endian |
/// | 4 | oldest version that can read it, 1, big-endian |
/// | then, for each block of at most 32 KiB: 4 | compressed length, big-endian |
/// | | a snappy block |
mod xerial {
    use super::{DecompressError, Sink, io, malformed};

    const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
    const VERSION: [u8; 4] = 1_u32.to_be_bytes();
    const HEADER_BYTES: usize = MAGIC.len() + 2 * VERSION.len();

    /// Uncompressed bytes in a block, snappy-java's default.
    const BLOCK_BYTES: usize = 32 << 10;

    /// The most that a snappy block can grow: a copy of 64 bytes takes three.
    const EXPANSION_MAX: usize = 22;

    pub(super) fn compress(body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION);
        out.extend_from_slice(&VERSION);
        let mut encoder = snap::raw::Encoder::new();
        for block in body.chunks(BLOCK_BYTES) {
            let compressed = encoder.compress_vec(block).map_err(io::Error::other)?;
            let length = u32::try_from(compressed.len()).expect("a block is 32 KiB");
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&compressed);
        }
        Ok(())
    }

    pub(super) fn decompress(body: &[u8], sink: &mut Sink) -> Result<(), DecompressError> {
        if !body.starts_with(&MAGIC) {
            return block(body, sink);
        }
        let mut rest = body
            .get(HEADER_BYTES..)
            .ok_or_else(|| malformed("snappy framing ends within its header"))?;
        while !rest.is_empty() {
            let (length, blocks) = rest
                .split_first_chunk()
                .ok_or_else(|| malformed("snappy framing ends within a length"))?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(malformed)?;
            let (compressed, blocks) = blocks
                .split_at_checked(length)
                .ok_or_else(|| malformed("snappy framing ends within a block"))?;
            block(compressed, sink)?;
            rest = blocks;
        }
        Ok(())
    }

    fn block(compressed: &[u8], sink: &mut Sink) -> Result<(), DecompressError> {
        let length = snap::raw::decompress_len(compressed).map_err(malformed)?;
        if length > compressed.len().saturating_mul(EXPANSION_MAX) {
            return Err(malformed("snappy block claims more than it can hold"));
        }
        if length > sink.room() {
            return Err(sink.excess.clone());
        }
        let start = sink.bytes.len();
        sink.bytes.resize(start + length, 0);
        snap::raw::Decoder::new()
            .decompress(compressed, &mut sink.bytes[start..])
            .map_err(malformed)?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "compression_tests.rs"]
mod tests;
