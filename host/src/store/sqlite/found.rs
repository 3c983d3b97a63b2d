//! Subscriptions as they are found, state by state.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::plugin::PluginName;
use hookyard_nouns::rendering::Rendering;
use hookyard_nouns::subscription::{SigningSecret, State, Subscription};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Params, Result, Row, params};
use url::Url;
use uuid::Uuid;

use super::known;
use super::rows::{
    broken, check_sum, digest, format, json, named, rendering, sound, sum, tenant, uuid, values,
};
use crate::secret::ServerKey;
use crate::store::SubscriptionVersion;

pub(super) fn secrets(
    connection: &Connection,
    key: &ServerKey,
    id: Uuid,
) -> Result<Vec<SigningSecret>> {
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
     updated_at_ms, revision, ended, rate_per_minute, pace, \
     agreed_origin, sum \
     from subscriptions join renderings on renderings.hash = subscriptions.rendering";

/// Most subscriptions have the same few renderings, and share them.
type Renderings = HashMap<Digest, Arc<Rendering>>;

fn read_whole(
    connection: &Connection,
    key: &ServerKey,
    renderings: &mut Renderings,
    row: &Row<'_>,
) -> Result<Subscription> {
    let secrets = secrets(connection, key, uuid(row, 0)?)?;
    read(row, renderings, secrets)
}

fn read(
    row: &Row<'_>,
    renderings: &mut Renderings,
    secrets: Vec<SigningSecret>,
) -> Result<Subscription> {
    let summed = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 18, 19];
    // Only where there is one: rows of before it was kept have their sums without it.
    let agreed_origin = Some(row.get_ref(20)?).filter(|it| *it != ValueRef::Null);
    check_sum(row, 21, sum(values(row, summed)?.chain(agreed_origin)))?;
    let id = uuid(row, 0)?;
    let rendering_hash = digest(row, 11)?;
    let rendering = match renderings.entry(rendering_hash) {
        Entry::Occupied(known) => Arc::clone(known.get()),
        Entry::Vacant(new) => Arc::clone(new.insert(Arc::new(rendering(row, 12, rendering_hash)?))),
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
        agreed_origin: row.get(20)?,
        rate_per_minute: row.get(18)?,
        pace: json(row, 19)?,
        secrets,
        document: json(row, 13)?,
        created_at_ms: row.get(14)?,
        updated_at_ms: row.get(15)?,
        revision: row.get(16)?,
    })
}

/// How all states of subscriptions are found that are checked by [`check`].
pub(super) fn all() -> String {
    format!("select {SUBSCRIPTION}")
}

/// Reads a state of a subscription, but for its secrets.
pub(super) fn check(row: &Row<'_>) -> Result<()> {
    read(row, &mut Renderings::new(), Vec::new()).map(|_| ())
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
    let found = find.query_map(values, |row| {
        named("subscriptions", row, 0, |row| read_whole(connection, key, &mut renderings, row))
    })?;
    sound(found).collect()
}

/// The one that a condition finds.
///
/// # Errors
///
/// It cannot be read, or is broken.
fn query_one(
    connection: &Connection,
    key: &ServerKey,
    condition: &str,
    values: impl Params,
) -> Result<Option<Subscription>> {
    let mut find =
        connection.prepare_cached(&format!("select {SUBSCRIPTION} where {condition}"))?;
    let mut renderings = Renderings::new();
    find.query_row(values, |row| read_whole(connection, key, &mut renderings, row)).optional()
}

pub(super) fn by_id(
    connection: &Connection,
    key: &ServerKey,
    tenant: &Tenant,
    id: Uuid,
) -> Result<Option<Subscription>> {
    let condition = "tenant = ? and id = ? and ended is null";
    query_one(connection, key, condition, params![tenant.as_str(), id.as_bytes()])
}

pub(super) fn by_provider_id(
    connection: &Connection,
    key: &ServerKey,
    tenant: &Tenant,
    format: &str,
    provider_id: &str,
) -> Result<Option<Subscription>> {
    let condition = "tenant = ? and format = ? and provider_id = ? and ended is null";
    query_one(connection, key, condition, params![tenant.as_str(), format, provider_id])
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
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Subscription>> {
    let follows = |steps: &str| {
        format!(
            "exists (select 1 from json_each(iif(json_valid({steps}), {steps}, '[]'))
                     where value ->> 'plugin' = ?1)"
        )
    };
    let (own, formats) = (follows("steps"), follows("format_steps"));
    let of = match tenant {
        Some(_) => format!("tenant = ?2 and {own}"),
        None => format!("?2 is null and ({own} or {formats})"),
    };
    let condition = format!("ended is null and id > ?3 and {of} order by id limit ?4");
    let after = after.unwrap_or(Uuid::nil());
    let tenant = tenant.map(Tenant::as_str);
    query(connection, key, &condition, params![name.as_str(), tenant, after.as_bytes(), limit])
}

pub(super) fn changes(
    connection: &Connection,
    key: &ServerKey,
    after: u64,
) -> Result<(u64, Vec<SubscriptionVersion>)> {
    // One snapshot: the revision belongs to what is read with it.
    let snapshot = connection.unchecked_transaction()?;
    let revision = known::revision(&snapshot)?;
    // The plus keeps it from walking through all revisions in their order, for the sake of the few.
    let mut find = snapshot.prepare_cached(&format!(
        "select {SUBSCRIPTION} where revision > ?1 or ended > ?1 order by +revision"
    ))?;
    let mut renderings = Renderings::new();
    let versions = find.query_map(params![after], |row| {
        named("subscriptions", row, 0, |row| {
            let subscription = read_whole(&snapshot, key, &mut renderings, row)?;
            Ok(SubscriptionVersion { subscription, ended: row.get(17)? })
        })
    })?;
    let versions = sound(versions).collect::<Result<_>>()?;
    Ok((revision, versions))
}
