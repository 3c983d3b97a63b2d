//! Subscriptions, whatever the format in which they are asked for.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::pin;
use crate::app::App;
use crate::clock;
use crate::event::{Tenant, Violation};
use crate::formats::{Format, Refusal};
use crate::plugin::Digest;
use crate::render::{Recipient, Rendering};
use crate::sign;
use crate::store::StoreError;
use crate::subscription::{Draft, SigningSecret, State, StepRef, Subscription};

/// For how long a replaced secret signs beside the new one.
const OLD_SECRET_MS: i64 = 24 * 3_600 * 1_000;
/// How often a change is made again that somebody else was faster with.
const CHANGE_AGAIN_MAX: usize = 5;

/// # Errors
///
/// The draft is not one that the tenant can have, or the store cannot take it.
pub async fn create(
    app: &App,
    tenant: &Tenant,
    format: &dyn Format,
    draft: Draft,
) -> Result<Subscription, Refusal> {
    check_endpoint(app, &draft).await?;
    let id = Uuid::now_v7();
    let provider_id = match format.api() {
        Some(api) => api.provider_id(app.store.next_number(tenant, format.name()).await?),
        None => id.to_string(),
    };
    let now_ms = clock::now_ms();
    let key = draft.secret.unwrap_or_else(sign::new_secret);
    let mut subscription = Subscription {
        id,
        tenant: tenant.clone(),
        format: format.name(),
        provider_id,
        name: draft.name,
        url: draft.url,
        state: draft.state,
        catch_up: draft.catch_up,
        filters: draft.filters,
        format_steps: draft.format_steps,
        steps: draft.steps.unwrap_or_default(),
        rendering: Arc::default(),
        rendering_hash: Digest::of(b""),
        secrets: vec![SigningSecret { key, valid_until_ms: None }],
        document: draft.document,
        created_at_ms: now_ms,
        updated_at_ms: now_ms,
        revision: 0,
    };
    render_anew(app, &mut subscription, draft.locale).await?;
    let created = app.store.create_subscription(subscription, draft.unique).await?;
    app.catch_up().await?;
    Ok(created)
}

/// # Errors
///
/// As [`create`], and that there is no such subscription in this format.
pub async fn replace(
    app: &App,
    tenant: &Tenant,
    format: &dyn Format,
    id: Uuid,
    draft: Draft,
) -> Result<Subscription, Refusal> {
    check_endpoint(app, &draft).await?;
    change(app, tenant, id, Change::Replace(format.name(), Box::new(draft))).await
}

/// Pauses, resumes or disables.
///
/// # Errors
///
/// There is no such subscription, or the store cannot take the change.
pub async fn set_state(
    app: &App,
    tenant: &Tenant,
    id: Uuid,
    state: State,
) -> Result<Subscription, Refusal> {
    change(app, tenant, id, Change::State(state)).await
}

/// Replaces the subscriber's own steps.
///
/// # Errors
///
/// A step names no plugin, or its configuration does not fit; violations point into `/steps`.
pub async fn set_steps(
    app: &App,
    tenant: &Tenant,
    id: Uuid,
    steps: Vec<StepRef>,
) -> Result<Subscription, Refusal> {
    change(app, tenant, id, Change::Steps(steps)).await
}

/// Makes a new secret; the present one signs beside it for a day.
///
/// # Errors
///
/// There is no such subscription, or the store cannot take the change.
pub async fn rotate_secret(app: &App, tenant: &Tenant, id: Uuid) -> Result<SigningSecret, Refusal> {
    let secret = SigningSecret { key: sign::new_secret(), valid_until_ms: None };
    let now_ms = clock::now_ms();
    let until_ms = now_ms + OLD_SECRET_MS;
    app.store.rotate_secret(tenant, id, secret.clone(), until_ms, now_ms).await?;
    app.catch_up().await?;
    Ok(secret)
}

/// # Errors
///
/// There is no such subscription, or the store cannot take the change.
pub async fn delete(app: &App, tenant: &Tenant, id: Uuid) -> Result<Subscription, Refusal> {
    let deleted = app.store.delete_subscription(tenant, id).await?;
    app.catch_up().await?;
    Ok(deleted)
}

/// What a delivery's end asks for.
///
/// # Errors
///
/// As text: nobody but the log is told.
pub async fn stop_delivering(app: &App, id: Uuid, state: State) -> Result<(), String> {
    let Some(subscription) = app.subscription(id) else { return Ok(()) };
    if subscription.state != State::Active {
        return Ok(());
    }
    match set_state(app, &subscription.tenant, id, state).await {
        Ok(_) | Err(Refusal::NotFound) => Ok(()),
        Err(refusal) => Err(format!("{refusal:?}")),
    }
}

enum Change {
    /// Everything that the format's API can say.
    Replace(&'static str, Box<Draft>),
    State(State),
    Steps(Vec<StepRef>),
}

/// Reads, changes and writes, and begins anew when somebody else was faster.
async fn change(
    app: &App,
    tenant: &Tenant,
    id: Uuid,
    change: Change,
) -> Result<Subscription, Refusal> {
    for _ in 0..CHANGE_AGAIN_MAX {
        let present = app.store.subscription(tenant, id).await?.ok_or(Refusal::NotFound)?;
        let (mut changed, unique) = apply(app, present, &change).await?;
        changed.updated_at_ms = clock::now_ms();
        match app.store.change_subscription(changed, unique).await {
            Err(StoreError::Changed) => {}
            result => {
                let changed = result?;
                app.catch_up().await?;
                return Ok(changed);
            }
        }
    }
    Err(StoreError::Changed.into())
}

async fn apply(
    app: &App,
    mut it: Subscription,
    change: &Change,
) -> Result<(Subscription, Option<Vec<String>>), Refusal> {
    let mut locale = it.rendering.locale.clone();
    let mut unique = None;
    match change {
        Change::State(state) => {
            it.state = *state;
            return Ok((it, None));
        }
        Change::Steps(steps) => it.steps.clone_from(steps),
        Change::Replace(format, _) if it.format != *format => return Err(Refusal::NotFound),
        Change::Replace(_, draft) => {
            let draft = draft.as_ref().clone();
            it.name = draft.name;
            it.url = draft.url;
            it.state = draft.state;
            it.catch_up = draft.catch_up;
            it.filters = draft.filters;
            it.format_steps = draft.format_steps;
            it.steps = draft.steps.unwrap_or(it.steps);
            it.document = draft.document;
            locale = draft.locale;
            unique = Some(draft.unique);
        }
    }
    render_anew(app, &mut it, locale).await?;
    Ok((it, unique))
}

async fn check_endpoint(app: &App, draft: &Draft) -> Result<(), Refusal> {
    // Each format spells the member its own way.
    let field = if draft.document.get("Url").is_some() { "/Url" } else { "/url" };
    app.egress
        .check(field, &draft.url)
        .await
        .map_err(|violation: Violation| Refusal::Invalid(vec![violation]))
}

/// Pins the plugins of all steps.
async fn render_anew(
    app: &App,
    it: &mut Subscription,
    locale: Option<String>,
) -> Result<(), Refusal> {
    let format = app.format(it.format);
    let own = pin(app, Some(&it.tenant), "/steps", &it.steps).await?;
    let addressed = format.names_subscription() || !own.is_empty();
    let mut steps = pin(app, None, "", &it.format_steps).await?;
    steps.extend(own);
    let rendering = Rendering {
        format: format.name().to_owned(),
        encoding: format.encoding(),
        locale,
        addressee: addressed
            .then(|| Recipient { subscription: it.id, provider_id: it.provider_id.clone() }),
        steps,
    };
    it.rendering_hash = rendering.hash();
    it.rendering = Arc::new(rendering);
    Ok(())
}

/// A document without anything of a provider's.
pub fn no_document() -> Value {
    Value::Object(serde_json::Map::new())
}
