//! How many events a second are on disk and answered, against what the same disk takes from SQLite alone.

use std::time::Instant;

use super::load::{self, Pace, Template};
use super::report::{Rounds, Row};
use super::router::Router;
use super::{Bench, CONNECTIONS, event, per_second};

const EVENTS: usize = 60_000;

pub(crate) fn measure(bench: &mut Bench) {
    for (batch, name) in [(1, "single events"), (100, "batches of 100")] {
        let (mut accepted, mut limit) = (Rounds::default(), Rounds::default());
        for _ in 0..bench.rounds {
            // As many as are published at the same time can be on disk together.
            limit.0.push(bare(CONNECTIONS * batch));
            accepted.0.push(round(bench, batch));
        }
        bench.report.add(Row {
            group: "Accepted, with nobody to deliver to",
            name: name.to_owned(),
            unit: "events/s",
            values: accepted,
            limit: Some(("rows in groups as large", limit)),
            target: "",
        });
    }
}

fn round(bench: &mut Bench, batch: usize) -> f64 {
    let router = Router::start();
    let template = Template::new("/v1/events", &router.token, &event(), batch);
    let times = bench.times(EVENTS / batch * batch);
    let (begun, ended) =
        load::publish(router.address, &template, &times, CONNECTIONS, Pace::Saturate);
    per_second(times.len(), ended - begun)
}

/// Rows a second of an event's size, each group a durable transaction.
fn bare(group: usize) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("bare.sqlite")).unwrap();
    connection
        .execute_batch(
            "pragma journal_mode = wal; pragma synchronous = full; pragma wal_autocheckpoint = 4000;
             create table rows (seq integer primary key, id blob unique, data blob) strict",
        )
        .unwrap();
    let event = event();
    let begun = Instant::now();
    let mut rows = 0;
    while rows < EVENTS {
        connection.execute_batch("begin immediate").unwrap();
        for _ in 0..group {
            let id = uuid::Uuid::now_v7();
            connection
                .prepare_cached("insert into rows (id, data) values (?, ?)")
                .unwrap()
                .execute((id.as_bytes(), event.as_bytes()))
                .unwrap();
        }
        connection.execute_batch("commit").unwrap();
        rows += group;
    }
    per_second(rows, begun.elapsed())
}
