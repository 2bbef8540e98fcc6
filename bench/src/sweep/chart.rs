//! Charts, as SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::Step;

const WIDTH: u32 = 860;
const HEIGHT: u32 = 420;

/// How many labels an axis has, about.
const LABELS: usize = 8;

/// Throughput, in 10^6 bytes a second, against the 99th and 50th percentile in milliseconds.
///
/// # Errors
/// If there is no step.
pub fn throughput_chart(steps: &[Step]) -> Result<String> {
    let megabytes = |step: &Step| step.report.bytes_per_second as f64 / 1e6;
    let line = |name: &str, latency: fn(&Step) -> u64| Line {
        name: name.to_owned(),
        points: steps
            .iter()
            .map(|step| (megabytes(step), milliseconds(latency(step))))
            .collect(),
    };
    let p50 = line("p50", |step| step.report.latency.p50_us);
    let p99 = line("p99", |step| step.report.latency.p99_us);
    let words = Words {
        title: "Latency by throughput",
        x: "acknowledged, MB/s",
        y: "latency, ms",
    };
    draw(&words, &[p99, p50], |x| format!("{x:.1}"))
}

/// The latencies of each rate in percentile form: each step to the right is a tenth of those before.
pub(super) fn percentile_chart(steps: &[Step]) -> Result<String> {
    let lines: Vec<Line> = steps.iter().map(percentiles).collect();
    let words = Words {
        title: "Latency by percentile",
        x: "percentile",
        y: "latency, ms",
    };
    draw(&words, &lines, |nines| {
        let percent = 100.0 - 100.0 / 10_f64.powf(*nines);
        format!("{}", (percent * 1e4).round() / 1e4)
    })
}

fn percentiles(step: &Step) -> Line {
    let told = step.curve.iter().filter(|(percent, _)| *percent < 100.0);
    let nines = |percent: f64| -((100.0 - percent) / 100.0).log10();
    Line {
        name: format!("{} records/s", step.rate),
        points: told
            .map(|&(percent, micros)| (nines(percent), milliseconds(micros)))
            .collect(),
    }
}

/// At least a microsecond, so that it has a place on a logarithmic axis.
fn milliseconds(micros: u64) -> f64 {
    micros.max(1) as f64 / 1e3
}

struct Words<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
}

struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

fn draw(words: &Words<'_>, lines: &[Line], x_text: impl Fn(&f64) -> String) -> Result<String> {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x_max = points().map(|point| point.0).fold(f64::NAN, f64::max);
    let y_min = points().map(|point| point.1).fold(f64::NAN, f64::min);
    let y_max = points().map(|point| point.1).fold(f64::NAN, f64::max);
    if !(x_max.is_finite() && y_min.is_finite()) {
        return Err(anyhow!("there is nothing to draw"));
    }
    let mut svg = String::new();
    let failed = |error: &dyn std::fmt::Display| anyhow!("a chart cannot be drawn: {error}");
    let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&root)
        .caption(words.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(
            0.0..x_max.max(f64::MIN_POSITIVE) * 1.02,
            (y_min / 1.5..y_max * 1.5).log_scale(),
        )
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc(words.x)
        .y_desc(words.y)
        .x_labels(LABELS)
        .x_label_formatter(&x_text)
        .draw()
        .map_err(|error| failed(&error))?;
    for (nth, line) in lines.iter().enumerate() {
        let color = Palette99::pick(nth).to_rgba();
        let dots = line
            .points
            .iter()
            .map(|&at| Circle::new(at, 3, color.filled()));
        chart.draw_series(dots).map_err(|error| failed(&error))?;
        chart
            .draw_series(LineSeries::new(
                line.points.iter().copied(),
                color.stroke_width(2),
            ))
            .map_err(|error| failed(&error))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))?;
    drop(chart);
    drop(root);
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::super::tests::step;
    use super::*;

    #[test]
    fn charts_show_every_step_and_nothing_is_no_chart() {
        let steps = [step(1_000, 1_000, 5_000), step(2_000, 1_500, 200_000)];
        let throughput = throughput_chart(&steps).unwrap();
        assert!(throughput.starts_with("<svg") && throughput.contains("</svg>"));
        assert_eq!(
            throughput.matches("<circle").count(),
            4,
            "two lines of two points"
        );
        let percentiles = percentile_chart(&steps).unwrap();
        for name in ["1000 records/s", "2000 records/s", "90"] {
            assert!(percentiles.contains(name), "{name}");
        }
        assert!(throughput_chart(&[]).is_err());
    }
}
