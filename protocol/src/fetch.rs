//! Fetch, key 1, versions 4 to 12, by hand over bytes: the response leaves as small encoded parts
//! with refcounted spans of records between them, and arrives as slices of its frame.

use bytes::{Bytes, BytesMut};

use crate::frame::FrameBuilder;
use crate::messages::StrBytes;
use crate::produce::owned;
use crate::wire::{Allowance, Reader, Writer};
use crate::{ApiKey, DecodeError, EncodeError, ErrorCode, Frame};

/// A Fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// -1 from consumers; a broker's id from replicas, which this protocol does not serve.
    pub replica_id: i32,
    /// How long to wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Answer when this many bytes are there.
    pub min_bytes: i32,
    /// Bytes of records in the whole response; the first batch goes through whatever its size.
    pub max_bytes: i32,
    /// Which records may be seen.
    pub isolation: IsolationLevel,
    /// 0 without a session (version 7 on).
    pub session_id: i32,
    /// -1 without a session, 0 to ask for one (version 7 on).
    pub session_epoch: i32,
    /// What to read, by topic.
    pub topics: Vec<FetchTopic>,
    /// Partitions to drop from the session (version 7 on).
    pub forgotten_topics: Vec<ForgottenTopic>,
    /// The consumer's rack, empty if it has none (version 11 on).
    pub rack_id: StrBytes,
}

impl Default for FetchRequest {
    /// A consumer's request without a session for nothing, to be answered at once.
    fn default() -> Self {
        Self {
            replica_id: -1,
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: i32::MAX,
            isolation: IsolationLevel::ReadUncommitted,
            session_id: 0,
            session_epoch: -1,
            topics: Vec::new(),
            forgotten_topics: Vec::new(),
            rack_id: StrBytes::new(),
        }
    }
}

/// Which records a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IsolationLevel {
    /// 0: everything below the high watermark.
    #[default]
    ReadUncommitted,
    /// 1: only below the last stable offset.
    ReadCommitted,
    /// Any other number: answer INVALID_REQUEST.
    Invalid(i8),
}

impl IsolationLevel {
    /// The meaning of a number.
    #[must_use]
    pub const fn from_code(code: i8) -> Self {
        match code {
            0 => Self::ReadUncommitted,
            1 => Self::ReadCommitted,
            invalid => Self::Invalid(invalid),
        }
    }

    /// Kafka's number.
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
            Self::Invalid(code) => code,
        }
    }
}

/// What to read of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopic {
    /// The topic's name as sent.
    pub name: StrBytes,
    /// By partition.
    pub partitions: Vec<FetchPartition>,
}

/// What to read of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPartition {
    /// Which partition; clients may send any number.
    pub index: i32,
    /// The leader epoch the client believes in, -1 if unknown (version 9 on).
    pub current_leader_epoch: i32,
    /// From which offset.
    pub fetch_offset: i64,
    /// The epoch of the last record read, -1 if unknown (version 12 on).
    pub last_fetched_epoch: i32,
    /// Only replicas send this (version 5 on); consumers send -1.
    pub log_start_offset: i64,
    /// Bytes of records for this partition.
    pub max_bytes: i32,
}

/// Partitions that leave a fetch session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgottenTopic {
    /// The topic's name as sent.
    pub name: StrBytes,
    /// Which partitions.
    pub partitions: Vec<i32>,
}

/// A Fetch response. `R` is how a partition's records are held: [`Vec<Bytes>`] of spans where it
/// is made, one [`Frame`] where it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResponse<R> {
    /// How long the server held the request back for a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// An error of the request as a whole (version 7 on).
    pub error: ErrorCode,
    /// 0: no session (version 7 on).
    pub session_id: i32,
    /// By topic.
    pub topics: Vec<FetchTopicResponse<R>>,
}

/// What was read of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopicResponse<R> {
    /// The topic's name as in the request.
    pub name: StrBytes,
    /// By partition.
    pub partitions: Vec<FetchPartitionResponse<R>>,
}

/// What was read of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPartitionResponse<R> {
    /// Which partition.
    pub index: i32,
    /// Whether it could be read.
    pub error: ErrorCode,
    /// End of what is committed, -1 with an error.
    pub high_watermark: i64,
    /// End of what no open transaction holds back, -1 if unknown.
    pub last_stable_offset: i64,
    /// The partition's first offset (version 5 on), -1 if unknown.
    pub log_start_offset: i64,
    /// Transactions whose records a `ReadCommitted` reader must skip; `None` for other readers.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// Another replica to read from, -1 for none (version 11 on).
    pub preferred_read_replica: i32,
    /// Whole record batches, one behind the other; the last may be cut off by other brokers.
    pub records: R,
}

impl<R: Default> FetchPartitionResponse<R> {
    /// A refusal: no offsets, no records.
    #[must_use]
    pub fn refused(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: R::default(),
        }
    }
}

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// Its first offset in the partition.
    pub first_offset: i64,
}

/// Smallest encodings, which bound how many elements a frame can hold.
const TOPIC_BYTES_MIN: usize = 2;
const PARTITION_BYTES_MIN: usize = 16;
const FORGOTTEN_PARTITION_BYTES_MIN: usize = 4;
const PARTITION_RESPONSE_BYTES_MIN: usize = 24;
const ABORTED_TRANSACTION_BYTES_MIN: usize = 16;

impl FetchRequest {
    /// Reads the body of a request that begins at byte `at` of its frame.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes do not hold the format of `version`.
    pub fn decode(version: i16, frame: &[u8], at: usize) -> Result<Self, DecodeError> {
        check_version(version)?;
        let flexible = ApiKey::Fetch.is_flexible(version);
        let mut reader = Reader::new(frame, at, flexible, Allowance::request());
        let mut request = Self {
            replica_id: reader.i32()?,
            max_wait_ms: reader.i32()?,
            min_bytes: reader.i32()?,
            max_bytes: reader.i32()?,
            isolation: IsolationLevel::from_code(reader.i8()?),
            ..Self::default()
        };
        if version >= 7 {
            request.session_id = reader.i32()?;
            request.session_epoch = reader.i32()?;
        }
        let count = reader.count(TOPIC_BYTES_MIN)?;
        request.topics.reserve_exact(count);
        for _ in 0..count {
            request
                .topics
                .push(FetchTopic::decode(version, &mut reader)?);
        }
        if version >= 7 {
            let count = reader.count(TOPIC_BYTES_MIN)?;
            request.forgotten_topics.reserve_exact(count);
            for _ in 0..count {
                request
                    .forgotten_topics
                    .push(ForgottenTopic::decode(&mut reader)?);
            }
        }
        if version >= 11 {
            request.rack_id = owned(reader.text()?);
        }
        // Tag 0, the cluster's id, is for replicas only.
        reader.skip_tagged_fields()?;
        reader.finish()?;
        Ok(request)
    }

    /// Appends the body, as a client sends it.
    pub(crate) fn encode(&self, version: i16, bytes: BytesMut) -> Result<BytesMut, EncodeError> {
        check_encode_version(version)?;
        let mut writer = Writer::new(bytes, ApiKey::Fetch.is_flexible(version));
        writer.i32(self.replica_id);
        writer.i32(self.max_wait_ms);
        writer.i32(self.min_bytes);
        writer.i32(self.max_bytes);
        writer.i8(self.isolation.code());
        if version >= 7 {
            writer.i32(self.session_id);
            writer.i32(self.session_epoch);
        }
        writer.count(self.topics.len());
        for topic in &self.topics {
            topic.encode(version, &mut writer);
        }
        if version >= 7 {
            writer.count(self.forgotten_topics.len());
            for topic in &self.forgotten_topics {
                topic.encode(&mut writer);
            }
        }
        if version >= 11 {
            writer.text(&self.rack_id);
        }
        writer.no_tagged_fields();
        Ok(writer.bytes)
    }
}

impl FetchTopic {
    fn decode(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = owned(reader.text()?);
        let count = reader.count(PARTITION_BYTES_MIN)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            partitions.push(FetchPartition {
                index: reader.i32()?,
                current_leader_epoch: if version >= 9 { reader.i32()? } else { -1 },
                fetch_offset: reader.i64()?,
                last_fetched_epoch: if version >= 12 { reader.i32()? } else { -1 },
                log_start_offset: if version >= 5 { reader.i64()? } else { -1 },
                max_bytes: reader.i32()?,
            });
            reader.skip_tagged_fields()?;
        }
        reader.skip_tagged_fields()?;
        Ok(Self { name, partitions })
    }

    fn encode(&self, version: i16, writer: &mut Writer) {
        writer.text(&self.name);
        writer.count(self.partitions.len());
        for partition in &self.partitions {
            writer.i32(partition.index);
            if version >= 9 {
                writer.i32(partition.current_leader_epoch);
            }
            writer.i64(partition.fetch_offset);
            if version >= 12 {
                writer.i32(partition.last_fetched_epoch);
            }
            if version >= 5 {
                writer.i64(partition.log_start_offset);
            }
            writer.i32(partition.max_bytes);
            writer.no_tagged_fields();
        }
        writer.no_tagged_fields();
    }
}

impl ForgottenTopic {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = owned(reader.text()?);
        let count = reader.count(FORGOTTEN_PARTITION_BYTES_MIN)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            partitions.push(reader.i32()?);
        }
        reader.skip_tagged_fields()?;
        Ok(Self { name, partitions })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.text(&self.name);
        writer.count(self.partitions.len());
        for &partition in &self.partitions {
            writer.i32(partition);
        }
        writer.no_tagged_fields();
    }
}

impl FetchResponse<Vec<Bytes>> {
    /// An answer without any partition, for errors of the request as a whole.
    #[must_use]
    pub const fn failed(error: ErrorCode) -> Self {
        Self {
            throttle_time_ms: 0,
            error,
            session_id: 0,
            topics: Vec::new(),
        }
    }

    /// Appends the body; long spans of records are spliced in.
    pub(crate) fn encode(
        &self,
        version: i16,
        frame: &mut FrameBuilder,
        bytes: BytesMut,
    ) -> Result<BytesMut, EncodeError> {
        check_encode_version(version)?;
        let mut writer = Writer::new(bytes, ApiKey::Fetch.is_flexible(version));
        writer.i32(self.throttle_time_ms);
        if version >= 7 {
            writer.i16(self.error.code());
            writer.i32(self.session_id);
        }
        writer.count(self.topics.len());
        for topic in &self.topics {
            writer.text(&topic.name);
            writer.count(topic.partitions.len());
            for partition in &topic.partitions {
                partition.encode(version, &mut writer);
                writer.bytes_length(Some(spans_length(&partition.records)?));
                for span in &partition.records {
                    frame.splice(&mut writer.bytes, span);
                }
                writer.no_tagged_fields();
            }
            writer.no_tagged_fields();
        }
        writer.no_tagged_fields();
        Ok(writer.bytes)
    }
}

fn spans_length(spans: &[Bytes]) -> Result<u32, EncodeError> {
    let length = spans
        .iter()
        .fold(0_usize, |sum, span| sum.saturating_add(span.len()));
    i32::try_from(length)
        .ok()
        .and_then(|length| u32::try_from(length).ok())
        .ok_or(EncodeError::FrameTooLarge {
            key: ApiKey::Fetch,
            length,
        })
}

impl<F: Frame> FetchResponse<Option<F>> {
    /// Reads the body of a response that begins at byte `at` of its frame, as a client does.
    /// Records share the frame's memory.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes do not hold the format of `version`.
    pub fn decode(version: i16, frame: &F, at: usize) -> Result<Self, DecodeError> {
        check_version(version)?;
        let flexible = ApiKey::Fetch.is_flexible(version);
        let mut reader = Reader::new(frame, at, flexible, Allowance::response());
        let throttle_time_ms = reader.i32()?;
        let (mut error, mut session_id) = (ErrorCode::None, 0);
        if version >= 7 {
            error = ErrorCode::from_code(reader.i16()?);
            session_id = reader.i32()?;
        }
        let count = reader.count(TOPIC_BYTES_MIN)?;
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            let name = owned(reader.text()?);
            let count = reader.count(PARTITION_RESPONSE_BYTES_MIN)?;
            let mut partitions = Vec::with_capacity(count);
            for _ in 0..count {
                partitions.push(FetchPartitionResponse::decode(version, &mut reader, frame)?);
            }
            reader.skip_tagged_fields()?;
            topics.push(FetchTopicResponse { name, partitions });
        }
        reader.skip_tagged_fields()?;
        Ok(Self {
            throttle_time_ms,
            error,
            session_id,
            topics,
        })
    }
}

impl<F: Frame> FetchPartitionResponse<Option<F>> {
    fn decode(version: i16, reader: &mut Reader<'_>, frame: &F) -> Result<Self, DecodeError> {
        let partition = Self {
            index: reader.i32()?,
            error: ErrorCode::from_code(reader.i16()?),
            high_watermark: reader.i64()?,
            last_stable_offset: reader.i64()?,
            log_start_offset: if version >= 5 { reader.i64()? } else { -1 },
            aborted_transactions: decode_aborted_transactions(reader)?,
            preferred_read_replica: if version >= 11 { reader.i32()? } else { -1 },
            records: reader.bytes_range()?.map(|range| frame.cut(range)),
        };
        reader.skip_tagged_fields()?;
        Ok(partition)
    }
}

fn decode_aborted_transactions(
    reader: &mut Reader<'_>,
) -> Result<Option<Vec<AbortedTransaction>>, DecodeError> {
    let Some(count) = reader.nullable_count(ABORTED_TRANSACTION_BYTES_MIN)? else {
        return Ok(None);
    };
    let mut aborted = Vec::with_capacity(count);
    for _ in 0..count {
        aborted.push(AbortedTransaction {
            producer_id: reader.i64()?,
            first_offset: reader.i64()?,
        });
        reader.skip_tagged_fields()?;
    }
    Ok(Some(aborted))
}

impl<R> FetchPartitionResponse<R> {
    /// Appends everything in front of the records.
    fn encode(&self, version: i16, writer: &mut Writer) {
        writer.i32(self.index);
        writer.i16(self.error.code());
        writer.i64(self.high_watermark);
        writer.i64(self.last_stable_offset);
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        writer.nullable_count(self.aborted_transactions.as_ref().map(Vec::len));
        for aborted in self.aborted_transactions.iter().flatten() {
            writer.i64(aborted.producer_id);
            writer.i64(aborted.first_offset);
            writer.no_tagged_fields();
        }
        if version >= 11 {
            writer.i32(self.preferred_read_replica);
        }
    }
}

fn check_version(version: i16) -> Result<(), DecodeError> {
    let key = ApiKey::Fetch;
    if key.versions().serves(version) {
        Ok(())
    } else {
        Err(DecodeError::UnsupportedVersion { key, version })
    }
}

fn check_encode_version(version: i16) -> Result<(), EncodeError> {
    let key = ApiKey::Fetch;
    if key.versions().serves(version) {
        Ok(())
    } else {
        Err(EncodeError::UnsupportedVersion { key, version })
    }
}
