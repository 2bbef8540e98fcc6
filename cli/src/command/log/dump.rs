//! `highwater log dump`.

use highwater_log::format::begin::Begin;
use highwater_log::format::footer::Footer;
use highwater_log::format::frame::FrameHeader;
use highwater_log::format::identity::FileIdentity;
use highwater_log::format::journal::GroupRecord;
use highwater_log::{EntryKind, FileState, Item, Place};
use highwater_record::{BatchHeader, TopicPartition};
use serde_json::{Value, json};

use super::{Selection, open_failure};
use crate::exit::Failure;
use crate::print::Printer;

/// Shows everything.
///
/// # Errors
/// When the directory cannot be read, or stdout not written.
pub(super) fn run(selection: &Selection, printer: Printer) -> Result<(), Failure> {
    let mut inspector = selection.inspector()?;
    let topics = selection.topics(&mut inspector)?;
    let identity = inspector.identity();
    printer.line(
        || {
            format!(
                "node {} of cluster {}, incarnation {}, booted {} times",
                identity.node, identity.cluster, identity.incarnation, identity.boots
            )
        },
        || {
            json!({
                "kind": "directory",
                "node": identity.node.0,
                "cluster": identity.cluster.to_string(),
                "incarnation": identity.incarnation.to_string(),
                "boots": identity.boots,
            })
        },
    )?;
    let groups = selection.groups(&inspector);
    for record in groups
        .iter()
        .filter_map(|group| inspector.promises().get(group))
    {
        printer.line(|| promise_text(record), || promise_json(record))?;
    }
    for group in groups {
        let partition = topics.partition(group);
        let mut printed = Ok(());
        let walked = inspector.walk(group, &mut |place, item| {
            if printed.is_ok() {
                let line = Line {
                    place,
                    item,
                    partition: partition.as_ref(),
                };
                printed = printer.line(|| line.text(), || line.json());
            }
        });
        printed?;
        walked.map_err(|error| open_failure(&selection.directory, &error))?;
    }
    Ok(())
}

fn promise_text(record: &GroupRecord) -> String {
    let vote = record.hard.vote.map_or_else(
        || "no vote".to_owned(),
        |node| format!("vote for node {node}"),
    );
    let synced = record.position.map_or_else(String::new, |at| {
        format!(
            ", synced through entry {} in file {}",
            at.index, at.sequence
        )
    });
    let quarantine = record.quarantine.map_or_else(String::new, |hole| {
        format!(", quarantined from entry {}", hole.first)
    });
    let dropped = if record.dropped { ", dropped" } else { "" };
    format!(
        "journal: group {} term {}, {vote}{synced}{quarantine}{dropped}",
        record.group, record.hard.term
    )
}

fn promise_json(record: &GroupRecord) -> Value {
    json!({
        "kind": "promise",
        "group": record.group.0,
        "term": record.hard.term.0,
        "vote": record.hard.vote.map(|node| node.0),
        "synced": record.position.map(|at| at.index.0),
        "quarantined_from": record.quarantine.map(|hole| hole.first.0),
        "dropped": record.dropped,
    })
}

struct Line<'a> {
    place: Place<'a>,
    item: Item<'a>,
    partition: Option<&'a TopicPartition>,
}

impl Line<'_> {
    fn text(&self) -> String {
        let what = match self.item {
            Item::File {
                identity,
                len,
                state,
            } => file_text(identity, len, state, self.partition),
            Item::Begin(begin) => begin_text(begin),
            Item::Entry { header, body } => entry_text(header, body),
            Item::Garbage { len } => format!("{len} bytes that belong to no frame"),
            Item::Footer(footer) => footer_text(footer),
        };
        format!("{} @{}: {what}", self.place.path, self.place.offset)
    }

    fn json(&self) -> Value {
        let mut object = match self.item {
            Item::File {
                identity,
                len,
                state,
            } => json!({
                "kind": "file",
                "bytes": len,
                "state": state_word(state),
                "sequence": identity.map(|identity| identity.sequence.0),
            }),
            Item::Begin(begin) => json!({
                "kind": "begin",
                "reason": reason_word(begin),
                "first_index": begin.start.first().0,
                "base_offset": begin.start.offset.0,
                "log_start_offset": begin.log_start_offset.0,
            }),
            Item::Entry { header, body } => entry_json(header, body),
            Item::Garbage { len } => json!({ "kind": "garbage", "bytes": len }),
            Item::Footer(footer) => json!({
                "kind": "footer",
                "last_index": footer.end.before.index.0,
                "end_offset": footer.end.offset.0,
                "largest_timestamp": footer.largest_timestamp,
                "snapshot_bytes": footer.snapshot.as_ref().map(|snap| snap.state.len()),
            }),
        };
        object["file"] = json!(self.place.path);
        object["offset"] = json!(self.place.offset);
        object["group"] = json!(self.place.group.0);
        object["topic"] = json!(self.partition.map(|at| at.topic.as_str()));
        object["partition"] = json!(self.partition.map(|at| at.partition));
        object
    }
}

fn file_text(
    identity: Option<&FileIdentity>,
    len: u64,
    state: FileState,
    partition: Option<&TopicPartition>,
) -> String {
    let of = partition.map_or_else(String::new, |partition| format!(" of {partition}"));
    let identity = match identity {
        Some(_) => "",
        None => ", identity block not good",
    };
    format!("file{of}, {len} bytes, {}{identity}", state_word(state))
}

fn state_word(state: FileState) -> &'static str {
    match state {
        FileState::Visible => "in use",
        FileState::Hidden => "hidden",
        FileState::Unused => "unused",
        FileState::Corrupt => "corrupt",
    }
}

fn begin_text(begin: &Begin) -> String {
    format!(
        "begin by {}, first entry {}, offset {}",
        reason_word(begin),
        begin.start.first(),
        begin.start.offset
    )
}

fn reason_word(begin: &Begin) -> &'static str {
    use highwater_log::format::begin::Reason;
    match begin.reason {
        Reason::Roll => "roll",
        Reason::Cut => "cut",
        Reason::Base => "base",
    }
}

fn footer_text(footer: &Footer) -> String {
    format!(
        "footer, last entry {}, offsets end at {}",
        footer.end.before.index, footer.end.offset
    )
}

fn entry_text(header: &FrameHeader, body: Option<&[u8]>) -> String {
    let front = format!("entry {}, term {}", header.index, header.term);
    let Some(body) = body else {
        return format!("{front}: BAD BODY, {} bytes", header.body_len);
    };
    if header.kind.entry() != Some(EntryKind::Data) {
        return format!("{front}: control, {} bytes", body.len());
    }
    match BatchHeader::read(body) {
        Err(error) => format!("{front}: {} bytes, no record batch: {error}", body.len()),
        Ok(batch) => {
            let producer = batch.producer().map_or_else(String::new, |_| {
                format!(
                    ", producer {} epoch {} sequence {}",
                    batch.producer_id(),
                    batch.producer_epoch(),
                    batch.base_sequence()
                )
            });
            format!(
                "{front}: offsets {} to {}, {} records, {} bytes, {}{producer}",
                batch.base_offset(),
                batch.last_offset(),
                batch.records_count(),
                body.len(),
                batch.compression().name()
            )
        }
    }
}

fn entry_json(header: &FrameHeader, body: Option<&[u8]>) -> Value {
    let is_data = header.kind.entry() == Some(EntryKind::Data);
    let mut object = json!({
        "kind": if is_data { "data" } else { "control" },
        "index": header.index.0,
        "term": header.term.0,
        "bytes": header.body_len,
        "chain": header.chain.to_string(),
        "append_time": header.append_time,
        "good": body.is_some(),
    });
    let batch = body.filter(|_| is_data).map(BatchHeader::read);
    if let Some(Ok(batch)) = batch {
        object["base_offset"] = json!(batch.base_offset().0);
        object["last_offset"] = json!(batch.last_offset().0);
        object["records"] = json!(batch.records_count());
        object["codec"] = json!(batch.compression().name());
        object["max_timestamp"] = json!(batch.max_timestamp());
        object["producer_id"] = json!(batch.producer_id());
        object["producer_epoch"] = json!(batch.producer_epoch());
        object["base_sequence"] = json!(batch.base_sequence());
    }
    object
}
