//! Endpoints that take what they get, beside others that do not answer.

use std::time::{Duration, Instant};

use serde_json::json;

use super::load::{self, Pace, Template};
use super::report::{Rounds, Row, whole};
use super::router::Router;
use super::{Bench, Load, event, per_second};

pub(crate) const GROUP: &str = "Healthy endpoints beside requests that hang";
const EVENTS: usize = 20_000;
/// At this rate, how long the others take is told.
const PER_SECOND: f64 = 200.0;
/// How long it may take until as many hang as are to.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn measure(bench: &mut Bench) {
    let numbers = [0, 1_000, 10_000];
    let mut all = numbers.map(|_| Vec::new());
    for _ in 0..bench.rounds {
        for (hanging, figures) in numbers.into_iter().zip(&mut all) {
            figures.push(round(bench, hanging));
        }
    }
    let measures = [
        ("saturated", "deliveries/s", ""),
        ("at 200/s, p99", "ms", "≤ 2 × with none"),
        ("resident memory", "MiB", ""),
    ];
    for (hanging, figures) in numbers.iter().zip(&all) {
        for (at, (name, unit, target)) in measures.into_iter().enumerate() {
            let rounds = |of: &[[f64; 3]]| Rounds(of.iter().map(|it| it[at]).collect());
            bench.report.add(Row {
                group: GROUP,
                name: format!("{} hang, {name}", whole(*hanging)),
                unit,
                values: rounds(figures),
                limit: Some(("none hang", rounds(&all[0]))),
                target,
            });
        }
    }
}

/// Deliveries a second, the p99 in milliseconds and the memory in MiB.
fn round(bench: &mut Bench, hanging: usize) -> [f64; 3] {
    let router = Router::start();
    for number in 0..hanging {
        router.subscribe(&bench.url(&format!("/hang/{number}")), "hang", &json!([]));
    }
    router.subscribe(&bench.url("/"), "order.paid", &json!([]));
    let before = bench.receiver.hanging();
    let event = event();
    let hang = event.replace("order.paid", "hang");
    let hang = Template::new("/v1/events", &router.token, &hang, 1);
    let times = bench.times(1);
    load::publish(router.address, &hang, &times, 1, Pace::Saturate);
    let start = Instant::now();
    while bench.receiver.hanging() - before < hanging {
        assert!(start.elapsed() < PATIENCE, "only {} hang", bench.receiver.hanging() - before);
        std::thread::sleep(Duration::from_millis(10));
    }
    let few = Load::of(&event, 1_000);
    bench.deliver(&router, &few, Pace::Saturate);
    let (took, _) = bench.deliver(&router, &Load::of(&event, EVENTS), Pace::Saturate);
    let memory = router.memory_mib();
    let (_, came) = bench.deliver(&router, &few, Pace::PerSecond(PER_SECOND));
    let p99 = came.took.value_at_quantile(0.99) as f64 / 1e3;
    [per_second(EVENTS, took), p99, memory]
}
