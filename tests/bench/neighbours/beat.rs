//! Something that is done at a steady pace, whatever each time takes: what has to wait for one that is slow
//! is late from the moment at which it was due.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread sleeps at most until it looks whether it is over.
const NAP: Duration = Duration::from_millis(200);

/// A row of times. Several threads share it, each of which takes the next one.
pub(super) struct Beat {
    start: Instant,
    every: Duration,
    count: usize,
    next: AtomicUsize,
    over: AtomicBool,
}

impl Beat {
    pub(super) fn new(start: Instant, every: Duration, count: usize) -> Beat {
        Beat { start, every, count, next: AtomicUsize::new(0), over: AtomicBool::new(false) }
    }

    /// When something is to be done.
    pub(super) fn due(&self, number: usize) -> Instant {
        self.start + self.every * u32::try_from(number).unwrap_or(u32::MAX)
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Nothing begins any more, and what waits gives up.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Takes one number after the other, and does the work when it is due.
    pub(super) fn run(&self, mut work: impl FnMut(usize, Instant)) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return;
            }
            let due = self.due(number);
            while !self.is_over() && Instant::now() < due {
                thread::sleep(due.saturating_duration_since(Instant::now()).min(NAP));
            }
            if self.is_over() {
                return;
            }
            work(number, due);
        }
    }
}
