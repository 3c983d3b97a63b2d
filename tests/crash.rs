//! The real binary, killed and stopped.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::harness::process::{self, Process};
use crate::harness::{Client, Endpoint};

const KILLS: usize = 22;
const PUBLISHERS: usize = 8;
/// The retry of an attempt that was refused comes five seconds later, and a killed one's at the start.
const SETTLE: Duration = Duration::from_secs(60);

fn event(publisher: usize, number: usize) -> Value {
    json!({
        "specversion": "1.0",
        "id": format!("{publisher}-{number}"),
        "source": "/crash",
        "type": "t",
        "data": {"number": number, "more": "x".repeat(number % 500)},
    })
}

/// Publishes events one after the other, each until it is accepted. Answers with how many were.
async fn publish(
    publisher: usize,
    client: watch::Receiver<Client>,
    stop: watch::Receiver<bool>,
) -> usize {
    let mut accepted = 0;
    while !*stop.borrow() {
        let event = event(publisher, accepted).to_string();
        let headers = [("content-type", "application/cloudevents+json")];
        loop {
            let client = client.borrow().clone();
            let method = reqwest::Method::POST;
            let answer = client.try_call(method, "/v1/events", &headers, event.clone()).await;
            match answer {
                Ok(answer) if answer.status == 202 => break,
                Ok(answer) => panic!("{}", answer.text),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        accepted += 1;
    }
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_and_changes_no_body() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.sqlite");
    let token = process::token(&store, "acme");
    let mut router = Process::serve(&store);
    let mut endpoint = Endpoint::start().await;

    let subscriptions = [
        ("/plain", json!([])),
        ("/small", json!([{"plugin": "minimize", "config": {"remove": ["/more"]}}])),
        (
            "/even",
            json!([{"plugin": "filter", "config":
            {"when": {"at": "/number", "in": (0..100_000).step_by(2).take(5_000).collect::<Vec<_>>()}}}]),
        ),
    ];
    for (path, steps) in &subscriptions {
        let body = json!({
            "name": path, "url": endpoint.url(path), "filters": [{"type": "*"}], "steps": steps,
        });
        router.client(&token).post("/v1/subscriptions", &body).await.expect(201);
    }

    let (tell_client, client) = watch::channel(router.client(&token));
    let (tell_stop, stop) = watch::channel(false);
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|it| tokio::spawn(publish(it, client.clone(), stop.clone()))).collect();
    for _ in 0..KILLS {
        // Now and then the endpoint refuses, so that retries are killed as well.
        endpoint.refuse(rng.random_range(0..3));
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..250))).await;
        router.kill();
        router = Process::serve(&store);
        tell_client.send(router.client(&token)).unwrap();
    }
    tell_stop.send(true).unwrap();
    let mut accepted = Vec::new();
    for publisher in publishers {
        accepted.push(publisher.await.unwrap());
    }

    let wanted = wanted(&accepted);
    let total = wanted.len();
    let receipts = receive(&mut endpoint, wanted).await;
    let accepted: usize = accepted.iter().sum();
    println!("{KILLS} kills, {accepted} events, {total} deliveries, {receipts} receipts");
    assert!(total > 500, "there was hardly any load");

    // And the log says so: one row for each, all of them delivered.
    let client = router.client(&token);
    client.await_deliveries("state=delivered", total).await;
    for state in ["pending", "retrying", "failed", "dead", "cancelled"] {
        client.await_deliveries(&format!("state={state}"), 0).await;
    }
    assert!(router.terminate().success());
}

/// Path and event of each delivery that there has to be.
fn wanted(accepted: &[usize]) -> HashSet<(String, String)> {
    let mut wanted = HashSet::new();
    for (publisher, count) in accepted.iter().enumerate() {
        for number in 0..*count {
            for path in ["/plain", "/small", "/even"] {
                if path != "/even" || number % 2 == 0 {
                    wanted.insert((path.to_owned(), format!("{publisher}-{number}")));
                }
            }
        }
    }
    wanted
}

/// Waits for all of them, and looks at every body. Answers with how many requests there were.
async fn receive(endpoint: &mut Endpoint, mut wanted: HashSet<(String, String)>) -> usize {
    let mut bodies: HashMap<String, bytes::Bytes> = HashMap::new();
    let mut ids: HashMap<(String, String), String> = HashMap::new();
    let mut receipts = 0;
    let until = Instant::now() + SETTLE;
    while !wanted.is_empty() {
        assert!(Instant::now() < until, "{} never came: {wanted:?}", wanted.len());
        for receipt in endpoint.arrived() {
            receipts += 1;
            let id = receipt.header("webhook-id").to_owned();
            let first = bodies.entry(id.clone()).or_insert_with(|| receipt.body.clone());
            assert_eq!(*first, receipt.body, "the body of {id} has changed");
            let of = receipt.json()["id"].as_str().unwrap().to_owned();
            let delivery = (receipt.path.clone(), of);
            let known = ids.entry(delivery.clone()).or_insert_with(|| id.clone());
            assert_eq!(*known, id, "{delivery:?} has two ids");
            wanted.remove(&delivery);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    receipts
}

/// Tells the body of a request, and never answers it.
async fn hang(mut stream: TcpStream, tell: mpsc::UnboundedSender<Value>) {
    let mut text = String::new();
    while !text.ends_with('}') {
        let mut buffer = [0; 4_096];
        let size = stream.read(&mut buffer).await.unwrap();
        text.push_str(std::str::from_utf8(&buffer[..size]).unwrap());
    }
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    tell.send(serde_json::from_str(body).unwrap()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rendered_late_has_one_body_through_a_crash_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.sqlite");
    let token = process::token(&store, "acme");
    let mut router = Process::serve(&store);
    let (tell, mut bodies) = mpsc::unbounded_channel();
    let hangs = Endpoint::raw(move |stream| hang(stream, tell.clone())).await;
    let client = router.client(&token);
    let body = json!({
        "name": "late", "url": hangs.url("/"), "filters": [{"type": "*"}],
        "steps": [{"plugin": "filter", "config": {"when": {"at": "/number", "gt": 5}}}],
    });
    let made = client.post("/v1/subscriptions", &body).await.expect(201);
    let steps_path = format!("/v1/subscriptions/{}/steps", made["id"].as_str().unwrap());
    client.publish(&event(1, 1)).await.expect(202);
    let filtered = client.await_deliveries("state=filtered", 1).await;

    // It is rendered for the first time when it is replayed, by what the subscription has then.
    client.json(Method::PUT, &steps_path, &json!({"steps": []})).await.expect(200);
    client.post("/v1/replays", &json!({"delivery": filtered[0]["id"]})).await.expect(201);
    let first = bodies.recv().await.unwrap();
    let steps = json!({"steps": [{"plugin": "minimize", "config": {"remove": ["/more"]}}]});
    client.json(Method::PUT, &steps_path, &steps).await.expect(200);
    router.kill();
    router = Process::serve(&store);
    assert_eq!(bodies.recv().await.unwrap(), first);
    router.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_router_does_not_touch_the_store_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.sqlite");
    let router = Process::serve(&store);
    let store = format!("sqlite:{}", store.display());
    let (status, said) = process::output(&["serve", "--store", &store]);
    assert!(!status.success());
    assert!(said.contains("another router uses"), "{said}");
    assert!(router.terminate().success());
}

#[test]
fn what_cannot_start_says_why() {
    for (arguments, words) in [
        (&["serve", "--store", "mysql://x"][..], "is not `sqlite:PATH`"),
        (&["serve", "--store", "sqlite:/nowhere/at/all"], "/nowhere/at/all"),
        (&["serve", "--config", "/nowhere.toml"], "cannot read the configuration file"),
        (&["serve", "--listen", "here"], "--listen"),
        (&["serve", "--log", "a=b=c"], "the log filter"),
        (&["dance"], "unrecognized subcommand"),
    ] {
        let (status, said) = process::output(arguments);
        assert!(!status.success(), "{arguments:?}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let (status, said) = process::output(&["--help"]);
    assert!(status.success());
    for words in ["serve", "token", "demo", "Run the router"] {
        assert!(said.contains(words), "{said}");
    }
}
