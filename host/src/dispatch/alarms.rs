//! When to look into the store for which subscription.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use uuid::Uuid;

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
