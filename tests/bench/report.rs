//! What was measured, as a table and as JSON: each figure is the median of its rounds, with the range.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// The values of the rounds, in the order in which they were measured.
#[derive(Clone, Default)]
pub(crate) struct Rounds(pub(crate) Vec<f64>);

/// A line of the table.
pub(crate) struct Row {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) values: Rounds,
    /// What it is measured against, of the same rounds.
    pub(crate) limit: Option<(&'static str, Rounds)>,
    pub(crate) target: &'static str,
}

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Rounds {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn of(&self, other: &Rounds) -> Rounds {
        Rounds(self.0.iter().zip(&other.0).map(|(it, other)| it / other).collect())
    }

    /// The least and the most.
    pub(crate) fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted.first().copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN))
    }

    fn show(&self) -> String {
        if self.0.len() == 1 {
            return number(self.median());
        }
        let (least, most) = self.range();
        format!("{} ({}–{})", number(self.median()), number(least), number(most))
    }

    fn json(&self) -> Value {
        json!({"median": self.median(), "rounds": self.0})
    }
}

impl Row {
    pub(crate) fn ratio(&self) -> Option<Rounds> {
        self.limit.as_ref().map(|(_, limit)| self.values.of(limit))
    }
}

impl Report {
    /// Takes a row, and prints it.
    pub(crate) fn add(&mut self, row: Row) {
        if self.rows.last().is_none_or(|last| last.group != row.group) {
            println!("\n{}", row.group);
        }
        let against = row.limit.as_ref().zip(row.ratio()).map(|((of, limit), ratio)| {
            format!("{} of {of} {}", ratio.show(), number(limit.median()))
        });
        println!(
            "  {:38} {:>28} {:16} {:44} {}",
            row.name,
            row.values.show(),
            row.unit,
            against.unwrap_or_default(),
            row.target
        );
        self.rows.push(row);
    }

    /// Those of a group with a unit.
    pub(crate) fn rows(&self, group: &str, unit: &str) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |it| it.group == group && it.unit == unit)
    }

    pub(crate) fn save(&self, path: &Path) {
        let rows = self.rows.iter().map(|it| {
            json!({
                "group": it.group,
                "name": it.name,
                "unit": it.unit,
                "value": it.values.json(),
                "limit": it.limit.as_ref().map(|(of, limit)| json!({"of": of, "value": limit.json()})),
                "ratio": it.ratio().map(|it| it.json()),
                "target": it.target,
            })
        });
        let report = json!({"machine": machine(), "rows": rows.collect::<Vec<_>>()});
        fs::write(path, format!("{report:#}\n")).unwrap();
        println!("\nwritten: {}", path.display());
    }
}

/// Between these lines of a page, the rows are put.
const BEGIN: &str = "<!-- `make bench` writes what follows -->\n";
const END: &str = "<!-- and no more -->\n";

impl Report {
    /// Puts all rows into a page, in place of those of the last time.
    pub(crate) fn write_into(&self, page: &Path) {
        let text = fs::read_to_string(page).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("the page has a place for the rows");
        let (_, after) = rest.split_once(END).expect("the place has an end");
        fs::write(page, [before, BEGIN, &self.markdown(), END, after].concat()).unwrap();
        println!("written: {}", page.display());
    }

    fn markdown(&self) -> String {
        let machine = machine();
        let text = |name: &str| machine[name].as_str().unwrap_or_default().to_owned();
        let mut page = format!(
            "{}, {} cores, Linux {}. Each figure is the median, with the least and the most.\n",
            text("cpu"),
            machine["cores"],
            text("kernel")
        );
        for rows in self.rows.chunk_by(|it, next| it.group == next.group) {
            let head = "| --- | --- | --- | --- |\n";
            write!(page, "\n| {} | | beside | target |\n{head}", rows[0].group).unwrap();
            for row in rows {
                let ratio = row.limit.as_ref().zip(row.ratio()).map(|((of, limit), ratio)| {
                    format!("{} of {} ({of})", number(ratio.median()), number(limit.median()))
                });
                let (ratio, value) = (ratio.unwrap_or_default(), row.values.show());
                writeln!(
                    page,
                    "| {} | {value} {} | {ratio} | {} |",
                    row.name, row.unit, row.target
                )
                .unwrap();
            }
        }
        page
    }
}

/// What it was measured on.
pub(crate) fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|it| it.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value).trim().to_owned()
    };
    json!({
        "cpu": field(&cpu, "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_before": read("/proc/loadavg").split(' ').next(),
    })
}

/// With three digits that say something.
pub(crate) fn number(it: f64) -> String {
    match it.abs() {
        size if size >= 1_000.0 => whole(it.round() as usize),
        size if size >= 100.0 => format!("{it:.0}"),
        size if size >= 10.0 => format!("{it:.1}"),
        size if size >= 1.0 => format!("{it:.2}"),
        _ => format!("{it:.3}"),
    }
}

/// In groups of three digits.
pub(crate) fn whole(it: usize) -> String {
    let digits = it.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
