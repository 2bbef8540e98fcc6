//! A data directory with files of any content, whose checksums hold where the script says so. A
//! node that starts on it refuses, or reads what it says that it has.

use std::sync::LazyLock;

use highwater_log::format::begin::{Begin, Reason};
use highwater_log::format::frame::{FrameHeader, FrameKind, HEADER_LEN, LAG_NONE};
use highwater_log::format::identity::FileIdentity;
use highwater_log::format::journal::{GroupRecord, Unit, UnitHeader};
use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{
    Chain, ClusterId, Directory, EntryId, Expected, HardState, Incarnation, Inspector, LogIndex,
    Position, Sequence, Term,
};
use highwater_record::{Buffer, Offset, crc32c};

use super::formats::mend;
use super::script::Script;
use crate::common::{GROUP, HALF_BYTES, Node, config, format, open_disk, open_store};

const BLOCK: usize = 4_096;

/// How large a file of the script becomes, in bytes.
const FILE_BYTES: usize = 64 << 10;

/// A salt that is no secret.
const SALT: u64 = 0x5a17;

/// How many entries of a log are read.
const READS_MAX: u64 = 200;

/// A group with nothing in it.
static EMPTY: LazyLock<MemoryDisk> = LazyLock::new(|| {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    node.create(GROUP);
    node.idle();
    drop(node);
    disk
});

pub(crate) fn check(data: &[u8]) {
    let mut script = Script::new(data);
    let disk = EMPTY.fork();
    for sequence in 1..=u64::from(script.u8() % 3) {
        let path = format!("groups/{GROUP}/{sequence:010}.log");
        let file = segment(Sequence(sequence), &mut script);
        disk.put(&path, &file)
            .expect("the group's directory is there");
    }
    for copy in ['a', 'b'] {
        if script.u8() % 2 == 1 {
            let units = journal(&mut script);
            disk.corrupt(&format!("journal/0000-{copy}"), 0, &units)
                .expect("it is there");
        }
    }
    look(&disk);
    start(&disk);
}

/// An identity, most often, and then frames, noise and gaps.
fn segment(sequence: Sequence, script: &mut Script<'_>) -> Vec<u8> {
    let mut file = match script.u8() {
        0 => script.bytes(BLOCK).to_vec(),
        choice => identity(sequence, choice, script),
    };
    let mut end = Position {
        before: EntryId {
            index: LogIndex(u64::from(script.u8())),
            term: Term(1),
        },
        chain: Chain(0),
        offset: Offset(script.u8().into()),
    };
    let mut is_first = true;
    while !script.is_over() && file.len() < FILE_BYTES {
        match script.u8() % 8 {
            0 => file.extend_from_slice(script.bytes(BLOCK)),
            1 => file.resize(file.len() + 8 * usize::from(script.u8()), 0),
            2 => break,
            _ if is_first => file.extend(begin(&mut end, script)),
            _ => file.extend(entry(&mut end, script)),
        }
        is_first = false;
    }
    file.resize(file.len().max(FILE_BYTES), 0);
    file
}

fn identity(sequence: Sequence, choice: u8, script: &mut Script<'_>) -> Vec<u8> {
    let mut block = FileIdentity {
        first_frame: 4_096,
        cluster: ClusterId([1; 16]),
        incarnation: Incarnation([2; 16]),
        group: GROUP,
        sequence,
        salt: SALT,
        size: FILE_BYTES as u64,
        recycled: choice.is_multiple_of(2),
    }
    .encode();
    if choice < 32 {
        let at = 8 + script.place(80);
        block[at] = script.u8();
        mend(&mut block);
    }
    block
}

fn begin(end: &mut Position, script: &mut Script<'_>) -> Vec<u8> {
    let reason = match script.u8() % 4 {
        0 => Reason::Roll,
        1 => Reason::Cut,
        _ => Reason::Base,
    };
    let begin = Begin {
        reason,
        start: *end,
        log_start_offset: Offset(script.u8().into()),
        epochs: Vec::new(),
        state: match reason {
            Reason::Base => Buffer::from(script.bytes(64).to_vec()),
            Reason::Roll | Reason::Cut => Buffer::new(),
        },
    };
    let body = begin.encode_body();
    framed(begin.header(SALT, &body), &body, script)
}

/// An entry behind what is there.
fn entry(end: &mut Position, script: &mut Script<'_>) -> Vec<u8> {
    let body = script.bytes(300);
    let mut header = FrameHeader {
        body_crc: crc32c(body),
        body_len: u32::try_from(body.len()).expect("small"),
        kind: FrameKind::Data,
        salt: SALT,
        index: end.before.index.next(),
        term: end.before.term,
        offset_span: script.u8().into(),
        base_offset: end.offset,
        chain: Chain(0),
        watermark_lag: match script.u8() {
            0 => LAG_NONE,
            lag => u32::from(lag),
        },
        append_time: 7,
    };
    header.chain = header.chain_after(GROUP, end.chain);
    *end = Position {
        before: header.id(),
        chain: header.chain,
        offset: end.offset.advance(header.offset_span.into()),
    };
    framed(header, body, script)
}

/// A frame as it lies on disk; in some, a byte of the header is another.
fn framed(header: FrameHeader, body: &[u8], script: &mut Script<'_>) -> Vec<u8> {
    let mut bytes = header.encode();
    if script.u8().is_multiple_of(8) {
        let at = 4 + script.place(HEADER_LEN - 4);
        bytes[at] = script.u8();
        mend(&mut bytes);
    }
    let mut frame = bytes.to_vec();
    frame.extend_from_slice(body);
    frame.resize(frame.len().next_multiple_of(8), 0);
    frame
}

/// Units that follow one another, or not.
fn journal(script: &mut Script<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut previous_crc = 0;
    for number in 0..u64::from(script.u8() % 4) {
        let header = UnitHeader {
            checkpoint: number == 0,
            promises_lost: false,
            shard: 0,
            incarnation: Incarnation([2; 16]),
            generation: u64::from(script.u8()),
            number,
            previous_crc,
        };
        let record = GroupRecord {
            group: GROUP,
            sequence: u64::from(script.u8()),
            hard: HardState {
                term: Term(script.u8().into()),
                vote: None,
            },
            position: None,
            quarantine: None,
            dropped: script.u8() == 1,
        };
        let mut unit = Unit::encode(&header, &[record], BLOCK);
        if script.u8().is_multiple_of(4) {
            let at = 4 + script.place(124);
            unit[at] = script.u8();
            mend(&mut unit);
        }
        previous_crc = Unit::decode(&unit).map_or(0, |unit| unit.crc);
        bytes.extend(unit);
    }
    bytes
}

fn look(disk: &MemoryDisk) {
    let Ok(mut inspector) = Inspector::open(MemoryStorage::new(disk)) else {
        return;
    };
    for group in inspector.groups() {
        let _ = inspector.verify(group);
        let _ = inspector.walk(group, &mut |_, _| {});
    }
}

fn start(disk: &MemoryDisk) {
    let mut storage = MemoryStorage::new(disk);
    let Ok(directory) = Directory::open(&mut storage, &Expected::default(), 1, HALF_BYTES) else {
        return;
    };
    let Ok((mut node, recovered)) = open_store(storage, config(), &directory) else {
        return;
    };
    for group in &recovered.groups {
        let first = group.start.first().0;
        let last = group.last.index.0.min(first.saturating_add(READS_MAX));
        (first..=last).for_each(|index| read(&mut node, index));
    }
}

/// What is read is the entry that was asked for, whole.
fn read(node: &mut Node, index: u64) {
    if let Ok(entries) = node.read(GROUP, index, 1) {
        assert_eq!(entries[0].id.index.0, index);
        assert_eq!(entries[0].body_crc, crc32c(&entries[0].body));
    }
}
