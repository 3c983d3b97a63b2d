//! What processes have died of, perhaps.

use rusqlite::{Connection, Result, params};
use uuid::Uuid;

use super::rows::{digest, named, sound, tenant, uuid};
use crate::marks::Work;
use crate::store::Death;

/// Another version of the program may do better.
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn count(connection: &Connection, works: &[Work], now_ms: i64) -> Result<Vec<Death>> {
    // Of events that are gone nothing is worked on.
    connection.execute(
        "delete from crashes where version <> ? or event not in (select id from events)",
        params![VERSION],
    )?;
    // What ended a process while it was not known yet for whom has ended one for everybody.
    let mut add = connection.prepare_cached(
        "insert into crashes (event, rendering, count, version, at_ms)
         select ?1, ?2, 1 + coalesce(max(count), 0), ?3, ?4
         from crashes where event = ?1 and rendering = x''
         on conflict (event, rendering) do update set count = crashes.count + 1, at_ms = excluded.at_ms",
    )?;
    for work in works {
        let rendering = work.rendering.map_or_else(Vec::new, |it| it.0.to_vec());
        add.execute(params![work.event.as_bytes(), rendering, VERSION, now_ms])?;
    }
    let mut find = connection.prepare_cached(
        "select events.tenant, crashes.event, crashes.rendering, crashes.count
         from crashes join events on events.id = crashes.event",
    )?;
    let found = find.query_map((), |row| {
        named("crashes", row, 1, |row| {
            let is_known = !row.get_ref(2)?.as_blob().unwrap_or_default().is_empty();
            let rendering = if is_known { Some(digest(row, 2)?) } else { None };
            let work = Work { event: uuid(row, 1)?, rendering };
            Ok(Death { tenant: tenant(row, 0)?, work, count: row.get(3)? })
        })
    })?;
    sound(found).collect()
}

pub(super) fn forget(connection: &Connection, event: Uuid) -> Result<()> {
    connection.execute("delete from crashes where event = ?", params![event.as_bytes()])?;
    Ok(())
}
