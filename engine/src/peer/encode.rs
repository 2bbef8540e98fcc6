//! Frames are written here.

use highwater_consensus::{AppendOutcome, BeatException, EntryId, Message, Term};
use highwater_log::{Base, Entry, EntryKind, Position};
use highwater_record::{Buffer, crc32c};

use super::wire::{FLAG_KNOWS_REPEATS, HEADER_BYTES, MAGIC, Put, VERSION, outcome, tag, width};
use super::{
    BeatAnswers, BeatRepeat, Beats, FRAME_BYTES_TARGET, FRAME_HEADER_BYTES_MAX, RepeatAnswer,
    Route, SECTIONS_MAX, Section,
};
use crate::io::LeaderHint;
use crate::ops::GroupId;
use crate::positions;

/// Gathers sections for one peer, session and lane, and makes frames of them.
#[derive(Debug)]
pub struct FrameBuilder {
    headers: Vec<u8>,
    sections: u32,
    bodies: Vec<Buffer>,
    body_bytes: usize,
}

impl Default for FrameBuilder {
    fn default() -> FrameBuilder {
        FrameBuilder::new()
    }
}

impl FrameBuilder {
    /// Without a section.
    #[must_use]
    pub fn new() -> FrameBuilder {
        FrameBuilder {
            headers: vec![0; HEADER_BYTES],
            sections: 0,
            bodies: Vec::new(),
            body_bytes: 0,
        }
    }

    /// Whether there is no section.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sections == 0
    }

    /// Whether the frame is full: it is to be finished before another section is added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.headers.len() + self.body_bytes >= FRAME_BYTES_TARGET || self.sections >= SECTIONS_MAX
    }

    /// Adds a section.
    ///
    /// # Panics
    ///
    /// If a section's message and its entries or base do not belong together.
    pub fn push(&mut self, section: &Section) {
        self.sections += 1;
        match section {
            Section::Message { group, message } => self.push_message(*group, message),
            Section::Append {
                group,
                message,
                entries,
            } => self.push_append(*group, message, entries),
            Section::Base {
                group,
                message,
                base,
            } => self.push_base(*group, message, base),
            Section::Beats(beats) => self.push_beats(beats),
            Section::BeatAnswers(answers) => self.push_beat_answers(answers),
            Section::Repeat(repeat) => self.push_repeat(*repeat),
            Section::RepeatAnswer(answer) => self.push_repeat_answer(answer),
            Section::Leaders(leaders) => self.push_leaders(leaders),
            Section::Wanted {
                group,
                from,
                last,
                max_bytes,
            } => {
                self.headers.put_u8(tag::WANTED);
                self.headers.put_u64(group.0);
                self.headers.put_u64(from.0);
                self.headers.put_u64(last.0);
                self.headers.put_u32(*max_bytes);
            }
            Section::Supply { group, entries } => {
                self.headers.put_u8(tag::SUPPLY);
                self.headers.put_u64(group.0);
                self.headers.put_len(entries.len());
                entries.iter().for_each(|entry| self.put_entry(entry));
            }
            Section::Service { to_shard, message } => {
                self.headers.put_u8(tag::SERVICE);
                self.headers.put_u16(*to_shard);
                self.headers.put_len(message.len());
                self.headers.put_u32(crc32c(message));
                self.put_body(message);
            }
        }
    }

    /// The frame, in pieces, as it is to be sent; the builder is empty again.
    ///
    /// # Panics
    ///
    /// If the headers exceed [`FRAME_HEADER_BYTES_MAX`].
    pub fn finish(&mut self, route: &Route, from_shard: u16) -> Vec<Buffer> {
        let built = std::mem::take(self);
        let mut headers = built.headers;
        assert!(
            headers.len() <= FRAME_HEADER_BYTES_MAX,
            "a frame's headers are bounded by what is pushed between two looks at is_full"
        );
        let mut front = Vec::with_capacity(HEADER_BYTES);
        front.put_u32(0);
        front.put(&MAGIC);
        front.put_u16(VERSION);
        front.put_u16(FLAG_KNOWS_REPEATS);
        front.put_len(headers.len());
        front.put(&route.cluster.0);
        front.put_u32(route.from.0);
        front.put_u32(route.to.0);
        front.put(&route.from_incarnation.0);
        front.put(&route.to_incarnation.0);
        front.put_u64(route.session.0);
        front.put_u16(from_shard);
        front.put_u16(0);
        front.put_u32(built.sections);
        front.put_u64(u64::try_from(built.body_bytes).expect("a length fits into 64 bits"));
        assert_eq!(front.len(), HEADER_BYTES);
        headers[..HEADER_BYTES].copy_from_slice(&front);
        let crc = crc32fast::hash(&headers[4..]);
        headers[..4].copy_from_slice(&crc.to_le_bytes());
        std::iter::once(Buffer::from(headers))
            .chain(built.bodies)
            .collect()
    }

    fn begin(&mut self, tag: u8, group: GroupId, term: Term) {
        self.headers.put_u8(tag);
        self.headers.put_u64(group.0);
        self.headers.put_u32(term.get());
    }

    fn put_id(&mut self, id: EntryId) {
        self.headers.put_u64(id.index.0);
        self.headers.put_u32(id.term.get());
    }

    fn put_body(&mut self, body: &Buffer) {
        if !body.is_empty() {
            self.body_bytes += body.len();
            self.bodies.push(body.clone());
        }
    }

    fn push_message(&mut self, group: GroupId, message: &Message) {
        match *message {
            Message::PreVote { term, last } => {
                self.begin(tag::PRE_VOTE, group, term);
                self.put_id(last);
            }
            Message::PreVoteReply { term, granted } => {
                self.begin(tag::PRE_VOTE_REPLY, group, term);
                self.headers.put_u8(granted.into());
            }
            Message::Vote {
                term,
                last,
                transfer,
            } => {
                self.begin(tag::VOTE, group, term);
                self.put_id(last);
                self.headers.put_u8(transfer.into());
            }
            Message::VoteReply { term, granted } => {
                self.begin(tag::VOTE_REPLY, group, term);
                self.headers.put_u8(granted.into());
            }
            Message::Append { .. } => self.push_append(group, message, &[]),
            Message::AppendReply {
                term,
                window,
                outcome,
            } => {
                self.begin(tag::APPEND_REPLY, group, term);
                self.headers.put_u64(window);
                self.put_outcome(outcome);
            }
            Message::Base { .. } => panic!("a base message travels with its base"),
            Message::TimeoutNow { term } => self.begin(tag::TIMEOUT_NOW, group, term),
        }
    }

    fn put_outcome(&mut self, outcome: AppendOutcome) {
        match outcome {
            AppendOutcome::Accepted {
                matched,
                synced,
                promised,
            } => {
                self.headers.put_u8(outcome::ACCEPTED);
                self.headers.put_u64(matched.0);
                self.headers.put_u64(synced.0);
                self.headers.put_u64(promised.0);
            }
            AppendOutcome::Conflict { at, first } => {
                self.headers.put_u8(outcome::CONFLICT);
                self.put_id(at);
                self.headers.put_u64(first.0);
            }
            AppendOutcome::Busy { last } => {
                self.headers.put_u8(outcome::BUSY);
                self.headers.put_u64(last.0);
            }
            AppendOutcome::Stale => self.headers.put_u8(outcome::STALE),
        }
    }

    fn push_append(&mut self, group: GroupId, message: &Message, entries: &[Entry]) {
        let Message::Append {
            term,
            window,
            previous,
            entries: ref metas,
            commit,
        } = *message
        else {
            panic!("an append section holds an append")
        };
        assert_eq!(metas.len(), entries.len(), "a body for each meta");
        self.begin(tag::APPEND, group, term);
        self.headers.put_u64(window);
        self.put_id(previous);
        self.headers.put_u64(commit.0);
        self.headers.put_len(entries.len());
        for (entry, meta) in entries.iter().zip(metas) {
            assert_eq!(
                positions::id_from_log(entry.id),
                meta.id,
                "the body of another entry"
            );
            self.put_entry(entry);
        }
    }

    fn put_entry(&mut self, entry: &Entry) {
        let before = self.headers.len();
        self.headers.put_u64(entry.id.index.0);
        self.headers.put_u32(entry.id.term.0);
        self.headers.put_u32(match entry.kind {
            EntryKind::Data => 1,
            EntryKind::Control => 2,
        });
        self.headers.put_u64(entry.base_offset.0);
        self.headers.put_u32(entry.offset_span);
        self.headers.put_u32(entry.append_time);
        self.headers.put_u64(entry.chain.0);
        self.headers.put_u32(entry.body_crc);
        self.headers.put_len(entry.body.len());
        assert_eq!(self.headers.len() - before, width::ENTRY);
        self.put_body(&entry.body);
    }

    fn push_base(&mut self, group: GroupId, message: &Message, base: &Base) {
        let Message::Base {
            term,
            window,
            before,
        } = *message
        else {
            panic!("a base section holds a base")
        };
        let Position {
            before: in_base,
            chain,
            offset,
        } = base.start;
        assert_eq!(positions::id_from_log(in_base), before, "another base");
        self.begin(tag::BASE, group, term);
        self.headers.put_u64(window);
        self.put_id(before);
        self.headers.put_u64(chain.0);
        self.headers.put_u64(offset.0);
        self.headers.put_u64(base.log_start_offset.0);
        self.headers.put_len(base.state.len());
        self.headers.put_u32(crc32c(&base.state));
        self.headers.put_len(base.epochs.len());
        for epoch in &base.epochs {
            self.headers.put_u32(epoch.term.0);
            self.headers.put_u64(epoch.first_index.0);
            self.headers.put_u64(epoch.first_offset.0);
        }
        self.put_body(&base.state);
    }

    fn push_beats(&mut self, beats: &Beats) {
        self.headers.put_u8(match beats.is_kept {
            true => tag::KEPT_BEATS,
            false => tag::BEATS,
        });
        self.headers.put_u64(beats.round.0);
        self.headers.put_len(beats.rows.len());
        for (group, row) in &beats.rows {
            self.headers.put_u64(group.0);
            self.headers.put_u32(row.term.get());
            self.headers.put_u64(row.last.0);
            self.headers.put_u64(row.commit.0);
        }
    }

    fn push_beat_answers(&mut self, answers: &BeatAnswers) {
        self.headers.put_u8(tag::BEAT_ANSWERS);
        self.headers.put_u16(answers.to_shard);
        self.headers.put_u64(answers.round.0);
        self.headers.put_len(answers.answered.len());
        for &(first, count) in &answers.answered {
            self.headers.put_u32(first);
            self.headers.put_u32(count);
        }
        self.put_exceptions(&answers.exceptions);
    }

    fn push_repeat(&mut self, repeat: BeatRepeat) {
        self.headers.put_u8(tag::REPEAT);
        self.headers.put_u16(repeat.to_shard);
        self.headers.put_u64(repeat.round.0);
        self.headers.put_u64(repeat.of.0);
    }

    fn push_repeat_answer(&mut self, answer: &RepeatAnswer) {
        self.headers.put_u8(tag::REPEAT_ANSWER);
        self.headers.put_u16(answer.to_shard);
        self.headers.put_u64(answer.round.0);
        self.headers.put_u64(answer.of.0);
        self.headers.put_u8(answer.is_known.into());
        self.put_exceptions(&answer.exceptions);
    }

    fn put_exceptions(&mut self, exceptions: &[(u32, BeatException)]) {
        self.headers.put_len(exceptions.len());
        for &(place, exception) in exceptions {
            self.headers.put_u32(place);
            let (kind, term) = match exception {
                BeatException::HigherTerm { term } => (1, term.get()),
                BeatException::Unknown => (2, 0),
            };
            self.headers.put_u8(kind);
            self.headers.put_u32(term);
        }
    }

    fn push_leaders(&mut self, leaders: &[LeaderHint]) {
        self.headers.put_u8(tag::LEADERS);
        self.headers.put_len(leaders.len());
        for hint in leaders {
            self.headers.put_u64(hint.group.0);
            self.headers.put_u32(hint.epoch.get());
            self.headers.put_u32(hint.leader.0);
        }
    }
}
