//! Every documented request and every sample fits its schema, and no single fault of them does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hookyard::config::Given;
use hookyard::formats::{Format, Formats};
use hookyard::schemas::{self, Endpoints, Schema};
use hookyard_nouns::event::{Attributes, Content, Data};
use hookyard_nouns::json::Json;
use serde_json::{Value, json};

fn formats() -> Formats {
    Formats::new(&Given::default().settle().choices())
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The pointers of all values in a document, the document itself left out.
fn pointers(document: &Value, at: &str, found: &mut Vec<String>) {
    let mut below = |name: String, value: &Value| {
        let pointer = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        found.push(pointer.clone());
        pointers(value, &pointer, found);
    };
    match document {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| below(name.clone(), value));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| below(at.to_string(), value));
        }
        _ => {}
    }
}

/// A value of another type than this one.
fn of_another_type(value: &Value) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) => json!("of another type"),
        _ => json!({"of": "another type"}),
    }
}

fn without(document: &Value, pointer: &str) -> Value {
    let mut changed = document.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    changed.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
    changed
}

fn with(document: &Value, pointer: &str, value: Value) -> Value {
    let mut changed = document.clone();
    match changed.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            changed.pointer_mut(parent).unwrap()[name] = value;
        }
    }
    changed
}

#[test]
fn the_documented_request_fits_and_its_single_faults_do_not() {
    let mut count = 0;
    for name in ["create", "replace"] {
        let schema = schemas::file(&format!("mypreferences/{name}.json"));
        let schema = Schema::ours(schema, Endpoints::Strict);
        let documented = parse(schemas::file("mypreferences/create.sample.json"));
        assert_eq!(schema.violations(&documented), []);
        let mut faults = vec![
            with(&documented, "/Name", json!("")),
            with(&documented, "/Url", json!("http://receiver.example.com/")),
            with(&documented, "/Subscriptions", json!([])),
            with(&documented, "/State", json!("active")),
            with(&documented, "/LocaleID", json!("english!")),
            with(&documented, "/LocaleId", json!("en_US")),
            with(&documented, "/Unknown", json!(1)),
            with(&documented, "/Subscriptions/0/Unknown", json!(1)),
        ];
        faults.extend(["/Name", "/Url", "/Subscriptions"].map(|it| without(&documented, it)));
        let mut all = Vec::new();
        pointers(&documented, "", &mut all);
        for pointer in &all {
            let value = documented.pointer(pointer).unwrap();
            faults.push(with(&documented, pointer, of_another_type(value)));
        }
        for (at, item) in documented["Subscriptions"].as_array().unwrap().iter().enumerate() {
            let of = |member: &str| format!("/Subscriptions/{at}/{member}");
            faults.push(without(&documented, &of("Entity")));
            faults.push(without(&documented, &of("EventType")));
            faults.push(with(&documented, &of("EventType"), json!("nothing.happened")));
            let selectors = ["Filters", "ConsentTypes", "ContactTypes", "Groups", "CustomFields"];
            for selector in selectors {
                match item.get(selector) {
                    // Of the contacts alone, the selector may be left out.
                    Some(_) if selector != "ContactTypes" => {
                        faults.push(without(&documented, &of(selector)));
                        faults.push(with(&documented, &of(selector), json!([])));
                    }
                    Some(_) => faults.push(with(&documented, &of(selector), json!([]))),
                    None => faults.push(with(&documented, &of(selector), json!(["x"]))),
                }
            }
        }
        for fault in &faults {
            assert_ne!(schema.violations(fault), [], "{fault}");
        }
        count += faults.len();
    }
    println!("mypreferences requests: {count} single faults are refused");
}

fn content(sample: &Value, data: &Value) -> Content {
    let attributes = sample.as_object().unwrap().iter().filter(|(name, _)| *name != "data");
    let attributes = attributes.map(|(name, it)| (name.clone(), it.as_str().unwrap().to_owned()));
    let data = Json::parse(data.to_string().into()).unwrap();
    Content { attributes: Attributes::new(attributes).unwrap(), data: Some(Data::Json(data)) }
}

/// The shapes that the provider describes member by member; the others are any object.
const DESCRIBED: [&str; 6] = [
    "UserProfile",
    "EmailPreference",
    "Consent",
    "CustomerType",
    "DefaultLocale",
    "RegistrationStatus",
];

#[test]
fn every_sample_fits_and_its_single_faults_do_not() {
    let formats = formats();
    let format = formats.get("mypreferences").unwrap();
    let catalogue = format.catalogue().unwrap();
    let kinds: BTreeMap<String, String> =
        parse(schemas::file("mypreferences/catalogue.json"))["types"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| {
                let text = |name: &str| it[name].as_str().unwrap().to_owned();
                (text("type"), text("data").trim_end_matches("Change").to_owned())
            })
            .collect();
    let mut count = 0;
    for (name, sample) in schemas::folder("mypreferences/samples") {
        let sample = parse(sample);
        assert_eq!(sample["type"], name);
        let data = &sample["data"];
        assert_eq!(catalogue.check(&content(&sample, data)), Ok(()), "{name}");

        let mut faults = vec![
            without(data, "/ProfileId"),
            with(data, "/ProfileId", json!(0)),
            with(data, "/ProfileId", json!("1024")),
            with(data, "/Unknown", json!(1)),
            json!([]),
        ];
        if data.get("Data").is_some() {
            faults.push(without(data, "/Data"));
            faults.push(with(data, "/Data", json!([])));
            faults.push(with(data, "/Data", json!({})));
            faults.push(with(data, "/Data/0", json!("x")));
        } else {
            faults.push(with(data, "/Data", json!([{"a": 1}])));
        }
        match data.get("PreviousData") {
            Some(_) => faults.push(with(data, "/PreviousData", json!({}))),
            None => faults.push(with(data, "/PreviousData", json!([{"a": 1}]))),
        }
        if DESCRIBED.contains(&kinds[name].as_str()) {
            let item = data["Data"][0].as_object().unwrap();
            for (member, value) in item.iter().filter(|(member, _)| *member != "LocaleId") {
                let pointer = format!("/Data/0/{member}");
                faults.push(with(data, &pointer, of_another_type(value)));
            }
        }
        for fault in &faults {
            assert!(catalogue.check(&content(&sample, fault)).is_err(), "{name}: {fault}");
        }
        count += faults.len();
    }
    println!("mypreferences samples: {count} single faults are refused");
}

/// The formats whose schemas say everything that there is to say of them.
const OTHERS: [&str; 4] = ["kajabi", "vision6", "copernica", "vonage"];

#[test]
fn every_format_has_its_documented_request_and_a_sample_of_each_type() {
    let formats = formats();
    for name in OTHERS {
        let schema = Schema::ours(schemas::file(&format!("{name}/create.json")), Endpoints::Strict);
        let documented = parse(schemas::file(&format!("{name}/create.sample.json")));
        assert_eq!(schema.violations(&documented), [], "{name}");
        let mut faults = vec![with(&documented, "/Unknown", json!(1)), json!([]), json!("x")];
        let mut all = Vec::new();
        pointers(&documented, "", &mut all);
        for pointer in &all {
            let value = documented.pointer(pointer).unwrap();
            faults.push(with(&documented, pointer, of_another_type(value)));
        }
        for fault in &faults {
            assert_ne!(schema.violations(fault), [], "{name}: {fault}");
        }

        let catalogue = formats.get(name).unwrap().catalogue().unwrap();
        let mut sampled = BTreeSet::new();
        let mut count = 0;
        for (file, sample) in schemas::folder(&format!("{name}/samples")) {
            let sample = parse(sample);
            let event_type = sample["type"].as_str().unwrap();
            assert!(file.starts_with(event_type), "{name}: {file}");
            let data = &sample["data"];
            assert_eq!(catalogue.check(&content(&sample, data)), Ok(()), "{name}: {file}");
            let mut faults = vec![json!("x"), json!(null), json!(7)];
            match data {
                Value::Array(items) => {
                    faults.push(json!([]));
                    for at in 0..items.len() {
                        faults.push(with(data, &format!("/{at}"), json!("x")));
                        faults.push(with(data, &format!("/{at}/type"), json!("strangers")));
                        faults.push(without(data, &format!("/{at}/id")));
                    }
                }
                Value::Object(members) => {
                    for (member, value) in members {
                        faults.push(with(data, &format!("/{member}"), of_another_type(value)));
                    }
                }
                _ => panic!("{name}: {file}"),
            }
            for fault in &faults {
                assert!(catalogue.check(&content(&sample, fault)).is_err(), "{file}: {fault}");
            }
            count += faults.len();
            sampled.insert(event_type.to_owned());
        }
        let types: BTreeSet<_> = catalogue.iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(sampled, types, "{name}");
        println!("{name} samples: {count} single faults are refused");
    }
}

#[test]
fn there_are_49_documented_types_and_8_inferred_ones_each_with_a_sample() {
    let catalogue = parse(schemas::file("mypreferences/catalogue.json"));
    let types = catalogue["types"].as_array().unwrap();
    let inferred = types.iter().filter(|it| it["inferred"] == true).count();
    assert_eq!((types.len() - inferred, inferred), (49, 8));
    let names: BTreeSet<&str> = types.iter().map(|it| it["type"].as_str().unwrap()).collect();
    let samples: BTreeSet<&str> =
        schemas::folder("mypreferences/samples").map(|(name, _)| name).collect();
    assert_eq!(samples, names);
}

#[test]
fn requests_know_the_types_of_the_catalogue() {
    let catalogue = parse(schemas::file("mypreferences/catalogue.json"));
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for it in catalogue["types"].as_array().unwrap() {
        let text = |name: &str| it[name].as_str().unwrap().to_owned();
        known.entry(text("entity")).or_default().insert(text("type"));
    }
    for (alias, of) in catalogue["aliases"].as_object().unwrap() {
        let entity = known.values_mut().find(|types| types.contains(of.as_str().unwrap()));
        entity.unwrap().insert(alias.clone());
    }
    for name in ["create", "replace"] {
        let schema = parse(schemas::file(&format!("mypreferences/{name}.json")));
        let mut allowed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for rule in schema["$defs"]["Subscription"]["allOf"].as_array().unwrap() {
            let entity = rule["if"]["properties"]["Entity"]["const"].as_str().unwrap();
            let types = rule["then"]["properties"]["EventType"]["enum"].as_array().unwrap();
            let types = types.iter().map(|it| it.as_str().unwrap().to_owned());
            allowed.insert(entity.to_owned(), types.collect());
        }
        assert_eq!(allowed, known, "{name}");
    }
}

#[test]
fn our_own_subscriptions_are_checked_member_by_member() {
    let schema = Schema::ours(schemas::file("cloudevents/create.json"), Endpoints::Strict);
    let whole = json!({
        "name": "orders",
        "url": "https://example.com/orders",
        "filters": [{"type": "order.*", "attributes": {"region": ["eu"]}}],
        "steps": [{"plugin": "filter", "config": {"when": {"at": "/a", "exists": true}}}],
        "state": "active",
        "catch_up": true,
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    });
    assert_eq!(schema.violations(&whole), []);
    let mut all = Vec::new();
    pointers(&whole, "", &mut all);
    for pointer in all.iter().filter(|it| !it.starts_with("/steps/0/config/")) {
        let value = whole.pointer(pointer).unwrap();
        let fault = with(&whole, pointer, of_another_type(value));
        assert_ne!(schema.violations(&fault), [], "{fault}");
    }
}

#[test]
fn a_body_is_a_function_of_the_event_and_the_rendering() {
    let formats = formats();
    for format in formats.iter() {
        let once = bodies(format);
        assert!(!once.is_empty());
        assert_eq!(once, bodies(format));
        let is_json = |body: &Vec<u8>| serde_json::from_slice::<Value>(body).is_ok();
        assert!(format.name() == "copernica" || once.iter().all(is_json));
    }
}

fn bodies(format: &dyn Format) -> Vec<Vec<u8>> {
    let rendering = hookyard_nouns::rendering::Rendering {
        format: format.name().to_owned(),
        encoding: format.encoding(),
        ..Default::default()
    };
    // Our own format takes any event.
    let samples = match format.name() {
        "cloudevents" => "mypreferences/samples".to_owned(),
        name => format!("{name}/samples"),
    };
    let samples = schemas::folder(&samples).map(|(_, sample)| {
        let sample = parse(sample);
        let content = Arc::new(content(&sample, &sample["data"]));
        let event = hookyard_nouns::event::Event {
            id: uuid::Uuid::nil(),
            tenant: hookyard_nouns::event::Tenant::new("acme").unwrap(),
            format: format.name(),
            content: Arc::clone(&content),
            alternate_ids: vec![],
            accepted_at_ms: 0,
            revision: 0,
        };
        let out = hookyard_nouns::rendering::Output::new(1 << 20);
        format.encode(&event, &content, &rendering, out).unwrap().bytes.to_vec()
    });
    samples.collect()
}
