//! What is in the file, and whether it is sound.

use rusqlite::{Connection, Result, Row};

use super::log::{self, DELIVERY};
use super::retention::number;
use super::rows::{self, EVENT};
use super::{access, found, known, plugins, quarantines, replays};
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

/// How many broken rows of a table are named.
const NAMED_MAX: usize = 3;

/// Reads a row as it is read when it is needed.
type ReadRow = Box<dyn Fn(&Row<'_>) -> Result<()>>;

/// How each row of each table is read: the table, a column by which a person finds the row, and the query, of
/// which that is the first column.
fn tables() -> Vec<(&'static str, String, ReadRow)> {
    fn row<T>(read: impl Fn(&Row<'_>) -> Result<T> + 'static) -> ReadRow {
        Box::new(move |row| read(row).map(|_| ()))
    }
    vec![
        ("tenants", "select tenant from tenants".into(), row(|it| rows::tenant(it, 0))),
        ("events", format!("select {EVENT} from events"), row(|it| rows::event(it, 0))),
        ("deliveries", format!("select {DELIVERY} from deliveries"), row(log::read)),
        ("subscriptions", found::all(), row(found::check)),
        ("tokens", access::all_tokens(), row(access::read)),
        ("identities", access::all_identities(), row(access::read_identity)),
        (
            "renderings",
            "select hash, definition from renderings".into(),
            row(|it| rows::rendering(it, 1, rows::digest(it, 0)?)),
        ),
        (
            "plugin_files",
            "select digest, file from plugin_files".into(),
            row(|it| plugins::read_file(it, 1, rows::digest(it, 0)?)),
        ),
        ("plugin_versions", plugins::all_versions(), row(plugins::read)),
        ("replays", replays::REPLAY.into(), row(replays::read)),
        ("quarantines", quarantines::ALL.into(), row(quarantines::read)),
        (
            "account_settings",
            "select tenant, settings from account_settings".into(),
            row(|it| rows::json::<serde_json::Value>(it, 1)),
        ),
        ("routed", known::ROUTED.into(), row(known::read_routed)),
    ]
}

/// What is wrong, in a sentence each.
pub(super) fn check(connection: &Connection) -> Result<Vec<String>> {
    let mut integrity = connection.prepare("pragma integrity_check")?;
    let lines = integrity.query_map((), |row| row.get::<_, String>(0))?;
    let mut faults: Vec<String> = lines.collect::<Result<_>>()?;
    faults.retain(|line| line != "ok");
    for (table, sql, read) in tables() {
        faults.extend(broken_rows(connection, table, &sql, &read));
    }
    for (what, sql) in FAULTS {
        match connection.query_one(sql, (), |row| row.get::<_, u64>(0)) {
            Ok(0) => {}
            Ok(count) => faults.push(format!("there are {count} {what}")),
            Err(err) => faults.push(format!("whether there are {what} cannot be found out: {err}")),
        }
    }
    Ok(faults)
}

/// What is wrong with the rows of a table, if something is.
fn broken_rows(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    read: &ReadRow,
) -> Option<String> {
    let (mut count, mut named) = (0, Vec::new());
    let looked = connection.prepare(sql).and_then(|mut all| {
        let mut rows = all.query(())?;
        while let Some(row) = rows.next()? {
            if let Err(it) = rows::named(table, row, 0, read)? {
                count += 1;
                if named.len() < NAMED_MAX {
                    named.push(format!("{} ({})", it.row, it.why));
                }
            }
        }
        Ok(())
    });
    if let Err(err) = looked {
        return Some(format!("`{table}` cannot be read to its end: {err}"));
    }
    let more = if count > named.len() { ", …" } else { "" };
    (count > 0).then(|| format!("{count} rows of `{table}` are broken: {}{more}", named.join(", ")))
}
