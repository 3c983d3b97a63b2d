//! Replays, and the deliveries that they make due again.

use hookyard_nouns::event::Tenant;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use uuid::Uuid;

use super::rows::{broken, json, named, sound, tenant, to_json, uuid};
use super::search::{self, Order};
use super::usage;
use super::writer::Writing;
use crate::store::{DeliveryQuery, Replay, ReplayPage, ReplayState, Replayable, StoreError};

pub(super) fn page(connection: &Connection, it: &Replay, limit: usize) -> Result<ReplayPage> {
    let mut query = DeliveryQuery { after: it.place, limit, ..it.query.search() };
    if it.query.delivery.is_none() {
        // What comes while it goes on would have no end.
        let begun_ms = it.created_at_ms + 1;
        query.to_ms = Some(query.to_ms.map_or(begun_ms, |to_ms| to_ms.min(begun_ms)));
    }
    let (found, next) = search::walk(connection, &it.tenant, &query, Order::OldestFirst)?;
    let mut has_data = connection.prepare_cached(
        "select 1 from events where seq = ? and (data_kind is null or data is not null)",
    )?;
    let deliveries = found.into_iter().map(|(place, it)| {
        Ok(Replayable {
            id: it.id,
            subscription: it.subscription_id,
            has_data: has_data.exists(params![place.event_seq])?,
        })
    });
    Ok(ReplayPage { deliveries: deliveries.collect::<Result<_>>()?, next })
}

pub(super) fn replay_these(
    connection: &Connection,
    it: &Replay,
    these: &[Uuid],
    now_ms: i64,
) -> crate::store::Result<Replay> {
    let present = by_id(connection, &it.tenant, it.id)?.ok_or(StoreError::NotFound)?;
    if present.state != ReplayState::Running {
        return Ok(present);
    }
    let mut again = connection.prepare_cached(
        "update deliveries set state = 'pending', due_at_ms = ?, reason = null,
                               earlier_attempts = attempts, body = iif(?, null, body),
                               order_key = null, head_since_ms = null, passed_over = 0
         where id = ? and not unsettled",
    )?;
    for id in these {
        again.execute(params![now_ms, it.present, id.as_bytes()])?;
    }
    put(connection, it)?;
    Ok(it.clone())
}

pub(super) fn begin(writing: &mut Writing<'_>, it: &Replay) -> crate::store::Result<()> {
    usage::within(writing, &it.tenant, |writing| Ok(put(writing.connection, it)?))
}

fn put(connection: &Connection, it: &Replay) -> Result<()> {
    let mut put = connection.prepare_cached(
        "insert or replace into replays (id, tenant, query, present, per_minute, place, total,
                                         replayed, skipped, state, created_at_ms, ended_at_ms)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    put.execute(params![
        it.id.as_bytes(),
        it.tenant.as_str(),
        to_json(&it.query),
        it.present,
        it.per_minute,
        it.place.map(|it| it.to_string()),
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

pub(super) const REPLAY: &str = "select id, tenant, query, present, per_minute, place, total, replayed, \
     skipped, state, created_at_ms, ended_at_ms from replays";

pub(super) fn read(row: &Row<'_>) -> Result<Replay> {
    let place: Option<String> = row.get(5)?;
    let state: String = row.get(9)?;
    let known = [ReplayState::Running, ReplayState::Done, ReplayState::Cancelled];
    Ok(Replay {
        id: uuid(row, 0)?,
        tenant: tenant(row, 1)?,
        query: json(row, 2)?,
        present: row.get(3)?,
        per_minute: row.get(4)?,
        place: place.map(|it| it.parse().map_err(|_| broken(5, it))).transpose()?,
        total: row.get(6)?,
        replayed: row.get(7)?,
        skipped: row.get(8)?,
        state: known
            .into_iter()
            .find(|it| state_name(*it) == state)
            .ok_or_else(|| broken(9, state))?,
        created_at_ms: row.get(10)?,
        ended_at_ms: row.get(11)?,
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
    let values = params![owner.as_str(), before.as_bytes(), limit];
    let found = find.query_map(values, |row| named("replays", row, 0, read))?;
    sound(found).collect()
}

pub(super) fn running(connection: &Connection) -> Result<Vec<Replay>> {
    let mut find = connection.prepare_cached(&format!("{REPLAY} where state = 'running'"))?;
    let found = find.query_map((), |row| named("replays", row, 0, read))?;
    sound(found).collect()
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
