//! What is measured: plugins with their configurations, and events.

use std::sync::Arc;

use bytes::Bytes;
use hookyard::wasm::STANDARD_PLUGINS;
use hookyard_nouns::event::{Attributes, Content, Data, Event, Tenant};
use hookyard_nouns::json::Json;
use serde_json::json;
use uuid::Uuid;

use super::native::{self, Native};
use crate::harness::plugins::filter_module;

/// A plugin at work.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) file: Vec<u8>,
    pub(crate) config: String,
    /// The same work on the data, where there is any.
    pub(crate) native: Option<Native>,
    /// How many KiB the data have.
    pub(crate) sizes: Vec<usize>,
    /// Size, and the microseconds that it is to take at most.
    pub(crate) targets: &'static [(usize, &'static str)],
}

const SCRIPT: &str = "const filter = (event) => \
    event.get('/amount') >= 100 && ['AT', 'DE'].includes(event.get('/country'));";

pub(crate) fn plugins() -> Vec<Work> {
    let empty = Work {
        name: "empty",
        file: empty(),
        config: "{}".to_owned(),
        native: None,
        sizes: vec![1],
        targets: &[(1, "≤ 8")],
    };
    let filter = json!({"when": {"all": [
        {"at": "/amount", "gte": 100}, {"at": "/country", "in": ["AT", "DE"]},
    ]}});
    let rules = json!({"rules": [
        {"move": {"from": "/customer/mail", "to": "/contact/email"}},
        {"remove": "/internal_note"},
        {"template": {"at": "/title", "text": "{/amount} from {/country}"}},
    ]});
    let mut filter = standard("filter", filter, native::filter, &[(1, "≤ 12"), (64, "≤ 12")]);
    filter.sizes.push(64);
    let remove = json!({"remove": ["/customer/mail", "/internal_note"]});
    let alternate = json!({"kind": "Loyalty", "put": "/customer/id"});
    let fields = json!({"fields": ["mail", "phone"]});
    let sample = json!({"percent": 50, "by": "/customer/id"});
    vec![
        empty,
        standard("minimize", remove, native::minimize, &[(1, "≤ 12"), (16, "≤ 20")]),
        standard("alternate-id", alternate, native::alternate_id, &[]),
        filter,
        standard("redact", fields, native::redact, &[]),
        standard("map", rules, native::map, &[]),
        standard("sample", sample, native::sample, &[]),
        standard("split", json!({"at": "/lines"}), native::split, &[]),
        standard("javascript", json!({"script": SCRIPT}), native::filter, &[]),
    ]
}

fn standard(
    name: &'static str,
    config: serde_json::Value,
    native: Native,
    targets: &'static [(usize, &'static str)],
) -> Work {
    let (_, file) = STANDARD_PLUGINS.iter().find(|(it, _)| *it == name).unwrap();
    let config = config.to_string();
    Work { name, file: file.to_vec(), config, native: Some(native), sizes: vec![1, 16], targets }
}

/// An order of about so many KiB. What filters look at is in front; the last member goes.
pub(crate) fn event(size_kib: usize) -> Arc<Event> {
    let lines = if size_kib == 1 { 8 } else { 60 };
    let line_bytes = (size_kib * 1_024 - 220) / lines;
    let line = |number: usize| {
        let start = format!(r#"{{"sku":"A-{number:04}","quantity":{},"price":"#, number % 7 + 1);
        let filler = "x".repeat(line_bytes.saturating_sub(start.len() + 20));
        format!(r#"{start}{number}.50,"text":"{filler}"}}"#)
    };
    let lines: Vec<_> = (0..lines).map(line).collect();
    let data = format!(
        r#"{{"amount":250,"country":"DE","customer":{{"id":"p-7","name":"Zoë","mail":"zoe@example.com","phone":"+49 30 1234567"}},"lines":[{}],"internal_note":"ask again"}}"#,
        lines.join(",")
    );
    let pairs = [("specversion", "1.0"), ("id", "1"), ("source", "/shop"), ("type", "order.paid")];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let data = Some(Data::Json(Json::parse(Bytes::from(data)).unwrap()));
    Arc::new(Event {
        id: Uuid::nil(),
        tenant: Tenant::new("acme").unwrap(),
        format: "cloudevents",
        content: Arc::new(Content { attributes: Attributes::new(pairs).unwrap(), data }),
        alternate_ids: vec![("Loyalty".to_owned(), "L-7".to_owned())],
        accepted_at_ms: 1_700_000_000_000,
        revision: 0,
    })
}

/// The plugin that accepts and does nothing else.
pub(crate) fn empty() -> Vec<u8> {
    filter_module("(i32.const 1024)", "")
}
