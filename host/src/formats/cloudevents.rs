//! Our own format: CloudEvents 1.0 in structured JSON, every type, the data byte for byte.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hookyard_nouns::event::{Content, Data, Event};
use hookyard_nouns::rendering::{Body, Output, Rendering, TooLarge};
use serde_json::Value;

use super::{Api, Catalogue, Format, Proof, Writer};

/// The format `cloudevents`.
pub struct CloudEvents;

impl Format for CloudEvents {
    fn name(&self) -> &'static str {
        "cloudevents"
    }

    fn catalogue(&self) -> Option<&Catalogue> {
        None
    }

    /// CloudEvents JSON format 1.0.2, sections 2 and 3.1.
    fn encode(
        &self,
        _: &Event,
        content: &Content,
        _: &Rendering,
        out: Output,
    ) -> Result<Body, TooLarge> {
        let it = &content.attributes;
        let size = content.data_bytes();
        let mut body = Writer::new(out, size + 512);
        body.text("specversion", "1.0");
        body.text("id", &it.id);
        body.text("source", &it.source);
        body.text("type", &it.event_type);
        let optional = [
            ("subject", &it.subject),
            ("time", &it.time),
            ("datacontenttype", &it.datacontenttype),
            ("dataschema", &it.dataschema),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                body.text(name, value);
            }
        }
        for (name, value) in &it.extensions {
            match value.is_bare() {
                true => body.raw(name, value.text().as_bytes()),
                false => body.text(name, value.text()),
            }
        }
        match &content.data {
            Some(Data::Json(json)) => body.raw("data", json.bytes()),
            Some(Data::Text(bytes)) => body.text("data", &String::from_utf8_lossy(bytes)),
            Some(Data::Binary(bytes)) => body.text("data_base64", &BASE64_STANDARD.encode(bytes)),
            None => {}
        }
        body.into_body("application/cloudevents+json")
    }

    fn proof(&self, document: &Value) -> Proof {
        if document["handshake"] == true { Proof::Handshake } else { Proof::None }
    }

    fn api(&self) -> Option<&dyn Api> {
        None
    }
}
