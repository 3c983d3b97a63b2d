//! Does to the router what was chosen, and tells the model what was answered.

use std::process::ExitStatus;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::operation::{Draft, Operation, Wish};
use super::world::{Pipeline, Subscription, Temper, Tenant, World};
use crate::harness::plugins::filter_module;
use crate::harness::process::{self, Process};
use crate::harness::{Client, Moody};

const NAMES: [&str; 2] = ["acme", "globex"];
/// When a router is killed, it is at some point within this time after it was asked for something.
const KILL_STEPS: u32 = 8;
const KILL_STEP: Duration = Duration::from_micros(400);

pub(super) struct Run {
    pub(super) world: World,
    pub(super) endpoint: Moody,
    /// One for each tenant.
    pub(super) clients: Vec<Client>,
    router: Option<Process>,
    folder: TempDir,
}

/// How retries are made: soon, so that they come within the test.
fn pace(retries: usize, in_flight_max: u32) -> Value {
    json!({"retry_after_seconds": vec![1; retries], "in_flight_max": in_flight_max})
}

fn path(id: &str, rest: &str) -> String {
    format!("/v1/subscriptions/{id}{rest}")
}

impl Run {
    pub(super) async fn start() -> Run {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store.sqlite");
        let tenants = NAMES.map(|name| Tenant {
            name,
            token: process::token(&store, name),
            versions: Vec::new(),
            current: 0,
            published: 0,
        });
        let endpoint = Moody::start().await;
        let world = World::new(tenants.into());
        let mut run = Run { world, endpoint, clients: Vec::new(), router: None, folder };
        run.begin();
        for tenant in 0..NAMES.len() {
            run.upload(tenant, Temper::Accepts).await;
        }
        run
    }

    fn begin(&mut self) {
        let store = self.folder.path().join("store.sqlite");
        let mut command = process::command(process::binary());
        command.args(["serve", "--store", &format!("sqlite:{}", store.display())]);
        // What is out of order is tried again within the test.
        command.args(["--endpoint-probe-ms", "300", "--plugin-probe-ms", "300"]);
        let router = Process::start(command);
        self.clients = self.world.tenants.iter().map(|it| router.client(&it.token)).collect();
        self.router = Some(router);
    }

    fn crash(&mut self) {
        self.router.take().unwrap().kill();
        self.world.crashes += 1;
        self.begin();
    }

    pub(super) fn stop(mut self) -> ExitStatus {
        self.router.take().unwrap().terminate()
    }

    fn of(&self, subscription: usize) -> (&Client, &Subscription) {
        let it = &self.world.subscriptions[subscription];
        (&self.clients[it.tenant], it)
    }

    pub(super) async fn perform(&mut self, operation: Operation) {
        match operation {
            Operation::Publish { tenant, drafts, twice, killed } => {
                self.publish(tenant, &drafts, twice, killed).await;
            }
            Operation::PublishAgain { tenant, numbers } => {
                self.publish_again(tenant, &numbers).await;
            }
            Operation::Subscribe { tenant, wishes, pipeline, catch_up, retries } => {
                self.subscribe(tenant, wishes, pipeline, catch_up, retries).await;
            }
            Operation::Replace { subscription, wishes, catch_up, active } => {
                self.replace(subscription, wishes, catch_up, active).await;
            }
            Operation::SetSteps { subscription, pipeline } => {
                self.put(subscription, "/steps", &json!({"steps": pipeline.steps()})).await;
                self.world.set_pipeline(subscription, pipeline);
            }
            Operation::SetPace { subscription, retries, in_flight_max } => {
                self.put(subscription, "/pace", &pace(retries, in_flight_max)).await;
            }
            Operation::Pause { subscription } => {
                self.post(subscription, "/pause", 200).await;
                self.world.subscriptions[subscription].active = false;
            }
            Operation::Resume { subscription } => self.resume(subscription).await,
            Operation::Delete { subscription } => {
                let (client, it) = self.of(subscription);
                client.call(Method::DELETE, &path(&it.id, ""), &[], "").await.expect(204);
                self.world.subscriptions[subscription].deleted = true;
            }
            Operation::Rotate { subscription } => {
                let made = self.post(subscription, "/secret", 201).await;
                let secret = made["secret"].as_str().unwrap().to_owned();
                self.world.subscriptions[subscription].secrets.push(secret);
            }
            Operation::SetMood { subscription, mood } => {
                self.endpoint.set(&Subscription::path(subscription), mood);
            }
            Operation::Upload { tenant, temper } => self.upload(tenant, temper).await,
            Operation::MakeCurrent { tenant, version } => self.make_current(tenant, version).await,
            Operation::ReplayOne { subscription, event } => {
                self.replay_one(subscription, event).await;
            }
            Operation::Replay { subscription, states, slow } => {
                self.replay(subscription, states, slow).await;
            }
            Operation::CancelReplay { replay } => {
                let (tenant, id) = &self.world.replays[replay];
                let Some(id) = id else { return };
                let path = format!("/v1/replays/{id}/cancel");
                self.clients[*tenant].post(&path, &json!({})).await.expect(200);
            }
            Operation::Trespass { subscription, event } => {
                self.trespass(subscription, event).await;
            }
            Operation::Crash => self.crash(),
        }
    }

    async fn put(&self, subscription: usize, rest: &str, body: &Value) {
        let (client, it) = self.of(subscription);
        client.json(Method::PUT, &path(&it.id, rest), body).await.expect(200);
    }

    async fn post(&self, subscription: usize, rest: &str, status: u16) -> Value {
        let (client, it) = self.of(subscription);
        client.post(&path(&it.id, rest), &json!({})).await.expect(status)
    }

    pub(super) async fn resume(&mut self, subscription: usize) {
        self.post(subscription, "/resume", 200).await;
        self.world.subscriptions[subscription].active = true;
    }

    async fn publish(&mut self, tenant: usize, drafts: &[Draft], twice: bool, killed: bool) {
        let first = self.world.tenants[tenant].published;
        let number = |(offset, draft)| self.world.body(tenant, draft, first + offset);
        let bodies: Vec<Value> = drafts.iter().enumerate().map(number).collect();
        let mut sent = bodies.clone();
        sent.extend(bodies.first().filter(|_| twice).cloned());
        if killed {
            let (client, sent) = (self.clients[tenant].clone(), sent.clone());
            let asked = tokio::spawn(async move { send(&client, &sent).await });
            // Nobody says when it is on its way; and it is to be at another point each time.
            let steps = u32::try_from(first).unwrap() % KILL_STEPS;
            tokio::time::sleep(KILL_STEP * steps).await;
            self.crash();
            // Whatever the answer was: an event is published until it is accepted.
            let _ = asked.await.unwrap();
        }
        let answers = send(&self.clients[tenant], &sent).await.unwrap();
        assert!(killed || !answers[0].1, "{} was accepted before", bodies[0]);
        if twice {
            let (id, duplicate) = answers.last().unwrap();
            assert_eq!((id, *duplicate), (&answers[0].0, true), "{}", bodies[0]);
        }
        for (body, (id, _)) in bodies.into_iter().zip(answers) {
            self.world.accept(tenant, body, &id);
        }
    }

    async fn publish_again(&self, tenant: usize, numbers: &[usize]) {
        let events =
            numbers.iter().map(|it| &self.world.events[self.world.by_number[&(tenant, *it)]]);
        let bodies: Vec<Value> = events.clone().map(|it| it.body.clone()).collect();
        let answers = send(&self.clients[tenant], &bodies).await.unwrap();
        for (event, answer) in events.zip(answers) {
            assert_eq!(answer, (event.id.clone(), true), "{}", event.body);
        }
    }

    async fn subscribe(
        &mut self,
        tenant: usize,
        wishes: Vec<Wish>,
        pipeline: Pipeline,
        catch_up: bool,
        retries: usize,
    ) {
        let at = self.world.subscriptions.len();
        let body = self.request(at, &wishes, pipeline, catch_up, true);
        let made = self.clients[tenant].post("/v1/subscriptions", &body).await.expect(201);
        self.world.subscriptions.push(Subscription {
            tenant,
            id: made["id"].as_str().unwrap().to_owned(),
            wishes,
            pipeline,
            active: true,
            catch_up,
            deleted: false,
            secrets: vec![made["secret"].as_str().unwrap().to_owned()],
            renderings: vec![self.world.rendering(tenant, pipeline)],
            filtered: 0,
        });
        self.put(at, "/pace", &pace(retries, 32)).await;
    }

    async fn replace(&mut self, at: usize, wishes: Vec<Wish>, catch_up: bool, active: bool) {
        let pipeline = self.world.subscriptions[at].pipeline;
        let body = self.request(at, &wishes, pipeline, catch_up, active);
        self.put(at, "", &body).await;
        let it = &mut self.world.subscriptions[at];
        (it.wishes, it.catch_up, it.active) = (wishes, catch_up, active);
    }

    fn request(
        &self,
        at: usize,
        wishes: &[Wish],
        pipeline: Pipeline,
        catch_up: bool,
        active: bool,
    ) -> Value {
        json!({
            "name": at.to_string(),
            "url": self.endpoint.url(&Subscription::path(at)),
            "filters": wishes.iter().map(|it| it.to_json()).collect::<Vec<_>>(),
            "steps": pipeline.steps(),
            "catch_up": catch_up,
            "state": if active { "active" } else { "paused" },
        })
    }

    pub(super) async fn upload(&mut self, tenant: usize, temper: Temper) {
        let version = self.world.tenants[tenant].versions.len();
        let does = match temper {
            Temper::Accepts => "(i32.const 1024)",
            Temper::Rejects => "(i32.const 1040)",
            Temper::Traps => "unreachable",
        };
        let file = filter_module(does, &format!(r#"(data (i32.const 60000) "{version}")"#));
        let made = self.clients[tenant].upload("gate", file).await.expect(201);
        let digest = made["digest"].as_str().unwrap().to_owned();
        self.world.tenants[tenant].versions.push((digest, temper));
        self.world.make_current(tenant, version);
    }

    pub(super) async fn make_current(&mut self, tenant: usize, version: usize) {
        let body = json!({"digest": self.world.tenants[tenant].versions[version].0});
        let path = "/v1/plugins/gate/current";
        self.clients[tenant].json(Method::PUT, path, &body).await.expect(200);
        self.world.make_current(tenant, version);
    }

    async fn replay_one(&mut self, subscription: usize, event: usize) {
        let (client, it) = self.of(subscription);
        let tenant = it.tenant;
        let query = format!("subscription={}&event={}", it.id, self.world.events[event].id);
        let found = client.deliveries(&query).await;
        let mut id = None;
        // There is none where it was filtered, or before the event is routed.
        if let Some(found) = found.first() {
            let body = json!({"delivery": found["id"]});
            let made = client.post("/v1/replays", &body).await.expect(201);
            id = made["id"].as_str().map(str::to_owned);
            self.world.owed.get_mut(&(subscription, event)).unwrap().anew = true;
        }
        self.world.replays.push((tenant, id));
    }

    async fn replay(&mut self, subscription: usize, states: Option<&'static str>, slow: bool) {
        let (client, it) = self.of(subscription);
        let tenant = it.tenant;
        let mut body = json!({"subscription": it.id});
        if let Some(states) = states {
            body["states"] = json!([states]);
        }
        if slow {
            body["per_minute"] = json!(60);
        }
        let dry = client.post("/v1/replays", &with(&body, "dry_run")).await.expect(200);
        let sample = dry["sample"].as_array().unwrap();
        assert!(sample.iter().all(|of| of["subscription"] == *it.id), "{dry}");
        let made = client.post("/v1/replays", &body).await.expect(201);
        self.world.replays.push((tenant, made["id"].as_str().map(str::to_owned)));
        if states == Some("filtered") {
            for ((of, _), owed) in &mut self.world.owed {
                owed.anew |= *of == subscription;
            }
        }
    }

    /// The other tenant knows the ids, and that is of no use to it.
    async fn trespass(&self, subscription: usize, event: usize) {
        let it = &self.world.subscriptions[subscription];
        let stranger = &self.clients[1 - it.tenant];
        let nothing = json!({});
        for (method, rest) in [
            (Method::GET, ""),
            (Method::DELETE, ""),
            (Method::POST, "/pause"),
            (Method::POST, "/resume"),
            (Method::POST, "/secret"),
            (Method::PUT, "/pace"),
        ] {
            let answer = stranger.json(method, &path(&it.id, rest), &nothing).await;
            assert_eq!(answer.status, 404, "{rest}: {}", answer.text);
        }
        let query = format!("subscription={}", it.id);
        assert!(stranger.deliveries(&query).await.is_empty(), "{query}");
        let body = json!({"subscription": it.id, "states": ["delivered"], "dry_run": true});
        let dry = stranger.post("/v1/replays", &body).await.expect(200);
        assert_eq!(dry["total"], 0, "{dry}");

        let event = &self.world.events[event];
        let stranger = &self.clients[1 - event.tenant];
        let answer = stranger.get(&format!("/v1/events/{}", event.id)).await;
        assert_eq!(answer.status, 404, "{}", answer.text);
        assert!(stranger.deliveries(&format!("event={}", event.id)).await.is_empty());
        for (tenant, id) in self.world.replays.iter().rev().take(1) {
            let Some(id) = id else { continue };
            let path = format!("/v1/replays/{id}");
            assert_eq!(self.clients[1 - tenant].get(&path).await.status, 404);
        }
    }
}

fn with(body: &Value, flag: &str) -> Value {
    let mut body = body.clone();
    body[flag] = true.into();
    body
}

/// The id of each event, and whether it was accepted before; an error where nobody answered.
async fn send(client: &Client, bodies: &[Value]) -> reqwest::Result<Vec<(String, bool)>> {
    let taken = |it: &Value| (it["id"].as_str().unwrap().to_owned(), it["duplicate"] == true);
    let (kind, body) = match bodies {
        [body] => ("application/cloudevents+json", body.to_string()),
        _ => ("application/cloudevents-batch+json", json!(bodies).to_string()),
    };
    let headers = [("content-type", kind)];
    let answer = client.try_call(Method::POST, "/v1/events", &headers, body).await?.expect(202);
    if bodies.len() == 1 {
        return Ok(vec![taken(&answer)]);
    }
    assert_eq!(answer["rejected"], json!([]));
    Ok(answer["accepted"].as_array().unwrap().iter().map(taken).collect())
}
