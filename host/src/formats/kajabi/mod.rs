//! Kajabi: the hooks of its public API, in JSON:API.
//!
//! Facts are from the provider's page on creating webhooks, its OpenAPI document (v1.1.0) and its
//! changelog. Where these are silent, the convention is ours and says so.

mod api;

use std::collections::BTreeSet;

use hookyard_nouns::event::{Content, Data, Event};
use hookyard_nouns::rendering::{Body, Output, Rendering, TooLarge};

use super::{Api, Catalogue, Format, Writer};
use crate::schemas::{self, Endpoints, Schema};

const NAME: &str = "kajabi";

/// The format `kajabi`, with its schemas.
pub struct Kajabi {
    catalogue: Catalogue,
    create: Schema,
    /// Every scope that some event needs.
    scopes: BTreeSet<String>,
}

impl Kajabi {
    pub fn new(endpoints: Endpoints) -> Kajabi {
        let catalogue = Catalogue::load(NAME);
        let scopes = catalogue.iter().flat_map(|(_, it)| it.scopes.iter().cloned()).collect();
        let create = Schema::ours(schemas::file("kajabi/create.json"), endpoints);
        Kajabi { catalogue, create, scopes }
    }
}

impl Format for Kajabi {
    fn name(&self) -> &'static str {
        NAME
    }

    fn catalogue(&self) -> Option<&Catalogue> {
        Some(&self.catalogue)
    }

    /// `{"id", "event", "payload"}`: the id is that of the resource that triggered the event, which is
    /// the event's subject; the payload is its data.
    fn encode(
        &self,
        _: &Event,
        content: &Content,
        _: &Rendering,
        out: Output,
    ) -> Result<Body, TooLarge> {
        let it = &content.attributes;
        let size = content.data_bytes();
        let mut body = Writer::new(out, size + 128);
        body.text("id", it.subject.as_deref().unwrap_or(&it.id));
        body.text("event", &it.event_type);
        match &content.data {
            Some(Data::Json(json)) => body.raw("payload", json.bytes()),
            // Only a plugin can make it so.
            Some(Data::Text(bytes) | Data::Binary(bytes)) => {
                body.text("payload", &String::from_utf8_lossy(bytes));
            }
            None => body.raw("payload", b"[]"),
        }
        // Ours: no page says what the content type is.
        body.into_body("application/json")
    }

    /// The pages do not ask for `https`.
    fn takes_http(&self) -> bool {
        true
    }

    fn api(&self) -> Option<&dyn Api> {
        Some(self)
    }
}
