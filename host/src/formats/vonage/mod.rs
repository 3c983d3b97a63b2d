//! Vonage Contact Center: the subscriptions of its Webhooks API.
//!
//! Facts are from the provider's pages on the Webhooks API (create, list, get and edit a subscription,
//! event types, signatures, best practice for consumers) and from its sample of a consumer. Where
//! these are silent, the convention is ours and says so.

mod api;

use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use hookyard_nouns::clock;
use hookyard_nouns::event::{Content, Data, Event};
use hookyard_nouns::rendering::{Body, Output, Rendering, TooLarge};
use http::HeaderName;
use serde_json::json;

use super::{AfterLast, Api, Catalogue, Format, Policy, Writer};
use crate::schemas::{self, Endpoints, Schema};
use crate::sign::{self, Unsigned};

const NAME: &str = "vonage";
const SIGNATURE: HeaderName = HeaderName::from_static("vonage-signature");
/// "The token expires 5 minutes after it is issued."
const SIGNATURE_S: i64 = 300;

/// "For up to 24 hours", of which the intervals are ours: the last attempt is after 19 h 42 min, and with
/// all the jitter there is not after 24 h.
const SCHEDULE: [Duration; 12] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(2),
    Duration::from_hours(4),
    Duration::from_hours(4),
    Duration::from_hours(4),
    Duration::from_hours(4),
];

/// The format `vonage`, with its schemas.
pub struct Vonage {
    catalogue: Catalogue,
    create: Schema,
    patch: Schema,
}

impl Vonage {
    pub fn new(endpoints: Endpoints) -> Vonage {
        let schema =
            |name: &str| Schema::ours(schemas::file(&format!("{NAME}/{name}.json")), endpoints);
        Vonage {
            catalogue: Catalogue::load(NAME),
            create: schema("create"),
            patch: schema("patch"),
        }
    }
}

impl Format for Vonage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn catalogue(&self) -> Option<&Catalogue> {
        Some(&self.catalogue)
    }

    /// CloudEvents 1.0 in structured JSON, with the provider's attributes and no others.
    fn encode(
        &self,
        event: &Event,
        content: &Content,
        _: &Rendering,
        out: Output,
    ) -> Result<Body, TooLarge> {
        let it = &content.attributes;
        let size = content.data_bytes();
        let accepted = || clock::rfc3339(event.accepted_at_ms);
        let mut body = Writer::new(out, size + 320);
        body.text("specversion", "1.0");
        body.text("type", &it.event_type);
        body.text("id", &it.id);
        body.text("source", &it.source);
        if let Some(subject) = &it.subject {
            body.text("subject", subject);
        }
        body.text("time", it.time.clone().unwrap_or_else(accepted).as_str());
        match &content.data {
            Some(Data::Json(json)) => {
                body.text("datacontenttype", "application/json");
                body.raw("data", json.bytes());
            }
            // Only a plugin can make it so.
            Some(Data::Text(bytes) | Data::Binary(bytes)) => {
                body.text("datacontenttype", "text/plain");
                body.text("data", &String::from_utf8_lossy(bytes));
            }
            None => {}
        }
        body.into_body("application/cloudevents+json")
    }

    /// A JWT with HS256. The page and the provider's own consumer differ in two points, and the
    /// consumer is what works: the key is the secret out of its base64, and `payload_hash` is a plain
    /// SHA-256 of the body, in hex. `jti` is ours.
    fn sign(&self, it: &Unsigned<'_>) -> Vec<(HeaderName, String)> {
        let Some(secret) = it.secrets.first() else { return Vec::new() };
        let issued_s = it.now_ms.div_euclid(1_000);
        let claims = json!({
            "iat": issued_s,
            "exp": issued_s + SIGNATURE_S,
            "jti": it.event,
            "payload_hash": sign::hex(&sign::sha256(it.body)),
        });
        let encode = |json: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let signed =
            format!("{}.{}", encode(&json!({"alg": "HS256", "typ": "JWT"})), encode(&claims));
        let signature = sign::hmac_sha256(&secret.key, [signed.as_bytes()]);
        vec![(SIGNATURE, format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))]
    }

    fn policy(&self) -> Policy {
        Policy {
            timeout: Duration::from_secs(10),
            schedule: &SCHEDULE,
            after_last: AfterLast::Keep,
            gone_disables: false,
        }
    }

    /// "200 to 205"; everything else is tried again.
    fn is_success(&self, status: u16) -> bool {
        (200..=205).contains(&status)
    }

    fn api(&self) -> Option<&dyn Api> {
        Some(self)
    }
}
