//! What becomes of an event for one subscription: a delivery that is handed to the dispatcher, or a record of why
//! there is none.

use std::sync::Arc;

use hookyard_nouns::clock;
use hookyard_nouns::delivery::{Delivery, DeliveryState, Reason, delivery_id};
use hookyard_nouns::digest::Digest;
use hookyard_nouns::rendering::{Body, Rendered};
use hookyard_nouns::subscription::{IN_TURN, State, Subscription};
use uuid::Uuid;

use super::routing::Routing;
use crate::inbox::Ready;
use crate::store::{Quarantine, Record};
use crate::wasm::Fault;

/// How much is made of one event in a turn.
const TURN_ITEMS_MAX: usize = 256;
const TURN_BYTES_MAX: usize = 1 << 20;
/// How long a delivery is put off that cannot be rendered now.
const RENDER_AGAIN_MS: i64 = 500;
/// What a delivery takes on its way, beside its body.
const READY_BYTES: usize = 1_024;

/// What is handed over at the end of a turn.
#[derive(Default)]
pub(super) struct Out {
    pub(super) records: Vec<Record>,
    /// Each with the bytes that it adds to those before.
    pub(super) ready: Vec<(Ready, usize)>,
    pub(super) ready_bytes: usize,
    /// Subscriptions with deliveries that only the store has.
    pub(super) changed: Vec<Uuid>,
}

impl Out {
    /// Whether it is time for others.
    pub(super) fn is_large(&self) -> bool {
        let items = self.records.len() + self.ready.len();
        items >= TURN_ITEMS_MAX || self.ready_bytes >= TURN_BYTES_MAX
    }
}

impl Routing {
    /// What is not rendered by a plugin that fails is not sent without it, but kept.
    pub(super) fn hold(&self, subscription: &Subscription, quarantine: &Quarantine, out: &mut Out) {
        let mut delivery = self.delivery(subscription, 0, DeliveryState::Held);
        let detail = format!(
            "held until its plugin {} is well again; what it failed with: {}",
            quarantine.plugin, quarantine.reason.code
        );
        delivery.reason = Some(Reason::new("plugin-quarantined", detail));
        delivery.order_key = self.order_key(subscription).or(Some(IN_TURN));
        self.record(delivery, out);
        // The plugin may be well by now.
        out.changed.push(subscription.id);
    }

    /// The router cannot render it now. The delivery waits in the store, where it is seen, and the dispatcher
    /// renders it later; the event's other deliveries need not wait for it.
    pub(super) fn put_off(&self, subscription: &Subscription, fault: &Fault, out: &mut Out) {
        let mut delivery = self.new_delivery(subscription, 0);
        if delivery.state == DeliveryState::Pending {
            delivery.reason = Some(Reason::new(fault.code(), fault.to_string()));
            delivery.due_at_ms = Some(clock::now_ms() + RENDER_AGAIN_MS);
        }
        self.record(delivery, out);
        out.changed.push(subscription.id);
    }

    /// Has the shadow of the subscription run, if there is one that wants the event. It is compared with what is
    /// really sent, on the threads for trials: nothing that is sent waits for it.
    pub(super) fn show_to_shadow(&self, subscription: &Subscription, real: &Rendered) {
        let seeing = self.app.shadows.seeing(&self.event, subscription.id, real);
        let Some(seeing) = seeing else { return };
        let (app, event) = (Arc::clone(&self.app), Arc::clone(&self.event));
        let (format, owner) = (subscription.format, Some(event.tenant.clone()));
        // What waits for shadows is bounded there: a shadow leaves out what there is no room for.
        self.app.trials.batch().add(&owner, move |_| {
            let bytes_max = app.settings.delivery_bytes_max;
            seeing.see(&app.runtime, app.format(format), &event, bytes_max);
        });
    }

    pub(super) fn filtered(&self, subscription: &Subscription, reason: Reason, out: &mut Out) {
        let at_ms = self.now_ms;
        let mut delivery = self.delivery(subscription, 0, DeliveryState::Filtered);
        if self.is_recorded(&delivery) {
            return;
        }
        let (tenant, subscription) = (self.event.tenant.clone(), subscription.id);
        out.records.push(Record::Filtered { tenant, subscription, at_ms });
        if self.router.samples.keeps(subscription) {
            delivery.reason = Some(reason);
            self.record(delivery, out);
        }
    }

    pub(super) fn fail(&self, subscription: &Subscription, reason: Reason, out: &mut Out) {
        let mut delivery = self.delivery(subscription, 0, DeliveryState::Failed);
        delivery.reason = Some(reason);
        self.record(delivery, out);
    }

    pub(super) fn deliver(
        &self,
        subscription: &Subscription,
        part: usize,
        body: Body,
        is_new: bool,
        plugins_us: Option<u32>,
        out: &mut Out,
    ) {
        let part = u16::try_from(part).expect("an event has few parts");
        let mut delivery = self.new_delivery(subscription, part);
        delivery.body = Some(Digest::of(&body.bytes));
        let state = delivery.state;
        if state == DeliveryState::Pending && delivery.order_key.is_some() {
            // Events are routed side by side: the store knows which one is first.
            delivery.due_at_ms = Some(self.now_ms);
        }
        if state == DeliveryState::Held || delivery.due_at_ms.is_some() {
            out.changed.push(subscription.id);
        }
        if state != DeliveryState::Pending || delivery.due_at_ms.is_some() {
            self.record(delivery, out);
        } else if !self.is_recorded(&delivery) {
            self.unrecorded.one_more();
            // A body that several deliveries share is in memory once.
            let bytes = READY_BYTES + if is_new { body.bytes.len() } else { 0 };
            let ready = Ready {
                tenant: self.event.tenant.clone(),
                event_seq: self.seq,
                delivery,
                body,
                is_ours: self.event.is_ours(),
                plugins_us,
                unrecorded: Some(Arc::clone(&self.unrecorded)),
            };
            out.ready_bytes += bytes;
            out.ready.push((ready, bytes));
        }
    }

    /// The event is for whoever wanted it when it was accepted; what becomes of the delivery is for the
    /// subscription as it is now.
    fn new_delivery(&self, subscription: &Subscription, part: u16) -> Delivery {
        let present = self.app.subscription(subscription.id);
        let (state, in_turn) = match (present, self.app.releases.began_at_ms(subscription.id)) {
            (None, _) => (DeliveryState::Cancelled, false),
            (Some(now), _) if now.state == State::Paused && now.catch_up => {
                (DeliveryState::Held, true)
            }
            // What is held goes before it.
            (Some(_), Some(began_at_ms)) => {
                (DeliveryState::Held, self.event.accepted_at_ms <= began_at_ms)
            }
            (Some(_), None) => (DeliveryState::Pending, false),
        };
        let mut delivery = self.delivery(subscription, part, state);
        if state != DeliveryState::Cancelled {
            delivery.order_key = self.order_key(subscription).or(in_turn.then_some(IN_TURN));
        }
        if state == DeliveryState::Held {
            let detail =
                "held until the subscription is resumed and what was held before it has gone";
            delivery.reason = Some(Reason::new("paused", detail));
        }
        delivery
    }

    /// The key of the deliveries that the subscriber wants one after the other.
    fn order_key(&self, subscription: &Subscription) -> Option<i64> {
        subscription.pace.order.as_ref()?.key.of(&self.event)
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
        if !self.is_recorded(&delivery) {
            let (tenant, delivery) = (self.event.tenant.clone(), Box::new(delivery));
            let (event_seq, attempted) = (self.seq, false);
            out.records.push(Record::Delivery { tenant, event_seq, delivery, attempted });
        }
    }

    fn is_recorded(&self, delivery: &Delivery) -> bool {
        self.recorded.as_ref().is_some_and(|it| it.contains(&delivery.id))
    }
}
