//! `highwater log verify`.

use std::path::Path;

use highwater::offline::Topics;
use highwater_log::storage::PortableStorage;
use highwater_log::{Alarm, Damage, GroupReport, Inspector, LogIndex};
use serde_json::json;

use super::against::{self, Comparison};
use super::{Selection, Verify, inspect, open_failure, repair};
use crate::exit::{Failure, Kind};
use crate::print::Printer;

/// Reads everything and says what is wrong.
///
/// # Errors
/// [`Kind::Damage`] when anything is; others when a directory cannot be read.
pub(super) fn run(arguments: &Verify, printer: Printer) -> Result<(), Failure> {
    let selection = &arguments.selection;
    if let Some(other) = arguments.against.as_ref().filter(|_| arguments.repair) {
        let mut inspector = inspect(other)?;
        repair::run(&selection.directory, &mut inspector, printer)?;
    }
    let mut inspector = selection.inspector()?;
    let topics = selection.topics(&mut inspector)?;
    let mut damages = verify(selection, &mut inspector, &topics, printer)?;
    if let Some(path) = &arguments.against {
        damages += compare_with(arguments, path, &mut inspector, &topics, printer)?;
    }
    let groups = selection.groups(&inspector).len();
    let directory = selection.directory.display();
    match damages {
        0 => printer.line(
            || format!("{directory}: {groups} groups, no damage"),
            || json!({ "directory": directory.to_string(), "groups": groups, "damages": 0 }),
        ),
        damages => {
            let advice = "keep the files: a node serves nothing of what is damaged, and its peers go on without it";
            Err(Failure::new(
                Kind::Damage,
                format!("{directory}: {damages} places are damaged; {advice}"),
            ))
        }
    }
}

/// Judges one directory by itself; gives how many places are damaged.
fn verify(
    selection: &Selection,
    inspector: &mut Inspector<PortableStorage>,
    topics: &Topics,
    printer: Printer,
) -> Result<u64, Failure> {
    let mut damages = 0;
    for alarm in inspector.alarms() {
        damages += u64::from(is_damage(alarm));
        print_alarm(alarm, printer)?;
    }
    for group in selection.groups(inspector) {
        let report = inspector.verify(group);
        let report = report.map_err(|error| open_failure(&selection.directory, &error))?;
        for alarm in &report.alarms {
            damages += u64::from(is_damage(alarm));
            print_alarm(alarm, printer)?;
        }
        print_group(&report, topics, printer)?;
    }
    Ok(damages)
}

/// Compares the logs of two nodes, as a table; gives how many of them must not differ as they
/// do.
fn compare_with(
    arguments: &Verify,
    path: &Path,
    inspector: &mut Inspector<PortableStorage>,
    topics: &Topics,
    printer: Printer,
) -> Result<u64, Failure> {
    let mut other = inspect(path)?;
    check_pair(inspector, &other, path)?;
    if !printer.is_json() {
        printer.line(|| row(&COLUMNS.map(str::to_owned)), || json!(null))?;
    }
    let mut groups = [inspector.groups(), other.groups()].concat();
    groups.sort_unstable();
    groups.dedup();
    let mut damages = 0;
    for group in arguments.selection.select(groups) {
        let compared = against::compare(group, inspector, &mut other);
        let compared = compared.map_err(|error| open_failure(path, &error))?;
        let finding = &compared.finding;
        damages += u64::from(finding.is_damage() || (arguments.settled && !finding.is_settled()));
        print_comparison(&compared, topics, printer)?;
    }
    Ok(damages)
}

/// Two nodes' logs can be compared if they are nodes of one cluster.
fn check_pair(
    this: &Inspector<PortableStorage>,
    other: &Inspector<PortableStorage>,
    path: &Path,
) -> Result<(), Failure> {
    let (this, other) = (this.identity(), other.identity());
    if this.cluster == other.cluster {
        return Ok(());
    }
    let message = format!(
        "{}: of cluster {}, and not of {}; name a directory of another node of the same cluster",
        path.display(),
        other.cluster,
        this.cluster
    );
    Err(Failure::new(Kind::Setup, message))
}

const COLUMNS: [&str; 6] = ["group", "partition", "from", "through", "same", "result"];

fn row(cells: &[String; 6]) -> String {
    let [group, partition, from, through, same, result] = cells;
    format!("{group:>6}  {partition:<24}  {from:>10}  {through:>10}  {same:>10}  {result}")
}

fn print_comparison(
    compared: &Comparison,
    topics: &Topics,
    printer: Printer,
) -> Result<(), Failure> {
    let partition = topics.partition(compared.group);
    let name = partition.as_ref().map(ToString::to_string);
    let is_empty = compared.last < compared.first;
    let index = |index: LogIndex| match is_empty {
        true => "-".to_owned(),
        false => index.to_string(),
    };
    printer.line(
        || {
            row(&[
                compared.group.to_string(),
                name.clone().unwrap_or_else(|| "-".to_owned()),
                index(compared.first),
                index(compared.last),
                compared.same.to_string(),
                compared.finding.to_string(),
            ])
        },
        || {
            let mut object = compared.json();
            object["topic"] = json!(partition.as_ref().map(|at| at.topic.as_str()));
            object["partition"] = json!(partition.as_ref().map(|at| at.partition));
            object
        },
    )
}

/// Whether something that was written is not there any more. A name that Highwater never makes
/// is worth a line, and no damage; nor is a copy of the journal that a crash left behind.
fn is_damage(alarm: &Alarm) -> bool {
    !matches!(alarm.damage, Damage::Unknown | Damage::JournalLast)
}

fn print_alarm(alarm: &Alarm, printer: Printer) -> Result<(), Failure> {
    printer.line(
        || alarm.to_string(),
        || {
            json!({
                "file": alarm.path,
                "offset": alarm.offset,
                "group": alarm.group.map(|group| group.0),
                "damage": alarm.damage.to_string(),
                "harmless": !is_damage(alarm),
            })
        },
    )
}

fn print_group(report: &GroupReport, topics: &Topics, printer: Printer) -> Result<(), Failure> {
    let partition = topics.partition(report.group);
    printer.line(
        || {
            let name = partition
                .as_ref()
                .map_or_else(String::new, |partition| format!(" ({partition})"));
            let torn = report.torn.as_ref().map_or_else(String::new, |torn| {
                format!(
                    "; a crash interrupted entry {} in {} at {}",
                    torn.index, torn.path, torn.offset
                )
            });
            let quarantined = if report.quarantined {
                "; to be quarantined"
            } else {
                ""
            };
            format!(
                "group {}{name}: {} files, entries {} to {}, durable through {}{torn}{quarantined}",
                report.group, report.files, report.first, report.last, report.durable
            )
        },
        || {
            json!({
                "group": report.group.0,
                "topic": partition.as_ref().map(|at| at.topic.as_str()),
                "partition": partition.as_ref().map(|at| at.partition),
                "files": report.files,
                "first_index": report.first.0,
                "last_index": report.last.0,
                "durable_index": report.durable.0,
                "torn": report.torn.as_ref().map(|torn| json!({
                    "file": torn.path, "offset": torn.offset, "index": torn.index.0,
                })),
                "quarantined": report.quarantined,
                "alarms": report.alarms.len(),
            })
        },
    )
}
