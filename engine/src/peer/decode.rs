//! Frames are read here; nothing in them is believed.

use highwater_consensus::{
    AppendOutcome, BeatException, BeatRound, BeatRow, EntryId, EntryMeta, LogIndex, Message,
    NodeId, Session, Term,
};
use highwater_log::{
    Base, Chain, ClusterId, Entry, EntryKind, Epoch, Incarnation, Position, SNAPSHOT_BYTES_MAX,
};
use highwater_record::{BatchHeader, Buffer, LeaderEpoch, Offset, crc32c};

use super::wire::{
    FLAG_KNOWS_REPEATS, HEADER_BYTES, MAGIC, Reader, TOO_LONG, TOO_SHORT, VERSION, outcome, tag,
    width,
};
use super::{
    BeatAnswers, BeatRepeat, Beats, FRAME_HEADER_BYTES_MAX, FrameError, RepeatAnswer, Route,
    SECTIONS_MAX, Section,
};
use crate::io::LeaderHint;
use crate::ops::GroupId;
use crate::positions;

/// A frame that came whole, from whom and for whom it should.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The sender's shard.
    pub from_shard: u16,
    /// Whether the sender knows beats that are [kept](super::Beats::is_kept), and what repeats
    /// them.
    pub knows_repeats: bool,
    /// What it says, in order.
    pub sections: Vec<Section>,
}

/// Reads a frame that came over the link `route` (seen from its sender). Bodies become slices
/// of `bytes`; their checksums are verified, and that a batch is the one its entry says.
///
/// # Errors
///
/// [`FrameError`] if anything about it cannot be believed.
pub fn decode(bytes: &Buffer, route: &Route) -> Result<Frame, FrameError> {
    let (header_len, flags) = check_header(bytes)?;
    let mut reader = Reader::new(&bytes[16..header_len]);
    check_route(&mut reader, route)?;
    let from_shard = reader.u16()?;
    let _reserved = reader.u16()?;
    let count = reader.u32()?;
    if count > SECTIONS_MAX {
        return Err(field("section count", count));
    }
    let body_bytes = reader.u64()?;
    let bodies_start = header_len;
    let bodies_len = u64::try_from(bytes.len() - bodies_start).expect("a length fits 64 bits");
    match body_bytes.cmp(&bodies_len) {
        std::cmp::Ordering::Less => return Err(TOO_LONG),
        std::cmp::Ordering::Greater => return Err(TOO_SHORT),
        std::cmp::Ordering::Equal => {}
    }
    let mut decoder = Decoder {
        reader,
        bytes,
        next_body: bodies_start,
    };
    let mut sections = Vec::new();
    for _ in 0..count {
        sections.push(decoder.section()?);
    }
    if !decoder.reader.is_empty() || decoder.next_body != bytes.len() {
        return Err(TOO_LONG);
    }
    Ok(Frame {
        from_shard,
        knows_repeats: flags & FLAG_KNOWS_REPEATS != 0,
        sections,
    })
}

/// Checks everything that can be checked before a field is believed; the headers' length and
/// flags.
fn check_header(bytes: &[u8]) -> Result<(usize, u16), FrameError> {
    if bytes.len() < HEADER_BYTES {
        return Err(TOO_SHORT);
    }
    let mut reader = Reader::new(bytes);
    let crc = reader.u32()?;
    if reader.array()? != MAGIC {
        return Err(FrameError::Magic);
    }
    let version = reader.u16()?;
    let flags = reader.u16()?;
    let claimed = reader.u32()?;
    let header_len = usize::try_from(claimed)
        .ok()
        .filter(|len| (HEADER_BYTES..=FRAME_HEADER_BYTES_MAX).contains(len))
        .ok_or_else(|| field("header length", claimed))?;
    let headers = bytes.get(4..header_len).ok_or(TOO_SHORT)?;
    if crc32fast::hash(headers) != crc {
        return Err(FrameError::HeaderCrc);
    }
    if version != VERSION {
        return Err(FrameError::Version {
            found: version,
            known: VERSION,
        });
    }
    Ok((header_len, flags))
}

fn check_route(reader: &mut Reader<'_>, route: &Route) -> Result<(), FrameError> {
    let found = Route {
        cluster: ClusterId(reader.array()?),
        from: NodeId(reader.u32()?),
        to: NodeId(reader.u32()?),
        from_incarnation: Incarnation(reader.array()?),
        to_incarnation: Incarnation(reader.array()?),
        session: Session(reader.u64()?),
    };
    if found == *route {
        return Ok(());
    }
    let same_session = Route {
        session: found.session,
        ..*route
    };
    Err(if found == same_session {
        FrameError::Session {
            found: found.session,
            expected: route.session,
        }
    } else {
        FrameError::Identity { from: found.from }
    })
}

fn field(field: &'static str, value: impl Into<u64>) -> FrameError {
    FrameError::Field {
        field,
        value: value.into(),
    }
}

struct Decoder<'a> {
    reader: Reader<'a>,
    bytes: &'a Buffer,
    next_body: usize,
}

impl Decoder<'_> {
    fn section(&mut self) -> Result<Section, FrameError> {
        match self.reader.u8()? {
            tag::BEATS => self.beats(false),
            tag::KEPT_BEATS => self.beats(true),
            tag::BEAT_ANSWERS => self.beat_answers(),
            tag::REPEAT => self.repeat(),
            tag::REPEAT_ANSWER => self.repeat_answer(),
            tag::LEADERS => self.leaders(),
            tag::SERVICE => self.service(),
            tag::WANTED => self.wanted(),
            tag::SUPPLY => self.supply(),
            of_group => {
                let group = GroupId(self.reader.u64()?);
                let term = self.term()?;
                match of_group {
                    tag::APPEND => self.append(group, term),
                    tag::BASE => self.base(group, term),
                    other => {
                        let message = self.message(other, term)?;
                        Ok(Section::Message { group, message })
                    }
                }
            }
        }
    }

    fn message(&mut self, kind: u8, term: Term) -> Result<Message, FrameError> {
        Ok(match kind {
            tag::PRE_VOTE => Message::PreVote {
                term,
                last: self.id()?,
            },
            tag::PRE_VOTE_REPLY => Message::PreVoteReply {
                term,
                granted: self.bool()?,
            },
            tag::VOTE => Message::Vote {
                term,
                last: self.id()?,
                transfer: self.bool()?,
            },
            tag::VOTE_REPLY => Message::VoteReply {
                term,
                granted: self.bool()?,
            },
            tag::APPEND_REPLY => Message::AppendReply {
                term,
                window: self.reader.u64()?,
                outcome: self.outcome()?,
            },
            tag::TIMEOUT_NOW => Message::TimeoutNow { term },
            unknown => return Err(field("section kind", unknown)),
        })
    }

    fn outcome(&mut self) -> Result<AppendOutcome, FrameError> {
        Ok(match self.reader.u8()? {
            outcome::ACCEPTED => AppendOutcome::Accepted {
                matched: self.index()?,
                synced: self.index()?,
                promised: self.index()?,
            },
            outcome::CONFLICT => AppendOutcome::Conflict {
                at: self.id()?,
                first: self.index()?,
            },
            outcome::BUSY => AppendOutcome::Busy {
                last: self.index()?,
            },
            outcome::STALE => AppendOutcome::Stale,
            unknown => return Err(field("append outcome", unknown)),
        })
    }

    fn append(&mut self, group: GroupId, term: Term) -> Result<Section, FrameError> {
        let window = self.reader.u64()?;
        let previous = self.id()?;
        let commit = self.index()?;
        let count = self.reader.count(width::ENTRY)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        let mut metas: Vec<EntryMeta> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = self.entry()?;
            let last = metas.last().map_or(previous, |meta| meta.id);
            let meta =
                positions::meta(&entry).ok_or_else(|| field("control entry", entry.id.index.0))?;
            if meta.id.index != last.index.next() || meta.id.term < last.term {
                return Err(field("entry index", meta.id.index.0));
            }
            if let Some(before) = entries.last()
                && before.end_offset() != entry.base_offset
            {
                return Err(field("base offset", entry.base_offset.0));
            }
            metas.push(meta);
            entries.push(entry);
        }
        let message = Message::Append {
            term,
            window,
            previous,
            entries: metas,
            commit,
        };
        Ok(if entries.is_empty() {
            Section::Message { group, message }
        } else {
            Section::Append {
                group,
                message,
                entries,
            }
        })
    }

    fn entry(&mut self) -> Result<Entry, FrameError> {
        let id = self.id()?;
        let kind = match self.reader.u32()? {
            1 => EntryKind::Data,
            2 => EntryKind::Control,
            unknown => return Err(field("entry kind", unknown)),
        };
        let base_offset = self.offset()?;
        let offset_span = self.reader.u32()?;
        let append_time = self.reader.u32()?;
        let chain = Chain(self.reader.u64()?);
        let body_crc = self.reader.u32()?;
        let body = self.body()?;
        let index = id.index.0;
        if base_offset.checked_advance(offset_span.into()).is_none() {
            return Err(field("base offset", base_offset.0));
        }
        if body.crc32c() != body_crc {
            return Err(FrameError::BodyCrc { index });
        }
        let entry = Entry {
            id: positions::id_to_log(id),
            kind,
            base_offset,
            offset_span,
            append_time,
            chain,
            body_crc,
            body,
        };
        if !is_what_it_says(&entry, id.term) {
            return Err(FrameError::Batch { index });
        }
        Ok(entry)
    }

    fn base(&mut self, group: GroupId, term: Term) -> Result<Section, FrameError> {
        let window = self.reader.u64()?;
        let before = self.id()?;
        let chain = Chain(self.reader.u64()?);
        let offset = self.offset()?;
        let log_start_offset = self.offset()?;
        let state_len = self.reader.u32()?;
        let state_crc = self.reader.u32()?;
        let count = self.reader.count(width::EPOCH)?;
        let mut epochs: Vec<Epoch> = Vec::with_capacity(count);
        for _ in 0..count {
            epochs.push(Epoch {
                term: positions::term_to_log(self.term()?),
                first_index: positions::index_to_log(self.index()?),
                first_offset: self.offset()?,
            });
        }
        let state = self.take(usize::try_from(state_len).map_err(|_| TOO_SHORT)?)?;
        if state.len() > SNAPSHOT_BYTES_MAX || log_start_offset > offset {
            return Err(field(
                "log start offset or state length",
                log_start_offset.0,
            ));
        }
        if !epochs.is_sorted_by(|a, b| a.term < b.term && a.first_index < b.first_index) {
            return Err(field("epoch history", 0_u64));
        }
        if crc32c(&state) != state_crc {
            return Err(FrameError::BodyCrc {
                index: before.index.0,
            });
        }
        Ok(Section::Base {
            group,
            message: Message::Base {
                term,
                window,
                before,
            },
            base: Base {
                start: Position {
                    before: positions::id_to_log(before),
                    chain,
                    offset,
                },
                log_start_offset,
                epochs,
                state,
            },
        })
    }

    fn beats(&mut self, is_kept: bool) -> Result<Section, FrameError> {
        let round = BeatRound(self.reader.u64()?);
        let count = self.reader.count(width::ROW)?;
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            let group = GroupId(self.reader.u64()?);
            let row = BeatRow {
                term: self.term()?,
                last: self.index()?,
                commit: self.index()?,
            };
            rows.push((group, row));
        }
        let places = (0..).take(count).collect();
        Ok(Section::Beats(Beats {
            round,
            rows,
            places,
            is_kept,
        }))
    }

    fn beat_answers(&mut self) -> Result<Section, FrameError> {
        let to_shard = self.reader.u16()?;
        let round = BeatRound(self.reader.u64()?);
        let count = self.reader.count(width::RUN)?;
        let mut answered = Vec::with_capacity(count);
        for _ in 0..count {
            answered.push((self.reader.u32()?, self.reader.u32()?));
        }
        Ok(Section::BeatAnswers(BeatAnswers {
            to_shard,
            round,
            answered,
            exceptions: self.exceptions()?,
        }))
    }

    fn repeat(&mut self) -> Result<Section, FrameError> {
        Ok(Section::Repeat(BeatRepeat {
            to_shard: self.reader.u16()?,
            round: BeatRound(self.reader.u64()?),
            of: BeatRound(self.reader.u64()?),
        }))
    }

    fn repeat_answer(&mut self) -> Result<Section, FrameError> {
        Ok(Section::RepeatAnswer(RepeatAnswer {
            to_shard: self.reader.u16()?,
            round: BeatRound(self.reader.u64()?),
            of: BeatRound(self.reader.u64()?),
            is_known: self.bool()?,
            exceptions: self.exceptions()?,
        }))
    }

    fn exceptions(&mut self) -> Result<Vec<(u32, BeatException)>, FrameError> {
        let count = self.reader.count(width::EXCEPTION)?;
        let mut exceptions = Vec::with_capacity(count);
        for _ in 0..count {
            let place = self.reader.u32()?;
            let kind = self.reader.u8()?;
            let term = self.term()?;
            exceptions.push((
                place,
                match kind {
                    1 => BeatException::HigherTerm { term },
                    2 => BeatException::Unknown,
                    unknown => return Err(field("beat exception", unknown)),
                },
            ));
        }
        Ok(exceptions)
    }

    fn leaders(&mut self) -> Result<Section, FrameError> {
        let count = self.reader.count(width::LEADER)?;
        let mut leaders = Vec::with_capacity(count);
        for _ in 0..count {
            let group = GroupId(self.reader.u64()?);
            let epoch = self.reader.u32()?;
            leaders.push(LeaderHint {
                group,
                epoch: LeaderEpoch::new(epoch).ok_or_else(|| field("leader epoch", epoch))?,
                leader: NodeId(self.reader.u32()?),
            });
        }
        Ok(Section::Leaders(leaders))
    }

    fn service(&mut self) -> Result<Section, FrameError> {
        let to_shard = self.reader.u16()?;
        let len = self.reader.u32()?;
        let crc = self.reader.u32()?;
        let message = self.take(usize::try_from(len).map_err(|_| TOO_SHORT)?)?;
        if crc32c(&message) != crc {
            return Err(FrameError::MessageCrc);
        }
        Ok(Section::Service { to_shard, message })
    }

    fn wanted(&mut self) -> Result<Section, FrameError> {
        let group = GroupId(self.reader.u64()?);
        let (from, last) = (self.index()?, self.index()?);
        if from == LogIndex::ZERO || last < from {
            return Err(field("last wanted entry", last.0));
        }
        Ok(Section::Wanted {
            group,
            from,
            last,
            max_bytes: self.reader.u32()?,
        })
    }

    fn supply(&mut self) -> Result<Section, FrameError> {
        let group = GroupId(self.reader.u64()?);
        let count = self.reader.count(width::ENTRY)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = self.entry()?;
            let follows = entries.last().is_none_or(|before| {
                before.id.index.next() == entry.id.index
                    && before.end_offset() == entry.base_offset
                    && before.id.term <= entry.id.term
            });
            if !follows || positions::meta(&entry).is_none() {
                return Err(field("supplied entry", entry.id.index.0));
            }
            entries.push(entry);
        }
        Ok(Section::Supply { group, entries })
    }

    fn term(&mut self) -> Result<Term, FrameError> {
        let term = self.reader.u32()?;
        Term::new(term).ok_or_else(|| field("term", term))
    }

    /// An index that leaves room for arithmetic.
    fn index(&mut self) -> Result<LogIndex, FrameError> {
        let index = self.reader.u64()?;
        if index > positions::INDEX_MAX {
            return Err(field("index", index));
        }
        Ok(LogIndex(index))
    }

    fn id(&mut self) -> Result<EntryId, FrameError> {
        Ok(EntryId {
            index: self.index()?,
            term: self.term()?,
        })
    }

    fn offset(&mut self) -> Result<Offset, FrameError> {
        let offset = Offset(self.reader.u64()?);
        if offset > Offset::MAX {
            return Err(field("offset", offset.0));
        }
        Ok(offset)
    }

    fn bool(&mut self) -> Result<bool, FrameError> {
        match self.reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(field("flag", other)),
        }
    }

    fn body(&mut self) -> Result<Buffer, FrameError> {
        let len = usize::try_from(self.reader.u32()?).map_err(|_| TOO_SHORT)?;
        self.take(len)
    }

    fn take(&mut self, len: usize) -> Result<Buffer, FrameError> {
        let end = self.next_body.checked_add(len).ok_or(TOO_SHORT)?;
        if end > self.bytes.len() {
            return Err(TOO_SHORT);
        }
        let body = self.bytes.slice(self.next_body..end);
        self.next_body = end;
        Ok(body)
    }
}

/// Whether a data entry's batch has the offset, span and epoch that the entry says, and a
/// control entry none.
fn is_what_it_says(entry: &Entry, term: Term) -> bool {
    match entry.kind {
        EntryKind::Control => entry.offset_span == 0,
        EntryKind::Data => BatchHeader::read(&entry.body).is_ok_and(|header| {
            header.total_bytes() == entry.body.len()
                && header.base_offset() == entry.base_offset
                && header.offset_span() == entry.offset_span
                && header.leader_epoch() == Some(positions::epoch(term))
        }),
    }
}
