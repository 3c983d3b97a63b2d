//! Where a test has the process killed, to see that nothing is lost by it. Does nothing in a release.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// `NAME COUNT`: the process ends when it passes the point of this name for this time.
const VARIABLE: &str = "HOOKYARD_FAULT";

/// A point on the way of an event.
pub(crate) fn point(name: &str) {
    if cfg!(debug_assertions) {
        pass(name);
    }
}

fn pass(name: &str) {
    // Read once: what is chosen holds for the life of the process, as its death does.
    static CHOSEN: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, count) = text.split_once(' ').expect("a fault is a name and a count");
        Some((name.to_owned(), AtomicU64::new(count.parse().expect("a count is a number"))))
    });
    if let Some((chosen, left)) = &*CHOSEN
        && chosen == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        kill_process(getpid(), Signal::KILL).expect("a process may end itself");
    }
}
