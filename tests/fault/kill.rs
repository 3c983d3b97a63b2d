//! `kill -9`: at each point of an event's way, and at any time.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::select;
use tokio::time::{Instant, interval, sleep};

use super::{Ledger, Load, Rig, Row, at_each};
use crate::harness::Endpoint;

/// The points, as the router has them.
const POINTS: [&str; 8] = [
    "inserted",  // events are in a transaction that is not committed
    "committed", // events are committed, and their publishers are not answered
    "rendered",  // deliveries are made, and not handed over
    "sending",   // before a request
    "answered",  // after a request, which is not recorded
    "recording", // what became of deliveries is in a transaction that is not committed
    "recorded",  // and committed
    "claimed",   // deliveries are taken from the store
];

/// Kills the router at each point, when it passes it for these times; after each of them it has to bring
/// everything to its end.
async fn check(fault: &str, times: &[u32]) {
    let mut rig = Rig::started().await;
    let mut endpoint = Endpoint::start().await;
    for path in ["/a", "/b"] {
        rig.subscribe(endpoint.url(path), "*").await;
    }
    rig.stop();
    let (mut ledger, mut operations, mut lost) = (Ledger::default(), 0, 0);
    let mut recovery = Duration::ZERO;
    for point in POINTS {
        for time in times {
            let load = die(&mut rig, &endpoint, point, *time).await;
            let start = Instant::now();
            rig.start(&[]).await;
            let load =
                load.unwrap_or_else(|| Load::start(4, rig.client(), &format!("{point} {time}")));
            load.go_on_with(rig.client());
            let wanted = at_each(&["/a", "/b"], &load.stop().await.events);
            lost += ledger.lost(&mut endpoint, &wanted).await;
            recovery = recovery.max(start.elapsed());
            operations += wanted.len();
            rig.await_delivered(operations).await;
            rig.stop();
        }
    }
    ledger.take(&mut endpoint);
    let duplicated = ledger.duplicated();
    let more = format!("{} kills", POINTS.len() * times.len());
    Row { fault, operations, lost, duplicated, recovery: Some(recovery), more }.print();
}

/// Publishes until the router has killed itself; no load where that is before it listens.
async fn die(rig: &mut Rig, endpoint: &Endpoint, point: &str, time: u32) -> Option<Load> {
    let chosen = format!("{point} {time}");
    if let Err(status) = rig.try_start(&[("HOOKYARD_FAULT", &chosen)]).await {
        assert_eq!(status.signal(), Some(9), "{chosen}");
        return None;
    }
    let load = Load::start(4, rig.client(), &chosen);
    // Some have to be taken from the store again.
    let refuses = async {
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            endpoint.refuse(1);
        }
    };
    select! {
        status = rig.router().dies() => assert_eq!(status.signal(), Some(9), "{chosen}"),
        () = refuses => unreachable!("it has no end"),
    }
    Some(load)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_each_point() {
    check("kill -9 at each point", &[3]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute"]
async fn at_each_point_sooner_and_later() {
    check("kill -9 at each point, sooner and later", &[1, 10, 20]).await;
}

/// Without waiting for anything in between: kills meet retries, and what other kills have left.
#[tokio::test(flavor = "multi_thread")]
async fn at_any_time() {
    const KILLS: usize = 22;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut rig = Rig::started().await;
    let mut endpoint = Endpoint::start().await;
    let even: Vec<_> = (0..10_000).step_by(2).collect();
    for (path, steps) in [
        ("/plain", json!([])),
        ("/small", json!([{"plugin": "minimize", "config": {"remove": ["/more"]}}])),
        ("/even", json!([{"plugin": "filter", "config": {"when": {"at": "/number", "in": even}}}])),
    ] {
        let body = json!({
            "name": path, "url": endpoint.url(path), "filters": [{"type": "*"}], "steps": steps,
        });
        rig.client().post("/v1/subscriptions", &body).await.expect(201);
    }
    let load = Load::start(8, rig.client(), "any");
    let mut start = Instant::now();
    for _ in 0..KILLS {
        // Now and then the endpoint refuses, so that retries are killed as well.
        endpoint.refuse(rng.random_range(0..3));
        sleep(Duration::from_millis(rng.random_range(20..250))).await;
        rig.kill();
        start = Instant::now();
        rig.start(&[]).await;
        load.go_on_with(rig.client());
    }
    let events = load.stop().await.events;
    let is_even = |it: &&String| it.ends_with(['0', '2', '4', '6', '8']);
    let filtered: Vec<_> = events.iter().filter(is_even).cloned().collect();
    let mut wanted = at_each(&["/plain", "/small"], &events);
    wanted.extend(at_each(&["/even"], &filtered));
    let operations = wanted.len();
    let mut ledger = Ledger::default();
    let lost = ledger.lost(&mut endpoint, &wanted).await;
    let recovery = Some(start.elapsed());
    assert!(operations > 500, "there was hardly any load");
    rig.await_delivered(operations).await;
    ledger.take(&mut endpoint);
    let duplicated = ledger.duplicated();
    let more = format!("{KILLS} kills, through plugins, with retries after 5 s");
    rig.stop();
    Row { fault: "kill -9 at any time", operations, lost, duplicated, recovery, more }.print();
}
