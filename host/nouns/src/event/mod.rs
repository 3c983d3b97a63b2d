//! The event: a CloudEvents 1.0 event as it was accepted. Immutable.

mod attributes;
mod data;
mod violation;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::json::Json;

pub use attributes::{
    ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX, AttributeValue, Attributes, AttributesSize,
    TYPE_CHARS_MAX, is_standard,
};
pub use data::{Kind, essence, is_json_type, kind_of_bytes};
pub use violation::{DETAIL_BYTES_MAX, VIOLATIONS_MAX, Violation, cut};

/// The name of a format, from a text of ours. There are a handful of names, which are kept for ever.
pub fn format_name(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    kept
}

/// The account that an event or a subscription belongs to. Nothing crosses tenants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tenant(Arc<str>);

impl TryFrom<String> for Tenant {
    type Error = Violation;

    fn try_from(name: String) -> Result<Tenant, Violation> {
        Tenant::new(&name)
    }
}

impl From<Tenant> for String {
    fn from(it: Tenant) -> String {
        it.as_str().to_owned()
    }
}

impl Tenant {
    /// # Errors
    ///
    /// The name is not 1 to 64 letters, digits, `.`, `_` or `-`.
    pub fn new(name: &str) -> Result<Tenant, Violation> {
        let letter = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b'-');
        if (1..=64).contains(&name.len()) && name.bytes().all(letter) {
            Ok(Tenant(name.into()))
        } else {
            Err(Violation::new("tenant", "must be 1 to 64 letters, digits, `.`, `_` or `-`"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the types of our own events begin: only the router publishes them, and only a pattern that begins
/// so matches them.
pub const OPERATIONAL_PREFIX: &str = "hookyard.";

/// An event that is ours to deliver.
#[derive(Clone, Debug)]
pub struct Event {
    /// UUIDv7, given at acceptance. `attributes.id` is the publisher's.
    pub id: Uuid,
    pub tenant: Tenant,
    /// The format whose catalogue the type is from.
    pub format: &'static str,
    pub content: Arc<Content>,
    /// Kind and value of each alternate id of the event's profile, as they were at acceptance.
    pub alternate_ids: Vec<(String, String)>,
    pub accepted_at_ms: i64,
    /// The revision of subscriptions that this event is routed by.
    pub revision: u64,
}

/// What a publisher sends, and what a plugin changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    pub attributes: Attributes,
    pub data: Option<Data>,
}

impl Event {
    /// Whether the router itself has made it.
    pub fn is_ours(&self) -> bool {
        self.content.attributes.event_type.starts_with(OPERATIONAL_PREFIX)
    }
}

impl Content {
    /// How large all of it is.
    pub fn bytes(&self) -> usize {
        self.attributes.size().1 + self.data_bytes()
    }

    /// How large the data are.
    pub fn data_bytes(&self) -> usize {
        self.data.as_ref().map_or(0, |data| data.bytes().len())
    }
}

/// The data of an event, by what can be done with them.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Json(Json),
    Text(Bytes),
    Binary(Bytes),
}

impl Data {
    pub fn bytes(&self) -> &Bytes {
        match self {
            Data::Json(json) => json.bytes(),
            Data::Text(bytes) | Data::Binary(bytes) => bytes,
        }
    }
}
