//! `/v1/identities`: the alternate ids of profiles.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use hookyard_nouns::event::Violation;
use hookyard_nouns::json::Json;
use http::StatusCode;
use serde_json::json;

use super::auth::Caller;
use super::exchange::Incoming;
use super::problem::Problem;
use super::{Api, answer, tenant};

const IDS_MAX: usize = 32;
const TEXT_BYTES_MAX: usize = 256;
/// There is room for all of them, with each byte written as an escape.
const BODY_BYTES_MAX: usize = 128 << 10;

/// `PUT /v1/identities/{profile}`: the body is an object of kinds and ids, which replaces what was there.
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(profile): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    mut incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("events:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let bytes_max = api.app.settings.body_bytes_max.min(BODY_BYTES_MAX);
    let bytes = incoming.read(bytes_max).await?;
    let detail = "the body must be a JSON object of texts, such as {\"LoyaltyNumber\": \"L-7\"}: a \
                  profile has one id of a kind, which is the one that deliveries show";
    let wrong = |why: String| {
        Problem::invalid(detail, vec![Violation::new("", format!("is wrong: {why}"))])
    };
    let json = Json::parse(bytes).map_err(|err| wrong(err.to_string()))?;
    let ids: BTreeMap<String, String> =
        serde_json::from_slice(json.bytes()).map_err(|err| wrong(err.to_string()))?;
    let fits = |text: &str| (1..=TEXT_BYTES_MAX).contains(&text.len());
    let mut errors: Vec<Violation> = ids
        .iter()
        .filter(|(kind, id)| !fits(kind) || !fits(id))
        .map(|(kind, _)| {
            let field = format!("/{}", kind.replace('~', "~0").replace('/', "~1"));
            Violation::new(
                field,
                format!("must have a kind and an id of 1 to {TEXT_BYTES_MAX} bytes"),
            )
        })
        .collect();
    if !fits(&profile) {
        let detail = format!("must be 1 to {TEXT_BYTES_MAX} bytes");
        errors.push(Violation::new("profile", detail));
    }
    if ids.len() > IDS_MAX {
        errors.push(Violation::new("", format!("must have at most {IDS_MAX} members")));
    }
    if !errors.is_empty() {
        return Err(Problem::invalid("these are not alternate ids that we take", errors));
    }
    api.app.store.put_identities(&tenant, &profile, ids.clone().into_iter().collect()).await?;
    Ok(answer(StatusCode::OK, &json!({"profile": profile, "alternate_ids": ids})))
}

/// `GET /v1/identities/{profile}`
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(profile): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    caller.require("events:write")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let ids: BTreeMap<_, _> =
        api.app.store.identities(&tenant, &profile).await?.into_iter().collect();
    Ok(answer(StatusCode::OK, &json!({"profile": profile, "alternate_ids": ids})))
}
