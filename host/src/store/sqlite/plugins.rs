//! Plugins and their versions.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::rows::{broken, digest, json, tenant, to_json};
use super::subscriptions;
use super::writer::Writing;
use crate::event::Tenant;
use crate::plugin::{Digest, PluginName, PluginRef, PluginVersion};
use crate::subscription::Subscription;

/// The operator, who shares with all tenants.
const SHARED: &str = "";

fn owner(tenant: Option<&Tenant>) -> &str {
    tenant.map_or(SHARED, Tenant::as_str)
}

pub(super) fn add(
    writing: &mut Writing<'_>,
    version: &PluginVersion,
    file: &Bytes,
    changed: Vec<Subscription>,
) -> crate::store::Result<()> {
    let connection = writing.connection;
    let owner = owner(version.tenant.as_ref());
    connection.execute(
        "insert or ignore into plugin_files (digest, file) values (?, ?)",
        params![version.digest.0, &file[..]],
    )?;
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
    connection.execute(
        "insert into plugins (tenant, name, digest) values (?, ?, ?)
         on conflict do update set digest = excluded.digest",
        params![owner, version.name.as_str(), version.digest.0],
    )?;
    for subscription in changed {
        subscriptions::change(writing, subscription, None)?;
    }
    Ok(())
}

const VERSION: &str = "plugin_versions.tenant, plugin_versions.name, plugin_versions.digest, \
     plugin_versions.size_bytes, plugin_versions.world, plugin_versions.manifest, \
     plugin_versions.created_at_ms, plugins.digest = plugin_versions.digest \
     from plugin_versions join plugins using (tenant, name)";

fn read(row: &Row<'_>) -> Result<PluginVersion> {
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
    })
}

pub(super) fn all(connection: &Connection, tenant: Option<&Tenant>) -> Result<Vec<PluginVersion>> {
    let mut find = connection.prepare_cached(&format!(
        "select {VERSION}
         where tenant in (?, '') and plugins.digest = plugin_versions.digest
         order by plugin_versions.name, tenant desc"
    ))?;
    let found = find.query_map(params![owner(tenant)], read)?;
    let mut found: Vec<PluginVersion> = found.collect::<Result<_>>()?;
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
        let found = find.query_map(params![owner, name.as_str()], read)?;
        let found: Vec<PluginVersion> = found.collect::<Result<_>>()?;
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
    find.query_row(params![digest.0], |row| row.get::<_, Vec<u8>>(0).map(Bytes::from)).optional()
}
