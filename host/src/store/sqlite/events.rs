//! Events: accepted once, read when they are routed or delivered later.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Result, params};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::access;
use super::known::Known;
use super::rows::{self, EVENT, to_json};
use crate::event::{Data, Event, Tenant};
use crate::store::{Accepted, NewEvent, Unrouted};

/// For at least a day, an event that is published again is known.
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// Inserts an event, unless it is there.
pub(super) fn accept(
    connection: &Connection,
    known: &mut Known,
    new: NewEvent,
) -> Result<(Accepted, Option<Unrouted>)> {
    let same = same(&new);
    let mut alternate_ids = new.alternate_ids;
    if let Some(profile) = &new.profile
        && known.identified.contains(&new.tenant)
    {
        for (kind, id) in access::identities(connection, &new.tenant, profile)? {
            if alternate_ids.iter().all(|(it, _)| *it != kind) {
                alternate_ids.push((kind, id));
            }
        }
    }
    let (kind, data) = match &new.content.data {
        Some(Data::Json(json)) => (Some("json"), Some(json.bytes())),
        Some(Data::Text(bytes)) => (Some("text"), Some(bytes)),
        Some(Data::Binary(bytes)) => (Some("binary"), Some(bytes)),
        None => (None, None),
    };
    let today = new.accepted_at_ms / DAY_MS;
    if let Some(id) = published(connection, same, today)? {
        return Ok((Accepted { id, duplicate: true }, None));
    }
    let seq = known.begin(&new.tenant);
    connection
        // One that has been forgotten already is replaced.
        .prepare_cached("insert or replace into published (day, same, seq) values (?, ?, ?)")?
        .execute(params![today, same, seq])?;
    let mut insert = connection.prepare_cached(
        "insert into events (seq, id, tenant, format, attributes, data_kind, data,
                             alternate_ids, accepted_at_ms, revision, type, subject)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    insert.execute(params![
        seq,
        new.id.as_bytes(),
        new.tenant.as_str(),
        new.format,
        to_json(&new.content.attributes),
        kind,
        data.map(AsRef::<[u8]>::as_ref),
        (!alternate_ids.is_empty()).then(|| to_json(&alternate_ids)),
        new.accepted_at_ms,
        known.revision,
        new.content.attributes.event_type,
        new.content.attributes.subject,
    ])?;
    let event = Event {
        id: new.id,
        tenant: new.tenant,
        format: new.format,
        content: new.content,
        alternate_ids,
        accepted_at_ms: new.accepted_at_ms,
        revision: known.revision,
    };
    let accepted = Accepted { id: event.id, duplicate: false };
    Ok((accepted, Some(Unrouted { seq, event: Arc::new(event) })))
}

/// What makes two publications one event (CloudEvents 1.0.2, section 3.1.1: source and id), within a
/// tenant. Half of a SHA-256.
fn same(new: &NewEvent) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in [new.tenant.as_str(), &new.content.attributes.source, &new.content.attributes.id] {
        hash.update(u64::try_from(part.len()).expect("a length fits").to_be_bytes());
        hash.update(part);
    }
    *hash.finalize().first_chunk().expect("a SHA-256 has 32 bytes")
}

/// The event that has been accepted as this one, today or yesterday.
fn published(connection: &Connection, same: [u8; 16], today: i64) -> Result<Option<Uuid>> {
    let mut find =
        connection.prepare_cached("select seq from published where day = ? and same = ?")?;
    for day in [today, today - 1] {
        let seq: Option<u64> = find.query_row(params![day, same], |row| row.get(0)).optional()?;
        if let Some(seq) = seq {
            let mut find = connection.prepare_cached("select id from events where seq = ?")?;
            return find.query_row(params![seq], |row| rows::uuid(row, 0)).optional();
        }
    }
    Ok(None)
}

/// Forgets what is known by what makes it one, of days that nobody asks for any more. Answers whether there
/// is more.
pub(super) fn forget_published(connection: &Connection, now_ms: i64, limit: usize) -> Result<bool> {
    let forgotten = connection
        .prepare_cached(
            "delete from published where (day, same) in
                 (select day, same from published where day < ? limit ?)",
        )?
        .execute(params![now_ms / DAY_MS - 1, limit])?;
    Ok(forgotten == limit)
}

pub(super) fn unrouted(connection: &Connection, seqs: &[u64]) -> Result<Vec<Unrouted>> {
    let mut find =
        connection.prepare_cached(&format!("select {EVENT} from events where seq = ?"))?;
    let mut found = Vec::with_capacity(seqs.len());
    for seq in seqs {
        let event = find.query_row(params![seq], |row| rows::event(row, 0))?;
        let event = event.ok_or_else(|| {
            rows::broken(0, format!("event {seq} lost its data before it was routed"))
        })?;
        found.push(Unrouted { seq: *seq, event });
    }
    Ok(found)
}

pub(super) fn newest(
    connection: &Connection,
    tenant: &Tenant,
    before: u64,
    limit: usize,
) -> Result<Vec<Unrouted>> {
    let mut find = connection.prepare_cached(&format!(
        "select {EVENT}, events.seq from events where tenant = ? and seq < ?
         order by seq desc limit ?"
    ))?;
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    let found = find.query_map(params![tenant.as_str(), before, limit], |row| {
        let seq = row.get(rows::EVENT_COLUMNS)?;
        Ok(rows::event(row, 0)?.map(|event| Unrouted { seq, event }))
    })?;
    found.filter_map(Result::transpose).collect()
}

pub(super) fn by_id(
    connection: &Connection,
    tenant: &Tenant,
    id: Uuid,
) -> Result<Option<Arc<Event>>> {
    let sql = format!("select {EVENT} from events where id = ? and tenant = ?");
    let mut find = connection.prepare_cached(&sql)?;
    let event = find.query_row(params![id.as_bytes(), tenant.as_str()], |row| rows::event(row, 0));
    Ok(event.optional()?.flatten())
}
