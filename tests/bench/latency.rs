//! From when an event was to be published until it has come, at parts of what the router can take.

use super::end_to_end;
use super::load::Pace;
use super::receiver::Came;
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
        let (mut direct, mut routed) = (Vec::new(), Vec::new());
        for _ in 0..bench.rounds {
            direct.push(bench.direct((rate * SECONDS) as usize, Pace::PerSecond(rate)).1);
            routed.push(round(bench, rate));
        }
        for (quantile, of) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let millis = |it: &Came| it.took.value_at_quantile(of) as f64 / 1e3;
            bench.report.add(Row {
                group: GROUP,
                name: format!("{name}, {quantile}"),
                unit: "ms",
                values: Rounds(routed.iter().map(millis).collect()),
                limit: Some(("direct", Rounds(direct.iter().map(millis).collect()))),
                target: if quantile == "p99.9" { "" } else { target },
            });
        }
    }
}

fn round(bench: &mut Bench, rate: f64) -> Came {
    let router = Router::start();
    router.subscribe(&bench.url("/"), "*", &serde_json::json!([]));
    let event = event();
    bench.deliver(&router, &Load::of(&event, 2_000), Pace::Saturate);
    router.rest();
    let load = Load::of(&event, (rate * SECONDS) as usize);
    bench.deliver(&router, &load, Pace::PerSecond(rate)).1
}
