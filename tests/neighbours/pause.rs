//! A process that is stopped for longer than its deadlines: what others have sent meanwhile counts.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::harness::names::NameServer;
use crate::harness::process::{self, Process};
use crate::harness::yard::event;
use crate::harness::{Client, Endpoint, PATIENCE, root};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// The format with the shortest timeout: 10 s for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many requests are out: whether one of them is looked at in time is a matter of chance.
const OUT: usize = 40;

fn signal(process: &Process, name: &str) {
    let id = process.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

/// Answers each request when it is told to.
async fn answer(
    mut stream: TcpStream,
    arrived: mpsc::UnboundedSender<()>,
    mut open: watch::Receiver<bool>,
) {
    let mut bytes = [0; 8_192];
    while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {
        arrived.send(()).unwrap();
        open.wait_for(|open| *open).await.unwrap();
        stream.write_all(OK).await.unwrap();
    }
}

async fn publish_vonage(client: &Client) {
    let file = root().join("schemas/vonage/samples/channel.held.v1.json");
    let event: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    client.publish(&event).await.expect(202);
}

async fn assert_delivered_at_once(client: &Client, count: usize) {
    for row in client.await_deliveries("state=delivered", count).await {
        assert_eq!(row["attempts"], 1, "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_came_while_the_process_was_stopped_counts() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("x.sqlite");
    let token = process::token(&store, "acme");
    let router = Process::serve(&store);
    let client = router.client(&token);
    let (tell, mut arrived) = mpsc::unbounded_channel();
    let (open, gate) = watch::channel(false);
    let endpoint = Endpoint::raw(move |stream| answer(stream, tell.clone(), gate.clone())).await;
    let accept = ("accept", "application/vnd.newvoicemedia.v1+json");
    let headers = [("content-type", "application/json"), accept];
    let all = "/vonage/webhooks/subscriptions";
    for number in 0..OUT {
        let url = endpoint.url(&format!("/{number}"));
        let body = json!({"name": format!("calls {number}"), "url": url, "events": ["channel.*"]});
        client.call(Method::POST, all, &headers, body.to_string()).await.expect(200);
    }
    publish_vonage(&client).await;
    for _ in 0..OUT {
        timeout(PATIENCE, arrived.recv()).await.unwrap();
    }
    signal(&router, "-STOP");
    open.send(true).unwrap();
    // The real wait is the point: no time passes for a process that is stopped but on the clock.
    sleep(TIMEOUT + Duration::from_secs(1)).await;
    signal(&router, "-CONT");
    assert_delivered_at_once(&client, OUT).await;
    router.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_resolved_while_the_process_was_stopped_is_resolved() {
    const DNS: Duration = Duration::from_secs(5);
    let names = NameServer::start("example.test.").await;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("x.sqlite");
    let token = process::token(&store, "acme");
    let mut command = process::serve_command(&store);
    command.env("HOOKYARD_DNS_SERVERS", names.address.to_string());
    let router = Process::start(command);
    let client = router.client(&token);
    let endpoint = Endpoint::start().await;
    // Each has a name of its own, so that each is asked for.
    for number in 0..OUT {
        let name = format!("{number}.example.test");
        let url = format!("http://{name}:{}/", endpoint.address().port());
        let body = json!({"name": "names", "url": url, "filters": [{"type": "t"}]});
        names.point(&format!("{name}."), Some(Ipv4Addr::LOCALHOST.into())).await;
        client.post("/v1/subscriptions", &body).await.expect(201);
    }
    let mut asked = names.asked();
    let before = *asked.borrow_and_update();
    names.hold();
    client.publish(&event("t", json!(1))).await.expect(202);
    // For both kinds of addresses.
    let all = asked.wait_for(|it| *it >= before + 2 * OUT);
    timeout(PATIENCE, all).await.unwrap().unwrap();
    signal(&router, "-STOP");
    names.go_on();
    sleep(DNS + Duration::from_secs(1)).await;
    signal(&router, "-CONT");
    assert_delivered_at_once(&client, OUT).await;
    router.kill();
}
