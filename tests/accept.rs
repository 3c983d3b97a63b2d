//! Publishing: what is taken, what is not, and how it is said.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::yard::event;
use crate::harness::{Endpoint, Yard, root};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

fn cases() -> Value {
    let file = root().join("tests/cloudevents/events.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// The least event, changed as a case says.
fn changed(cases: &Value, case: &Value) -> Value {
    let mut event = cases["least"].clone();
    event["id"] = case["case"].clone();
    for (name, value) in case["with"].as_object().into_iter().flatten() {
        event[name] = value.clone();
    }
    if let Some(name) = case["without"].as_str() {
        event.as_object_mut().unwrap().remove(name);
    }
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn every_valid_event_of_the_conformance_suite_is_delivered() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    let cases = cases();
    for case in cases["valid"].as_array().unwrap() {
        let event = changed(&cases, case);
        yard.client.publish(&event).await.expect(202);
        let receipt = endpoint.next().await;
        assert_eq!(receipt.header("content-type"), STRUCTURED);
        let mut expected = event;
        expected.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        assert_eq!(receipt.json(), expected, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_invalid_event_of_the_conformance_suite_is_refused_by_field() {
    let yard = Yard::start().await;
    let cases = cases();
    let invalid = cases["invalid"].as_array().unwrap();
    for case in invalid {
        let answer = yard.client.publish(&changed(&cases, case)).await;
        assert_eq!(answer.status, 400, "{case}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(json!(answer.fields()), case["fields"], "{case}");
    }
    // And the same in one batch, in which one event is good.
    let mut batch: Vec<Value> = invalid.iter().map(|case| changed(&cases, case)).collect();
    batch.insert(7, cases["least"].clone());
    batch.insert(9, json!("not an object"));
    let headers = [("content-type", BATCH)];
    let answer = yard.client.call(Method::POST, "/v1/events", &headers, json!(batch).to_string());
    let answer = answer.await.expect(202);
    assert_eq!(answer["accepted"][0]["index"], 7);
    assert_eq!(answer["accepted"].as_array().unwrap().len(), 1);
    let rejected = answer["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), invalid.len() + 1);
    assert_eq!(rejected[8]["index"], 9);
    assert_eq!(rejected[0]["problem"]["errors"][0]["field"], "specversion");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_modes_bring_the_same_event() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    let event = json!({
        "specversion": "1.0",
        "id": "1234-1234-1234",
        "source": "/mycontext/subcontext",
        "type": "com.example.someevent",
        "time": "2018-04-05T03:56:24Z",
        "subject": "Euro € 😀",
        "datacontenttype": "application/json; charset=utf-8",
        "data": {"message": "Hello World!"},
    });
    for mode in ["structured", "binary", "batch"] {
        let mut event = event.clone();
        event["id"] = mode.into();
        let binary = [
            ("content-type", "application/json; charset=utf-8"),
            ("ce-specversion", "1.0"),
            ("ce-id", mode),
            ("ce-source", "/mycontext/subcontext"),
            ("ce-type", "com.example.someevent"),
            ("ce-time", "2018-04-05T03:56:24Z"),
            ("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ];
        let (headers, body) = match mode {
            "structured" => (
                &[("content-type", "application/cloudevents+json; charset=utf-8")][..],
                event.clone(),
            ),
            "batch" => (&[("content-type", BATCH)][..], json!([event])),
            _ => (&binary[..], event["data"].clone()),
        };
        yard.client.call(Method::POST, "/v1/events", headers, body.to_string()).await.expect(202);
        assert_eq!(endpoint.next().await.json(), event, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn untouched_data_arrive_byte_for_byte() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    let data = r#"{ "id" : 9007199254740993, "price":1.10, "e":1E2 ,"s":"é\/" }"#;
    let body =
        format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","data": {data} }}"#);
    let headers = [("content-type", STRUCTURED)];
    yard.client.call(Method::POST, "/v1/events", &headers, body).await.expect(202);
    let receipt = endpoint.next().await;
    let text = std::str::from_utf8(&receipt.body).unwrap();
    assert!(text.ends_with(&format!(r#","data":{data}}}"#)), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_bytes_are_delivered_as_such() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    let binary = |id: &'static str, media_type: &'static str| {
        [
            ("content-type", media_type),
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/s"),
            ("ce-type", "t"),
        ]
    };
    let publish = async |headers: &[(&str, &str)], body: Vec<u8>| {
        yard.client.call(Method::POST, "/v1/events", headers, body).await.expect(202);
    };
    publish(&binary("1", "text/plain"), "héllo".into()).await;
    assert_eq!(endpoint.next().await.json()["data"], "héllo");
    publish(&binary("2", "application/octet-stream"), vec![0, 255, 7]).await;
    assert_eq!(endpoint.next().await.json()["data_base64"], "AP8H");
    publish(&binary("3", "application/json"), vec![]).await;
    let nothing = endpoint.next().await.json();
    assert!(nothing.get("data").is_none() && nothing.get("data_base64").is_none());
    let structured = json!({
        "specversion": "1.0", "id": "4", "source": "/s", "type": "t",
        "datacontenttype": "application/json", "data_base64": "eyJhIjoxfQ==",
    });
    yard.client.publish(&structured).await.expect(202);
    assert_eq!(endpoint.next().await.json()["data"], json!({"a": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_taken_once() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    let first = event("t", json!(1));
    let new = yard.client.publish(&first).await.expect(202);
    let again = yard.client.publish(&first).await.expect(202);
    assert_eq!((&new["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(new["id"], again["id"]);

    let mut other_source = first.clone();
    other_source["source"] = "/elsewhere".into();
    assert_eq!(yard.client.publish(&other_source).await.expect(202)["duplicate"], false);
    endpoint.next().await;
    endpoint.next().await;
    yard.await_deliveries("state=delivered", 2).await;
    assert!(endpoint.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_refused_in_words() {
    let yard = Yard::start().await;
    let publish = async |media_type: &str, body: String| {
        let headers = [("content-type", media_type)];
        yard.client.call(Method::POST, "/v1/events", &headers, body).await
    };
    let check = async |media_type: &str, body: &str, status: u16, code: &str, words: &str| {
        let answer = publish(media_type, body.to_owned()).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{body}");
        assert!(answer.text.contains(words), "{}", answer.text);
    };
    check(STRUCTURED, "{", 400, "malformed", "line 1 column 1").await;
    check(STRUCTURED, "[]", 400, "malformed", "must be a JSON object").await;
    check(STRUCTURED, r#"{"id":"1","id":"2"}"#, 400, "malformed", "duplicate member `id`").await;
    check(BATCH, "{}", 400, "malformed", "not a JSON array").await;
    check("application/json", "{}", 415, "wrong-media-type", "application/cloudevents+json").await;
    check("text/plain", "hello", 415, "wrong-media-type", "ce-").await;

    let mut bad = event("t", json!(1));
    bad["format"] = "fax".into();
    let answer = yard.client.publish(&bad).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["format"]));
    assert!(answer.text.contains("`mypreferences`"), "{}", answer.text);
    bad["format"] = "mypreferences".into();
    let answer = yard.client.publish(&bad).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["type"]));
    let mut bad = event("t", json!(1));
    bad["tenant"] = "elsewhere".into();
    let answer = yard.client.publish(&bad).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["tenant"]));
    let mut bad = event("t", json!(1));
    bad["alternateids"] = "L-7".into();
    let answer = yard.client.publish(&bad).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["alternateids"]));

    assert_eq!(yard.client.get("/v1/events").await.status, 405);
    assert_eq!(yard.client.get("/v1/nothing").await.expect(404)["code"], "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_do_not_fit_the_catalogue_are_refused_by_pointer() {
    let yard = Yard::start().await;
    let sample = root().join("schemas/mypreferences/samples/contacts.email.updated.json");
    let sample: Value = serde_json::from_str(&std::fs::read_to_string(sample).unwrap()).unwrap();
    yard.client.publish(&sample).await.expect(202);
    let mut bad = sample.clone();
    bad["data"]["Data"][0]["EmailAddress"] = 7.into();
    bad["data"]["More"] = 1.into();
    let answer = yard.client.publish(&bad).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.fields(), ["/data/Data/0/EmailAddress", "/data/More"]);
    let mut bad = sample.clone();
    bad.as_object_mut().unwrap().remove("contacttype");
    let answer = yard.client.publish(&bad).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["contacttype"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_batches_have_a_maximum() {
    let yard = Yard::start().await;
    let publish = async |media_type: &str, body: reqwest::Body| {
        let headers = [("content-type", media_type)];
        yard.client.call(Method::POST, "/v1/events", &headers, body).await
    };
    let room = (1 << 20) - event("t", json!("")).to_string().len();
    let largest = event("t", json!("x".repeat(room)));
    publish(STRUCTURED, largest.to_string().into()).await.expect(202);
    let larger = event("t", json!("x".repeat(room + 1))).to_string();
    assert_eq!(publish(STRUCTURED, larger.into()).await.expect(413)["code"], "too-large");

    let batch = |count| json!((0..count).map(|it| event("t", json!(it))).collect::<Vec<_>>());
    let answer = publish(BATCH, batch(1_000).to_string().into()).await.expect(202);
    assert_eq!(answer["accepted"].as_array().unwrap().len(), 1_000);
    let answer = publish(BATCH, batch(1_001).to_string().into()).await.expect(413);
    assert_eq!(answer["code"], "too-many-events");
    publish(BATCH, "[]".into()).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn alternate_ids_are_those_of_the_time_of_acceptance() {
    let yard = Yard::start().await;
    yard.identify("1024", &json!({"Loyalty": "L-1", "Card": "C-1"})).await;
    let mut about = event("t", json!({}));
    about["subject"] = "1024".into();
    about["alternateids"] = r#"{"Card":"C-of-the-event"}"#.into();
    let id = yard.client.publish(&about).await.expect(202)["id"].clone();
    yard.identify("1024", &json!({"Loyalty": "L-2"})).await;
    let read = yard.client.get(&format!("/v1/events/{}", id.as_str().unwrap())).await.expect(200);
    assert_eq!(read["alternate_ids"], json!({"Card": "C-of-the-event", "Loyalty": "L-1"}));
    // What is for the router alone does not leave it.
    assert!(read["attributes"].get("extensions").is_none(), "{read}");
    let ids = yard.client.get("/v1/identities/1024").await.expect(200);
    assert_eq!(ids["alternate_ids"], json!({"Loyalty": "L-2"}));
    for wrong in [json!([]), json!({"a": 1}), json!({"": "x"}), json!({"a": "x".repeat(300)})] {
        let answer = yard.client.json(Method::PUT, "/v1/identities/1024", &wrong).await;
        assert_eq!(answer.status, 400, "{wrong}");
    }
}
