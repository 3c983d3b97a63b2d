//! How long after a kill everything is delivered that was not.

use std::time::Instant;

use serde_json::json;

use super::load::{self, Pace, Template};
use super::report::{Rounds, Row};
use super::router::Router;
use super::{Bench, CONNECTIONS, event};

/// How many deliveries are not settled then.
const UNSETTLED: usize = 100_000;
const BATCH: usize = 100;

pub(crate) fn measure(bench: &mut Bench) {
    let (mut ready, mut first, mut last, mut limit) =
        (Rounds::default(), Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..bench.rounds {
        let mut router = Router::start();
        router.subscribe(&bench.url("/"), "*", &json!([]));
        let template = Template::new("/v1/events", &router.token, &event(), BATCH);
        let times = bench.times(UNSETTLED);
        bench.receiver.expect(&times, 1);
        bench.receiver.hold(true);
        load::publish(router.address, &template, &times, CONNECTIONS, Pace::Saturate);
        router.rest();
        let killed = Instant::now();
        router.restart(|_| bench.receiver.hold(false));
        ready.0.push(killed.elapsed().as_secs_f64());
        let came = bench.receiver.wait();
        first.0.push((came.first - killed).as_secs_f64());
        last.0.push((came.last - killed).as_secs_f64());
        // Half of what the publishers do, as anything that is sent on.
        limit.0.push(2.0 * bench.direct(UNSETTLED, Pace::Saturate).0.as_secs_f64());
    }
    let rows = [
        ("it is ready", ready.clone(), None),
        ("the first is delivered", first, Some(("until it is ready", ready))),
        ("the last is delivered", last, Some(("as many at half of direct", limit))),
    ];
    for (name, values, limit) in rows {
        bench.report.add(Row {
            group: "After `kill -9`, with 100,000 deliveries unsettled, until",
            name: name.to_owned(),
            unit: "s",
            values,
            limit,
            target: "",
        });
    }
}
