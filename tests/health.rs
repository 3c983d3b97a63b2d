//! How plugins do: their logs, what their runs take, and what happens when one of them fails and fails.

use serde_json::{Value, json};

use crate::harness::plugins::{filter_module, plugin};
use crate::harness::{Endpoint, Yard};

/// A filter that accepts events whose id is not `x…`, and traps on the others, as its first version; and
/// one that takes them all, as its second.
fn brittle(mark: &str, traps: bool) -> Vec<u8> {
    let filter = if traps { "unreachable" } else { "(i32.const 1024)" };
    filter_module(filter, &format!(r#"(data (i32.const 60000) "{mark}")"#))
}

fn path(subscription: &Value) -> String {
    format!("/v1/subscriptions/{}", subscription["id"].as_str().unwrap())
}

/// Publishes as many events as the breaker takes failures.
async fn fail_five_times(yard: &Yard) -> Vec<Value> {
    for number in 0..5 {
        yard.publish("t", json!(number)).await;
    }
    yard.await_deliveries("state=failed", 5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_writes_is_shown_by_plugin_and_by_delivery() {
    let yard = Yard::start().await;
    yard.upload("misbehave", plugin("misbehave")).await;
    let mut endpoint = Endpoint::start().await;
    let steps = json!([{"plugin": "misbehave", "config": {"do": "chatter", "with": ""}}]);
    yard.subscribe(&endpoint, json!({"steps": steps})).await;
    let event = yard.publish("t", json!({})).await;
    endpoint.next().await;
    let delivered = yard.await_deliveries("state=delivered", 1).await;
    let delivery = yard.delivery(&delivered[0]["id"]).await;
    let lines = delivery["log"].as_array().unwrap();
    // A run may write 20 lines of 4 KiB together.
    assert!((1..=20).contains(&lines.len()), "{lines:?}");
    assert_eq!(lines[0]["event"], *event);

    let logs = "/v1/plugins/misbehave/logs";
    let all = yard.client.get(logs).await.expect(200);
    assert_eq!(all["lines"].as_array().unwrap().len(), lines.len());
    let newest = all["lines"][0]["seq"].as_str().unwrap();
    let after = yard.client.get(&format!("{logs}?after={newest}")).await.expect(200);
    assert_eq!(after["lines"], json!([]));
    let level = lines[0]["level"].as_str().unwrap();
    let some = yard.client.get(&format!("{logs}?level={level}&limit=1")).await.expect(200);
    assert_eq!(some["lines"].as_array().unwrap().len(), 1);
    assert_eq!(yard.client.get(&format!("{logs}?level=loud")).await.status, 400);

    // However often it runs, a plugin fills no more than its share.
    for _ in 0..15 {
        yard.publish("t", json!({})).await;
        endpoint.next().await;
    }
    yard.await_deliveries("state=delivered", 16).await;
    let all = yard.client.get(&format!("{logs}?limit=500")).await.expect(200);
    assert!(all["lines"].as_array().unwrap().len() <= 240, "two minutes at the most");

    let stranger = yard.token(Some("other"), "admin").await;
    let stranger = yard.client.with_token(Some(&stranger));
    assert_eq!(stranger.get(logs).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_take_is_counted_by_plugin_and_subscription() {
    let yard = Yard::start().await;
    yard.upload("misbehave", plugin("misbehave")).await;
    let mut endpoint = Endpoint::start().await;
    let steps =
        |what: &str| json!([{"plugin": "misbehave", "config": {"do": what, "with": "123"}}]);
    let text = yard.subscribe(&endpoint, json!({"steps": steps("text"), "name": "text"})).await;
    let eats = yard.subscribe(&endpoint, json!({"steps": steps("panic"), "name": "eats"})).await;
    for _ in 0..3 {
        yard.publish("t", json!({"a": 1})).await;
        endpoint.next().await;
    }
    yard.await_deliveries("state=failed", 3).await;
    let usage = yard.client.get("/v1/plugins/misbehave/usage").await.expect(200);
    assert_eq!(usage["budget"]["transform_ms"], 20);
    let of = |subscription: &Value| {
        let all = usage["usage"].as_array().unwrap();
        all.iter().find(|it| it["subscription"] == subscription["id"]).unwrap().clone()
    };
    let (text, eats) = (of(&text), of(&eats));
    assert_eq!(text["runs"], 3);
    assert_eq!(text["faults"], json!({}));
    assert_eq!(text["output_bytes"]["p50"], 3);
    assert!(text["time_us"]["p99"].as_u64() >= text["time_us"]["p50"].as_u64());
    assert!(text["memory_bytes"]["max"].as_u64().unwrap() >= 65_536, "{text}");
    assert_eq!(eats["faults"], json!({"plugin-trap": 3}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_and_fails_has_its_deliveries_held_and_sent_when_it_is_mended() {
    let yard = Yard::start_with(|it| it.plugin_probe_ms = Some(100)).await;
    let mut endpoint = Endpoint::start().await;
    let mut watcher = Endpoint::start().await;
    yard.subscribe(&watcher, json!({"filters": [{"type": "hookyard.*"}]})).await;
    yard.upload("gate", brittle("1", true)).await;
    let made = yard.subscribe(&endpoint, json!({"steps": [{"plugin": "gate"}]})).await;
    // Five in a row are too many. What comes after them waits, and is not sent unfiltered.
    let failed = fail_five_times(&yard).await;
    for number in 5..8 {
        yard.publish("t", json!(number)).await;
    }
    assert!(failed.iter().all(|it| it["reason"]["code"] == "plugin-trap"));
    let found = yard.deliveries("reason=plugin-trap").await;
    assert_eq!(found.len(), 5);
    let held = yard.await_deliveries("state=held", 3).await;
    assert!(held.iter().all(|it| it["reason"]["code"] == "plugin-quarantined"), "{held:?}");
    assert_eq!(yard.deliveries("reason=plugin-quarantined").await, held);
    let told = watcher.next().await.json();
    assert_eq!(told["type"], "hookyard.plugin.quarantined");
    assert_eq!(told["data"]["subscription"], made["id"]);
    let shown = yard.client.get(&path(&made)).await.expect(200);
    assert_eq!(shown["quarantine"]["reason"]["code"], "plugin-trap");
    // It is tried again, in vain.
    let probed = async || {
        let shown = yard.client.get(&path(&made)).await.expect(200);
        shown["quarantine"]["probes"].as_u64().unwrap()
    };
    while probed().await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(endpoint.arrived().len(), 0);

    yard.upload("gate", brittle("2", false)).await;
    let told = watcher.next().await.json();
    assert_eq!(told["type"], "hookyard.plugin.recovered");
    let mut numbers = Vec::new();
    for _ in 0..3 {
        numbers.push(endpoint.next().await.json()["data"].as_u64().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [5, 6, 7]);
    yard.await_deliveries("state=delivered&limit=10", 5).await;
    assert_eq!(yard.client.get(&path(&made)).await.expect(200)["quarantine"], Value::Null);
    yard.publish("t", json!(8)).await;
    assert_eq!(endpoint.next().await.json()["data"], 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_outlasts_a_restart() {
    let mut yard = Yard::start_with(|it| it.plugin_probe_ms = Some(3_600_000)).await;
    let mut endpoint = Endpoint::start().await;
    yard.upload("gate", brittle("1", true)).await;
    let made = yard.subscribe(&endpoint, json!({"steps": [{"plugin": "gate"}]})).await;
    fail_five_times(&yard).await;
    yard.publish("t", json!(5)).await;
    yard.await_deliveries("state=held", 1).await;
    yard.restart().await;
    let shown = yard.client.get(&path(&made)).await.expect(200);
    assert_eq!(shown["quarantine"]["reason"]["code"], "plugin-trap");
    yard.publish("t", json!(6)).await;
    yard.await_deliveries("state=held", 2).await;
    // Whoever has mended it says so, and does not wait for the next trial.
    yard.upload("gate", brittle("2", false)).await;
    yard.client.post(&format!("{}/resume", path(&made)), &json!({})).await.expect(200);
    endpoint.next().await;
    endpoint.next().await;
    yard.await_deliveries("state=delivered", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_makes_way_for_the_one_before_it_where_that_is_allowed() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let first = yard.upload("gate", brittle("1", false)).await["digest"].clone();
    let allowed = "/v1/plugins/gate/automatic-rollback";
    let body = json!({"allowed": true}).to_string();
    let json_type = [("content-type", "application/json")];
    yard.client.call(reqwest::Method::PUT, allowed, &json_type, body).await.expect(200);
    let mut watcher = Endpoint::start().await;
    yard.subscribe(&watcher, json!({"filters": [{"type": "hookyard.plugin.rolledback"}]})).await;
    yard.subscribe(&endpoint, json!({"steps": [{"plugin": "gate"}]})).await;
    let second = yard.upload("gate", brittle("2", true)).await["digest"].clone();
    fail_five_times(&yard).await;
    for number in 5..7 {
        yard.publish("t", json!(number)).await;
    }
    // Whether they came before or after the old version was put back.
    let mut numbers = [endpoint.next().await.json()["data"].clone(), Value::Null];
    numbers[1] = endpoint.next().await.json()["data"].clone();
    numbers.sort_by_key(Value::as_u64);
    assert_eq!(numbers, [json!(5), json!(6)]);
    let current = yard.client.get("/v1/plugins/gate").await.expect(200);
    assert_eq!(current["digest"], first);
    let told = watcher.next().await.json();
    assert_eq!(told["data"], json!({"plugin": "gate", "from": second, "to": first}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_held_is_split_when_it_is_rendered_at_last() {
    let yard = Yard::start_with(|it| it.plugin_probe_ms = Some(3_600_000)).await;
    let mut endpoint = Endpoint::start().await;
    yard.upload("misbehave", plugin("misbehave")).await;
    let step = |what: &str| json!([{"plugin": "misbehave", "config": {"do": what, "with": "3"}}]);
    let made = yard.subscribe(&endpoint, json!({"steps": step("panic")})).await;
    fail_five_times(&yard).await;
    yard.publish("t", json!({})).await;
    yard.await_deliveries("state=held", 1).await;
    let steps = json!({"steps": step("split")}).to_string();
    let json_type = [("content-type", "application/json")];
    let path = path(&made);
    let steps_path = format!("{path}/steps");
    yard.client.call(reqwest::Method::PUT, &steps_path, &json_type, steps).await.expect(200);
    yard.client.post(&format!("{path}/resume"), &json!({})).await.expect(200);
    let mut parts = Vec::new();
    for _ in 0..3 {
        parts.push(endpoint.next().await.json()["data"]["part"].as_u64().unwrap());
    }
    parts.sort_unstable();
    assert_eq!(parts, [0, 1, 2]);
    let delivered = yard.await_deliveries("state=delivered", 3).await;
    let event = &delivered[0]["event"];
    assert!(delivered.iter().all(|it| it["event"] == *event));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routers_own_events_are_not_published_by_others_nor_wanted_by_everybody() {
    let yard = Yard::start().await;
    let event = crate::harness::yard::event("hookyard.plugin.quarantined", json!({}));
    let answer = yard.client.publish(&event).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body["errors"][0]["field"], "type");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumption_tries_one_and_holds_the_others_where_it_fails() {
    let yard = Yard::start_with(|it| it.plugin_probe_ms = Some(3_600_000)).await;
    let endpoint = Endpoint::start().await;
    yard.upload("gate", brittle("1", true)).await;
    let made = yard.subscribe(&endpoint, json!({"steps": [{"plugin": "gate"}]})).await;
    fail_five_times(&yard).await;
    for number in 5..8 {
        yard.publish("t", json!(number)).await;
    }
    yard.await_deliveries("state=held", 3).await;
    yard.client.post(&format!("{}/resume", path(&made)), &json!({})).await.expect(200);
    let probes = async || {
        let shown = yard.client.get(&path(&made)).await.expect(200);
        shown["quarantine"]["probes"].as_u64().unwrap()
    };
    while probes().await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(yard.deliveries("state=held").await.len(), 3);
    assert_eq!(yard.deliveries("state=failed").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_has_failed_itself_does_not_come_back() {
    let yard = Yard::start_with(|it| it.plugin_probe_ms = Some(3_600_000)).await;
    let endpoint = Endpoint::start().await;
    let first = yard.upload("gate", brittle("1", true)).await["digest"].clone();
    let allowed = "/v1/plugins/gate/automatic-rollback";
    let body = json!({"allowed": true}).to_string();
    let json_type = [("content-type", "application/json")];
    yard.client.call(reqwest::Method::PUT, allowed, &json_type, body).await.expect(200);
    let made = yard.subscribe(&endpoint, json!({"steps": [{"plugin": "gate"}]})).await;
    let second = yard.upload("gate", brittle("2", true)).await["digest"].clone();
    fail_five_times(&yard).await;
    // Back to the first one, which fails as well.
    let quarantined = async || {
        let shown = yard.client.get(&path(&made)).await.expect(200);
        shown["quarantine"]["plugin"].clone()
    };
    while yard.client.get("/v1/plugins/gate").await.expect(200)["digest"] == second {
        tokio::task::yield_now().await;
    }
    while quarantined().await != first {
        yard.publish("t", json!({})).await;
    }
    yard.publish("t", json!({})).await;
    while yard.deliveries("state=held").await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(yard.client.get("/v1/plugins/gate").await.expect(200)["digest"], first);
}
