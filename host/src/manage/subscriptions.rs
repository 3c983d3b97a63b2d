//! Subscriptions, whatever the format in which they are asked for.

use std::sync::Arc;

use hookyard_nouns::clock;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Tenant, Violation};
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::rendering::{Recipient, Rendering};
use hookyard_nouns::subscription::{
    Draft, NewSecret, Pace, SigningSecret, State, StepRef, Subscription,
};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::proof::{Agreement, prove};
use super::{Seen, pin};
use crate::app::App;
use crate::formats::{Format, Proof};
use crate::sign;
use crate::store::StoreError;

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
    check_endpoint(app, tenant, format, &draft).await?;
    let Asked { state, agreement } = ask_endpoint(
        app,
        tenant,
        format,
        draft.state,
        &draft.document,
        &draft.url,
        draft.url_field,
    )
    .await?;
    let id = Uuid::now_v7();
    let provider_id = match format.api() {
        Some(api) => api.provider_id(app.store.next_number(tenant, format.name()).await?, id),
        None => id.to_string(),
    };
    let now_ms = clock::now_ms();
    let key = match draft.secret {
        NewSecret::Made => Some(sign::new_secret()),
        NewSecret::Given(key) => Some(key),
        NewSecret::None => None,
    };
    let mut subscription = Subscription {
        id,
        tenant: tenant.clone(),
        format: format.name(),
        provider_id,
        name: draft.name,
        url: draft.url,
        state,
        catch_up: draft.catch_up,
        filters: draft.filters,
        format_steps: draft.format_steps,
        steps: draft.steps.unwrap_or_default(),
        rendering: Arc::default(),
        rendering_hash: Digest::of(b""),
        agreed_origin: agreement.origin,
        rate_per_minute: agreement.rate_per_minute,
        pace: Pace::default(),
        secrets: key.into_iter().map(|key| SigningSecret { key, valid_until_ms: None }).collect(),
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
    check_endpoint(app, tenant, format, &draft).await?;
    change(app, tenant, id, Change::Replace(format.name(), Box::new(draft))).await
}

/// Changes what a provider's patch says, and leaves the rest.
///
/// # Errors
///
/// As [`replace`].
pub async fn patch(
    app: &App,
    tenant: &Tenant,
    format: &dyn Format,
    id: Uuid,
    patch: Value,
) -> Result<Subscription, Refusal> {
    change(app, tenant, id, Change::Patch(format.name(), patch)).await
}

/// Pauses, resumes or disables.
///
/// # Errors
///
/// There is no such subscription, its endpoint does not want deliveries, or the store cannot take the
/// change.
pub async fn set_state(
    app: &App,
    tenant: &Tenant,
    id: Uuid,
    state: State,
) -> Result<Subscription, Refusal> {
    let it = change(app, tenant, id, Change::State(state)).await?;
    if state == State::Active {
        // Whoever resumes it may have mended its plugin.
        app.health.probe_now(id, clock::now_ms());
    }
    Ok(it)
}

/// What a subscription would render by with these steps of its own.
///
/// # Errors
///
/// As [`set_steps`].
pub async fn proposed(
    app: &App,
    present: &Subscription,
    steps: Vec<StepRef>,
) -> Result<Rendering, Refusal> {
    let mut it = present.clone();
    it.steps = steps;
    let locale = it.rendering.locale.clone();
    render_anew(app, &mut it, locale).await?;
    Ok((*it.rendering).clone())
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

/// Says how deliveries are made.
///
/// # Errors
///
/// There is no such subscription, or the store cannot take the change.
pub async fn set_pace(
    app: &App,
    tenant: &Tenant,
    id: Uuid,
    pace: Pace,
) -> Result<Subscription, Refusal> {
    change(app, tenant, id, Change::Pace(pace)).await
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
pub async fn delete(app: &App, tenant: &Tenant, id: Uuid) -> Result<(), Refusal> {
    app.store.delete_subscription(tenant, id).await?;
    Ok(app.catch_up().await?)
}

/// What a delivery's end asks for: another state, or none any more.
///
/// # Errors
///
/// As text: nobody but the log is told.
pub async fn stop_delivering(app: &App, id: Uuid, state: Option<State>) -> Result<(), String> {
    let Some(subscription) = app.subscription(id) else { return Ok(()) };
    if subscription.state != State::Active {
        return Ok(());
    }
    let stopped = match state {
        Some(state) => set_state(app, &subscription.tenant, id, state).await.map(drop),
        None => delete(app, &subscription.tenant, id).await,
    };
    match stopped {
        Ok(()) | Err(Refusal::NotFound) => Ok(()),
        Err(refusal) => Err(format!("{refusal:?}")),
    }
}

enum Change {
    /// Everything that the format's API can say.
    Replace(&'static str, Box<Draft>),
    Patch(&'static str, Value),
    State(State),
    Steps(Vec<StepRef>),
    Pace(Pace),
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
        let was_active = present.state == State::Active;
        let Applied { mut changed, unique, secret } = apply(app, present, &change).await?;
        changed.updated_at_ms = clock::now_ms();
        match app.store.change_subscription(changed, unique, secret).await {
            Err(StoreError::Changed) => {}
            result => {
                let changed = result?;
                if changed.state == State::Active && !was_active {
                    // Before anybody knows: what comes from now on goes after what is held.
                    app.releases.begin(tenant, id);
                }
                app.catch_up().await?;
                return Ok(changed);
            }
        }
    }
    Err(StoreError::Changed.into())
}

struct Applied {
    changed: Subscription,
    unique: Option<Vec<String>>,
    secret: Option<SigningSecret>,
}

async fn apply(app: &App, mut it: Subscription, change: &Change) -> Result<Applied, Refusal> {
    let format = app.format(it.format);
    let before = (it.state == State::Active, it.url.clone(), format.proof(&it.document));
    let draft = match change {
        Change::Replace(of, _) | Change::Patch(of, _) if it.format != *of => {
            return Err(Refusal::NotFound);
        }
        Change::Replace(_, draft) => Some(draft.as_ref().clone()),
        Change::Patch(_, patch) => Some(patched(app, &it, patch).await?),
        Change::State(state) => {
            it.state = *state;
            None
        }
        Change::Pace(pace) => {
            it.pace.clone_from(pace);
            None
        }
        Change::Steps(steps) => {
            it.steps.clone_from(steps);
            let locale = it.rendering.locale.clone();
            render_anew(app, &mut it, locale).await?;
            None
        }
    };
    let mut unique = None;
    let mut secret = None;
    let mut url_field = "/url";
    if let Some(draft) = draft {
        url_field = draft.url_field;
        it.name = draft.name;
        it.url = draft.url;
        it.state = draft.state;
        it.catch_up = draft.catch_up;
        it.filters = draft.filters;
        it.format_steps = draft.format_steps;
        it.steps = draft.steps.unwrap_or(it.steps);
        it.document = draft.document;
        unique = Some(draft.unique);
        if let NewSecret::Given(key) = draft.secret {
            secret = Some(SigningSecret { key, valid_until_ms: None });
        }
        render_anew(app, &mut it, draft.locale).await?;
    }
    if before != (true, it.url.clone(), format.proof(&it.document)) {
        let asked =
            ask_endpoint(app, &it.tenant, format, it.state, &it.document, &it.url, url_field)
                .await?;
        it.state = asked.state;
        (it.agreed_origin, it.rate_per_minute) =
            (asked.agreement.origin, asked.agreement.rate_per_minute);
    }
    Ok(Applied { changed: it, unique, secret })
}

async fn patched(app: &App, present: &Subscription, patch: &Value) -> Result<Draft, Refusal> {
    let format = app.format(present.format);
    let draft = format.api().ok_or(Refusal::NotFound)?.patched(present, patch)?;
    check_endpoint(app, &present.tenant, format, &draft).await?;
    Ok(draft)
}

async fn check_endpoint(
    app: &App,
    tenant: &Tenant,
    format: &dyn Format,
    draft: &Draft,
) -> Result<(), Refusal> {
    let owner = Some(tenant.clone());
    app.egress
        .check(&app.dns, &owner, draft.url_field, &draft.url, format.takes_http())
        .await
        .map_err(|violation| Refusal::Invalid(vec![violation]))
}

/// What comes of asking an endpoint.
struct Asked {
    state: State,
    agreement: Agreement,
}

/// Asks the endpoint of a subscription that is to be active whether it wants deliveries, where the
/// format does that.
async fn ask_endpoint(
    app: &App,
    tenant: &Tenant,
    format: &dyn Format,
    state: State,
    document: &Value,
    url: &Url,
    url_field: &str,
) -> Result<Asked, Refusal> {
    if state != State::Active {
        return Ok(Asked { state, agreement: Agreement::default() });
    }
    let proof = format.proof(document);
    match (prove(app, tenant, proof, url).await, proof) {
        (Ok(agreement), _) => Ok(Asked { state, agreement }),
        (Err(why), Proof::HandshakeOrEcho) => {
            tracing::info!(%tenant, %why, "a subscription stays paused: its endpoint is not validated");
            Ok(Asked { state: State::Paused, agreement: Agreement::default() })
        }
        (Err(why), _) => Err(Refusal::Invalid(vec![Violation::new(url_field, why)])),
    }
}

/// Pins the plugins of all steps.
async fn render_anew(
    app: &App,
    it: &mut Subscription,
    locale: Option<String>,
) -> Result<(), Refusal> {
    let format = app.format(it.format);
    let own = pin(app, &it.tenant, Seen::ByTenant, "/steps", &it.steps).await?;
    let addressed = format.names_subscription() || !own.is_empty();
    let mut steps = pin(app, &it.tenant, Seen::Shared, "", &it.format_steps).await?;
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
