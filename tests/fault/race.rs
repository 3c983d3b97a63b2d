//! Things that happen at the same time.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::{Ledger, Rig, Row, at_each, event};
use crate::harness::Endpoint;

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_deleted_while_its_deliveries_fly() {
    const EVENTS: usize = 1_000;
    let mut rig = Rig::started().await;
    let mut endpoint = Endpoint::start().await;
    rig.subscribe(endpoint.url("/stays"), "*").await;
    let goes = rig.subscribe(endpoint.url("/goes"), "*").await["id"].as_str().unwrap().to_owned();
    let client = rig.client();
    let ids: Vec<_> = (0..EVENTS).map(|it| it.to_string()).collect();
    let batch: Vec<Value> = ids.iter().map(|id| event(id, "t", 1)).collect();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let batch = json!(batch).to_string();
    client.call(Method::POST, "/v1/events", &headers, batch).await.expect(202);
    let mut ledger = Ledger::default();
    while ledger.taken < 200 {
        ledger.enter(endpoint.next().await);
    }
    let path = format!("/v1/subscriptions/{goes}");
    assert_eq!(client.call(Method::DELETE, &path, &[], "").await.status, 204);

    let lost = ledger.lost(&mut endpoint, &at_each(&["/stays"], &ids)).await;
    for state in ["pending", "retrying"] {
        client.await_deliveries(&format!("state={state}"), 0).await;
    }
    // Each delivery is somewhere, and what has arrived is not said to be cancelled.
    let delivered = client.deliveries(&format!("subscription={goes}&state=delivered")).await.len();
    let cancelled = client.deliveries(&format!("subscription={goes}&state=cancelled")).await.len();
    ledger.take(&mut endpoint);
    let arrived = ledger.ids.keys().filter(|(path, _)| path == "/goes").count();
    assert_eq!((delivered, delivered + cancelled), (arrived, EVENTS));
    let duplicated = ledger.duplicated();
    rig.stop();
    let more = format!("{delivered} of {EVENTS} delivered, {cancelled} cancelled");
    let fault = "subscription deleted while its deliveries fly";
    let (operations, recovery) = (2 * EVENTS, None);
    Row { fault, operations, lost, duplicated, recovery, more }.print();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_published_from_many_connections_at_once() {
    const CONNECTIONS: usize = 50;
    const EVENTS: usize = 20;
    let paths = ["/a", "/b", "/c", "/d", "/e"];
    let mut rig = Rig::started().await;
    let mut endpoint = Endpoint::start().await;
    for path in paths {
        rig.subscribe(endpoint.url(path), "*").await;
    }
    let barrier = Arc::new(Barrier::new(CONNECTIONS));
    let publishers = (0..CONNECTIONS).map(|_| {
        let (barrier, client) = (Arc::clone(&barrier), rig.client());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for number in 0..EVENTS {
                let event = event(&number.to_string(), "t", 1);
                barrier.wait().await;
                answers.push(client.publish(&event).await.expect(202));
            }
            answers
        })
    });
    let publishers: Vec<_> = publishers.collect();
    let mut answers = Vec::new();
    for publisher in publishers {
        answers.push(publisher.await.unwrap());
    }
    for number in 0..EVENTS {
        let of_event: Vec<_> = answers.iter().map(|it| &it[number]).collect();
        let new: Vec<_> = of_event.iter().filter(|it| it["duplicate"] == false).collect();
        assert_eq!(new.len(), 1);
        assert!(of_event.iter().all(|it| it["id"] == new[0]["id"]));
    }
    let ids: Vec<_> = (0..EVENTS).map(|it| it.to_string()).collect();
    let wanted = at_each(&paths, &ids);
    let mut ledger = Ledger::default();
    let lost = ledger.lost(&mut endpoint, &wanted).await;
    rig.await_delivered(wanted.len()).await;
    ledger.take(&mut endpoint);
    let (operations, duplicated) = (wanted.len(), ledger.duplicated());
    assert_eq!(duplicated, 0);
    rig.stop();
    let more = format!("{} of {} answers say duplicate", 49 * EVENTS, CONNECTIONS * EVENTS);
    let (fault, recovery) = ("one event from 50 connections at once", None);
    Row { fault, operations, lost, duplicated, recovery, more }.print();
}
