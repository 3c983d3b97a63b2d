//! Endpoints of the attacker that take what they get and never answer, with large bodies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::attacker::{Attacker, Bound, Sink, subscription};
use crate::load::Template;
use crate::receiver::{Reply, listen, number_of};

const HANGING: usize = 150;
/// Nearly as much as a body may be.
const DATA_BYTES: usize = 1_000_000;
/// Events for the endpoint that is well, and how many a second.
const OWN: usize = 600;
const PER_SECOND: u32 = 50;
/// How many of the attacker's own may be out at a time.
const CONNECTIONS: usize = 4;
/// As many milliseconds may the p99 of the attacker's endpoint be that is well.
const OWN_MS_MAX: f64 = 1_000.0;

/// When an event of the attacker's own was due, and how long it took.
type Took = Arc<Mutex<Vec<Option<Duration>>>>;

pub(super) async fn megabytes(mut it: Attacker) -> Attacker {
    let sink = Sink::start();
    let hang = |at: usize| subscription(&sink.url(&format!("/hang/{at}")), "hang", &json!([]));
    let made = it.subscribe_all((0..HANGING).map(hang).collect()).await;
    let begun = Arc::new(Mutex::new(None));
    let took: Took = Arc::new(Mutex::new(vec![None; OWN]));
    let own = listen_for_own(Arc::clone(&begun), Arc::clone(&took));
    it.subscribe(&format!("http://{own}/"), "own", &json!([])).await;
    let event = |event_type: &str, data: &str| {
        let text = format!(
            r#"{{"id":"","specversion":"1.0","source":"/{event_type}","type":"{event_type}","data":"{data}"}}"#
        );
        Template::new("/v1/events", &it.order.token, &text, 1)
    };
    let (mut large, small) = (event("hang", &"x".repeat(DATA_BYTES)), event("own", ""));
    it.ready();
    *begun.lock().unwrap() = Some(Instant::now());
    let mut tasks = JoinSet::new();
    let mut line = it.line();
    tasks.spawn(async move {
        large.number(0);
        line.call(large.bytes()).await;
    });
    publish_own(&it, &small, &mut tasks);
    it.last(tasks).await;
    let hanging = sink.hanging.load(Ordering::Relaxed);
    let took = took.lock().unwrap().clone();
    // In the short form there is not the time for all of them, and the last ones may be on their way.
    let due = OWN.min((it.order.seconds as usize).saturating_sub(2) * PER_SECOND as usize);
    let mut came: Vec<f64> =
        took[..due].iter().flatten().map(|it| it.as_secs_f64() * 1e3).collect();
    came.sort_by(f64::total_cmp);
    let p99 = came.get(came.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(f64::INFINITY);
    it.note(format!(
        "{hanging} requests to {made} endpoints hung, the attacker's own that is well got {} of {due}",
        came.len()
    ));
    let missing = (due - came.len()) as f64;
    let bound = |what: &str, value, most| Bound { what: what.to_owned(), value, most };
    it.outcome.bounds.push(bound("missing at the attacker's own", missing, 0.0));
    it.outcome.bounds.push(bound("p99 there, ms", p99, OWN_MS_MAX));
    it
}

/// An endpoint that notes how long each event took from when it was due.
fn listen_for_own(begun: Arc<Mutex<Option<Instant>>>, took: Took) -> std::net::SocketAddr {
    listen(move |_, body| {
        let begun = *begun.lock().unwrap();
        if let (Some(number), Some(begun)) = (number_of(body), begun)
            && let Some(place) = took.lock().unwrap().get_mut(number)
        {
            let due = begun + Duration::from_secs(1) / PER_SECOND * number as u32;
            *place = Some(Instant::now().saturating_duration_since(due));
        }
        Reply::Ok
    })
}

fn publish_own(it: &Attacker, template: &Template, tasks: &mut JoinSet<()>) {
    let (next, begun) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    for _ in 0..CONNECTIONS {
        let (mut line, mut template, next) = (it.line(), template.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= OWN {
                    return;
                }
                let due = begun + Duration::from_secs(1) / PER_SECOND * number as u32;
                sleep_until(due.into()).await;
                template.number(number);
                line.call(template.bytes()).await;
            }
        });
    }
}
