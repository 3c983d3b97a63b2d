//! The subscriptions, and the event types that there are.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use hookyard_nouns::event::{Violation, essence};
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::subscription::{Draft, Filter, NewSecret, State, Subscription, TypePattern};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::{NAME, Vonage};
use crate::formats::{
    Answer, Api, Call, Done, Granted, Login, Operation, check, read_json, take_id,
};
use crate::schemas;

const MEDIA_TYPE: &str = "application/vnd.newvoicemedia.v1+json";
const ALL: &str = "/webhooks/subscriptions";
const ONE: &str = "/webhooks/subscriptions/{id}";
const TYPES: &str = "/webhooks/event-types";

/// As lenient as the provider's own consumer, which reads secrets with Node: the page's sample has more
/// padding than it should.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Api for Vonage {
    fn routes(&self) -> &'static [&'static str] {
        &[ALL, ONE, TYPES]
    }

    fn login(&self) -> Option<Login> {
        Some(Login::OAuth {
            token: &["/Auth/connect/token"],
            revoke: &[],
            expires_s: 7_200,
            refresh: false,
        })
    }

    fn operation(&self, call: &Call) -> Result<Operation, Refusal> {
        let allowed = match call.route {
            ALL => &[Method::GET, Method::POST][..],
            TYPES => &[Method::GET],
            _ => &[Method::GET, Method::PATCH, Method::DELETE],
        };
        if !allowed.contains(&call.method) {
            return Err(Refusal::WrongMethod(match call.route {
                ALL => "GET, POST",
                TYPES => "GET",
                _ => "GET, PATCH, DELETE",
            }));
        }
        check_accept(&call.headers)?;
        let tenant = None;
        let id = || call.parameters.get("id").cloned().unwrap_or_default();
        match (call.route, &call.method) {
            (ALL, &Method::POST) => {
                check_media_type(&call.headers)?;
                let details = read_json(&call.body, &self.create)?;
                Ok(Operation::Create { tenant, draft: Box::new(draft(&details)) })
            }
            (ALL, _) => Ok(Operation::List { tenant }),
            (TYPES, _) => Ok(Operation::Show(answer(StatusCode::OK, &self.event_types()))),
            (_, &Method::PATCH) => {
                check_media_type(&call.headers)?;
                let (id, mut patch) = (id(), read_json(&call.body, &self.patch)?);
                take_id(&mut patch, "subscriptionId", &id)?;
                Ok(Operation::Patch { tenant, id, patch })
            }
            (_, &Method::DELETE) => Ok(Operation::Delete { tenant, id: id() }),
            (_, _) => Ok(Operation::Read { tenant, id: id() }),
        }
    }

    fn permit(&self, operation: &Operation, granted: &Granted<'_>) -> Result<(), Refusal> {
        let scope = if operation.changes() { "admin:write" } else { "admin:read" };
        if granted.has(scope) {
            Ok(())
        } else if granted.has("admin:read") || granted.has("admin:write") {
            Err(Refusal::MissingScope(scope.to_owned()))
        } else {
            // A token without any of the API's scopes gets another answer than one without this scope.
            Err(Refusal::MissingScope(String::new()))
        }
    }

    /// What a PATCH leaves out stays as it is.
    fn patched(&self, present: &Subscription, patch: &Value) -> Result<Draft, Refusal> {
        let mut details = document(present);
        for (name, value) in patch.as_object().into_iter().flatten() {
            details[name] = value.clone();
        }
        check(&details, &self.create)?;
        Ok(draft(&details))
    }

    fn answer(&self, call: &Call, outcome: Result<Done, Refusal>) -> Answer {
        let id = |it: &Subscription| Value::from(it.provider_id.as_str());
        let shown = |it: &Subscription| {
            let mut shown = document(it);
            shown["subscriptionId"] = id(it);
            shown
        };
        match outcome {
            Ok(Done::Created(it)) => {
                let mut created = shown(&it);
                // The one time that it is shown; as it was sent, where it was sent.
                let sent: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                let made = || it.secrets.first().map(|it| BASE64_STANDARD.encode(&it.key));
                let sent = sent["secret"].as_str().map(str::to_owned);
                created["secret"] = sent.or_else(made).into();
                answer(StatusCode::OK, &created)
            }
            Ok(Done::Listed(all)) => {
                let all: Vec<_> = all.iter().map(shown).collect();
                answer(StatusCode::OK, &json!({"subscriptions": all}))
            }
            Ok(Done::Read(it) | Done::Patched(it) | Done::Replaced(it)) => {
                answer(StatusCode::OK, &shown(&it))
            }
            Ok(Done::Shown(shown)) => shown,
            Ok(_) => cached(Answer::empty(StatusCode::NO_CONTENT)),
            Err(refusal) => refused(&refusal),
        }
    }

    /// A KSUID: the time in seconds since a day in 2014 and 16 other bytes, in base 62.
    fn provider_id(&self, _: u64, id: Uuid) -> String {
        ksuid(id)
    }
}

impl Vonage {
    fn event_types(&self) -> Value {
        let file = |name: &str| -> Value {
            let text = schemas::file(&format!("{NAME}/{name}.json"));
            serde_json::from_str(text).expect("a file of `schemas/` is JSON")
        };
        let (catalogue, data) = (file("catalogue"), file("data"));
        let types = catalogue["types"].as_array().into_iter().flatten().map(|it| {
            let mut schema = data["$defs"][it["data"].as_str().unwrap_or_default()].clone();
            schema["$schema"] = data["$schema"].clone();
            schema["title"] = it["type"].clone();
            json!({"name": it["type"], "description": it["description"], "jsonSchema": schema})
        });
        json!({"eventTypes": types.collect::<Vec<_>>()})
    }
}

/// Of details that fit their schema.
fn draft(details: &Value) -> Draft {
    let text = |name: &str| details[name].as_str().unwrap_or_default();
    let (name, url) = (text("name"), text("url"));
    let events: Vec<&str> =
        details["events"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let enabled = details["enabled"].as_bool().unwrap_or(true);
    let secret = details["secret"].as_str();
    let parsed = Url::parse(url).expect("the schema has checked the URL");
    let filters = events.iter().flat_map(|it| filters(it)).collect();
    let document = json!({"url": url, "events": events});
    Draft {
        state: if enabled { State::Active } else { State::Paused },
        secret: secret.map_or(NewSecret::Made, |it| NewSecret::Given(decode(it))),
        unique: vec![name.to_owned()],
        ..Draft::new(name, parsed, "/url", filters, document)
    }
}

/// A `*` is a whole segment, and one at an end may stand for several (ours: the page says that there
/// are wildcards, and not how they are written). Types have two dots.
fn filters(pattern: &str) -> impl Iterator<Item = Filter> {
    let longer = pattern.strip_prefix("*.").map(|rest| format!("*.*.{rest}"));
    [Some(pattern.to_owned()), longer].into_iter().flatten().map(|pattern| Filter {
        types: TypePattern::try_from(pattern).expect("the schema has checked the pattern"),
        attributes: vec![("format".to_owned(), vec![NAME.to_owned()])],
    })
}

fn decode(secret: &str) -> Vec<u8> {
    LENIENT.decode(secret.trim_end_matches('=')).expect("the schema has checked the secret")
}

/// A subscription without its id and its secret.
fn document(it: &Subscription) -> Value {
    json!({
        "name": it.name,
        "url": it.document["url"],
        "events": it.document["events"],
        "enabled": it.state == State::Active,
    })
}

fn ksuid(id: Uuid) -> String {
    const EPOCH_S: u64 = 1_400_000_000;
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let seconds = id.get_timestamp().map_or(0, |it| it.to_unix().0);
    let seconds = u32::try_from(seconds.saturating_sub(EPOCH_S)).unwrap_or(u32::MAX);
    let mut number = [&seconds.to_be_bytes()[..], id.as_bytes()].concat();
    let mut text = [b'0'; 27];
    for digit in text.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut number {
            let value = rest * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("the rest is below 62");
            rest = value % 62;
        }
        *digit = DIGITS[rest as usize];
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn check_accept(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_ours = |offer: &str| essence(offer) == MEDIA_TYPE;
    let mut offers = headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok());
    if offers.any(|it| it.split(',').any(is_ours)) {
        Ok(())
    } else {
        Err(Refusal::NotAcceptable(MEDIA_TYPE))
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let named = essence(value.to_str().unwrap_or_default());
    // The provider prints `curl` without the media type, which calls every body a form then.
    let names = ["application/json", MEDIA_TYPE, "application/x-www-form-urlencoded"];
    if names.contains(&&*named) { Ok(()) } else { Err(Refusal::WrongMediaType("application/json")) }
}

fn answer(status: StatusCode, body: &Value) -> Answer {
    cached(Answer::json(status, body))
}

/// "Success responses have this header."
fn cached(mut answer: Answer) -> Answer {
    let policy = "max-age=5, must-revalidate, private".to_owned();
    answer.headers.push((header::CACHE_CONTROL, policy));
    answer
}

/// The provider's page "Responses (Webhooks API)".
fn refused(refusal: &Refusal) -> Answer {
    let token = |error: &str, description: &str| {
        let body = json!({"error": error, "error_description": description});
        (StatusCode::UNAUTHORIZED, body)
    };
    let message = |text: &str| json!({"message": text});
    let (status, body) = match refusal {
        Refusal::NoToken => token("invalid_request", "The access token is missing"),
        Refusal::BadToken => token("invalid_token", "The access token is invalid or has expired"),
        Refusal::MissingScope(scope) if scope.is_empty() => {
            (StatusCode::UNAUTHORIZED, message("Unauthorized"))
        }
        Refusal::MissingScope(_) => (StatusCode::FORBIDDEN, message("Forbidden")),
        Refusal::Conflict(name) => {
            (StatusCode::CONFLICT, message(&format!("there is a subscription `{name}` already")))
        }
        Refusal::Invalid(violations) => {
            let all: Vec<_> = violations.iter().map(Violation::to_string).collect();
            (StatusCode::BAD_REQUEST, message(&all.join("; ")))
        }
        other => (other.status(), message(&other.to_string())),
    };
    let mut answer = Answer::json(status, &body);
    answer.headers.extend(match refusal {
        _ if status == StatusCode::UNAUTHORIZED => {
            Some((header::WWW_AUTHENTICATE, "Bearer".to_owned()))
        }
        Refusal::WrongMethod(allowed) => Some((header::ALLOW, (*allowed).to_owned())),
        _ => None,
    });
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_ksuid() {
        let id = ksuid(Uuid::now_v7());
        assert_eq!(id.len(), 27);
        assert!(id.bytes().all(|it| it.is_ascii_alphanumeric()));
        assert_eq!(ksuid(Uuid::nil()), "0".repeat(27));
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        assert_ne!(ksuid(one), ksuid(other));
    }

    #[test]
    fn a_wildcard_at_an_end_stands_for_several_segments() {
        let patterns = |it| filters(it).map(|it| it.types.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(patterns("channel.*"), ["channel.*"]);
        assert_eq!(patterns("*.v1"), ["*.v1", "*.*.v1"]);
        assert_eq!(patterns("*"), ["*"]);
    }

    #[test]
    fn a_secret_is_read_as_node_reads_it() {
        assert_eq!(decode("QQ=="), b"A");
        assert_eq!(decode("QUI"), b"AB");
        let documented =
            "OFd4WHqXISxMAgoYneiFhgdGrOgYeToYPN3HjIO4xAxDvWd/oIKTW1P4A6GLXN0McDGlLtnTn1KCGCa+W5Gu=";
        assert_eq!(decode(documented).len(), 63);
    }
}
