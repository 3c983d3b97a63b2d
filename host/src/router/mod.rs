//! Stage 2: matches accepted events and renders their deliveries, on the worker threads.
//!
//! Events come from the store's writer, straight after their commit. When a tenant's come faster than
//! they can be routed, the rest waits in the store and is read from there: memory stays bounded.

mod routing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::app::App;
use crate::clock;
use crate::event::Tenant;
use crate::store::Unrouted;
use crate::workers::Batch;
use routing::Routing;

/// How many events are read from the store at a time.
const READ_MAX: usize = 256;
/// How long a failed read of the store is left alone.
const READ_AGAIN: Duration = Duration::from_millis(500);
/// How many dropped deliveries of a subscription are kept as examples, each minute.
const FILTERED_SAMPLES_MAX: u32 = 10;
/// Of how many subscriptions that is counted.
const SAMPLED_MAX: usize = 100_000;
const MINUTE_MS: i64 = 60_000;

/// See the head of this module.
pub struct Router {
    app: OnceLock<Weak<App>>,
    handle: Handle,
    lanes: Mutex<HashMap<Tenant, Lane>>,
    feeders: Mutex<JoinSet<()>>,
    /// Of each subscription, the minute and how many examples it has had in it.
    samples: Mutex<HashMap<Uuid, (i64, u32)>>,
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
            samples: Mutex::default(),
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
            } else if self.submit(&app, &mut batch, it, false).is_err() {
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

    /// Gives an event back when there is no room for it.
    fn submit(
        self: &Arc<Router>,
        app: &Arc<App>,
        batch: &mut Batch<'_>,
        it: Unrouted,
        again: bool,
    ) -> Result<(), Unrouted> {
        let bytes = it.event.content.data_bytes();
        let task = {
            let (router, app, it) = (Arc::clone(self), Arc::clone(app), it.clone());
            move || Routing::begin(router, app, it, again).go_on()
        };
        batch.submit(&it.event.tenant, bytes, task).map_err(|_| it)
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
            let events = match app.store.unrouted(&tenant, after, READ_MAX).await {
                Ok(events) => events,
                Err(err) => {
                    tracing::warn!(%tenant, %err, "cannot read events; trying again");
                    tokio::time::sleep(READ_AGAIN).await;
                    continue;
                }
            };
            if events.is_empty() {
                let mut lanes = lock(&self.lanes);
                let lane = lanes.entry(tenant.clone()).or_default();
                // Otherwise one has been left there since we looked.
                if lane.left <= after {
                    lane.behind = None;
                    return;
                }
                continue;
            }
            for mut it in events {
                let seq = it.seq;
                loop {
                    let room = app.workers.room();
                    match self.submit(&app, &mut app.workers.batch(), it, again) {
                        Ok(()) => break,
                        Err(back) => it = back,
                    }
                    room.await;
                }
                lock(&self.lanes).entry(tenant.clone()).or_default().behind = Some(seq);
            }
        }
    }

    fn is_sample(&self, subscription: Uuid) -> bool {
        let minute = clock::now_ms() / MINUTE_MS;
        let mut samples = lock(&self.samples);
        if samples.len() > SAMPLED_MAX {
            samples.clear();
        }
        let sample = samples.entry(subscription).or_default();
        if sample.0 != minute {
            *sample = (minute, 0);
        }
        sample.1 += 1;
        sample.1 <= FILTERED_SAMPLES_MAX
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
