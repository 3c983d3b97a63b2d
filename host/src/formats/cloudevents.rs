//! Our own format: CloudEvents 1.0 in structured JSON, every type, the data byte for byte.

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::{Api, Catalogue, Format};
use crate::event::{Content, Data, Event};
use crate::render::{Body, Rendering};

/// See the head of this module.
pub struct CloudEvents;

impl Format for CloudEvents {
    fn name(&self) -> &'static str {
        "cloudevents"
    }

    fn catalogue(&self) -> Option<&Catalogue> {
        None
    }

    fn encoding(&self) -> u16 {
        1
    }

    fn names_subscription(&self) -> bool {
        false
    }

    /// CloudEvents JSON format 1.0.2, sections 2 and 3.1.
    fn encode(&self, _: &Event, content: &Content, _: &Rendering) -> Body {
        let it = &content.attributes;
        let size = content.data.as_ref().map_or(0, |data| data.bytes().len());
        let mut body = Writer { out: Vec::with_capacity(size + 512) };
        body.out.extend_from_slice(br#"{"specversion":"1.0""#);
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
            body.text(name, value);
        }
        match &content.data {
            Some(Data::Json(json)) => body.raw("data", json.bytes()),
            Some(Data::Text(bytes)) => body.text("data", &String::from_utf8_lossy(bytes)),
            Some(Data::Binary(bytes)) => body.text("data_base64", &BASE64_STANDARD.encode(bytes)),
            None => {}
        }
        body.out.push(b'}');
        Body { bytes: body.out.into(), content_type: "application/cloudevents+json" }
    }

    fn api(&self) -> Option<&dyn Api> {
        None
    }
}

/// Writes the members of a JSON object behind one that is there already.
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
}

impl Writer {
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        serde_json::to_writer(&mut self.out, value).expect("a text is always JSON");
    }

    pub(super) fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(json);
    }

    fn name(&mut self, name: &str) {
        self.out.push(b',');
        serde_json::to_writer(&mut self.out, name).expect("a text is always JSON");
        self.out.push(b':');
    }
}
