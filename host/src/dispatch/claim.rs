//! Fetches deliveries that are due from the store, and makes their bodies again.

use std::sync::Arc;

use hookyard_nouns::clock;
use hookyard_nouns::delivery::{Delivery, DeliveryState, Reason, delivery_id};
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Event, Tenant};
use hookyard_nouns::rendering::{Body, Rendered, Rendering};
use hookyard_nouns::subscription::IN_TURN_WAIT_SECONDS;
use uuid::Uuid;

use super::settle::OURS_AGAIN_MS;
use crate::app::App;
use crate::health::Who;
use crate::inbox::Ready;
use crate::marks::{self, Slot, Work};
use crate::render::render;
use crate::store::{Claim, Due, Record};
use crate::wasm::{self, Fault, StepRun};

/// How long a delivery that misses the code of a plugin waits before there is another look.
const NOT_READY_MS: i64 = 500;

/// What a claim comes to.
pub(super) struct Claimed {
    pub(super) tenant: Tenant,
    pub(super) subscription: Uuid,
    pub(super) ready: Vec<Ready>,
    /// Deliveries that cannot be made, or not now.
    pub(super) records: Vec<Record>,
    /// When the next one in the store is due, as far as this claim knows.
    pub(super) next_due_ms: Option<i64>,
}

/// Takes up to `limit` deliveries.
pub(super) async fn claim(
    app: Arc<App>,
    tenant: Tenant,
    subscription: Uuid,
    limit: usize,
) -> Claimed {
    let claimed = tokio::spawn(take(app, tenant.clone(), subscription, limit)).await;
    claimed.unwrap_or_else(|err| {
        tracing::error!(%subscription, %err, "fetching deliveries panicked");
        Claimed {
            tenant,
            subscription,
            ready: Vec::new(),
            records: Vec::new(),
            next_due_ms: Some(clock::now_ms() + OURS_AGAIN_MS),
        }
    })
}

async fn take(app: Arc<App>, tenant: Tenant, subscription: Uuid, limit: usize) -> Claimed {
    let mut claimed = Claimed {
        tenant: tenant.clone(),
        subscription,
        ready: Vec::new(),
        records: Vec::new(),
        next_due_ms: None,
    };
    let now_ms = clock::now_ms();
    if misses_code(&app, subscription) {
        // Whatever was taken would only have to be given back.
        claimed.next_due_ms = Some(now_ms + NOT_READY_MS);
        return claimed;
    }
    let order_wait_ms = order_wait_seconds(&app, subscription).map(|it| i64::from(it) * 1_000);
    let Claim { due, next_ms } =
        match app.store.claim(&tenant, subscription, now_ms, limit, order_wait_ms).await {
            Ok(claim) => claim,
            Err(err) => {
                tracing::warn!(%subscription, %err, "cannot fetch deliveries; trying again");
                claimed.next_due_ms = Some(now_ms + OURS_AGAIN_MS);
                return claimed;
            }
        };
    crate::fault::point("claimed");
    let mut is_new = false;
    for it in due {
        is_new |= it.delivery.body.is_none();
        take_one(&app, it, &mut claimed).await;
    }
    let put_off = claimed.records.iter().filter_map(|it| match it {
        Record::Delivery { delivery, .. } => delivery.due_at_ms,
        Record::Filtered { .. }
        | Record::Log(_)
        | Record::Failing { .. }
        | Record::Routed { .. } => None,
    });
    // Where one of a key comes to nothing, the next one is due as soon as that is recorded.
    let next_of_key = claimed.records.iter().any(|it| match it {
        Record::Delivery { delivery, .. } => {
            delivery.order_key.is_some() && delivery.state.is_settled()
        }
        Record::Filtered { .. }
        | Record::Log(_)
        | Record::Failing { .. }
        | Record::Routed { .. } => false,
    });
    let next_of_key = next_of_key.then_some(now_ms);
    claimed.next_due_ms = next_ms.into_iter().chain(put_off).chain(next_of_key).min();
    if is_new {
        // From its first attempt on, a body is the same for ever: through a crash as well.
        app.store.record(std::mem::take(&mut claimed.records));
        app.store.flush_of(&tenant).await;
    }
    claimed
}

/// For how long a delivery that fails holds up those that go after it; none where none does.
fn order_wait_seconds(app: &App, subscription: Uuid) -> Option<u32> {
    let present = app.subscription(subscription)?;
    match &present.pace.order {
        Some(order) => Some(order.wait_seconds),
        None => app.releases.is_under_way(subscription).then_some(IN_TURN_WAIT_SECONDS),
    }
}

/// Whether code that the subscription runs is being made.
fn misses_code(app: &App, subscription: Uuid) -> bool {
    app.subscription(subscription)
        .is_some_and(|it| app.runtime.is_waiting_for(&it.rendering.steps, &Some(it.tenant.clone())))
}

/// Makes one delivery ready, or a record of why it is not.
async fn take_one(app: &Arc<App>, mut it: Due, claimed: &mut Claimed) {
    let (tenant, event_seq, subscription) = (it.tenant.clone(), it.event_seq, claimed.subscription);
    let record = |delivery: Box<Delivery>| {
        let tenant = tenant.clone();
        Record::Delivery { tenant, event_seq, delivery, attempted: false }
    };
    let is_ours = it.event.as_ref().is_some_and(|it| it.is_ours());
    let had_body = it.delivery.body.is_some();
    let made = match app.subscription(subscription) {
        None => Err(cancelled(it)),
        Some(present) if !had_body => {
            // It was held before it was rendered: there is no body yet that has to stay as it is. What only
            // missed the code of a plugin is rendered as if that had been there.
            if !was_put_off(&it.delivery) {
                it.delivery.rendering = present.rendering_hash;
                it.rendering = Arc::clone(&present.rendering);
            }
            match app.health.quarantine_of(subscription) {
                Some(quarantine) if runs(&it.rendering, quarantine.plugin) => Err(held(it)),
                _ => make_again(app, it, &mut claimed.records).await,
            }
        }
        Some(_) => make_again(app, it, &mut claimed.records).await,
    };
    match made {
        Ok(Made { delivery, body, others, plugins_us }) => {
            // The other parts are known to the store before the first one is sent.
            claimed.records.extend(others.into_iter().map(Box::new).map(record));
            if !had_body {
                claimed.records.push(record(Box::new(delivery.clone())));
            }
            let unrecorded = None;
            claimed.ready.push(Ready {
                tenant,
                event_seq,
                delivery,
                body,
                is_ours,
                plugins_us,
                unrecorded,
            });
        }
        Err(delivery) => claimed.records.push(record(delivery)),
    }
}

fn was_put_off(delivery: &Delivery) -> bool {
    delivery.reason.as_ref().is_some_and(|it| wasm::is_ours(&it.code))
}

fn runs(rendering: &Rendering, plugin: Digest) -> bool {
    rendering.steps.iter().any(|step| step.plugin == plugin)
}

fn held(due: Due) -> Box<Delivery> {
    let mut delivery = due.delivery;
    delivery.state = DeliveryState::Held;
    Box::new(delivery)
}

fn cancelled(due: Due) -> Box<Delivery> {
    let mut delivery = due.delivery;
    delivery.state = DeliveryState::Cancelled;
    Box::new(delivery)
}

/// A delivery with its body.
struct Made {
    delivery: Delivery,
    body: Body,
    /// The other parts of the event, where it has just been rendered for the first time.
    others: Vec<Delivery>,
    /// What the plugins took, in microseconds; none where none ran.
    plugins_us: Option<u32>,
}

/// The delivery with its body, or as it has to be recorded without one.
async fn make_again(
    app: &Arc<App>,
    due: Due,
    records: &mut Vec<Record>,
) -> Result<Made, Box<Delivery>> {
    let mut delivery = due.delivery;
    let failed = |mut delivery: Delivery, reason: Reason| {
        delivery.state = DeliveryState::Failed;
        delivery.reason = Some(reason);
        Err(Box::new(delivery))
    };
    let Some(event) = due.event else {
        let reason = Reason::new("data-expired", "the event's data are no longer kept");
        return failed(delivery, reason);
    };
    let subscription = delivery.subscription_id;
    if app.set_aside.has(event.id, delivery.rendering) {
        return failed(delivery, marks::set_aside_reason());
    }
    let rendering = (delivery.rendering, due.rendering);
    let rendered = render_on_worker(app, &due.tenant, Arc::clone(&event), rendering).await;
    let (rendered, runs) = match rendered {
        Some(Ok(rendered)) => rendered,
        Some(Err(fault)) => return Err(put_off(delivery, Some(&fault))),
        None => return Err(put_off(delivery, None)),
    };
    let plugins_us = wasm::time_us(&runs);
    let who = Who { tenant: &due.tenant, subscription, event: event.id };
    let (lines, begins) = app.count_runs(who, &rendered, runs);
    if let Some(quarantine) = begins {
        app.begin_quarantine(quarantine).await;
    }
    // A retry writes what was kept when the event was first rendered.
    if delivery.body.is_none() {
        records.extend(lines.into_iter().map(|it| Record::Log(Box::new(it))));
    }
    let part = usize::from(delivery.part);
    match rendered {
        Rendered::Bodies(mut bodies) if part < bodies.len() => {
            let digest = Digest::of(&bodies[part].bytes);
            if delivery.body.is_some_and(|first| first != digest) {
                let reason =
                    Reason::new("body-changed", "the body would not be the one it was first");
                return failed(delivery, reason);
            }
            let others = match delivery.body.replace(digest) {
                None => {
                    delivery.reason = None;
                    other_parts(app, &event, &delivery, &bodies).await
                }
                Some(_) => Vec::new(),
            };
            let body = bodies.swap_remove(part);
            Ok(Made { delivery, body, others, plugins_us })
        }
        Rendered::Bodies(_) => {
            failed(delivery, Reason::new("body-changed", "the event has no such part any more"))
        }
        Rendered::Filtered(reason) => {
            let (subscription, at_ms) = (delivery.subscription_id, clock::now_ms());
            let tenant = due.tenant;
            records.push(Record::Filtered { tenant, subscription, at_ms });
            delivery.state = DeliveryState::Filtered;
            delivery.reason = Some(reason);
            Err(Box::new(delivery))
        }
        Rendered::Failed(reason) => failed(delivery, reason),
    }
}

/// The delivery cannot be made now, for a fault of ours or because there is no room to make it.
fn put_off(mut delivery: Delivery, fault: Option<&Fault>) -> Box<Delivery> {
    let wait_ms = match fault {
        Some(Fault::NotReady(_)) => NOT_READY_MS,
        Some(_) | None => OURS_AGAIN_MS,
    };
    if let (Some(fault), None) = (fault, delivery.body) {
        delivery.reason = Some(Reason::new(fault.code(), fault.to_string()));
    }
    delivery.due_at_ms = Some(clock::now_ms() + wait_ms);
    Box::new(delivery)
}

/// The deliveries of the parts that nobody knows yet, due at once.
async fn other_parts(app: &App, event: &Event, first: &Delivery, bodies: &[Body]) -> Vec<Delivery> {
    if bodies.len() == 1 {
        return Vec::new();
    }
    // What is recorded twice stays as it was recorded first, but for what is on its way.
    let known = app.store.recorded(event).await.unwrap_or_default();
    let parts = bodies.iter().enumerate().map(|(part, body)| {
        let part = u16::try_from(part).expect("an event has few parts");
        (delivery_id(event, first.subscription_id, part), part, body)
    });
    let others = parts.filter(|(id, part, _)| *part != first.part && !known.contains(id));
    let others = others.map(|(id, part, body)| Delivery {
        id,
        part,
        body: Some(Digest::of(&body.bytes)),
        due_at_ms: Some(clock::now_ms()),
        ..first.clone()
    });
    others.collect()
}

/// None when there is no room for it now.
async fn render_on_worker(
    app: &Arc<App>,
    tenant: &Tenant,
    event: Arc<Event>,
    rendering: (Digest, Arc<Rendering>),
) -> Option<Result<(Rendered, Vec<StepRun>), Fault>> {
    let bytes = event.content.data_bytes();
    let (hash, rendering) = rendering;
    let work = {
        let app = Arc::clone(app);
        move |slot: &mut Slot| {
            slot.mark(Work { event: event.id, rendering: Some(hash) });
            crate::fault::point("rendering again");
            let (format, bytes_max) =
                (app.format(&rendering.format), app.settings.delivery_bytes_max);
            let rendered = render(&app.runtime, format, &event, &rendering, bytes_max);
            slot.clear();
            rendered
        }
    };
    app.workers.ask(&Some(tenant.clone()), bytes, work).await
}
