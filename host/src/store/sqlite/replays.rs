//! Replays, and the deliveries that they make due again.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Result, Row, params, params_from_iter};
use uuid::Uuid;

use super::log;
use super::rows::{broken, json, tenant, to_json, uuid};
use crate::delivery::{Delivery, DeliveryState};
use crate::event::Tenant;
use crate::store::{Replay, ReplayQuery, ReplayState, Replayable, StoreError};

/// The deliveries that a query finds, to be narrowed further.
fn found(owner: &Tenant, query: &ReplayQuery) -> (String, Vec<Value>) {
    let mut sql = format!(
        "from deliveries left join events on events.seq = deliveries.event_seq
         where deliveries.tenant = ? and deliveries.state in ({})",
        names(&query.states)
    );
    let mut values = vec![Value::from(owner.as_str().to_owned())];
    let mut narrow = |condition: &str, value: Option<Value>| {
        if let Some(value) = value {
            sql.push_str(condition);
            values.push(value);
        }
    };
    let bytes = |id: Uuid| Value::from(id.as_bytes().to_vec());
    narrow(" and deliveries.id = ?", query.delivery.map(bytes));
    narrow(" and deliveries.subscription = ?", query.subscription.map(bytes));
    narrow(" and events.attributes ->> 'type' = ?", query.event_type.clone().map(Value::from));
    narrow(" and events.accepted_at_ms >= ?", query.from_ms.map(Value::from));
    narrow(" and events.accepted_at_ms < ?", query.to_ms.map(Value::from));
    (sql, values)
}

/// States in SQL.
fn names(states: &[DeliveryState]) -> String {
    let names: Vec<_> = states.iter().map(|it| format!("'{}'", it.as_str())).collect();
    names.join(", ")
}

pub(super) fn total(
    connection: &Connection,
    owner: &Tenant,
    query: &ReplayQuery,
) -> Result<(u64, u64)> {
    let (found, values) = found(owner, query);
    let total = connection.query_row(
        &format!("select count(*) {found}"),
        params_from_iter(values),
        |row| row.get(0),
    )?;
    let last = connection
        .query_row("select max(seq) from deliveries", (), |row| row.get::<_, Option<u64>>(0))?;
    Ok((total, last.unwrap_or(0)))
}

pub(super) fn sample(
    connection: &Connection,
    owner: &Tenant,
    query: &ReplayQuery,
    limit: usize,
) -> Result<Vec<Delivery>> {
    let (found, mut values) = found(owner, query);
    values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    let sql = format!("select {} {found} order by deliveries.seq desc limit ?", log::DELIVERY);
    connection.prepare(&sql)?.query_map(params_from_iter(values), log::read)?.collect()
}

pub(super) fn page(connection: &Connection, it: &Replay, limit: usize) -> Result<Vec<Replayable>> {
    let (found, mut values) = found(&it.tenant, &it.query);
    let number = |it: u64| Value::Integer(i64::try_from(it).unwrap_or(i64::MAX));
    values.extend([number(it.cursor), number(it.upto)]);
    values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    let sql = format!(
        "select deliveries.seq, deliveries.subscription,
                events.seq is not null and (events.data_kind is null or events.data is not null)
         {found} and deliveries.seq > ? and deliveries.seq <= ? order by deliveries.seq limit ?"
    );
    let mut page = connection.prepare_cached(&sql)?;
    page.query_map(params_from_iter(values), |row| {
        Ok(Replayable { seq: row.get(0)?, subscription: uuid(row, 1)?, has_data: row.get(2)? })
    })?
    .collect()
}

pub(super) fn replay_these(
    connection: &Connection,
    it: &Replay,
    these: &[u64],
    now_ms: i64,
) -> crate::store::Result<Replay> {
    let present = by_id(connection, &it.tenant, it.id)?.ok_or(StoreError::NotFound)?;
    if present.state != ReplayState::Running {
        return Ok(present);
    }
    let mut again = connection.prepare_cached(&format!(
        "update deliveries set state = 'pending', due_at_ms = ?, reason = null,
                               earlier_attempts = attempts, body = iif(?, null, body),
                               order_key = null, head_since_ms = null, passed_over = 0
         where seq = ? and state in ({})",
        names(&DeliveryState::SETTLED)
    ))?;
    for seq in these {
        again.execute(params![now_ms, it.present, seq])?;
    }
    put(connection, it)?;
    Ok(it.clone())
}

pub(super) fn put(connection: &Connection, it: &Replay) -> Result<()> {
    let mut put = connection.prepare_cached(
        "insert or replace into replays (id, tenant, query, present, per_minute, cursor, upto, total,
                                         replayed, skipped, state, created_at_ms, ended_at_ms)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    put.execute(params![
        it.id.as_bytes(),
        it.tenant.as_str(),
        to_json(&it.query),
        it.present,
        it.per_minute,
        it.cursor,
        it.upto,
        it.total,
        it.replayed,
        it.skipped,
        state_name(it.state),
        it.created_at_ms,
        it.ended_at_ms,
    ])
    .map(|_| ())
}

fn state_name(state: ReplayState) -> &'static str {
    match state {
        ReplayState::Running => "running",
        ReplayState::Done => "done",
        ReplayState::Cancelled => "cancelled",
    }
}

const REPLAY: &str = "select id, tenant, query, present, per_minute, cursor, upto, total, replayed, \
     skipped, state, created_at_ms, ended_at_ms from replays";

fn read(row: &Row<'_>) -> Result<Replay> {
    let state: String = row.get(10)?;
    let known = [ReplayState::Running, ReplayState::Done, ReplayState::Cancelled];
    Ok(Replay {
        id: uuid(row, 0)?,
        tenant: tenant(row, 1)?,
        query: json(row, 2)?,
        present: row.get(3)?,
        per_minute: row.get(4)?,
        cursor: row.get(5)?,
        upto: row.get(6)?,
        total: row.get(7)?,
        replayed: row.get(8)?,
        skipped: row.get(9)?,
        state: known
            .into_iter()
            .find(|it| state_name(*it) == state)
            .ok_or_else(|| broken(10, state))?,
        created_at_ms: row.get(11)?,
        ended_at_ms: row.get(12)?,
    })
}

pub(super) fn by_id(connection: &Connection, owner: &Tenant, id: Uuid) -> Result<Option<Replay>> {
    let mut find = connection.prepare_cached(&format!("{REPLAY} where tenant = ? and id = ?"))?;
    find.query_row(params![owner.as_str(), id.as_bytes()], read).optional()
}

pub(super) fn list(
    connection: &Connection,
    owner: &Tenant,
    before: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Replay>> {
    let mut find = connection.prepare_cached(&format!(
        "{REPLAY} where tenant = ? and id < ? order by id desc limit ?"
    ))?;
    let before = before.unwrap_or(Uuid::max());
    find.query_map(params![owner.as_str(), before.as_bytes(), limit], read)?.collect()
}

pub(super) fn running(connection: &Connection) -> Result<Vec<Replay>> {
    let mut find = connection.prepare_cached(&format!("{REPLAY} where state = 'running'"))?;
    find.query_map((), read)?.collect()
}

pub(super) fn cancel(
    connection: &Connection,
    owner: &Tenant,
    id: Uuid,
    now_ms: i64,
) -> crate::store::Result<Replay> {
    let mut it = by_id(connection, owner, id)?.ok_or(StoreError::NotFound)?;
    if it.state == ReplayState::Running {
        it.state = ReplayState::Cancelled;
        it.ended_at_ms = Some(now_ms);
        put(connection, &it)?;
    }
    Ok(it)
}
