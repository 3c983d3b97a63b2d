//! Tenants, tokens and identities.

use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use serde_json::Value;
use uuid::Uuid;

use super::rows::{broken, format, json, tenant, uuid};
use super::writer::Writing;
use crate::event::Tenant;
use crate::secret::ServerKey;
use crate::store::{StoreError, Token};

pub(super) fn create_token(connection: &Connection, token: &Token) -> Result<()> {
    if let Some(tenant) = &token.tenant {
        connection.execute(
            "insert or ignore into tenants (tenant, created_at_ms) values (?, ?)",
            params![tenant.as_str(), token.created_at_ms],
        )?;
    }
    connection.execute(
        "insert into tokens (id, hash, tenant, scopes, created_at_ms, expires_at_ms, parent)
         values (?, ?, ?, ?, ?, ?, ?)",
        params![
            token.id.as_bytes(),
            token.hash,
            token.tenant.as_ref().map(Tenant::as_str),
            token.scopes.join(" "),
            token.created_at_ms,
            token.expires_at_ms,
            token.parent.map(Uuid::into_bytes),
        ],
    )?;
    Ok(())
}

const TOKEN: &str = "id, hash, tenant, scopes, created_at_ms, expires_at_ms, revoked_at_ms, parent";

fn read(row: &Row<'_>) -> Result<Token> {
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
    all.query_map((), read)?.collect()
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
    all.query_map((), |row| Ok((tenant(row, 0)?, format(row, 1)?, json(row, 2)?)))?.collect()
}

pub(super) fn put_settings(
    connection: &Connection,
    tenant: &Tenant,
    format: &str,
    settings: &str,
) -> Result<()> {
    let sql = "insert or replace into account_settings (tenant, format, settings) values (?, ?, ?)";
    connection.execute(sql, params![tenant.as_str(), format, settings]).map(|_| ())
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
) -> Result<()> {
    writing.connection.execute(
        "delete from identities where tenant = ? and profile = ?",
        params![tenant.as_str(), profile],
    )?;
    let mut insert = writing
        .connection
        .prepare_cached("insert into identities (tenant, profile, kind, id) values (?, ?, ?, ?)")?;
    for (kind, id) in ids {
        insert.execute(params![tenant.as_str(), profile, kind, id])?;
    }
    writing.known.identified.insert(tenant.clone());
    Ok(())
}

pub(super) fn identities(
    connection: &Connection,
    tenant: &Tenant,
    profile: &str,
) -> Result<Vec<(String, String)>> {
    let mut find = connection.prepare_cached(
        "select kind, id from identities where tenant = ? and profile = ? order by kind",
    )?;
    find.query_map(params![tenant.as_str(), profile], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
