//! What each tenant has, and whether it may have more.

use hookyard_nouns::event::Tenant;
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::writer::Writing;
use crate::store::{StoreError, Usage};

pub(super) fn of(connection: &Connection, tenant: &Tenant) -> Result<Usage> {
    let mut replays = connection
        .prepare_cached("select count(*) from replays where tenant = ? and state = 'running'")?;
    let replays = replays.query_row(params![tenant.as_str()], |row| row.get(0))?;
    let mut find = connection.prepare_cached(
        "select subscriptions, subscription_bytes, tokens, identities, settings_bytes
         from usage where tenant = ?",
    )?;
    let found = find.query_row(params![tenant.as_str()], |row| {
        Ok(Usage {
            subscriptions: row.get(0)?,
            subscription_bytes: row.get(1)?,
            tokens: row.get(2)?,
            identities: row.get(3)?,
            settings_bytes: row.get(4)?,
            replays,
        })
    });
    Ok(found.optional()?.unwrap_or(Usage { replays, ..Usage::default() }))
}

/// Makes a change for a tenant, unless there would be more than it may have. A change by which it has not more than
/// before is always made: whoever has too much, since a bound was lowered, can still pause and delete.
pub(super) fn within<T>(
    writing: &mut Writing<'_>,
    tenant: &Tenant,
    change: impl FnOnce(&mut Writing<'_>) -> crate::store::Result<T>,
) -> crate::store::Result<T> {
    let before = of(writing.connection, tenant)?;
    let done = change(writing)?;
    match of(writing.connection, tenant)?.exceeds(before, writing.quotas) {
        None => Ok(done),
        Some(why) => Err(StoreError::Quota(format!("`{tenant}` {why}"))),
    }
}
