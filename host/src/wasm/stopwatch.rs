//! The CPU time that a thread spends on a run: on the guest, and on what the host does for it.
//!
//! To ask the kernel for it takes longer than a small run, so that it is asked for when there is something to
//! measure: at a tick, after much work of the host, and at the end of a run that took a while on the clock.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::Fault;

/// A run that is over before this is within every budget: they are milliseconds.
const MEASURED_MIN: Duration = Duration::from_millis(1);
/// How old a reading may be from which a run is counted.
const READING_AGE_MAX: Duration = Duration::from_millis(1);
/// How much the host may do for a run before there is a look at the time, in bytes of data gone over.
const UNSEEN_BYTES_MAX: usize = 128 << 10;

thread_local! {
    /// When this thread's CPU time was read last, and what it was.
    static READING: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// What a run has used of its budget. Belongs to the thread that it was started on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch {
    budget: Duration,
    started: Instant,
    /// What the CPU time was a moment before the start, and how long before.
    read: Duration,
    before: Duration,
    unseen_bytes: usize,
}

impl Stopwatch {
    pub(super) fn start(now: Instant, budget: Duration) -> Stopwatch {
        let known = READING.get().filter(|(at, _)| now.duration_since(*at) < READING_AGE_MAX);
        let (at, read) = known.unwrap_or_else(|| {
            let reading = (now, cpu_time());
            READING.set(Some(reading));
            reading
        });
        Stopwatch { budget, started: now, read, before: now - at, unseen_bytes: 0 }
    }

    pub(super) fn budget_ms(&self) -> u128 {
        self.budget.as_millis()
    }

    /// The CPU time since the start. Less by up to a millisecond: what the thread did between the reading and
    /// the start is taken for the most that it can have been.
    pub(super) fn used(&self) -> Duration {
        (cpu_time() - self.read).saturating_sub(self.before)
    }

    /// # Errors
    ///
    /// The budget is used up.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.used() < self.budget {
            return Ok(());
        }
        Err(Fault::Time { budget_ms: self.budget_ms() })
    }

    /// The same where the time on the clock is known: on a short run there is nothing to ask for.
    ///
    /// # Errors
    ///
    /// The budget is used up.
    pub(super) fn check_at(&self, now: Instant) -> Result<(), Fault> {
        if now.duration_since(self.started) < MEASURED_MIN { Ok(()) } else { self.check() }
    }

    /// The host has gone over so many bytes of data for the run, which no tick interrupts.
    ///
    /// # Errors
    ///
    /// The budget is used up.
    pub(super) fn worked(&mut self, bytes: usize) -> Result<(), Fault> {
        self.unseen_bytes = self.unseen_bytes.saturating_add(bytes);
        if self.unseen_bytes < UNSEEN_BYTES_MAX {
            return Ok(());
        }
        self.unseen_bytes = 0;
        self.check()
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses up CPU time.
    fn work_for(time: Duration) {
        let start = cpu_time();
        while cpu_time() - start < time {}
    }

    #[test]
    fn what_a_thread_does_from_the_start_is_counted_and_nothing_else() {
        work_for(Duration::from_millis(20));
        let watch = Stopwatch::start(Instant::now(), Duration::from_millis(10));
        assert_eq!(watch.check(), Ok(()));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(watch.check(), Ok(()), "who sleeps uses nothing");
        work_for(Duration::from_millis(12));
        assert_eq!(watch.check(), Err(Fault::Time { budget_ms: 10 }));
    }

    #[test]
    fn a_run_that_follows_another_one_at_once_is_not_charged_for_it() {
        for _ in 0..50 {
            let first = Stopwatch::start(Instant::now(), Duration::from_millis(1));
            work_for(Duration::from_micros(700));
            let second = Stopwatch::start(Instant::now(), Duration::from_millis(1));
            work_for(Duration::from_micros(100));
            // A run between them would be charged for both of them.
            assert!(second.used() < Duration::from_micros(700), "{second:?} after {first:?}");
        }
    }

    #[test]
    fn work_of_the_host_is_looked_at_now_and_then() {
        let mut watch = Stopwatch::start(Instant::now(), Duration::from_millis(1));
        work_for(Duration::from_millis(3));
        assert_eq!(watch.worked(UNSEEN_BYTES_MAX - 1), Ok(()));
        assert_eq!(watch.worked(1), Err(Fault::Time { budget_ms: 1 }));
        assert_eq!(watch.worked(usize::MAX - 1), Err(Fault::Time { budget_ms: 1 }));
    }
}
