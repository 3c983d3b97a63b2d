//! Endpoints that take little, or nothing for a while.

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::harness::{Endpoint, Yard};

/// With so many failures, an endpoint gets nothing for a while.
const FAILURES: usize = 10;

/// Publishes as many events as an endpoint may fail, and sees them arrive there.
async fn fail(yard: &Yard, endpoint: &mut Endpoint) {
    endpoint.reply((0..FAILURES).map(|_| (500, vec![])));
    for number in 0..FAILURES {
        yard.publish("t", json!(number)).await;
        endpoint.next().await;
    }
}

/// What is announced of endpoints, but for the rest of the envelope.
async fn announced(watcher: &mut Endpoint) -> (String, Value) {
    let it = watcher.next().await.json();
    (it["type"].as_str().unwrap().to_owned(), it["data"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_answer_is_asked_by_one_request_at_a_time() {
    let yard = Yard::start().await;
    let (tell, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let hangs = Endpoint::raw(move |stream: TcpStream| {
        let tell = tell.clone();
        async move {
            tell.send(()).unwrap();
            std::future::pending::<()>().await;
            drop(stream);
        }
    })
    .await;
    let mut healthy = Endpoint::start().await;
    yard.subscribe(&hangs, json!({})).await;
    yard.subscribe(&healthy, json!({})).await;
    for number in 0..50 {
        yard.publish("t", json!(number)).await;
        healthy.next().await;
    }
    asked.recv().await.unwrap();
    assert!(asked.try_recv().is_err(), "a second request while the first one is out");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_mostly_gets_nothing_and_nothing_is_lost() {
    let yard = Yard::start_with(|it| it.endpoint_probe_ms = Some(3_600_000)).await;
    let (mut endpoint, mut watcher) = (Endpoint::start().await, Endpoint::start().await);
    let made = yard.subscribe(&endpoint, json!({"filters": [{"type": "t"}]})).await;
    yard.subscribe(&watcher, json!({"filters": [{"type": "hookyard.endpoint.*"}]})).await;
    fail(&yard, &mut endpoint).await;
    let (what, data) = announced(&mut watcher).await;
    assert_eq!(what, "hookyard.endpoint.failing");
    assert_eq!((&data["subscription"], &data["reason"]["code"]), (&made["id"], &json!("http-500")));
    for number in 0..5 {
        yard.publish("t", json!(number)).await;
    }
    let waiting = yard.await_deliveries("state=pending", 5).await;
    assert!(waiting.iter().all(|it| it["attempts"] == 0), "{waiting:?}");
    assert!(endpoint.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_takes_the_one_that_is_tried_gets_the_others() {
    let yard = Yard::start_with(|it| it.endpoint_probe_ms = Some(200)).await;
    let (mut endpoint, mut watcher) = (Endpoint::start().await, Endpoint::start().await);
    let made = yard.subscribe(&endpoint, json!({"filters": [{"type": "t"}]})).await;
    yard.subscribe(&watcher, json!({"filters": [{"type": "hookyard.endpoint.*"}]})).await;
    fail(&yard, &mut endpoint).await;
    assert_eq!(announced(&mut watcher).await.0, "hookyard.endpoint.failing");
    endpoint.reply([(503, vec![])]);
    for number in 0..5 {
        yard.publish("t", json!(number)).await;
    }
    // The first one is tried in vain, and later another one with success.
    assert_eq!(announced(&mut watcher).await.0, "hookyard.endpoint.recovered");
    let delivered = format!("state=delivered&subscription={}", made["id"].as_str().unwrap());
    yard.await_deliveries(&delivered, FAILURES + 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_only_fails_is_disabled_in_the_end() {
    let mut yard = Yard::start().await;
    let (mut endpoint, mut watcher) = (Endpoint::start().await, Endpoint::start().await);
    let made = yard.subscribe(&endpoint, json!({"filters": [{"type": "t"}]})).await;
    yard.subscribe(&watcher, json!({"filters": [{"type": "hookyard.endpoint.disabled"}]})).await;
    endpoint.reply((0..3).map(|_| (500, vec![])));
    yard.publish("t", json!(1)).await;
    endpoint.next().await;
    yard.await_deliveries("state=retrying", 1).await;
    // How long it has failed is known after a restart.
    yard.change_settings(|it| it.endpoint_disable_ms = Some(1)).await;
    yard.publish("t", json!(2)).await;
    let (what, data) = announced(&mut watcher).await;
    assert_eq!(what, "hookyard.endpoint.disabled");
    assert_eq!(data["reason"]["code"], "failed-too-long");
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    while yard.client.get(&path).await.expect(200)["state"] != "disabled" {
        assert!(std::time::Instant::now() < until, "it is disabled");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_says_how_deliveries_are_made() {
    let yard = Yard::start().await;
    let endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let path = format!("/v1/subscriptions/{}/pace", made["id"].as_str().unwrap());
    let pace = json!({"retry_after_seconds": [1], "in_flight_max": 1, "per_minute": 6_000});
    let shown = yard.client.json(Method::PUT, &path, &pace).await.expect(200);
    assert_eq!(shown["pace"], pace);
    endpoint.reply([(500, vec![]), (500, vec![])]);
    yard.publish("t", json!(1)).await;
    let dead = yard.await_deliveries("state=dead", 1).await;
    assert_eq!(
        (&dead[0]["attempts"], &dead[0]["reason"]["code"]),
        (&json!(2), &json!("exhausted"))
    );
    let wrong = json!({"retry_after_seconds": [0], "in_flight_max": 0, "per_minute": "1", "x": 1});
    let refused = yard.client.json(Method::PUT, &path, &wrong).await;
    assert_eq!(refused.status, 400);
    let fields = ["/in_flight_max", "/per_minute", "/retry_after_seconds/0", "/x"];
    assert_eq!(refused.fields(), fields);
}
