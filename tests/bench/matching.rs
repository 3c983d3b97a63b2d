//! Which subscriptions want an event: the index alone, with patterns and without.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use hookyard::index::Index;
use hookyard_nouns::event::{Attributes, Content, Event, Tenant};
use hookyard_nouns::rendering::Rendering;
use hookyard_nouns::subscription::{Pace, SigningSecret, State, Subscription};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Bench;
use super::report::{Rounds, Row, whole};

const LOOK_UPS: usize = 200_000;

pub(crate) fn measure(bench: &mut Bench) {
    type Pattern = fn(usize) -> String;
    let exact: Pattern = |it| format!("order.{it}.paid");
    let wildcard: Pattern = |it| format!("order.{it}.*");
    for (what, pattern, target) in
        [("exact types", exact, ""), ("patterns with `*`", wildcard, "≤ 1,000 with 100,000")]
    {
        for count in [1_000, 100_000, 1_000_000] {
            let index = index(count, pattern);
            let map: HashMap<String, usize> =
                (0..count).map(|it| (format!("order.{it}.paid"), it)).collect();
            let events: Vec<Event> = (0..1_000)
                .map(|it| event(&format!("order.{}.paid", it * (count / 1_000))))
                .collect();
            let (mut values, mut limit) = (Rounds::default(), Rounds::default());
            for _ in 0..bench.rounds {
                values.0.push(each(&events, |it| index.matching(it).len() == 1));
                limit
                    .0
                    .push(each(&events, |it| map.contains_key(&it.content.attributes.event_type)));
            }
            bench.report.add(Row {
                group: "Matching, where one subscription wants the event",
                name: format!("{} {what}", whole(count)),
                unit: "ns",
                values,
                limit: Some(("a look-up of the type in a hash map", limit)),
                target,
            });
        }
    }
}

/// Nanoseconds for one.
fn each(events: &[Event], finds: impl Fn(&Event) -> bool) -> f64 {
    let start = Instant::now();
    for event in events.iter().cycle().take(LOOK_UPS) {
        assert!(finds(black_box(event)));
    }
    start.elapsed().as_secs_f64() * 1e9 / LOOK_UPS as f64
}

fn index(count: usize, pattern: fn(usize) -> String) -> Index {
    index_of((0..count).map(|it| subscription(it as u128, &pattern(it))))
}

pub(crate) fn index_of(subscriptions: impl IntoIterator<Item = Arc<Subscription>>) -> Index {
    let mut index = Index::default();
    for it in subscriptions {
        index.put(it);
    }
    index
}

pub(crate) fn subscription(id: u128, pattern: &str) -> Arc<Subscription> {
    let rendering =
        Rendering { format: "cloudevents".to_owned(), encoding: 1, ..Rendering::default() };
    let filters = json!([{"type": pattern}]);
    Arc::new(Subscription {
        id: Uuid::from_u128(id),
        tenant: Tenant::new("t").unwrap(),
        format: "cloudevents",
        provider_id: id.to_string(),
        name: String::new(),
        url: "https://example.com".parse().unwrap(),
        state: State::Active,
        catch_up: false,
        filters: serde_json::from_value(filters).unwrap(),
        format_steps: vec![],
        steps: vec![],
        rendering_hash: rendering.hash(),
        rendering: Arc::new(rendering),
        agreed_origin: None,
        rate_per_minute: None,
        pace: Pace::default(),
        secrets: vec![SigningSecret { key: vec![7; 32], valid_until_ms: None }],
        document: Value::Null,
        created_at_ms: 0,
        updated_at_ms: 0,
        revision: 1,
    })
}

fn event(event_type: &str) -> Event {
    let attributes =
        [("specversion", "1.0"), ("id", "1"), ("source", "/bench"), ("type", event_type)];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let attributes = Attributes::new(attributes).unwrap();
    Event {
        id: Uuid::nil(),
        tenant: Tenant::new("t").unwrap(),
        format: "cloudevents",
        content: Arc::new(Content { attributes, data: None }),
        alternate_ids: vec![],
        accepted_at_ms: 0,
        revision: 1,
    }
}
