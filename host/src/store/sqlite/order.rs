//! Deliveries that are made one after the other: of those of a subscription with the same key, the first
//! one goes, and the next when that is settled or has been passed over.

use hookyard_nouns::delivery::Delivery;
use rusqlite::{Connection, OptionalExtension, Result, params};
use uuid::Uuid;

/// How many deliveries are passed over in one transaction.
const PASSED_OVER_MAX: usize = 100;

/// The delivery that is to go before the others of its key.
const FIRST: &str = "select seq, event_seq, part, head_since_ms, state from deliveries
     where subscription = ? and order_key = ? and unsettled
     and passed_over = 0 order by event_seq, part limit 1";

/// A new delivery takes its place. Answers whether it is the first one; the one that was it waits then.
/// Deliveries come in any order, but none is made before all that are to go before it have come.
pub(super) fn enter(connection: &Connection, it: &Delivery, event_seq: u64) -> Result<bool> {
    let Some(key) = it.order_key else { return Ok(true) };
    let first: Option<(i64, u64, u16)> = connection
        .prepare_cached(FIRST)?
        .query_row(params![it.subscription_id.as_bytes(), key], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((seq, first_event, first_part)) = first else { return Ok(true) };
    if (first_event, first_part) < (event_seq, it.part) {
        return Ok(false);
    }
    let mut wait = connection.prepare_cached(
        "update deliveries set head_since_ms = null, due_at_ms = null where seq = ?",
    )?;
    wait.execute(params![seq])?;
    Ok(true)
}

/// The first delivery of a key, where it is held.
pub(super) fn first_held(
    connection: &Connection,
    subscription: Uuid,
    key: i64,
) -> Result<Option<i64>> {
    let first: Option<(i64, bool)> = connection
        .prepare_cached(FIRST)?
        .query_row(params![subscription.as_bytes(), key], |row| {
            Ok((row.get(0)?, row.get_ref(4)?.as_str()? == "held"))
        })
        .optional()?;
    Ok(first.filter(|(_, is_held)| *is_held).map(|(seq, _)| seq))
}

/// The first delivery of a key goes, unless it does already or is held.
pub(super) fn promote(
    connection: &Connection,
    subscription: Uuid,
    key: i64,
    now_ms: i64,
) -> Result<()> {
    let first: Option<(i64, bool)> = connection
        .prepare_cached(FIRST)?
        .query_row(params![subscription.as_bytes(), key], |row| {
            let head_since: Option<i64> = row.get(3)?;
            Ok((row.get(0)?, head_since.is_none() && row.get_ref(4)?.as_str()? != "held"))
        })
        .optional()?;
    if let Some((seq, true)) = first {
        connection
            .prepare_cached(
                "update deliveries set head_since_ms = ?1, due_at_ms = ?1 where seq = ?2",
            )?
            .execute(params![now_ms, seq])?;
    }
    Ok(())
}

/// Those that are tried again and again for longer than this hold nothing up any more.
pub(super) fn pass_over(
    connection: &Connection,
    subscription: Uuid,
    now_ms: i64,
    wait_ms: i64,
) -> Result<()> {
    let mut find = connection.prepare_cached(
        "select seq, order_key from deliveries indexed by deliveries_at_the_head
         where subscription = ? and head_since_ms <= ? and head_since_ms is not null
           and passed_over = 0 and state = 'retrying' limit ?",
    )?;
    let found = find
        .query_map(params![subscription.as_bytes(), now_ms - wait_ms, PASSED_OVER_MAX], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    for (seq, key) in found.collect::<Result<Vec<(i64, i64)>>>()? {
        connection
            .prepare_cached("update deliveries set passed_over = 1 where seq = ?")?
            .execute(params![seq])?;
        promote(connection, subscription, key, now_ms)?;
    }
    Ok(())
}

/// Since when the first of those is tried that may be passed over.
pub(super) fn oldest_head(connection: &Connection, subscription: Uuid) -> Result<Option<i64>> {
    connection
        .prepare_cached(
            "select min(head_since_ms) from deliveries indexed by deliveries_at_the_head
             where subscription = ? and head_since_ms is not null and passed_over = 0
               and state = 'retrying'",
        )?
        .query_row(params![subscription.as_bytes()], |row| row.get(0))
}
