//! What comes from the store: when to look, and how much to take.

use hookyard_nouns::clock;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::subscription::State;
use uuid::Uuid;

use super::claim::Claimed;
use super::flow::Gate;
use super::settle::OURS_AGAIN_MS;
use super::{BYTES_MAX, Dispatcher, OWN_BYTES_MAX};

/// How long the store is left alone when memory is full.
const FULL_AGAIN_MS: i64 = 100;
/// How long it is until what is known of an endpoint may be forgotten.
const FORGETS_MS: i64 = 6 * 60_000;

impl Dispatcher {
    /// There is something in the store for a subscription at a time.
    pub(super) fn due(&mut self, tenant: &Tenant, subscription: Uuid, at_ms: i64) {
        if self.lane(tenant, subscription).due_at(at_ms) {
            self.alarms.set(at_ms, subscription);
        }
    }

    /// Fetches what is due from the store, before the lane has nothing left in memory.
    pub(super) fn fetch(&mut self, subscription: Uuid) {
        let (held, now_ms) = (self.bodies.bytes(), clock::now_ms());
        let Some(lane) = self.lanes.get_mut(&subscription) else { return };
        let own = self.bodies.bytes_of(&lane.tenant);
        let is_due = lane.next_due_ms.is_some_and(|due| due <= now_ms);
        let gate = lane.flow.gate(lane.in_flight, now_ms);
        // A lane with nothing in memory gets one even so, as long as there is any room.
        let is_full = held > BYTES_MAX / 2 || own > OWN_BYTES_MAX / 2;
        let is_over = held > BYTES_MAX || own > OWN_BYTES_MAX;
        if is_due && (is_over || is_full && !lane.has_nothing()) {
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
                let limit = if is_full { 1 } else { lane.room() };
                self.claims.ask(&lane.tenant, subscription, limit);
            }
        }
        if lane.is_idle() {
            if lane.flow.is_calm(now_ms) {
                self.lanes.remove(&subscription);
            } else if lane.forgets_ms <= now_ms {
                lane.queue.shrink_to_fit();
                lane.forgets_ms = now_ms + FORGETS_MS;
                self.alarms.set(lane.forgets_ms, subscription);
            }
        }
    }

    pub(super) fn claimed(&mut self, claimed: Claimed) {
        let Claimed { tenant, subscription, ready, records, next_due_ms } = claimed;
        self.lane(&tenant, subscription).claiming = false;
        self.records.extend(records);
        let given = ready.len();
        let new = ready.into_iter().filter_map(|it| self.queue(it).then_some(())).count();
        let least_ms = if new < given { clock::now_ms() + OURS_AGAIN_MS } else { i64::MIN };
        if let Some(due_ms) = next_due_ms {
            let due_ms = due_ms.max(least_ms);
            self.due(&tenant, subscription, due_ms);
        }
        self.fetch(subscription);
    }
}
