//! Answers that are asked for and never read.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::attacker::{Attacker, Sink};
use super::line::connect;
use crate::http1::status;
use crate::load::Template;

const AT_A_TIME: usize = 20;
const EVENTS: usize = 200;
const DATA_BYTES: usize = 900_000;
/// As little as the kernel of the reader takes on its own.
const RECEIVE_BYTES: u32 = 4 << 10;
/// How long it may take until the log has the deliveries.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn exports(mut it: Attacker) -> Attacker {
    fill(&it).await;
    let call = it.request("GET /v1/deliveries/export", "text/plain", b"");
    hang_on(&mut it, &call).await;
    it
}

pub(super) async fn compares(mut it: Attacker) -> Attacker {
    fill(&it).await;
    let mut line = it.line();
    line.call(&it.request("GET /v1/subscriptions", "text/plain", b"")).await;
    let all: Value = serde_json::from_slice(line.body()).unwrap();
    let id = all["subscriptions"][0]["id"].as_str().unwrap();
    let proposed = json!({"events": EVENTS, "steps": [
        {"plugin": "minimize", "config": {"remove": ["/nothing"]}}]});
    let head = format!("POST /v1/subscriptions/{id}/compare");
    let call = it.request(&head, "application/json", proposed.to_string().as_bytes());
    hang_on(&mut it, &call).await;
    it
}

/// Publishes large events, and waits until they are delivered.
async fn fill(it: &Attacker) {
    let sink = Sink::start();
    it.subscribe(&sink.url("/"), "*", &json!([])).await;
    let event = format!(
        r#"{{"id":"","specversion":"1.0","source":"/attack","type":"large","data":"{}"}}"#,
        "x".repeat(DATA_BYTES)
    );
    let mut template = Template::new("/v1/events", &it.order.token, &event, 1);
    let mut line = it.line();
    for number in 0..EVENTS {
        template.number(number);
        assert_eq!(line.call(template.bytes()).await, Some(202), "a large event is not taken");
    }
    let until = Instant::now() + PATIENCE;
    while sink.taken() < EVENTS {
        assert!(Instant::now() < until, "{} of {EVENTS} are delivered", sink.taken());
        sleep(Duration::from_millis(50)).await;
    }
}

/// Asks many times at once, and reads nothing until the attack is over; then only what it was answered.
async fn hang_on(it: &mut Attacker, call: &[u8]) {
    it.ready();
    let mut tasks = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (call, address, until) = (call.to_vec(), it.order.address, it.until);
        let tally = it.tally.clone();
        tasks.spawn(async move {
            let ask = async {
                let mut socket = connect(address, Some(RECEIVE_BYTES)).await?;
                socket.write_all(&call).await?;
                std::io::Result::Ok(socket)
            };
            match ask.await {
                Ok(socket) => {
                    sleep_until((until - Duration::from_millis(300)).into()).await;
                    tally.count(first_words(socket).await);
                }
                Err(err) => tally.count(format!("{:?}", err.kind())),
            }
        });
    }
    it.last(tasks).await;
}

async fn first_words(mut socket: TcpStream) -> String {
    let mut answer = [0; 16];
    match timeout(Duration::from_millis(200), socket.read(&mut answer)).await {
        Ok(Ok(read)) => status(&answer[..read]).map_or("closed".to_owned(), |it| it.to_string()),
        Ok(Err(err)) => format!("{:?}", err.kind()),
        Err(_) => "no answer".to_owned(),
    }
}
