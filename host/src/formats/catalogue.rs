//! The event types of a format, from `schemas/<format>/catalogue.json`.

use std::collections::{BTreeSet, HashMap};

use hookyard_nouns::event::{Content, Data, Violation};
use serde::Deserialize;
use serde_json::Value;

use super::whole_number;
use crate::schemas::{self, Schema};

/// The event types of a format.
pub struct Catalogue {
    types: HashMap<String, EventType>,
    /// Other spellings of some types.
    aliases: HashMap<String, String>,
}

/// One type of the catalogue.
pub struct EventType {
    pub entity: String,
    /// An extension attribute that every event of the type has, since subscriptions select by it.
    requires: Option<String>,
    /// Where the data say the same, a JSON Pointer.
    in_data: Option<String>,
    data: Schema,
    /// What a token needs for a subscription to it, where the provider asks for something.
    pub scopes: Vec<String>,
    /// By locale.
    pub texts: HashMap<String, Texts>,
}

/// What an event type is called in a locale.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Texts {
    pub name: String,
    pub description: String,
}

/// `schemas/<format>/catalogue.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogueFile {
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "entities")]
    _entities: Value,
    #[serde(default)]
    aliases: HashMap<String, String>,
    types: Vec<EventTypeFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventTypeFile {
    r#type: String,
    entity: String,
    #[serde(default, rename = "inferred")]
    _inferred: bool,
    #[serde(default, rename = "description")]
    _description: String,
    requires: Option<String>,
    in_data: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    data: String,
    #[serde(default)]
    texts: HashMap<String, Texts>,
}

impl Catalogue {
    /// Reads the catalogue that is built in.
    ///
    /// # Panics
    ///
    /// There is none, or it is broken.
    pub(super) fn load(format: &str) -> Catalogue {
        let file = |name: &str| schemas::file(&format!("{format}/{name}.json"));
        Catalogue::ours(file("catalogue"), file("data"))
    }

    /// A catalogue from the texts of `catalogue.json` and `data.json`.
    ///
    /// # Panics
    ///
    /// They are broken.
    pub fn ours(catalogue: &str, data: &str) -> Catalogue {
        let file: CatalogueFile = serde_json::from_str(catalogue)
            .unwrap_or_else(|err| panic!("a catalogue is broken: {err}"));
        let types = file.types.into_iter().map(|it| {
            let schema = Schema::definition(data, &it.data);
            let event_type = EventType {
                entity: it.entity,
                requires: it.requires,
                in_data: it.in_data,
                data: schema,
                scopes: it.scopes,
                texts: it.texts,
            };
            (it.r#type, event_type)
        });
        Catalogue { types: types.collect(), aliases: file.aliases }
    }

    /// The usual spelling of a type.
    pub fn canonical<'a>(&'a self, event_type: &'a str) -> &'a str {
        self.aliases.get(event_type).map_or(event_type, String::as_str)
    }

    /// All types, by their usual spelling.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &EventType)> {
        self.types.iter().map(|(name, it)| (name.as_str(), it))
    }

    /// A type by its usual spelling.
    pub fn get(&self, event_type: &str) -> Option<&EventType> {
        self.types.get(event_type)
    }

    /// The locale as the catalogue spells it. Case does not matter, nor whether it has `-` or `_` (RFC 4647 compares
    /// so as well).
    ///
    /// # Errors
    ///
    /// There are no texts in this locale. Says which ones there are.
    pub fn locale(&self, named: &str) -> Result<String, String> {
        let all = self.types.values().flat_map(|it| it.texts.keys().map(String::as_str));
        let all: BTreeSet<&str> = all.collect();
        let folded = |it: &str| it.to_ascii_lowercase().replace('-', "_");
        match all.iter().find(|it| folded(it) == folded(named)) {
            Some(found) => Ok((*found).to_owned()),
            None => {
                let names: Vec<&str> = all.into_iter().collect();
                Err(format!("must be a locale that there are texts in: {}", names.join(", ")))
            }
        }
    }

    /// Sets the attribute that subscriptions select by from the data, where these say it as well.
    ///
    /// # Errors
    ///
    /// The event says one thing, and its data another.
    pub fn complete(&self, content: &mut Content) -> Result<(), Violation> {
        let event_type = self.get(&content.attributes.event_type);
        let Some((name, pointer)) =
            event_type.and_then(|it| it.requires.as_deref().zip(it.in_data.as_deref()))
        else {
            return Ok(());
        };
        let Some(Data::Json(data)) = &content.data else { return Ok(()) };
        let Some(found) = data.get(pointer) else { return Ok(()) };
        let value: Value = found.read().unwrap_or_default();
        let text = match (&value, whole_number(&value)) {
            (Value::String(text), _) => text.clone(),
            // `12.0` is the number 12, for JSON Schema and for whoever selects by it.
            (_, Some(number)) => number.to_string(),
            _ => found.text().to_owned(),
        };
        match content.attributes.get(name) {
            Some(said) if said == text => Ok(()),
            Some(_) => {
                let detail = format!("must be the same as `{pointer}` of the data, or left out");
                Err(Violation::new(name, detail))
            }
            None => content.attributes.set(name, text),
        }
    }

    /// Checks an event's type, the attribute that subscriptions select by, and the data.
    ///
    /// # Errors
    ///
    /// What is wrong; fields of the data are JSON Pointers that begin with `/data`.
    pub fn check(&self, content: &Content) -> Result<(), Vec<Violation>> {
        let Some(event_type) = self.get(&content.attributes.event_type) else {
            let detail = "is not in the catalogue of the format";
            return Err(vec![Violation::new("type", detail)]);
        };
        let mut violations = Vec::new();
        if let Some(name) = &event_type.requires
            && content.attributes.get(name).is_none()
        {
            let detail = "is missing; subscriptions to this type select by this attribute";
            violations.push(Violation::new(name, detail));
        }
        let data = match &content.data {
            Some(Data::Json(json)) => json.read(),
            Some(Data::Text(_) | Data::Binary(_)) | None => None,
        };
        match data {
            Some(data) => violations.extend(
                event_type
                    .data
                    .violations(&data)
                    .into_iter()
                    .map(|it| Violation::new(format!("/data{}", it.field), it.detail)),
            ),
            None => violations.push(Violation::new("/data", "must be JSON")),
        }
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
}
