//! PossibleNOW MyPreferences: webhook event subscriptions of its integration API.
//!
//! Facts are from the provider's pages "Create new subscription", "Retrieve subscriptions", "Update
//! subscription", "Delete subscription", "Events" and "Event payload samples". Where these pages are
//! silent, the convention is ours and says so.

mod api;

use hookyard_nouns::clock;
use hookyard_nouns::event::{Content, Data, Event};
use hookyard_nouns::rendering::{Body, Output, Rendering, TooLarge};
use serde::Deserialize;
use serde_json::Value;

use super::{AfterLast, Api, Catalogue, Choices, Format, Policy, Proof, Writer};
use crate::schemas::{self, Schema};

const NAME: &str = "mypreferences";
/// Texts of the account, for a locale that has none (ours: the page does not say).
const DEFAULT_LOCALE: &str = "en_US";
/// What the envelope holds; a plugin cannot write these from the data.
const ENVELOPE: [&str; 9] = [
    "Id",
    "Entity",
    "EventType",
    "Name",
    "Description",
    "LocaleId",
    "ClientId",
    "SubscriptionId",
    "EventDate",
];

/// How `AlternateIdType` shows in a delivery. The page says that the alternate id "will be returned
/// instead of the profileId", which can be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AlternateIdShape {
    /// `AlternateId: {"Type": …, "Id": …}` and no `ProfileId`.
    Member,
    /// The value of `ProfileId` is the alternate id.
    Value,
}

/// The format `mypreferences`, with its schemas.
pub struct MyPreferences {
    catalogue: Catalogue,
    create: Schema,
    replace: Schema,
    settings: Schema,
    alternate_id: AlternateIdShape,
    validation: bool,
}

impl MyPreferences {
    pub fn new(choices: &Choices) -> MyPreferences {
        let schema = |name: &str| {
            Schema::ours(schemas::file(&format!("{NAME}/{name}.json")), choices.endpoints)
        };
        MyPreferences {
            catalogue: Catalogue::load(NAME),
            create: schema("create"),
            replace: schema("replace"),
            settings: schema("settings"),
            alternate_id: choices.alternate_id,
            validation: choices.mypreferences_validation,
        }
    }
}

impl Format for MyPreferences {
    fn name(&self) -> &'static str {
        NAME
    }

    fn catalogue(&self) -> Option<&Catalogue> {
        Some(&self.catalogue)
    }

    fn names_subscription(&self) -> bool {
        true
    }

    /// The envelope is ours (the pages describe its members and print none): event information, then
    /// `ProfileId` or `AlternateId`, `Data` and `PreviousData` as the pipeline left them.
    fn encode(
        &self,
        event: &Event,
        content: &Content,
        rendering: &Rendering,
        out: Output,
    ) -> Result<Body, TooLarge> {
        let it = &content.attributes;
        let event_type = self.catalogue.get(&it.event_type);
        let locale = rendering.locale.as_deref().unwrap_or(DEFAULT_LOCALE);
        let texts = event_type.and_then(|event_type| {
            let texts = |locale: &str| event_type.texts.get_key_value(locale);
            texts(locale).or_else(|| texts(DEFAULT_LOCALE))
        });
        // A part of a split keeps the number that the split gave it.
        let part = it.id.strip_prefix(&*event.content.attributes.id).unwrap_or_default();

        let size = content.data_bytes();
        let mut body = Writer::new(out, size + 512);
        body.text("Id", &format!("{}{part}", event.id));
        body.text("Entity", event_type.map_or("", |it| &it.entity));
        body.text("EventType", &it.event_type);
        if let Some((locale, texts)) = texts {
            body.text("Name", &texts.name);
            body.text("Description", &texts.description);
            body.text("LocaleId", locale);
        }
        body.text("ClientId", event.tenant.as_str());
        if let Some(recipient) = &rendering.addressee {
            body.raw("SubscriptionId", recipient.provider_id.as_bytes());
        }
        let accepted = || clock::rfc3339(event.accepted_at_ms);
        body.text("EventDate", it.time.clone().unwrap_or_else(accepted).as_str());
        match &content.data {
            Some(Data::Json(json)) => match json.members() {
                Some(members) => {
                    for (name, value) in members.filter(|(name, _)| !ENVELOPE.contains(&&**name)) {
                        body.raw(&name, value.bytes());
                    }
                }
                None => body.raw("Data", json.bytes()),
            },
            Some(Data::Text(bytes) | Data::Binary(bytes)) => {
                body.text("Data", &String::from_utf8_lossy(bytes));
            }
            None => {}
        }
        body.into_body("application/json")
    }

    /// Ours: the pages say nothing of retries, so the ladder of Standard Webhooks and then a pause.
    fn policy(&self) -> Policy {
        Policy { after_last: AfterLast::Pause, ..Policy::default() }
    }

    fn proof(&self, _: &Value) -> Proof {
        if self.validation { Proof::HandshakeOrEcho } else { Proof::None }
    }

    /// The subject, or else `ProfileId`.
    fn profile(&self, content: &Content) -> Option<String> {
        content.attributes.subject.clone().or_else(|| match &content.data {
            Some(Data::Json(json)) => json.get("/ProfileId").map(|it| it.text().to_owned()),
            Some(Data::Text(_) | Data::Binary(_)) | None => None,
        })
    }

    fn api(&self) -> Option<&dyn Api> {
        Some(self)
    }
}
