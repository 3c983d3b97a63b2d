//! A wall clock that is set by hours while events are on their way.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Ledger, Load, Rig, Row, at_each};
use crate::harness::Endpoint;

const HOUR_MS: i64 = 3_600_000;

/// Sets the clock to so many hours from the right time, one after the other.
async fn check(fault: &str, hours: &[i64]) {
    let mut rig = Rig::started().await;
    let mut endpoint = Endpoint::start().await;
    for path in ["/a", "/b"] {
        rig.subscribe(endpoint.url(path), "*").await;
    }
    // And one that takes its time between deliveries.
    let paced = rig.subscribe(endpoint.url("/paced"), "*").await;
    let path = format!("/v1/subscriptions/{}/pace", paced["id"].as_str().unwrap());
    let pace = json!({"per_minute": 60_000, "retry_after_seconds": [1, 1, 1]});
    rig.client().json(Method::PUT, &path, &pace).await.expect(200);
    let load = Load::start(4, rig.client(), "clock");
    let mut start = Instant::now();
    for hours in hours {
        // Retries wait and deliveries wait in the store when it happens.
        endpoint.refuse(5);
        sleep(Duration::from_millis(700)).await;
        rig.shim.set_clock(hours * HOUR_MS);
        start = Instant::now();
    }
    sleep(Duration::from_millis(300)).await;
    let wanted = at_each(&["/a", "/b", "/paced"], &load.stop().await.events);
    let mut ledger = Ledger::default();
    let lost = ledger.lost(&mut endpoint, &wanted).await;
    let recovery = Some(start.elapsed());
    let (operations, duplicated) = (wanted.len(), ledger.duplicated());
    Row { fault, operations, lost, duplicated, recovery, more: String::new() }.print();
    rig.await_delivered(operations).await;
    rig.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_set_forward() {
    check("clock set forward by 3 h, then 30 h", &[3, 33]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_set_back() {
    check("clock set back by 3 h, then 30 h", &[-3, -33]).await;
}
