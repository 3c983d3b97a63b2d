//! The deliveries that are due, and how they are given out.

use std::sync::Arc;

use hookyard_nouns::delivery::Reason;
use hookyard_nouns::event::Tenant;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use uuid::Uuid;

use super::log::{DELIVERY, DELIVERY_COLUMNS, read};
use super::order;
use super::rows::{self, EVENT, EVENT_COLUMNS, is_broken, named, sound, to_json, uuid, why};
use super::writer::Writing;
use crate::store::{Claim, Due};

/// How long a delivery waits for others to be routed that may have to go before it.
const ROUTED_AGAIN_MS: i64 = 20;
/// How large the events of one claim may be together. It has one at least.
const CLAIM_BYTES_MAX: usize = 4 << 20;

pub(super) fn release_claims(connection: &Connection, now_ms: i64) -> Result<()> {
    connection.execute(
        "update deliveries indexed by deliveries_out set due_at_ms = ?
         where due_at_ms is null and (order_key is null or head_since_ms is not null)
           and state in ('pending', 'retrying')",
        params![now_ms],
    )?;
    Ok(())
}

/// What waits for a time waits no longer for it because the clock was set back.
pub(super) fn set_back(connection: &Connection, now_ms: i64, by_ms: i64) -> Result<()> {
    connection.execute(
        "update deliveries set due_at_ms = due_at_ms - iif(due_at_ms > ?2, ?1, 0),
                               head_since_ms = head_since_ms - iif(head_since_ms > ?2, ?1, 0)
         where due_at_ms > ?2 or head_since_ms > ?2",
        params![by_ms, now_ms],
    )?;
    Ok(())
}

pub(super) fn all(connection: &Connection) -> Result<Vec<(Tenant, Uuid, i64)>> {
    // From one subscription to the next, however much is due for each.
    let mut all = connection.prepare(
        "with recursive each (subscription) as (
             select min(subscription) from deliveries where due_at_ms is not null
             union all
             select (select min(subscription) from deliveries
                     where due_at_ms is not null and subscription > each.subscription)
             from each where each.subscription is not null
         )
         select tenant, each.subscription, due_at_ms from each, deliveries
         where each.subscription is not null and deliveries.seq =
             (select seq from deliveries where deliveries.subscription = each.subscription
                 and due_at_ms is not null order by due_at_ms limit 1)",
    )?;
    let found = all.query_map((), |row| {
        named("deliveries", row, 1, |row| Ok((rows::tenant(row, 0)?, uuid(row, 1)?, row.get(2)?)))
    })?;
    sound(found).collect()
}

pub(super) fn claim(
    writing: &Writing<'_>,
    subscription: Uuid,
    now_ms: i64,
    limit: usize,
    order_wait_ms: Option<i64>,
) -> Result<Claim> {
    let connection = writing.connection;
    let mut next_ms = None;
    if let Some(wait_ms) = order_wait_ms {
        order::pass_over(connection, subscription, now_ms, wait_ms)?;
        next_ms = order::oldest_head(connection, subscription)?.map(|since_ms| since_ms + wait_ms);
    }
    let mut find = connection.prepare_cached(&format!(
        "{} where deliveries.subscription = ? and deliveries.due_at_ms <= ?
         order by deliveries.due_at_ms, deliveries.seq limit ?",
        due_rows()
    ))?;
    let mut rows = find.query(params![subscription.as_bytes(), now_ms, limit])?;
    let (mut due, mut broken, mut bytes) = (Vec::new(), Vec::new(), 0);
    while bytes < CLAIM_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        match read_due(row) {
            Ok(it) => {
                bytes += it.event.as_ref().map_or(0, |it| it.content.data_bytes());
                due.push(it);
            }
            Err(err) if is_broken(&err) => broken.push((row.get(DUE_SEQ)?, why(&err))),
            Err(err) => return Err(err),
        }
    }
    drop(rows);
    for (seq, why) in &broken {
        give_up_broken(connection, subscription, now_ms, *seq, why)?;
    }
    let found = due.len();
    due.retain(|it| {
        it.delivery.order_key.is_none() || it.event_seq <= writing.known.routed_upto_of(&it.tenant)
    });
    let mut take =
        connection.prepare_cached("update deliveries set due_at_ms = null where id = ?")?;
    for it in &mut due {
        take.execute(params![it.delivery.id.as_bytes()])?;
        it.delivery.due_at_ms = None;
    }
    let mut first = connection.prepare_cached(
        "select min(due_at_ms) from deliveries where subscription = ? and due_at_ms is not null",
    )?;
    let first_ms: Option<i64> =
        first.query_row(params![subscription.as_bytes()], |row| row.get(0))?;
    let least_ms = if due.len() < found { now_ms + ROUTED_AGAIN_MS } else { i64::MIN };
    next_ms = first_ms.map(|it| it.max(least_ms)).into_iter().chain(next_ms).min();
    Ok(Claim { due, next_ms })
}

/// How deliveries are found that are read by [`read_due`].
fn due_rows() -> String {
    format!(
        "select {DELIVERY}, deliveries.tenant, deliveries.event_seq, renderings.definition, {EVENT},
                deliveries.seq
         from deliveries
         join renderings on renderings.hash = deliveries.rendering
         left join events on events.seq = deliveries.event_seq"
    )
}

/// Where the delivery's number stands in it.
const DUE_SEQ: usize = DELIVERY_COLUMNS + 3 + EVENT_COLUMNS;

fn read_due(row: &Row<'_>) -> Result<Due> {
    let next = DELIVERY_COLUMNS;
    let gone = row.get_ref(next + 3)? == ValueRef::Null;
    let delivery = read(row)?;
    Ok(Due {
        tenant: rows::tenant(row, next)?,
        event_seq: row.get(next + 1)?,
        event: if gone { None } else { rows::event(row, next + 3)? },
        rendering: Arc::new(rows::rendering(row, next + 2, delivery.rendering)?),
        delivery,
    })
}

/// A delivery that cannot be made, since its row or what it is made of is broken: it is failed, and the others
/// go on.
fn give_up_broken(
    connection: &Connection,
    subscription: Uuid,
    now_ms: i64,
    seq: i64,
    why: &str,
) -> Result<()> {
    tracing::error!(%subscription, seq, why, "a delivery is broken and given up");
    let reason = Reason::new("broken-row", format!("what it is made of is broken: {why}"));
    let key: Option<i64> = connection
        .prepare_cached(
            "update deliveries set state = 'failed', reason = ?, due_at_ms = null where seq = ?
             returning order_key",
        )?
        .query_row(params![to_json(&reason), seq], |row| row.get(0))?;
    match key {
        Some(key) => order::promote(connection, subscription, key, now_ms),
        None => Ok(()),
    }
}

pub(super) fn oldest_held(connection: &Connection, subscription: Uuid) -> Result<Option<Due>> {
    let sql = format!(
        "{} where deliveries.subscription = ? and deliveries.state = 'held'
         and deliveries.state not in ('delivered', 'pending')
         and deliveries.body is null order by deliveries.created_at_ms, deliveries.seq limit 1",
        due_rows()
    );
    let mut find = connection.prepare_cached(&sql)?;
    find.query_row(params![subscription.as_bytes()], read_due).optional()
}
