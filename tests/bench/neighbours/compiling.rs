//! Plugins that take the compiler long: when they are uploaded, and when they are tried.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::attacker::{Attacker, Sink};
use super::line::{Line, request};
use crate::guests::{entangled, entanglement, guest};
use crate::load::Template;

const WASM: &str = "application/wasm";
const JSON: &str = "application/json";
const BOMBS: usize = 2;
/// Functions that take the compiler half a second each and little memory, and as many of them as take it more
/// than the minute that it may work.
const BOMB_LOOPS: usize = 700;
const BOMB_FUNCTIONS: usize = 200;
/// Loops that take it a few seconds.
const FRESH_LOOPS: usize = 1_000;
const LOOPS_AT_A_TIME: usize = 4;
/// How many events there are to compare with.
const EVENTS: usize = 50;

pub(super) async fn bombs(mut it: Attacker) -> Attacker {
    let bomb = |at| guest().more(&entanglement(BOMB_LOOPS + at).repeat(BOMB_FUNCTIONS)).module();
    let files: Vec<_> = (0..BOMBS).map(bomb).collect();
    it.ready();
    let mut tasks = JoinSet::new();
    for (at, file) in files.iter().enumerate() {
        let call = it.request(&format!("POST /v1/plugins/bomb-{at}/versions"), WASM, file);
        let mut line = it.line();
        tasks.spawn(async move { _ = line.call(&call).await });
    }
    it.last(tasks).await;
    it
}

/// Uploads a plugin, tries it, and compares with it; and again with another one.
pub(super) async fn trials(mut it: Attacker) -> Attacker {
    let sink = Sink::start();
    it.subscribe(&sink.url("/"), "*", &json!([])).await;
    let mut template = Template::new("/v1/events", &it.order.token, &crate::event(), 1);
    let mut line = it.line();
    for number in 0..EVENTS {
        template.number(number);
        line.call(template.bytes()).await;
    }
    line.call(&it.request("GET /v1/subscriptions", JSON, b"")).await;
    let all: Value = serde_json::from_slice(line.body()).unwrap();
    let subscription = all["subscriptions"][0]["id"].as_str().unwrap().to_owned();
    it.ready();
    let (mut tasks, next) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..LOOPS_AT_A_TIME {
        let (line, token, next) = (it.line(), it.order.token.clone(), Arc::clone(&next));
        let (subscription, tally) = (subscription.clone(), it.tally.clone());
        tasks.spawn(async move {
            let mut line = line;
            loop {
                let fresh = next.fetch_add(1, Ordering::Relaxed);
                if upload(&mut line, &token, fresh).await == Some(201) {
                    tally.count("plugins uploaded");
                    try_out(&mut line, &token, fresh, &subscription).await;
                }
            }
        });
    }
    it.last(tasks).await;
    it
}

async fn upload(line: &mut Line, token: &str, fresh: usize) -> Option<u16> {
    let head = format!("POST /v1/plugins/fresh-{fresh}/versions");
    let file = entangled(FRESH_LOOPS + fresh);
    line.call(&request(&head, Some(token), WASM, &file)).await
}

async fn try_out(line: &mut Line, token: &str, fresh: usize, subscription: &str) {
    let event = json!({"id": "1", "source": "/s", "specversion": "1.0", "type": "t", "data": 1});
    let body = json!({"event": event}).to_string();
    let head = format!("POST /v1/plugins/fresh-{fresh}/try");
    line.call(&request(&head, Some(token), JSON, body.as_bytes())).await;
    let body = json!({"steps": [{"plugin": format!("fresh-{fresh}")}], "events": EVENTS});
    let head = format!("POST /v1/subscriptions/{subscription}/compare");
    let call = request(&head, Some(token), JSON, body.to_string().as_bytes());
    // Its answer has no length.
    let closing = b"\r\nconnection: close\r\n\r\n";
    let at = memchr::memmem::find(&call, b"\r\n\r\n").unwrap();
    let call = [&call[..at], closing, &call[at + 4..]].concat();
    line.call_to_end(&call).await;
}
