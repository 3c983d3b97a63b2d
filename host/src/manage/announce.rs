//! Events of our own.

use std::sync::Arc;

use bytes::Bytes;
use hookyard_nouns::clock;
use hookyard_nouns::event::{Attributes, Content, Data, Event, OPERATIONAL_PREFIX, Tenant};
use hookyard_nouns::json::Json;
use serde_json::Value;
use uuid::Uuid;

use crate::app::App;
use crate::store::{self, NewEvent};

/// Publishes an event of our own to a tenant: `what` is its type, behind `hookyard.`.
///
/// # Errors
///
/// The store does not take it.
pub async fn announce(app: &App, tenant: &Tenant, what: &str, data: Value) -> store::Result<()> {
    publish(app, own_event(app, tenant, what, Uuid::now_v7().to_string(), data)).await
}

/// The same for a fact that may be told again after a failure or by the next process. Its event has an id that
/// follows from the fact, so that the store takes it once.
///
/// # Errors
///
/// As [`announce`].
pub(super) async fn announce_once(
    app: &App,
    tenant: &Tenant,
    what: &str,
    fact: &str,
    data: Value,
) -> store::Result<()> {
    publish(app, own_event(app, tenant, what, format!("{what}-{fact}"), data)).await
}

/// The same for what happens often: only where a subscription wants it.
///
/// # Errors
///
/// As [`announce`].
pub async fn announce_if_wanted(
    app: &App,
    tenant: &Tenant,
    what: &str,
    data: Value,
) -> store::Result<()> {
    let event = own_event(app, tenant, what, Uuid::now_v7().to_string(), data);
    let is_wanted = !app.index().matching(&event).is_empty();
    if is_wanted { publish(app, event).await } else { Ok(()) }
}

async fn publish(app: &App, event: Event) -> store::Result<()> {
    let Event { id, tenant, format, content, alternate_ids, accepted_at_ms, .. } = event;
    let profile = None;
    let event = NewEvent { id, tenant, format, content, profile, alternate_ids, accepted_at_ms };
    app.store.accept(vec![event]).await.map(|_| ())
}

/// As it would be accepted now.
fn own_event(app: &App, tenant: &Tenant, what: &str, id: String, data: Value) -> Event {
    let accepted_at_ms = clock::now_ms();
    let pairs = [
        ("specversion", "1.0".to_owned()),
        ("id", id),
        ("source", "/hookyard".to_owned()),
        ("type", format!("{OPERATIONAL_PREFIX}{what}")),
        ("time", clock::rfc3339(accepted_at_ms)),
        ("datacontenttype", "application/json".to_owned()),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value));
    let attributes = Attributes::new(pairs).expect("these are the attributes of an event");
    let data = Some(Data::Json(Json::trusted(Bytes::from(data.to_string()))));
    Event {
        id: Uuid::now_v7(),
        tenant: tenant.clone(),
        format: "cloudevents",
        content: Arc::new(Content { attributes, data }),
        alternate_ids: Vec::new(),
        accepted_at_ms,
        revision: app.revision(),
    }
}
