//! Faults that the router survives, each with what it costs: the real binary, and what a machine, a disk,
//! a network or a receiver can do to it. `make fault` prints the rows as a table.

mod clock; // a clock that is set
mod crowd; // very many subscriptions
mod deaths; // what ends the process each time that it is worked on
mod disk; // a disk that is full, read-only or slow
mod files; // the store's files, deleted, replaced or used by two
mod flips; // bits that a disk has turned
mod kill; // kill -9
mod names; // names that lead elsewhere or nowhere, receivers that restart
mod power; // a loss of power
mod race; // things that happen at the same time
mod receivers; // endpoints that do not keep to HTTP
mod shim;
mod stop; // stages that end, and stops while something hangs

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::harness::process::{self, Process};
use crate::harness::{Client, Endpoint, Receipt};
use shim::Shim;

/// How long it may take after a fault until everything is well.
const SETTLE: Duration = Duration::from_secs(90);

/// What a fault came to, as `make fault` prints it.
struct Row<'a> {
    fault: &'a str,
    /// Deliveries that were owed.
    operations: usize,
    lost: usize,
    /// Requests for what the receiver had answered with success.
    duplicated: usize,
    /// From the end of the fault until everything that was owed then had arrived; the longest.
    recovery: Option<Duration>,
    /// What else was measured.
    more: String,
}

impl Row<'_> {
    /// Prints the row; what was lost is a failure.
    #[track_caller]
    fn print(self) {
        let Row { fault, operations, lost, duplicated, recovery, more } = self;
        let recovery = recovery.map_or("-".to_owned(), |it| format!("{:.2} s", it.as_secs_f64()));
        println!("fault-row|{fault}|{operations}|{lost}|{duplicated}|{recovery}|{more}");
        assert_eq!(lost, 0, "{fault}");
    }
}

/// A router with its store, on a machine of its own.
struct Rig {
    folder: TempDir,
    shim: Shim,
    token: String,
    router: Option<Process>,
    log: TempDir,
}

impl Rig {
    fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let (shim, token) = (Shim::new(), process::token(&folder.path().join("x.sqlite"), "acme"));
        let log = tempfile::tempdir().unwrap();
        Rig { folder, shim, token, router: None, log }
    }

    async fn started() -> Rig {
        let mut rig = Rig::new();
        rig.start(&[]).await;
        rig
    }

    /// The folder of the store, which has nothing else in it.
    fn store(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Starts the router, with more in its environment. The one before has to have ended.
    async fn start(&mut self, more: &[(&str, &str)]) {
        self.try_start(more).await.expect("the router says where it listens");
    }

    /// The same, where it may end before it listens.
    async fn try_start(&mut self, more: &[(&str, &str)]) -> Result<(), ExitStatus> {
        let mut command = process::serve_command(&self.store().join("x.sqlite"));
        self.shim.load_into(&mut command, &self.store());
        command.envs(more.iter().copied());
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        command.stderr(log);
        let started = tokio::task::spawn_blocking(move || Process::try_start(command));
        self.router = Some(started.await.unwrap()?);
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.log.path().join("log")
    }

    /// All that the routers of this rig have said so far.
    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap()
    }

    fn router(&mut self) -> &mut Process {
        self.router.as_mut().unwrap()
    }

    fn kill(&mut self) {
        self.router.take().unwrap().kill();
    }

    fn stop(&mut self) {
        assert!(self.router.take().unwrap().terminate().success());
    }

    fn client(&self) -> Client {
        self.router.as_ref().unwrap().client(&self.token)
    }

    /// A subscription of our own format to all events of a type, which is tried again each second.
    async fn subscribe(&self, url: String, event_type: &str) -> Value {
        let body = json!({"name": "test", "url": url, "filters": [{"type": event_type}]});
        let client = self.client();
        let made = client.post("/v1/subscriptions", &body).await.expect(201);
        let path = format!("/v1/subscriptions/{}/pace", made["id"].as_str().unwrap());
        let pace = json!({"retry_after_seconds": vec![1; 20]});
        client.json(Method::PUT, &path, &pace).await.expect(200)
    }

    /// And the log says so: one row for each delivery, all of them delivered.
    async fn await_delivered(&self, count: usize) {
        self.await_settled(&[("delivered", count)]).await;
    }

    /// The log has so many rows of these states, and none of others.
    async fn await_settled(&self, wanted: &[(&str, usize)]) {
        let client = self.client();
        for state in ["delivered", "pending", "retrying", "held", "failed", "dead", "cancelled"] {
            let count =
                wanted.iter().find(|(name, _)| *name == state).map_or(0, |(_, count)| *count);
            client.await_deliveries(&format!("state={state}"), count).await;
        }
    }
}

/// Publishers that publish without a pause, each event until it is accepted.
struct Load {
    client: watch::Sender<Client>,
    stop: watch::Sender<bool>,
    publishers: Vec<JoinHandle<Published>>,
}

/// What publishers have published.
#[derive(Default)]
struct Published {
    /// Ids of events, each of which was answered with 202 in the end.
    events: Vec<String>,
    /// How often they were told to wait.
    refused: usize,
}

impl Load {
    /// `name` is what the ids of the events begin with.
    fn start(publishers: usize, client: Client, name: &str) -> Load {
        let (client, _) = watch::channel(client);
        let (stop, _) = watch::channel(false);
        let publisher = |number| {
            let name = format!("{name}-{number}");
            tokio::spawn(publish(name, client.subscribe(), stop.subscribe()))
        };
        Load { publishers: (0..publishers).map(publisher).collect(), client, stop }
    }

    /// The router has another address now.
    fn go_on_with(&self, client: Client) {
        self.client.send(client).unwrap();
    }

    /// Each publisher ends with an event that is accepted.
    async fn stop(self) -> Published {
        self.stop.send(true).unwrap();
        let mut all = Published::default();
        for publisher in self.publishers {
            let published = publisher.await.unwrap();
            all.events.extend(published.events);
            all.refused += published.refused;
        }
        all
    }
}

fn event(id: &str, event_type: &str, number: usize) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/fault", "type": event_type,
        "data": {"number": number, "more": "x".repeat(number % 500)},
    })
}

async fn publish(
    name: String,
    client: watch::Receiver<Client>,
    stop: watch::Receiver<bool>,
) -> Published {
    let mut published = Published::default();
    while !*stop.borrow() {
        let number = published.events.len();
        let id = format!("{name}-{number}");
        let event = event(&id, "t", number).to_string();
        let headers = [("content-type", "application/cloudevents+json")];
        loop {
            let client = client.borrow().clone();
            let answer = client.try_call(Method::POST, "/v1/events", &headers, event.clone()).await;
            match answer.map(|it| it.status) {
                Ok(202) => break,
                Ok(503) => published.refused += 1,
                Ok(other) => panic!("{other}"),
                Err(_) => {}
            }
            sleep(Duration::from_millis(5)).await;
        }
        published.events.push(id);
    }
    published
}

/// What has arrived: a delivery has one id and one body, however often it comes.
#[derive(Default)]
struct Ledger {
    bodies: HashMap<String, Bytes>,
    /// Of each path and event that was answered with success.
    ids: HashMap<(String, String), String>,
    /// How many requests were.
    taken: usize,
}

impl Ledger {
    fn take(&mut self, endpoint: &mut Endpoint) {
        endpoint.arrived().into_iter().for_each(|it| self.enter(it));
    }

    fn enter(&mut self, receipt: Receipt) {
        let id = receipt.header("webhook-id").to_owned();
        let first = self.bodies.entry(id.clone()).or_insert_with(|| receipt.body.clone());
        assert_eq!(*first, receipt.body, "the body of {id} has changed");
        if receipt.status != 200 {
            return;
        }
        self.taken += 1;
        let event = receipt.json()["id"].as_str().unwrap().to_owned();
        let delivery = (receipt.path, event);
        let known = self.ids.entry(delivery).or_insert_with(|| id.clone());
        assert_eq!(*known, id, "a delivery has two ids");
    }

    /// Waits until each of these has arrived, and answers with how many never do.
    async fn lost(&mut self, endpoint: &mut Endpoint, wanted: &[(String, String)]) -> usize {
        let mut wanted: HashSet<_> = wanted.iter().collect();
        let until = Instant::now() + SETTLE;
        loop {
            self.take(endpoint);
            wanted.retain(|it| !self.ids.contains_key(*it));
            if wanted.is_empty() || Instant::now() > until {
                return wanted.len();
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// How many requests came though they had been answered with success.
    fn duplicated(&self) -> usize {
        self.taken - self.ids.len()
    }
}

/// Each event at each of these paths.
fn at_each(paths: &[&str], events: &[String]) -> Vec<(String, String)> {
    let pair = |path: &&str, event: &String| ((*path).to_owned(), event.clone());
    paths.iter().flat_map(|path| events.iter().map(move |event| pair(path, event))).collect()
}
