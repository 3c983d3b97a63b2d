//! Endpoints that take what they get, beside others that do not answer.

use std::time::{Duration, Instant};

use serde_json::json;

use super::load::{self, Pace, Template};
use super::report::{Rounds, Row};
use super::router::Router;
use super::{Bench, CONNECTIONS, Load, event, per_second, since};

const EVENTS: usize = 20_000;
/// At this rate, how long the others take is told.
const PER_SECOND: f64 = 200.0;
/// How long it may take until as many hang as are to.
const PATIENCE: f64 = 60.0;

pub(crate) fn measure(bench: &mut Bench) {
    for hanging in [0, 1_000, 10_000] {
        let (mut rates, mut p99, mut memory) =
            (Rounds::default(), Rounds::default(), Rounds::default());
        for _ in 0..bench.rounds {
            let (rate, took, mib) = round(bench, hanging);
            rates.0.push(rate);
            p99.0.push(took);
            memory.0.push(mib);
        }
        let row = |name: &str, unit, values, target| Row {
            group: "Healthy endpoints beside requests that hang",
            name: format!("{hanging} hang, {name}"),
            unit,
            values,
            limit: None,
            target,
        };
        bench.report.add(row("saturated", "deliveries/s", rates, ""));
        bench.report.add(row("at 200/s, p99", "ms", p99, "≤ 2 × with none"));
        bench.report.add(row("resident memory", "MiB", memory, ""));
    }
}

fn round(bench: &mut Bench, hanging: usize) -> (f64, f64, f64) {
    let router = Router::start();
    for number in 0..hanging {
        router.subscribe(&bench.url(&format!("/hang/{number}")), "hang", &json!([]));
    }
    for number in 0..10 {
        router.subscribe(&bench.url(&format!("/{number}")), &format!("order.{number}"), &json!([]));
    }
    let before = bench.receiver.hanging();
    let event = event();
    let publish = |event_type: &str| event.replace("order.paid", event_type);
    let hang = Template::new("/v1/events", &router.token, &publish("hang"), 1);
    let times = bench.times(1);
    load::publish(router.address, &hang, &times, 1, Pace::Saturate);
    let start = Instant::now();
    while bench.receiver.hanging() - before < hanging {
        assert!(since(start) < PATIENCE, "only {} hang", bench.receiver.hanging() - before);
        std::thread::sleep(Duration::from_millis(10));
    }
    let healthy = publish("order.0");
    let load =
        Load { event: &healthy, events: EVENTS, batch: 1, connections: CONNECTIONS, fan_out: 1 };
    bench.saturate(&router, &Load { events: 1_000, ..load });
    let (took, _) = bench.saturate(&router, &load);
    let memory = router.memory_mib();
    let template = Template::new("/v1/events", &router.token, &healthy, 1);
    let times = bench.times(1_000);
    bench.receiver.expect(&times, 1);
    load::publish(router.address, &template, &times, CONNECTIONS, Pace::PerSecond(PER_SECOND));
    let p99 = bench.receiver.wait().took.value_at_quantile(0.99) as f64 / 1e3;
    (per_second(EVENTS, took), p99, memory)
}
