//! How values stand in columns.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{Error, Result, Row};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::event::{Content, Data, Event, Tenant, format_name};
use crate::json::Json;
use crate::plugin::Digest;

/// A value that this program would not have written.
pub(super) fn broken(column: usize, why: impl Into<String>) -> Error {
    Error::FromSqlConversionFailure(column, Type::Null, why.into().into())
}

pub(super) fn uuid(row: &Row<'_>, column: usize) -> Result<Uuid> {
    let bytes: [u8; 16] = row.get(column)?;
    Ok(Uuid::from_bytes(bytes))
}

pub(super) fn digest(row: &Row<'_>, column: usize) -> Result<Digest> {
    row.get(column).map(Digest)
}

pub(super) fn digest_or_null(row: &Row<'_>, column: usize) -> Result<Option<Digest>> {
    row.get::<_, Option<[u8; 32]>>(column).map(|it| it.map(Digest))
}

pub(super) fn tenant(row: &Row<'_>, column: usize) -> Result<Tenant> {
    let name: String = row.get(column)?;
    Tenant::new(&name).map_err(|err| broken(column, err.to_string()))
}

pub(super) fn format(row: &Row<'_>, column: usize) -> Result<&'static str> {
    row.get_ref(column)?.as_str().map(format_name).map_err(|err| broken(column, err.to_string()))
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|err| broken(column, err.to_string()))
}

pub(super) fn json_or_null<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    let value = text.map(|text| serde_json::from_str(&text)).transpose();
    value.map_err(|err| broken(column, err.to_string()))
}

pub(super) fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("our own types are JSON")
}

/// The columns of [`event`], to be selected in this order.
pub(super) const EVENT: &str = "events.id, events.tenant, events.format, events.attributes, \
     events.data_kind, events.data, events.alternate_ids, events.accepted_at_ms, events.revision";

pub(super) const EVENT_COLUMNS: usize = 9;

/// An event; none when its data are no longer kept.
pub(super) fn event(row: &Row<'_>, first: usize) -> Result<Option<Arc<Event>>> {
    let kind: Option<String> = row.get(first + 4)?;
    let bytes: Option<Vec<u8>> = row.get(first + 5)?;
    let data = match (kind.as_deref(), bytes.map(Bytes::from)) {
        (None, _) => None,
        (Some(_), None) => return Ok(None),
        (Some("json"), Some(bytes)) => Some(Data::Json(Json::trusted(bytes))),
        (Some("text"), Some(bytes)) => Some(Data::Text(bytes)),
        (Some(_), Some(bytes)) => Some(Data::Binary(bytes)),
    };
    Ok(Some(Arc::new(Event {
        id: uuid(row, first)?,
        tenant: tenant(row, first + 1)?,
        format: format(row, first + 2)?,
        content: Arc::new(Content { attributes: json(row, first + 3)?, data }),
        alternate_ids: json_or_null(row, first + 6)?.unwrap_or_default(),
        accepted_at_ms: row.get(first + 7)?,
        revision: row.get(first + 8)?,
    })))
}
