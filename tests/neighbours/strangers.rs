//! Who has no token, or does not get so far as to show one, costs little and is waited for a while.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::raw::{HEAD, Heard, PAUSE, Raw, address, head};
use crate::harness::Yard;
use crate::harness::process::{self, Process};
use crate::harness::yard::{TENANT, event};

/// By how much it may be later on a busy machine.
const LATE: Duration = Duration::from_secs(4);
/// By how much strangers may make the router larger.
const GROWTH_BYTES_MAX: u64 = 48 << 20;

fn check_ended(what: &str, after: Option<Duration>, wanted: Duration) {
    let after = after.unwrap_or_else(|| panic!("{what} is there for ever"));
    let fits = wanted.mul_f32(0.9) < after && after < wanted + LATE;
    assert!(fits, "{what} ended after {after:?} and not after {wanted:?}");
}

/// A router with one event of nearly a megabyte, and the path of it.
async fn yard_with_event() -> (Yard, String) {
    let yard = Yard::start().await;
    let id = yard.publish("large", json!("x".repeat(1_000_000))).await;
    (yard, format!("/v1/events/{id}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_slow_is_waited_for_and_then_no_more() {
    let (yard, path) = yard_with_event().await;
    let to = address(&yard.client);
    let token = yard.client.token().unwrap().to_owned();
    let patience = HEAD + Duration::from_secs(10);
    let mut all = JoinSet::new();

    all.spawn(async move {
        let ended = Raw::open(to).await.ends(patience).await;
        check_ended("a connection that says nothing", ended, HEAD);
    });
    all.spawn(async move {
        let mut raw = Raw::open(to).await;
        raw.say("GET /healthz HTTP/1.1\r\nhost: a\r\n").await;
        check_ended("half a head", raw.ends(patience).await, HEAD);
    });
    all.spawn(async move {
        let raw = Raw::open(to).await;
        let ended = raw.dribble(b"GET / HTTP/1.1\r\na", PAUSE, patience).await;
        check_ended("a head byte by byte", ended, HEAD);
    });
    all.spawn(async move {
        // The second head of a connection is waited for as the first one is.
        let mut raw = Raw::open(to).await;
        raw.say(head("GET /healthz", None, "")).await;
        assert_eq!(raw.hear().await.status, 200);
        let ended = raw.dribble(b"GET / HTTP/1.1\r\na", PAUSE, patience).await;
        check_ended("a second head byte by byte", ended, HEAD);
    });
    let bodies = [
        ("/v1/events", "content-type: application/cloudevents+json\r\n", true),
        ("/v1/subscriptions", "content-type: application/json\r\n", true),
        ("/kajabi/v1/hooks", "content-type: application/vnd.api+json\r\n", true),
        ("/vision6/api/jsonrpcserver", "content-type: application/json\r\n", false),
        ("/kajabi/v1/oauth/token", "content-type: application/x-www-form-urlencoded\r\n", false),
        ("/v1/plugins/x/versions", "content-type: application/wasm\r\n", true),
    ];
    for (path, media_type, is_known) in bodies {
        let token = is_known.then(|| token.clone());
        all.spawn(async move {
            let mut raw = Raw::open(to).await;
            let more = format!("{media_type}content-length: 10000\r\n");
            raw.say(head(&format!("POST {path}"), token.as_deref(), &more)).await;
            let ended = raw.dribble(b"x", PAUSE, patience).await;
            check_ended(&format!("a body to {path} byte by byte"), ended, HEAD);
        });
    }
    all.spawn(async move {
        let mut raw = Raw::open_narrow(to).await;
        for _ in 0..12 {
            raw.say(head(&format!("GET {path}"), Some(&token), "")).await;
        }
        // It is only looked at again once it has been given up.
        sleep(Duration::from_secs(30) + LATE).await;
        let ended = raw.ends(Duration::from_secs(5)).await;
        assert!(ended.is_some(), "answers that nobody reads are kept for ever");
    });
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    yard.client.get("/v1/subscriptions").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_told_so() {
    let yard = Yard::start().await;
    let mut raw = Raw::open(address(&yard.client)).await;
    let more = "content-type: application/cloudevents+json\r\ncontent-length: 10000\r\n";
    raw.say(head("POST /v1/events", yard.client.token(), more)).await;
    raw.say("{").await;
    let heard = raw.hear().await;
    assert_eq!((heard.status, &heard.json()["code"]), (408, &json!("too-slow")), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_slow_and_fast_enough_is_taken() {
    let yard = Yard::start().await;
    let mut raw = Raw::open(address(&yard.client)).await;
    let body = event("t", json!("x".repeat(40_000))).to_string();
    let more =
        format!("content-type: application/cloudevents+json\r\ncontent-length: {}\r\n", body.len());
    raw.say(head("POST /v1/events", yard.client.token(), &more)).await;
    for part in body.as_bytes().chunks(4_096) {
        raw.say(part).await;
        sleep(PAUSE).await;
    }
    assert_eq!(raw.hear().await.status, 202);
    // And the connection is good for more.
    raw.say(head("GET /healthz", None, "")).await;
    assert_eq!(raw.hear().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_told_so() {
    let yard = Yard::start().await;
    let to = address(&yard.client);
    let many = |count: usize| (0..count).map(|it| format!("a{it}: b\r\n")).collect::<String>();
    let large = |bytes: usize| format!("a: {}\r\n", "b".repeat(bytes));
    for (what, more, status) in [
        ("98 more headers", many(98), 200),
        ("101 headers", many(101), 431),
        ("10,000 headers", many(10_000), 431),
        ("60 KB", large(60_000), 200),
        ("70 KB", large(70_000), 431),
        ("a megabyte", large(1 << 20), 431),
    ] {
        let mut raw = Raw::open(to).await;
        raw.pour(head("GET /healthz", None, &more).as_bytes()).await;
        assert_eq!(raw.hear().await.status, status, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_once_to_which_host() {
    let yard = Yard::start().await;
    let to = address(&yard.client);
    let ask = async |path: &str, hosts: &str, version: &str| -> Heard {
        let mut raw = Raw::open(to).await;
        raw.say(format!("GET {path} HTTP/{version}\r\n{hosts}\r\n")).await;
        raw.hear().await
    };
    for (hosts, status) in [
        ("host: localhost\r\n", 200),
        ("host: [::1]:8080\r\n", 200),
        ("host: a.example:80\r\n", 200),
        ("", 400),
        ("host: a\r\nhost: a\r\n", 400),
        ("host: a\r\nHost: b\r\n", 400),
        ("host: a b\r\n", 400),
        ("host: a/b\r\n", 400),
        ("host: a@b\r\n", 400),
        ("host: a:b\r\n", 400),
    ] {
        let heard = ask("/healthz", hosts, "1.1").await;
        assert_eq!(heard.status, status, "{hosts:?}: {heard:?}");
        if status == 400 {
            assert_eq!(heard.json()["code"], "bad-host", "{heard:?}");
        }
    }
    assert_eq!(ask("/healthz", "", "1.0").await.status, 200);
    assert_eq!(ask("/nowhere", "", "1.1").await.json()["code"], "bad-host");
    // In the words of the API that it is sent to.
    let heard = ask("/kajabi/v1/hooks", "", "1.1").await;
    assert_eq!(
        (heard.status, &heard.json()["errors"][0]["status"]),
        (400, &json!("400")),
        "{heard:?}"
    );
    let heard = ask("/copernica/v4/webhooks", "host: a\r\nhost: a\r\n", "1.1").await;
    assert!(heard.json()["error"]["message"].as_str().unwrap().contains("Host"), "{heard:?}");
    let mut raw = Raw::open(to).await;
    raw.say("POST /kajabi/v1/oauth/token HTTP/1.1\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(raw.hear().await.json()["error"], "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_of_a_stranger_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let token = process::token(&path, TENANT);
    let router = Process::serve(&path);
    let client = router.client(&token);
    client.get("/v1/subscriptions").await.expect(200);
    let before = router.bytes("VmRSS");
    let to = address(&client);
    let megabyte = Arc::new(vec![b'x'; 1 << 20]);
    for (path, media_type) in [
        ("/v1/events", "application/cloudevents+json"),
        ("/kajabi/v1/hooks", "application/vnd.api+json"),
        ("/vonage/webhooks/subscriptions", "application/json"),
        ("/vision6/api/jsonrpcserver", "application/json"),
        ("/copernica/authenticate", "application/x-www-form-urlencoded"),
        ("/mypreferences/oauth/token", "application/x-www-form-urlencoded"),
    ] {
        let mut all = JoinSet::new();
        for _ in 0..300 {
            let megabyte = Arc::clone(&megabyte);
            all.spawn(async move {
                let mut raw = Raw::open(to).await;
                let more = format!("content-type: {media_type}\r\ncontent-length: {}\r\n", 1 << 20);
                raw.say(head(&format!("POST {path}"), None, &more)).await;
                // All but the last byte, as far as it is taken.
                raw.pour(&megabyte[1..]).await;
                raw
            });
        }
        let held = all.join_all().await;
        let grown = router.bytes("VmRSS").saturating_sub(before);
        assert!(grown < GROWTH_BYTES_MAX, "{path}: strangers made it {} MiB larger", grown >> 20);
        drop(held);
    }
    client.publish(&event("t", json!(1))).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_answered_before_the_body_has_come() {
    let yard = Yard::start().await;
    let to = address(&yard.client);
    for (method, path, status) in [
        ("POST", "/v1/events", 401),
        ("POST", "/kajabi/v1/hooks", 401),
        ("POST", "/vonage/webhooks/subscriptions", 401),
        ("POST", "/copernica/v4/webhooks", 401),
        ("POST", "/mypreferences/Profiles/v4/acme/Webhooks/Subscriptions", 401),
        ("POST", "/v1/plugins/x/versions", 401),
        ("PUT", "/v1/nowhere", 404),
    ] {
        let mut raw = Raw::open(to).await;
        let more = "content-type: application/json\r\ncontent-length: 1000000\r\n";
        raw.say(head(&format!("{method} {path}"), None, more)).await;
        let heard = raw.hear().await;
        assert_eq!(heard.status, status, "{path}: {heard:?}");
        assert_eq!(heard.header("connection"), Some("close"), "{path}: {heard:?}");
        // What is still sent does not break off the answer of a connection that was told to be closed.
        assert!(raw.ends(Duration::from_secs(5)).await.is_some(), "{path} stays open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_on_what_was_refused_sees_the_answer() {
    let yard = Yard::start().await;
    let to = address(&yard.client);
    let body = vec![b' '; 3_000_000];
    for (path, token, status) in [
        ("/vision6/api/jsonrpcserver", None, 200),
        ("/copernica/authenticate", None, 400),
        ("/v1/events", None, 401),
        ("/v1/events", yard.client.token(), 415),
    ] {
        let mut raw = Raw::open(to).await;
        let more = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        raw.say(head(&format!("POST {path}"), token, &more)).await;
        // A client that reads nothing before it has sent all.
        for part in body.chunks(16 << 10) {
            raw.say(part).await;
        }
        let heard = raw.hear().await;
        assert_eq!(heard.status, status, "{path}: {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_its_token_in_it_is_small() {
    let yard = Yard::start().await;
    let to = address(&yard.client);
    let ask = async |path: &str, media_type: &str, body: String| {
        let mut raw = Raw::open(to).await;
        let more = format!("content-type: {media_type}\r\ncontent-length: {}\r\n", body.len());
        raw.say(head(&format!("POST {path}"), None, &more)).await;
        raw.pour(body.as_bytes()).await;
        raw.hear().await
    };
    let rpc = |bytes: usize| {
        json!({"id": "x".repeat(200), "method": "countWebhooks", "params": ["no", "x".repeat(bytes)]}).to_string()
    };
    let json = "application/json";
    let heard = ask("/vision6/api/jsonrpcserver", json, rpc(60_000)).await;
    assert_eq!(heard.json()["error"]["code"], 300, "{heard:?}");
    let heard = ask("/vision6/api/jsonrpcserver", json, rpc(70_000)).await;
    assert!(heard.text.contains("larger than 65536 bytes"), "{heard:?}");
    let form = |bytes: usize| format!("grant_type=client_credentials&more={}", "x".repeat(bytes));
    let media_type = "application/x-www-form-urlencoded";
    let heard = ask("/kajabi/v1/oauth/token", media_type, form(10_000)).await;
    assert_eq!(heard.json()["error"], "invalid_client", "{heard:?}");
    let heard = ask("/kajabi/v1/oauth/token", media_type, form(17_000)).await;
    assert_eq!(heard.json()["error"], "invalid_request", "{heard:?}");
}
