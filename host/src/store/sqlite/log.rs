//! The delivery log: what became of deliveries, and which are due.

use std::borrow::Cow;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hookyard_nouns::delivery::{Attempt, Delivery, DeliveryState};
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::rendering::Rendering;
use hookyard_nouns::subscription::IN_TURN;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Result, Row, params};
use uuid::Uuid;

use super::rows::{
    self, broken, digest, digest_or_null, is_broken, json, json_or_null, named, sound, to_json,
    uuid,
};
use super::writer::Writing;
use super::{held, order, plugin_log};
use crate::store::{Backlog, Record};

pub(super) fn record_all(writing: &mut Writing<'_>, records: &[Record]) -> Result<()> {
    for it in records {
        // A record that can never be written, or that makes the writer panic, must not keep the others from
        // being written: it would come back with each transaction.
        match catch_unwind(AssertUnwindSafe(|| record(writing, it))) {
            Err(_) => {
                tracing::error!(record = ?it, "a record made the store panic and is left out")
            }
            Ok(Err(err)) if is_refused(&err) => {
                tracing::error!(%err, record = ?it, "a record breaks a rule of the store and is left out");
            }
            Ok(result) => result?,
        }
    }
    Ok(())
}

/// Whether a record is at fault, or the rows that it is about, and not the store: others can be written.
pub(super) fn is_refused(err: &rusqlite::Error) -> bool {
    // What SQLite has no name for is that an expression cannot be evaluated, as JSON that is none.
    let of_rows = [ErrorCode::ConstraintViolation, ErrorCode::DatabaseCorrupt, ErrorCode::Unknown];
    is_broken(err) || err.sqlite_error_code().is_some_and(|code| of_rows.contains(&code))
}

fn record(writing: &mut Writing<'_>, record: &Record) -> Result<()> {
    match record {
        Record::Delivery { tenant, event_seq, delivery, attempted } => {
            let mut delivery = Cow::Borrowed(delivery.as_ref());
            let subscription = delivery.subscription_id;
            if delivery.state == DeliveryState::Held {
                if !held::is_present(writing.connection, subscription)? {
                    // It was deleted since the delivery was found to be held.
                    delivery.to_mut().state = DeliveryState::Cancelled;
                } else if held::may_go(writing.connection, subscription)?
                    && !held::has_any(writing.connection, subscription)?
                {
                    // The others have gone since then, and it goes after nothing.
                    let delivery = delivery.to_mut();
                    delivery.order_key = delivery.order_key.filter(|it| *it != IN_TURN);
                    delivery.state = DeliveryState::Pending;
                    delivery.reason = None;
                    delivery.due_at_ms = Some(delivery.created_at_ms);
                }
            }
            if record_delivery(writing.connection, tenant, *event_seq, &delivery)? {
                writing.counting.delivery(tenant, &delivery, *attempted);
            }
            Ok(())
        }
        Record::Filtered { tenant, subscription, at_ms } => {
            writing.counting.filtered(tenant, *subscription, *at_ms);
            Ok(())
        }
        Record::Log(it) => plugin_log::add(writing.connection, it),
        Record::Failing { subscription, since, .. } => {
            put_failing(writing.connection, *subscription, *since)
        }
        Record::Routed { tenant, seq } => {
            writing.known.routed(tenant, *seq);
            Ok(())
        }
    }
}

/// Inserts a delivery or brings it up to date, and answers whether that has changed anything: what is
/// settled stays as it is.
fn record_delivery(
    connection: &Connection,
    tenant: &Tenant,
    event_seq: u64,
    it: &Delivery,
) -> Result<bool> {
    if it.attempts > 1 {
        let mut keep = connection.prepare_cached(
            "insert or ignore into attempts (delivery, number, at_ms, duration_ms, status, answer, error,
                                             body, rendering, detail)
             select id, attempts, attempt_at_ms, attempt_duration_ms, attempt_status, attempt_answer,
                    attempt_error, body, rendering, attempt_detail
             from deliveries where id = ? and attempts between 1 and ? and attempt_at_ms is not null
               and (unsettled or state = 'cancelled' and ? = 'delivered')",
        )?;
        keep.execute(params![it.id.as_bytes(), it.attempts - 1, it.state.as_str()])?;
    }
    let is_new = it.order_key.is_some() && !exists(connection, it.id)?;
    let goes = !is_new || it.state.is_settled() || order::enter(connection, it, event_seq)?;
    let due_at_ms = it.due_at_ms.filter(|_| goes);
    let head_since_ms = it.order_key.and(due_at_ms);
    let mut write = connection.prepare_cached(
        "insert into deliveries (id, tenant, subscription, event, event_seq, part, rendering, body,
                                 state, reason, due_at_ms, attempts, attempt_at_ms,
                                 attempt_duration_ms, attempt_status, attempt_answer, attempt_error,
                                 created_at_ms, attempt_detail, order_key, head_since_ms)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         on conflict (id) do update set
             rendering = excluded.rendering, body = excluded.body, state = excluded.state, reason = excluded.reason,
             due_at_ms = excluded.due_at_ms, attempts = excluded.attempts,
             attempt_at_ms = excluded.attempt_at_ms,
             attempt_duration_ms = excluded.attempt_duration_ms,
             attempt_status = excluded.attempt_status, attempt_answer = excluded.attempt_answer,
             attempt_error = excluded.attempt_error, attempt_detail = excluded.attempt_detail
         where unsettled
            or state = 'cancelled' and excluded.state = 'delivered'",
    )?;
    let attempt = it.last_attempt.as_ref();
    let changed = write.execute(params![
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
        due_at_ms,
        it.attempts,
        attempt.map(|attempt| attempt.at_ms),
        attempt.map(|attempt| attempt.duration_ms),
        attempt.and_then(|attempt| attempt.status),
        attempt.map(|attempt| attempt.answer.as_slice()),
        attempt.and_then(|attempt| attempt.error.as_ref()).map(to_json),
        it.created_at_ms,
        attempt.map_or_else(|| "{}".to_owned(), |attempt| to_json(&attempt.detail)),
        it.order_key,
        head_since_ms,
    ])?;
    if let Some(key) = it.order_key.filter(|_| it.state.is_settled()) {
        let ended_ms = attempt.map_or(it.created_at_ms, |it| it.at_ms + i64::from(it.duration_ms));
        order::promote(connection, it.subscription_id, key, ended_ms)?;
    }
    Ok(changed > 0)
}

fn exists(connection: &Connection, id: Uuid) -> Result<bool> {
    connection
        .prepare_cached("select 1 from deliveries where id = ?")?
        .exists(params![id.as_bytes()])
}

/// The columns of [`read`], to be selected in this order.
pub(super) const DELIVERY: &str = "deliveries.id, deliveries.event, deliveries.subscription, deliveries.part, \
     deliveries.rendering, deliveries.body, deliveries.state, deliveries.reason, \
     deliveries.due_at_ms, deliveries.attempts, deliveries.attempt_at_ms, \
     deliveries.attempt_duration_ms, deliveries.attempt_status, deliveries.attempt_answer, \
     deliveries.attempt_error, deliveries.created_at_ms, deliveries.earlier_attempts, \
     deliveries.order_key, deliveries.passed_over, deliveries.attempt_detail";
pub(super) const DELIVERY_COLUMNS: usize = 20;

pub(super) fn read(row: &Row<'_>) -> Result<Delivery> {
    let attempts = row.get(9)?;
    let state: String = row.get(6)?;
    let (body, rendering) = (digest_or_null(row, 5)?, digest(row, 4)?);
    let attempt_at_ms: Option<i64> = row.get(10)?;
    let last_attempt = match attempt_at_ms {
        Some(at_ms) => Some(Attempt {
            number: attempts,
            at_ms,
            duration_ms: row.get(11)?,
            status: row.get(12)?,
            answer: row.get(13)?,
            error: json_or_null(row, 14)?,
            body,
            rendering,
            detail: json(row, 19)?,
        }),
        None => None,
    };
    Ok(Delivery {
        id: uuid(row, 0)?,
        event_id: uuid(row, 1)?,
        subscription_id: uuid(row, 2)?,
        part: row.get(3)?,
        rendering,
        body,
        state: DeliveryState::parse(&state).ok_or_else(|| broken(6, state))?,
        reason: json_or_null(row, 7)?,
        due_at_ms: row.get(8)?,
        attempts,
        last_attempt,
        created_at_ms: row.get(15)?,
        earlier_attempts: row.get(16)?,
        order_key: row.get(17)?,
        passed_over: row.get(18)?,
    })
}

/// How many attempts are told of a delivery: the newest.
const ATTEMPTS_MAX: usize = 200;

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
        "select number, at_ms, duration_ms, status, answer, error, body, rendering, detail
         from attempts where delivery = ? order by number desc limit ?",
    )?;
    let read = |row: &Row<'_>| {
        let unknown = row.get_ref(7)?.as_bytes_or_null()?.is_none();
        Ok(Attempt {
            number: row.get(0)?,
            at_ms: row.get(1)?,
            duration_ms: row.get(2)?,
            status: row.get(3)?,
            answer: row.get(4)?,
            error: json_or_null(row, 5)?,
            body: digest_or_null(row, 6)?,
            rendering: if unknown { delivery.rendering } else { digest(row, 7)? },
            detail: json(row, 8)?,
        })
    };
    let attempts = earlier
        .query_map(params![id.as_bytes(), ATTEMPTS_MAX], |row| named("attempts", row, 0, read))?;
    let mut attempts: Vec<Attempt> = sound(attempts).collect::<Result<_>>()?;
    attempts.reverse();
    attempts.extend(delivery.last_attempt.clone());
    Ok(Some((delivery, attempts)))
}

pub(super) fn recorded(connection: &Connection, event: Uuid) -> Result<Vec<Uuid>> {
    let mut find = connection.prepare_cached(
        "select id from deliveries indexed by deliveries_by_event
         where event_seq = (select seq from events where id = ?)",
    )?;
    find.query_map(params![event.as_bytes()], |row| uuid(row, 0))?.collect()
}

pub(super) fn backlogs(writing: &Writing<'_>) -> Result<Vec<Backlog>> {
    let mut find = writing
        .connection
        .prepare_cached("select tenant, deliveries from backlogs where deliveries > 0")?;
    let found = find.query_map((), |row| Ok((rows::tenant(row, 0)?, row.get(1)?)))?;
    let mut backlogs: HashMap<Tenant, Backlog> = HashMap::new();
    let of = |tenant: &Tenant| Backlog { tenant: tenant.clone(), deliveries: 0, events: 0 };
    for row in found {
        let (tenant, deliveries): (Tenant, u64) = row?;
        backlogs.entry(tenant.clone()).or_insert_with(|| of(&tenant)).deliveries = deliveries;
    }
    for (tenant, events) in writing.known.waiting() {
        backlogs.entry(tenant.clone()).or_insert_with(|| of(tenant)).events =
            u64::try_from(events).unwrap_or(u64::MAX);
    }
    Ok(backlogs.into_values().collect())
}

pub(super) fn failing(connection: &Connection) -> Result<Vec<(Uuid, i64, u8)>> {
    let mut find = connection.prepare("select subscription, since_ms, announced from failing")?;
    let found = find.query_map((), |row| {
        named("failing", row, 0, |row| Ok((uuid(row, 0)?, row.get(1)?, row.get(2)?)))
    })?;
    sound(found).collect()
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
    connection.query_row(sql, params![hash.0], |row| rows::rendering(row, 0, hash)).optional()
}
