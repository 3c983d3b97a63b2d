//! Which of the deliveries that a plugin drops are kept as examples.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hookyard_nouns::clock;
use uuid::Uuid;

/// How many of a subscription are kept, each minute.
const EACH_MINUTE_MAX: u32 = 10;
/// Of how many subscriptions that is counted. With more of them all are counted anew, and have a few more.
const COUNTED_MAX: usize = 100_000;
const MINUTE_MS: i64 = 60_000;

/// Of each subscription, the minute and how many examples it has had in it.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<HashMap<Uuid, (i64, u32)>>);

impl Samples {
    /// Whether this one is kept.
    pub(super) fn keeps(&self, subscription: Uuid) -> bool {
        let minute = clock::now_ms() / MINUTE_MS;
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= COUNTED_MAX {
            samples.clear();
        }
        let sample = samples.entry(subscription).or_default();
        if sample.0 != minute {
            *sample = (minute, 0);
        }
        sample.1 += 1;
        sample.1 <= EACH_MINUTE_MAX
    }
}
