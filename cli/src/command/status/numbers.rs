//! What nodes have done, as rows for people and as one object for scripts.

use indicatif::{DecimalBytes, HumanCount};
use serde_json::{Map, Value, json};

use super::table::Table;
use crate::scrape::Counters;

/// A row: what it is, and how a node's numbers fill it.
type Row = (&'static str, fn(&Counters) -> String);

/// All rows, in order.
const ROWS: &[Row] = &[
    ("records produced", |c| count(c, "produced_records")),
    ("bytes produced", |c| bytes(c, "produced_bytes")),
    ("records fetched", |c| count(c, "fetched_records")),
    ("bytes fetched", |c| bytes(c, "fetched_bytes")),
    ("bytes served from maps", |c| bytes(c, "mapped_bytes")),
    ("bytes served from memory", |c| bytes(c, "cache_bytes")),
    ("bytes served by direct reads", |c| bytes(c, "direct_bytes")),
    ("tail cache hits, misses", |c| {
        counts(c, &["cache_hits", "cache_misses"])
    }),
    ("ring completions", |c| count(c, "ring_completions")),
    ("synced writes", |c| count(c, "log_writes")),
    ("bytes in them", |c| bytes(c, "log_written_bytes")),
    ("entries per synced write, mean and max", |c| {
        let mean = mean(c, "log_written_entries", "log_writes");
        format!("{mean}, {}", count(c, "entries_per_write_max"))
    }),
    ("appends in flight, now and max", |c| {
        counts(c, &["appends_in_flight", "appends_in_flight_max"])
    }),
    ("entries per append, mean and max", |c| {
        let mean = mean(c, "append_entries_sent", "appends_sent");
        format!("{mean}, {}", count(c, "entries_per_append_max"))
    }),
    ("replicas, leading", |c| counts(c, &["replicas", "leaders"])),
    ("elections, leaderships begun", |c| {
        counts(c, &["elections", "leaderships"])
    }),
    ("alarms, quarantined, frozen", |c| {
        counts(c, &["alarms", "quarantined", "frozen"])
    }),
    ("retention by time", |c| {
        match c.get("retention_suspended") {
            0 => "on".to_owned(),
            _ => "suspended: the clock jumped".to_owned(),
        }
    }),
    ("client connections", |c| count(c, "connections")),
    ("memory in use", |c| bytes(c, "memory_used_bytes")),
];

/// A column for each node.
pub(super) fn table(nodes: &[(i32, &Counters)]) -> Table {
    let names = nodes.iter().map(|(id, _)| format!("node {id}"));
    let names: Vec<String> = ["since its start".to_owned()]
        .into_iter()
        .chain(names)
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut table = Table::new(&names);
    for (what, fill) in ROWS {
        let filled = nodes.iter().map(|(_, counters)| fill(counters));
        table.row([(*what).to_owned()].into_iter().chain(filled).collect());
    }
    table
}

/// All numbers by name, and the means that they make.
pub(super) fn json(counters: &Counters) -> Value {
    let mut object: Map<String, Value> = counters
        .iter()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    for (name, what, of) in [
        (
            "entries_per_write_mean",
            "log_written_entries",
            "log_writes",
        ),
        (
            "entries_per_append_mean",
            "append_entries_sent",
            "appends_sent",
        ),
    ] {
        object.insert(name.to_owned(), json!(counters.mean(what, of)));
    }
    Value::Object(object)
}

fn count(counters: &Counters, name: &str) -> String {
    HumanCount(counters.get(name)).to_string()
}

fn counts(counters: &Counters, names: &[&str]) -> String {
    let counts: Vec<String> = names.iter().map(|name| count(counters, name)).collect();
    counts.join(", ")
}

fn bytes(counters: &Counters, name: &str) -> String {
    DecimalBytes(counters.get(name)).to_string()
}

fn mean(counters: &Counters, what: &str, of: &str) -> String {
    let mean = counters.mean(what, of);
    mean.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.1}"))
}
