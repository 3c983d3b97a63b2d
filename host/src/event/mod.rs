//! The event: a CloudEvents 1.0 event as it was accepted. Immutable.

mod violation;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use crate::clock;
use crate::json::Json;

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

/// How many attributes an event may have, and how many bytes their names and values may be together: as it
/// is published, and as a plugin makes it.
pub const ATTRIBUTES_MAX: usize = 100;
pub const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;
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

/// The CloudEvents context attributes in their canonical string form, checked against CloudEvents
/// 1.0.2 section 3 ("Context Attributes").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    pub id: String,
    pub source: String,
    #[serde(rename = "type")]
    pub event_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataschema: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<(String, String)>,
}

impl Attributes {
    /// # Errors
    ///
    /// Every attribute that is missing or not as CloudEvents wants it.
    pub fn new(
        pairs: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Attributes, Vec<Violation>> {
        let mut attributes = Attributes {
            id: String::new(),
            source: String::new(),
            event_type: String::new(),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: Vec::new(),
        };
        let mut specversion = None;
        let mut violations = Vec::new();
        let mut size = AttributesSize::default();
        for (name, value) in pairs {
            // Before anything is looked for among those that are there.
            size.add(&name, &value).map_err(|it| vec![it])?;
            if name == "specversion" {
                specversion = Some(value);
            } else if let Err(violation) = attributes.set(&name, value) {
                violations.push(violation);
            }
        }
        match specversion.as_deref() {
            Some("1.0") => {}
            Some(_) => violations.push(Violation::new("specversion", "must be `1.0`")),
            None => violations.push(Violation::new("specversion", "is missing; it must be `1.0`")),
        }
        let required = [
            ("id", &attributes.id),
            ("source", &attributes.source),
            ("type", &attributes.event_type),
        ];
        for (name, value) in required {
            if value.is_empty() && violations.iter().all(|it| it.field != name) {
                violations.push(Violation::new(name, "is missing"));
            }
        }
        if violations.is_empty() { Ok(attributes) } else { Err(Violation::first(violations)) }
    }

    /// The value of an attribute by its CloudEvents name, extensions included.
    pub fn get(&self, name: &str) -> Option<&str> {
        match name {
            "id" => Some(&self.id),
            "source" => Some(&self.source),
            "type" => Some(&self.event_type),
            "subject" => self.subject.as_deref(),
            "time" => self.time.as_deref(),
            "datacontenttype" => self.datacontenttype.as_deref(),
            "dataschema" => self.dataschema.as_deref(),
            _ => self.extensions.iter().find(|(key, _)| key == name).map(|(_, value)| &**value),
        }
    }

    /// Sets or replaces one attribute.
    ///
    /// # Errors
    ///
    /// The name or the value is not as CloudEvents wants it.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), Violation> {
        check_value(name, &value)?;
        match name {
            "id" => self.id = value,
            "source" => self.source = value,
            "type" => self.event_type = value,
            "subject" => self.subject = Some(value),
            "time" => self.time = Some(value),
            "datacontenttype" => self.datacontenttype = Some(value),
            "dataschema" => self.dataschema = Some(value),
            _ => match self.extensions.iter_mut().find(|(key, _)| key == name) {
                Some((_, old)) => *old = value,
                None => self.extensions.push((name.to_owned(), value)),
            },
        }
        Ok(())
    }

    /// Takes one attribute away and answers what it was.
    ///
    /// # Errors
    ///
    /// The attribute is one that every event has.
    pub fn unset(&mut self, name: &str) -> Result<Option<String>, Violation> {
        Ok(match name {
            "id" | "source" | "type" | "specversion" => {
                return Err(Violation::new(name, "is required and cannot be taken away"));
            }
            "subject" => self.subject.take(),
            "time" => self.time.take(),
            "datacontenttype" => self.datacontenttype.take(),
            "dataschema" => self.dataschema.take(),
            _ => {
                let at = self.extensions.iter().position(|(key, _)| key == name);
                at.map(|at| self.extensions.remove(at).1)
            }
        })
    }

    /// How many there are, and how many bytes their names and values have.
    pub fn size(&self) -> (usize, usize) {
        let texts = [&self.id, &self.source, &self.event_type].into_iter();
        let optional = [&self.subject, &self.time, &self.datacontenttype, &self.dataschema];
        let texts = texts.chain(optional.into_iter().flatten()).map(String::len);
        let extensions = self.extensions.iter().map(|(name, value)| name.len() + value.len());
        texts.chain(extensions).fold((0, 0), |(count, bytes), it| (count + 1, bytes + it))
    }

    /// Whether the data are JSON by their media type; they are when there is none
    /// (CloudEvents JSON format 1.0.2, section 3.1.1).
    pub fn is_json(&self) -> bool {
        self.datacontenttype.as_deref().is_none_or(is_json_type)
    }
}

/// Whether a media type says JSON: `…/json` or `…+json`.
pub fn is_json_type(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let subtype = essence.rsplit_once('/').map_or("", |(_, subtype)| subtype);
    subtype.eq_ignore_ascii_case("json")
        || subtype.len() > 5 && subtype[subtype.len() - 5..].eq_ignore_ascii_case("+json")
}

fn check_value(name: &str, value: &str) -> Result<(), Violation> {
    let wrong = |detail: &str| Err(Violation::new(name, detail));
    if name == "specversion" || name == "data" || name == "data_base64" {
        return wrong("is not an attribute that can be set");
    }
    if name.is_empty() || !name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit()) {
        return wrong("is not an attribute name: only `a` to `z` and `0` to `9` may be in it");
    }
    if value.chars().any(|it| it.is_control() || is_noncharacter(it)) {
        return wrong("has a control character");
    }
    match name {
        _ if value.is_empty() && is_standard(name) => wrong("must not be empty"),
        "source" if !is_uri_reference(value) => {
            wrong("must be a URI reference (RFC 3986); percent-encode what may not be in one")
        }
        "dataschema" if !is_uri_reference(value) || Url::parse(value).is_err() => {
            wrong("must be an absolute URI (RFC 3986)")
        }
        "time" if clock::parse_rfc3339(value).is_none() => {
            wrong("must be a time like `2026-01-31T12:00:00Z` (RFC 3339)")
        }
        "datacontenttype" if !is_media_type(value) => {
            wrong("must be a media type like `application/json` (RFC 2046)")
        }
        _ => Ok(()),
    }
}

/// How many attributes have been read, and how many bytes.
#[derive(Debug, Default)]
pub struct AttributesSize {
    count: usize,
    bytes: usize,
}

impl AttributesSize {
    /// Adds one.
    ///
    /// # Errors
    ///
    /// These are too many, or too many bytes.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), Violation> {
        self.count += 1;
        self.bytes += name.len() + value.len();
        // The version of the specification is none of the event's.
        if self.count > ATTRIBUTES_MAX + 1 {
            let detail = format!("must have at most {ATTRIBUTES_MAX} attributes beside the data");
            return Err(Violation::new("", detail));
        }
        if self.bytes > ATTRIBUTES_BYTES_MAX {
            let detail = format!(
                "must have attributes of at most {ATTRIBUTES_BYTES_MAX} bytes, names and values together"
            );
            return Err(Violation::new("", detail));
        }
        Ok(())
    }
}

/// Whether an attribute is one of the specification's own, all of which are texts.
pub fn is_standard(name: &str) -> bool {
    matches!(name, "id" | "source" | "type" | "subject" | "time" | "datacontenttype" | "dataschema")
}

fn is_noncharacter(it: char) -> bool {
    matches!(u32::from(it), 0xFDD0..=0xFDEF) || u32::from(it) & 0xFFFE == 0xFFFE
}

fn is_uri_reference(text: &str) -> bool {
    let allowed = |it: u8| it.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&it);
    let escapes_end = text
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    text.bytes().all(allowed) && escapes_end
}

fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|it| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it))
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(pairs: &[(&str, &str)]) -> Vec<String> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Attributes::new(pairs).err().unwrap_or_default().iter().map(|it| it.field.clone()).collect()
    }

    const LEAST: [(&str, &str); 4] =
        [("specversion", "1.0"), ("id", "1"), ("source", "/orders"), ("type", "order.paid")];

    fn check(name: &str, value: &str, fits: bool) {
        let pairs = [&LEAST[..], &[(name, value)]].concat();
        let wrong = if fits { vec![] } else { vec![name.to_owned()] };
        assert_eq!(violations(&pairs), wrong, "{name}: {value:?}");
    }

    #[test]
    fn four_attributes_are_required() {
        assert_eq!(violations(&LEAST), [""; 0]);
        assert_eq!(violations(&[]), ["specversion", "id", "source", "type"]);
    }

    #[test]
    fn attributes_are_checked_by_their_kind() {
        check("source", "urn:x:%C3%A9?a#b", true);
        check("source", "a b", false);
        check("source", "%zz", false);
        check("specversion", "0.3", false);
        check("time", "2018-04-05T17:31:00+02:00", true);
        check("time", "yesterday", false);
        check("dataschema", "https://example.com/s", true);
        check("dataschema", "/s", false);
        check("datacontenttype", "text/xml; charset=utf-8", true);
        check("datacontenttype", "xml", false);
        check("subject", "", false);
        check("region", "", true);
        check("region", "a\nb", false);
        check("Region", "eu", false);
        check("region_code", "eu", false);
        check("data", "x", false);
    }

    #[test]
    fn attributes_are_few_and_small() {
        let with = |count: usize, bytes: usize| {
            let least = LEAST.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let more = (0..count).map(|it| (format!("a{it}"), "x".repeat(bytes)));
            Attributes::new(least.chain(more)).map(|_| ()).map_err(|it| it[0].detail.clone())
        };
        assert_eq!(with(97, 1), Ok(()));
        assert!(with(98, 1).unwrap_err().contains("at most 100 attributes"));
        assert!(with(80_000, 1).unwrap_err().contains("at most 100 attributes"));
        assert_eq!(with(1, 65_000), Ok(()));
        assert!(with(1, 65_536).unwrap_err().contains("at most 65536 bytes"));
        assert!(with(90, 1_000).unwrap_err().contains("at most 65536 bytes"));
    }

    #[test]
    fn json_is_known_by_its_media_type() {
        for (media_type, json) in [
            ("application/json", true),
            ("Application/Vnd.X+JSON; charset=utf-8", true),
            ("text/json", true),
            ("text/xml", false),
            ("application/jsonp", false),
            ("+json", false),
        ] {
            assert_eq!(is_json_type(media_type), json, "{media_type}");
        }
    }
}
