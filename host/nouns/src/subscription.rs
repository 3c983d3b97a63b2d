//! The subscription: who wants which events, where, in which format, through which pipeline.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::digest::Digest;
use crate::event::{Data, Event, TYPE_CHARS_MAX, Tenant, Violation};
use crate::json::Json;
use crate::plugin::PluginRef;
use crate::rendering::Rendering;

/// One state of a subscription: it holds from its revision until the next change.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: Uuid,
    pub tenant: Tenant,
    pub format: &'static str,
    /// The id in the format's own API.
    pub provider_id: String,
    pub name: String,
    pub url: Url,
    pub state: State,
    /// While paused, deliveries are held for the resumption and not skipped.
    pub catch_up: bool,
    /// The event is wanted when one of these matches.
    pub filters: Vec<Filter>,
    /// What the format puts in front, and what the subscriber adds.
    pub format_steps: Vec<StepRef>,
    pub steps: Vec<StepRef>,
    /// What becomes of an event, with every plugin pinned.
    pub rendering: Arc<Rendering>,
    pub rendering_hash: Digest,
    /// The origin that the endpoint agreed to get deliveries from; none where there was no handshake.
    pub agreed_origin: Option<String>,
    /// How many deliveries a minute the endpoint agreed to; none where it did not say.
    pub rate_per_minute: Option<u32>,
    pub pace: Pace,
    /// What signs deliveries: the newest secret first, then those that are still valid.
    pub secrets: Vec<SigningSecret>,
    /// What only the format's own API knows of.
    pub document: Value,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
    /// The first revision at which this state holds.
    pub revision: u64,
}

/// Whether deliveries are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Active,
    /// By the subscriber.
    Paused,
    /// By us: the endpoint said that it is gone.
    Disabled,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Paused => "paused",
            State::Disabled => "disabled",
        }
    }
}

/// How deliveries are made, where the subscriber says so; otherwise as the format has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// How long to wait before each retry: there are as many as there are waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<Vec<u32>>,
    /// How many requests may be out at once, in the place of the operator's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight_max: Option<u32>,
    /// How many deliveries may be made in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
    /// Which deliveries are made one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

/// Deliveries of events that have the same key are made in the order in which the events were accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    #[serde(flatten)]
    pub key: OrderKey,
    /// For how long one that fails holds up the others.
    #[serde(default = "an_hour")]
    pub wait_seconds: u32,
}

/// The key of deliveries that were held, where the subscriber has asked for no order: they go one after the other.
pub const IN_TURN: i64 = i64::MIN;
/// For how long one of these that fails holds up the others.
pub const IN_TURN_WAIT_SECONDS: u32 = 3_600;

fn an_hour() -> u32 {
    3_600
}

/// Where the key of an event is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderKey {
    /// The value of an attribute.
    Attribute(String),
    /// The value at a JSON Pointer (RFC 6901) into the data.
    Pointer(String),
}

impl OrderKey {
    /// A number that stands for the key of an event; none where the event has no key.
    pub fn of(&self, event: &Event) -> Option<i64> {
        let digest = match self {
            OrderKey::Attribute(name) => Digest::of(event.content.attributes.get(name)?.as_bytes()),
            OrderKey::Pointer(pointer) => {
                let Some(Data::Json(json)) = &event.content.data else { return None };
                let value = json.get(pointer).filter(|it| it.text() != "null")?;
                // A string may be written in several ways.
                match value.read::<String>() {
                    Some(text) => Digest::of(text.as_bytes()),
                    None => Digest::of(value.bytes()),
                }
            }
        };
        digest.0.first_chunk().copied().map(|it| i64::from_be_bytes(it).max(IN_TURN + 1))
    }
}

/// The declarative part of a subscription: a pattern of types and, for some attributes, the values
/// that they may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    #[serde(rename = "type")]
    pub types: TypePattern,
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "attribute_sets")]
    pub attributes: Vec<(String, Vec<String>)>,
}

/// In JSON, attribute sets are an object of arrays.
mod attribute_sets {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        sets: &[(String, Vec<String>)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(sets.iter().map(|(name, values)| (name, values)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, Vec<String>)>, D::Error> {
        BTreeMap::deserialize(deserializer).map(|sets| sets.into_iter().collect())
    }
}

/// A pattern of event types: segments between dots, of which `*` stands for any one, and a last `*`
/// for one or more. Without `*` it is one type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TypePattern(String);

impl TypePattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern is one type.
    pub fn is_exact(&self) -> bool {
        !self.0.split('.').any(|segment| segment == "*")
    }
}

impl TryFrom<String> for TypePattern {
    type Error = Violation;

    fn try_from(text: String) -> Result<TypePattern, Violation> {
        let wrong = |detail: &str| Err(Violation::new("type", detail));
        if text.is_empty() || text.chars().count() > TYPE_CHARS_MAX {
            return wrong("must be an event type, or a pattern of 1 to 1,024 characters");
        }
        if text.split('.').any(|segment| segment.contains('*') && segment != "*") {
            return wrong("may have `*` only as a whole segment, as in `order.*` or `*.created`");
        }
        Ok(TypePattern(text))
    }
}

/// A step as the subscriber asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRef {
    pub plugin: PluginRef,
    /// As it was written: what the plugin takes is what the subscriber asked for.
    #[serde(default = "Json::empty_object")]
    pub config: Json,
}

/// What deliveries are signed with. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret {
    pub key: Vec<u8>,
    /// None for the newest; a replaced one signs beside it for a while.
    pub valid_until_ms: Option<i64>,
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningSecret")
            .field("valid_until_ms", &self.valid_until_ms)
            .finish_non_exhaustive()
    }
}

/// What a checked request says of the secret.
#[derive(Clone)]
pub enum NewSecret {
    /// One is made for a new subscription. One that is there keeps its own.
    Made,
    /// This one, from now on.
    Given(Vec<u8>),
    /// A new subscription has none, and its deliveries are not signed with one until it is given one.
    None,
}

impl fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NewSecret::Made => "Made",
            NewSecret::Given(_) => "Given",
            NewSecret::None => "None",
        })
    }
}

/// What a checked request makes of a subscription, or is to make of it.
#[derive(Clone, Debug)]
pub struct Draft {
    pub name: String,
    pub url: Url,
    /// A JSON Pointer to the URL in the request, for what is said of it.
    pub url_field: &'static str,
    pub state: State,
    pub catch_up: bool,
    pub locale: Option<String>,
    pub filters: Vec<Filter>,
    pub format_steps: Vec<StepRef>,
    /// None leaves the subscriber's own steps as they are.
    pub steps: Option<Vec<StepRef>>,
    pub secret: NewSecret,
    pub document: Value,
    /// What no other subscription of the tenant in this format may have.
    pub unique: Vec<String>,
}

impl Draft {
    /// An active subscription with nothing but what every provider knows: no name in a locale, no steps,
    /// no secret, and nothing that another one may not have.
    pub fn new(
        name: &str,
        url: Url,
        url_field: &'static str,
        filters: Vec<Filter>,
        document: Value,
    ) -> Draft {
        Draft {
            name: name.to_owned(),
            url,
            url_field,
            state: State::Active,
            catch_up: false,
            locale: None,
            filters,
            format_steps: Vec::new(),
            steps: None,
            secret: NewSecret::None,
            document,
            unique: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_a_whole_segment() {
        for (text, exact) in [
            ("order.paid", Some(true)),
            ("order", Some(true)),
            ("profile.updated full", Some(true)),
            ("order.*", Some(false)),
            ("*", Some(false)),
            ("*.created.*", Some(false)),
            ("order.p*", None),
            ("**", None),
            ("order..paid.", Some(true)),
            ("", None),
        ] {
            let pattern = TypePattern::try_from(text.to_owned()).ok();
            assert_eq!(pattern.map(|it| it.is_exact()), exact, "{text}");
        }
    }

    #[test]
    fn a_filter_is_read_as_it_is_written() {
        let text = r#"{"type":"order.*","attributes":{"region":["eu","us"]}}"#;
        let filter: Filter = serde_json::from_str(text).unwrap();
        assert_eq!(filter.attributes, [("region".to_owned(), vec!["eu".into(), "us".into()])]);
        assert_eq!(serde_json::to_string(&filter).unwrap(), text);
    }
}
