//! Stage 2: matches accepted events and renders their deliveries, on the worker threads.
//!
//! Events come from the store's writer, straight after their commit. When a tenant's come faster than
//! they can be routed, the rest waits in the store and is read from there: memory stays bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::app::{App, Ready, Signal, Unrecorded};
use crate::clock;
use crate::delivery::{Delivery, DeliveryState, Reason, delivery_id};
use crate::event::{Event, Tenant};
use crate::plugin::Digest;
use crate::render::{Body, Rendered, render};
use crate::store::{Record, Unrouted};
use crate::subscription::{State, Subscription};

/// How many events are read from the store at a time.
const READ_MAX: usize = 256;
/// How often a plugin that could not be run is tried again, and how long after.
const RUN_AGAIN: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1_600)];
/// How long a failed read of the store is left alone.
const READ_AGAIN: Duration = Duration::from_millis(500);
/// How many dropped deliveries of a subscription are kept as examples, each minute.
const FILTERED_SAMPLES_MAX: u32 = 10;
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
        for it in events {
            let tenant = it.event.tenant.clone();
            let seq = it.seq;
            let mut lanes = lock(&self.lanes);
            let lane = lanes.entry(tenant.clone()).or_default();
            if lane.behind.is_some() {
                lane.left = seq;
            } else if self.submit(&app, it, false).is_err() {
                (lane.behind, lane.left) = (Some(seq - 1), seq);
                drop(lanes);
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
        it: Unrouted,
        again: bool,
    ) -> Result<(), Unrouted> {
        let bytes = it.event.content.data.as_ref().map_or(0, |data| data.bytes().len());
        let task = {
            let (router, app, it) = (Arc::clone(self), Arc::clone(app), it.clone());
            move || router.route(&app, &it, again)
        };
        app.workers.submit(&it.event.tenant.clone(), bytes, task).map_err(|_| it)
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
                    match self.submit(&app, it, again) {
                        Ok(()) => break,
                        Err(back) => it = back,
                    }
                    room.await;
                }
                lock(&self.lanes).entry(tenant.clone()).or_default().behind = Some(seq);
            }
        }
    }

    /// Routes one event. `again`: it may have been routed in part before.
    fn route(&self, app: &Arc<App>, it: &Unrouted, again: bool) {
        let event = &it.event;
        while !app.knows(event.revision) {
            if let Err(err) = self.handle.block_on(app.catch_up()) {
                tracing::warn!(%err, "cannot read subscriptions; trying again");
                std::thread::sleep(READ_AGAIN);
            }
        }
        let recorded = if again { self.recorded(app, event) } else { Vec::new() };
        let mut routing =
            Routing { event, now_ms: clock::now_ms(), records: vec![], ready: vec![] };
        let mut rendered: HashMap<Digest, Rendered> = HashMap::new();
        let matching = app.index().matching(event);
        for subscription in matching {
            let rendered = rendered
                .entry(subscription.rendering_hash)
                .or_insert_with(|| render_patiently(app, event, &subscription));
            match rendered {
                Rendered::Bodies(bodies) => {
                    for (part, body) in bodies.iter().enumerate() {
                        routing.deliver(app, &subscription, part, body);
                    }
                }
                Rendered::Filtered(reason) => {
                    routing.filtered(&subscription, reason, self.is_sample(subscription.id));
                }
                Rendered::Failed(reason) => {
                    routing.record(&subscription, DeliveryState::Failed, Some(reason.clone()));
                }
            }
        }
        routing.finish(app, &self.handle, it.seq, &recorded);
    }

    fn recorded(&self, app: &App, event: &Event) -> Vec<Uuid> {
        loop {
            match self.handle.block_on(app.store.recorded(event)) {
                Ok(recorded) => return recorded,
                Err(err) => {
                    tracing::warn!(%err, "cannot read deliveries; trying again");
                    std::thread::sleep(READ_AGAIN);
                }
            }
        }
    }

    fn is_sample(&self, subscription: Uuid) -> bool {
        let minute = clock::now_ms() / MINUTE_MS;
        let mut samples = lock(&self.samples);
        let sample = samples.entry(subscription).or_default();
        if sample.0 != minute {
            *sample = (minute, 0);
        }
        sample.1 += 1;
        sample.1 <= FILTERED_SAMPLES_MAX
    }
}

/// What one event comes to.
struct Routing<'a> {
    event: &'a Arc<Event>,
    now_ms: i64,
    records: Vec<Delivery>,
    ready: Vec<(Delivery, Body)>,
}

impl Routing<'_> {
    fn delivery(&self, subscription: &Subscription, part: u16, state: DeliveryState) -> Delivery {
        Delivery {
            id: delivery_id(self.event, subscription.id, part),
            event_id: self.event.id,
            subscription_id: subscription.id,
            part,
            rendering: subscription.rendering_hash,
            body: None,
            state,
            reason: None,
            due_at_ms: None,
            attempts: 0,
            last_attempt: None,
            created_at_ms: self.now_ms,
        }
    }

    fn deliver(&mut self, app: &App, subscription: &Subscription, part: usize, body: &Body) {
        let part = u16::try_from(part).expect("an event has few parts");
        // The event is for whoever wanted it when it was accepted; what becomes of the delivery is for
        // the subscription as it is now.
        let state = match app.subscription(subscription.id) {
            None => DeliveryState::Cancelled,
            Some(now) if now.state == State::Paused && now.catch_up => DeliveryState::Held,
            Some(_) => DeliveryState::Pending,
        };
        let mut delivery = self.delivery(subscription, part, state);
        delivery.body = Some(Digest::of(&body.bytes));
        match state {
            DeliveryState::Pending => self.ready.push((delivery, body.clone())),
            _ => self.records.push(delivery),
        }
    }

    fn record(&mut self, to: &Subscription, state: DeliveryState, reason: Option<Reason>) {
        let mut delivery = self.delivery(to, 0, state);
        delivery.reason = reason;
        self.records.push(delivery);
    }

    fn filtered(&mut self, to: &Subscription, reason: &Reason, is_sample: bool) {
        // Those that are only counted have no row, and no id to be told by.
        let mut delivery = self.delivery(to, 0, DeliveryState::Filtered);
        delivery.reason = is_sample.then(|| reason.clone());
        self.records.push(delivery);
    }

    /// Hands everything over that was not recorded before.
    fn finish(self, app: &App, handle: &Handle, seq: u64, recorded: &[Uuid]) {
        let Routing { event, now_ms, records, ready } = self;
        let tenant = &event.tenant;
        let mut out = Vec::with_capacity(records.len() + 1);
        let mut held = Vec::new();
        for delivery in records.into_iter().filter(|it| !recorded.contains(&it.id)) {
            let subscription = delivery.subscription_id;
            if delivery.state == DeliveryState::Held {
                held.push(subscription);
            }
            if delivery.state == DeliveryState::Filtered {
                out.push(Record::Filtered { subscription, at_ms: now_ms });
                if delivery.reason.is_none() {
                    continue;
                }
            }
            let (tenant, delivery) = (tenant.clone(), Box::new(delivery));
            out.push(Record::Delivery { tenant, event_seq: seq, delivery });
        }
        let mut ready = ready;
        ready.retain(|(delivery, _)| !recorded.contains(&delivery.id));
        if ready.is_empty() {
            out.push(Record::Routed { tenant: tenant.clone(), seq });
        }
        if !out.is_empty() {
            handle.block_on(app.store.record(out));
        }
        if !held.is_empty() {
            // The subscription may have been resumed in between.
            let _ = app.outgoing.blocking_send(Signal::Changed(held));
        }
        if ready.is_empty() {
            return;
        }
        let unrecorded = Arc::new(Unrecorded::new(tenant.clone(), seq, ready.len()));
        let ready = ready.into_iter().map(|(delivery, body)| Ready {
            tenant: tenant.clone(),
            event_seq: seq,
            delivery,
            body,
            unrecorded: Some(Arc::clone(&unrecorded)),
        });
        // When the dispatcher has ended, the event is routed again at the next start.
        let _ = app.outgoing.blocking_send(Signal::Ready(ready.collect()));
    }
}

/// Renders, and tries again for a while where it is not the plugin's fault.
fn render_patiently(app: &App, event: &Arc<Event>, subscription: &Subscription) -> Rendered {
    let format = app.format(subscription.format);
    let once = || render(&app.runtime, format, event, &subscription.rendering);
    let mut result = once();
    for wait in RUN_AGAIN {
        let Err(fault) = &result else { break };
        tracing::warn!(subscription = %subscription.id, %fault, "a plugin cannot be run; trying again");
        std::thread::sleep(wait);
        result = once();
    }
    result.unwrap_or_else(|fault| Rendered::Failed(Reason::new(fault.code(), fault.to_string())))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
