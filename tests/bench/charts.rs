//! Charts of what was measured, as SVG: a dot for the median, a line from the least to the most.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::report::{Report, Rounds, number};
use super::{end_to_end, growth, hanging, latency};

const WIDTH: f64 = 860.0;
const LABELS: f64 = 380.0;
const FIGURES: f64 = 90.0;
const LINE: f64 = 24.0;
const TOP: f64 = 50.0;

struct Chart {
    file: &'static str,
    title: &'static str,
    /// The rows that are drawn are those of a group with a unit.
    group: &'static str,
    unit: &'static str,
    /// Each step of the axis is ten times the one before.
    is_logarithmic: bool,
    /// How the limit is called, where it is drawn as well.
    limit: Option<&'static str>,
}

const fn linear(file: &'static str, title: &'static str, group: &'static str) -> Chart {
    Chart { file, title, group, unit: "deliveries/s", is_logarithmic: false, limit: None }
}

const CHARTS: [Chart; 4] = [
    Chart {
        limit: Some("half of what they do without a router"),
        ..linear("throughput", "Deliveries a second, saturated", end_to_end::GROUP)
    },
    Chart {
        unit: "ms",
        is_logarithmic: true,
        ..linear("latency", "From publisher to receiver, in milliseconds", latency::GROUP)
    },
    linear("growth", "Deliveries a second as the store grows", growth::GROUP),
    linear("hanging", "Deliveries a second beside requests that hang", hanging::GROUP),
];

/// Draws them all, into files of their own.
pub(crate) fn draw(report: &Report, folder: &Path) {
    for it in &CHARTS {
        let rows: Vec<_> = report.rows(it.group, it.unit).collect();
        let limit = rows.iter().find_map(|row| row.limit.as_ref());
        let limit = it.limit.zip(limit).map(|(name, (_, values))| (name, values));
        let dots = rows.iter().map(|row| (row.name.as_str(), &row.values));
        let dots = limit.into_iter().chain(dots).collect();
        let path = folder.join(it.file).with_extension("svg");
        fs::write(&path, chart(it.title, dots, it.is_logarithmic)).unwrap();
        println!("drawn: {}", path.display());
    }
}

fn chart(title: &str, dots: Vec<(&str, &Rounds)>, is_logarithmic: bool) -> String {
    let ranges = dots.iter().map(|(_, it)| it.range());
    let (least, most) = ranges
        .fold((f64::MAX, f64::MIN), |(least, most), (from, to)| (least.min(from), most.max(to)));
    let (from, to) =
        if is_logarithmic { (least.log10().floor(), most.log10().ceil()) } else { (0.0, most) };
    let place = |value: f64| {
        let value = if is_logarithmic { value.log10() } else { value };
        LABELS + (value - from) / (to - from) * (WIDTH - LABELS - FIGURES)
    };
    let height = TOP + LINE * dots.len() as f64 + LINE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{title}\">\n\
         <style>text {{ font: 13px sans-serif; fill: #333 }} .axis {{ stroke: #8884 }} \
         .range {{ stroke: #4a7fd4; stroke-width: 3 }} circle {{ fill: #2a5db0 }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #ccc }} circle {{ fill: #7fb0ff }} }}</style>\n\
         <text x=\"8\" y=\"24\" font-weight=\"bold\">{title}</text>\n"
    );
    for at in ticks(from, to, is_logarithmic) {
        let x = place(at);
        writeln!(
            svg,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at}</text>",
            height - LINE,
            height - 6.0
        )
        .unwrap();
    }
    for (line, (name, values)) in dots.into_iter().enumerate() {
        let y = TOP + LINE * (line as f64 + 0.5);
        let (least, most) = values.range();
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
             <line class=\"range\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LABELS - 14.0,
            y + 4.0,
            place(least),
            place(most),
            place(values.median()),
            WIDTH - 8.0,
            y + 4.0,
            number(values.median())
        )
        .unwrap();
    }
    svg + "</svg>\n"
}

fn ticks(from: f64, to: f64, is_logarithmic: bool) -> Vec<f64> {
    if is_logarithmic {
        return (from as i32..=to as i32).map(|it| 10_f64.powi(it)).collect();
    }
    let rough = to / 5.0;
    let ten = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|it| it * ten).into_iter().find(|it| *it >= rough);
    let step = step.unwrap_or(to);
    (0..).map(|it| f64::from(it) * step).take_while(|it| *it <= to).collect()
}
