//! The context attributes of an event.

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::Violation;
use crate::clock;

/// How many attributes an event may have, and how many bytes their names and values may be together: as it
/// is published, and as a plugin makes it.
pub const ATTRIBUTES_MAX: usize = 100;
pub const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;
/// How long a type may be: of an event, and in a filter. Each of its segments costs the index a node.
pub const TYPE_CHARS_MAX: usize = 1_024;

/// The value of an attribute: its canonical text (CloudEvents 1.0.2, "Type System"), and whether JSON writes it without
/// quotes. The attributes of the specification are all texts; an extension may be an integer or a boolean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeValue {
    text: String,
    is_bare: bool,
}

impl AttributeValue {
    /// The canonical text, whatever the type is.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn into_text(self) -> String {
        self.text
    }

    /// Whether it is an integer or a boolean, of which the text is JSON as it is.
    pub fn is_bare(&self) -> bool {
        self.is_bare
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> AttributeValue {
        AttributeValue { text, is_bare: false }
    }
}

impl From<i32> for AttributeValue {
    fn from(it: i32) -> AttributeValue {
        AttributeValue { text: it.to_string(), is_bare: true }
    }
}

impl From<bool> for AttributeValue {
    fn from(it: bool) -> AttributeValue {
        AttributeValue { text: it.to_string(), is_bare: true }
    }
}

impl Serialize for AttributeValue {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match (self.is_bare, &*self.text) {
            (false, text) => out.serialize_str(text),
            (true, "true") => out.serialize_bool(true),
            (true, "false") => out.serialize_bool(false),
            (true, number) => out.serialize_i32(number.parse().map_err(S::Error::custom)?),
        }
    }
}

/// The JSON format 1.0.2, section 2.2: texts, booleans and integers of 32 bits.
impl<'de> Deserialize<'de> for AttributeValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<AttributeValue, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Text(String),
            Boolean(bool),
            Integer(i32),
        }
        Ok(match Any::deserialize(from)? {
            Any::Text(it) => it.into(),
            Any::Boolean(it) => it.into(),
            Any::Integer(it) => it.into(),
        })
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
    pub extensions: Vec<(String, AttributeValue)>,
}

impl Attributes {
    /// # Errors
    ///
    /// Every attribute that is missing or not as CloudEvents wants it.
    pub fn new<V: Into<AttributeValue>>(
        pairs: impl IntoIterator<Item = (String, V)>,
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
            let value = value.into();
            // Before anything is looked for among those that are there.
            size.add(&name, value.text()).map_err(|it| vec![it])?;
            if name == "specversion" {
                specversion = Some(value.text);
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
            _ => self.extensions.iter().find(|(key, _)| key == name).map(|(_, it)| it.text()),
        }
    }

    /// Sets or replaces one attribute.
    ///
    /// # Errors
    ///
    /// The name or the value is not as CloudEvents wants it.
    pub fn set(&mut self, name: &str, value: impl Into<AttributeValue>) -> Result<(), Violation> {
        let value = value.into();
        check_value(name, value.text())?;
        match name {
            "id" => self.id = value.text,
            "source" => self.source = value.text,
            "type" => self.event_type = value.text,
            "subject" => self.subject = Some(value.text),
            "time" => self.time = Some(value.text),
            "datacontenttype" => self.datacontenttype = Some(value.text),
            "dataschema" => self.dataschema = Some(value.text),
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
                at.map(|at| self.extensions.remove(at).1.text)
            }
        })
    }

    /// How many there are, and how many bytes their names and values have.
    pub fn size(&self) -> (usize, usize) {
        let texts = [&self.id, &self.source, &self.event_type].into_iter();
        let optional = [&self.subject, &self.time, &self.datacontenttype, &self.dataschema];
        let texts = texts.chain(optional.into_iter().flatten()).map(String::len);
        let extensions = self.extensions.iter().map(|(name, it)| name.len() + it.text().len());
        texts.chain(extensions).fold((0, 0), |(count, bytes), it| (count + 1, bytes + it))
    }
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
        "type" if value.chars().count() > TYPE_CHARS_MAX => {
            wrong("must have at most 1,024 characters")
        }
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
}
