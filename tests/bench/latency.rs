//! From when an event was to be published until it has come, at parts of what the router can take.

use super::end_to_end;
use super::load::Pace;
use super::report::{Rounds, Row};
use super::router::Router;
use super::{Bench, Load, event};

pub(crate) const GROUP: &str = "From publisher to receiver";
/// How long each rate is held, in seconds.
const SECONDS: f64 = 10.0;
/// The rate of a quiet machine, which peers were measured at.
const QUIET: f64 = 200.0;

pub(crate) fn measure(bench: &mut Bench, saturation: Option<f64>) {
    let saturation = saturation.unwrap_or_else(|| end_to_end::measure(bench));
    let parts = [
        (QUIET, "200/s".to_owned(), "≤ 1.0 / ≤ 3"),
        (saturation * 0.1, "10 % of saturation".to_owned(), ""),
        (saturation * 0.5, "50 % of saturation".to_owned(), "≤ 4 / ≤ 15"),
        (saturation * 0.8, "80 % of saturation".to_owned(), ""),
    ];
    for (rate, name, target) in parts {
        let mut quantiles = [Rounds::default(), Rounds::default(), Rounds::default()];
        for _ in 0..bench.rounds {
            let took = round(bench, rate);
            for (rounds, took) in quantiles.iter_mut().zip(took) {
                rounds.0.push(took);
            }
        }
        for (quantile, values) in ["p50", "p99", "p99.9"].iter().zip(quantiles) {
            bench.report.add(Row {
                group: GROUP,
                name: format!("{name}, {quantile}"),
                unit: "ms",
                values,
                limit: None,
                target: if *quantile == "p99.9" { "" } else { target },
            });
        }
    }
}

/// The median, 99 and 99.9 of a hundred, in milliseconds.
fn round(bench: &mut Bench, rate: f64) -> [f64; 3] {
    let router = Router::start();
    router.subscribe(&bench.url("/"), "*", &serde_json::json!([]));
    let event = event();
    bench.deliver(&router, &Load::of(&event, 2_000), Pace::Saturate);
    router.rest();
    let load = Load::of(&event, (rate * SECONDS) as usize);
    let took = bench.deliver(&router, &load, Pace::PerSecond(rate)).1.took;
    [0.5, 0.99, 0.999].map(|quantile| took.value_at_quantile(quantile) as f64 / 1e3)
}
