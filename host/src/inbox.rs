//! Deliveries on their way from the workers that make them to the dispatcher that sends them, taken in turns of
//! the tenants. It knows neither of both.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hookyard_nouns::delivery::Delivery;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::rendering::Body;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::fair::{FairQueue, Room};
use crate::store::Record;

/// How many deliveries of one tenant may be on their way, and how large their bodies may be. Whoever makes more
/// of them waits for room.
const ROOM: Room = Room { own_items: 4_096, own_bytes: 8 << 20, all_bytes: 32 << 20 };

/// A delivery with its body, ready to be attempted, which the store may not know yet.
#[derive(Debug)]
pub struct Ready {
    pub tenant: Tenant,
    pub event_seq: u64,
    pub delivery: Delivery,
    pub body: Body,
    /// The event was published by the router itself: when its delivery is dead, that is not announced by
    /// another event, which would have deliveries that may be dead.
    pub is_ours: bool,
    /// What the plugins took to make the body, in microseconds; none where none ran.
    pub plugins_us: Option<u32>,
    /// None when the store has the delivery already.
    pub unrecorded: Option<Arc<Unrecorded>>,
}

/// Knows when the store knows all deliveries of an event.
#[derive(Debug)]
pub struct Unrecorded {
    tenant: Tenant,
    event_seq: u64,
    /// One for the routing of the event, and one for each delivery.
    left: AtomicUsize,
}

impl Unrecorded {
    /// The event is being routed.
    pub fn new(tenant: Tenant, event_seq: u64) -> Unrecorded {
        Unrecorded { tenant, event_seq, left: AtomicUsize::new(1) }
    }

    /// There is another delivery that has to be recorded.
    pub fn one_more(&self) {
        self.left.fetch_add(1, Ordering::AcqRel);
    }

    /// To be called when a delivery is handed to the store, or when the routing ends. What the last of
    /// them answers has to be handed over after it.
    pub fn one_recorded(&self) -> Option<Record> {
        let last = self.left.fetch_sub(1, Ordering::AcqRel) == 1;
        last.then(|| Record::Routed { tenant: self.tenant.clone(), seq: self.event_seq })
    }
}

/// The deliveries that the dispatcher has not taken yet, of which each tenant has a share.
#[derive(Debug)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    came: Notify,
    taken: Notify,
}

#[derive(Debug)]
struct Waiting {
    ready: FairQueue<Ready>,
    /// Subscriptions that have changed, or have deliveries in the store that were not there before.
    changed: HashMap<Uuid, Tenant>,
}

/// What the dispatcher takes at a time.
#[derive(Debug, Default)]
pub struct Taken {
    pub ready: Vec<Ready>,
    pub changed: Vec<(Uuid, Tenant)>,
}

impl Default for Inbox {
    fn default() -> Inbox {
        let waiting = Waiting { ready: FairQueue::new(ROOM), changed: HashMap::new() };
        Inbox { waiting: Mutex::new(waiting), came: Notify::new(), taken: Notify::new() }
    }
}

impl Inbox {
    /// Puts a tenant's deliveries in, each with the bytes that it adds to those before: deliveries that share
    /// a body hold it once. There is room for a few more than [`Inbox::has_room`] says.
    pub fn put(&self, tenant: &Tenant, ready: Vec<(Ready, usize)>) {
        let owner = Some(tenant.clone());
        let mut waiting = self.lock();
        for (it, bytes) in ready {
            waiting.ready.add(&owner, bytes, it);
        }
        drop(waiting);
        self.came.notify_one();
    }

    /// Says that subscriptions have changed, or have deliveries in the store. To say it twice is to say it once.
    pub fn changed(&self, tenant: &Tenant, subscriptions: impl IntoIterator<Item = Uuid>) {
        let named = subscriptions.into_iter().map(|id| (id, tenant.clone()));
        self.lock().changed.extend(named);
        self.came.notify_one();
    }

    /// Whether a tenant has so few deliveries on their way that there may be more.
    pub fn has_room(&self, tenant: &Tenant) -> bool {
        self.lock().ready.has_room(&Some(tenant.clone()))
    }

    /// Waits until there is room for a tenant's deliveries.
    pub async fn room(&self, tenant: &Tenant) {
        loop {
            let taken = self.taken.notified();
            if self.has_room(tenant) {
                return;
            }
            taken.await;
        }
    }

    /// Waits until there is something to take.
    pub async fn wait(&self) {
        self.came.notified().await;
    }

    /// Takes up to so many deliveries, and as many changes.
    pub fn take(&self, max: usize) -> Taken {
        let mut waiting = self.lock();
        let mut taken = Taken::default();
        while taken.ready.len() < max
            && let Some((owner, ready)) = waiting.ready.pop(|_| true)
        {
            waiting.ready.charge(&owner, 1);
            taken.ready.push(ready);
        }
        taken.changed.extend(waiting.changed.extract_if(|_, _| true).take(max));
        let is_empty = waiting.ready.is_empty() && waiting.changed.is_empty();
        drop(waiting);
        if !taken.ready.is_empty() {
            self.taken.notify_waiters();
        }
        if !is_empty {
            self.came.notify_one();
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
