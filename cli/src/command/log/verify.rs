//! `highwater log verify`.

use highwater::offline::Topics;
use highwater_log::{Alarm, Damage, GroupReport};
use serde_json::json;

use super::{Selection, open_failure};
use crate::exit::{Failure, Kind};
use crate::print::Printer;

/// Reads everything and says what is wrong.
///
/// # Errors
/// [`Kind::Damage`] when anything is; others when the directory cannot be read.
pub(super) fn run(selection: &Selection, printer: Printer) -> Result<(), Failure> {
    let mut inspector = selection.inspector()?;
    let mut damages = 0;
    for alarm in inspector.alarms() {
        damages += u64::from(is_damage(alarm));
        print_alarm(alarm, printer)?;
    }
    let topics = selection.topics(&mut inspector)?;
    let groups = selection.groups(&inspector);
    for &group in &groups {
        let report = inspector.verify(group);
        let report = report.map_err(|error| open_failure(&selection.directory, &error))?;
        for alarm in &report.alarms {
            damages += u64::from(is_damage(alarm));
            print_alarm(alarm, printer)?;
        }
        print_group(&report, &topics, printer)?;
    }
    let directory = selection.directory.display();
    match damages {
        0 => printer.line(
            || format!("{directory}: {} groups, no damage", groups.len()),
            || json!({ "directory": directory.to_string(), "groups": groups.len(), "damages": 0 }),
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
