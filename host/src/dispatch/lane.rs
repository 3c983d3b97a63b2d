//! What the dispatcher knows of one subscription's deliveries.

use std::collections::VecDeque;
use std::sync::Arc;

use hookyard_nouns::clock;
use hookyard_nouns::delivery::Delivery;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::rendering::Body;
use uuid::Uuid;

use super::flow::Flow;
use crate::inbox::{Ready, Unrecorded};

/// How many deliveries of a subscription wait in memory. The others wait in the store.
const QUEUE_MAX: usize = 256;
/// So many times as many may wait while there is much room: the way through the store costs more.
const ROOMY: usize = 8;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) tenant: Tenant,
    /// Deliveries in memory that wait for their turn.
    pub(super) queue: VecDeque<Uuid>,
    pub(super) in_flight: usize,
    /// When the first of those in the store is due.
    pub(super) next_due_ms: Option<i64>,
    /// Some of them are being fetched.
    pub(super) claiming: bool,
    /// The lane waits for its turn among the lanes.
    pub(super) waits: bool,
    /// What is known of the endpoint.
    pub(super) flow: Flow,
    /// When to look whether that can be forgotten. There is an alarm for it.
    pub(super) forgets_ms: i64,
    /// The endpoint or the account takes the next one not before this. There is an alarm for it.
    pub(super) rests_until_ms: i64,
}

impl Lane {
    pub(super) fn new(tenant: Tenant) -> Lane {
        Lane {
            tenant,
            queue: VecDeque::new(),
            in_flight: 0,
            next_due_ms: None,
            claiming: false,
            waits: false,
            flow: Flow::default(),
            forgets_ms: 0,
            rests_until_ms: 0,
        }
    }

    /// `is_roomy`: whether memory is mostly free.
    pub(super) fn is_full(&self, is_roomy: bool) -> bool {
        self.queue.len() >= self.queue_max() * if is_roomy { ROOMY } else { 1 }
    }

    /// Whether it is time to fetch more from the store: it takes about as long as the other half lasts.
    pub(super) fn runs_out(&self) -> bool {
        self.queue.len() <= self.queue_max() / 2
    }

    /// How many deliveries to fetch from the store.
    pub(super) fn room(&self) -> usize {
        self.queue_max().saturating_sub(self.queue.len())
    }

    /// An endpoint that takes little at once has little waiting in memory.
    fn queue_max(&self) -> usize {
        self.flow.worth_having().min(QUEUE_MAX)
    }

    /// Nothing of it is in memory.
    pub(super) fn has_nothing(&self) -> bool {
        self.queue.is_empty() && self.in_flight == 0
    }

    /// There is something in the store that is due then. Answers whether that is the first of it.
    pub(super) fn due_at(&mut self, at_ms: i64) -> bool {
        let is_first = self.next_due_ms.is_none_or(|next| at_ms < next);
        if is_first {
            self.next_due_ms = Some(at_ms);
        }
        is_first
    }

    /// The clock was set back.
    pub(super) fn set_back(&mut self, by_ms: i64) {
        self.next_due_ms = self.next_due_ms.map(|due| due - by_ms);
        self.rests_until_ms -= by_ms;
        self.forgets_ms -= by_ms;
        self.flow.set_back(by_ms);
    }

    /// There is nothing to send, now or at a time that is known.
    pub(super) fn is_idle(&self) -> bool {
        self.has_nothing()
            && self.next_due_ms.is_none()
            && !self.claiming
            && !self.waits
            && self.rests_until_ms <= clock::now_ms()
    }
}

/// A delivery in memory.
pub(super) struct Open {
    pub(super) tenant: Tenant,
    pub(super) event_seq: u64,
    pub(super) delivery: Delivery,
    pub(super) body: Body,
    /// Its event was published by the router itself.
    pub(super) is_ours: bool,
    /// What the plugins took to make its body, in microseconds.
    pub(super) plugins_us: Option<u32>,
    pub(super) unrecorded: Option<Arc<Unrecorded>>,
}

impl Open {
    pub(super) fn new(it: Ready) -> Open {
        let Ready { tenant, event_seq, delivery, body, is_ours, plugins_us, unrecorded } = it;
        Open { tenant, event_seq, delivery, body, is_ours, plugins_us, unrecorded }
    }
}
