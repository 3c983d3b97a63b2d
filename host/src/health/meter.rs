//! What the runs of one plugin for one subscription have taken.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use hookyard_nouns::clock;
use hookyard_nouns::digest::Digest;
use serde::Serialize;
use uuid::Uuid;

use crate::wasm::StepRun;

/// Two digits of each value are kept.
const DIGITS: u8 = 2;
const VALUE_MAX: u64 = 1 << 40;

pub(super) struct Meter {
    since_ms: i64,
    runs: u64,
    faults: BTreeMap<&'static str, u64>,
    time_us: Histogram<u32>,
    memory_bytes: Histogram<u32>,
    output_bytes: Histogram<u32>,
}

/// Runs of one plugin for one subscription.
#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    pub subscription: Uuid,
    pub plugin: Digest,
    pub since: String,
    pub runs: u64,
    /// How many had no verdict, by the code of what went wrong.
    pub faults: BTreeMap<&'static str, u64>,
    /// On the clock, with the making of the instance.
    pub time_us: Spread,
    pub memory_bytes: Spread,
    /// Of the data that came out, where they are not the ones that went in.
    pub output_bytes: Spread,
}

/// How values are spread, within one percent.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

impl Meter {
    pub(super) fn new(now_ms: i64) -> Meter {
        let histogram = || Histogram::new(DIGITS).expect("two digits are possible");
        Meter {
            since_ms: now_ms,
            runs: 0,
            faults: BTreeMap::new(),
            time_us: histogram(),
            memory_bytes: histogram(),
            output_bytes: histogram(),
        }
    }

    pub(super) fn count(&mut self, run: &StepRun) {
        self.runs += 1;
        if let Some(fault) = run.fault {
            *self.faults.entry(fault).or_default() += 1;
        }
        let time_us = u64::try_from(run.time.as_micros()).unwrap_or(u64::MAX);
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        record(&mut self.time_us, time_us);
        record(&mut self.memory_bytes, bytes(run.memory_bytes));
        record(&mut self.output_bytes, bytes(run.output_bytes));
    }

    pub(super) fn usage(&self, subscription: Uuid, plugin: Digest) -> Usage {
        Usage {
            subscription,
            plugin,
            since: clock::rfc3339(self.since_ms),
            runs: self.runs,
            faults: self.faults.clone(),
            time_us: spread(&self.time_us),
            memory_bytes: spread(&self.memory_bytes),
            output_bytes: spread(&self.output_bytes),
        }
    }
}

/// The histogram grows as it has to, up to what no run can take.
fn record(histogram: &mut Histogram<u32>, value: u64) {
    histogram.record(value.min(VALUE_MAX)).expect("it grows so far");
}

fn spread(histogram: &Histogram<u32>) -> Spread {
    Spread {
        p50: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        max: histogram.max(),
    }
}
