//! Produce, key 0, versions 3 to 9, by hand over bytes: records are cut out of the request's
//! frame and spliced into the client's, never copied.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::frame::FrameBuilder;
use crate::messages::StrBytes;
use crate::wire::{Allowance, Reader, Writer};
use crate::{ApiKey, DecodeError, EncodeError, ErrorCode, Frame};

/// How many replicas must have a batch before the leader answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// 0: no response at all.
    None,
    /// 1: the leader's answer.
    Leader,
    /// -1: every in-sync replica's.
    All,
    /// Any other number: answer INVALID_REQUIRED_ACKS.
    Invalid(i16),
}

impl Acks {
    /// The meaning of a number.
    #[must_use]
    pub const fn from_code(code: i16) -> Self {
        match code {
            0 => Self::None,
            1 => Self::Leader,
            -1 => Self::All,
            invalid => Self::Invalid(invalid),
        }
    }

    /// Kafka's number.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
            Self::Invalid(code) => code,
        }
    }
}

/// A Produce request. `R` is how a partition's records are held: a [`Frame`], or their place in
/// one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest<R> {
    /// Set by transactional producers.
    pub transactional_id: Option<StrBytes>,
    /// When to answer.
    pub acks: Acks,
    /// How long to wait for the replicas, in milliseconds.
    pub timeout_ms: i32,
    /// What to append, by topic.
    pub topics: Vec<ProduceTopic<R>>,
}

/// The batches for one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopic<R> {
    /// The topic's name as sent, not yet checked to be a legal one. A copy: it does not keep the
    /// frame alive.
    pub name: StrBytes,
    /// By partition.
    pub partitions: Vec<ProducePartition<R>>,
}

/// The batches for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartition<R> {
    /// Which partition; clients may send any number.
    pub index: i32,
    /// The bytes of one record batch, as far as the sender is honest.
    pub records: Option<R>,
}

/// A Produce response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProduceResponse {
    /// Results by topic, in the order of the request.
    pub topics: Vec<ProduceTopicResponse>,
    /// How long the server held the request back for a quota, in milliseconds.
    pub throttle_time_ms: i32,
}

/// The results for one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopicResponse {
    /// The topic's name as in the request.
    pub name: StrBytes,
    /// By partition.
    pub partitions: Vec<ProducePartitionResponse>,
}

/// The result for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartitionResponse {
    /// Which partition.
    pub index: i32,
    /// Whether the batch was appended.
    pub error: ErrorCode,
    /// The offset of the batch's first record, -1 with an error.
    pub base_offset: i64,
    /// The server's time of the append in milliseconds since the Unix epoch if the topic stamps
    /// records so, otherwise -1.
    pub log_append_time_ms: i64,
    /// The partition's first offset (version 5 on), -1 if unknown.
    pub log_start_offset: i64,
    /// Records that were refused (version 8 on).
    pub record_errors: Vec<RecordError>,
    /// What went wrong, for a person (version 8 on).
    pub error_message: Option<StrBytes>,
}

impl ProducePartitionResponse {
    /// A refusal: no offsets, no message.
    #[must_use]
    pub const fn refused(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
        }
    }
}

/// A record that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// The record's place in its batch, from 0.
    pub batch_index: i32,
    /// Why, for a person.
    pub message: Option<StrBytes>,
}

/// Smallest encodings, which bound how many elements a frame can hold: an empty name and an empty
/// array; an index and no records.
const TOPIC_BYTES_MIN: usize = 2;
const PARTITION_BYTES_MIN: usize = 5;
const PARTITION_RESPONSE_BYTES_MIN: usize = 22;
const RECORD_ERROR_BYTES_MIN: usize = 5;

impl<F: Frame> ProduceRequest<F> {
    /// Reads the body of a request that begins at byte `at` of its frame. Records share the
    /// frame's memory.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes do not hold the format of `version`.
    pub fn decode(version: i16, frame: &F, at: usize) -> Result<Self, DecodeError> {
        decode_request(version, frame, at, &|range| frame.cut(range))
    }
}

impl ProduceRequest<Range<usize>> {
    /// As [`ProduceRequest::decode`], but says only where in the frame each partition's records
    /// lie: for a receiver that stamps batches in place before it shares their memory.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes do not hold the format of `version`.
    pub fn decode_ranges(version: i16, frame: &[u8], at: usize) -> Result<Self, DecodeError> {
        decode_request(version, frame, at, &|range| range)
    }
}

fn decode_request<R>(
    version: i16,
    frame: &[u8],
    at: usize,
    cut: &impl Fn(Range<usize>) -> R,
) -> Result<ProduceRequest<R>, DecodeError> {
    check_version(version)?;
    let flexible = ApiKey::Produce.is_flexible(version);
    let mut reader = Reader::new(frame, at, flexible, Allowance::request());
    let transactional_id = reader.nullable_text()?.map(owned);
    let acks = Acks::from_code(reader.i16()?);
    let timeout_ms = reader.i32()?;
    let count = reader.count(TOPIC_BYTES_MIN)?;
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        topics.push(decode_topic(&mut reader, cut)?);
    }
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(ProduceRequest {
        transactional_id,
        acks,
        timeout_ms,
        topics,
    })
}

fn decode_topic<R>(
    reader: &mut Reader<'_>,
    cut: &impl Fn(Range<usize>) -> R,
) -> Result<ProduceTopic<R>, DecodeError> {
    let name = owned(reader.text()?);
    let count = reader.count(PARTITION_BYTES_MIN)?;
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        let index = reader.i32()?;
        let records = reader.bytes_range()?.map(cut);
        reader.skip_tagged_fields()?;
        partitions.push(ProducePartition { index, records });
    }
    reader.skip_tagged_fields()?;
    Ok(ProduceTopic { name, partitions })
}

impl ProduceRequest<Bytes> {
    /// Appends the body, as a client sends it; records are spliced in.
    pub(crate) fn encode(
        &self,
        version: i16,
        frame: &mut FrameBuilder,
        bytes: BytesMut,
    ) -> Result<BytesMut, EncodeError> {
        check_encode_version(version)?;
        let mut writer = Writer::new(bytes, ApiKey::Produce.is_flexible(version));
        writer.nullable_text(self.transactional_id.as_deref());
        writer.i16(self.acks.code());
        writer.i32(self.timeout_ms);
        writer.count(self.topics.len());
        for topic in &self.topics {
            writer.text(&topic.name);
            writer.count(topic.partitions.len());
            for partition in &topic.partitions {
                writer.i32(partition.index);
                let length = partition.records.as_ref().map(records_length).transpose()?;
                writer.bytes_length(length);
                if let Some(records) = &partition.records {
                    frame.splice(&mut writer.bytes, records);
                }
                writer.no_tagged_fields();
            }
            writer.no_tagged_fields();
        }
        writer.no_tagged_fields();
        Ok(writer.bytes)
    }
}

fn records_length(records: &Bytes) -> Result<u32, EncodeError> {
    let length = records.len();
    let fits = i32::try_from(length).is_ok();
    u32::try_from(length)
        .ok()
        .filter(|_| fits)
        .ok_or(EncodeError::FrameTooLarge {
            key: ApiKey::Produce,
            length,
        })
}

impl ProduceResponse {
    /// Appends the body.
    pub(crate) fn encode(&self, version: i16, bytes: BytesMut) -> Result<BytesMut, EncodeError> {
        check_encode_version(version)?;
        let mut writer = Writer::new(bytes, ApiKey::Produce.is_flexible(version));
        writer.count(self.topics.len());
        for topic in &self.topics {
            writer.text(&topic.name);
            writer.count(topic.partitions.len());
            for partition in &topic.partitions {
                partition.encode(version, &mut writer);
            }
            writer.no_tagged_fields();
        }
        writer.i32(self.throttle_time_ms);
        writer.no_tagged_fields();
        Ok(writer.bytes)
    }

    /// Reads the body of a response that begins at byte `at` of its frame, as a client does.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes do not hold the format of `version`.
    pub fn decode(version: i16, frame: &[u8], at: usize) -> Result<Self, DecodeError> {
        check_version(version)?;
        let flexible = ApiKey::Produce.is_flexible(version);
        let mut reader = Reader::new(frame, at, flexible, Allowance::response());
        let count = reader.count(TOPIC_BYTES_MIN)?;
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            let name = owned(reader.text()?);
            let count = reader.count(PARTITION_RESPONSE_BYTES_MIN)?;
            let mut partitions = Vec::with_capacity(count);
            for _ in 0..count {
                partitions.push(ProducePartitionResponse::decode(version, &mut reader)?);
            }
            reader.skip_tagged_fields()?;
            topics.push(ProduceTopicResponse { name, partitions });
        }
        let throttle_time_ms = reader.i32()?;
        reader.skip_tagged_fields()?;
        Ok(Self {
            topics,
            throttle_time_ms,
        })
    }
}

impl ProducePartitionResponse {
    fn encode(&self, version: i16, writer: &mut Writer) {
        writer.i32(self.index);
        writer.i16(self.error.code());
        writer.i64(self.base_offset);
        writer.i64(self.log_append_time_ms);
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        if version >= 8 {
            writer.count(self.record_errors.len());
            for error in &self.record_errors {
                writer.i32(error.batch_index);
                writer.nullable_text(error.message.as_deref());
                writer.no_tagged_fields();
            }
            writer.nullable_text(self.error_message.as_deref());
        }
        writer.no_tagged_fields();
    }

    fn decode(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut partition = Self {
            index: reader.i32()?,
            error: ErrorCode::from_code(reader.i16()?),
            base_offset: reader.i64()?,
            log_append_time_ms: reader.i64()?,
            log_start_offset: if version >= 5 { reader.i64()? } else { -1 },
            record_errors: Vec::new(),
            error_message: None,
        };
        if version >= 8 {
            let count = reader.count(RECORD_ERROR_BYTES_MIN)?;
            partition.record_errors.reserve_exact(count);
            for _ in 0..count {
                let batch_index = reader.i32()?;
                let message = reader.nullable_text()?.map(owned);
                reader.skip_tagged_fields()?;
                partition.record_errors.push(RecordError {
                    batch_index,
                    message,
                });
            }
            partition.error_message = reader.nullable_text()?.map(owned);
        }
        reader.skip_tagged_fields()?;
        Ok(partition)
    }
}

pub(crate) fn owned(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn check_version(version: i16) -> Result<(), DecodeError> {
    let key = ApiKey::Produce;
    if key.versions().serves(version) {
        Ok(())
    } else {
        Err(DecodeError::UnsupportedVersion { key, version })
    }
}

fn check_encode_version(version: i16) -> Result<(), EncodeError> {
    let key = ApiKey::Produce;
    if key.versions().serves(version) {
        Ok(())
    } else {
        Err(EncodeError::UnsupportedVersion { key, version })
    }
}
