//! What an attack has come to, the bounds that it has to keep, and how both are shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::attacker::{Bound, Outcome};
use crate::report::number;

/// What may be added to twice the quiet p99, in milliseconds.
const ALLOWANCE_MS: f64 = 50.0;
const MIB_MAX: f64 = 400.0;
const HEALTH_MS_MAX: f64 = 100.0;

/// How times are spread, in milliseconds.
#[derive(Clone, Copy, Default)]
pub(super) struct Spread {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    pub(super) fn of(mut all: Vec<f64>) -> Spread {
        all.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let place = (all.len().saturating_sub(1) * percent).div_ceil(100);
            all.get(place).copied().unwrap_or(f64::NAN)
        };
        Spread { p50: at(50), p99: at(99), max: at(100) }
    }

    fn show(self) -> String {
        [self.p50, self.p99, self.max].map(number).join("/")
    }

    fn json(self) -> Value {
        json!({"p50_ms": self.p50, "p99_ms": self.p99, "max_ms": self.max})
    }
}

/// The same while it is quiet and while the attack goes on.
#[derive(Default)]
pub(super) struct Pair {
    pub(super) quiet: Spread,
    pub(super) attacked: Spread,
}

impl Pair {
    /// The p99 that an attack may cause.
    pub(super) fn most(&self) -> f64 {
        2.0 * self.quiet.p99 + ALLOWANCE_MS
    }

    fn json(&self) -> Value {
        json!({"quiet": self.quiet.json(), "attacked": self.attacked.json()})
    }
}

/// What one attack has come to.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) name: &'static str,
    what: &'static str,
    seconds: u32,
    /// Times are shown and not judged: the machine has other things to do.
    pub(super) is_untimed: bool,
    /// How long it was until all was prepared, and until the end of everything.
    pub(super) prepared: Duration,
    pub(super) took: Duration,
    /// From when an event was due until its 202, and until its endpoint had it.
    pub(super) answered: Pair,
    pub(super) came: Pair,
    pub(super) events: usize,
    /// What came later than a quarter of a second.
    pub(super) late: usize,
    pub(super) missing: usize,
    pub(super) twice: usize,
    /// None: the log could not be read.
    pub(super) blamed: Option<usize>,
    /// What the neighbour was told that was not 202.
    pub(super) refused: BTreeMap<String, usize>,
    pub(super) mib_before: u64,
    pub(super) mib: u64,
    pub(super) mib_ever: u64,
    pub(super) health: Pair,
    /// How often `/healthz` was not answered.
    pub(super) unhealthy: u64,
    outcome: Outcome,
    /// What else has to be kept.
    pub(super) bounds: Vec<Bound>,
    /// What must not happen, and has.
    failures: Vec<String>,
}

impl Figures {
    pub(super) fn new(name: &'static str, what: &'static str, seconds: u32) -> Figures {
        Figures { name, what, seconds, ..Figures::default() }
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.outcome.notes.push(text.into());
    }

    pub(super) fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// Takes what the attacker tells.
    pub(super) fn add(&mut self, mut outcome: Outcome) {
        self.bounds.append(&mut outcome.bounds);
        self.outcome.answers.append(&mut outcome.answers);
        self.outcome.notes.append(&mut outcome.notes);
    }

    /// What is to be kept.
    fn bounds(&self) -> Vec<Bound> {
        let bound = |what: &str, value, most| Bound { what: what.to_owned(), value, most };
        let times = [
            bound("202 p99, ms", self.answered.attacked.p99, self.answered.most()),
            bound("receipt p99, ms", self.came.attacked.p99, self.came.most()),
            bound("late", self.late as f64, 0.0),
            bound("healthz, ms", self.health.attacked.max, HEALTH_MS_MAX),
        ];
        let mut all = vec![
            bound("missing", self.missing as f64, 0.0),
            bound("blamed", self.blamed.map_or(f64::NAN, |it| it as f64), 0.0),
            bound("MiB", self.mib as f64, MIB_MAX),
            bound("healthz not answered", self.unhealthy as f64, 0.0),
        ];
        all.extend(times.into_iter().filter(|_| !self.is_untimed));
        all.extend(self.bounds.iter().cloned());
        all
    }

    /// What was not kept, each with its bound. A figure that is not known was not kept.
    pub(super) fn broken(&self) -> Vec<String> {
        let is_kept = |it: &Bound| it.value <= it.most;
        let bounds = self.bounds().into_iter().filter(|it| !is_kept(it));
        let shown =
            bounds.map(|it| format!("{} {} > {}", it.what, count(it.value), count(it.most)));
        self.failures.iter().cloned().chain(shown).collect()
    }

    /// What the attacker was answered.
    fn answers(&self) -> String {
        let each = self.outcome.answers.iter().map(|(what, count)| format!("{count} × {what}"));
        let all = each.chain(self.outcome.notes.iter().cloned()).collect::<Vec<_>>();
        all.join(", ")
    }

    /// What is told as soon as it is measured.
    pub(super) fn line(&self) -> String {
        let broken = self.broken();
        let verdict = if broken.is_empty() { "kept".to_owned() } else { broken.join("; ") };
        format!(
            "{} ({}, {} s of {:.0}, {:.0} to prepare it): the attacker: {}\n    {verdict}",
            self.name,
            self.what,
            self.seconds,
            self.took.as_secs_f64(),
            self.prepared.as_secs_f64(),
            self.answers()
        )
    }

    fn cells(&self) -> Vec<String> {
        let refused = self.refused.iter().map(|(what, count)| format!("{count} × {what}"));
        let refused = refused.collect::<Vec<_>>().join(", ");
        let (healthy, extra) = (self.unhealthy == 0, self.bounds.iter());
        let kept = if self.broken().is_empty() { "yes" } else { "NO" };
        let mut cells = vec![
            self.name.to_owned(),
            self.answered.quiet.show(),
            self.answered.attacked.show(),
            number(self.answered.most()),
            self.came.quiet.show(),
            self.came.attacked.show(),
            number(self.came.most()),
            self.late.to_string(),
            self.missing.to_string(),
            self.twice.to_string(),
            self.blamed.map_or("?".to_owned(), |it| it.to_string()),
            if refused.is_empty() { "-".to_owned() } else { refused },
            format!("{}→{} ({})", self.mib_before, self.mib, self.mib_ever),
            format!(
                "{}/{}{}",
                number(self.health.attacked.p99),
                number(self.health.attacked.max),
                if healthy { String::new() } else { format!(" ({} not)", self.unhealthy) }
            ),
            kept.to_owned(),
        ];
        cells.extend(extra.map(|it| format!("{} {} ≤ {}", it.what, count(it.value), it.most)));
        cells
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "what": self.what,
            "seconds": self.seconds,
            "seconds_in_all": self.took.as_secs_f64(),
            "answered": self.answered.json(),
            "came": self.came.json(),
            "events": self.events,
            "late": self.late,
            "missing": self.missing,
            "twice": self.twice,
            "blamed": self.blamed,
            "refused": self.refused,
            "mib": {"before": self.mib_before, "most": self.mib, "ever": self.mib_ever},
            "healthz": self.health.json(),
            "healthz_not_answered": self.unhealthy,
            "attacker": self.outcome,
            "bounds": self.bounds(),
            "broken": self.broken(),
        })
    }
}

/// A count or a time. Infinite is what has not happened, and NaN what could not be asked.
fn count(it: f64) -> String {
    if it.is_nan() {
        return "unknown".to_owned();
    }
    if it.is_infinite() {
        return "never".to_owned();
    }
    if it.fract() == 0.0 { format!("{it:.0}") } else { number(it) }
}

const HEADS: [&str; 15] = [
    "attack",
    "202 quiet",
    "202 attacked",
    "p99 ≤",
    "receipt quiet",
    "receipt attacked",
    "p99 ≤",
    "late",
    "missing",
    "twice",
    "blamed",
    "the neighbour was told",
    "MiB ≤ 400 (ever)",
    "healthz ≤ 100",
    "kept",
];

/// All attacks, a row each. Times are p50/p99/max in milliseconds.
pub(super) fn table(all: &[Figures]) -> String {
    let mut rows = vec![HEADS.map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(Figures::cells));
    let widths: Vec<usize> = (0..HEADS.len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::from("p50/p99/max in ms, from when an event was due\n");
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = widths.get(at).copied().unwrap_or(0);
            write!(text, "{cell:width$}  ").expect("a text takes what is written");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}
