//! An event to its line, and back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use highwater_engine::testing::history::{Action, Event, Partition, Phase, ReadRecord};
use serde_json::{Map, Value, json};

/// The line of an event, without the line's end.
#[must_use]
pub fn write_event(event: &Event) -> String {
    let nanos = u64::try_from(event.time.as_nanos()).unwrap_or(u64::MAX);
    let mut line = json!({
        "time": nanos,
        "process": event.process,
        "op": event.op,
        "type": phase_name(event.phase),
    });
    let (name, fields) = describe(&event.action);
    let object = line.as_object_mut().expect("made as an object");
    object.insert("f".to_owned(), Value::from(name));
    if let Value::Object(fields) = fields {
        object.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
    }
    line.to_string()
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Invoke => "invoke",
        Phase::Ok => "ok",
        Phase::Fail => "fail",
        Phase::Info => "info",
    }
}

fn describe(action: &Action) -> (&'static str, Value) {
    let at = |partition: &Partition, mut fields: Value| {
        let object = fields.as_object_mut().expect("made as an object");
        object.insert("topic".to_owned(), Value::from(&*partition.topic));
        object.insert("partition".to_owned(), Value::from(partition.index));
        fields
    };
    let pairs = |records: &[ReadRecord]| -> Vec<Value> {
        let pair = |record: &ReadRecord| json!([record.offset, record.value]);
        records.iter().map(pair).collect()
    };
    match action {
        Action::Send {
            partition,
            values,
            idempotent,
            base_offset,
        } => {
            let fields =
                json!({ "values": values, "idempotent": idempotent, "offset": base_offset });
            ("send", at(partition, fields))
        }
        Action::Poll {
            partition,
            from,
            leader,
            records,
            high_watermark,
            log_start,
        } => {
            let fields = json!({
                "from": from,
                "leader": leader,
                "records": pairs(records),
                "high_watermark": high_watermark,
                "log_start": log_start,
            });
            ("poll", at(partition, fields))
        }
        Action::Assign { partition, offset } => {
            ("assign", at(partition, json!({ "offset": offset })))
        }
        Action::ListOffsets { partition, latest } => {
            ("list-offsets", at(partition, json!({ "latest": latest })))
        }
        Action::DeleteRecords { partition, before } => {
            ("delete-records", at(partition, json!({ "offset": before })))
        }
        Action::DeleteTopic { topic } => ("delete-topic", json!({ "topic": &**topic })),
        Action::CommitOffset {
            group,
            partition,
            offset,
        } => {
            let fields = json!({ "group": &**group, "offset": offset });
            ("commit-offset", at(partition, fields))
        }
        Action::FetchOffset {
            group,
            partition,
            offset,
        } => {
            let fields = json!({ "group": &**group, "offset": offset });
            ("fetch-offset", at(partition, fields))
        }
        Action::FinalRead {
            partition,
            node,
            start,
            records,
            refused,
        } => {
            // Mostly there is nothing that is refused.
            let refused = (!refused.is_empty()).then_some(refused);
            let fields = json!({
                "node": node,
                "start": start,
                "records": pairs(records),
                "refused": refused,
            });
            ("final-read", at(partition, fields))
        }
    }
}

/// The event of a line.
///
/// # Errors
///
/// If it is none.
pub fn read_event(line: &str) -> anyhow::Result<Event> {
    let fields = Fields(serde_json::from_str(line)?);
    let phase = match fields.text("type")? {
        "invoke" => Phase::Invoke,
        "ok" => Phase::Ok,
        "fail" => Phase::Fail,
        "info" => Phase::Info,
        other => bail!("{other:?} is no type"),
    };
    Ok(Event {
        time: Duration::from_nanos(fields.number("time")?),
        process: fields.number("process")?,
        op: fields.number("op")?,
        phase,
        action: fields.action()?,
    })
}

/// The fields of a line.
struct Fields(Map<String, Value>);

impl Fields {
    fn action(&self) -> anyhow::Result<Action> {
        Ok(match self.text("f")? {
            "send" => Action::Send {
                partition: self.partition()?,
                values: self.values()?,
                idempotent: self.flag("idempotent")?,
                base_offset: self.offset("offset")?,
            },
            "poll" => Action::Poll {
                partition: self.partition()?,
                from: self.some_offset("from")?,
                leader: self.flag("leader")?,
                records: self.records()?,
                high_watermark: self.offset("high_watermark")?,
                log_start: self.offset("log_start")?,
            },
            "assign" => Action::Assign {
                partition: self.partition()?,
                offset: self.some_offset("offset")?,
            },
            "list-offsets" => Action::ListOffsets {
                partition: self.partition()?,
                latest: self.offset("latest")?,
            },
            "delete-records" => Action::DeleteRecords {
                partition: self.partition()?,
                before: self.some_offset("offset")?,
            },
            "delete-topic" => Action::DeleteTopic {
                topic: Arc::from(self.text("topic")?),
            },
            "commit-offset" => Action::CommitOffset {
                group: Arc::from(self.text("group")?),
                partition: self.partition()?,
                offset: self.some_offset("offset")?,
            },
            "fetch-offset" => Action::FetchOffset {
                group: Arc::from(self.text("group")?),
                partition: self.partition()?,
                offset: self.offset("offset")?,
            },
            "final-read" => Action::FinalRead {
                partition: self.partition()?,
                node: u32::try_from(self.number("node")?)?,
                start: self.offset("start")?.unwrap_or_default(),
                records: self.records()?,
                refused: self.ranges("refused")?,
            },
            other => bail!("{other:?} is no operation"),
        })
    }

    fn text(&self, name: &str) -> anyhow::Result<&str> {
        let text = self.0.get(name).and_then(Value::as_str);
        text.with_context(|| format!("{name} is missing or no text"))
    }

    fn number(&self, name: &str) -> anyhow::Result<u64> {
        let number = self.0.get(name).and_then(Value::as_u64);
        number.with_context(|| format!("{name} is missing or no number"))
    }

    fn flag(&self, name: &str) -> anyhow::Result<bool> {
        let flag = self.0.get(name).and_then(Value::as_bool);
        flag.with_context(|| format!("{name} is missing or neither true nor false"))
    }

    fn offset(&self, name: &str) -> anyhow::Result<Option<i64>> {
        let Some(value) = self.0.get(name).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let offset = value
            .as_i64()
            .with_context(|| format!("{name} is no offset"))?;
        Ok(Some(offset))
    }

    fn some_offset(&self, name: &str) -> anyhow::Result<i64> {
        self.offset(name)?
            .with_context(|| format!("{name} is missing"))
    }

    fn partition(&self) -> anyhow::Result<Partition> {
        let index = i32::try_from(self.some_offset("partition")?)?;
        Ok(Partition::new(self.text("topic")?, index))
    }

    fn list(&self, name: &str) -> anyhow::Result<&[Value]> {
        match self.0.get(name) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => bail!("{name} is no list"),
        }
    }

    fn values(&self) -> anyhow::Result<Vec<u64>> {
        let value = |value: &Value| value.as_u64().context("a value is no number");
        self.list("values")?.iter().map(value).collect()
    }

    fn ranges(&self, name: &str) -> anyhow::Result<Vec<(i64, i64)>> {
        let range = |pair: &Value| {
            let number = |at: usize| pair.get(at).and_then(Value::as_i64);
            let range = number(0).zip(number(1));
            range.with_context(|| format!("{name} has what is no pair of offsets"))
        };
        self.list(name)?.iter().map(range).collect()
    }

    fn records(&self) -> anyhow::Result<Vec<ReadRecord>> {
        let record = |pair: &Value| {
            let number = |at: usize| pair.get(at).and_then(Value::as_u64);
            let offset = number(0).and_then(|offset| i64::try_from(offset).ok());
            let record = offset.zip(number(1));
            let (offset, value) = record.context("a record is no pair of offset and value")?;
            Ok(ReadRecord { offset, value })
        };
        self.list("records")?.iter().map(record).collect()
    }
}

#[cfg(test)]
mod tests {
    use highwater_engine::testing::history::History;

    use super::*;

    fn all_kinds() -> History {
        let t = Partition::new("t", 3);
        let mut history = History::default();
        let mut does = |question: Action, answer: Action| {
            let open = history.invoke(4, question);
            history.ok(open, answer);
        };
        does(Action::send(&t, &[7, 8]), Action::sent(&t, &[7, 8], 12));
        does(
            Action::poll(&t, 1),
            Action::polled(&t, 1, &[(1, 9), (2, 10)]),
        );
        let assign = Action::Assign {
            partition: t.clone(),
            offset: 3,
        };
        does(assign.clone(), assign);
        let list = |latest| Action::ListOffsets {
            partition: t.clone(),
            latest,
        };
        does(list(None), list(Some(0)));
        let delete = Action::DeleteRecords {
            partition: t.clone(),
            before: 2,
        };
        does(delete.clone(), delete);
        let delete = Action::DeleteTopic { topic: "t".into() };
        does(delete.clone(), delete);
        let group: Arc<str> = "g".into();
        let commit = Action::CommitOffset {
            group: group.clone(),
            partition: t.clone(),
            offset: 5,
        };
        does(commit.clone(), commit);
        let fetch = |offset| Action::FetchOffset {
            group: group.clone(),
            partition: t.clone(),
            offset,
        };
        does(fetch(None), fetch(Some(5)));
        does(
            Action::final_read(&t, 2),
            Action::final_answer(&t, 2, 1, &[(1, 7)]),
        );
        let mut refusal = Action::final_answer(&t, 3, 1, &[(1, 7)]);
        if let Action::FinalRead { refused, .. } = &mut refusal {
            refused.extend([(2, 4), (8, i64::MAX)]);
        }
        does(Action::final_read(&t, 3), refusal);
        history
    }

    #[test]
    fn events_survive_their_lines() {
        for event in all_kinds().events {
            let line = write_event(&event);
            assert_eq!(read_event(&line).unwrap(), event, "{line}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let good = write_event(&all_kinds().events[0]);
        for (part, other) in [
            ("send", "scream"),
            ("invoke", "perhaps"),
            ("\"t\"", "7"),
            ("[7", "[-7"),
        ] {
            let bad = good.replace(part, other);
            assert_ne!(bad, good);
            assert!(read_event(&bad).is_err(), "{bad}");
        }
    }
}
