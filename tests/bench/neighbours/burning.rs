//! Plugins that take all that they may: their time, or as many bytes as become very many.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::attacker::{Attacker, Sink, subscription};
use crate::guests::{Guest, guest};
use crate::load::Template;
use crate::report::whole;

const WASM: &str = "application/wasm";
const SCRIPT: &str = "text/javascript";
const SUBSCRIPTIONS: usize = 1_000;
const STEPS: usize = 16;
const SINGLE_STEPS: usize = 24;
/// Turns of a loop that take most of the 20 ms of a transform, and most of the 250 ms of `configure`. Each waits
/// for the one before it, with the four cycles that a multiplication and an addition take on all processors.
const TRANSFORM_TURNS: u32 = 9_000_000;
const CONFIGURE_TURNS: u32 = 120_000_000;
const PER_SECOND: u32 = 20;

/// A guest that has a function `$burn`, which takes its time.
fn burning(turns: u32) -> Guest {
    guest().more("(global $out (mut i32) (i32.const 0))").more(&format!(
        "(func $burn (local $n i32) (local $x i32)
            (loop
                (local.set $x (i32.add
                    (i32.mul (local.get $x) (i32.const 1664525)) (i32.const 1013904223)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if 0 (i32.lt_u (local.get $n) (i32.const {turns}))))
            (global.set $out (local.get $x)))"
    ))
}

/// Each subscription has a configuration of its own, so that none shares a run with another.
pub(super) async fn transforms(mut it: Attacker) -> Attacker {
    let sink = Sink::start();
    it.upload("burn", WASM, &burning(TRANSFORM_TURNS).does("(call $burn)").module()).await;
    let count = it.scaled(SUBSCRIPTIONS);
    let one = |at: usize| {
        subscription(&sink.url("/"), "burn", &json!([{"plugin": "burn", "config": {"n": at}}]))
    };
    let made = it.subscribe_all((0..count).map(one).collect()).await;
    it.note(format!("{made} subscriptions"));
    burn(it, &sink).await
}

pub(super) async fn configures(it: Attacker) -> Attacker {
    let guest = burning(CONFIGURE_TURNS).configure("(call $burn)");
    at_each_run(it, &guest).await
}

pub(super) async fn starts(it: Attacker) -> Attacker {
    let guest = burning(CONFIGURE_TURNS).more("(start $burn)");
    at_each_run(it, &guest).await
}

/// A subscription with as many steps as it may have, and some with one step, which is within every budget.
/// Each step has a configuration of its own, which is not run so often that an image is made of it.
async fn at_each_run(mut it: Attacker, guest: &Guest) -> Attacker {
    let sink = Sink::start();
    let status = it.upload("burn", WASM, &guest.module()).await;
    let step = |at: usize| json!({"plugin": "burn", "config": {"n": at}});
    let all_steps = (0..STEPS).map(step).collect();
    let bodies = std::iter::once(all_steps)
        .chain((STEPS..STEPS + SINGLE_STEPS).map(|at| json!([step(at)])))
        .map(|steps: Value| subscription(&sink.url("/"), "burn", &steps));
    let made = it.subscribe_all(bodies.collect()).await;
    it.note(format!("uploaded: {status:?}, {made} subscriptions"));
    burn(it, &sink).await
}

/// Publishes for all of them.
async fn burn(mut it: Attacker, sink: &Sink) -> Attacker {
    let event = r#"{"id":"","specversion":"1.0","source":"/attack","type":"burn","data":{"a":1}}"#;
    let template = Template::new("/v1/events", &it.order.token, event, 1);
    publish(&mut it, template, Duration::from_secs(1) / PER_SECOND).await;
    it.note(format!("{} deliveries were taken", whole(sink.taken())));
    it
}

async fn publish(it: &mut Attacker, mut template: Template, every: Duration) {
    it.ready();
    let (mut tasks, mut line) = (JoinSet::new(), it.line());
    tasks.spawn(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0.. {
            ticks.tick().await;
            template.number(number);
            line.call(template.bytes()).await;
        }
    });
    it.last(tasks).await;
}

/// A long name with many values in it: as a form, the name is written with each of them.
pub(super) async fn forms(it: Attacker) -> Attacker {
    let script = "function transform(event) {
        const name = '['.repeat(30000);
        return replace({data: {[name]: new Array(14000).fill(1)}});
    }";
    form(it, script).await
}

/// Many names in each other, none of which is long, and lists of lists of small objects in them.
pub(super) async fn lists(it: Attacker) -> Attacker {
    let script = "function transform(event) {
        let it = new Array(70).fill(new Array(70).fill({a: 1}));
        for (let depth = 0; depth < 90; depth++) it = {['['.repeat(250)]: it};
        return replace({data: it});
    }";
    form(it, script).await
}

/// A subscription of a format that is delivered as a form, with this script before it.
async fn form(mut it: Attacker, script: &str) -> Attacker {
    let sink = Sink::start();
    let status = it.upload("explode", SCRIPT, script.as_bytes()).await;
    let details = format!("trigger=create&handler=http%3A%2F%2F{}%2Fform", sink.address);
    let kind = "application/x-www-form-urlencoded";
    let mut line = it.line();
    let made = it.request("POST /copernica/v4/webhooks", kind, details.as_bytes());
    let made = line.call(&made).await;
    line.call(&it.request("GET /v1/subscriptions", "text/plain", b"")).await;
    let all: Value = serde_json::from_slice(line.body()).unwrap();
    let id = all["subscriptions"][0]["id"].as_str().unwrap();
    let steps = json!({"steps": [{"plugin": "explode"}]}).to_string();
    let head = format!("PUT /v1/subscriptions/{id}/steps");
    let put = line.call(&it.request(&head, "application/json", steps.as_bytes())).await;
    it.note(format!("uploaded: {status:?}, made: {made:?}, with its step: {put:?}"));
    let sample = include_str!("../../../schemas/copernica/samples/create.json");
    let mut sample: serde_json::Map<String, Value> = serde_json::from_str(sample).unwrap();
    sample.remove("id");
    let rest = Value::from(sample).to_string();
    let event = format!(r#"{{"id":"",{}"#, &rest[1..]);
    let template = Template::new("/v1/events", &it.order.token, &event, 1);
    publish(&mut it, template, Duration::from_secs(1)).await;
    it.note(format!("{} deliveries were taken", whole(sink.taken())));
    it
}
