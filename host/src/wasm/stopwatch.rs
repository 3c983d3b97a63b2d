//! The CPU time that a thread spends on runs.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::Fault;

/// Before this there is nothing to measure.
const STOPWATCH_MIN: Duration = Duration::from_millis(1);

/// The CPU time of a pipeline on this thread.
pub(super) struct Stopwatch {
    budget: Duration,
    start: Instant,
    /// The thread's CPU time when first looked at: asking for it costs more than most runs.
    since: Option<Duration>,
}

impl Stopwatch {
    pub(super) fn start(budget: Duration) -> Stopwatch {
        Stopwatch { budget, start: Instant::now(), since: None }
    }

    /// # Errors
    ///
    /// The budget is used up.
    pub(super) fn check(&mut self) -> Result<(), Fault> {
        if self.start.elapsed() < STOPWATCH_MIN {
            return Ok(());
        }
        let now = cpu_time();
        let since = *self.since.get_or_insert(now);
        if now - since < self.budget {
            return Ok(());
        }
        Err(Fault::Time { budget_ms: self.budget.as_millis() })
    }
}

pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
