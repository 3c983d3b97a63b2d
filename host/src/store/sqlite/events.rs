//! Events: accepted once, read when they are routed or delivered later.

use std::sync::Arc;

use hookyard_nouns::event::{Attributes, Data, Event, Tenant};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Result, params};
use uuid::Uuid;

use super::access;
use super::known::Known;
use super::rows::{self, EVENT, event_sum, is_broken, named, sound, text, to_json};
use crate::store::{Accepted, NewEvent, Unrouted, UnroutedPage};

/// For at least a day, an event that is published again is known.
const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// How large the data of a page of events may be. It has one event at least.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Inserts an event, unless it is there.
pub(super) fn accept(
    connection: &Connection,
    known: &mut Known,
    new: NewEvent,
) -> Result<(Accepted, Option<Unrouted>)> {
    if let Some(id) = publish(connection, &new, known.next_seq)? {
        return Ok((Accepted { id, duplicate: true }, None));
    }
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
    let seq = known.begin(&new.tenant);
    let attributes = to_json(&new.content.attributes);
    let ids = (!alternate_ids.is_empty()).then(|| to_json(&alternate_ids));
    let revision = i64::try_from(known.revision).unwrap_or(i64::MAX);
    let head = [
        ValueRef::Blob(new.id.as_bytes()),
        text(new.tenant.as_str()),
        text(new.format),
        text(&*attributes),
        text(kind),
        text(ids.as_deref()),
        ValueRef::Integer(new.accepted_at_ms),
        ValueRef::Integer(revision),
    ];
    let sum = event_sum(head, data.map_or(ValueRef::Null, |data| ValueRef::Blob(data)));
    let mut insert = connection.prepare_cached(
        "insert into events (seq, id, tenant, format, attributes, data_kind, data,
                             alternate_ids, accepted_at_ms, revision, type, subject, sum)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    insert.execute(params![
        seq,
        new.id.as_bytes(),
        new.tenant.as_str(),
        new.format,
        attributes,
        kind,
        data.map(AsRef::<[u8]>::as_ref),
        ids,
        new.accepted_at_ms,
        revision,
        new.content.attributes.event_type,
        new.content.attributes.subject,
        sum,
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

/// Takes down what makes an event one: tenant, source and id (CloudEvents 1.0.2, section 3.1.1). Where it has
/// been accepted today or yesterday, answers as which event.
fn publish(connection: &Connection, new: &NewEvent, seq: u64) -> Result<Option<Uuid>> {
    let today = new.accepted_at_ms / DAY_MS;
    if let Some(id) = published(connection, new, today - 1)? {
        return Ok(Some(id));
    }
    let attributes = &new.content.attributes;
    // One that has been forgotten already is replaced.
    let is_new = connection
        .prepare_cached(
            "insert into published (day, tenant, source, id, seq) values (?, ?, ?, ?, ?)
             on conflict do update set seq = excluded.seq
             where not exists (select 1 from events where events.seq = published.seq)",
        )?
        .execute(params![today, new.tenant.as_str(), attributes.source, attributes.id, seq])?;
    if is_new > 0 { Ok(None) } else { published(connection, new, today) }
}

fn published(connection: &Connection, new: &NewEvent, day: i64) -> Result<Option<Uuid>> {
    let attributes = &new.content.attributes;
    let mut find = connection.prepare_cached(
        "select events.id, events.attributes from published join events on events.seq = published.seq
         where day = ? and published.tenant = ? and source = ? and published.id = ?",
    )?;
    let same = params![day, new.tenant.as_str(), attributes.source, attributes.id];
    let found = find.query_row(same, |row| {
        let other: Attributes = rows::json(row, 1)?;
        // A number that has lost a bit leads to another event: that is no reason to take this one for it.
        let is_same = other.source == attributes.source && other.id == attributes.id;
        is_same.then(|| rows::uuid(row, 0)).transpose()
    });
    match found.optional() {
        Err(err) if is_broken(&err) => Ok(None),
        found => Ok(found?.flatten()),
    }
}

/// Forgets what is known by what makes it one, of days that nobody asks for any more. Answers whether there
/// is more.
pub(super) fn forget_published(connection: &Connection, now_ms: i64, limit: usize) -> Result<bool> {
    let forgotten = connection
        .prepare_cached(
            "delete from published where (day, tenant, source, id) in
                 (select day, tenant, source, id from published where day < ? limit ?)",
        )?
        .execute(params![now_ms / DAY_MS - 1, limit])?;
    Ok(forgotten == limit)
}

/// Events by their numbers, in order, up to so many megabytes of them.
pub(super) fn unrouted(connection: &Connection, seqs: &[u64]) -> Result<UnroutedPage> {
    let mut find =
        connection.prepare_cached(&format!("select {EVENT} from events where seq = ?"))?;
    let (mut page, mut bytes) = (UnroutedPage::default(), 0);
    for seq in seqs {
        match find.query_row(params![seq], |row| rows::event(row, 0)).optional() {
            Ok(Some(Some(event))) => {
                bytes += event.content.data_bytes();
                page.events.push(Unrouted { seq: *seq, event });
            }
            Ok(Some(None)) => page.broken.push((*seq, "its data are gone".to_owned())),
            Ok(None) => page.broken.push((*seq, "its row is gone".to_owned())),
            Err(err) if is_broken(&err) => page.broken.push((*seq, rows::why(&err))),
            Err(err) => return Err(err),
        }
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(page)
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
        named("events", row, 0, |row| {
            let seq = row.get(rows::EVENT_COLUMNS)?;
            Ok(rows::event(row, 0)?.map(|event| Unrouted { seq, event }))
        })
    })?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    for it in sound(found) {
        let Some(it) = it? else { continue };
        bytes += it.event.content.data_bytes();
        page.push(it);
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(page)
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
