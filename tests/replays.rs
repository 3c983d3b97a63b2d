//! Deliveries that are made again.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Endpoint, PATIENCE, Yard};

fn path(made: &Value, rest: &str) -> String {
    format!("/v1/subscriptions/{}{rest}", made["id"].as_str().unwrap())
}

/// A subscription whose deliveries are dead after one failure.
async fn subscribe(yard: &Yard, endpoint: &Endpoint, more: Value) -> Value {
    let made = yard.subscribe(endpoint, more).await;
    let pace = json!({"retry_after_seconds": []});
    let shown = yard.client.json(Method::PUT, &path(&made, "/pace"), &pace).await.expect(200);
    assert_eq!(shown["pace"], pace);
    made
}

/// Begins a replay, and waits until it has ended.
async fn replay(yard: &Yard, body: &Value) -> Value {
    let made = yard.client.post("/v1/replays", body).await.expect(201);
    let until = Instant::now() + PATIENCE;
    loop {
        let path = format!("/v1/replays/{}", made["id"].as_str().unwrap());
        let it = yard.client.get(&path).await.expect(200);
        if it["state"] == "done" {
            return it;
        }
        assert!(Instant::now() < until, "{it}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dead_is_replayed_as_it_was() {
    let yard = Yard::start().await;
    let (mut endpoint, mut watcher) = (Endpoint::start().await, Endpoint::start().await);
    let made = subscribe(&yard, &endpoint, json!({"filters": [{"type": "t"}]})).await;
    yard.subscribe(&watcher, json!({"filters": [{"type": "hookyard.replay.*"}]})).await;
    endpoint.reply([(500, vec![]), (500, vec![])]);
    let mut bodies = Vec::new();
    for number in 0..3 {
        yard.publish("t", json!(number)).await;
        bodies.push(endpoint.next().await.body);
    }
    let dead = yard.await_deliveries("state=dead", 2).await;

    let body = json!({"subscription": made["id"], "dry_run": true});
    let dry = yard.client.post("/v1/replays", &body).await.expect(200);
    assert_eq!(dry["total"], 2);
    assert_eq!(dry["sample"], json!(dead));
    assert!(endpoint.arrived().is_empty());

    let done = replay(&yard, &json!({"subscription": made["id"]})).await;
    assert_eq!(
        (&done["total"], &done["replayed"], &done["skipped"]),
        (&json!(2), &json!(2), &json!(0))
    );
    let mut again = vec![endpoint.next().await.body, endpoint.next().await.body];
    again.sort();
    assert_eq!(again, bodies[..2]);
    let query = format!("state=delivered&subscription={}", made["id"].as_str().unwrap());
    let delivered = yard.await_deliveries(&query, 3).await;
    assert_eq!(delivered.iter().filter(|it| it["attempts"] == 2).count(), 2, "{delivered:?}");
    let told = watcher.next().await.json();
    assert_eq!(
        (&told["type"], &told["data"]["replay"]),
        (&json!("hookyard.replay.done"), &done["id"])
    );
    let listed = yard.client.get("/v1/replays").await.expect(200);
    assert_eq!(listed["replays"], json!([done]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_replayed_as_it_would_be_now() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    yard.publish("t", json!({"a": 1, "b": 2})).await;
    assert_eq!(endpoint.next().await.json()["data"], json!({"a": 1, "b": 2}));
    let it = yard.await_deliveries("state=delivered", 1).await.remove(0);
    let steps = json!({"steps": [{"plugin": "minimize", "config": {"remove": ["/b"]}}]});
    yard.client.json(Method::PUT, &path(&made, "/steps"), &steps).await.expect(200);
    for (rendering, data) in [("original", json!({"a": 1, "b": 2})), ("present", json!({"a": 1}))] {
        replay(&yard, &json!({"delivery": it["id"], "rendering": rendering})).await;
        let receipt = endpoint.next().await;
        assert_eq!(receipt.json()["data"], data, "{rendering}");
        assert_eq!(receipt.header("webhook-id"), it["id"].as_str().unwrap());
        yard.await_deliveries("state=delivered", 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_outlives_a_restart_and_ends_when_it_is_told_to() {
    let mut yard = Yard::start().await;
    let endpoint = Endpoint::start().await;
    let made = subscribe(&yard, &endpoint, json!({})).await;
    endpoint.reply((0..5).map(|_| (500, vec![])));
    for number in 0..5 {
        yard.publish("t", json!(number)).await;
    }
    yard.await_deliveries("state=dead", 5).await;
    let body = json!({"subscription": made["id"], "per_minute": 1});
    let begun = yard.client.post("/v1/replays", &body).await.expect(201);
    yard.await_deliveries("state=delivered", 1).await;
    yard.restart().await;
    let path = format!("/v1/replays/{}", begun["id"].as_str().unwrap());
    let shown = yard.client.get(&path).await.expect(200);
    assert_eq!(shown["state"], "running", "{shown}");
    let cancelled = yard.client.post(&format!("{path}/cancel"), &json!({})).await.expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    assert!(cancelled["replayed"].as_u64().unwrap() < 5, "{cancelled}");
    assert!(!yard.deliveries("state=dead").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replayed_is_said() {
    let yard = Yard::start().await;
    let body = json!({
        "delivery": "x", "states": ["pending"], "from": "yesterday", "rendering": "other",
        "per_minute": 0,
    });
    let refused = yard.client.post("/v1/replays", &body).await;
    assert_eq!(refused.status, 400);
    let fields = ["/delivery", "/from", "/per_minute", "/rendering", "/states/0"];
    assert_eq!(refused.fields(), fields);
    for (method, path) in [
        (Method::GET, "/v1/replays/01a201b9-b520-761b-a8d1-5830a6317869"),
        (Method::POST, "/v1/replays/01a201b9-b520-761b-a8d1-5830a6317869/cancel"),
    ] {
        assert_eq!(yard.client.call(method, path, &[], "").await.status, 404, "{path}");
    }
}
