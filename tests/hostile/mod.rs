//! Files and guests that want to do harm, against a router that is a process of its own: what ends it,
//! makes it panic or makes it large is seen from outside.

mod bombs; // files that take the compiler long
mod bounds; // what costs the router much
mod bytes;
mod fuzz; // files that were changed by chance
pub(crate) mod guests;
pub(crate) mod manifests; // what plugins say of themselves, and take
mod refusals; // files that are no plugins
mod rivals; // who uploads at the same time
mod runs; // guests that go wrong on the way of an event
mod scripts; // the same in JavaScript
pub(crate) mod sizes; // files that want much
mod verdicts; // answers that cannot be carried out

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::harness::client::Answer;
use crate::harness::process::{self, Process};
use crate::harness::yard::{TENANT, event};
use crate::harness::{Client, Endpoint, PATIENCE};

/// By how much the router may ever have been larger than at its start.
const GROWTH_BYTES_MAX: u64 = 192 << 20;
/// How long an answer may be that tells what is wrong with a file.
const REFUSAL_BYTES_MAX: usize = 256 << 10;

/// The router that is to be harmed.
pub(crate) struct Victim {
    pub(crate) router: Process,
    pub(crate) store: String,
    pub(crate) client: Client,
    /// Its subscription has no steps: whatever happens, it gets every event.
    pub(crate) healthy: Endpoint,
    /// Of the subscriptions with hostile steps.
    pub(crate) sink: Endpoint,
    bytes_at_start: u64,
    folder: TempDir,
}

impl Victim {
    pub(crate) async fn start() -> Victim {
        Victim::start_with(&[]).await
    }

    /// With some settings, by their environment variables.
    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Victim {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        let token = process::token(&path, TENANT);
        // The standard plugins are compiled by the usual settings.
        drop(Process::serve(&path));
        let store = format!("sqlite:{}", path.display());
        let mut command = process::command(process::binary());
        command.args(["serve", "--store", &store]).env("HOOKYARD_PLUGIN_VERSIONS_MAX", "10000");
        command.envs(settings.iter().copied());
        command.stderr(fs::File::create(folder.path().join("stderr")).unwrap());
        let router = Process::start(command);
        let client = router.client(&token);
        let (healthy, sink) = (Endpoint::start().await, Endpoint::start().await);
        let mut victim = Victim { router, store, client, healthy, sink, bytes_at_start: 0, folder };
        let body = json!({
            "name": "healthy", "url": victim.healthy.url("/"), "filters": [{"type": "*"}],
        });
        victim.client.post("/v1/subscriptions", &body).await.expect(201);
        victim.bytes_at_start = victim.router.bytes("VmRSS");
        victim
    }

    /// Uploads a file, and says what has become of it: `accepted`, or the code of the refusal.
    pub(crate) async fn upload(&self, name: &str, file: Vec<u8>) -> (String, Answer) {
        let answer = in_time(name, self.client.upload(name, file)).await;
        let named = answer.body["code"].as_str().unwrap_or("").to_owned();
        let shown: String = answer.text.chars().take(2_000).collect();
        match answer.status {
            201 => return ("accepted".to_owned(), answer),
            400 | 413 | 422 => assert!(!named.is_empty(), "{name}: {shown}"),
            status => panic!("{name}: {status} {shown}"),
        }
        assert!(answer.text.len() < REFUSAL_BYTES_MAX, "{name} is told {shown}");
        (named, answer)
    }

    /// A subscription to everything through a plugin.
    pub(crate) async fn try_subscribe(&self, name: &str, config: &Value) -> Answer {
        let body = json!({
            "name": name, "url": self.sink.url("/"), "filters": [{"type": "*"}],
            "steps": [{"plugin": name, "config": config}],
        });
        in_time(name, self.client.post("/v1/subscriptions", &body)).await
    }

    /// Publishes, and waits until the healthy subscription has it.
    pub(crate) async fn publish(&mut self, data: Value) -> String {
        let answer = self.client.publish(&event("t", data.clone())).await.expect(202);
        assert_eq!(self.healthy.next().await.json()["data"], data);
        answer["id"].as_str().unwrap().to_owned()
    }

    /// The deliveries of a subscription, as soon as there are some and none is on its way.
    pub(crate) async fn settled(&self, subscription: &Value) -> Vec<Value> {
        let query = format!("subscription={}", subscription["id"].as_str().unwrap());
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.client.deliveries(&query).await;
            let done = ["delivered", "failed", "filtered"];
            if !found.is_empty() && found.iter().all(|it| done.iter().any(|d| it["state"] == *d)) {
                return found;
            }
            assert!(Instant::now() < until, "{}: {found:?}", subscription["name"]);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The router lives, has never panicked, has never been much larger, and delivers.
    pub(crate) async fn check_unharmed(mut self) {
        self.publish(json!("last")).await;
        let stderr = fs::read_to_string(self.folder.path().join("stderr")).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        let (before, most) = (self.bytes_at_start >> 20, self.router.bytes("VmHWM") >> 20);
        assert!(
            most < before + (GROWTH_BYTES_MAX >> 20),
            "it has grown from {before} to {most} MiB"
        );
    }
}

/// One file, and what becomes of it: `accepted` or a code, or several of them with `|` between.
type Upload = (&'static str, Vec<u8>, &'static str);

/// Uploads one file after the other. What is accepted then has to run without harm.
async fn check_uploads(settings: &[(&str, &str)], cases: Vec<Upload>) {
    let mut victim = Victim::start_with(settings).await;
    let mut running = Vec::new();
    for (number, (what, file, wanted)) in cases.into_iter().enumerate() {
        let name = format!("n{number}");
        let (got, answer) = victim.upload(&name, file).await;
        let is_wanted = wanted.split('|').any(|it| it == got);
        let shown: String = answer.text.chars().take(2_000).collect();
        assert!(is_wanted, "{what}: {got} instead of {wanted}; {shown}");
        if got == "accepted" {
            running.push(victim.try_subscribe(&name, &json!({})).await.expect(201));
        }
    }
    victim.publish(json!({"a": 1})).await;
    for subscription in &running {
        check_settled(&victim.settled(subscription).await);
    }
    victim.check_unharmed().await;
}

/// Each was delivered or dropped, or failed by its plugin.
fn check_settled(deliveries: &[Value]) {
    for it in deliveries {
        let reason = &it["reason"]["code"];
        assert!(reason != "internal" && reason != "plugin-not-run", "{it}");
    }
}

/// What everything that is asked of the router comes to.
async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} has no end"))
}
