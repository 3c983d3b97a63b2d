//! What the dispatcher knows of one subscription's deliveries.

use std::collections::VecDeque;

use uuid::Uuid;

/// How many deliveries of a subscription wait in memory. The others wait in the store.
const QUEUE_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Deliveries in memory that wait for their turn.
    pub(super) queue: VecDeque<Uuid>,
    pub(super) in_flight: usize,
    /// When the first of those in the store is due.
    pub(super) next_due_ms: Option<i64>,
    /// Some of them are being fetched.
    pub(super) claiming: bool,
    /// The lane waits for its turn among the lanes.
    pub(super) waits: bool,
}

impl Lane {
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE_MAX
    }

    /// How many deliveries to fetch from the store.
    pub(super) fn room(&self) -> usize {
        QUEUE_MAX - self.queue.len().min(QUEUE_MAX)
    }

    /// There is something in the store that is due then.
    pub(super) fn due_at(&mut self, at_ms: i64) {
        self.next_due_ms = Some(self.next_due_ms.map_or(at_ms, |next| next.min(at_ms)));
    }

    /// Nothing is known of it that would be missed.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
            && self.in_flight == 0
            && self.next_due_ms.is_none()
            && !self.claiming
            && !self.waits
    }
}
