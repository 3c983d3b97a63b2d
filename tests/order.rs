//! Deliveries that are made one after the other: by key, and after a pause.

use std::collections::HashMap;

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Endpoint, Yard};

fn path(made: &Value, rest: &str) -> String {
    format!("/v1/subscriptions/{}{rest}", made["id"].as_str().unwrap())
}

async fn set_pace(yard: &Yard, made: &Value, pace: Value) {
    yard.client.json(Method::PUT, &path(made, "/pace"), &pace).await.expect(200);
}

/// Publishes a batch of events with a key and a number each.
async fn publish(yard: &Yard, events: impl Iterator<Item = (&'static str, usize)>) {
    let batch: Vec<Value> = events
        .map(|(key, number)| {
            json!({
                "specversion": "1.0", "id": format!("{key}-{number}"), "source": "/tests", "type": "t",
                "subject": key, "data": {"customer": {"id": key}, "number": number},
            })
        })
        .collect();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let body = json!(batch).to_string();
    yard.client.call(Method::POST, "/v1/events", &headers, body).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_with_the_same_key_arrive_in_order_whatever_fails() {
    let mut yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let order = json!({"pointer": "/customer/id"});
    set_pace(&yard, &made, json!({"retry_after_seconds": [1, 1, 1], "order": order})).await;
    let shown = yard.client.get(&path(&made, "")).await.expect(200);
    assert_eq!(shown["pace"]["order"], json!({"pointer": "/customer/id", "wait_seconds": 3600}));
    endpoint.refuse(3);
    let keys = ["a", "b", "c", "d", "e"];
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut delivered = 0;
    for round in 0..2_usize {
        publish(&yard, (0..100).map(|number| (keys[number % 5], round * 100 + number))).await;
        if round == 1 {
            yard.restart().await;
        }
        // What was refused once comes again, and nothing of its key before it.
        while delivered < 100 * (round + 1) {
            let it = endpoint.next().await;
            let data = &it.json()["data"];
            let (key, number) = (data["customer"]["id"].as_str().unwrap(), &data["number"]);
            let number = number.as_u64().unwrap();
            let before = last.insert(key.to_owned(), number);
            assert!(before.is_none_or(|before| before <= number), "{number} after {before:?}");
            delivered += usize::from(before != Some(number));
        }
    }
    yard.await_deliveries("state=delivered", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_holds_up_its_key_alone_and_not_for_ever() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let order = json!({"attribute": "subject", "wait_seconds": 2});
    set_pace(&yard, &made, json!({"retry_after_seconds": [3600], "order": order})).await;
    endpoint.reply([(500, vec![])]);
    publish(&yard, [("a", 0)].into_iter()).await;
    assert_eq!(endpoint.next().await.json()["data"]["number"], 0);
    publish(&yard, [("a", 1), ("b", 2)].into_iter()).await;
    assert_eq!(endpoint.next().await.json()["data"]["number"], 2);
    assert_eq!(yard.deliveries("subject=a&state=pending").await.len(), 1);
    // After two seconds.
    assert_eq!(endpoint.next().await.json()["data"]["number"], 1);
    let passed_over = yard.deliveries("subject=a&state=retrying").await.remove(0);
    assert_eq!(passed_over["passed_over"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_goes_before_what_comes_later_and_at_its_rate() {
    let yard = Yard::start_with(|it| it.catch_up_per_second = Some(50)).await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({"catch_up": true})).await;
    yard.client.post(&path(&made, "/pause"), &json!({})).await.expect(200);
    publish(&yard, (0..20).map(|number| ("a", number))).await;
    yard.await_deliveries("state=held", 20).await;
    yard.client.post(&path(&made, "/resume"), &json!({})).await.expect(200);
    publish(&yard, (20..30).map(|number| ("a", number))).await;
    let mut later = Vec::new();
    for number in 0..30 {
        let arrived = endpoint.next().await.json()["data"]["number"].as_u64().unwrap();
        if number < 20 {
            assert_eq!(arrived, number);
        } else {
            later.push(arrived);
        }
    }
    later.sort_unstable();
    assert_eq!(later, (20..30).collect::<Vec<_>>());
    yard.await_deliveries("state=delivered", 30).await;
    assert!(endpoint.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_those_that_were_held_is_tried_again_before_the_next_one_and_after_a_restart() {
    let mut yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({"catch_up": true})).await;
    set_pace(&yard, &made, json!({"retry_after_seconds": [1, 1]})).await;
    yard.client.post(&path(&made, "/pause"), &json!({})).await.expect(200);
    publish(&yard, (0..5).map(|number| ("a", number))).await;
    yard.await_deliveries("state=held", 5).await;
    endpoint.reply([(500, vec![]), (200, vec![]), (503, vec![])]);
    yard.client.post(&path(&made, "/resume"), &json!({})).await.expect(200);
    let mut arrived = async || endpoint.next().await.json()["data"]["number"].as_u64().unwrap();
    assert_eq!([arrived().await, arrived().await, arrived().await], [0, 0, 1]);
    yard.await_deliveries("state=retrying", 1).await;
    yard.restart().await;
    publish(&yard, [("a", 5)].into_iter()).await;
    for number in 1..=5 {
        assert_eq!(arrived().await, number);
    }
}
