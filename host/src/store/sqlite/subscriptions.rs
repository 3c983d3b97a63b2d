//! Subscriptions, state by state.

use hookyard_nouns::event::Tenant;
use hookyard_nouns::subscription::{SigningSecret, Subscription};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result, params};
use uuid::Uuid;

use super::found::{by_id, secrets};
use super::held;
use super::rows::{sum, text, to_json, uuid};
use super::usage;
use super::writer::Writing;
use crate::store::StoreError;

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
    let tenant = it.tenant.clone();
    usage::within(writing, &tenant, |writing| insert(writing.connection, &it))?;
    for secret in &it.secrets {
        insert_secret(writing, it.id, secret, it.created_at_ms)?;
    }
    Ok(it)
}

pub(super) fn change(
    writing: &mut Writing<'_>,
    it: Subscription,
    unique: Option<&[String]>,
    secret: Option<SigningSecret>,
) -> Outcome<Subscription> {
    let tenant = it.tenant.clone();
    usage::within(writing, &tenant, |writing| put(writing, it, unique, secret))
}

fn put(
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

pub(super) fn delete(writing: &mut Writing<'_>, tenant: &Tenant, id: Uuid) -> Outcome<()> {
    let revision = next_revision(writing)?;
    let connection = writing.connection;
    // It is not read, so that one whose row is broken can be deleted.
    let ended = connection.execute(
        "update subscriptions set ended = ? where tenant = ? and id = ? and ended is null",
        params![revision, tenant.as_str(), id.as_bytes()],
    )?;
    if ended == 0 {
        return Err(StoreError::NotFound);
    }
    drop_keys(connection, id)?;
    connection.execute("delete from secrets where subscription = ?", params![id.as_bytes()])?;
    connection.execute("delete from quarantines where subscription = ?", params![id.as_bytes()])?;
    connection.execute("delete from failing where subscription = ?", params![id.as_bytes()])?;
    if held::cancel(connection, id)? {
        connection
            .execute("insert into ending (subscription) values (?)", params![id.as_bytes()])?;
    }
    Ok(())
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
    let (filters, pace) = (to_json(&it.filters), to_json(&it.pace));
    let (format_steps, steps) = (to_json(&it.format_steps), to_json(&it.steps));
    let document = to_json(&it.document);
    let whole = |it: u64| ValueRef::Integer(i64::try_from(it).unwrap_or(i64::MAX));
    let summed = [
        ValueRef::Blob(it.id.as_bytes()),
        text(it.tenant.as_str()),
        text(it.format),
        text(&*it.provider_id),
        text(&*it.name),
        text(it.url.as_str()),
        text(it.state.as_str()),
        ValueRef::Integer(it.catch_up.into()),
        text(&*filters),
        text(&*format_steps),
        text(&*steps),
        ValueRef::Blob(&it.rendering_hash.0),
        text(&*document),
        ValueRef::Integer(it.created_at_ms),
        ValueRef::Integer(it.updated_at_ms),
        whole(it.revision),
        it.rate_per_minute.map_or(ValueRef::Null, |it| whole(it.into())),
        text(&*pace),
    ];
    let sum = sum(summed.into_iter().chain(it.agreed_origin.as_deref().map(text)));
    connection.execute(
        "insert into subscriptions (id, revision, tenant, format, provider_id, name, url, state,
                                    catch_up, filters, format_steps, steps, rendering,
                                    agreed_origin, rate_per_minute, pace, document, created_at_ms,
                                    updated_at_ms, sum)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
            filters,
            format_steps,
            steps,
            it.rendering_hash.0,
            it.agreed_origin,
            it.rate_per_minute,
            pace,
            document,
            it.created_at_ms,
            it.updated_at_ms,
            sum,
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
