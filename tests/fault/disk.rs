//! A disk that does not write, or slowly.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::shim::Disk;
use super::{Ledger, Load, Rig, Row, at_each, event};
use crate::harness::{Endpoint, PATIENCE};

/// A publisher is told to wait as long as nothing can be written; then all goes on by itself.
async fn check(fault: &str, disk: Disk) {
    let mut rig = Rig::started().await;
    let mut endpoint = Endpoint::start().await;
    rig.subscribe(endpoint.url("/a"), "*").await;
    let client = rig.client();
    let mut ledger = Ledger::default();
    // What is under way when it begins has to be recorded later.
    let load = Load::start(4, client.clone(), "load");
    while ledger.taken < 100 {
        ledger.enter(endpoint.next().await);
    }
    rig.shim.disk(disk);
    let begun = Instant::now();
    let mut events = Vec::new();
    let refused = loop {
        assert!(begun.elapsed() < PATIENCE, "the disk writes");
        events.push(format!("one-{}", events.len()));
        let answer = client.publish(&event(events.last().unwrap(), "t", 1)).await;
        if answer.status == 503 {
            break answer;
        }
    };
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.expect(503)["code"], "unavailable");
    // Reading goes on, and publishers try again and again.
    sleep(Duration::from_secs(1)).await;
    client.get("/v1/subscriptions").await.expect(200);
    assert_eq!(client.get("/healthz").await.status, 200);
    let refused = event(events.last().unwrap(), "t", 1);
    client.publish(&refused).await.expect(503);

    rig.shim.disk(Disk::Writes);
    let start = Instant::now();
    let published = load.stop().await;
    assert_eq!(client.publish(&refused).await.expect(202)["duplicate"], false);
    events.extend(published.events);
    let wanted = at_each(&["/a"], &events);
    let lost = ledger.lost(&mut endpoint, &wanted).await;
    let recovery = Some(start.elapsed());
    rig.await_delivered(wanted.len()).await;
    ledger.take(&mut endpoint);
    let duplicated = ledger.duplicated();
    rig.stop();
    let more = format!("{} times 503", published.refused);
    Row { fault, operations: wanted.len(), lost, duplicated, recovery, more }.print();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk() {
    check("disk full", Disk::IsFull).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk() {
    check("disk read-only", Disk::IsReadOnly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk() {
    const PUBLISHERS: usize = 64;
    let mut rig = Rig::started().await;
    let mut endpoint = Endpoint::start().await;
    rig.subscribe(endpoint.url("/a"), "*").await;
    rig.shim.slow_down(1_000);
    let start = Instant::now();
    let load = Load::start(PUBLISHERS, rig.client(), "slow");
    sleep(Duration::from_secs(3)).await;
    let events = load.stop().await.events;
    let took = start.elapsed();
    let wanted = at_each(&["/a"], &events);
    let mut ledger = Ledger::default();
    let lost = ledger.lost(&mut endpoint, &wanted).await;
    // What waits for a commit goes into the next one together.
    assert!(events.len() >= 2 * PUBLISHERS, "{} events in {took:?}", events.len());
    rig.shim.slow_down(0);
    let start = Instant::now();
    rig.await_delivered(wanted.len()).await;
    let recovery = Some(start.elapsed());
    ledger.take(&mut endpoint);
    let (operations, duplicated) = (wanted.len(), ledger.duplicated());
    rig.stop();
    let more = format!("{:.0} events/s accepted", events.len() as f64 / took.as_secs_f64());
    Row { fault: "store slow, 1 s a commit", operations, lost, duplicated, recovery, more }.print();
}
