//! How many events are in memory until they are routed: those that wait for a worker, and those that wait for the
//! store or for a plugin.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hookyard_nouns::event::{Event, Tenant};
use tokio::sync::Notify;

/// How many events of one tenant, and how large their content may be.
const OWN_ITEMS_MAX: usize = 4_096;
const OWN_BYTES_MAX: usize = 32 << 20;
/// How large the content of all is. A tenant without any has room for one all the same, so that nobody waits
/// for the events of others.
const BYTES_MAX: usize = 64 << 20;
/// What an event takes beside its content, about.
const EVENT_BYTES: usize = 1_024;
/// How many events are read from the store at a time, and about how large they may be together.
const PAGE_MAX: usize = 256;
const PAGE_BYTES: usize = 4 << 20;

/// The places for events in memory, of which each tenant has a share.
#[derive(Debug, Default)]
pub(super) struct Memory {
    held: Mutex<Held>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// Of each tenant that has any: how many events, and their bytes.
    of: HashMap<Tenant, (usize, usize)>,
}

/// The place of one event, or of a page of them that is being read, for as long as that is in memory.
#[derive(Debug)]
pub(super) struct Place {
    memory: Arc<Memory>,
    tenant: Tenant,
    bytes: usize,
}

impl Memory {
    /// A place for an event; none where there is no room.
    pub(super) fn place(self: &Arc<Memory>, event: &Event) -> Option<Place> {
        let bytes = bytes_of(event);
        let mut held = self.lock();
        let has_room = held.has_room(&event.tenant, bytes);
        has_room.then(|| self.take(&mut held, &event.tenant, bytes))
    }

    /// A place for an event that is in memory already.
    pub(super) fn place_anyway(self: &Arc<Memory>, event: &Event) -> Place {
        self.take(&mut self.lock(), &event.tenant, bytes_of(event))
    }

    /// Waits until events of a tenant may be read, and answers how many, with a place for them.
    pub(super) async fn place_for_page(self: &Arc<Memory>, tenant: &Tenant) -> (usize, Place) {
        loop {
            let left = self.left.notified();
            if let Some(place) = self.try_place_for_page(tenant) {
                return place;
            }
            left.await;
        }
    }

    fn try_place_for_page(self: &Arc<Memory>, tenant: &Tenant) -> Option<(usize, Place)> {
        let mut held = self.lock();
        let is_full = held.bytes + PAGE_BYTES > BYTES_MAX;
        held.has_room(tenant, PAGE_BYTES).then(|| {
            let (count, bytes) = if is_full { (1, EVENT_BYTES) } else { (PAGE_MAX, PAGE_BYTES) };
            (count, self.take(&mut held, tenant, bytes))
        })
    }

    fn take(self: &Arc<Memory>, held: &mut Held, tenant: &Tenant, bytes: usize) -> Place {
        held.bytes += bytes;
        let own = held.of.entry(tenant.clone()).or_default();
        *own = (own.0 + 1, own.1 + bytes);
        Place { memory: Arc::clone(self), tenant: tenant.clone(), bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn has_room(&self, tenant: &Tenant, bytes: usize) -> bool {
        self.of.get(tenant).is_none_or(|(items, own)| {
            *items < OWN_ITEMS_MAX
                && own + bytes <= OWN_BYTES_MAX
                && self.bytes + bytes <= BYTES_MAX
        })
    }
}

fn bytes_of(event: &Event) -> usize {
    event.content.bytes() + EVENT_BYTES
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.memory.lock();
        held.bytes -= self.bytes;
        let own = held.of.get_mut(&self.tenant).expect("a tenant with a place is known");
        *own = (own.0 - 1, own.1 - self.bytes);
        if own.0 == 0 {
            held.of.remove(&self.tenant);
        }
        drop(held);
        self.memory.left.notify_waiters();
    }
}
