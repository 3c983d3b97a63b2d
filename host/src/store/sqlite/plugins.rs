//! Plugins and their versions.

use bytes::Bytes;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::plugin::{PluginName, PluginRef, PluginVersion};
use hookyard_nouns::subscription::Subscription;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::rows::{broken, digest, json, named, sound, tenant, to_json};
use super::subscriptions;
use super::writer::Writing;
use crate::store::StoreError;

/// The operator, who shares with all tenants.
const SHARED: &str = "";

fn owner(tenant: Option<&Tenant>) -> &str {
    tenant.map_or(SHARED, Tenant::as_str)
}

pub(super) fn add(
    connection: &Connection,
    version: &PluginVersion,
    file: Option<&[u8]>,
    replaces: Option<Digest>,
) -> crate::store::Result<()> {
    let present = current(connection, version.tenant.as_ref(), &version.name)?;
    if present != replaces {
        return Err(StoreError::Changed);
    }
    let owner = owner(version.tenant.as_ref());
    if let Some(file) = file {
        connection.execute(
            "insert or ignore into plugin_files (digest, file) values (?, ?)",
            params![version.digest.0, file],
        )?;
    }
    connection.execute(
        "insert or ignore into plugin_versions
             (tenant, name, digest, size_bytes, world, manifest, created_at_ms)
         values (?, ?, ?, ?, ?, ?, ?)",
        params![
            owner,
            version.name.as_str(),
            version.digest.0,
            version.size_bytes,
            to_json(&version.world),
            to_json(&version.manifest),
            version.created_at_ms,
        ],
    )?;
    // The same version again leaves what was before it.
    connection.execute(
        "insert into plugins (tenant, name, digest) values (?, ?, ?)
         on conflict do update set previous = digest, digest = excluded.digest
         where digest <> excluded.digest",
        params![owner, version.name.as_str(), version.digest.0],
    )?;
    Ok(())
}

pub(super) fn follow(
    writing: &mut Writing<'_>,
    version: &PluginVersion,
    changed: Vec<Subscription>,
) -> crate::store::Result<usize> {
    let present = current(writing.connection, version.tenant.as_ref(), &version.name)?;
    if present != Some(version.digest) {
        return Err(StoreError::Changed);
    }
    let mut left = 0;
    for it in changed {
        match subscriptions::change(writing, it, None, None) {
            Ok(_) => {}
            Err(StoreError::Changed) => left += 1,
            Err(err) => return Err(err),
        }
    }
    Ok(left)
}

fn current(
    connection: &Connection,
    tenant: Option<&Tenant>,
    name: &PluginName,
) -> Result<Option<Digest>> {
    let sql = "select digest from plugins where tenant = ? and name = ?";
    connection
        .query_row(sql, params![owner(tenant), name.as_str()], |row| digest(row, 0))
        .optional()
}

pub(super) fn previous(
    connection: &Connection,
    tenant: Option<&Tenant>,
    name: &PluginName,
) -> Result<Option<Digest>> {
    let sql = "select previous from plugins where tenant = ? and name = ? and previous is not null";
    connection
        .query_row(sql, params![owner(tenant), name.as_str()], |row| digest(row, 0))
        .optional()
}

pub(super) fn allow_rollback(
    connection: &Connection,
    tenant: Option<&Tenant>,
    name: &PluginName,
    allowed: bool,
) -> crate::store::Result<()> {
    let changed = connection.execute(
        "update plugins set rolls_back = ? where tenant = ? and name = ?",
        params![allowed, owner(tenant), name.as_str()],
    )?;
    if changed == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

pub(super) fn rollback_allowed(
    connection: &Connection,
    tenant: Option<&Tenant>,
    name: &PluginName,
) -> Result<bool> {
    connection
        .prepare_cached("select 1 from plugins where tenant = ? and name = ? and rolls_back")?
        .exists(params![owner(tenant), name.as_str()])
}

pub(super) fn deprecate(
    connection: &Connection,
    tenant: Option<&Tenant>,
    name: &PluginName,
    digest: Digest,
    reason: Option<&str>,
) -> crate::store::Result<()> {
    let changed = connection.execute(
        "update plugin_versions set deprecated = ? where tenant = ? and name = ? and digest = ?",
        params![reason, owner(tenant), name.as_str(), digest.0],
    )?;
    if changed == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

/// Whatever is kept of subscriptions and deliveries names its rendering, and that its plugins.
const USED: &str = "exists (select 1 from renderings,
                                          json_each(iif(json_valid(definition), definition, '{}'),
                                                    '$.steps') step
                            where step.value ->> 'plugin' = ?1
                            and (exists (select 1 from subscriptions
                                         where subscriptions.rendering = renderings.hash)
                                 or exists (select 1 from deliveries
                                            where deliveries.rendering = renderings.hash)))";

pub(super) fn delete(
    connection: &Connection,
    tenant: Option<&Tenant>,
    name: &PluginName,
    digest: Digest,
) -> crate::store::Result<()> {
    let owner = owner(tenant);
    let versions: u64 = connection.query_row(
        "select count(*) from plugin_versions where tenant = ? and name = ?",
        params![owner, name.as_str()],
        |row| row.get(0),
    )?;
    let present = current(connection, tenant, name)?;
    if present == Some(digest) && versions > 1 {
        return Err(StoreError::Conflict("it is the current version".to_owned()));
    }
    // Another plugin may be the same file; then that is what is used.
    let elsewhere =
        "exists (select 1 from plugin_versions where digest = ? and (tenant <> ? or name <> ?))";
    let is_elsewhere: bool = connection.query_row(
        &format!("select {elsewhere}"),
        params![digest.0, owner, name.as_str()],
        |row| row.get(0),
    )?;
    let is_used: bool =
        connection
            .query_row(&format!("select {USED}"), params![digest.to_string()], |row| row.get(0))?;
    if is_used && !is_elsewhere {
        let what = "a subscription, or a delivery that is kept, was made with it";
        return Err(StoreError::Conflict(what.to_owned()));
    }
    let deleted = connection.execute(
        "delete from plugin_versions where tenant = ? and name = ? and digest = ?",
        params![owner, name.as_str(), digest.0],
    )?;
    if deleted == 0 {
        return Err(StoreError::NotFound);
    }
    connection.execute(
        "delete from plugins where tenant = ? and name = ? and digest = ?",
        params![owner, name.as_str(), digest.0],
    )?;
    connection.execute(
        "update plugins set previous = null where tenant = ? and name = ? and previous = ?",
        params![owner, name.as_str(), digest.0],
    )?;
    if !is_elsewhere {
        connection.execute("delete from plugin_files where digest = ?", params![digest.0])?;
    }
    Ok(())
}

pub(super) fn usage(connection: &Connection, tenant: Option<&Tenant>) -> Result<(u64, u64)> {
    connection.query_row(
        "select count(*), coalesce(sum(size_bytes), 0) from plugin_versions where tenant = ?",
        params![owner(tenant)],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

const VERSION: &str = "plugin_versions.tenant, plugin_versions.name, plugin_versions.digest, \
     plugin_versions.size_bytes, plugin_versions.world, plugin_versions.manifest, \
     plugin_versions.created_at_ms, plugins.digest = plugin_versions.digest, \
     plugin_versions.deprecated \
     from plugin_versions join plugins using (tenant, name)";

/// How all versions are found that are read by [`read`].
pub(super) fn all_versions() -> String {
    format!("select {VERSION}")
}

pub(super) fn read(row: &Row<'_>) -> Result<PluginVersion> {
    let shared = row.get_ref(0)?.as_str()? == SHARED;
    let name: String = row.get(1)?;
    Ok(PluginVersion {
        name: PluginName::try_from(name).map_err(|err| broken(1, err.to_string()))?,
        tenant: if shared { None } else { Some(tenant(row, 0)?) },
        digest: digest(row, 2)?,
        size_bytes: row.get(3)?,
        world: json(row, 4)?,
        manifest: json(row, 5)?,
        created_at_ms: row.get(6)?,
        current: row.get(7)?,
        deprecated: row.get(8)?,
    })
}

pub(super) fn all(connection: &Connection, tenant: Option<&Tenant>) -> Result<Vec<PluginVersion>> {
    let mut find = connection.prepare_cached(&format!(
        "select {VERSION}
         where tenant in (?, '') and plugins.digest = plugin_versions.digest
         order by plugin_versions.name, tenant desc"
    ))?;
    let found =
        find.query_map(params![owner(tenant)], |row| named("plugin_versions", row, 1, read))?;
    let mut found: Vec<PluginVersion> = sound(found).collect::<Result<_>>()?;
    // The tenant's own plugin hides a shared one of its name.
    found.dedup_by(|later, earlier| later.name == earlier.name);
    Ok(found)
}

pub(super) fn versions(
    connection: &Connection,
    tenant: Option<&Tenant>,
    name: &PluginName,
) -> Result<Vec<PluginVersion>> {
    let mut find = connection.prepare_cached(&format!(
        "select {VERSION} where tenant = ? and name = ? order by created_at_ms desc, plugin_versions.digest"
    ))?;
    for owner in [owner(tenant), SHARED] {
        let values = params![owner, name.as_str()];
        let found = find.query_map(values, |row| named("plugin_versions", row, 1, read))?;
        let found: Vec<PluginVersion> = sound(found).collect::<Result<_>>()?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

pub(super) fn find(
    connection: &Connection,
    tenant: Option<&Tenant>,
    it: &PluginRef,
) -> Result<Option<PluginVersion>> {
    match it {
        PluginRef::Name(name) => {
            let found = versions(connection, tenant, name)?;
            Ok(found.into_iter().find(|version| version.current))
        }
        PluginRef::Digest(digest) => {
            let mut find = connection.prepare_cached(&format!(
                "select {VERSION}
                 where plugin_versions.digest = ? and tenant in (?, '')
                 order by tenant desc limit 1"
            ))?;
            find.query_row(params![digest.0, owner(tenant)], read).optional()
        }
    }
}

pub(super) fn file(connection: &Connection, digest: Digest) -> Result<Option<Bytes>> {
    let mut find = connection.prepare_cached("select file from plugin_files where digest = ?")?;
    find.query_row(params![digest.0], |row| read_file(row, 0, digest)).optional()
}

/// A file that is named by this digest: what runs is what was uploaded and checked.
pub(super) fn read_file(row: &Row<'_>, column: usize, digest: Digest) -> Result<Bytes> {
    let file: Vec<u8> = row.get(column)?;
    if Digest::of(&file) == digest {
        Ok(file.into())
    } else {
        Err(broken(column, "the file is not the one that its digest names"))
    }
}
