//! Published, durable, routed, run, signed, delivered: as fast as it goes, with what that takes.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::load::Pace;
use super::plugins;
use super::report::{Rounds, Row, number};
use super::router::Router;
use super::{Bench, Load, event, per_second};

pub(crate) const GROUP: &str =
    "From 64 publishers to the receiver, against half of what they do without a router";
const EVENTS: usize = 40_000;
/// What is published before it is measured: plugins have their images then.
const WARM_UP: usize = 2_000;

/// A way through the router.
struct Case {
    name: &'static str,
    steps: Value,
    subscriptions: u16,
    batch: usize,
    event: String,
    target: &'static str,
}

fn cases() -> Vec<Case> {
    let minimize =
        json!({"plugin": "minimize", "config": {"remove": ["/customer/mail", "/internal_note"]}});
    let filter = json!({"plugin": "filter", "config": {"when": {"at": "/amount", "gte": 100}}});
    let map = json!({"plugin": "map", "config": {"rules": [
        {"template": {"at": "/title", "text": "{/amount} from {/country}"}}]}});
    let case =
        |name, steps| Case { name, steps, subscriptions: 1, batch: 1, event: event(), target: "" };
    vec![
        Case { target: "≥ 0.50", ..case("no plugin", json!([])) },
        Case { target: "≥ 0.40", ..case("minimize", json!([minimize])) },
        case("filter, minimize, map", json!([filter, minimize, map])),
        Case { event: checked(), ..case("data checked by a schema", json!([])) },
        Case { subscriptions: 10, ..case("10 subscriptions", json!([])) },
        Case { batch: 100, target: "≥ 0.70", ..case("batches of 100", json!([])) },
        Case { batch: 100, ..case("batches of 100, minimize", json!([minimize])) },
    ]
}

/// An event of a provider's catalogue, whose data have a schema.
fn checked() -> String {
    let sample = include_str!("../../schemas/mypreferences/samples/contacts.email.updated.json");
    let mut sample: serde_json::Map<String, Value> = serde_json::from_str(sample).unwrap();
    sample.remove("id");
    let rest = Value::from(sample).to_string();
    format!(r#"{{"id":"",{}"#, &rest[1..])
}

/// What one round of a case comes to, or of the publishers straight to the receiver.
struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_s_per_1000: f64,
    memory_mib: f64,
    kib_written: f64,
}

/// A row of each case.
struct Measure {
    name: &'static str,
    unit: &'static str,
    of: fn(&Figures) -> f64,
    /// How the same without a router is called, where there is such a thing.
    limit: Option<&'static str>,
    target: &'static str,
}

const MEASURES: [Measure; 5] = [
    Measure {
        name: "p50 from publisher to receiver",
        unit: "ms",
        of: |it| it.p50_ms,
        limit: Some("direct"),
        target: "",
    },
    Measure { name: "p99", unit: "ms", of: |it| it.p99_ms, limit: Some("direct"), target: "" },
    Measure {
        name: "CPU of the router",
        unit: "s per 1,000",
        of: |it| it.cpu_s_per_1000,
        limit: Some("direct, both ends"),
        target: "≤ 0.09",
    },
    Measure {
        name: "resident memory",
        unit: "MiB",
        of: |it| it.memory_mib,
        limit: None,
        target: "≤ 120",
    },
    Measure {
        name: "written",
        unit: "KiB per event",
        of: |it| it.kib_written,
        limit: Some("the event itself"),
        target: "",
    },
];

/// Answers how many events a second there were without a plugin.
pub(crate) fn measure(bench: &mut Bench) -> f64 {
    let cases = cases();
    let mut limits = Vec::new();
    let mut all: Vec<Vec<Figures>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..bench.rounds {
        limits.push(straight(bench));
        for (case, figures) in cases.iter().zip(&mut all) {
            figures.push(round(bench, case, EVENTS));
        }
    }
    let half = rounds(&limits, |it| it.per_second / 2.0);
    for (case, figures) in cases.iter().zip(&all) {
        bench.report.add(Row {
            group: GROUP,
            name: case.name.to_owned(),
            unit: "deliveries/s",
            values: rounds(figures, |it| it.per_second),
            limit: Some(("half of direct", half.clone())),
            target: case.target,
        });
    }
    for (case, figures) in cases.iter().zip(&all) {
        for it in &MEASURES {
            bench.report.add(Row {
                group: "What a delivery takes, saturated",
                name: format!("{}, {}", case.name, it.name),
                unit: it.unit,
                values: rounds(figures, it.of),
                limit: it.limit.map(|name| (name, rounds(&limits, it.of))),
                target: it.target,
            });
        }
    }
    all[0].iter().map(|it| it.per_second).sum::<f64>() / all[0].len() as f64
}

/// The ratios that matter, in under a minute.
pub(crate) fn quick(bench: &mut Bench) {
    let limit = straight(bench).per_second / 2.0;
    let cases = cases();
    let plain = round(bench, &cases[0], EVENTS);
    let minimize = round(bench, &cases[1], EVENTS);
    println!(
        "half of direct: {} events/s; end to end: {}\n\
         e2e/limit={:.2} e2e_minimize/limit={:.2} minimize/native={:.2} cpu_s_per_1000={:.3} \
         rss_mib={:.0} p99_ms={:.1}",
        number(limit),
        number(plain.per_second),
        plain.per_second / limit,
        minimize.per_second / limit,
        plugins::minimize_of_native(),
        plain.cpu_s_per_1000,
        plain.memory_mib,
        plain.p99_ms
    );
}

fn round(bench: &mut Bench, case: &Case, events: usize) -> Figures {
    let router = Router::start();
    for subscription in 0..case.subscriptions {
        router.subscribe(&bench.url(&format!("/{subscription}")), "*", &case.steps);
    }
    let load = Load {
        event: &case.event,
        events: WARM_UP,
        batch: case.batch,
        fan_out: case.subscriptions,
    };
    bench.deliver(&router, &load, Pace::Saturate);
    router.rest();
    let before = router.taken();
    // With ten subscriptions, a tenth of the events makes as many deliveries.
    let events = events / usize::from(case.subscriptions);
    let (took, came) = bench.deliver(&router, &Load { events, ..load }, Pace::Saturate);
    let memory_mib = router.memory_mib();
    router.rest();
    let after = router.taken();
    let deliveries = events * usize::from(case.subscriptions);
    Figures {
        per_second: per_second(deliveries, took),
        p50_ms: came.took.value_at_quantile(0.5) as f64 / 1e3,
        p99_ms: came.took.value_at_quantile(0.99) as f64 / 1e3,
        cpu_s_per_1000: (after.cpu - before.cpu).as_secs_f64() * 1_000.0 / deliveries as f64,
        memory_mib,
        kib_written: (after.written - before.written) as f64 / 1_024.0 / events as f64,
    }
}

/// Without a router. The CPU is that of both ends, which are in this process.
fn straight(bench: &mut Bench) -> Figures {
    let before = cpu();
    let (took, came) = bench.direct(EVENTS, Pace::Saturate);
    Figures {
        per_second: per_second(EVENTS, took),
        p50_ms: came.took.value_at_quantile(0.5) as f64 / 1e3,
        p99_ms: came.took.value_at_quantile(0.99) as f64 / 1e3,
        cpu_s_per_1000: (cpu() - before).as_secs_f64() * 1_000.0 / EVENTS as f64,
        memory_mib: f64::NAN,
        kib_written: event().len() as f64 / 1_024.0,
    }
}

/// The CPU time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a process begins with none")
}

fn rounds(figures: &[Figures], of: fn(&Figures) -> f64) -> Rounds {
    Rounds(figures.iter().map(of).collect())
}
