//! One attempt: signs afresh and sends.

use std::sync::Arc;

use hookyard_nouns::clock;
use hookyard_nouns::delivery::Reason;
use hookyard_nouns::rendering::Body;
use hookyard_nouns::subscription::Subscription;
use uuid::Uuid;

use crate::app::App;
use crate::keys;
use crate::manage;
use crate::send::{Outcome, REQUEST_ORIGIN, Request, Sent};
use crate::sign::Unsigned;

/// What came of an attempt.
pub(super) struct Attempted {
    pub(super) at_ms: i64,
    pub(super) sent: Sent,
}

pub(super) async fn attempt(
    app: Arc<App>,
    subscription: Arc<Subscription>,
    delivery: Uuid,
    event: Uuid,
    body: Body,
) -> Attempted {
    let at_ms = clock::now_ms();
    let sent = match request(&app, &subscription, delivery, event, body).await {
        Ok(request) => {
            crate::fault::point("sending");
            let sent = app.sender.send(request).await;
            crate::fault::point("answered");
            sent
        }
        Err(reason) => Sent::nothing(Outcome::NotSent(reason)),
    };
    Attempted { at_ms, sent }
}

/// The request for a delivery, signed now.
///
/// # Errors
///
/// There is no key to sign it with.
pub(crate) async fn request(
    app: &App,
    subscription: &Subscription,
    delivery: Uuid,
    event: Uuid,
    body: Body,
) -> Result<Request, Reason> {
    let at_ms = clock::now_ms();
    let format = app.format(subscription.format);
    let key = if format.has_rotating_key() {
        let key = manage::keys::get(app, &keys::selector(at_ms)).await.map_err(|err| {
            Reason::new("no-key", format!("the router has no key to sign with: {err}"))
        })?;
        Some(key)
    } else {
        None
    };
    let mut headers = format.sign(&Unsigned {
        delivery,
        event,
        tenant: &subscription.tenant,
        url: &subscription.url,
        content_type: body.content_type,
        body: &body.bytes,
        secrets: &subscription.secrets,
        key: key.as_deref(),
        nonce: rand::random(),
        now_ms: at_ms,
    });
    // CloudEvents 1.0.2, HTTP 1.1 Web Hooks, sections 2.1 and 4.1.2: each delivery names what was agreed upon.
    headers.extend(subscription.agreed_origin.clone().map(|it| (REQUEST_ORIGIN, it)));
    Ok(Request {
        tenant: subscription.tenant.clone(),
        url: subscription.url.clone(),
        content_type: body.content_type,
        headers,
        body: body.bytes,
        timeout: format.policy().timeout,
    })
}
