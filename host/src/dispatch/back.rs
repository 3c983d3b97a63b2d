//! Deliveries that leave memory without an attempt.

use std::collections::VecDeque;

use hookyard_nouns::delivery::DeliveryState;
use uuid::Uuid;

use super::Dispatcher;

impl Dispatcher {
    /// A delivery leaves memory and waits in the store.
    pub(super) fn put_back(&mut self, id: Uuid, due_ms: i64) {
        let open = self.open.remove(&id).expect("a delivery that is put back is open");
        self.bodies.let_go(&open.tenant, &open.body);
        let mut delivery = open.delivery;
        delivery.due_at_ms = Some(due_ms);
        self.due(&open.tenant, delivery.subscription_id, due_ms);
        self.record(open.tenant, open.event_seq, delivery, open.unrecorded, false);
    }

    /// The subscription takes nothing until then; its deliveries wait in the store.
    pub(super) fn put_lane_back(&mut self, subscription: Uuid, due_ms: i64) {
        for id in self.empty_lane(subscription) {
            self.put_back(id, due_ms);
        }
    }

    pub(super) fn cancel_lane(&mut self, subscription: Uuid) {
        for id in self.empty_lane(subscription) {
            let mut open = self.open.remove(&id).expect("a queued delivery is open");
            self.bodies.let_go(&open.tenant, &open.body);
            open.delivery.state = DeliveryState::Cancelled;
            self.record(open.tenant, open.event_seq, open.delivery, open.unrecorded, false);
        }
    }

    fn empty_lane(&mut self, subscription: Uuid) -> VecDeque<Uuid> {
        let lane = self.lanes.get_mut(&subscription).expect("the lane has its turn");
        std::mem::take(&mut lane.queue)
    }
}
