//! Bodies that would be very large: their delivery fails and names the bound, and nothing else does.

use hookyard::schemas;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::yard::event;
use crate::harness::{Endpoint, Yard};

/// Waits until a subscription's only delivery has failed, and that by this bound.
async fn check_failed(yard: &Yard, subscription: &Value, bound: &str) {
    let query = format!("state=failed&subscription={}", subscription["id"].as_str().unwrap());
    let delivery = yard.await_deliveries(&query, 1).await.remove(0);
    let detail = format!("{bound}`delivery-bytes-max`)");
    assert_eq!(delivery["reason"], json!({"code": "output-too-large", "detail": detail}));
    assert_eq!(delivery["attempts"], 0);
}

fn sample(path: &str) -> Value {
    let mut event: Value = serde_json::from_str(schemas::file(path)).unwrap();
    event["id"] = uuid::Uuid::now_v7().to_string().into();
    event
}

/// A form repeats the name of a list for each of its items: what a plugin answers in 60 KB becomes hundreds of
/// megabytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_explodes_fails_and_its_neighbour_arrives() {
    let yard = Yard::start().await;
    let (exploding, mut healthy) = (Endpoint::start().await, Endpoint::start().await);
    yard.subscribe(&healthy, json!({})).await;
    let body = json!({"handler": exploding.url("/"), "trigger": "create"});
    yard.client.post("/copernica/v4/webhooks", &body).await.expect(201);
    let all = yard.client.get("/v1/subscriptions").await.expect(200);
    let all = all["subscriptions"].as_array().unwrap();
    let form = all.iter().find(|it| it["format"] == "copernica").unwrap();
    let script = "function transform(event, config) {
        return replace({edits: {'/fields': {['n'.repeat(30000)]: Array(10000).fill(1)}}});
    }";
    let steps = json!({"steps": [{"plugin": "javascript", "config": {"script": script}}]});
    let path = format!("/v1/subscriptions/{}/steps", form["id"].as_str().unwrap());
    yard.client.json(Method::PUT, &path, &steps).await.expect(200);

    let event = sample("copernica/samples/create.json");
    yard.client.publish(&event).await.expect(202);
    assert_eq!(healthy.next().await.json()["id"], event["id"]);
    check_failed(&yard, form, "the body would have more than 4194304 bytes (").await;
}

/// A text of control characters becomes six times as long in JSON.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_grows_when_it_is_written_fails() {
    let yard = Yard::start_with(|it| it.delivery_bytes_max = Some(64 << 10)).await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let publish = async |id: &str, count: usize| {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/tests"),
            ("ce-type", "t"),
            ("content-type", "text/plain"),
        ];
        let body = vec![1; count];
        yard.client.call(Method::POST, "/v1/events", &headers, body).await.expect(202);
    };
    publish("small", 10 << 10).await;
    publish("large", 11 << 10).await;
    assert_eq!(endpoint.next().await.json()["id"], "small");
    check_failed(&yard, &made, "the body would have more than 65536 bytes (").await;
}

/// Each part of a split fits, and all of them together do not.
#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_split_are_bounded_together() {
    let yard = Yard::start_with(|it| it.delivery_bytes_max = Some(16 << 10)).await;
    let mut endpoint = Endpoint::start().await;
    let steps = json!([{"plugin": "split", "config": {"at": "/lines"}}]);
    let made = yard.subscribe(&endpoint, json!({"steps": steps})).await;
    let lines = |count: usize| json!({"lines": vec!["x".repeat(2_000); count]});
    yard.client.publish(&event("t", lines(40))).await.expect(202);
    let bound = "the bodies of all parts together would have more than 65536 bytes (4 × ";
    check_failed(&yard, &made, bound).await;
    yard.client.publish(&event("t", lines(20))).await.expect(202);
    for _ in 0..20 {
        endpoint.next().await;
    }
}
