//! There are so many connections and no more, and nobody is kept out or held up by those who say nothing.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::raw::{HEAD, PAUSE, Raw, address, head};
use crate::harness::process::{self, Process};
use crate::harness::yard::{TENANT, event};
use crate::harness::{PATIENCE, Yard};

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_in_all_and_by_address() {
    let yard = Yard::start_with(|it| {
        it.connections_max = Some(20);
        it.connections_per_address_max = Some(8);
    })
    .await;
    let to = address(&yard.client);
    // The client of the yard keeps its own.
    let idle = async |from: &str, count: usize| {
        let mut all = Vec::new();
        for _ in 0..count {
            let mut raw = Raw::open_from(from, to).await;
            raw.say(head("GET /healthz", None, "")).await;
            assert_eq!(raw.hear().await.status, 200);
            all.push(raw);
        }
        all
    };
    let refused = async |from: &str, bound: &str| {
        let mut raw = Raw::open_from(from, to).await;
        raw.say(head("GET /v1/subscriptions", yard.client.token(), "")).await;
        let heard = raw.hear().await;
        assert_eq!(heard.status, 503, "{heard:?}");
        assert_eq!(heard.header("content-type"), Some("application/problem+json"));
        assert_eq!(heard.header("connection"), Some("close"));
        assert!(heard.header("retry-after").is_some());
        let detail = heard.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(&format!("`{bound}`")), "{detail}");
        assert!(raw.ends(Duration::from_secs(2)).await.is_some());
    };
    let mut one = idle("127.0.0.2", 8).await;
    refused("127.0.0.2", "connections-per-address-max").await;
    // Somebody else is not kept out by it.
    let two = idle("127.0.0.3", 8).await;
    let three = idle("127.0.0.4", 3).await;
    let used = async || {
        let mut raw = Raw::open_from("127.0.0.5", to).await;
        raw.say(head("GET /v1/subscriptions", yard.client.token(), "")).await;
        raw.hear().await.status
    };
    yard.client.get("/healthz").await;
    refused("127.0.0.5", "connections-max").await;
    // Health is told all the same, whoever is full.
    for from in ["127.0.0.2", "127.0.0.5"] {
        for path in ["/healthz", "/readyz"] {
            let mut raw = Raw::open_from(from, to).await;
            raw.say(head(&format!("GET {path}"), None, "")).await;
            let heard = raw.hear().await;
            assert_eq!(
                (heard.status, heard.header("connection")),
                (200, Some("close")),
                "{heard:?}"
            );
        }
    }
    one.pop();
    let until = Instant::now() + PATIENCE;
    while used().await != 200 {
        assert!(Instant::now() < until, "what has ended is still counted");
        sleep(Duration::from_millis(5)).await;
    }
    drop((one, two, three));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_while_hundreds_dribble() {
    let yard = Yard::start_with(|it| {
        it.connections_max = Some(64);
        it.connections_per_address_max = Some(64);
    })
    .await;
    let to = address(&yard.client);
    let mut all = JoinSet::new();
    for _ in 0..500 {
        all.spawn(async move {
            // Whoever is turned away comes again.
            loop {
                let raw = Raw::open(to).await;
                raw.dribble(b"GET /v1/events HTTP/1.1\r\na", PAUSE, PATIENCE).await;
                sleep(PAUSE).await;
            }
        });
    }
    // Once somebody is turned away, all places are taken.
    let until = Instant::now() + PATIENCE;
    while !is_turned_away(to).await {
        assert!(Instant::now() < until, "there is room for all of them");
    }
    for number in 0..40 {
        let mut raw = Raw::open_from("127.0.0.9", to).await;
        let path = if number % 2 == 0 { "/healthz" } else { "/readyz" };
        raw.say(head(&format!("GET {path}"), None, "")).await;
        assert_eq!(raw.hear().await.status, 200, "{path}");
    }
    all.shutdown().await;
    let until = Instant::now() + PATIENCE;
    while yard.client.get("/v1/subscriptions").await.status != 200 {
        assert!(Instant::now() < until, "it has not recovered");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn is_turned_away(to: SocketAddr) -> bool {
    let mut raw = Raw::open(to).await;
    raw.say(head("GET /v1/nowhere", None, "")).await;
    raw.try_hear().await.is_none_or(|heard| heard.status == 503)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_it_says_so_once_and_goes_on_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let token = process::token(&path, TENANT);
    let mut command = process::command("sh");
    let script = "ulimit -n 72 && exec \"$@\"";
    command.args(["-c", script, "sh", process::binary(), "serve"]);
    command.args(["--store", &format!("sqlite:{}", path.display())]);
    let log = folder.path().join("stderr");
    command.stderr(std::fs::File::create(&log).unwrap());
    let router = Process::start(command);
    let client = router.client(&token);
    let to = address(&client);
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(Raw::open(to).await);
    }
    let said = |what: &str| std::fs::read_to_string(&log).unwrap().matches(what).count();
    let until = Instant::now() + PATIENCE;
    while said("no more file descriptors") == 0 {
        assert!(Instant::now() < until, "{}", std::fs::read_to_string(&log).unwrap());
        sleep(Duration::from_millis(20)).await;
    }
    // It waits and does not spin.
    let ticks = cpu_ticks(router.id());
    sleep(Duration::from_secs(1)).await;
    let spent = cpu_ticks(router.id()) - ticks;
    assert!(spent < 50, "{spent} hundredths of a second of CPU within one");
    drop(held);
    let until = Instant::now() + PATIENCE;
    while client
        .try_call(reqwest::Method::GET, "/v1/subscriptions", &[], "")
        .await
        .map_or(0, |it| it.status)
        != 200
    {
        assert!(Instant::now() < until, "it has not recovered");
        sleep(Duration::from_millis(20)).await;
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(said("no more file descriptors"), 1, "{text}");
    assert!(text.contains("72") && text.contains("ulimit -n"), "{text}");
}

/// The CPU time of a process, in hundredths of a second.
fn cpu_ticks(id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_nobody_who_is_slow() {
    let mut yard = Yard::start_with(|it| it.shutdown_ms = Some(20_000)).await;
    let to = address(&yard.client);
    let token = yard.client.token().unwrap().to_owned();
    let mut nothing = Raw::open(to).await;
    let mut half = Raw::open(to).await;
    half.say("GET /healthz HTTP/1.1\r\nhost: a").await;
    let mut idle = Raw::open(to).await;
    idle.say(head("GET /healthz", None, "")).await;
    assert_eq!(idle.hear().await.status, 200);
    let mut silent = Raw::open(to).await;
    let more = "content-type: application/cloudevents+json\r\ncontent-length: 100000\r\n";
    silent.say(head("POST /v1/events", Some(&token), more)).await;
    let mut dribbling = Raw::open(to).await;
    dribbling.say(head("POST /v1/events", Some(&token), more)).await;
    let dribbling = tokio::spawn(dribbling.dribble(b"x", PAUSE, PATIENCE));
    sleep(Duration::from_millis(300)).await;
    let start = Instant::now();
    yard.stop().await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    for raw in [&mut nothing, &mut half, &mut idle, &mut silent] {
        assert!(raw.ends(Duration::from_secs(1)).await.is_some());
    }
    assert!(dribbling.await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_has_begun_is_answered_by_a_stop() {
    let mut yard = Yard::start().await;
    let to = address(&yard.client);
    let token = yard.client.token().unwrap().to_owned();
    let body = event("t", json!("x".repeat(200_000))).to_string();
    let mut raw = Raw::open(to).await;
    let more =
        format!("content-type: application/cloudevents+json\r\ncontent-length: {}\r\n", body.len());
    raw.say(head("POST /v1/events", Some(&token), &more)).await;
    let rest = body[100_000..].to_owned();
    raw.say(&body[..100_000]).await;
    sleep(Duration::from_millis(100)).await;
    let call = tokio::spawn(async move {
        sleep(Duration::from_millis(300)).await;
        raw.say(rest).await;
        raw.hear().await
    });
    yard.stop().await;
    let heard = call.await.unwrap();
    assert_eq!((heard.status, heard.header("connection")), (202, Some("close")), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_the_process_stood_still_has_come_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let token = process::token(&path, TENANT);
    let router = Process::serve(&path);
    let client = router.client(&token);
    let to = address(&client);
    let signal = |name: &str| {
        let id = router.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    };
    let mut headless = Raw::open(to).await;
    headless.say("GET /healthz HTTP/1.1\r\n").await;
    let body = event("t", json!("x".repeat(100_000))).to_string();
    let mut bodiless = Raw::open(to).await;
    let more =
        format!("content-type: application/cloudevents+json\r\ncontent-length: {}\r\n", body.len());
    bodiless.say(head("POST /v1/events", Some(&token), &more)).await;
    bodiless.say(&body.as_bytes()[..100]).await;
    sleep(Duration::from_millis(200)).await;
    signal("-STOP");
    headless.say("host: a\r\n\r\n").await;
    bodiless.say(&body.as_bytes()[100..20_000]).await;
    // A busy process may see some of it before it stops.
    sleep(HEAD + Duration::from_secs(5)).await;
    signal("-CONT");
    assert_eq!(headless.hear().await.status, 200);
    // What is still missing is waited for as if there had been no pause.
    sleep(Duration::from_secs(1)).await;
    bodiless.say(&body.as_bytes()[20_000..]).await;
    assert_eq!(bodiless.hear().await.status, 202);
}
