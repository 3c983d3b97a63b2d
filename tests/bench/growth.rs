//! Whether it stays as fast as subscriptions and the log grow.

use std::path::Path;

use serde_json::json;

use super::load::Pace;
use super::report::{Rounds, Row};
use super::router::{Router, TENANT};
use super::{Bench, Load, event, per_second};

const EVENTS: usize = 20_000;

pub(crate) fn measure(bench: &mut Bench) {
    let mut none = None;
    for count in [1, 1_000, 100_000] {
        let router = Router::start();
        for number in 1..count {
            router.subscribe(
                &bench.url(&format!("/{number}")),
                &format!("other.{number}"),
                &json!([]),
            );
        }
        router.subscribe(&bench.url("/0"), "order.paid", &json!([]));
        let name = format!("{count} subscriptions, one of which wants the event");
        add(bench, &router, &mut none, name);
    }
    for count in [0, 1_000_000, 10_000_000] {
        let mut router = Router::start();
        router.subscribe(&bench.url("/0"), "order.paid", &json!([]));
        router.restart(|store| fill(store, count));
        add(bench, &router, &mut none, format!("{count} deliveries in the log"));
    }
}

/// `first`: what the first of them came to.
fn add(bench: &mut Bench, router: &Router, first: &mut Option<Rounds>, name: String) {
    let event = event();
    bench.deliver(router, &Load::of(&event, 2_000), Pace::Saturate);
    let (mut rates, mut memory) = (Rounds::default(), Rounds::default());
    for _ in 0..bench.rounds {
        router.rest();
        let (took, _) = bench.deliver(router, &Load::of(&event, EVENTS), Pace::Saturate);
        rates.0.push(per_second(EVENTS, took));
        memory.0.push(router.memory_mib());
    }
    let group = "As subscriptions and the log grow";
    bench.report.add(Row {
        group,
        name: name.clone(),
        unit: "deliveries/s",
        limit: Some(("one subscription", first.get_or_insert_with(|| rates.clone()).clone())),
        values: rates,
        target: "within 10 %",
    });
    bench.report.add(Row {
        group,
        name: format!("{name}: resident memory"),
        unit: "MiB",
        values: memory,
        limit: None,
        target: "",
    });
}

/// Writes a log of deliveries that are settled, as the router would have: five of each event, over 29 days,
/// one of fifty dead, without the data, which are kept for some days only.
fn fill(store: &Path, deliveries: usize) {
    let each = 5;
    let connection = rusqlite::Connection::open(store).unwrap();
    connection.execute_batch("pragma synchronous = off; pragma cache_size = -1000000").unwrap();
    let (subscription, rendering): (Vec<u8>, Vec<u8>) = connection
        .query_row("select id, rendering from subscriptions where ended is null", (), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    let events = deliveries / each;
    let days_ms = 29 * 86_400_000_i64;
    let start = hookyard::clock::now_ms() - days_ms;
    let step = days_ms / i64::try_from(events.max(1)).unwrap();
    connection.execute_batch("begin").unwrap();
    connection
        .execute(
            "with recursive s (i) as (select 1 union all select i + 1 from s where i < ?1)
             insert into events (seq, id, same, tenant, format, attributes, data_kind, data,
                                 accepted_at_ms, revision, type, subject)
             select i, randomblob(16), randomblob(16), ?2, 'cloudevents',
                    json_object('id', cast(i as text), 'source', '/log', 'type', 'log.' || (i % 20)),
                    'json', null, ?3 + i * ?4, 1, 'log.' || (i % 20), null
             from s where i <= ?1 and ?1 > 0",
            (events, TENANT, start, step),
        )
        .unwrap();
    for part in 0..each {
        connection
            .execute(
                "insert into deliveries (id, tenant, subscription, event, event_seq, part, rendering,
                     state, reason, attempts, attempt_at_ms, attempt_duration_ms, attempt_status,
                     attempt_answer, created_at_ms, attempt_detail)
                 select randomblob(16), tenant, ?1, id, seq, ?2, ?3,
                        iif(seq % 50 = ?2, 'dead', 'delivered'),
                        iif(seq % 50 = ?2, '{\"code\":\"exhausted\"}', null),
                        1, accepted_at_ms, 12, iif(seq % 50 = ?2, 503, 200), x'', accepted_at_ms,
                        '{\"first_byte_us\":900,\"headers\":[[\"webhook-id\",\"1\"]]}'
                 from events",
                (&subscription, part, &rendering),
            )
            .unwrap();
    }
    connection
        .execute(
            "insert or replace into routed (tenant, upto, beyond)
             select tenant, max(seq), '[]' from events group by tenant",
            (),
        )
        .unwrap();
    connection.execute_batch("commit; pragma wal_checkpoint(truncate)").unwrap();
}
