//! The delivery log: what became of deliveries, and which are due.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Result, Row, params, params_from_iter};
use uuid::Uuid;

use super::rows::{self, EVENT, broken, digest, json, json_or_null, to_json, uuid};
use super::writer::Writing;
use super::{plugin_log, quarantines};
use crate::delivery::{Attempt, Delivery, DeliveryState};
use crate::event::Tenant;
use crate::plugin::Digest;
use crate::render::Rendering;
use crate::store::{DeliveryQuery, Due, Record};

const MINUTE_MS: i64 = 60_000;

pub(super) fn record_all(writing: &mut Writing<'_>, records: &[Record]) -> Result<()> {
    for it in records {
        match record(writing, it) {
            // A record that can never be written must not keep the others from being written.
            Err(err) if err.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                tracing::error!(%err, record = ?it, "a record breaks a rule of the store and is left out");
            }
            result => result?,
        }
    }
    Ok(())
}

fn record(writing: &mut Writing<'_>, record: &Record) -> Result<()> {
    match record {
        Record::Delivery { tenant, event_seq, delivery } => {
            let mut delivery = Cow::Borrowed(delivery.as_ref());
            if delivery.state == DeliveryState::Held {
                match state(writing.connection, delivery.subscription_id)?.as_deref() {
                    // It was deleted since the delivery was found to be held.
                    None => delivery.to_mut().state = DeliveryState::Cancelled,
                    Some("active")
                        if !quarantines::exists(writing.connection, delivery.subscription_id)? =>
                    {
                        // It was resumed, or its plugin is well again, since then.
                        let delivery = delivery.to_mut();
                        delivery.state = DeliveryState::Pending;
                        delivery.due_at_ms = Some(delivery.created_at_ms);
                    }
                    Some(_) => {}
                }
            }
            record_delivery(writing.connection, tenant, *event_seq, &delivery)
        }
        Record::Filtered { subscription, at_ms } => {
            let mut count = writing.connection.prepare_cached(
                "insert into filtered (subscription, minute, count) values (?, ?, 1)
                 on conflict do update set count = count + 1",
            )?;
            count.execute(params![subscription.as_bytes(), at_ms / MINUTE_MS]).map(|_| ())
        }
        Record::Log(it) => plugin_log::add(writing.connection, it),
        Record::Failing { subscription, since } => {
            put_failing(writing.connection, *subscription, *since)
        }
        Record::Routed { tenant, seq } => {
            writing.known.routed(tenant, *seq);
            Ok(())
        }
    }
}

/// The present state of a subscription, if there is one.
fn state(connection: &Connection, subscription: Uuid) -> Result<Option<String>> {
    connection
        .prepare_cached("select state from subscriptions where id = ? and ended is null")?
        .query_row(params![subscription.as_bytes()], |row| row.get(0))
        .optional()
}

/// Inserts a delivery or brings it up to date. What is delivered or dead stays so.
fn record_delivery(
    connection: &Connection,
    tenant: &Tenant,
    event_seq: u64,
    it: &Delivery,
) -> Result<()> {
    if it.attempts > 1 {
        let mut keep = connection.prepare_cached(
            "insert or ignore into attempts (delivery, number, at_ms, duration_ms, status, answer, error)
             select id, attempts, attempt_at_ms, attempt_duration_ms, attempt_status, attempt_answer,
                    attempt_error
             from deliveries where id = ? and attempts between 1 and ? and attempt_at_ms is not null",
        )?;
        keep.execute(params![it.id.as_bytes(), it.attempts - 1])?;
    }
    let mut write = connection.prepare_cached(
        "insert into deliveries (id, tenant, subscription, event, event_seq, part, rendering, body,
                                 state, reason, due_at_ms, attempts, attempt_at_ms,
                                 attempt_duration_ms, attempt_status, attempt_answer, attempt_error,
                                 created_at_ms)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         on conflict (id) do update set
             rendering = excluded.rendering, body = excluded.body, state = excluded.state, reason = excluded.reason,
             due_at_ms = excluded.due_at_ms, attempts = excluded.attempts,
             attempt_at_ms = excluded.attempt_at_ms,
             attempt_duration_ms = excluded.attempt_duration_ms,
             attempt_status = excluded.attempt_status, attempt_answer = excluded.attempt_answer,
             attempt_error = excluded.attempt_error
         where state in ('pending', 'retrying', 'held')
            or state = 'cancelled' and excluded.state = 'delivered'",
    )?;
    let attempt = it.last_attempt.as_ref();
    write.execute(params![
        it.id.as_bytes(),
        tenant.as_str(),
        it.subscription_id.as_bytes(),
        it.event_id.as_bytes(),
        event_seq,
        it.part,
        it.rendering.0,
        it.body.map(|body| body.0),
        it.state.as_str(),
        it.reason.as_ref().map(to_json),
        it.due_at_ms,
        it.attempts,
        attempt.map(|attempt| attempt.at_ms),
        attempt.map(|attempt| attempt.duration_ms),
        attempt.and_then(|attempt| attempt.status),
        attempt.map(|attempt| attempt.answer.as_slice()),
        attempt.and_then(|attempt| attempt.error.as_ref()).map(to_json),
        it.created_at_ms,
    ])?;
    Ok(())
}

/// The columns of [`read`], to be selected in this order.
pub(super) const DELIVERY: &str = "deliveries.id, deliveries.event, deliveries.subscription, deliveries.part, \
     deliveries.rendering, deliveries.body, deliveries.state, deliveries.reason, \
     deliveries.due_at_ms, deliveries.attempts, deliveries.attempt_at_ms, \
     deliveries.attempt_duration_ms, deliveries.attempt_status, deliveries.attempt_answer, \
     deliveries.attempt_error, deliveries.created_at_ms, deliveries.earlier_attempts";
const DELIVERY_COLUMNS: usize = 17;

pub(super) fn read(row: &Row<'_>) -> Result<Delivery> {
    let attempts = row.get(9)?;
    let attempt_at_ms: Option<i64> = row.get(10)?;
    let last_attempt = match attempt_at_ms {
        Some(at_ms) => Some(Attempt {
            number: attempts,
            at_ms,
            duration_ms: row.get(11)?,
            status: row.get(12)?,
            answer: row.get(13)?,
            error: json_or_null(row, 14)?,
        }),
        None => None,
    };
    let state: String = row.get(6)?;
    Ok(Delivery {
        id: uuid(row, 0)?,
        event_id: uuid(row, 1)?,
        subscription_id: uuid(row, 2)?,
        part: row.get(3)?,
        rendering: digest(row, 4)?,
        body: row.get::<_, Option<[u8; 32]>>(5)?.map(crate::plugin::Digest),
        state: DeliveryState::parse(&state).ok_or_else(|| broken(6, state))?,
        reason: json_or_null(row, 7)?,
        due_at_ms: row.get(8)?,
        attempts,
        last_attempt,
        created_at_ms: row.get(15)?,
        earlier_attempts: row.get(16)?,
    })
}

/// An event's deliveries have its time of acceptance in their ids.
fn ids_of(accepted_at_ms: i64) -> ([u8; 16], [u8; 16]) {
    let millis = accepted_at_ms.unsigned_abs();
    let first = |millis: u64| {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        id
    };
    (first(millis), first(millis + 1))
}

pub(super) fn recorded(
    connection: &Connection,
    event: Uuid,
    accepted_at_ms: i64,
) -> Result<Vec<Uuid>> {
    let (from, to) = ids_of(accepted_at_ms);
    let mut find = connection
        .prepare_cached("select id from deliveries where id >= ? and id < ? and event = ?")?;
    find.query_map(params![from, to, event.as_bytes()], |row| uuid(row, 0))?.collect()
}

pub(super) fn release_claims(connection: &Connection, now_ms: i64) -> Result<()> {
    connection.execute(
        "update deliveries set due_at_ms = ?
         where state in ('pending', 'retrying') and due_at_ms is null",
        params![now_ms],
    )?;
    Ok(())
}

pub(super) fn backlog(connection: &Connection) -> Result<Vec<(Uuid, i64)>> {
    let mut all = connection.prepare(
        "select subscription, min(due_at_ms) from deliveries indexed by deliveries_due
         where due_at_ms is not null group by subscription",
    )?;
    all.query_map((), |row| Ok((uuid(row, 0)?, row.get(1)?)))?.collect()
}

pub(super) fn next_due(connection: &Connection, subscription: Uuid) -> Result<Option<i64>> {
    let mut find = connection.prepare_cached(
        "select min(due_at_ms) from deliveries where subscription = ? and due_at_ms is not null",
    )?;
    find.query_row(params![subscription.as_bytes()], |row| row.get(0))
}

pub(super) fn claim(
    connection: &Connection,
    subscription: Uuid,
    now_ms: i64,
    limit: usize,
) -> Result<Vec<Due>> {
    let mut find = connection.prepare_cached(&format!(
        "{} where deliveries.subscription = ? and deliveries.due_at_ms <= ?
         order by deliveries.due_at_ms, deliveries.seq limit ?",
        due()
    ))?;
    let due = find.query_map(params![subscription.as_bytes(), now_ms, limit], read_due)?;
    let due: Vec<Due> = due.collect::<Result<_>>()?;
    let mut take =
        connection.prepare_cached("update deliveries set due_at_ms = null where id = ?")?;
    for it in &due {
        take.execute(params![it.delivery.id.as_bytes()])?;
    }
    Ok(due)
}

/// How deliveries are found that are read by [`read_due`].
fn due() -> String {
    format!(
        "select {DELIVERY}, deliveries.tenant, deliveries.event_seq, renderings.definition, {EVENT}
         from deliveries
         join renderings on renderings.hash = deliveries.rendering
         left join events on events.seq = deliveries.event_seq"
    )
}

fn read_due(row: &Row<'_>) -> Result<Due> {
    let next = DELIVERY_COLUMNS;
    let gone = row.get_ref(next + 3)?.as_bytes_or_null()?.is_none();
    Ok(Due {
        tenant: rows::tenant(row, next)?,
        event_seq: row.get(next + 1)?,
        delivery: read(row)?,
        event: if gone { None } else { rows::event(row, next + 3)? },
        rendering: Arc::new(json(row, next + 2)?),
    })
}

pub(super) fn oldest_held(connection: &Connection, subscription: Uuid) -> Result<Option<Due>> {
    let sql = format!(
        "{} where deliveries.subscription = ? and deliveries.state = 'held'
         and deliveries.body is null order by deliveries.seq limit 1",
        due()
    );
    let mut find = connection.prepare_cached(&sql)?;
    find.query_row(params![subscription.as_bytes()], read_due).optional()
}

pub(super) fn failing(connection: &Connection) -> Result<Vec<(Uuid, i64, u8)>> {
    let mut find = connection.prepare("select subscription, since_ms, announced from failing")?;
    find.query_map((), |row| Ok((uuid(row, 0)?, row.get(1)?, row.get(2)?)))?.collect()
}

fn put_failing(
    connection: &Connection,
    subscription: Uuid,
    since: Option<(i64, u8)>,
) -> Result<()> {
    let done = match since {
        Some((since_ms, announced)) => connection.execute(
            "insert or replace into failing (subscription, since_ms, announced) values (?, ?, ?)",
            params![subscription.as_bytes(), since_ms, announced],
        ),
        None => connection.execute(
            "delete from failing where subscription = ?",
            params![subscription.as_bytes()],
        ),
    };
    done.map(|_| ())
}

pub(super) fn rendering(connection: &Connection, hash: Digest) -> Result<Option<Rendering>> {
    let sql = "select definition from renderings where hash = ?";
    connection.query_row(sql, params![hash.0], |row| json(row, 0)).optional()
}

pub(super) fn deliveries(
    connection: &Connection,
    tenant: &Tenant,
    query: &DeliveryQuery,
) -> Result<Vec<(u64, Delivery)>> {
    let mut sql = format!("select {DELIVERY}, deliveries.seq from deliveries where tenant = ?");
    let mut values = vec![Value::from(tenant.as_str().to_owned())];
    if let Some(subscription) = query.subscription {
        sql.push_str(" and subscription = ?");
        values.push(subscription.as_bytes().to_vec().into());
    }
    if let Some(event) = query.event {
        let accepted: Option<i64> = connection
            .query_row(
                "select accepted_at_ms from events where id = ?",
                [event.as_bytes()],
                |row| row.get(0),
            )
            .optional()?;
        let Some(accepted) = accepted else { return Ok(Vec::new()) };
        let (from, to) = ids_of(accepted);
        sql.push_str(" and event = ? and id >= ? and id < ?");
        values.push(event.as_bytes().to_vec().into());
        values.extend([Value::from(from.to_vec()), to.to_vec().into()]);
    }
    if let Some(state) = query.state {
        sql.push_str(" and state = ?");
        values.push(state.as_str().to_owned().into());
    }
    if let Some(reason) = &query.reason {
        sql.push_str(
            " and reason ->> 'code' = ? and state in ('held', 'filtered', 'failed', 'dead')",
        );
        values.push(reason.clone().into());
    }
    if let Some(before) = query.before {
        sql.push_str(" and seq < ?");
        values.push(Value::Integer(i64::try_from(before).unwrap_or(i64::MAX)));
    }
    sql.push_str(" order by seq desc limit ?");
    values.push(Value::Integer(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    let mut find = connection.prepare_cached(&sql)?;
    let found = find
        .query_map(params_from_iter(values), |row| Ok((row.get(DELIVERY_COLUMNS)?, read(row)?)))?;
    found.collect()
}

pub(super) fn delivery(
    connection: &Connection,
    tenant: &Tenant,
    id: Uuid,
) -> Result<Option<(Delivery, Vec<Attempt>)>> {
    let sql = format!("select {DELIVERY} from deliveries where id = ? and tenant = ?");
    let delivery =
        connection.query_row(&sql, params![id.as_bytes(), tenant.as_str()], read).optional()?;
    let Some(delivery) = delivery else { return Ok(None) };
    let mut earlier = connection.prepare_cached(
        "select number, at_ms, duration_ms, status, answer, error from attempts
         where delivery = ? order by number",
    )?;
    let attempts = earlier.query_map(params![id.as_bytes()], |row| {
        Ok(Attempt {
            number: row.get(0)?,
            at_ms: row.get(1)?,
            duration_ms: row.get(2)?,
            status: row.get(3)?,
            answer: row.get(4)?,
            error: json_or_null(row, 5)?,
        })
    })?;
    let mut attempts: Vec<Attempt> = attempts.collect::<Result<_>>()?;
    attempts.extend(delivery.last_attempt.clone());
    Ok(Some((delivery, attempts)))
}

pub(super) fn filtered(connection: &Connection, subscription: Uuid) -> Result<u64> {
    let mut sum = connection
        .prepare_cached("select coalesce(sum(count), 0) from filtered where subscription = ?")?;
    sum.query_row(params![subscription.as_bytes()], |row| row.get(0))
}
