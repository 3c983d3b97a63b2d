//! Very many subscriptions, and very many endpoints that hang.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Ledger, Rig, Row, event};
use crate::harness::{Client, Endpoint};

/// So many calls are made at the same time where many are to be made.
const CALLS: usize = 32;

/// Makes subscriptions as fast as the API takes them.
async fn subscribe_all(client: &Client, bodies: Vec<Value>) {
    let bodies = Arc::new(Mutex::new(bodies.into_iter()));
    let mut callers = JoinSet::new();
    for _ in 0..CALLS {
        let (client, bodies) = (client.clone(), Arc::clone(&bodies));
        callers.spawn(async move {
            loop {
                let Some(body) = bodies.lock().unwrap().next() else { return };
                client.post("/v1/subscriptions", &body).await.expect(201);
            }
        });
    }
    callers.join_all().await;
}

fn subscription(url: &str, types: impl IntoIterator<Item = String>) -> Value {
    let filters: Vec<_> = types.into_iter().map(|it| json!({"type": it})).collect();
    json!({"name": "test", "url": url, "filters": filters})
}

/// Connections that are taken and never answered: how many have been made, and how many have ended.
async fn hang() -> (u16, watch::Receiver<(usize, usize)>) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, count) = watch::channel((0, 0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tell.send_modify(|(made, _)| *made += 1);
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut request = [0; 4_096];
                while stream.read(&mut request).await.is_ok_and(|count| count > 0) {}
                tell.send_modify(|(_, ended)| *ended += 1);
            });
        }
    });
    (port, count)
}

/// The time that a share of these is at most.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

/// Publishes 100 events a second of types in turn, and answers with how long each took to its receiver.
async fn at_100_a_second(
    client: &Client,
    endpoint: &mut Endpoint,
    count: usize,
    event_type: impl Fn(usize) -> String + Send + 'static,
) -> Vec<Duration> {
    let began: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let publisher = {
        let (client, began) = (client.clone(), Arc::clone(&began));
        tokio::spawn(async move {
            let mut ticks = interval(Duration::from_millis(10));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut calls = JoinSet::new();
            for number in 0..count {
                ticks.tick().await;
                let (client, id) = (client.clone(), format!("paced-{number}"));
                let event = event(&id, &event_type(number), number);
                began.lock().unwrap().insert(id, Instant::now());
                calls.spawn(async move { client.publish(&event).await.expect(202) });
            }
            calls.join_all().await;
        })
    };
    let mut took = Vec::new();
    while took.len() < count {
        let receipt = endpoint.next().await;
        let id = receipt.json()["id"].as_str().unwrap().to_owned();
        if let Some(began) = began.lock().unwrap().remove(&id) {
            took.push(began.elapsed());
        }
    }
    publisher.await.unwrap();
    took
}

/// Each event is wanted by one endpoint that is well, and by some that hang.
async fn check(fault: &str, hanging: usize, seconds: usize) {
    const HEALTHY: usize = 20;
    const TYPES: usize = 200;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut rig = Rig::started().await;
    let client = rig.client();
    let mut endpoint = Endpoint::start_at((Ipv4Addr::UNSPECIFIED, 0).into()).await;
    let (port, mut hangs) = hang().await;
    let name = |number: usize| format!("t.{number}");
    let hanging_ones = (0..hanging).map(|it| {
        let url = format!("http://127.1.{}.{}:{port}/", it / 250, it % 250 + 1);
        subscription(&url, [name(it % TYPES)])
    });
    let healthy_ones = (0..HEALTHY).map(|it| {
        let url = format!("http://127.2.0.{}:{}/", it + 1, endpoint.address().port());
        subscription(&url, (it..TYPES).step_by(HEALTHY).map(name))
    });
    subscribe_all(&client, hanging_ones.chain(healthy_ones).collect()).await;

    // One delivery to each: all that hang are out at the same time.
    let batch: Vec<_> = (0..TYPES).map(|it| event(&format!("a-{it}"), &name(it), 1)).collect();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    client.call(Method::POST, "/v1/events", &headers, json!(batch).to_string()).await.expect(202);
    for _ in 0..TYPES {
        endpoint.next().await;
    }
    let all_out = hangs.wait_for(|(made, _)| *made == hanging);
    tokio::time::timeout(super::SETTLE, all_out).await.expect("all are out").unwrap();
    let count = 100 * seconds;
    let mut took = at_100_a_second(&client, &mut endpoint, count, move |it| name(it % TYPES)).await;
    // Those that have timed out meanwhile are followed by the next ones.
    let (made, ended) = *hangs.borrow();
    assert!(made - ended >= hanging * 9 / 10, "{made} hung, {ended} have ended");
    rig.kill();
    let more = format!(
        "p50 {:.1} ms, p99 {:.1} ms with {} hanging",
        percentile(&mut took, 50).as_secs_f64() * 1_000.0,
        percentile(&mut took, 99).as_secs_f64() * 1_000.0,
        made - ended
    );
    let (operations, recovery) = (TYPES + count, None);
    Row { fault, operations, lost: 0, duplicated: 0, recovery, more }.print();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_endpoints_hang() {
    check("200 endpoints hang, 20 do not", 200, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half a minute, and is measured alone"]
async fn very_many_endpoints_hang() {
    check("2,000 endpoints hang, 20 do not", 2_000, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn there_are_very_many_subscriptions() {
    const COUNT: usize = 100_000;
    const EVENTS: usize = 500;
    let mut rig = Rig::started().await;
    let mut endpoint = Endpoint::start().await;
    let start = Instant::now();
    let all = (0..COUNT)
        .map(|it| subscription(&endpoint.url(&format!("/{it}")), [format!("t.{it}")]))
        .collect();
    subscribe_all(&rig.client(), all).await;
    let rate = COUNT as f64 / start.elapsed().as_secs_f64();
    let of = |number: usize| number * 7_919 % COUNT;
    let mut took =
        at_100_a_second(&rig.client(), &mut endpoint, EVENTS, move |it| format!("t.{}", of(it)))
            .await;

    // What is accepted when it is killed is delivered after a start with all of them.
    let client = rig.client();
    for number in 0..EVENTS {
        let event = event(&format!("after-{number}"), &format!("t.{}", of(number)), 1);
        client.publish(&event).await.expect(202);
    }
    rig.kill();
    let start = Instant::now();
    rig.start(&[]).await;
    let ready = start.elapsed();
    let wanted = (0..EVENTS).map(|it| (format!("/{}", of(it)), format!("after-{it}")));
    let mut ledger = Ledger::default();
    let lost = ledger.lost(&mut endpoint, &wanted.collect::<Vec<_>>()).await;
    let recovery = Some(start.elapsed());
    rig.await_delivered(2 * EVENTS).await;
    let duplicated = ledger.duplicated();
    let more = format!(
        "made at {rate:.0}/s; p99 {:.1} ms; started in {:.1} s; {} MiB of memory",
        percentile(&mut took, 99).as_secs_f64() * 1_000.0,
        ready.as_secs_f64(),
        rig.router().bytes("VmHWM") >> 20
    );
    rig.stop();
    let (fault, operations) = ("100,000 subscriptions, and kill -9", 2 * EVENTS);
    Row { fault, operations, lost, duplicated, recovery, more }.print();
}
