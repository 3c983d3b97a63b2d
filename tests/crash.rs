//! How a process starts and ends.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::harness::Endpoint;
use crate::harness::process::{self, Process};
use crate::harness::yard::event;

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
    client.publish(&event("t", json!({"number": 1, "more": "x"}))).await.expect(202);
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
async fn a_store_that_is_closed_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.sqlite");
    let client_token = process::token(&store, "acme");
    let router = Process::serve(&store);
    let client = router.client(&client_token);
    let id = client.publish(&event("t", json!({}))).await.expect(202)["id"].clone();
    assert!(router.terminate().success());

    let copy = folder.path().join("copy.sqlite");
    std::fs::copy(&store, &copy).unwrap();
    let router = Process::serve(&copy);
    let path = format!("/v1/events/{}", id.as_str().unwrap());
    router.client(&client_token).get(&path).await.expect(200);
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
