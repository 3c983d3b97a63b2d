//! Work that ends the process: it is tried once more, alone, and then set aside by itself.

use std::os::unix::process::ExitStatusExt;

use reqwest::Method;
use serde_json::json;

use super::{Rig, Row, event};
use crate::harness::Endpoint;

/// Starts the router, which dies by a fault before it listens or soon after.
async fn die(rig: &mut Rig, fault: &str) {
    let status = match rig.try_start(&[("HOOKYARD_FAULT", fault)]).await {
        Ok(()) => rig.router().dies().await,
        Err(status) => status,
    };
    assert_eq!(status.signal(), Some(9), "{fault}");
    rig.router = None;
}

/// The router has died while it made one of the deliveries to two endpoints, for the first time or for another
/// attempt.
async fn check(fault: &str, rig: &mut Rig, mut endpoint: Endpoint) {
    // It is tried alone before anything else, and ends the process once more.
    die(rig, "trying 1").await;
    rig.start(&[]).await;
    let client = rig.client();
    let failed = client.await_deliveries("state=failed", 1).await.remove(0);
    assert_eq!(failed["reason"]["code"], "internal");
    let why = failed["reason"]["detail"].as_str().unwrap();
    assert!(why.contains("ended twice while this delivery was being made"), "{why}");
    client.publish(&event("after", "t", 1)).await.expect(202);
    client.await_deliveries("state=delivered", 3).await;
    assert!(rig.log().contains("set aside"), "{}", rig.log());
    // The next process knows it as well.
    rig.stop();
    rig.start(&[]).await;
    rig.await_settled(&[("delivered", 3), ("failed", 1)]).await;
    rig.stop();
    let taken = endpoint.arrived().iter().filter(|it| it.status == 200).count();
    let (operations, lost) = (4, 3_usize.saturating_sub(taken));
    let more = "2 deaths, then it failed by itself".to_owned();
    Row { fault, operations, lost, duplicated: taken - 3, recovery: None, more }.print();
}

async fn with_two_subscriptions() -> (Rig, Endpoint) {
    let rig = Rig::started().await;
    let endpoint = Endpoint::start().await;
    rig.subscribe(endpoint.url("/a"), "*").await;
    // What this one gets is made by itself.
    let steps = json!([{"plugin": "minimize", "config": {"remove": ["/more"]}}]);
    let body = json!({
        "name": "small", "url": endpoint.url("/b"), "filters": [{"type": "*"}], "steps": steps,
    });
    let made = rig.client().post("/v1/subscriptions", &body).await.expect(201);
    let pace = format!("/v1/subscriptions/{}/pace", made["id"].as_str().unwrap());
    let soon = json!({"retry_after_seconds": vec![1; 20]});
    rig.client().json(Method::PUT, &pace, &soon).await.expect(200);
    (rig, endpoint)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_ends_the_process_is_set_aside_for_one_subscription() {
    let (mut rig, endpoint) = with_two_subscriptions().await;
    rig.stop();
    rig.start(&[("HOOKYARD_FAULT", "rendering 1")]).await;
    // It is accepted, and may be answered before the process dies.
    let _ = rig.client().try_publish(&event("kills", "t", 1)).await;
    rig.router().dies().await;
    rig.router = None;
    check("an event that kills the router", &mut rig, endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_ends_the_process_is_set_aside() {
    let (mut rig, endpoint) = with_two_subscriptions().await;
    rig.stop();
    endpoint.refuse(1);
    rig.start(&[("HOOKYARD_FAULT", "rendering again 1")]).await;
    rig.client().publish(&event("kills", "t", 1)).await.expect(202);
    rig.router().dies().await;
    rig.router = None;
    check("a retry that kills the router", &mut rig, endpoint).await;
}

/// Somebody kills the process three times while it works on the same event. Each time the event gets through alone,
/// so that it is not to blame, and it arrives.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_gets_through_alone_arrives() {
    let rig = Rig::started().await;
    let mut rig = rig;
    let mut endpoint = Endpoint::start().await;
    rig.subscribe(endpoint.url("/a"), "*").await;
    rig.client().publish(&event("before", "t", 1)).await.expect(202);
    endpoint.next().await;
    rig.stop();
    rig.start(&[("HOOKYARD_FAULT", "rendering 1")]).await;
    let _ = rig.client().try_publish(&event("one", "t", 1)).await;
    rig.router().dies().await;
    for _ in 0..2 {
        die(&mut rig, "rendering 1").await;
    }
    rig.start(&[]).await;
    assert_eq!(endpoint.next().await.json()["id"], "one");
    rig.await_settled(&[("delivered", 2)]).await;
    rig.stop();
}
