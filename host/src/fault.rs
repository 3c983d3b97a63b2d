//! Where a test has the process killed, or a task panic, to see that nothing is lost by it. Does nothing in a
//! release.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// `NAME COUNT`: the process ends when it passes the point of this name for this time. `NAME COUNT panics`: from
/// then on, whatever passes the point panics.
const VARIABLE: &str = "HOOKYARD_FAULT";

struct Fault {
    name: String,
    left: AtomicU64,
    panics: bool,
}

/// A point on the way of an event.
pub(crate) fn point(name: &str) {
    if cfg!(debug_assertions) {
        pass(name);
    }
}

fn pass(name: &str) {
    // Read once: what is chosen holds for the life of the process.
    static CHOSEN: LazyLock<Option<Fault>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (text, panics) = text.strip_suffix(" panics").map_or((&*text, false), |it| (it, true));
        let (name, count) = text.rsplit_once(' ').expect("a fault is a name and a count");
        let left = AtomicU64::new(count.parse().expect("a count is a number"));
        Some(Fault { name: name.to_owned(), left, panics })
    });
    let Some(fault) = &*CHOSEN else { return };
    if fault.name != name {
        return;
    }
    let before = |left: u64| Some(left.saturating_sub(1));
    let left = fault.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, before);
    match left.unwrap_or(0) {
        0 | 1 if fault.panics => panic!("a test wants a panic at `{name}`"),
        1 => kill_process(getpid(), Signal::KILL).expect("a process may end itself"),
        _ => {}
    }
}
