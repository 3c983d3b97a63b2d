//! Subscriptions whose plugin failed so often that their deliveries are held.

use hookyard_nouns::delivery::Reason;
use rusqlite::{Connection, Result, Row, params};
use uuid::Uuid;

use super::rows::{digest, named, sound, tenant, uuid};
use crate::store::Quarantine;

pub(super) fn put(connection: &Connection, it: &Quarantine) -> Result<()> {
    let mut put = connection.prepare_cached(
        "insert or replace into quarantines
             (subscription, tenant, digest, code, detail, since_ms, probes, probe_at_ms)
         values (?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    put.execute(params![
        it.subscription.as_bytes(),
        it.tenant.as_str(),
        it.plugin.0,
        it.reason.code,
        it.reason.detail.as_deref().unwrap_or_default(),
        it.since_ms,
        it.probes,
        it.probe_at_ms,
    ])
    .map(|_| ())
}

/// How all are found that are read by [`read`].
pub(super) const ALL: &str = "select subscription, tenant, digest, code, detail, since_ms, probes, \
     probe_at_ms from quarantines";

pub(super) fn read(row: &Row<'_>) -> Result<Quarantine> {
    let (code, detail): (String, String) = (row.get(3)?, row.get(4)?);
    Ok(Quarantine {
        subscription: uuid(row, 0)?,
        tenant: tenant(row, 1)?,
        plugin: digest(row, 2)?,
        reason: Reason::new(&code, detail),
        since_ms: row.get(5)?,
        probes: row.get(6)?,
        probe_at_ms: row.get(7)?,
    })
}

pub(super) fn all(connection: &Connection) -> Result<Vec<Quarantine>> {
    let mut all = connection.prepare_cached(ALL)?;
    let found = all.query_map((), |row| named("quarantines", row, 0, read))?;
    sound(found).collect()
}

pub(super) fn lift(connection: &Connection, subscription: Uuid) -> Result<()> {
    let lifted = connection.execute(
        "delete from quarantines where subscription = ?",
        params![subscription.as_bytes()],
    );
    lifted.map(|_| ())
}
