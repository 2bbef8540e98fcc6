use highwater_consensus::{
    AppendOutcome, BeatException, BeatRound, BeatRow, EntryId, EntryMeta, LogIndex, Message,
    NodeId, Session, Term,
};
use highwater_log::{Base, Chain, ClusterId, Entry, EntryKind, Epoch, Incarnation, Position};
use highwater_record::{
    BATCH_PREFIX_BYTES, Buffer, Compression, LeaderEpoch, Offset, RecordBatchBuilder, crc32c,
};
use proptest::prelude::*;

use super::*;
use crate::positions::{self, Control};

const GROUP: GroupId = GroupId(7);

fn route() -> Route {
    Route {
        cluster: ClusterId([1; 16]),
        from: NodeId(2),
        from_incarnation: Incarnation([2; 16]),
        to: NodeId(3),
        to_incarnation: Incarnation([3; 16]),
        session: Session(4),
    }
}

fn term(term: u32) -> Term {
    Term::new(term).unwrap()
}

fn id(index: u64, of: u32) -> EntryId {
    EntryId {
        index: LogIndex(index),
        term: term(of),
    }
}

fn data(index: u64, base_offset: u64) -> Entry {
    let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
    builder.append(1_000, None, Some(b"value"), &[]).unwrap();
    let mut body = builder.seal().unwrap();
    highwater_record::stamp(&mut body, Offset(base_offset), LeaderEpoch::new(5).unwrap());
    assert!(body.len() > BATCH_PREFIX_BYTES);
    entry(index, base_offset, 1, EntryKind::Data, Buffer::from(body))
}

fn control(index: u64, base_offset: u64) -> Entry {
    let body = Control::LogStart(Offset(9)).body();
    entry(index, base_offset, 0, EntryKind::Control, body)
}

fn entry(index: u64, base_offset: u64, span: u32, kind: EntryKind, body: Buffer) -> Entry {
    Entry {
        id: positions::id_to_log(id(index, 5)),
        kind,
        base_offset: Offset(base_offset),
        offset_span: span,
        append_time: 77,
        chain: Chain(index * 1_000),
        body_crc: crc32c(&body),
        body,
    }
}

fn append(entries: Vec<Entry>) -> Section {
    let metas: Vec<EntryMeta> = entries
        .iter()
        .map(|entry| positions::meta(entry).unwrap())
        .collect();
    Section::Append {
        group: GROUP,
        message: Message::Append {
            term: term(5),
            window: 2,
            previous: id(9, 4),
            entries: metas,
            commit: LogIndex(8),
        },
        entries,
    }
}

fn base() -> Section {
    Section::Base {
        group: GROUP,
        message: Message::Base {
            term: term(5),
            window: 3,
            before: id(20, 4),
        },
        base: Base {
            start: Position {
                before: positions::id_to_log(id(20, 4)),
                chain: Chain(42),
                offset: Offset(100),
            },
            log_start_offset: Offset(90),
            epochs: vec![Epoch {
                term: highwater_log::Term(4),
                first_index: highwater_log::LogIndex(3),
                first_offset: Offset(2),
            }],
            state: Buffer::from(b"producers".to_vec()),
        },
    }
}

fn message(message: Message) -> Section {
    Section::Message {
        group: GROUP,
        message,
    }
}

/// One section of each kind, and each variant of what has several.
fn all_sections() -> Vec<Section> {
    let reply = |outcome| {
        message(Message::AppendReply {
            term: term(5),
            window: 1,
            outcome,
        })
    };
    vec![
        message(Message::PreVote {
            term: term(6),
            last: id(3, 2),
        }),
        message(Message::PreVoteReply {
            term: term(6),
            granted: true,
        }),
        message(Message::Vote {
            term: term(6),
            last: id(3, 2),
            transfer: true,
        }),
        message(Message::VoteReply {
            term: term(6),
            granted: false,
        }),
        message(Message::TimeoutNow { term: term(6) }),
        message(Message::Append {
            term: term(5),
            window: 2,
            previous: id(9, 4),
            entries: Vec::new(),
            commit: LogIndex(8),
        }),
        reply(AppendOutcome::Accepted {
            matched: LogIndex(5),
            synced: LogIndex(4),
            promised: LogIndex(3),
        }),
        reply(AppendOutcome::Conflict {
            at: id(5, 2),
            first: LogIndex(3),
        }),
        reply(AppendOutcome::Busy { last: LogIndex(5) }),
        reply(AppendOutcome::Stale),
        append(vec![data(10, 100), control(11, 101), data(12, 101)]),
        base(),
        Section::Beats(Beats {
            round: BeatRound(8),
            rows: vec![(
                GROUP,
                BeatRow {
                    term: term(5),
                    last: LogIndex(12),
                    commit: LogIndex(8),
                },
            )],
            places: vec![0],
            is_kept: false,
        }),
        Section::Beats(Beats {
            round: BeatRound(9),
            rows: vec![
                (
                    GROUP,
                    BeatRow {
                        term: term(5),
                        last: LogIndex(12),
                        commit: LogIndex(12),
                    },
                );
                2
            ],
            places: vec![0, 1],
            is_kept: true,
        }),
        Section::Repeat(BeatRepeat {
            to_shard: 3,
            round: BeatRound(10),
            of: BeatRound(9),
        }),
        Section::RepeatAnswer(RepeatAnswer {
            to_shard: 3,
            round: BeatRound(10),
            of: BeatRound(9),
            is_known: true,
            exceptions: vec![(1, BeatException::Unknown)],
        }),
        Section::BeatAnswers(BeatAnswers {
            to_shard: 1,
            round: BeatRound(8),
            answered: vec![(0, 3), (7, 1)],
            exceptions: vec![
                (2, BeatException::HigherTerm { term: term(9) }),
                (7, BeatException::Unknown),
            ],
        }),
        Section::Leaders(vec![LeaderHint {
            group: GROUP,
            epoch: LeaderEpoch::new(5).unwrap(),
            leader: NodeId(2),
        }]),
        Section::Wanted {
            group: GroupId(7),
            from: LogIndex(3),
            last: LogIndex(9),
            max_bytes: 1 << 20,
        },
        Section::Supply {
            group: GroupId(7),
            entries: vec![data(3, 10), control(4, 11)],
        },
        Section::Supply {
            group: GroupId(8),
            entries: Vec::new(),
        },
        Section::Service {
            to_shard: 1,
            message: Buffer::from(b"question".to_vec()),
        },
    ]
}

fn frame_of(sections: &[Section]) -> Vec<u8> {
    let mut builder = FrameBuilder::new();
    for section in sections {
        builder.push(section);
    }
    let chunks = builder.finish(&route(), 6);
    assert!(builder.is_empty());
    chunks.iter().flat_map(|chunk| chunk.to_vec()).collect()
}

fn read(bytes: Vec<u8>) -> Result<Frame, FrameError> {
    decode(&Buffer::from(bytes), &route())
}

/// Makes the header checksum hold again, as a peer would that lies on purpose.
fn reseal(frame: &mut [u8]) {
    let claimed = u32::from_le_bytes(frame[12..16].try_into().unwrap());
    let end = usize::try_from(claimed).unwrap().clamp(16, frame.len());
    let crc = crc32fast::hash(&frame[4..end]);
    frame[..4].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn every_section_comes_out_as_it_went_in() {
    let sections = all_sections();
    let frame = read(frame_of(&sections)).unwrap();
    assert_eq!(frame.from_shard, 6);
    assert!(frame.knows_repeats);
    assert_eq!(frame.sections, sections);
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let vote = message(Message::Vote {
        term: term(0x0506_0708),
        last: id(0x11, 0x22),
        transfer: true,
    });
    let frame = frame_of(&[vote]);
    let mut expected = b"HWPF".to_vec();
    expected.extend_from_slice(&[1, 0, 1, 0]);
    expected.extend_from_slice(&[96 + 26, 0, 0, 0]);
    expected.extend_from_slice(&[1; 16]);
    expected.extend_from_slice(&[2, 0, 0, 0, 3, 0, 0, 0]);
    expected.extend_from_slice(&[2; 16]);
    expected.extend_from_slice(&[3; 16]);
    expected.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[6, 0, 0, 0, 1, 0, 0, 0]);
    expected.extend_from_slice(&[0; 8]);
    expected.extend_from_slice(&[3, 7, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5]);
    expected.extend_from_slice(&[0x11, 0, 0, 0, 0, 0, 0, 0, 0x22, 0, 0, 0, 1]);
    assert_eq!(frame[4..], expected);
}

#[test]
fn what_repeats_a_beat_has_the_bytes_of_the_format() {
    let repeat = BeatRepeat {
        to_shard: 0x0102,
        round: BeatRound(0x0a),
        of: BeatRound(0x09),
    };
    let answer = RepeatAnswer {
        to_shard: 4,
        round: BeatRound(0x0a),
        of: BeatRound(0x09),
        is_known: true,
        exceptions: vec![(7, BeatException::HigherTerm { term: term(6) })],
    };
    let frame = frame_of(&[Section::Repeat(repeat), Section::RepeatAnswer(answer)]);
    let mut expected = vec![16, 2, 1, 10, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    expected.extend_from_slice(&[17, 4, 0, 10, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[1, 1, 0, 0, 0, 7, 0, 0, 0, 1, 6, 0, 0, 0]);
    assert_eq!(frame[96..], expected);
}

/// A node of an earlier release sets no flags, and is not sent what it does not know.
#[test]
fn who_does_not_say_that_it_knows_repeated_beats_is_taken_not_to() {
    let mut frame = frame_of(&[]);
    frame[10] = 0;
    reseal(&mut frame);
    assert!(!read(frame).unwrap().knows_repeats);
}

#[test]
fn bodies_are_slices_of_the_frame() {
    let bytes = Buffer::from(frame_of(&[append(vec![data(10, 100)])]));
    let frame = decode(&bytes, &route()).unwrap();
    let Section::Append { entries, .. } = &frame.sections[0] else {
        panic!("an append")
    };
    let frame_range = bytes.as_ptr_range();
    assert!(frame_range.contains(&entries[0].body.as_ptr()));
}

#[test]
fn a_flipped_bit_anywhere_is_seen() {
    let good = frame_of(&[append(vec![data(10, 100), control(11, 101)]), base()]);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(read(bad).is_err(), "byte {at}");
    }
}

#[test]
fn a_frame_cut_short_anywhere_is_refused() {
    let good = frame_of(&all_sections());
    for len in 0..good.len() {
        assert!(read(good[..len].to_vec()).is_err(), "length {len}");
    }
    let mut long = good;
    long.push(0);
    assert_eq!(read(long), Err(FrameError::Length { what: "too long" }));
}

#[test]
fn g29_frames_of_another_cluster_life_or_session_are_refused() {
    let bytes = Buffer::from(frame_of(&all_sections()));
    let others = [
        Route {
            cluster: ClusterId([9; 16]),
            ..route()
        },
        Route {
            from: NodeId(9),
            ..route()
        },
        Route {
            to: NodeId(9),
            ..route()
        },
        Route {
            from_incarnation: Incarnation([9; 16]),
            ..route()
        },
        Route {
            to_incarnation: Incarnation([9; 16]),
            ..route()
        },
    ];
    for other in others {
        let read = decode(&bytes, &other);
        assert_eq!(read, Err(FrameError::Identity { from: NodeId(2) }));
    }
    let later = Route {
        session: Session(5),
        ..route()
    };
    let expected = FrameError::Session {
        found: Session(4),
        expected: Session(5),
    };
    assert_eq!(decode(&bytes, &later), Err(expected));
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut frame = frame_of(&[]);
    frame[8] = 2;
    reseal(&mut frame);
    let expected = FrameError::Version { found: 2, known: 1 };
    assert_eq!(read(frame), Err(expected));
}

#[test]
fn a_term_beyond_i32_is_refused() {
    let mut frame = frame_of(&[message(Message::TimeoutNow { term: term(1) })]);
    frame[96 + 9..96 + 13].copy_from_slice(&(i32::MAX as u32 + 1).to_le_bytes());
    reseal(&mut frame);
    assert!(matches!(
        read(frame),
        Err(FrameError::Field { field: "term", .. })
    ));
}

#[test]
fn a_batch_that_is_not_what_its_entry_says_is_refused() {
    let honest = data(10, 100);
    let lies = [
        Entry {
            base_offset: Offset(101),
            ..honest.clone()
        },
        Entry {
            offset_span: 2,
            ..honest.clone()
        },
        Entry {
            id: positions::id_to_log(id(10, 6)),
            ..honest
        },
    ];
    for lie in lies {
        let read = read(frame_of(&[append(vec![lie])]));
        assert_eq!(read, Err(FrameError::Batch { index: 10 }));
    }
}

#[test]
fn counts_are_checked_before_memory_is_taken() {
    let mut frame = frame_of(&[Section::Leaders(Vec::new())]);
    frame[97..101].copy_from_slice(&u32::MAX.to_le_bytes());
    reseal(&mut frame);
    assert_eq!(read(frame), Err(FrameError::Length { what: "too short" }));
}

proptest! {
    #[test]
    fn hostile_headers_never_panic(
        changes in prop::collection::vec((4_usize..700, any::<u8>()), 1..8),
        cut in 0_usize..64,
    ) {
        let mut frame = frame_of(&all_sections());
        for (at, value) in changes {
            let len = frame.len();
            frame[at % len] = value;
        }
        frame.truncate(frame.len() - cut);
        reseal(&mut frame);
        let _ = read(frame);
    }
}
