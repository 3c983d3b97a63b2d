//! What is in the file, and whether it is sound.

use rusqlite::{Connection, Result};

use super::retention::number;
use crate::store::Stats;

pub(super) fn stats(connection: &Connection) -> Result<Stats> {
    let count = |sql: &str| connection.query_one(sql, (), |row| row.get::<_, u64>(0));
    let oldest = |sql: &str| connection.query_one(sql, (), |row| row.get::<_, Option<i64>>(0));
    let page_bytes = number(connection, "page_size")?;
    Ok(Stats {
        bytes: number(connection, "page_count")? * page_bytes,
        free_bytes: number(connection, "freelist_count")? * page_bytes,
        events: count("select count(*) from events")?,
        deliveries: count("select count(*) from deliveries indexed by deliveries_by_event")?,
        unsettled: count("select coalesce(sum(deliveries), 0) from backlogs")?,
        subscriptions: count("select count(*) from subscriptions where ended is null")?,
        plugins: count("select count(*) from plugin_versions")?,
        oldest_event_ms: oldest("select (select accepted_at_ms from events order by seq limit 1)")?,
        oldest_data_ms: oldest(
            "select (select accepted_at_ms from events
                     where seq > coalesce((select value from meta where name = 'payloads'), 0)
                     order by seq limit 1)",
        )?,
    })
}

/// What must not be, and how it is called.
const FAULTS: [(&str, &str); 5] = [
    (
        "deliveries that are not settled and whose event is gone",
        "select count(*) from deliveries where unsettled
         and not exists (select 1 from events where events.seq = deliveries.event_seq)",
    ),
    (
        "deliveries whose rendering is gone",
        "select count(*) from deliveries
         where not exists (select 1 from renderings where hash = deliveries.rendering)",
    ),
    (
        "deliveries that wait for another one that is not there",
        "select count(*) from deliveries as waits
         where order_key is not null and head_since_ms is null and passed_over = 0
           and state in ('pending', 'retrying')
           and not exists (select 1 from deliveries as first
                           where first.subscription = waits.subscription
                             and first.order_key = waits.order_key and first.passed_over = 0
                             and first.unsettled
                             and (first.event_seq, first.part) < (waits.event_seq, waits.part))",
    ),
    (
        "tenants whose backlog is counted wrong",
        "select count(*) from
             (select tenant, deliveries from backlogs where deliveries <> 0
              except
              select tenant, count(*) from deliveries
              where unsettled group by tenant)",
    ),
    (
        "attempts of deliveries that are gone",
        "select count(*) from attempts
         where not exists (select 1 from deliveries where id = attempts.delivery)",
    ),
];

/// What is wrong, in a sentence each.
pub(super) fn check(connection: &Connection) -> Result<Vec<String>> {
    let mut integrity = connection.prepare("pragma integrity_check")?;
    let lines = integrity.query_map((), |row| row.get::<_, String>(0))?;
    let mut faults: Vec<String> = lines.collect::<Result<_>>()?;
    faults.retain(|line| line != "ok");
    for (what, sql) in FAULTS {
        let count: u64 = connection.query_one(sql, (), |row| row.get(0))?;
        if count > 0 {
            faults.push(format!("there are {count} {what}"));
        }
    }
    Ok(faults)
}
