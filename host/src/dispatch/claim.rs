//! Fetches deliveries that are due from the store, and makes their bodies again.

use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::settle::OURS_AGAIN_MS;
use crate::app::{App, Ready};
use crate::clock;
use crate::delivery::{Delivery, DeliveryState, Reason};
use crate::event::{Event, Tenant};
use crate::plugin::Digest;
use crate::render::{Body, Rendered, Rendering, render};
use crate::store::{Due, Record};
use crate::wasm::Fault;

/// What a claim comes to.
pub(super) struct Claimed {
    pub(super) subscription: Uuid,
    pub(super) ready: Vec<Ready>,
    /// Deliveries that cannot be made, or not now.
    pub(super) records: Vec<Record>,
    /// When the next one in the store is due, as far as this claim knows.
    pub(super) next_due_ms: Option<i64>,
}

/// Takes up to `limit` deliveries.
pub(super) async fn claim(app: Arc<App>, subscription: Uuid, limit: usize) -> Claimed {
    let claimed = tokio::spawn(take(app, subscription, limit)).await;
    claimed.unwrap_or_else(|err| {
        tracing::error!(%subscription, %err, "fetching deliveries panicked");
        Claimed {
            subscription,
            ready: Vec::new(),
            records: Vec::new(),
            next_due_ms: Some(clock::now_ms() + OURS_AGAIN_MS),
        }
    })
}

async fn take(app: Arc<App>, subscription: Uuid, limit: usize) -> Claimed {
    let mut claimed =
        Claimed { subscription, ready: Vec::new(), records: Vec::new(), next_due_ms: None };
    let now_ms = clock::now_ms();
    let due = match app.store.claim(subscription, now_ms, limit).await {
        Ok(due) => due,
        Err(err) => {
            tracing::warn!(%subscription, %err, "cannot fetch deliveries; trying again");
            claimed.next_due_ms = Some(now_ms + OURS_AGAIN_MS);
            return claimed;
        }
    };
    let is_gone = app.subscription(subscription).is_none();
    for it in due {
        let (tenant, event_seq) = (it.tenant.clone(), it.event_seq);
        let made = if is_gone { Err(cancelled(it)) } else { make_again(&app, it).await };
        match made {
            Ok((delivery, body)) => {
                let unrecorded = None;
                claimed.ready.push(Ready { tenant, event_seq, delivery, body, unrecorded });
            }
            Err(delivery) => {
                claimed.records.push(Record::Delivery { tenant, event_seq, delivery });
            }
        }
    }
    let next_due = app.store.next_due(subscription).await;
    let put_off = claimed.records.iter().filter_map(|it| match it {
        Record::Delivery { delivery, .. } => delivery.due_at_ms,
        Record::Filtered { .. } | Record::Routed { .. } => None,
    });
    let next_due = next_due.unwrap_or(Some(now_ms + OURS_AGAIN_MS));
    claimed.next_due_ms = next_due.into_iter().chain(put_off).min();
    claimed
}

fn cancelled(due: Due) -> Box<Delivery> {
    let mut delivery = due.delivery;
    delivery.state = DeliveryState::Cancelled;
    Box::new(delivery)
}

/// The delivery with its body, or as it has to be recorded without one.
async fn make_again(app: &Arc<App>, due: Due) -> Result<(Delivery, Body), Box<Delivery>> {
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
    let rendered = render_on_worker(app, &due.tenant, event, due.rendering).await;
    let part = usize::from(delivery.part);
    match rendered {
        Some(Ok(Rendered::Bodies(mut bodies))) if part < bodies.len() => {
            let body = bodies.swap_remove(part);
            let digest = Digest::of(&body.bytes);
            if delivery.body.is_some_and(|first| first != digest) {
                let reason =
                    Reason::new("body-changed", "the body would not be the one it was first");
                return failed(delivery, reason);
            }
            delivery.body = Some(digest);
            Ok((delivery, body))
        }
        Some(Ok(Rendered::Bodies(_))) => {
            failed(delivery, Reason::new("body-changed", "the event has no such part any more"))
        }
        Some(Ok(Rendered::Filtered(reason))) => {
            delivery.state = DeliveryState::Filtered;
            delivery.reason = Some(reason);
            Err(Box::new(delivery))
        }
        Some(Ok(Rendered::Failed(reason))) => failed(delivery, reason),
        Some(Err(_)) | None => {
            delivery.due_at_ms = Some(clock::now_ms() + OURS_AGAIN_MS);
            Err(Box::new(delivery))
        }
    }
}

/// None when there is no room for it now.
async fn render_on_worker(
    app: &Arc<App>,
    tenant: &Tenant,
    event: Arc<Event>,
    rendering: Arc<Rendering>,
) -> Option<Result<Rendered, Fault>> {
    let (reply, answer) = oneshot::channel();
    let bytes = event.content.data.as_ref().map_or(0, |data| data.bytes().len());
    let work = {
        let app = Arc::clone(app);
        move || {
            let format = app.format(&rendering.format);
            // Nobody waits any more when the dispatcher has ended.
            let _ = reply.send(render(&app.runtime, format, &event, &rendering));
        }
    };
    app.workers.submit(tenant, bytes, work).ok()?;
    answer.await.ok()
}
