//! What is answered of a plugin that was tried. Events stand in it as they came, and as they would go.

use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::Event;
use hookyard_nouns::json::Json;
use hookyard_nouns::plugin::LogLine;
use serde::Serialize;
use serde_json::Value;

use crate::trial::{self, Difference, Trial, Verdict};

/// One plugin on one event.
#[derive(Serialize)]
pub(super) struct Tried {
    #[serde(flatten)]
    verdict: Verdict,
    before: Json,
    /// From the event to what comes of it, part by part.
    diff: Vec<Difference>,
    digest: Digest,
    budget: Value,
    #[serde(flatten)]
    run: Option<Ran>,
}

/// What the run took.
#[derive(Serialize)]
struct Ran {
    time_us: u128,
    fuel: Option<u64>,
    memory_bytes: usize,
    output_bytes: usize,
    log: Vec<LogLine>,
}

impl Tried {
    pub(super) fn new(event: &Event, trial: Trial, digest: Digest, budget: Value) -> Tried {
        let before = trial::structured(event, &event.content);
        let diff = |after: &Json| trial::difference(before.bytes(), after.bytes());
        let diff = match &trial.verdict {
            Verdict::Replace { event } => vec![diff(event)],
            Verdict::Split { events } => events.iter().map(diff).collect(),
            Verdict::Pass | Verdict::Drop { .. } | Verdict::Fail { .. } => Vec::new(),
        };
        let run = trial.run.map(|it| Ran {
            time_us: it.time.as_micros(),
            fuel: it.fuel,
            memory_bytes: it.memory_bytes,
            output_bytes: it.output_bytes,
            log: it.log,
        });
        Tried { verdict: trial.verdict, before, diff, digest, budget, run }
    }
}
