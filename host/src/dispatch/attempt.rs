//! One attempt: signs afresh and sends.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use uuid::Uuid;

use crate::app::App;
use crate::clock;
use crate::render::Body;
use crate::send::{Outcome, Request};
use crate::sign;
use crate::subscription::Subscription;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What came of an attempt.
pub(super) struct Attempted {
    pub(super) at_ms: i64,
    pub(super) duration: Duration,
    pub(super) outcome: Outcome,
}

pub(super) async fn attempt(
    app: Arc<App>,
    subscription: Arc<Subscription>,
    delivery: Uuid,
    body: Body,
) -> Attempted {
    let at_ms = clock::now_ms();
    let id = delivery.to_string();
    let signature = sign::standard_webhooks(&subscription.secrets, &id, at_ms, &body.bytes);
    let request = Request {
        url: subscription.url.clone(),
        content_type: body.content_type,
        headers: vec![
            (WEBHOOK_ID, id),
            (WEBHOOK_TIMESTAMP, (at_ms / 1_000).to_string()),
            (WEBHOOK_SIGNATURE, signature),
        ],
        body: body.bytes,
        timeout: app.format(subscription.format).policy().timeout,
    };
    let (outcome, duration) = app.sender.send(request).await;
    Attempted { at_ms, duration, outcome }
}
