//! Whether it stays as fast as subscriptions and the log grow.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use rusqlite::Connection;
use serde_json::json;

use super::load::Pace;
use super::report::{Rounds, Row, whole};
use super::router::{Router, TENANT};
use super::{Bench, Load, event, per_second};

const EVENTS: usize = 20_000;
pub(crate) const GROUP: &str = "As subscriptions and the log grow";

pub(crate) fn measure(bench: &mut Bench) {
    let counts = [1, 1_000, 100_000];
    let [one, many, mut most] = counts.map(|count| subscribed(bench, count));
    let mut long = subscribed(bench, 1);
    long.restart(|store| fill(store, 1_000_000));
    let figures = in_turn(bench, &[&one, &many, &most, &long]);
    let plural = |count| if count == 1 { "" } else { "s" };
    let names = counts.map(|count| format!("{} subscription{}", whole(count), plural(count)));
    let names = names.into_iter().chain(["1,000,000 deliveries in the log".to_owned()]);
    for (name, it) in names.zip(&figures) {
        add(bench, &name, it, &figures[0]);
    }
    drop((many, long));

    let mut ready = Rounds::default();
    most.restart(|store| fill(store, 10_000_000));
    for _ in 0..bench.rounds {
        let mut killed = None;
        most.restart(|_| killed = Some(Instant::now()));
        ready.0.extend(killed.map(|it| it.elapsed().as_secs_f64()));
    }
    let name = "100,000 subscriptions, 10,000,000 deliveries in the log";
    let figures = in_turn(bench, &[&one, &most]);
    add(bench, name, &figures[1], &figures[0]);
    bench.report.add(Row {
        group: GROUP,
        name: format!("{name}: from the start until it is ready"),
        unit: "s",
        values: ready,
        limit: None,
        target: "≤ 2",
    });
}

/// A router with so many subscriptions, one of which wants what is published.
fn subscribed(bench: &Bench, count: usize) -> Router {
    let router = Router::start();
    for other in 1..count {
        let url = bench.url(&format!("/{other}"));
        router.subscribe(&url, &format!("other.{other}"), &json!([]));
    }
    router.subscribe(&bench.url("/0"), "order.paid", &json!([]));
    router
}

/// What a router came to: deliveries a second, and its memory in MiB.
#[derive(Default)]
struct Figures {
    rates: Rounds,
    memory: Rounds,
}

/// One after the other in each round: the machine may be faster in one than in the next.
fn in_turn(bench: &mut Bench, routers: &[&Router]) -> Vec<Figures> {
    let event = event();
    for router in routers {
        bench.deliver(router, &Load::of(&event, 2_000), Pace::Saturate);
    }
    let mut all: Vec<Figures> = routers.iter().map(|_| Figures::default()).collect();
    for _ in 0..bench.rounds {
        for (router, figures) in routers.iter().zip(&mut all) {
            router.rest();
            let (took, _) = bench.deliver(router, &Load::of(&event, EVENTS), Pace::Saturate);
            figures.rates.0.push(per_second(EVENTS, took));
            figures.memory.0.push(router.memory_mib());
        }
    }
    all
}

fn add(bench: &mut Bench, name: &str, figures: &Figures, one: &Figures) {
    bench.report.add(Row {
        group: GROUP,
        name: name.to_owned(),
        unit: "deliveries/s",
        values: figures.rates.clone(),
        limit: Some(("one subscription", one.rates.clone())),
        target: "within 10 %",
    });
    bench.report.add(Row {
        group: GROUP,
        name: format!("{name}: resident memory"),
        unit: "MiB",
        values: figures.memory.clone(),
        limit: None,
        target: "",
    });
}

/// Writes a log of deliveries that are settled, as the router would have: of all subscriptions in turn, five
/// of each event, over 29 days, one of fifty dead, without the data, which are kept for some days only. There
/// have to be subscriptions of [`TENANT`], and of nobody else.
pub(crate) fn fill(store: &Path, deliveries: usize) {
    let connection = Connection::open(store).unwrap();
    connection
        .execute_batch(
            "pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -1000000;
             create temp table indexes as select name, sql from sqlite_master
                 where type = 'index' and sql is not null and tbl_name in ('events', 'deliveries');
             create temp table subscribed as
                 select row_number() over () - 1 as number, id, rendering
                 from subscriptions where ended is null;
             create unique index temp.subscribed_by_number on subscribed (number)",
        )
        .unwrap();
    // It is faster to make them at the end.
    let indexes = texts(&connection, "select sql from temp.indexes");
    for name in texts(&connection, "select name from temp.indexes") {
        connection.execute_batch(&format!("drop index {name}")).unwrap();
    }
    write_log(&connection, deliveries / 5);
    for sql in indexes {
        connection.execute_batch(&sql).unwrap();
    }
    connection.execute_batch("pragma journal_mode = wal").unwrap();
    drop(connection);
    // Otherwise the disk is busy with it while the router is measured.
    File::open(store).unwrap().sync_all().unwrap();
}

fn texts(connection: &Connection, sql: &str) -> Vec<String> {
    let mut find = connection.prepare(sql).unwrap();
    let found = find.query_map((), |row| row.get(0)).unwrap();
    found.collect::<rusqlite::Result<_>>().unwrap()
}

fn write_log(connection: &Connection, events: usize) {
    let day_ms = 86_400_000_i64;
    let start = hookyard_nouns::clock::now_ms() - 29 * day_ms;
    let step = (29 * day_ms) as f64 / events as f64;
    // Ids begin with their time, as those of a router do.
    connection
        .execute(
            "with recursive s (i) as (
                 select coalesce(max(seq), 0) + 1 from events union all select i + 1 from s limit ?1)
             insert into events (seq, id, tenant, format, attributes, data_kind, data, accepted_at_ms,
                                 revision, type)
             select i, cast(unhex(printf('%012x', cast(?3 + i * ?4 as integer))) || randomblob(10) as blob),
                    ?2, 'cloudevents',
                    json_object('id', cast(i as text), 'source', '/log', 'type', 'log.' || (i % 20)),
                    'json', null, cast(?3 + i * ?4 as integer), 1, 'log.' || (i % 20)
             from s",
            (events, TENANT, start, step),
        )
        .unwrap();
    let written = connection
        .execute(
            "with parts (part) as (values (0), (1), (2), (3), (4))
             insert into deliveries (id, tenant, subscription, event, event_seq, part, rendering,
                 state, reason, attempts, attempt_at_ms, attempt_duration_ms, attempt_status,
                 attempt_answer, created_at_ms, attempt_detail)
             select cast(substr(events.id, 1, 6) || randomblob(10) as blob), tenant, subscribed.id,
                    events.id, seq, part, rendering,
                    iif(seq % 50 = part, 'dead', 'delivered'),
                    iif(seq % 50 = part, '{\"code\":\"exhausted\"}', null),
                    1, accepted_at_ms, 12, iif(seq % 50 = part, 503, 200), x'', accepted_at_ms,
                    '{\"first_byte_us\":900,\"headers\":[[\"webhook-id\",\"1\"]]}'
             from events cross join parts
             cross join temp.subscribed
                 on subscribed.number = (seq * 5 + part) % (select count(*) from temp.subscribed)
             where type like 'log.%'",
            (),
        )
        .unwrap();
    assert_eq!(written, events * 5);
    connection
        .execute(
            "insert into published
             select accepted_at_ms / ?1, tenant, attributes ->> 'source', attributes ->> 'id', seq from events
             where type like 'log.%' and accepted_at_ms >= ?2",
            (day_ms, start + 27 * day_ms),
        )
        .unwrap();
    connection
        .execute_batch(
            "insert or replace into routed (tenant, upto, beyond)
             select tenant, max(seq), '[]' from events group by tenant;
             insert or replace into meta (name, value) select 'payloads', max(seq) from events",
        )
        .unwrap();
}
