//! A report that is one file: charts and a table.

use std::fmt::Write;

use anyhow::Result;

use super::chart::{percentile_chart, throughput_chart};
use super::{Broken, Step};

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:900px;margin:2em auto;padding:0 1em}\
    table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ccc}";

/// The report, under a line that says under which durability it came about.
///
/// # Errors
/// If there is no step.
pub fn page(durability: &str, steps: &[Step]) -> Result<String> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Latency by throughput</title>\
         <style>{STYLE}</style>\n<h1>Latency by throughput</h1>\n<p>durability: {}</p>\n{}\n{}\n",
        escaped(durability),
        throughput_chart(steps)?,
        percentile_chart(steps)?,
    );
    page.push_str("<table><tr><th>records/s<th>acknowledged<th>MB/s<th>p50 ms<th>p90 ms<th>p99 ms<th>p99.9 ms<th>max ms<th></tr>\n");
    for step in steps {
        page.push_str(&row(step)?);
    }
    page.push_str("</table></html>\n");
    Ok(page)
}

fn row(step: &Step) -> Result<String> {
    let report = &step.report;
    let mut row = format!(
        "<tr><td>{}<td>{}<td>{:.2}",
        step.rate,
        report.records_per_second,
        report.bytes_per_second as f64 / 1e6
    );
    let latency = &report.latency;
    for micros in [
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p999_us,
        latency.max_us,
    ] {
        write!(row, "<td>{:.2}", micros as f64 / 1e3)?;
    }
    let end = match step.broken {
        None => "",
        Some(Broken::Behind) => "behind",
        Some(Broken::Slow) => "slow",
    };
    writeln!(row, "<td>{end}</tr>")?;
    Ok(row)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::step;
    use super::*;

    #[test]
    fn a_page_has_all_and_needs_nothing_else() {
        let steps = [step(1_000, 1_000, 5_000), step(2_000, 1_500, 200_000)];
        let page = page("synced <on> two & more", &steps).unwrap();
        assert!(page.contains("synced &lt;on&gt; two &amp; more"));
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("<td>1000<td>1000<td>1.00<td>2.50<td>5.00"));
        assert!(page.contains("<td>behind</tr>"));
        assert!(!page.contains("src=") && !page.contains("href="));
    }
}
