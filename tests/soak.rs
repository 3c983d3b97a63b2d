//! `make soak MINUTES=10`: a steady load on the real binary while endpoints, plugins and the router itself
//! fail, with figures each minute. It ends by itself, and in failure when an event is lost.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, interval_at};

use crate::harness::plugins::plugin;
use crate::harness::process::{self, Process};
use crate::harness::{Client, Heard, Mood, Moody};

/// 100 events a second, in batches.
const BATCH: usize = 10;
const BATCH_EVERY: Duration = Duration::from_millis(100);
/// How often an endpoint has another mood, and how often the router ends in the midst of things.
const MOOD_EVERY: Duration = Duration::from_secs(1);
const RESTART_EVERY: Duration = Duration::from_secs(20);
const HEAR_EVERY: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);
/// How long it may take, at the end, until nothing waits any more.
const SETTLE: Duration = Duration::from_secs(300);

/// One for each way of an event: untouched, made smaller, dropped at times, failed by a plugin at times.
const PATHS: [&str; 4] = ["/plain", "/small", "/some", "/brittle"];

fn steps(path: &str) -> Value {
    match path {
        "/small" => json!([{"plugin": "minimize", "config": {"remove": ["/more"]}}]),
        "/some" => json!([{"plugin": "filter", "config": {"when": {"at": "/dots", "gte": 3}}}]),
        // It fails where that is not a number.
        "/brittle" => {
            json!([{"plugin": "misbehave", "config": {"do": "error", "with": "/fragile"}}])
        }
        _ => json!([]),
    }
}

fn event(number: usize) -> Value {
    json!({
        "specversion": "1.0",
        "id": number.to_string(),
        "source": "/soak",
        "type": "t",
        "data": {
            "dots": number % 6,
            "fragile": if number % 10 == 7 { json!("broken") } else { json!(number) },
            "more": "x".repeat(200 + number % 800),
        },
    })
}

fn is_wanted(path: &str, number: usize) -> bool {
    path != "/some" || number % 6 >= 3
}

/// Publishes, each batch until it is accepted. Answers with the router's id of each event.
async fn publish(
    client: watch::Receiver<Client>,
    stop: watch::Receiver<bool>,
    published: watch::Sender<usize>,
) -> Vec<String> {
    let mut ids = Vec::new();
    let mut ticks = interval(BATCH_EVERY);
    while !*stop.borrow() {
        ticks.tick().await;
        let batch: Vec<Value> = (ids.len()..ids.len() + BATCH).map(event).collect();
        let batch = json!(batch).to_string();
        let headers = [("content-type", "application/cloudevents-batch+json")];
        let answer = loop {
            let client = client.borrow().clone();
            let method = reqwest::Method::POST;
            match client.try_call(method, "/v1/events", &headers, batch.clone()).await {
                Ok(answer) => break answer.expect(202),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let accepted = answer["accepted"].as_array().unwrap();
        ids.extend(accepted.iter().map(|it| it["id"].as_str().unwrap().to_owned()));
        published.send_replace(ids.len());
    }
    ids
}

struct Soak {
    rng: StdRng,
    endpoint: Moody,
    router: Option<Process>,
    token: String,
    client: watch::Sender<Client>,
    /// The id of each path's subscription.
    subscriptions: Vec<String>,
    /// What was answered with success: the path and the number of the event.
    delivered: HashSet<(usize, usize)>,
    requests: usize,
    restarts: usize,
    folder: TempDir,
}

fn store(folder: &Path) -> PathBuf {
    folder.join("store.sqlite")
}

fn serve(folder: &Path) -> Process {
    let mut command = process::command(process::binary());
    command.args(["serve", "--store", &format!("sqlite:{}", store(folder).display())]);
    // A minute has room for several failures.
    command.args(["--endpoint-probe-ms", "2000", "--plugin-probe-ms", "2000"]);
    command.args(["--shutdown-ms", "1000"]);
    Process::start(command)
}

impl Soak {
    async fn start(seed: u64) -> Soak {
        let folder = tempfile::tempdir().unwrap();
        let token = process::token(&store(folder.path()), "acme");
        let router = serve(folder.path());
        let (client, endpoint) = (router.client(&token), Moody::start().await);
        client.upload("misbehave", plugin("misbehave")).await.expect(201);
        let mut subscriptions = Vec::new();
        for path in PATHS {
            let body = json!({
                "name": path, "url": endpoint.url(path), "filters": [{"type": "*"}],
                "steps": steps(path),
            });
            let made = client.post("/v1/subscriptions", &body).await.expect(201);
            let id = made["id"].as_str().unwrap().to_owned();
            // Endpoints fail for some seconds, and seldom for long enough that it is the end.
            let pace = json!({"retry_after_seconds": [1, 2, 4, 8, 16]});
            let path = format!("/v1/subscriptions/{id}/pace");
            client.json(reqwest::Method::PUT, &path, &pace).await.expect(200);
            subscriptions.push(id);
        }
        Soak {
            rng: StdRng::seed_from_u64(seed),
            endpoint,
            router: Some(router),
            token,
            client: watch::Sender::new(client),
            subscriptions,
            delivered: HashSet::new(),
            requests: 0,
            restarts: 0,
            folder,
        }
    }

    fn change_a_mood(&mut self) {
        let path = PATHS[self.rng.random_range(0..PATHS.len())];
        let moods = [Mood::Fails(500), Mood::Fails(503), Mood::Hangs, Mood::Resets];
        let well = self.rng.random_ratio(3, 5);
        let other = moods[self.rng.random_range(0..moods.len())];
        self.endpoint.set(path, if well { Mood::Takes } else { other });
    }

    fn restart(&mut self) {
        let router = self.router.take().unwrap();
        if self.rng.random_ratio(3, 4) {
            router.kill();
        } else {
            assert!(router.terminate().success());
        }
        let router = serve(self.folder.path());
        self.client.send_replace(router.client(&self.token));
        self.router = Some(router);
        self.restarts += 1;
    }

    fn hear(&mut self) {
        for Heard { receipt, taken } in self.endpoint.heard() {
            self.requests += 1;
            let path = PATHS.iter().position(|it| *it == receipt.path).unwrap();
            let number: usize = receipt.json()["id"].as_str().unwrap().parse().unwrap();
            assert!(is_wanted(PATHS[path], number), "nobody wanted {receipt:?}");
            if taken {
                self.delivered.insert((path, number));
            }
        }
    }

    /// How many deliveries are to come.
    async fn backlog(&self) -> usize {
        let client = self.client.borrow().clone();
        let mut count = 0;
        for state in ["pending", "retrying", "held"] {
            count += client.deliveries(&format!("state={state}")).await.len();
        }
        count
    }

    async fn print(&self, minute: u64, published: usize, lost: Option<usize>) {
        let resident = self.router.as_ref().unwrap().bytes("VmRSS");
        let store = store(self.folder.path());
        let bytes: u64 = ["", "-wal"]
            .iter()
            .filter_map(|ending| std::fs::metadata(format!("{}{ending}", store.display())).ok())
            .map(|it| it.len())
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "a figure for reading")]
        let [resident, megabytes] = [resident, bytes].map(|it| it as f64 / f64::from(1 << 20));
        println!(
            "{minute:>6} | {resident:>8.1} | {megabytes:>9.1} | {:>7} | {published:>9} | {:>9} | {:>8} | {:>8} | {}",
            self.backlog().await,
            self.delivered.len(),
            self.requests,
            self.restarts,
            lost.map_or("-".to_owned(), |it| it.to_string()),
        );
    }

    /// Everything is well again, and nothing waits any more.
    async fn settle(&mut self) {
        self.endpoint.heal();
        let client = self.client.borrow().clone();
        for id in &self.subscriptions {
            let path = format!("/v1/subscriptions/{id}/resume");
            client.post(&path, &json!({})).await.expect(200);
        }
        let until = Instant::now() + SETTLE;
        while self.backlog().await > 0 {
            assert!(Instant::now() < until, "{} deliveries still wait", self.backlog().await);
            tokio::time::sleep(HEAR_EVERY).await;
        }
        self.hear();
    }

    /// What neither arrived nor shows in the log why it did not; and how many do show.
    async fn lost(&self, ids: &[String]) -> (usize, usize) {
        let client = self.client.borrow().clone();
        let mut shown = HashSet::new();
        for state in ["dead", "failed"] {
            for it in client.deliveries(&format!("state={state}")).await {
                assert!(it["reason"]["code"].is_string(), "{it}");
                let text = |name: &str| it[name].as_str().unwrap().to_owned();
                shown.insert((text("subscription"), text("event")));
            }
        }
        let mut lost = 0;
        for (number, id) in ids.iter().enumerate() {
            for (path, subscription) in self.subscriptions.iter().enumerate() {
                let accounted = !is_wanted(PATHS[path], number)
                    || self.delivered.contains(&(path, number))
                    || shown.contains(&(subscription.clone(), id.clone()));
                if !accounted {
                    println!("lost: event {number}, {id}, for {}", PATHS[path]);
                    lost += 1;
                }
            }
        }
        (lost, shown.len())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: `make soak`"]
async fn a_long_load_with_failures_loses_nothing() {
    let minutes: u64 = std::env::var("SOAK_MINUTES").map_or(10, |it| it.parse().unwrap());
    let seed: u64 = rand::random();
    let mut soak = Soak::start(seed).await;
    let (tell_stop, stop) = watch::channel(false);
    let (tell_published, published) = watch::channel(0);
    let publisher: JoinHandle<Vec<String>> =
        tokio::spawn(publish(soak.client.subscribe(), stop, tell_published));
    println!("seed {seed}");
    println!(
        "minute | RSS MiB  | store MiB | backlog | published | delivered | requests | restarts | lost"
    );
    let start = Instant::now();
    let after = |wait| interval_at(start + wait, wait);
    let (mut hears, mut moods) = (after(HEAR_EVERY), after(MOOD_EVERY));
    let (mut restarts, mut minute) = (after(RESTART_EVERY), after(MINUTE));
    let mut passed = 0;
    while passed < minutes {
        tokio::select! {
            _ = hears.tick() => soak.hear(),
            _ = moods.tick() => soak.change_a_mood(),
            _ = minute.tick() => {
                passed += 1;
                let published = *published.borrow();
                soak.print(passed, published, None).await;
            }
            _ = restarts.tick() => soak.restart(),
        }
    }
    tell_stop.send(true).unwrap();
    let ids = publisher.await.unwrap();
    soak.settle().await;
    let (lost, shown) = soak.lost(&ids).await;
    soak.print(passed, ids.len(), Some(lost)).await;
    println!("{shown} of what did not arrive is dead or failed, and the log says why");
    assert_eq!(lost, 0, "events were lost");
    assert!(soak.router.take().unwrap().terminate().success());
}
