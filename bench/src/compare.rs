//! Two runs side by side, with ratios.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

/// Numbers that say what was measured, not what came of it.
const SETTINGS: [&str; 9] = [
    "rate",
    "bytes",
    "record_bytes",
    "batch_bytes",
    "buffer_bytes",
    "datagram_bytes",
    "window_bytes",
    "write_bytes",
    "runs",
];

/// The largest report that is read, in bytes.
pub const REPORT_BYTES_MAX: u64 = 16 << 20;

/// A figure that both runs have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// What was measured, as `produce` or `latency rate=1000`.
    pub of: String,
    /// Which figure of it, as `bytes_per_second` or `p50_ms.median`.
    pub figure: String,
    /// In the first run.
    pub first: f64,
    /// In the second run.
    pub second: f64,
    /// The second by the first; none if the first is zero.
    pub ratio: Option<f64>,
}

/// Two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Under which durability each was measured, if it says so. Figures of different ones cannot
    /// be compared.
    pub durability: [Option<String>; 2],
    /// What both have.
    pub figures: Vec<Compared>,
    /// What was measured in one of them only.
    pub alone: Vec<String>,
}

/// A report: figures by what was measured, in order of the names.
#[derive(Debug, Default)]
struct Report {
    durability: Option<String>,
    figures: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Compares what two runs of `highwater --json bench` have printed.
///
/// # Errors
/// When a line is not a JSON object, or the two have nothing in common.
pub fn compare(first: &str, second: &str) -> Result<Comparison> {
    let first = Report::parse(first).context("the first report")?;
    let second = Report::parse(second).context("the second report")?;
    let of_both = first.figures.iter().filter_map(|(of, figures)| {
        let others = second.figures.get(of)?;
        Some((of, figures, others))
    });
    let mut compared = Vec::new();
    for (of, figures, others) in of_both {
        for (figure, &value) in figures {
            let Some(&other) = others.get(figure) else {
                continue;
            };
            compared.push(Compared {
                of: of.clone(),
                figure: figure.clone(),
                first: value,
                second: other,
                ratio: (value != 0.0).then(|| other / value),
            });
        }
    }
    if compared.is_empty() {
        bail!("the two reports have no figure in common");
    }
    let lacks = |report: &Report, of: &str| !report.figures.contains_key(of);
    let alone = first.figures.keys().filter(|of| lacks(&second, of));
    let alone = alone.chain(second.figures.keys().filter(|of| lacks(&first, of)));
    Ok(Comparison {
        figures: compared,
        alone: alone.cloned().collect(),
        durability: [first.durability, second.durability],
    })
}

impl Report {
    fn parse(text: &str) -> Result<Report> {
        let mut report = Report::default();
        let lines = text.lines().enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let value = serde_json::from_str(line);
            let Ok(Value::Object(fields)) = value else {
                bail!(
                    "line {} is no JSON object; `highwater --json bench` prints them",
                    number + 1
                );
            };
            if let Some(Value::String(durability)) = fields.get("durability") {
                report.durability = Some(durability.clone());
                continue;
            }
            let mut figures = BTreeMap::new();
            let mut names = Vec::new();
            for (name, value) in &fields {
                match value {
                    Value::String(text) => names.insert(0, text.clone()),
                    Value::Number(_) if SETTINGS.contains(&name.as_str()) => {
                        names.push(format!("{name}={value}"));
                    }
                    _ => collect(name, value, &mut figures),
                }
            }
            report
                .figures
                .entry(names.join(" "))
                .or_default()
                .extend(figures);
        }
        Ok(report)
    }
}

/// The numbers in a value, by their path.
fn collect(name: &str, value: &Value, figures: &mut BTreeMap<String, f64>) {
    match value {
        Value::Number(number) => {
            figures.extend(number.as_f64().map(|number| (name.to_owned(), number)));
        }
        Value::Object(fields) => {
            for (inner, value) in fields {
                collect(&format!("{name}.{inner}"), value, figures);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = r#"
        {"durability":"synced"}
        {"kind":"produce","bytes_per_second":100,"p50_us":0}
        {"figure":"latency","rate":1000,"p50_ms":{"median":2.0,"min":1.0}}
        {"figure":"latency","rate":20000,"p50_ms":{"median":9.0}}"#;

    #[test]
    fn what_was_measured_alike_is_put_side_by_side() {
        let second = r#"
            {"durability":"none"}
            {"figure":"latency","rate":1000,"p50_ms":{"median":3.0}}
            {"kind":"produce","bytes_per_second":150,"p50_us":4}"#;
        let comparison = compare(FIRST, second).unwrap();
        let rows: Vec<_> = comparison
            .figures
            .iter()
            .map(|it| (it.of.as_str(), it.figure.as_str(), it.ratio))
            .collect();
        assert_eq!(
            rows,
            [
                ("latency rate=1000", "p50_ms.median", Some(1.5)),
                ("produce", "bytes_per_second", Some(1.5)),
                ("produce", "p50_us", None),
            ]
        );
        assert_eq!(comparison.alone, ["latency rate=20000"]);
        let durability = comparison.durability.map(Option::unwrap);
        assert_eq!(durability, ["synced", "none"]);
    }

    #[test]
    fn settings_tell_figures_apart_and_what_was_not_measured_is_none() {
        let report = |datagram_bytes: u32, rate: u32, ratio: &str| {
            let path = format!(
                r#"{{"figure":"pipeline","datagram_bytes":{datagram_bytes},"files":"fresh","rate":null,"mb":{{"median":{rate}}}}}"#
            );
            let produce =
                format!(r#"{{"figure":"throughput","mb":1,"ratio_to_pipeline":{ratio}}}"#);
            format!("{path}\n{produce}")
        };
        let alike = compare(&report(1_452, 200, "0.5"), &report(1_452, 300, "null")).unwrap();
        let rows = alike.figures.iter().map(|it| (it.of.as_str(), it.ratio));
        let rows: Vec<_> = rows.collect();
        assert_eq!(
            rows,
            [
                ("fresh pipeline datagram_bytes=1452", Some(1.5)),
                ("throughput", Some(1.0)),
            ]
        );
        let other = compare(&report(1_452, 200, "0.5"), &report(65_000, 600, "0.5")).unwrap();
        assert_eq!(other.alone.len(), 2, "{:?}", other.alone);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let other = compare(FIRST, r#"{"kind":"consume","bytes_per_second":1}"#);
        assert!(other.unwrap_err().to_string().contains("in common"));
        let text = format!("{:#}", compare("produced 3 MB/s", FIRST).unwrap_err());
        assert!(text.contains("the first report: line 1"), "{text}");
    }
}
