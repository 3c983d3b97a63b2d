//! Subscriptions, state by state.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Params, Result, Row, params};
use url::Url;
use uuid::Uuid;

use super::rows::{broken, digest, format, json, tenant, to_json, uuid};
use super::writer::Writing;
use crate::event::Tenant;
use crate::plugin::{Digest, PluginName};
use crate::render::Rendering;
use crate::secret::ServerKey;
use crate::store::{StoreError, SubscriptionVersion};
use crate::subscription::{SigningSecret, State, Subscription};

type Outcome<T> = crate::store::Result<T>;

pub(super) fn next_number(connection: &Connection, tenant: &Tenant, format: &str) -> Result<u64> {
    connection.query_row(
        "insert into subscription_numbers (tenant, format, number) values (?, ?, 1)
         on conflict do update set number = number + 1 returning number",
        params![tenant.as_str(), format],
        |row| row.get(0),
    )
}

pub(super) fn create(
    writing: &mut Writing<'_>,
    mut it: Subscription,
    unique: &[String],
) -> Outcome<Subscription> {
    it.revision = next_revision(writing)?;
    take_keys(writing.connection, &it, unique)?;
    insert(writing.connection, &it)?;
    for secret in &it.secrets {
        insert_secret(writing, it.id, secret, it.created_at_ms)?;
    }
    Ok(it)
}

pub(super) fn change(
    writing: &mut Writing<'_>,
    mut it: Subscription,
    unique: Option<&[String]>,
    secret: Option<SigningSecret>,
) -> Outcome<Subscription> {
    let before = it.revision;
    it.revision = next_revision(writing)?;
    let connection = writing.connection;
    let ended = connection.execute(
        "update subscriptions set ended = ?
         where tenant = ? and id = ? and revision = ? and ended is null",
        params![it.revision, it.tenant.as_str(), it.id.as_bytes(), before],
    )?;
    if ended == 0 {
        return Err(StoreError::Changed);
    }
    if let Some(unique) = unique {
        drop_keys(connection, it.id)?;
        take_keys(connection, &it, unique)?;
    }
    insert(connection, &it)?;
    if let Some(secret) = secret {
        connection
            .execute("delete from secrets where subscription = ?", params![it.id.as_bytes()])?;
        insert_secret(writing, it.id, &secret, it.updated_at_ms)?;
        it.secrets = vec![secret];
    }
    Ok(it)
}

/// The subscriptions of a tenant whose URL begins so.
pub(super) fn by_url(
    connection: &Connection,
    tenant: &Tenant,
    beginning: &str,
    limit: usize,
) -> Result<Vec<Uuid>> {
    let mut find = connection.prepare_cached(
        "select id from subscriptions indexed by subscriptions_by_url
         where tenant = ?1 and url >= ?2 and url < ?2 || char(1114111) and ended is null limit ?3",
    )?;
    find.query_map(params![tenant.as_str(), beginning, limit], |row| uuid(row, 0))?.collect()
}

pub(super) fn delete(
    writing: &mut Writing<'_>,
    tenant: &Tenant,
    id: Uuid,
) -> Outcome<Subscription> {
    let it = by_id(writing.connection, writing.key, tenant, id)?.ok_or(StoreError::NotFound)?;
    let revision = next_revision(writing)?;
    let connection = writing.connection;
    connection.execute(
        "update subscriptions set ended = ? where tenant = ? and id = ? and ended is null",
        params![revision, tenant.as_str(), id.as_bytes()],
    )?;
    drop_keys(connection, id)?;
    connection.execute("delete from secrets where subscription = ?", params![id.as_bytes()])?;
    connection.execute("delete from quarantines where subscription = ?", params![id.as_bytes()])?;
    connection.execute("delete from failing where subscription = ?", params![id.as_bytes()])?;
    // Each of these goes along an index.
    for unsettled in [
        "due_at_ms is not null",
        "due_at_ms is null and (order_key is null or head_since_ms is not null)
         and state in ('pending', 'retrying')",
        "order_key is not null and unsettled",
        "state = 'held' and state not in ('delivered', 'pending')",
    ] {
        connection.execute(
            &format!(
                "update deliveries set state = 'cancelled', due_at_ms = null
                 where subscription = ? and {unsettled}"
            ),
            params![id.as_bytes()],
        )?;
    }
    Ok(it)
}

pub(super) fn rotate_secret(
    writing: &mut Writing<'_>,
    tenant: &Tenant,
    id: Uuid,
    secret: &SigningSecret,
    old_until_ms: i64,
    now_ms: i64,
) -> Outcome<Subscription> {
    let connection = writing.connection;
    let mut it = by_id(connection, writing.key, tenant, id)?.ok_or(StoreError::NotFound)?;
    connection.execute(
        "delete from secrets where subscription = ? and valid_until_ms <= ?",
        params![id.as_bytes(), now_ms],
    )?;
    connection.execute(
        "update secrets set valid_until_ms = ? where subscription = ? and valid_until_ms is null",
        params![old_until_ms, id.as_bytes()],
    )?;
    insert_secret(writing, id, secret, now_ms)?;
    it.updated_at_ms = now_ms;
    let mut changed = change(writing, it, None, None)?;
    changed.secrets = secrets(writing.connection, writing.key, id)?;
    Ok(changed)
}

fn next_revision(writing: &mut Writing<'_>) -> Result<u64> {
    writing.known.revision += 1;
    writing.connection.execute(
        "update meta set value = ? where name = 'revision'",
        params![writing.known.revision],
    )?;
    Ok(writing.known.revision)
}

fn take_keys(connection: &Connection, it: &Subscription, unique: &[String]) -> Outcome<()> {
    let mut take = connection.prepare_cached(
        "insert or ignore into subscription_keys (tenant, format, key, subscription)
         values (?, ?, ?, ?)",
    )?;
    for key in unique {
        let taken = take.execute(params![it.tenant.as_str(), it.format, key, it.id.as_bytes()])?;
        if taken == 0 {
            return Err(StoreError::Conflict(key.clone()));
        }
    }
    Ok(())
}

fn drop_keys(connection: &Connection, id: Uuid) -> Result<()> {
    let sql = "delete from subscription_keys where subscription = ?";
    connection.execute(sql, params![id.as_bytes()]).map(|_| ())
}

fn insert(connection: &Connection, it: &Subscription) -> Outcome<()> {
    let mut find = connection.prepare_cached("select 1 from plugin_files where digest = ?")?;
    for step in &it.rendering.steps {
        // It may have been deleted since the subscription was checked.
        if !find.exists(params![step.plugin.0])? {
            return Err(StoreError::Changed);
        }
    }
    connection.execute(
        "insert or ignore into renderings (hash, definition) values (?, ?)",
        params![it.rendering_hash.0, to_json(&it.rendering)],
    )?;
    connection.execute(
        "insert into subscriptions (id, revision, tenant, format, provider_id, name, url, state,
                                    catch_up, filters, format_steps, steps, rendering,
                                    rate_per_minute, pace, document, created_at_ms, updated_at_ms)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            it.id.as_bytes(),
            it.revision,
            it.tenant.as_str(),
            it.format,
            it.provider_id,
            it.name,
            it.url.as_str(),
            it.state.as_str(),
            it.catch_up,
            to_json(&it.filters),
            to_json(&it.format_steps),
            to_json(&it.steps),
            it.rendering_hash.0,
            it.rate_per_minute,
            to_json(&it.pace),
            to_json(&it.document),
            it.created_at_ms,
            it.updated_at_ms,
        ],
    )?;
    Ok(())
}

fn insert_secret(
    writing: &Writing<'_>,
    subscription: Uuid,
    secret: &SigningSecret,
    now_ms: i64,
) -> Result<()> {
    // Two in one millisecond are told apart by the next free one.
    writing.connection.execute(
        "insert into secrets (subscription, created_at_ms, sealed, valid_until_ms)
         select ?1, max(?2, coalesce(max(created_at_ms) + 1, 0)), ?3, ?4
         from secrets where subscription = ?1",
        params![
            subscription.as_bytes(),
            now_ms,
            writing.key.seal(subscription.as_bytes(), &secret.key),
            secret.valid_until_ms,
        ],
    )?;
    Ok(())
}

fn secrets(connection: &Connection, key: &ServerKey, id: Uuid) -> Result<Vec<SigningSecret>> {
    let mut find = connection.prepare_cached(
        "select sealed, valid_until_ms from secrets
         where subscription = ? order by created_at_ms desc",
    )?;
    let found = find.query_map(params![id.as_bytes()], |row| {
        let sealed: Vec<u8> = row.get(0)?;
        let opened = key.open_sealed(id.as_bytes(), &sealed);
        let key = opened.ok_or_else(|| broken(0, "a secret was sealed with another server key"))?;
        Ok(SigningSecret { key, valid_until_ms: row.get(1)? })
    })?;
    found.collect()
}

const SUBSCRIPTION: &str = "id, tenant, format, provider_id, name, url, state, catch_up, filters, \
     format_steps, steps, rendering, renderings.definition, document, created_at_ms, \
     updated_at_ms, revision, ended, rate_per_minute, pace \
     from subscriptions join renderings on renderings.hash = subscriptions.rendering";

/// Most subscriptions have the same few renderings, and share them.
type Renderings = HashMap<Digest, Arc<Rendering>>;

fn read(
    connection: &Connection,
    key: &ServerKey,
    renderings: &mut Renderings,
    row: &Row<'_>,
) -> Result<Subscription> {
    let id = uuid(row, 0)?;
    let rendering_hash = digest(row, 11)?;
    let rendering = match renderings.entry(rendering_hash) {
        Entry::Occupied(known) => Arc::clone(known.get()),
        Entry::Vacant(new) => Arc::clone(new.insert(Arc::new(json(row, 12)?))),
    };
    let url: String = row.get(5)?;
    let state: String = row.get(6)?;
    let state = [State::Active, State::Paused, State::Disabled]
        .into_iter()
        .find(|it| it.as_str() == state)
        .ok_or_else(|| broken(6, state))?;
    Ok(Subscription {
        id,
        tenant: tenant(row, 1)?,
        format: format(row, 2)?,
        provider_id: row.get(3)?,
        name: row.get(4)?,
        url: Url::parse(&url).map_err(|err| broken(5, err.to_string()))?,
        state,
        catch_up: row.get(7)?,
        filters: json(row, 8)?,
        format_steps: json(row, 9)?,
        steps: json(row, 10)?,
        rendering_hash,
        rendering,
        rate_per_minute: row.get(18)?,
        pace: json(row, 19)?,
        secrets: secrets(connection, key, id)?,
        document: json(row, 13)?,
        created_at_ms: row.get(14)?,
        updated_at_ms: row.get(15)?,
        revision: row.get(16)?,
    })
}

fn query(
    connection: &Connection,
    key: &ServerKey,
    condition: &str,
    values: impl Params,
) -> Result<Vec<Subscription>> {
    let mut find =
        connection.prepare_cached(&format!("select {SUBSCRIPTION} where {condition}"))?;
    let mut renderings = Renderings::new();
    find.query_map(values, |row| read(connection, key, &mut renderings, row))?.collect()
}

pub(super) fn by_id(
    connection: &Connection,
    key: &ServerKey,
    tenant: &Tenant,
    id: Uuid,
) -> Result<Option<Subscription>> {
    let condition = "tenant = ? and id = ? and ended is null";
    Ok(query(connection, key, condition, params![tenant.as_str(), id.as_bytes()])?.pop())
}

pub(super) fn by_provider_id(
    connection: &Connection,
    key: &ServerKey,
    tenant: &Tenant,
    format: &str,
    provider_id: &str,
) -> Result<Option<Subscription>> {
    let condition = "tenant = ? and format = ? and provider_id = ? and ended is null";
    Ok(query(connection, key, condition, params![tenant.as_str(), format, provider_id])?.pop())
}

pub(super) fn list(
    connection: &Connection,
    key: &ServerKey,
    tenant: &Tenant,
    format: Option<&str>,
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Subscription>> {
    let condition = "tenant = ? and id > ? and ended is null and (?3 is null or format = ?3)
                     order by id limit ?4";
    let after = after.unwrap_or(Uuid::nil());
    let values = params![tenant.as_str(), after.as_bytes(), format, limit];
    query(connection, key, condition, values)
}

pub(super) fn followers(
    connection: &Connection,
    key: &ServerKey,
    tenant: Option<&Tenant>,
    name: &PluginName,
) -> Result<Vec<Subscription>> {
    let follows = |steps: &str| {
        format!("exists (select 1 from json_each({steps}) where value ->> 'plugin' = ?1)")
    };
    let (own, formats) = (follows("steps"), follows("format_steps"));
    let condition = match tenant {
        Some(_) => format!("ended is null and tenant = ?2 and {own}"),
        None => format!("ended is null and ?2 is null and ({own} or {formats})"),
    };
    query(connection, key, &condition, params![name.as_str(), tenant.map(Tenant::as_str)])
}

pub(super) fn changes(
    connection: &Connection,
    key: &ServerKey,
    after: u64,
) -> Result<(u64, Vec<SubscriptionVersion>)> {
    // One snapshot: the revision belongs to what is read with it.
    let snapshot = connection.unchecked_transaction()?;
    let revision = snapshot
        .query_row("select value from meta where name = 'revision'", (), |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    // The plus keeps it from walking through all revisions in their order, for the sake of the few.
    let mut find = snapshot.prepare_cached(&format!(
        "select {SUBSCRIPTION} where revision > ?1 or ended > ?1 order by +revision"
    ))?;
    let mut renderings = Renderings::new();
    let versions = find.query_map(params![after], |row| {
        let subscription = read(&snapshot, key, &mut renderings, row)?;
        Ok(SubscriptionVersion { subscription, ended: row.get(17)? })
    })?;
    let versions = versions.collect::<Result<_>>()?;
    Ok((revision, versions))
}
