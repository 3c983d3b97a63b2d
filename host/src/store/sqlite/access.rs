//! Tenants, tokens and identities.

use hookyard_nouns::event::Tenant;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use serde_json::Value;
use uuid::Uuid;

use super::rows::{broken, check_sum, format, json, named, sound, sum, tenant, text, uuid, values};
use super::usage;
use super::writer::Writing;
use crate::secret::ServerKey;
use crate::store::{StoreError, Token};

pub(super) fn create_token(writing: &mut Writing<'_>, token: &Token) -> crate::store::Result<()> {
    match &token.tenant {
        Some(tenant) => {
            usage::within(writing, tenant, |it| Ok(insert_token(it.connection, token)?))
        }
        None => Ok(insert_token(writing.connection, token)?),
    }
}

fn insert_token(connection: &Connection, token: &Token) -> Result<()> {
    if let Some(tenant) = &token.tenant {
        connection.execute(
            "insert or ignore into tenants (tenant, created_at_ms) values (?, ?)",
            params![tenant.as_str(), token.created_at_ms],
        )?;
    }
    let (tenant, scopes) = (token.tenant.as_ref().map(Tenant::as_str), token.scopes.join(" "));
    let parent = token.parent.map(Uuid::into_bytes);
    let sum = sum([
        ValueRef::Blob(token.id.as_bytes()),
        ValueRef::Blob(&token.hash),
        text(tenant),
        text(&*scopes),
        ValueRef::Integer(token.created_at_ms),
        token.expires_at_ms.map_or(ValueRef::Null, ValueRef::Integer),
        parent.as_ref().map_or(ValueRef::Null, |it| ValueRef::Blob(it)),
    ]);
    connection.execute(
        "insert into tokens (id, hash, tenant, scopes, created_at_ms, expires_at_ms, parent, sum)
         values (?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            token.id.as_bytes(),
            token.hash,
            tenant,
            scopes,
            token.created_at_ms,
            token.expires_at_ms,
            parent,
            sum,
        ],
    )?;
    Ok(())
}

const TOKEN: &str =
    "id, hash, tenant, scopes, created_at_ms, expires_at_ms, revoked_at_ms, parent, sum";

/// How all tokens are found that are read by [`read`].
pub(super) fn all_tokens() -> String {
    format!("select {TOKEN} from tokens")
}

pub(super) fn read(row: &Row<'_>) -> Result<Token> {
    check_sum(row, 8, sum(values(row, [0, 1, 2, 3, 4, 5, 7])?))?;
    let tenant: Option<String> = row.get(2)?;
    let tenant = tenant.map(|name| Tenant::new(&name)).transpose();
    let scopes: String = row.get(3)?;
    Ok(Token {
        id: uuid(row, 0)?,
        hash: row.get(1)?,
        tenant: tenant.map_err(|err| broken(2, err.to_string()))?,
        scopes: scopes.split_whitespace().map(str::to_owned).collect(),
        created_at_ms: row.get(4)?,
        expires_at_ms: row.get(5)?,
        revoked_at_ms: row.get(6)?,
        parent: row.get::<_, Option<[u8; 16]>>(7)?.map(Uuid::from_bytes),
    })
}

pub(super) fn tokens(connection: &Connection) -> Result<Vec<Token>> {
    let mut all = connection.prepare(&format!(
        "select {TOKEN} from tokens where parent is null order by created_at_ms, id"
    ))?;
    let found = all.query_map((), |row| named("tokens", row, 0, read))?;
    sound(found).collect()
}

pub(super) fn token(connection: &Connection, hash: [u8; 32]) -> Result<Option<Token>> {
    let mut find =
        connection.prepare_cached(&format!("select {TOKEN} from tokens where hash = ?"))?;
    find.query_row(params![hash], read).optional()
}

pub(super) fn token_by_id(connection: &Connection, id: Uuid) -> Result<Option<Token>> {
    let sql = format!("select {TOKEN} from tokens where id = ?");
    connection.query_row(&sql, params![id.as_bytes()], read).optional()
}

pub(super) fn revoke_token(
    writing: &mut Writing<'_>,
    id: Uuid,
    now_ms: i64,
) -> crate::store::Result<()> {
    let revoked = writing.connection.execute(
        "update tokens set revoked_at_ms = ?1 where id = ?2 and revoked_at_ms is null",
        params![now_ms, id.as_bytes()],
    )?;
    writing.connection.execute(
        "update tokens set revoked_at_ms = ?1 where parent = ?2 and revoked_at_ms is null",
        params![now_ms, id.as_bytes()],
    )?;
    writing.tokens_changed = true;
    if revoked == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

/// Takes away tokens that were given out for others and have ended.
pub(super) fn prune_tokens(connection: &Connection, now_ms: i64) -> Result<()> {
    let mut delete = connection
        .prepare_cached("delete from tokens where parent is not null and expires_at_ms < ?")?;
    delete.execute(params![now_ms]).map(|_| ())
}

pub(super) fn settings(
    connection: &Connection,
    tenant: &Tenant,
    format: &str,
) -> Result<Option<Value>> {
    let sql = "select settings from account_settings where tenant = ? and format = ?";
    connection.query_row(sql, params![tenant.as_str(), format], |row| json(row, 0)).optional()
}

pub(super) fn all_settings(connection: &Connection) -> Result<Vec<(Tenant, &'static str, Value)>> {
    let mut all = connection.prepare("select tenant, format, settings from account_settings")?;
    let found = all.query_map((), |row| {
        let read = |row: &Row<'_>| Ok((tenant(row, 0)?, format(row, 1)?, json(row, 2)?));
        named("account_settings", row, 0, read)
    })?;
    sound(found).collect()
}

pub(super) fn put_settings(
    writing: &mut Writing<'_>,
    tenant: &Tenant,
    format: &str,
    settings: &str,
) -> crate::store::Result<()> {
    let sql = "insert into account_settings (tenant, format, settings) values (?, ?, ?)
               on conflict do update set settings = excluded.settings";
    usage::within(writing, tenant, |writing| {
        writing.connection.execute(sql, params![tenant.as_str(), format, settings])?;
        Ok(())
    })
}

pub(super) fn signing_key(
    connection: &Connection,
    key: &ServerKey,
    selector: &str,
) -> Result<Option<Vec<u8>>> {
    let sql = "select sealed from signing_keys where selector = ?";
    let sealed: Option<Vec<u8>> =
        connection.query_row(sql, params![selector], |row| row.get(0)).optional()?;
    let open = |sealed: Vec<u8>| {
        let opened = key.open_sealed(selector.as_bytes(), &sealed);
        opened.ok_or_else(|| broken(0, "a key was sealed with another server key"))
    };
    sealed.map(open).transpose()
}

/// The first to come is the one that is kept, and answered.
pub(super) fn keep_signing_key(
    writing: &Writing<'_>,
    selector: &str,
    made: &[u8],
) -> Result<Vec<u8>> {
    writing.connection.execute(
        "insert or ignore into signing_keys (selector, sealed) values (?, ?)",
        params![selector, writing.key.seal(selector.as_bytes(), made)],
    )?;
    let kept = signing_key(writing.connection, writing.key, selector)?;
    Ok(kept.expect("a key has just been kept"))
}

pub(super) fn tenant_exists(connection: &Connection, tenant: &Tenant) -> Result<bool> {
    let mut find = connection.prepare_cached("select 1 from tenants where tenant = ?")?;
    find.exists(params![tenant.as_str()])
}

pub(super) fn put_identities(
    writing: &mut Writing<'_>,
    tenant: &Tenant,
    profile: &str,
    ids: &[(String, String)],
) -> crate::store::Result<()> {
    usage::within(writing, tenant, |it| {
        Ok(replace_identities(it.connection, tenant, profile, ids)?)
    })?;
    writing.known.identified.insert(tenant.clone());
    Ok(())
}

fn replace_identities(
    connection: &Connection,
    tenant: &Tenant,
    profile: &str,
    ids: &[(String, String)],
) -> Result<()> {
    connection.execute(
        "delete from identities where tenant = ? and profile = ?",
        params![tenant.as_str(), profile],
    )?;
    let mut insert = connection.prepare_cached(
        "insert into identities (tenant, profile, kind, id, sum) values (?, ?, ?, ?, ?)",
    )?;
    for (kind, id) in ids {
        let sum = sum([tenant.as_str(), profile, kind.as_str(), id.as_str()].map(text));
        insert.execute(params![tenant.as_str(), profile, kind, id, sum])?;
    }
    Ok(())
}

pub(super) fn identities(
    connection: &Connection,
    tenant: &Tenant,
    profile: &str,
) -> Result<Vec<(String, String)>> {
    let mut find = connection.prepare_cached(&format!(
        "{} where tenant = ? and profile = ? order by kind",
        all_identities()
    ))?;
    let found = find.query_map(params![tenant.as_str(), profile], |row| {
        named("identities", row, 0, read_identity)
    })?;
    sound(found).collect()
}

/// How all identities are found that are read by [`read_identity`].
pub(super) fn all_identities() -> String {
    "select profile, tenant, kind, id, sum from identities".to_owned()
}

pub(super) fn read_identity(row: &Row<'_>) -> Result<(String, String)> {
    check_sum(row, 4, sum(values(row, [1, 0, 2, 3])?))?;
    Ok((row.get(2)?, row.get(3)?))
}
