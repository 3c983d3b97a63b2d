//! Forgetting, a little at a time. What is not settled is never touched.

use hookyard_nouns::delivery::Reason;
use hookyard_nouns::event::Tenant;
use rusqlite::{Connection, OptionalExtension, Result, params};
use uuid::Uuid;

use super::rows::{to_json, uuid};
use super::writer::Writing;
use super::{access, counts, events, held, order, plugin_log};
use crate::store::{Pruned, Retention};

/// How many rows of a kind are looked at in one transaction, so that none of them takes long.
const ROWS_MAX: usize = 250;
/// How many free pages are given back to the file system in one transaction.
const PAGES_MAX: u32 = 500;

pub(super) fn prune(writing: &Writing<'_>, now_ms: i64, retention: Retention) -> Result<Pruned> {
    let connection = writing.connection;
    let routed = writing.known.routed_upto();
    let is_too_large = bytes(connection)? > retention.bytes_max;
    let payloads_before = if is_too_large { now_ms } else { now_ms - retention.payloads_ms };
    let attempts_before = now_ms - retention.attempts_ms;
    let mut more = held::cancel_ending(connection)?;
    more |= give_up_held(connection, now_ms)?;
    let more_payloads = forget_payloads(connection, payloads_before, routed)?;
    // When all data are gone that can go, the log is what makes it too large.
    let log_before = if is_too_large && !more_payloads { now_ms } else { attempts_before };
    more |= more_payloads;
    more |= forget_deliveries(connection, log_before, routed)?;
    more |= forget_events(connection, log_before, routed)?;
    more |= events::forget_published(connection, now_ms, ROWS_MAX)?;
    more |= plugin_log::forget(connection, now_ms - retention.payloads_ms, ROWS_MAX)?;
    more |= counts::forget(connection, attempts_before, ROWS_MAX)?;
    let revision = forget_states(connection, routed)?;
    access::prune_tokens(connection, now_ms)?;
    more |= give_back(connection)?;
    Ok(Pruned { more, revision })
}

/// Gives free pages back to the file system. Answers whether there are more than a little.
fn give_back(connection: &Connection) -> Result<bool> {
    connection.execute_batch(&format!("pragma incremental_vacuum({PAGES_MAX})"))?;
    Ok(number(connection, "freelist_count")? > u64::from(PAGES_MAX))
}

/// For how long deliveries are held for a subscription that is paused (the page of MyPreferences on
/// `CatchUpOnResume`: "events older than 15 days will not be sent").
const HELD_MAX_MS: i64 = 15 * 24 * 3_600 * 1_000;

fn give_up_held(connection: &Connection, now_ms: i64) -> Result<bool> {
    let reason = Reason::new("held-too-long", "it was held for more than 15 days");
    let mut find = connection.prepare_cached(
        "select seq, subscription, order_key from deliveries indexed by deliveries_held
         where state = 'held' and created_at_ms < ? limit ?",
    )?;
    let held = find
        .query_map(params![now_ms - HELD_MAX_MS, ROWS_MAX], |row| {
            Ok((row.get(0)?, uuid(row, 1)?, row.get(2)?))
        })?
        .collect::<Result<Vec<(i64, Uuid, Option<i64>)>>>()?;
    for (seq, subscription, key) in &held {
        connection
            .prepare_cached(
                "update deliveries set state = 'dead', due_at_ms = null, reason = ? where seq = ?",
            )?
            .execute(params![to_json(&reason), seq])?;
        if let Some(key) = key {
            order::promote(connection, *subscription, *key, now_ms)?;
        }
    }
    Ok(held.len() == ROWS_MAX)
}

/// How far something has gone through all rows, once.
fn progress(connection: &Connection, name: &str) -> Result<u64> {
    let mut find = connection.prepare_cached("select value from meta where name = ?")?;
    Ok(find.query_row([name], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn put_progress(connection: &Connection, name: &str, upto: u64) -> Result<()> {
    connection
        .prepare_cached("insert or replace into meta (name, value) values (?, ?)")?
        .execute(params![name, upto])
        .map(|_| ())
}

const NEEDED: &str = "exists (select 1 from deliveries where deliveries.event_seq = events.seq
                              and deliveries.unsettled)";

/// Answers whether there is more to forget, as the next two do. Goes forward through the events, once.
/// What is needed when it is passed goes with its event.
fn forget_payloads(connection: &Connection, before_ms: i64, routed: u64) -> Result<bool> {
    let done = progress(connection, "payloads")?;
    let (count, last): (usize, Option<u64>) = connection
        .prepare_cached(
            "select count(*), max(seq) from
                 (select seq from events where seq > ? and seq <= ? and accepted_at_ms < ?
                  order by seq limit ?)",
        )?
        .query_row(params![done, routed, before_ms, ROWS_MAX], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let Some(last) = last else { return Ok(false) };
    let sql = format!("update events set data = null where seq > ? and seq <= ? and not {NEEDED}");
    connection.prepare_cached(&sql)?.execute(params![done, last])?;
    put_progress(connection, "payloads", last)?;
    Ok(count == ROWS_MAX)
}

/// The next page of a table that is gone through again and again: what is still needed when it is passed is
/// looked at when its turn comes again. None at the end of what is old enough.
struct Old {
    after: u64,
    last: u64,
    is_last_page: bool,
}

fn next_page(
    connection: &Connection,
    table: &str,
    time: &str,
    before_ms: i64,
) -> Result<Option<Old>> {
    let after = progress(connection, table)?;
    let (count, last): (usize, Option<u64>) = connection
        .prepare_cached(&format!(
            "select count(*), max(seq) from
                 (select seq, {time} from {table} where seq > ? order by seq limit ?) where {time} < ?"
        ))?
        .query_row(params![after, ROWS_MAX, before_ms], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let is_last_page = count < ROWS_MAX;
    let upto = last.filter(|_| !is_last_page).unwrap_or(0);
    if upto != after {
        put_progress(connection, table, upto)?;
    }
    Ok(last.map(|last| Old { after, last, is_last_page }))
}

fn forget_deliveries(connection: &Connection, before_ms: i64, routed: u64) -> Result<bool> {
    let page = next_page(connection, "deliveries", "created_at_ms", before_ms)?;
    let Some(page) = page else { return Ok(false) };
    for sql in [
        "delete from attempts where delivery in
             (select id from deliveries where seq > ?1 and seq <= ?2 and created_at_ms < ?3
              and event_seq <= ?4 and not unsettled)",
        "delete from deliveries where seq > ?1 and seq <= ?2 and created_at_ms < ?3
              and event_seq <= ?4 and not unsettled",
    ] {
        let values = params![page.after, page.last, before_ms, routed];
        connection.prepare_cached(sql)?.execute(values)?;
    }
    Ok(!page.is_last_page)
}

fn forget_events(connection: &Connection, before_ms: i64, routed: u64) -> Result<bool> {
    let page = next_page(connection, "events", "accepted_at_ms", before_ms)?;
    let Some(page) = page else { return Ok(false) };
    let sql = format!(
        "delete from events where seq > ? and seq <= ? and accepted_at_ms < ? and seq <= ? and not {NEEDED}"
    );
    let values = params![page.after, page.last, before_ms, routed];
    connection.prepare_cached(&sql)?.execute(values)?;
    Ok(!page.is_last_page)
}

/// Ended states of subscriptions that no unrouted event can ask for. Answers with the revision of the
/// first such event.
fn forget_states(connection: &Connection, routed: u64) -> Result<u64> {
    let revision = connection
        .prepare_cached(
            "select coalesce(
                 (select revision from events where seq > ? order by seq limit 1),
                 (select value from meta where name = 'revision'))",
        )?
        .query_row(params![routed], |row| row.get(0))?;
    connection
        .prepare_cached("delete from subscriptions where ended <= ?")?
        .execute(params![revision])?;
    Ok(revision)
}

fn bytes(connection: &Connection) -> Result<u64> {
    let used = number(connection, "page_count")? - number(connection, "freelist_count")?;
    Ok(used * number(connection, "page_size")?)
}

pub(super) fn number(connection: &Connection, pragma: &str) -> Result<u64> {
    connection.query_one(&format!("pragma {pragma}"), (), |row| row.get(0))
}

/// Forgets deliveries that are settled and whose events are routed: others would come again.
pub(super) fn purge(
    connection: &Connection,
    tenant: &Tenant,
    ids: &[Uuid],
    routed: u64,
) -> Result<u64> {
    let mut purged = 0;
    for id in ids {
        let gone = connection
            .prepare_cached(
                "delete from deliveries where id = ? and tenant = ? and event_seq <= ?
                 and not unsettled",
            )?
            .execute(params![id.as_bytes(), tenant.as_str(), routed])?;
        if gone > 0 {
            connection
                .prepare_cached("delete from attempts where delivery = ?")?
                .execute(params![id.as_bytes()])?;
            purged += 1;
        }
    }
    Ok(purged)
}
