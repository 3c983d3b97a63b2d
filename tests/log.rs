//! The delivery log: what is found in it, what leaves it, what is counted, and what it keeps publishers from.

use http::Method;
use serde_json::{Value, json};

use crate::harness::yard::event;
use crate::harness::{Endpoint, Yard};

/// A subscription whose deliveries are dead after one failure.
async fn subscribe(yard: &Yard, endpoint: &Endpoint, more: Value) -> Value {
    let made = yard.subscribe(endpoint, more).await;
    let path = format!("/v1/subscriptions/{}/pace", made["id"].as_str().unwrap());
    yard.client.json(Method::PUT, &path, &json!({"retry_after_seconds": []})).await.expect(200);
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_found_by_what_they_are_about() {
    let yard = Yard::start().await;
    let (mut endpoint, mut broken) = (Endpoint::start().await, Endpoint::start().await);
    yard.subscribe(&endpoint, json!({"filters": [{"type": "a"}]})).await;
    let made = subscribe(&yard, &broken, json!({"filters": [{"type": "b"}]})).await;
    broken.reply([(503, vec![]), (404, vec![])]);
    let mut about = event("a", json!(1));
    about["subject"] = json!("s");
    yard.client.publish(&about).await.expect(202);
    endpoint.next().await;
    for _ in 0..3 {
        yard.publish("b", json!(1)).await;
        broken.next().await;
    }
    yard.await_deliveries("state=delivered", 2).await;
    yard.await_deliveries("state=dead", 2).await;
    let count = async |query: &str| yard.deliveries(query).await.len();
    assert_eq!(count("type=a").await, 1);
    assert_eq!(count("type=b&state=dead").await, 2);
    assert_eq!(count("subject=s").await, 1);
    assert_eq!(count("subject=s&type=b").await, 0);
    assert_eq!(count("status=503").await, 1);
    assert_eq!(count("status=200").await, 2);
    assert_eq!(count("state=dead,delivered").await, 4);
    assert_eq!(count(&format!("endpoint={}", broken.url("/"))).await, 3);
    assert_eq!(count("from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z").await, 0);
    assert_eq!(count("from=2020-01-01T00:00:00Z").await, 4);
    assert_eq!(
        count(&format!("subscription={}&reason=exhausted", made["id"].as_str().unwrap())).await,
        2
    );
    for (query, field) in [
        ("state=gone", "state"),
        ("from=yesterday", "from"),
        ("status=good", "status"),
        ("before=7", "before"),
    ] {
        let problem = yard.client.get(&format!("/v1/deliveries?{query}")).await.expect(400);
        assert_eq!(problem["errors"][0]["field"], field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_are_announced_exported_and_purged() {
    let yard = Yard::start().await;
    let (mut endpoint, mut watcher) = (Endpoint::start().await, Endpoint::start().await);
    let made = subscribe(&yard, &endpoint, json!({"filters": [{"type": "t"}]})).await;
    // Whoever is told of the dead is told nothing of those that tell of them.
    subscribe(&yard, &watcher, json!({"filters": [{"type": "hookyard.delivery.dead"}]})).await;
    watcher.reply([(500, vec![])]);
    endpoint.reply([(500, vec![]), (500, vec![])]);
    let mut told = Vec::new();
    for number in 0..2 {
        yard.publish("t", json!(number)).await;
        endpoint.next().await;
        told.push(watcher.next().await.json()["data"].clone());
    }
    yard.publish("t", json!(2)).await;
    endpoint.next().await;
    yard.await_deliveries("type=t&state=delivered", 1).await;
    let dead = yard.await_deliveries("type=t&state=dead", 2).await;
    assert_eq!(told[1]["delivery"], dead[0]["id"]);
    assert_eq!(
        (&told[1]["subscription"], &told[1]["reason"]["code"]),
        (&made["id"], &json!("exhausted"))
    );

    let (headers, file) = yard.client.download("/v1/deliveries/export?type=t&state=dead").await;
    assert_eq!(headers["content-type"], "application/x-ndjson");
    let lines: Vec<Value> = std::str::from_utf8(&file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines.iter().map(|it| &it["id"]).collect::<Vec<_>>(),
        [&dead[0]["id"], &dead[1]["id"]]
    );
    assert_eq!(lines[0]["event"]["data"], 1);
    assert_eq!(lines[0]["attempts"][0]["status"], 500);
    assert!(lines[0]["reason"]["detail"].as_str().unwrap().contains("1 attempts have failed"));

    let path = "/v1/deliveries?type=t";
    let delete = async |path: &str| yard.client.json(Method::DELETE, path, &json!({})).await;
    let refused = delete(&format!("{path}&state=delivered")).await.expect(400);
    assert_eq!(refused["errors"][0]["field"], "state");
    let reader = yard.token(Some("acme"), "deliveries:read").await;
    let reader = yard.client.with_token(Some(&reader));
    reader.json(Method::DELETE, path, &json!({})).await.expect(403);
    // With a typing mistake, everything would be found, and forgotten.
    for unknown in ["types", "subscripton", "older_than"] {
        let path = format!("/v1/deliveries?{unknown}=t");
        assert_eq!(delete(&path).await.fields(), [unknown]);
        assert_eq!(yard.client.get(&path).await.fields(), [unknown]);
        assert_eq!(yard.client.get(&format!("/v1/counts?{unknown}=t")).await.fields(), [unknown]);
    }
    let purged = delete(path).await.expect(200);
    assert_eq!(purged["purged"], 2);
    assert_eq!(yard.deliveries("type=t").await.len(), 1);
    let id = dead[0]["id"].as_str().unwrap();
    yard.client.get(&format!("/v1/deliveries/{id}")).await.expect(404);
    assert!(watcher.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted_by_the_minute() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let made = subscribe(&yard, &endpoint, json!({})).await;
    endpoint.reply([(500, vec![])]);
    for number in 0..3 {
        yard.publish("t", json!(number)).await;
        endpoint.next().await;
    }
    yard.await_deliveries("state=delivered", 2).await;
    yard.await_deliveries("state=dead", 1).await;
    let sum = async |query: &str, name: &str| -> u64 {
        let counts = yard.client.get(&format!("/v1/counts?{query}")).await.expect(200);
        counts["counts"].as_array().unwrap().iter().map(|it| it[name].as_u64().unwrap()).sum()
    };
    let of_one = format!("subscription={}", made["id"].as_str().unwrap());
    for (name, count) in
        [("attempts", 3), ("attempts_failed", 1), ("delivered", 2), ("dead", 1), ("failed", 0)]
    {
        assert_eq!(sum("", name).await, count, "{name}");
        assert_eq!(sum(&of_one, name).await, count, "{name}");
    }
    assert_eq!((sum("", "events").await, sum(&of_one, "events").await), (3, 0));
    let long = "/v1/counts?from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z";
    assert_eq!(yard.client.get(long).await.expect(400)["errors"][0]["field"], "step_minutes");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_wait_while_too_much_waits_already() {
    let yard = Yard::start_with(|it| it.tenant_backlog_max = Some(5)).await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({"catch_up": true})).await;
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    yard.client.post(&format!("{path}/pause"), &json!({})).await.expect(200);
    let mut sent = 0;
    let refused = loop {
        let answer = yard.client.publish(&event("t", json!(sent))).await;
        if answer.status == 429 {
            break answer;
        }
        answer.expect(202);
        sent += 1;
    };
    assert!(sent >= 5);
    assert_eq!(refused.header("retry-after"), "1");
    let problem = refused.expect(429);
    assert_eq!(problem["code"], "too-much-waits");
    assert!(problem["detail"].as_str().unwrap().contains("tenant-backlog-max"), "{problem}");
    let batch = json!([event("t", json!(1))]).to_string();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    yard.client.call(Method::POST, "/v1/events", &headers, batch).await.expect(429);
    // Others are let alone, and so is this one when there is room again.
    let other = yard.token(Some("other"), "events:write").await;
    let other = yard.client.with_token(Some(&other));
    other.publish(&event("t", json!(1))).await.expect(202);
    yard.client.post(&format!("{path}/resume"), &json!({})).await.expect(200);
    for _ in 0..sent {
        endpoint.next().await;
    }
    yard.await_deliveries("state=delivered", sent).await;
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    while yard.client.publish(&event("t", json!("again"))).await.status == 429 {
        assert!(std::time::Instant::now() < until);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(endpoint.next().await.json()["data"], "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_says_what_was_sent_and_where_its_time_has_gone() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let steps = json!([{"plugin": "minimize", "config": {"remove": ["/b"]}}]);
    let made = yard.subscribe(&endpoint, json!({"steps": steps})).await;
    yard.publish("t", json!({"a": 1, "b": 2})).await;
    let receipt = endpoint.next().await;
    let delivery = yard.await_deliveries("state=delivered", 1).await.remove(0);
    let shown = yard.delivery(&delivery["id"]).await;
    let attempt = &shown["attempts"][0];
    let us = |name: &str| attempt[name].as_u64().unwrap_or_else(|| panic!("{name} in {attempt}"));
    assert!(us("first_byte_us") > 0 && us("connect_us") > 0 && us("plugins_us") > 0);
    assert_eq!(attempt["tls_us"], Value::Null);
    assert_eq!(attempt["plugins"], json!([made["steps"][0]["digest"]]));
    assert_eq!(attempt["body_digest"], json!(hookyard_nouns::digest::Digest::of(&receipt.body)));
    let header = |name: &str| {
        let headers = attempt["request_headers"].as_array().unwrap();
        headers.iter().find(|it| it[0] == name).map(|it| it[1].clone())
    };
    for name in ["webhook-id", "webhook-signature", "content-type"] {
        assert_eq!(header(name), Some(json!(receipt.header(name))), "{name}");
    }
}
