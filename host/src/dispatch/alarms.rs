//! When to look into the store for which subscription, and when to wake up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use hookyard_nouns::clock;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Dispatcher, UNRECORDED_MAX};

#[derive(Default)]
pub(super) struct Alarms {
    heap: BinaryHeap<Reverse<(i64, Uuid)>>,
}

impl Alarms {
    pub(super) fn set(&mut self, at_ms: i64, subscription: Uuid) {
        self.heap.push(Reverse((at_ms, subscription)));
    }

    /// Takes one whose time has come.
    pub(super) fn sound(&mut self, now_ms: i64) -> Option<Uuid> {
        let Reverse((at_ms, _)) = self.heap.peek()?;
        let due = *at_ms <= now_ms;
        due.then(|| self.heap.pop()).flatten().map(|Reverse((_, subscription))| subscription)
    }

    /// The time of the next one.
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse((at_ms, _))| *at_ms)
    }
}

impl Dispatcher {
    /// The time since the beginning.
    pub(super) fn passed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When there is something to do, whatever comes meanwhile.
    pub(super) fn next_wake_up(&self) -> Instant {
        let now = Instant::now();
        let late = self.unrecorded.front().map(|(since, _)| *since + UNRECORDED_MAX);
        let turn = self.turns.next_ms().map(|at_ms| self.began + Duration::from_millis(at_ms));
        let alarm = self.alarms.next_ms().map(|at_ms| {
            let wait_ms = at_ms.saturating_sub(clock::now_ms()).max(0);
            now + Duration::from_millis(wait_ms.unsigned_abs())
        });
        // The wall clock may be set; an alarm is looked at now and then.
        let soon = now + Duration::from_secs(60);
        late.into_iter().chain(turn).chain(alarm).fold(soon, Instant::min)
    }
}
