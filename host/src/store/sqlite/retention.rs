//! Forgetting, a little at a time. What is not settled is never touched.

use rusqlite::{Connection, OptionalExtension, Result, params};

use super::rows::to_json;
use super::writer::Writing;
use super::{access, plugin_log};
use crate::delivery::Reason;
use crate::store::{Pruned, Retention};

/// How many rows of a kind are looked at in one transaction, so that none of them takes long.
const ROWS_MAX: usize = 500;
/// How many free pages are given back to the file system in one transaction.
const PAGES_MAX: u32 = 2_000;

pub(super) fn prune(writing: &Writing<'_>, now_ms: i64, retention: Retention) -> Result<Pruned> {
    let connection = writing.connection;
    let routed = writing.known.routed_upto();
    let mut payloads_before = now_ms - retention.payloads_ms;
    if bytes(connection)? > retention.bytes_max {
        payloads_before = now_ms;
    }
    let attempts_before = now_ms - retention.attempts_ms;
    let gave_up = give_up_held(connection, now_ms)?;
    let mut more = gave_up;
    more |= forget_payloads(connection, payloads_before, routed)?;
    more |= forget_deliveries(connection, attempts_before)?;
    more |= forget_events(connection, attempts_before, routed)?;
    more |= plugin_log::forget(connection, now_ms - retention.payloads_ms, ROWS_MAX)?;
    connection
        .prepare_cached("delete from filtered where minute < ? / 60000")?
        .execute(params![attempts_before])?;
    let revision = forget_states(connection, routed)?;
    access::prune_tokens(connection, now_ms)?;
    connection.execute_batch(&format!("pragma incremental_vacuum({PAGES_MAX})"))?;
    Ok(Pruned { more, revision })
}

/// For how long deliveries are held for a subscription that is paused (the page of MyPreferences on
/// `CatchUpOnResume`: "events older than 15 days will not be sent").
const HELD_MAX_MS: i64 = 15 * 24 * 3_600 * 1_000;

fn give_up_held(connection: &Connection, now_ms: i64) -> Result<bool> {
    let reason = Reason::new("held-too-long", "it was held for more than 15 days");
    let given_up = connection
        .prepare_cached(
            "update deliveries set state = 'dead', due_at_ms = null, reason = ?
             where seq in (select seq from deliveries
                           where state = 'held' and created_at_ms < ? limit ?)",
        )?
        .execute(params![to_json(&reason), now_ms - HELD_MAX_MS, ROWS_MAX])?;
    Ok(given_up == ROWS_MAX)
}

const NEEDED: &str = "exists (select 1 from deliveries where deliveries.event_seq = events.seq
                              and deliveries.state in ('pending', 'retrying', 'held'))";

/// Answers whether there is more to forget, as the next two do. Goes forward through the events, once.
/// What is needed when it is passed goes with its event.
fn forget_payloads(connection: &Connection, before_ms: i64, routed: u64) -> Result<bool> {
    let done: u64 = connection
        .query_row("select value from meta where name = 'payloads'", (), |row| row.get(0))
        .optional()?
        .unwrap_or(0);
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
    connection
        .prepare_cached("insert or replace into meta (name, value) values ('payloads', ?)")?
        .execute(params![last])?;
    Ok(count == ROWS_MAX)
}

const OLD_DELIVERIES: &str =
    "(select seq, id, created_at_ms, state from deliveries order by seq limit ?2)
     where created_at_ms < ?1 and state not in ('pending', 'retrying', 'held')";

fn forget_deliveries(connection: &Connection, before_ms: i64) -> Result<bool> {
    let attempts =
        format!("delete from attempts where delivery in (select id from {OLD_DELIVERIES})");
    connection.prepare_cached(&attempts)?.execute(params![before_ms, ROWS_MAX])?;
    let deliveries =
        format!("delete from deliveries where seq in (select seq from {OLD_DELIVERIES})");
    let forgotten =
        connection.prepare_cached(&deliveries)?.execute(params![before_ms, ROWS_MAX])?;
    Ok(forgotten == ROWS_MAX)
}

fn forget_events(connection: &Connection, before_ms: i64, routed: u64) -> Result<bool> {
    let sql = format!(
        "delete from events where seq in
             (select seq from (select seq, accepted_at_ms from events order by seq limit ?)
              where accepted_at_ms < ? and seq <= ?) and not {NEEDED}"
    );
    let forgotten =
        connection.prepare_cached(&sql)?.execute(params![ROWS_MAX, before_ms, routed])?;
    Ok(forgotten == ROWS_MAX)
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
    let number = |pragma: &str| {
        connection.query_one(&format!("pragma {pragma}"), (), |row| row.get::<_, u64>(0))
    };
    Ok((number("page_count")? - number("freelist_count")?) * number("page_size")?)
}
