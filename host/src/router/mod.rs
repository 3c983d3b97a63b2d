//! Stage 2: matches accepted events and renders their deliveries, on the worker threads.
//!
//! Events come from the store's writer, straight after their commit. When a tenant's come faster than
//! they can be routed, the rest waits in the store and is read from there: memory stays bounded.

mod deliveries;
mod memory;
mod needs;
mod routing;
mod samples;
mod suspects;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use hookyard_nouns::event::Tenant;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::app::App;
use crate::fair::Batch;
use crate::marks::Slot;
use crate::store::{Record, Unrouted};
use memory::{Memory, Place};
use routing::Routing;
use samples::Samples;

pub use suspects::try_suspects;

/// How long a failed read of the store is left alone.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// Takes events from the writer and from the store, and has the workers route them.
pub struct Router {
    app: OnceLock<Weak<App>>,
    handle: Handle,
    lanes: Mutex<HashMap<Tenant, Lane>>,
    feeders: Mutex<JoinSet<()>>,
    memory: Arc<Memory>,
    samples: Samples,
}

/// How far a tenant's events have been taken up.
#[derive(Default)]
struct Lane {
    /// When events wait in the store: the last one that was taken up.
    behind: Option<u64>,
    /// The last event that was left in the store.
    left: u64,
}

impl Router {
    /// Must be called within a Tokio runtime.
    pub fn new() -> Arc<Router> {
        Arc::new(Router {
            app: OnceLock::new(),
            handle: Handle::current(),
            lanes: Mutex::default(),
            feeders: Mutex::default(),
            memory: Arc::default(),
            samples: Samples::default(),
        })
    }

    /// Begins, with what was not finished when the last process ended.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn start(self: &Arc<Router>, app: &Arc<App>) -> crate::store::Result<()> {
        assert!(self.app.set(Arc::downgrade(app)).is_ok(), "the router starts once");
        for (tenant, after) in app.store.unrouted_tenants().await? {
            lock(&self.lanes).insert(tenant.clone(), Lane { behind: Some(after), left: after });
            self.feed(tenant, true);
        }
        Ok(())
    }

    /// Takes events over. Never waits.
    pub fn offer(self: &Arc<Router>, events: Vec<Unrouted>) {
        let Some(app) = self.app() else { return };
        let mut lanes = lock(&self.lanes);
        let mut batch = app.workers.batch();
        for it in events {
            let (tenant, seq) = (it.event.tenant.clone(), it.seq);
            let lane = lanes.entry(tenant.clone()).or_default();
            if lane.behind.is_some() {
                lane.left = seq;
            } else if let Some(place) = self.memory.place(&it.event) {
                self.submit(&app, &mut batch, it, place, false);
            } else {
                (lane.behind, lane.left) = (Some(seq - 1), seq);
                self.feed(tenant, false);
            }
        }
    }

    /// Ends the reading of events from the store.
    pub async fn stop(&self) {
        let mut feeders = std::mem::take(&mut *lock(&self.feeders));
        feeders.shutdown().await;
    }

    fn app(&self) -> Option<Arc<App>> {
        self.app.get()?.upgrade()
    }

    /// `again`: the event may have been routed in part before.
    fn submit(
        self: &Arc<Router>,
        app: &Arc<App>,
        batch: &mut Batch<'_, Slot>,
        it: Unrouted,
        place: Place,
        again: bool,
    ) {
        let owner = Some(it.event.tenant.clone());
        let routing = Routing::new(Arc::clone(self), Arc::clone(app), it, place, again);
        batch.add(&owner, move |slot| routing.go_on(slot));
    }

    /// Reads a tenant's events from the store until there are no more than come anyway.
    fn feed(self: &Arc<Router>, tenant: Tenant, again: bool) {
        let router = Arc::clone(self);
        let mut feeders = lock(&self.feeders);
        while feeders.try_join_next().is_some() {}
        feeders.spawn_on(async move { router.read(tenant, again).await }, &self.handle);
    }

    async fn read(self: Arc<Router>, tenant: Tenant, again: bool) {
        while let Some(app) = self.app() {
            let Some(after) = lock(&self.lanes).get(&tenant).and_then(|lane| lane.behind) else {
                return;
            };
            let (limit, place) = self.memory.place_for_page(&tenant).await;
            let page = match app.store.unrouted(&tenant, after, limit).await {
                Ok(page) => page,
                Err(err) => {
                    tracing::warn!(%tenant, %err, "cannot read events; trying again");
                    tokio::time::sleep(READ_AGAIN).await;
                    continue;
                }
            };
            let Some(upto) = page.upto() else {
                let mut lanes = lock(&self.lanes);
                let lane = lanes.entry(tenant.clone()).or_default();
                // Otherwise one has been left there since we looked.
                if lane.left <= after {
                    lane.behind = None;
                    return;
                }
                continue;
            };
            for (seq, why) in page.broken {
                tracing::error!(%tenant, seq, why, "an event is broken and cannot be routed");
                app.store.record(vec![Record::Routed { tenant: tenant.clone(), seq }]);
            }
            drop(place);
            let mut batch = app.workers.batch();
            for it in page.events {
                let place = self.memory.place_anyway(&it.event);
                self.submit(&app, &mut batch, it, place, again);
            }
            drop(batch);
            lock(&self.lanes).entry(tenant.clone()).or_default().behind = Some(upto);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
