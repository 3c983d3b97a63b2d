//! Events: many of them, large ones, and some for very many subscriptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::attacker::{Attacker, Sink, subscription};
use crate::load::Template;
use crate::report::whole;

const SUBSCRIPTIONS: usize = 30_000;
/// After how long the ten events follow the first one.
const AT_ONCE_AFTER: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 10;
/// Over how many connections giant events are sent.
const GIANTS: usize = 10;
const KIB: usize = 1 << 10;
/// How deep data may be.
const DEPTH_MAX: usize = 100;

pub(super) async fn batches(it: Attacker) -> Attacker {
    flood(it, &crate::event(), 32, 100).await
}

pub(super) async fn singles(it: Attacker) -> Attacker {
    flood(it, &crate::event(), 64, 1).await
}

/// Each event has as many attributes as fit into a body.
pub(super) async fn attributes(it: Attacker) -> Attacker {
    let more: String = (0..80_000).map(|number| format!(r#","a{number:05}":"""#)).collect();
    flood(it, &event(&more, "1"), GIANTS, 1).await
}

pub(super) async fn depth(it: Attacker) -> Attacker {
    // The data begin with a list of them.
    let deep = "[".repeat(DEPTH_MAX - 2) + &"]".repeat(DEPTH_MAX - 2);
    let many = vec![deep.as_str(); 900 * KIB / (deep.len() + 1)];
    flood(it, &event("", &format!("[{}]", many.join(","))), GIANTS, 1).await
}

pub(super) async fn members(it: Attacker) -> Attacker {
    let each: Vec<String> = (0..60_000).map(|it| format!(r#""member{it:05}":1"#)).collect();
    flood(it, &event("", &format!("{{{}}}", each.join(","))), GIANTS, 1).await
}

pub(super) async fn thousands(it: Attacker) -> Attacker {
    let data = format!(r#"{{"text":"{}"}}"#, "x".repeat(800));
    flood(it, &event("", &data), GIANTS, 1_000).await
}

fn event(more: &str, data: &str) -> String {
    format!(
        r#"{{"id":"","specversion":"1.0","source":"/attack","type":"flood"{more},"data":{data}}}"#
    )
}

/// Publishes events as fast as they are taken, to a subscription whose endpoint takes them.
async fn flood(mut it: Attacker, event: &str, connections: usize, batch: usize) -> Attacker {
    let sink = Sink::start();
    it.subscribe(&sink.url("/"), "*", &json!([])).await;
    let template = Template::new("/v1/events", &it.order.token, event, batch);
    it.ready();
    let (mut tasks, next) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..connections {
        let (mut line, mut template, next) = (it.line(), template.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                template.number(next.fetch_add(batch, Ordering::Relaxed));
                line.call(template.bytes()).await;
            }
        });
    }
    it.last(tasks).await;
    let size = template.bytes().len() / KIB;
    it.note(format!("{size} KiB a request, {} deliveries were taken", whole(sink.taken())));
    it
}

/// One event for very many subscriptions, and then some at once.
pub(super) async fn fan_out(mut it: Attacker) -> Attacker {
    let sink = Sink::start();
    let count = it.scaled(SUBSCRIPTIONS);
    let bodies =
        (0..count).map(|at| subscription(&sink.url(&format!("/{at}")), "flood", &json!([])));
    let begun = Instant::now();
    let made = it.subscribe_all(bodies.collect()).await;
    let took = begun.elapsed().as_secs_f64();
    it.note(format!("{} subscriptions made in {took:.1} s", whole(made)));
    let template = Template::new("/v1/events", &it.order.token, &event("", "1"), 1);
    it.ready();
    let begun = Instant::now();
    let after = AT_ONCE_AFTER.min((it.until - begun) / 3);
    let mut tasks = JoinSet::new();
    for number in 0..=AT_ONCE {
        let (mut line, mut template) = (it.line(), template.clone());
        tasks.spawn(async move {
            template.number(number);
            if number > 0 {
                sleep_until((begun + after).into()).await;
            }
            line.call(template.bytes()).await;
        });
    }
    it.last(tasks).await;
    it.note(format!("{} deliveries were taken", whole(sink.taken())));
    it
}
