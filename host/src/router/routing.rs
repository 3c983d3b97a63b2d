//! One event on its way: who wants it, what each of them gets, and who is told.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{READ_AGAIN, Router};
use crate::app::{App, Ready, Signal, Unrecorded};
use crate::clock;
use crate::delivery::{Delivery, DeliveryState, Reason, delivery_id};
use crate::event::Event;
use crate::health::Who;
use crate::plugin::Digest;
use crate::render::{Body, Rendered, render};
use crate::store::{Quarantine, Record, Unrouted};
use crate::subscription::{State, Subscription};
use crate::wasm::{self, StepRun};

/// How long a worker stays with one event. Then others have their turn.
const TURN: Duration = Duration::from_millis(10);
/// How often a plugin that could not be run is tried again, and how long after.
const RUN_AGAIN: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1_600)];

/// See the head of this module.
pub(super) struct Routing {
    router: Arc<Router>,
    app: Arc<App>,
    event: Arc<Event>,
    seq: u64,
    /// It may have been routed before, in part, and what was recorded then.
    again: bool,
    recorded: HashSet<Uuid>,
    remaining: std::vec::IntoIter<Arc<Subscription>>,
    /// What is the same for several subscriptions.
    rendered: HashMap<Digest, (Rendered, Option<u32>)>,
    /// Holds the event until all of its deliveries are counted.
    unrecorded: Arc<Unrecorded>,
    now_ms: i64,
}

/// What is handed over at the end of a turn.
#[derive(Default)]
struct Out {
    records: Vec<Record>,
    ready: Vec<Ready>,
    /// Subscriptions with deliveries that only the store has.
    changed: Vec<Uuid>,
}

impl Routing {
    /// `again`: the event may have been routed in part before.
    pub(super) fn begin(router: Arc<Router>, app: Arc<App>, it: Unrouted, again: bool) -> Routing {
        let event = it.event;
        while !app.knows(event.revision) {
            if let Err(err) = router.handle.block_on(app.catch_up()) {
                tracing::warn!(%err, "cannot read subscriptions; trying again");
                std::thread::sleep(READ_AGAIN);
            }
        }
        let recorded = if again { recorded(&router, &app, &event) } else { HashSet::new() };
        let remaining = app.index().matching(&event).into_iter();
        Routing {
            unrecorded: Arc::new(Unrecorded::new(event.tenant.clone(), it.seq)),
            rendered: HashMap::new(),
            now_ms: clock::now_ms(),
            seq: it.seq,
            router,
            app,
            event,
            again,
            recorded,
            remaining,
        }
    }

    /// Takes a turn, and waits for another one when there is more to do.
    pub(super) fn go_on(mut self) {
        let start = Instant::now();
        let mut out = Out::default();
        while let Some(subscription) = self.remaining.next() {
            self.render_for(&subscription, &mut out);
            if start.elapsed() > TURN && self.remaining.len() > 0 {
                self.hand_over(out);
                let (app, tenant) = (Arc::clone(&self.app), self.event.tenant.clone());
                app.workers.go_on(&tenant, move || self.go_on());
                return;
            }
        }
        out.records.extend(self.unrecorded.one_recorded());
        self.hand_over(out);
    }

    fn render_for(&mut self, subscription: &Subscription, out: &mut Out) {
        let runs = |plugin| subscription.rendering.steps.iter().any(|it| it.plugin == plugin);
        let quarantine = self.app.health.quarantine_of(subscription.id);
        let quarantine = quarantine.filter(|it| runs(it.plugin));
        if let Some(quarantine) = &quarantine
            && !self.again
        {
            return self.hold(subscription, quarantine, out);
        }
        // Only what does not depend on the subscription can be the same for others.
        let shared = subscription.rendering.addressee.is_none();
        let known = self.rendered.get(&subscription.rendering_hash).cloned();
        let (rendered, plugins_us) = known.unwrap_or_else(|| {
            let (rendered, runs) = render_patiently(&self.app, &self.event, subscription);
            let plugins_us = wasm::time_us(&runs);
            if !runs.is_empty() {
                let tenant = &self.event.tenant;
                let who = Who { tenant, subscription: subscription.id, event: self.event.id };
                let counted = self.app.count_runs(who, &rendered, runs);
                let lines = self.router.handle.block_on(counted).into_iter();
                out.records.extend(lines.map(|it| Record::Log(Box::new(it))));
            }
            if shared {
                let rendered = (rendered.clone(), plugins_us);
                self.rendered.insert(subscription.rendering_hash, rendered);
            }
            (rendered, plugins_us)
        });
        let format = self.app.format(subscription.format);
        let shadows = &self.app.shadows;
        shadows.see(&self.app.runtime, format, &self.event, subscription.id, &rendered);
        match rendered {
            Rendered::Bodies(bodies) => {
                for (part, body) in bodies.into_iter().enumerate() {
                    self.deliver(subscription, part, body, plugins_us, out);
                }
            }
            Rendered::Filtered(reason) => {
                let at_ms = self.now_ms;
                let mut delivery = self.delivery(subscription, 0, DeliveryState::Filtered);
                if self.recorded.contains(&delivery.id) {
                    return;
                }
                let (tenant, subscription_id) = (self.event.tenant.clone(), subscription.id);
                out.records.push(Record::Filtered { tenant, subscription: subscription_id, at_ms });
                if self.router.is_sample(subscription.id) {
                    delivery.reason = Some(reason);
                    self.record(delivery, out);
                }
            }
            // What was sent before a crash that left no trace of it has had a body, and keeps it.
            Rendered::Failed(_) if let Some(quarantine) = &quarantine => {
                self.hold(subscription, quarantine, out);
            }
            Rendered::Failed(reason) => {
                let mut delivery = self.delivery(subscription, 0, DeliveryState::Failed);
                delivery.reason = Some(reason);
                self.record(delivery, out);
            }
        }
    }

    /// What is not rendered by a plugin that fails is not sent without it, but kept.
    fn hold(&self, subscription: &Subscription, quarantine: &Quarantine, out: &mut Out) {
        let mut delivery = self.delivery(subscription, 0, DeliveryState::Held);
        let detail = format!(
            "held until its plugin {} is well again; what it failed with: {}",
            quarantine.plugin, quarantine.reason.code
        );
        delivery.reason = Some(Reason::new("plugin-quarantined", detail));
        self.record(delivery, out);
        // The plugin may be well by now.
        out.changed.push(subscription.id);
    }

    fn deliver(
        &self,
        subscription: &Subscription,
        part: usize,
        body: Body,
        plugins_us: Option<u32>,
        out: &mut Out,
    ) {
        let part = u16::try_from(part).expect("an event has few parts");
        // The event is for whoever wanted it when it was accepted; what becomes of the delivery is for
        // the subscription as it is now.
        let state = match self.app.subscription(subscription.id) {
            None => DeliveryState::Cancelled,
            Some(now) if now.state == State::Paused && now.catch_up => DeliveryState::Held,
            // What is held goes before it.
            Some(_) if self.app.releases.is_under_way(subscription.id) => DeliveryState::Held,
            Some(_) => DeliveryState::Pending,
        };
        let mut delivery = self.delivery(subscription, part, state);
        delivery.body = Some(Digest::of(&body.bytes));
        if state != DeliveryState::Cancelled {
            let order = subscription.pace.order.as_ref();
            delivery.order_key = order.and_then(|it| it.key.of(&self.event));
        }
        if state == DeliveryState::Pending && delivery.order_key.is_some() {
            // Events are routed side by side: the store knows which one is first.
            delivery.due_at_ms = Some(self.now_ms);
        }
        if state == DeliveryState::Held {
            let detail =
                "held until the subscription is resumed and what was held before it has gone";
            delivery.reason = Some(Reason::new("paused", detail));
        }
        if state == DeliveryState::Held || delivery.due_at_ms.is_some() {
            out.changed.push(subscription.id);
        }
        if state != DeliveryState::Pending || delivery.due_at_ms.is_some() {
            self.record(delivery, out);
        } else if !self.recorded.contains(&delivery.id) {
            self.unrecorded.one_more();
            out.ready.push(Ready {
                tenant: self.event.tenant.clone(),
                event_seq: self.seq,
                delivery,
                body,
                is_ours: self.event.is_ours(),
                plugins_us,
                unrecorded: Some(Arc::clone(&self.unrecorded)),
            });
        }
    }

    fn delivery(&self, subscription: &Subscription, part: u16, state: DeliveryState) -> Delivery {
        Delivery {
            id: delivery_id(&self.event, subscription.id, part),
            event_id: self.event.id,
            subscription_id: subscription.id,
            part,
            rendering: subscription.rendering_hash,
            body: None,
            state,
            reason: None,
            due_at_ms: None,
            attempts: 0,
            earlier_attempts: 0,
            last_attempt: None,
            created_at_ms: self.event.accepted_at_ms,
            order_key: None,
            passed_over: false,
        }
    }

    fn record(&self, delivery: Delivery, out: &mut Out) {
        if !self.recorded.contains(&delivery.id) {
            let (tenant, delivery) = (self.event.tenant.clone(), Box::new(delivery));
            let (event_seq, attempted) = (self.seq, false);
            out.records.push(Record::Delivery { tenant, event_seq, delivery, attempted });
        }
    }

    fn hand_over(&self, out: Out) {
        crate::fault::point("rendered");
        if !out.records.is_empty() {
            self.router.handle.block_on(self.app.store.record(out.records));
        }
        // When the dispatcher has ended, the event is routed again at the next start.
        if !out.changed.is_empty() {
            // One that was paused may have been resumed in between.
            let _ = self.app.outgoing.blocking_send(Signal::Changed(out.changed));
        }
        if !out.ready.is_empty() {
            let _ = self.app.outgoing.blocking_send(Signal::Ready(out.ready));
        }
    }
}

fn recorded(router: &Router, app: &App, event: &Event) -> HashSet<Uuid> {
    loop {
        match router.handle.block_on(app.store.recorded(event)) {
            Ok(recorded) => return recorded.into_iter().collect(),
            Err(err) => {
                tracing::warn!(%err, "cannot read deliveries; trying again");
                std::thread::sleep(READ_AGAIN);
            }
        }
    }
}

/// Renders, and tries again for a while where it is not the plugin's fault.
fn render_patiently(
    app: &App,
    event: &Arc<Event>,
    subscription: &Subscription,
) -> (Rendered, Vec<StepRun>) {
    let format = app.format(subscription.format);
    let once = || render(&app.runtime, format, event, &subscription.rendering);
    let mut result = once();
    for wait in RUN_AGAIN {
        let Err(fault) = &result else { break };
        tracing::warn!(subscription = %subscription.id, %fault, "a plugin cannot be run; trying again");
        std::thread::sleep(wait);
        result = once();
    }
    result.unwrap_or_else(|fault| {
        (Rendered::Failed(Reason::new(fault.code(), fault.to_string())), Vec::new())
    })
}
