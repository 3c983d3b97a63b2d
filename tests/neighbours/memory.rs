//! Bodies and answers of one tenant take so much memory and no more, and others go on.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::raw::{Raw, address, head};
use crate::harness::process::{self, Process};
use crate::harness::yard::{TENANT, event};
use crate::harness::{Client, Endpoint, PATIENCE, Yard};

/// Nearly as much as an event can have.
const LARGE: usize = 900_000;
const MIB: u64 = 1 << 20;
/// How often something large is asked for that is not read: the system takes some megabytes of it.
const UNREAD: usize = 16;

/// A router as a process of its own, so that its memory is seen, with two tenants.
struct House {
    router: Process,
    client: Client,
    /// Another token of the same tenant.
    other: Client,
    neighbour: Client,
    _folder: TempDir,
}

impl House {
    async fn start(settings: &[(&str, &str)]) -> House {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        let tokens = [TENANT, TENANT, "neighbour"].map(|tenant| process::token(&path, tenant));
        let mut command = process::serve_command(&path);
        command.envs(settings.iter().copied());
        let router = Process::start(command);
        let [client, other, neighbour] = tokens.map(|token| router.client(&token));
        House { router, client, other, neighbour, _folder: folder }
    }

    /// Publishes large events, and answers with their ids.
    async fn publish(&self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for number in 0..count {
            let data = json!({"number": number, "text": "x".repeat(LARGE)});
            let answer = self.client.publish(&event("large", data)).await.expect(202);
            ids.push(answer["id"].as_str().unwrap().to_owned());
        }
        ids
    }

    /// What the memory has grown by at most while something went on.
    fn grown(&self, before: u64) -> u64 {
        self.router.bytes("VmHWM").saturating_sub(before) / MIB
    }
}

/// Reads the heads of answers that are not read on, and says how often each status came.
async fn statuses(all: Vec<Raw>) -> (Vec<Raw>, Vec<u16>) {
    let mut kept = Vec::new();
    let mut statuses = Vec::new();
    for mut raw in all {
        statuses.push(raw.hear_head().await);
        kept.push(raw);
    }
    (kept, statuses)
}

fn count(statuses: &[u16], wanted: u16) -> usize {
    statuses.iter().filter(|it| **it == wanted).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_that_nobody_reads_take_little() {
    let house = House::start(&[]).await;
    let endpoint = Endpoint::start().await;
    let body = json!({"name": "x", "url": endpoint.url("/"), "filters": [{"type": "*"}]});
    house.client.post("/v1/subscriptions", &body).await.expect(201);
    house.publish(40).await;
    house.client.await_deliveries("state=delivered", 40).await;
    let to = address(&house.client);
    let mut all = Vec::new();
    let before = house.router.bytes("VmHWM");
    for _ in 0..20 {
        let mut raw = Raw::open_narrow(to).await;
        raw.say(head("GET /v1/deliveries/export", house.client.token(), "")).await;
        all.push(raw);
    }
    let (mut held, statuses) = statuses(all).await;
    // A token has two of them, and all tokens of a tenant four.
    assert_eq!((count(&statuses, 200), count(&statuses, 429)), (2, 18), "{statuses:?}");
    sleep(Duration::from_secs(1)).await;
    assert!(house.grown(before) < 24, "{} MiB", house.grown(before));
    // One that is read has everything, and another one can begin when it has ended.
    let at = statuses.iter().position(|it| *it == 200).unwrap();
    let text = held.remove(at).hear_chunks().await;
    let lines: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let numbers: HashSet<u64> =
        lines.iter().map(|it| it["event"]["data"]["number"].as_u64().unwrap()).collect();
    assert_eq!((lines.len(), numbers.len()), (40, 40));
    assert!(lines.iter().all(|it| it["attempts"][0]["status"] == 200));
    drop(held);
    let until = Instant::now() + PATIENCE;
    while house.client.get("/v1/deliveries/export").await.status != 200 {
        assert!(Instant::now() < until, "exports that have ended are still counted");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(house.grown(before) < 48, "{} MiB", house.grown(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn comparisons_that_nobody_reads_take_little() {
    let house = House::start(&[]).await;
    let endpoint = Endpoint::start().await;
    let body = json!({"name": "x", "url": endpoint.url("/"), "filters": [{"type": "large"}]});
    let made = house.client.post("/v1/subscriptions", &body).await.expect(201);
    house.publish(60).await;
    house.client.await_deliveries("state=delivered", 60).await;
    let path = format!("/v1/subscriptions/{}/compare", made["id"].as_str().unwrap());
    let body = json!({"steps": [{"plugin": "minimize", "config": {"remove": ["/text"]}}]});
    // What is compiled for it is there already. Whoever asked is at its end a moment before the router knows.
    house.other.post(&path, &body).await;
    let (to, body) = (address(&house.client), body.to_string());
    let before = house.router.bytes("VmHWM");
    let more = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let mut all = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::open_narrow(to).await;
        raw.say(head(&format!("POST {path}"), house.client.token(), &more) + &body).await;
        all.push(raw);
    }
    let (held, statuses) = statuses(all).await;
    assert_eq!((count(&statuses, 200), count(&statuses, 429)), (2, 18), "{statuses:?}");
    sleep(Duration::from_secs(1)).await;
    assert!(house.grown(before) < 64, "{} MiB", house.grown(before));
    drop(held);
    // An event that is shown, and one that is compared, wait for nobody who has gone away.
    house.neighbour.publish(&event("t", json!(1))).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_come_slowly_are_within_the_bound() {
    let house = House::start(&[("HOOKYARD_API_BYTES_MAX", "33554432")]).await;
    let to = address(&house.client);
    house.client.publish(&event("t", json!("x".repeat(LARGE)))).await.expect(202);
    let before = house.router.bytes("VmHWM");
    let body = Arc::new(event("t", json!("x".repeat(LARGE))).to_string());
    let token = house.client.token().unwrap().to_owned();
    let mut all = JoinSet::new();
    for number in 0..300 {
        let (body, token) = (Arc::clone(&body), token.clone());
        // All of the ways in which a body is read.
        let path = match number % 3 {
            0 => "POST /v1/events",
            1 => "POST /v1/subscriptions",
            _ => "POST /kajabi/v1/hooks",
        };
        let media_type = match number % 3 {
            0 => "application/cloudevents+json",
            1 => "application/json",
            _ => "application/vnd.api+json",
        };
        all.spawn(async move {
            let mut raw = Raw::open(to).await;
            let more = format!("content-type: {media_type}\r\ncontent-length: {}\r\n", body.len());
            raw.say(head(path, Some(&token), &more)).await;
            raw.pour(&body.as_bytes()[1..]).await;
            raw
        });
    }
    let mut held = all.join_all().await;
    let grown = house.grown(before);
    assert!(grown < 64, "{grown} MiB");
    // The tenant is told which bound it has met, as a publisher too; the neighbour has its own part.
    let refused = house.client.publish(&event("t", json!("x".repeat(LARGE)))).await;
    assert_eq!(refused.header("retry-after"), "1");
    let detail = refused.expect(503)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("`api-bytes-max`"), "{detail}");
    house.neighbour.publish(&event("t", json!("x".repeat(LARGE)))).await.expect(202);
    let refused = held.iter_mut().find_map(|raw| raw.try_heard());
    let refused = refused.expect("some of them were refused at once");
    assert_eq!(refused.status, 503, "{refused:?}");
    drop(held);
    let until = Instant::now() + PATIENCE;
    while house.client.publish(&event("t", json!("x".repeat(LARGE)))).await.status != 202 {
        assert!(Instant::now() < until, "what has ended is still counted");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_are_within_the_bound() {
    let house = House::start(&[("HOOKYARD_API_BYTES_MAX", "33554432")]).await;
    let id = house.publish(1).await.remove(0);
    let values: Vec<_> = (0..500).map(|it| format!("{it}-{}", "x".repeat(240))).collect();
    let filters: Vec<_> =
        (0..6).map(|it| json!({"type": format!("t{it}"), "attributes": {"a": values}})).collect();
    let url = "http://127.0.0.1:9999/";
    let large = json!({"name": "x", "url": url, "state": "paused", "filters": filters});
    house.client.post("/v1/subscriptions", &large).await.expect(201);
    let to = address(&house.client);
    house.client.get(&format!("/v1/events/{id}")).await.expect(200);
    let before = house.router.bytes("VmHWM");
    let token = house.client.token().unwrap().to_owned();
    let mut all = JoinSet::new();
    for number in 0..400 {
        // What is sent piece by piece, and what is sent as a whole.
        let path = match number % 2 {
            0 => format!("/v1/events/{id}"),
            _ => "/v1/subscriptions".to_owned(),
        };
        let token = token.clone();
        all.spawn(async move {
            let mut raw = Raw::open_narrow(to).await;
            let asked = head(&format!("GET {path}"), Some(&token), "");
            raw.say(asked.repeat(UNREAD)).await;
            raw
        });
    }
    let (held, statuses) = statuses(all.join_all().await).await;
    let until = Instant::now() + PATIENCE;
    let path = format!("/v1/events/{id}");
    let refused = loop {
        let answer = house.client.get(&path).await;
        if answer.status == 503 {
            break answer.body;
        }
        assert!(Instant::now() < until, "there is room for all of them");
    };
    let grown = house.grown(before);
    // What is held, and what four calls at a time take to make a megabyte each in a test build. Without a
    // bound it is three times as much.
    assert!(grown < 128, "{grown} MiB");
    assert_eq!(count(&statuses, 503) + count(&statuses, 200), 400, "{statuses:?}");
    assert!(refused["detail"].as_str().unwrap().contains("`api-bytes-max`"), "{refused}");
    let other = house.neighbour.publish(&event("t", json!("x".repeat(LARGE)))).await.expect(202);
    let path = format!("/v1/events/{}", other["id"].as_str().unwrap());
    let read = house.neighbour.get(&path).await.expect(200);
    assert_eq!(read["data"].as_str().unwrap().len(), LARGE);
    drop(held);
    let until = Instant::now() + PATIENCE;
    while house.client.get(&format!("/v1/events/{id}")).await.status != 200 {
        assert!(Instant::now() < until, "what has ended is still counted");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_ends_when_it_is_long_enough() {
    let yard = Yard::start().await;
    let endpoint = Endpoint::start().await;
    let long = |number: usize| {
        let values: Vec<_> =
            (0..1_000).map(|it| format!("{number}-{it}-{}", "x".repeat(240))).collect();
        json!({
            "name": format!("{number}"), "url": endpoint.url("/"), "state": "paused",
            "filters": [
                {"type": "a", "attributes": {"a": values[..500]}},
                {"type": "b", "attributes": {"a": values[500..]}},
            ],
        })
    };
    for number in 0..20 {
        yard.client.post("/v1/subscriptions", &long(number)).await.expect(201);
    }
    let mut names = HashSet::new();
    let mut pages = 0;
    let mut after = String::new();
    loop {
        let path = format!("/v1/subscriptions?limit=500{after}");
        let answer = yard.client.get(&path).await;
        assert!(answer.text.len() < 1_200_000, "{} bytes", answer.text.len());
        let page = answer.expect(200);
        let all = page["subscriptions"].as_array().unwrap();
        assert!(all.iter().all(|it| names.insert(it["name"].clone())), "one comes twice");
        pages += 1;
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(names.len(), 20);
    assert!((5..=20).contains(&pages), "{pages} pages");
    // One that is longer than a page is a page by itself.
    let one = yard.client.get("/v1/subscriptions?limit=1").await.expect(200);
    assert_eq!(one["subscriptions"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_too_long_for_an_api_is_refused_by_name() {
    let yard = Yard::start().await;
    let endpoint = Endpoint::start().await;
    let path = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
    let make = async |number: usize| {
        let groups: Vec<_> =
            (0..500).map(|it| format!("{number}-{it}-{}", "x".repeat(240))).collect();
        let types = ["group.added", "group.updated", "group.deactivated"];
        let items: Vec<_> =
            types.map(|it| json!({"Entity": "Groups", "EventType": it, "Groups": groups})).into();
        let url = endpoint.url(&format!("/{number}")).replace("http://", "https://");
        let body = json!({"Name": "x", "Url": url, "Subscriptions": items});
        yard.client.post(&path, &body).await.expect(201);
    };
    for number in 0..10 {
        make(number).await;
    }
    let all = yard.client.get(&path).await.expect(200);
    assert_eq!(all.as_array().unwrap().len(), 10);
    for number in 10..26 {
        make(number).await;
    }
    let answer = yard.client.get(&path).await;
    assert_eq!(answer.header("retry-after"), "", "it is no better later");
    let message = answer.expect(501)["Message"].as_str().unwrap().to_owned();
    assert!(message.contains("/v1/subscriptions"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_are_shown_as_they_were() {
    let yard = Yard::start().await;
    let endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    let headers = [("content-type", "application/cloudevents+json")];
    let data = "{ \"id\": 9007199254740993.10,\n  \"b\": [1,\n2 ] }";
    let text =
        format!(r#"{{"specversion":"1.0","id":"1","source":"/x","type":"t","data":{data}}}"#);
    let made = yard.client.call(reqwest::Method::POST, "/v1/events", &headers, text).await;
    let id = made.expect(202)["id"].as_str().unwrap().to_owned();
    let shown = yard.client.get(&format!("/v1/events/{id}")).await;
    assert!(shown.text.contains(data), "{}", shown.text);
    yard.await_deliveries("state=delivered", 1).await;
    let lines = yard.client.get("/v1/deliveries/export").await.text;
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains("9007199254740993.10"), "{lines}");
    let line: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(line["event"]["data"]["b"], json!([1, 2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_are_streams() {
    let yard = Yard::start().await;
    let to = address(&yard.client);
    let version = yard.client.get("/v1/plugins/javascript").await.expect(200);
    let path =
        format!("/v1/plugins/javascript/versions/{}/file", version["digest"].as_str().unwrap());
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::open_narrow(to).await;
        // More than the system keeps for a connection that nobody reads from.
        raw.say(head(&format!("GET {path}"), yard.client.token(), "").repeat(UNREAD)).await;
        assert_eq!(raw.hear_head().await, 200);
        held.push(raw);
    }
    sleep(Duration::from_millis(500)).await;
    let refused = yard.client.get(&path).await;
    assert_eq!((refused.status, &refused.body["code"]), (429, &json!("too-many-calls")));
    // Somebody else's token of the same tenant has two of its own, and the tenant four.
    let other = yard.client.with_token(Some(&yard.token(Some(TENANT), "admin").await));
    assert_eq!(other.download(&path).await.1.len() as u64, version["size_bytes"].as_u64().unwrap());
    held.clear();
    let until = Instant::now() + PATIENCE;
    while yard.client.get(&path).await.status != 200 {
        assert!(Instant::now() < until, "what has ended is still counted");
        sleep(Duration::from_millis(20)).await;
    }
}
