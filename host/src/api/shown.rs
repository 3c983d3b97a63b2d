//! Subscriptions as our own API shows them. A configuration stands there as it was written.

use hookyard_nouns::clock;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::json::Json;
use hookyard_nouns::plugin::PluginRef;
use hookyard_nouns::subscription::{Filter, Pace, State, Subscription};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

/// What is shown of a subscription in any format.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    id: Uuid,
    format: &'static str,
    provider_id: &'a str,
    name: &'a str,
    url: &'a str,
    state: State,
    catch_up: bool,
    handshake: bool,
    rate_per_minute: Option<u32>,
    pace: &'a Pace,
    filters: &'a [Filter],
    steps: Vec<ShownStep<'a>>,
    rendering: Digest,
    revision: u64,
    created_at: String,
    updated_at: String,
    /// Shown once: where it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
    #[serde(flatten)]
    pub(super) standing: Option<Standing>,
}

#[derive(Serialize)]
struct ShownStep<'a> {
    plugin: &'a PluginRef,
    config: &'a Json,
    digest: Digest,
    /// Who asks for it: the `format` or the `subscriber`.
    of: &'static str,
}

/// How its deliveries fare.
#[derive(Serialize)]
pub(super) struct Standing {
    /// How many events its steps have dropped.
    pub(super) filtered: u64,
    pub(super) quarantine: Option<Value>,
}

impl Shown<'_> {
    pub(super) fn new(it: &Subscription) -> Shown<'_> {
        let steps = it.format_steps.iter().map(|step| ("format", step));
        let steps = steps.chain(it.steps.iter().map(|step| ("subscriber", step)));
        let steps = steps.zip(&it.rendering.steps).map(|((of, asked), pinned)| ShownStep {
            plugin: &asked.plugin,
            config: &asked.config,
            digest: pinned.plugin,
            of,
        });
        Shown {
            id: it.id,
            format: it.format,
            provider_id: &it.provider_id,
            name: &it.name,
            url: it.url.as_str(),
            state: it.state,
            catch_up: it.catch_up,
            handshake: it.document["handshake"] == true,
            rate_per_minute: it.rate_per_minute,
            pace: &it.pace,
            filters: &it.filters,
            steps: steps.collect(),
            rendering: it.rendering_hash,
            revision: it.revision,
            created_at: clock::rfc3339(it.created_at_ms),
            updated_at: clock::rfc3339(it.updated_at_ms),
            secret: None,
            standing: None,
        }
    }
}
