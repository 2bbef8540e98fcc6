//! Frames of other nodes.

use highwater_consensus as consensus;
use highwater_consensus::{LogIndex, Message, NodeId, Session};
use highwater_engine::GroupId;
use highwater_engine::peer::{FrameBuilder, Route, Section, decode};
use highwater_log::{Chain, ClusterId, Entry, EntryId, EntryKind, Incarnation, Term};
use highwater_net::peer::{HELLO_PREFIX_BYTES, Hello};
use highwater_record::{BATCH_HEADER_BYTES, Buffer, Offset, crc32c};

use super::memory::{self, SMALL};
use super::script::Script;

/// Bytes before a frame's first section.
const HEADER_BYTES: usize = 96;

/// What is decoded is larger than what it is decoded from by no more than this.
const GROWTH: usize = 8;

/// As it is, and with headers that hold: what they say of the sender is what the link says.
pub(crate) fn frame(data: &[u8]) {
    let raw = Buffer::from(data.to_vec());
    read(&raw, &route_of(data));
    let mended = mended(data.to_vec());
    let route = route_of(&mended);
    read(&Buffer::from(mended), &route);
}

fn read(bytes: &Buffer, route: &Route) {
    let bound = GROWTH * bytes.len() + SMALL;
    let frame = memory::at_most(bound, "a peer's frame", || decode(bytes, route));
    let Ok(frame) = frame else { return };
    let mut builder = FrameBuilder::new();
    frame
        .sections
        .iter()
        .for_each(|section| builder.push(section));
    let written = Buffer::from(whole(&builder.finish(route, frame.from_shard)));
    let again = decode(&written, route).expect("what we write, we read");
    // What it knows of later sections its sender says for itself.
    assert_eq!(
        (again.from_shard, again.sections),
        (frame.from_shard, frame.sections)
    );
}

/// Sets the magic, the version, and the checksum over as many bytes as the headers are said to be.
fn mended(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < HEADER_BYTES {
        return bytes;
    }
    bytes[4..8].copy_from_slice(b"HWPF");
    bytes[8..10].copy_from_slice(&1_u16.to_le_bytes());
    let claimed = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    let len = usize::try_from(claimed).unwrap_or(0);
    let len = match (HEADER_BYTES..=bytes.len()).contains(&len) {
        true => len,
        false => bytes.len(),
    };
    let claimed = u32::try_from(len).expect("inputs are small");
    bytes[12..16].copy_from_slice(&claimed.to_le_bytes());
    let crc = crc32fast::hash(&bytes[4..len]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn route_of(bytes: &[u8]) -> Route {
    let mut fields = Script::new(bytes.get(16..).unwrap_or_default());
    Route {
        cluster: ClusterId(fields.array()),
        from: NodeId(fields.u32()),
        to: NodeId(fields.u32()),
        from_incarnation: Incarnation(fields.array()),
        to_incarnation: Incarnation(fields.array()),
        session: Session(fields.u64()),
    }
}

/// The first bytes on a lane: as they are, and with a prefix that holds.
pub(crate) fn hello(data: &[u8]) {
    let Some((&prefix, body)) = data.split_first_chunk::<HELLO_PREFIX_BYTES>() else {
        return;
    };
    read_hello(prefix, body);
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut mended = *b"HWpl\0\0";
    mended[4..].copy_from_slice(&length.to_le_bytes());
    read_hello(mended, body);
}

fn read_hello(prefix: [u8; HELLO_PREFIX_BYTES], body: &[u8]) {
    let length = Hello::body_bytes(prefix).filter(|&length| length <= body.len());
    let Some(length) = length else { return };
    let read = memory::at_most(SMALL, "a handshake", || Hello::decode(&body[..length]));
    let Some(hello) = read else { return };
    let written = hello.encode();
    let (prefix, body) = written.split_first_chunk().expect("a message has a prefix");
    assert_eq!(Hello::body_bytes(*prefix), Some(body.len()));
    assert_eq!(Hello::decode(body), Some(hello));
    if let Some(version) = hello.common_version() {
        assert!((hello.version_min..=hello.version_max).contains(&version));
    }
}

/// An append whose entries follow from a script, with checksums that hold.
pub(crate) fn append(data: &[u8]) {
    let mut script = Script::new(data);
    let route = route_of(&[]);
    let first = script.u64() >> 2;
    let mut entries: Vec<Entry> = Vec::new();
    while !script.is_over() && entries.len() < 32 {
        let offset = match entries.last() {
            Some(last) => last.base_offset.checked_advance(last.offset_span.into()),
            None => Some(Offset(script.u64() >> 1)),
        };
        let index = first.saturating_add(entries.len() as u64 + 1);
        let Some(offset) = offset else { break };
        entries.push(entry(&mut script, index, offset));
    }
    let bytes = Buffer::from(write(&route, first, &entries));
    let bound = GROWTH * bytes.len() + SMALL;
    let frame = memory::at_most(bound, "a peer's append", || decode(&bytes, &route));
    let Ok(frame) = frame else { return };
    if let [Section::Append { entries: read, .. }] = &frame.sections[..] {
        assert_eq!(*read, entries);
    }
}

fn entry(script: &mut Script<'_>, index: u64, offset: Offset) -> Entry {
    let choice = script.u8();
    let span = u32::from(script.u8());
    let term = 1 + u32::from(choice >> 4);
    let kind = match choice % 4 {
        0 => EntryKind::Control,
        _ => EntryKind::Data,
    };
    let mut body = script.bytes(1 << 12).to_vec();
    if choice % 4 > 1 && body.len() >= BATCH_HEADER_BYTES {
        // The header is the entry's: length, offset, epoch, magic, span.
        let length = i32::try_from(body.len() - 12).expect("bodies are small");
        body[..8].copy_from_slice(&offset.0.to_be_bytes());
        body[8..12].copy_from_slice(&length.to_be_bytes());
        body[12..16].copy_from_slice(&term.to_be_bytes());
        body[16] = 2;
        body[23..27].copy_from_slice(&span.saturating_sub(1).to_be_bytes());
    }
    Entry {
        id: EntryId {
            index: highwater_log::LogIndex(index),
            term: Term(term),
        },
        kind,
        base_offset: offset,
        offset_span: span,
        append_time: 7,
        chain: Chain(index),
        body_crc: crc32c(&body),
        body: Buffer::from(body),
    }
}

fn write(route: &Route, first: u64, entries: &[Entry]) -> Vec<u8> {
    let term = |term: u32| consensus::Term::new(term).expect("small");
    let id = |index: u64, of: u32| consensus::EntryId {
        index: LogIndex(index),
        term: term(of),
    };
    let metas = entries.iter().map(|entry| consensus::EntryMeta {
        id: id(entry.id.index.0, entry.id.term.0),
        kind: consensus::EntryKind::Data,
        size: 0,
    });
    let section = Section::Append {
        group: GroupId(7),
        message: Message::Append {
            term: term(20),
            window: 1,
            previous: id(first, 1),
            entries: metas.collect(),
            commit: LogIndex(first),
        },
        entries: entries.to_vec(),
    };
    let mut builder = FrameBuilder::new();
    builder.push(&section);
    whole(&builder.finish(route, 0))
}

fn whole(pieces: &[Buffer]) -> Vec<u8> {
    pieces
        .iter()
        .flat_map(|piece| piece.iter().copied())
        .collect()
}
