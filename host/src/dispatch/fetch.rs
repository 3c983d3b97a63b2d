//! What comes from the store: when to look, and how much to take.

use tokio::task;
use uuid::Uuid;

use super::claim::Claimed;
use super::flow::Gate;
use super::{BYTES_MAX, Dispatcher};
use crate::clock;
use crate::subscription::State;

/// How long the store is left alone when memory is full.
const FULL_AGAIN_MS: i64 = 100;
/// How long it is until what is known of an endpoint may be forgotten.
const FORGETS_MS: i64 = 6 * 60_000;

impl Dispatcher {
    /// There is something in the store for a subscription at a time.
    pub(super) fn due(&mut self, subscription: Uuid, at_ms: i64) {
        if self.lanes.entry(subscription).or_default().due_at(at_ms) {
            self.alarms.set(at_ms, subscription);
        }
    }

    /// Fetches what is due from the store, before the lane has nothing left in memory.
    pub(super) fn fetch(&mut self, subscription: Uuid) {
        let Some(lane) = self.lanes.get_mut(&subscription) else { return };
        let now_ms = clock::now_ms();
        let is_due = lane.next_due_ms.is_some_and(|due| due <= now_ms);
        let gate = lane.flow.gate(lane.in_flight, now_ms);
        // Who has nothing in memory gets one even so, as long as there is any room.
        let is_full = self.bytes > BYTES_MAX / 2;
        if is_due && (self.bytes > BYTES_MAX || is_full && !lane.has_nothing()) {
            // It would only come back.
            self.alarms.set(now_ms + FULL_AGAIN_MS, subscription);
        } else if is_due && let Gate::Shut { until_ms } = gate {
            self.alarms.set(until_ms, subscription);
        } else if is_due && lane.runs_out() && !lane.claiming {
            lane.next_due_ms = None;
            // A change of a subscription that takes nothing now makes us look again. What is left of
            // one that is gone is fetched to be cancelled.
            let present = self.app.subscription(subscription);
            if present.is_none_or(|it| it.state == State::Active) {
                lane.claiming = true;
                self.fetches.push((subscription, if is_full { 1 } else { lane.room() }));
            }
        }
        if lane.is_idle() {
            if lane.flow.is_calm(now_ms) {
                self.lanes.remove(&subscription);
            } else if lane.forgets_ms <= now_ms {
                lane.forgets_ms = now_ms + FORGETS_MS;
                self.alarms.set(lane.forgets_ms, subscription);
            }
        }
    }

    pub(super) fn claimed(&mut self, claimed: Result<Claimed, task::JoinError>) {
        let claimed = claimed.expect("a claim catches its panics");
        let lane = self.lanes.entry(claimed.subscription).or_default();
        lane.claiming = false;
        self.records.extend(claimed.records);
        claimed.ready.into_iter().for_each(|it| self.queue(it));
        if let Some(due_ms) = claimed.next_due_ms {
            self.due(claimed.subscription, due_ms);
        }
        self.fetch(claimed.subscription);
    }
}
