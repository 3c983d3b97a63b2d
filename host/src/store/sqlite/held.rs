//! Deliveries that are held, because their subscription is paused or its plugin fails, and how they go out
//! again: in order, a page at a time, before any that come later.

use std::collections::BTreeSet;

use hookyard_nouns::subscription::IN_TURN;
use rusqlite::{Connection, OptionalExtension, Result, params};
use uuid::Uuid;

use super::order;
use super::rows::uuid;

/// Whether nothing keeps a subscription from being delivered to.
pub(super) fn may_go(connection: &Connection, subscription: Uuid) -> Result<bool> {
    connection
        .prepare_cached(
            "select 1 from subscriptions where id = ?1 and ended is null and state = 'active'
             and not exists (select 1 from quarantines where subscription = ?1)",
        )?
        .exists(params![subscription.as_bytes()])
}

/// Whether there is such a subscription, in whatever state.
pub(super) fn is_present(connection: &Connection, subscription: Uuid) -> Result<bool> {
    connection
        .prepare_cached("select 1 from subscriptions where id = ? and ended is null")?
        .exists(params![subscription.as_bytes()])
}

/// How many deliveries are cancelled in one transaction: a subscription may have millions of them, and whoever comes
/// meanwhile would wait for all of these.
const CANCELLED_MAX: usize = 500;

/// Cancels deliveries of a subscription that is gone. Answers whether there may be more.
pub(super) fn cancel(connection: &Connection, subscription: Uuid) -> Result<bool> {
    let mut left = CANCELLED_MAX;
    // Each of these goes along an index.
    for unsettled in [
        "due_at_ms is not null",
        "due_at_ms is null and (order_key is null or head_since_ms is not null)
         and state in ('pending', 'retrying')",
        "order_key is not null and unsettled",
        "state = 'held' and state not in ('delivered', 'pending')",
    ] {
        let mut cancel = connection.prepare_cached(&format!(
            "update deliveries set state = 'cancelled', due_at_ms = null where seq in
                 (select seq from deliveries where subscription = ? and {unsettled} limit ?)"
        ))?;
        left -= cancel.execute(params![subscription.as_bytes(), left])?;
    }
    Ok(left == 0)
}

/// Goes on with a subscription that is gone. Answers whether there may be more to cancel.
pub(super) fn cancel_ending(connection: &Connection) -> Result<bool> {
    let first = connection
        .query_row("select subscription from ending limit 1", (), |row| uuid(row, 0))
        .optional()?;
    let Some(subscription) = first else { return Ok(false) };
    if !cancel(connection, subscription)? {
        let done = "delete from ending where subscription = ?";
        connection.execute(done, params![subscription.as_bytes()])?;
    }
    Ok(true)
}

/// Whether something is held, or was held and has not gone yet.
pub(super) fn has_any(connection: &Connection, subscription: Uuid) -> Result<bool> {
    let held = connection
        .prepare_cached(
            "select 1 from deliveries indexed by deliveries_by_subscription_state
             where subscription = ? and state = 'held' and state not in ('delivered', 'pending')",
        )?
        .exists(params![subscription.as_bytes()])?;
    Ok(held || are_in_turn(connection, subscription)?)
}

/// Whether some that were held wait for the one before them to be delivered.
fn are_in_turn(connection: &Connection, subscription: Uuid) -> Result<bool> {
    connection
        .prepare_cached(
            "select 1 from deliveries indexed by deliveries_ordered
             where subscription = ? and order_key = ? and unsettled and passed_over = 0
               and state <> 'held'",
        )?
        .exists(params![subscription.as_bytes(), IN_TURN])
}

/// The subscriptions that deliveries are held for, or were held for and have not gone yet.
pub(super) fn all(connection: &Connection) -> Result<Vec<Uuid>> {
    let mut all = connection.prepare(
        "with recursive each (subscription) as (
             select min(subscription) from deliveries where state not in ('delivered', 'pending')
             union all
             select (select min(subscription) from deliveries
                     where state not in ('delivered', 'pending')
                       and subscription > each.subscription)
             from each where each.subscription is not null
         )
         select subscription from each where subscription is not null",
    )?;
    let others: BTreeSet<Uuid> = all.query_map((), |row| uuid(row, 0))?.collect::<Result<_>>()?;
    let mut ordered = connection.prepare(
        "with recursive each (subscription) as (
             select min(subscription) from deliveries where order_key is not null and unsettled
             union all
             select (select min(subscription) from deliveries
                     where order_key is not null and unsettled
                       and subscription > each.subscription)
             from each where each.subscription is not null
         )
         select subscription from each where subscription is not null",
    )?;
    let ordered: BTreeSet<Uuid> =
        ordered.query_map((), |row| uuid(row, 0))?.collect::<Result<_>>()?;
    let mut held = Vec::new();
    for it in others.union(&ordered).copied() {
        if has_any(connection, it)? {
            held.push(it);
        }
    }
    Ok(held)
}

/// See [`crate::store::Store::release_held`].
pub(super) fn release(
    connection: &Connection,
    subscription: Uuid,
    limit: usize,
    now_ms: i64,
) -> Result<Option<usize>> {
    if !may_go(connection, subscription)? {
        return Ok(None);
    }
    let some_are_due = connection
        .prepare_cached("select 1 from deliveries where subscription = ? and due_at_ms <= ?")?
        .exists(params![subscription.as_bytes(), now_ms])?;
    if some_are_due {
        return Ok(Some(0));
    }
    let mut find = connection.prepare_cached(
        "select seq, order_key from deliveries indexed by deliveries_by_subscription_state
         where subscription = ? and state = 'held' and state not in ('delivered', 'pending')
         order by created_at_ms, event_seq, part limit ?",
    )?;
    let mut held = find
        .query_map(params![subscription.as_bytes(), limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(i64, Option<i64>)>>>()?;
    let in_turn = are_in_turn(connection, subscription)?;
    let first = if in_turn { order::first_held(connection, subscription, IN_TURN)? } else { None };
    held.truncate(count_of_one_kind(&held, in_turn));
    // Whatever waits in turn waits for this one, wherever it stands in the list.
    held.extend(
        first.filter(|it| held.iter().all(|(seq, _)| seq != it)).map(|it| (it, Some(IN_TURN))),
    );
    let count = i64::try_from(held.len()).unwrap_or(0);
    // What is due first goes first.
    for ((seq, key), due_ms) in held.iter().zip(now_ms - count..) {
        connection
            .prepare_cached(
                "update deliveries set state = 'pending', reason = null, head_since_ms = null,
                     due_at_ms = iif(order_key is null or passed_over = 1, ?, null)
                 where seq = ?",
            )?
            .execute(params![due_ms, seq])?;
        if let Some(key) = key {
            order::promote(connection, subscription, *key, now_ms)?;
        }
    }
    Ok(Some(held.len()).filter(|count| *count > 0 || in_turn))
}

/// How many of those that are held go now. Those that go side by side, which have no key, wait until none goes in turn;
/// and those that go in turn wait until they are the first ones.
fn count_of_one_kind(held: &[(i64, Option<i64>)], mut in_turn: bool) -> usize {
    let mut side_by_side = false;
    let goes = |(_, key): &&(i64, Option<i64>)| match *key {
        None => {
            side_by_side = true;
            !in_turn
        }
        Some(IN_TURN) => {
            in_turn = true;
            !side_by_side
        }
        Some(_) => true,
    };
    held.iter().take_while(goes).count()
}
