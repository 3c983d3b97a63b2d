//! What plugins would do: tried on events, compared with the present pipeline, and made again elsewhere.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::plugins::plugin;
use crate::harness::process::{binary, command};
use crate::harness::{Endpoint, Yard};

const FILTER: &str = "/v1/plugins/filter/try";

fn order(amount: u64) -> Value {
    json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid",
           "data": {"amount": amount, "id": 9_007_199_254_740_993_u64, "mail": "a@example.com"}})
}

fn at_least(amount: u64) -> Value {
    json!({"when": {"at": "/amount", "gte": amount}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_tried_on_an_event_that_nobody_publishes() {
    let yard = Yard::start().await;
    let tried = async |path: &str, body: Value| yard.client.post(path, &body).await;
    let passed = tried(FILTER, json!({"event": order(100), "config": at_least(100)})).await;
    let passed = passed.expect(200);
    assert_eq!(passed["verdict"], "pass");
    assert_eq!(passed["before"], order(100));
    assert!(passed["fuel"].as_u64().unwrap() > 0);
    assert!(passed["memory_bytes"].as_u64().unwrap() >= 65_536);
    assert_eq!(passed["budget"]["filter_ms"], 5);
    // The same cost each time, whatever the machine is doing.
    let again = tried(FILTER, json!({"event": order(100), "config": at_least(100)})).await;
    assert_eq!(again.expect(200)["fuel"], passed["fuel"]);

    let dropped = tried(FILTER, json!({"event": order(99), "config": at_least(100)})).await;
    let dropped = dropped.expect(200);
    assert_eq!(dropped["verdict"], "drop");
    assert_eq!(dropped["reason"]["code"], "condition-not-met");

    let body = json!({"event": order(1), "config": {"fields": ["mail"]}});
    let changed = tried("/v1/plugins/redact/try", body).await.expect(200);
    assert_eq!(changed["verdict"], "replace");
    assert_eq!(changed["event"]["data"]["mail"], "***");
    assert_eq!(changed["event"]["data"]["id"], 9_007_199_254_740_993_u64);
    assert_eq!(changed["diff"], json!([[{"op": "replace", "path": "/data/mail", "value": "***"}]]));

    let sample = json!({"format": "kajabi", "type": "order_created"});
    let body = json!({"sample": sample, "config": {"remove": ["/nothing"]}});
    let sampled = tried("/v1/plugins/minimize/try", body).await.expect(200);
    assert_eq!(sampled["before"]["type"], "order_created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_tried_on_an_event_that_was() {
    let yard = Yard::start().await;
    let id = yard.publish("order.paid", json!({"amount": 7})).await;
    let body = json!({"event_id": id, "config": at_least(7)});
    let tried = yard.client.post(FILTER, &body).await.expect(200);
    assert_eq!(tried["verdict"], "pass");
    assert_eq!(tried["before"]["data"]["amount"], 7);
    // Another tenant's event is none.
    let stranger = yard.token(Some("other"), "admin").await;
    let stranger = yard.client.with_token(Some(&stranger));
    assert_eq!(stranger.post(FILTER, &body).await.status, 404);
    let reader = yard.token(Some("acme"), "plugins:read").await;
    assert_eq!(yard.client.with_token(Some(&reader)).post(FILTER, &body).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_tried_is_told_by_its_place() {
    let yard = Yard::start().await;
    let cases = [
        (json!({}), "", "one of `event`, `event_id` and `sample`"),
        (json!({"event": order(1), "event_id": uuid::Uuid::nil()}), "", "one of `event`"),
        (json!({"event": {"id": "1"}, "config": at_least(1)}), "/event/source", ""),
        (json!({"event": order(1), "config": {"when": 7}}), "/config/when", ""),
        (json!({"event": order(1), "confg": {}}), "/confg", ""),
    ];
    for (body, field, words) in cases {
        let answer = yard.client.post(FILTER, &body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        let errors = answer.body["errors"].as_array().unwrap();
        let found = errors
            .iter()
            .any(|it| it["field"] == field && it["detail"].as_str().unwrap().contains(words));
        assert!(found, "{body}: {}", answer.text);
    }
    let nowhere = json!({"event": order(1)});
    assert_eq!(yard.client.post("/v1/plugins/nothing/try", &nowhere).await.status, 404);
}

/// The lines of a comparison.
async fn compare(yard: &Yard, subscription: &Value, body: Value) -> Vec<Value> {
    let path = format!("/v1/subscriptions/{}/compare", subscription["id"].as_str().unwrap());
    let answer = yard.client.post(&path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposed_pipeline_is_compared_with_the_present_one() {
    let yard = Yard::start().await;
    yard.upload("misbehave", plugin("misbehave")).await;
    let mut endpoint = Endpoint::start().await;
    let steps = json!([{"plugin": "filter", "config": at_least(10)}]);
    let more = json!({"filters": [{"type": "order.*"}], "steps": steps});
    let made = yard.subscribe(&endpoint, more).await;
    for amount in [5, 10, 20] {
        yard.publish("order.paid", json!({"amount": amount, "mail": "a@example.com"})).await;
    }
    yard.publish("other", json!({"amount": 30})).await;
    endpoint.next().await;
    endpoint.next().await;
    yard.await_deliveries("state=filtered", 1).await;

    let proposed = json!([
        {"plugin": "filter", "config": {"when": {"at": "/amount", "lt": 20}}},
        {"plugin": "minimize", "config": {"remove": ["/mail"]}},
    ]);
    let lines = compare(&yard, &made, json!({"steps": proposed})).await;
    // The newest first: 20, 10 and 5.
    let changes: Vec<_> = lines.iter().map(|it| it["change"].as_str()).collect();
    let expected = [Some("now-dropped"), Some("changed"), Some("now-delivered"), None];
    assert_eq!(changes, expected, "{lines:?}");
    assert_eq!(lines[1]["diff"], json!([[{"op": "remove", "path": "/data/mail"}]]));
    assert!(lines[1]["proposed"]["fuel"].as_u64().unwrap() > 0);
    let totals = json!({"events": 3, "same": 0, "changed": 1, "now_dropped": 1, "now_delivered": 1,
                        "fails": 0});
    assert_eq!(lines[3]["totals"], totals);

    let fails = json!([{"plugin": "misbehave", "config": {"do": "panic", "with": "x"}}]);
    let lines = compare(&yard, &made, json!({"steps": fails, "events": 1})).await;
    assert_eq!(lines[0]["change"], "fails");
    assert_eq!(lines[0]["reason"]["code"], "plugin-trap");
    let lines = compare(&yard, &made, json!({"steps": steps})).await;
    assert_eq!(lines.last().unwrap()["totals"]["same"], 3);
    // Nothing of it was delivered, or counted.
    assert_eq!(yard.deliveries("").await.len(), 3);
    assert_eq!(endpoint.arrived().len(), 0);

    let wrong = json!({"steps": [{"plugin": "filter", "config": {}}]});
    let path = format!("/v1/subscriptions/{}/compare", made["id"].as_str().unwrap());
    let answer = yard.client.post(&path, &wrong).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body["errors"][0]["field"], "/steps/0/config/when");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_sees_what_is_published_and_delivers_nothing() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let path = format!("/v1/subscriptions/{}/shadow", made["id"].as_str().unwrap());
    assert_eq!(yard.client.get(&path).await.status, 404);
    let steps = json!([{"plugin": "filter", "config": at_least(10)}]);
    let body = json!({"steps": steps, "percent": 100, "minutes": 5});
    yard.client.post(&path, &body).await.expect(201);
    for amount in [5, 10] {
        yard.publish("order.paid", json!({"amount": amount})).await;
        endpoint.next().await;
    }
    yard.await_deliveries("state=delivered", 2).await;
    let report = yard.client.get(&path).await.expect(200);
    assert_eq!(report["totals"]["events"], 2, "{report}");
    assert_eq!(report["totals"]["same"], 1);
    assert_eq!(report["totals"]["now_dropped"], 1);
    assert_eq!(report["examples"][0]["reason"]["code"], "condition-not-met");
    yard.client.call(Method::DELETE, &path, &[], String::new()).await.expect(204);
    yard.publish("order.paid", json!({"amount": 5})).await;
    endpoint.next().await;
    assert_eq!(yard.client.get(&path).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_made_again_bit_for_bit_in_another_process() {
    let yard = Yard::start().await;
    yard.upload("misbehave", plugin("misbehave")).await;
    let mut endpoint = Endpoint::start().await;
    yard.identify("7", &json!({"Loyalty": "L-7"})).await;
    let steps = json!([
        {"plugin": "alternate-id", "config": {"kind": "Loyalty", "put": "/loyalty"}},
        {"plugin": "redact", "config": {"fields": ["mail"], "with": "hash", "salt": "s"}},
        {"plugin": "misbehave", "config": {"do": "split", "with": "2"}},
    ]);
    yard.subscribe(&endpoint, json!({"steps": steps})).await;
    let mut order = order(1);
    order["subject"] = "7".into();
    yard.client.publish(&order).await.expect(202);
    endpoint.next().await;
    endpoint.next().await;
    let deliveries = yard.await_deliveries("state=delivered", 2).await;
    for delivery in deliveries {
        let id = delivery["id"].as_str().unwrap();
        let path = format!("/v1/deliveries/{id}/reproduce");
        let whole = yard.client.post(&path, &json!({})).await.expect(200);
        assert_eq!(whole["alternate_ids"], json!([["Loyalty", "L-7"]]));
        assert_eq!(whole["plugins"][2]["name"], "misbehave");

        let (url, token) = (yard.client.url(""), yard.client.token().unwrap().to_owned());
        let id = id.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            let mut replay = command(binary());
            // Another time zone, another language, another layout of the stack.
            replay.env("TZ", "Pacific/Apia").env("LANG", "tr_TR.UTF-8");
            replay.env("PADDING", "x".repeat(10_000));
            replay.args(["plugin", "replay", "--url", &url, "--token", &token, &id]);
            replay.output().unwrap()
        });
        let output = output.await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("bit for bit what was sent"), "{text}");
        assert!(text.contains(delivery["body_digest"].as_str().unwrap()), "{text}");
    }
}
