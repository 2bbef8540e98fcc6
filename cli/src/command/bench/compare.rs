//! `highwater bench compare`.

use std::fs;
use std::path::{Path, PathBuf};

use highwater_bench::{Compared, Comparison, REPORT_BYTES_MAX, compare};
use serde_json::json;

use super::broken;
use crate::exit::{Failure, Kind};
use crate::print::Printer;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What the first run has printed.
    #[arg(value_name = "A.json")]
    first: PathBuf,
    /// What the second run has printed.
    #[arg(value_name = "B.json")]
    second: PathBuf,
}

impl Arguments {
    pub(super) fn run(self, printer: Printer) -> Result<(), Failure> {
        let comparison = compare(&read(&self.first)?, &read(&self.second)?);
        let comparison = comparison.map_err(|error| broken(&error))?;
        printer.line(|| text(&comparison), || json!(comparison))
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let refused = |why: String| Failure::new(Kind::Other, format!("{}: {why}", path.display()));
    let len = fs::metadata(path)
        .map_err(|error| refused(error.to_string()))?
        .len();
    if len > REPORT_BYTES_MAX {
        return Err(refused(format!(
            "more than {REPORT_BYTES_MAX} bytes are no report"
        )));
    }
    fs::read_to_string(path).map_err(|error| refused(error.to_string()))
}

fn text(comparison: &Comparison) -> String {
    let mut lines = Vec::new();
    let [first, second] = &comparison.durability;
    let known =
        |durability: &Option<String>| durability.as_deref().unwrap_or("not said").to_owned();
    lines.push(format!("durability: {}", known(first)));
    if first != second {
        lines.push(format!(
            "THE OTHER RUN HAS ANOTHER DURABILITY: {}",
            known(second)
        ));
    }
    lines.push(format!(
        "{:<28} {:<34} {:>14} {:>14} {:>7}",
        "", "", "A", "B", "B/A"
    ));
    lines.extend(comparison.figures.iter().map(row));
    if !comparison.alone.is_empty() {
        lines.push(format!(
            "in one of them only: {}",
            comparison.alone.join("; ")
        ));
    }
    lines.join("\n")
}

fn row(compared: &Compared) -> String {
    let Compared {
        of,
        figure,
        first,
        second,
        ratio,
    } = compared;
    let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    format!("{of:<28} {figure:<34} {first:>14.2} {second:>14.2} {ratio:>7}")
}
