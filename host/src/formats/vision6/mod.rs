//! Vision6: the webhooks of its JSON-RPC API.
//!
//! Facts are from the provider's pages `addWebhook` and `Webhooks` (API 3.3) and from clients of that
//! API. Where these are silent, the convention is ours and says so.

mod api;

use std::time::Duration;

use hookyard_nouns::clock;
use hookyard_nouns::event::{Content, Data, Event};
use hookyard_nouns::rendering::{Body, Output, Rendering, TooLarge};

use super::{AfterLast, Api, Catalogue, Format, Policy, Writer};
use crate::schemas::{self, Endpoints, Schema};

const NAME: &str = "vision6";

/// "Up to 5 times", of which the intervals are ours.
const SCHEDULE: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(6),
];

/// The format `vision6`, with its schemas.
pub struct Vision6 {
    catalogue: Catalogue,
    request: Schema,
    create: Schema,
    edit: Schema,
    search: Schema,
}

impl Vision6 {
    pub fn new(endpoints: Endpoints) -> Vision6 {
        let schema =
            |name: &str| Schema::ours(schemas::file(&format!("{NAME}/{name}.json")), endpoints);
        Vision6 {
            catalogue: Catalogue::load(NAME),
            request: schema("request"),
            create: schema("create"),
            edit: schema("edit"),
            search: schema("search"),
        }
    }
}

impl Format for Vision6 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn catalogue(&self) -> Option<&Catalogue> {
        Some(&self.catalogue)
    }

    /// An array of events, always of one: which events belong together is not said.
    fn encode(
        &self,
        event: &Event,
        content: &Content,
        _: &Rendering,
        mut out: Output,
    ) -> Result<Body, TooLarge> {
        let it = &content.attributes;
        let (object, happened) = it.event_type.split_once('.').unwrap_or((&it.event_type, ""));
        out.push(b"[");
        let mut body = Writer::new(out, 160);
        if let Some(Data::Json(json)) = &content.data {
            for name in ["list_id", "contact_id"] {
                if let Some(id) = json.get(&format!("/{name}")) {
                    body.raw(name, id.bytes());
                }
            }
        }
        body.text("object", object);
        body.text("event", happened);
        let at_ms = it.time.as_deref().and_then(clock::parse_rfc3339);
        let at_s = at_ms.unwrap_or(event.accepted_at_ms).div_euclid(1_000);
        body.raw("timestamp", at_s.to_string().as_bytes());
        let mut out = body.finish();
        out.push(b"]");
        // Ours: no page says what the content type is.
        out.into_body("application/json")
    }

    /// "If the endpoint fails 5 retries, it is deemed invalid and the webhook is removed."
    fn policy(&self) -> Policy {
        Policy {
            timeout: Duration::from_secs(30),
            schedule: &SCHEDULE,
            after_last: AfterLast::Remove,
            gone_disables: false,
        }
    }

    /// A status of 400 to 599 is a failure; everything else is not, redirects included.
    fn is_success(&self, status: u16) -> bool {
        !(400..600).contains(&status)
    }

    /// "The http/https URL of the receiving Webhook endpoint."
    fn takes_http(&self) -> bool {
        true
    }

    fn api(&self) -> Option<&dyn Api> {
        Some(self)
    }
}
