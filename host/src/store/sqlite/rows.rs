//! How values stand in columns.

use std::sync::Arc;

use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Content, Data, Event, Tenant, format_name};
use hookyard_nouns::json::Json;
use hookyard_nouns::rendering::Rendering;
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Error, Result, Row};
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A value that this program would not have written.
pub(super) fn broken(column: usize, why: impl Into<String>) -> Error {
    Error::FromSqlConversionFailure(column, Type::Null, why.into().into())
}

/// Whether an error is about a row that is not what was written, and not about reading it.
pub(super) fn is_broken(err: &Error) -> bool {
    matches!(
        err,
        Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
    )
}

/// What is wrong with a row.
pub(super) fn why(err: &Error) -> String {
    match err {
        Error::FromSqlConversionFailure(_, _, why) => why.to_string(),
        err => err.to_string(),
    }
}

/// Leaves out the rows that are broken, and says in the log which they are: a row costs only itself.
/// `name` reads from the row by which a person finds it.
pub(super) fn sound<T>(
    found: impl Iterator<Item = Result<Result<T, Named>>>,
) -> impl Iterator<Item = Result<T>> {
    found.filter_map(|it| match it {
        Ok(Ok(it)) => Some(Ok(it)),
        Ok(Err(Named { table, row, why })) => {
            tracing::error!(
                table,
                row,
                why,
                "a row is broken and left out; `hookyard store check` names all"
            );
            None
        }
        Err(err) => Some(Err(err)),
    })
}

/// A row that is broken, by the table that it is in and what it is called there.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) table: &'static str,
    pub(super) row: String,
    pub(super) why: String,
}

/// Reads a row; one that is broken is named by a column.
pub(super) fn named<T>(
    table: &'static str,
    row: &Row<'_>,
    name: usize,
    read: impl FnOnce(&Row<'_>) -> Result<T>,
) -> Result<Result<T, Named>> {
    match read(row) {
        Ok(it) => Ok(Ok(it)),
        Err(err) if is_broken(&err) => {
            let row = row.get_ref(name).map_or_else(|_| "?".to_owned(), called);
            Ok(Err(Named { table, row, why: why(&err) }))
        }
        Err(err) => Err(err),
    }
}

/// A value as a person looks for it.
fn called(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Blob(bytes) => match Uuid::from_slice(bytes) {
            Ok(id) => id.to_string(),
            Err(_) => crate::sign::hex(bytes),
        },
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Null => "null".to_owned(),
    }
}

/// A sum by which values are known to be as they were written. It is no secret and no signature: it finds bits
/// that a disk or a memory has turned, not what somebody has changed on purpose.
pub(super) fn sum<'a>(values: impl IntoIterator<Item = ValueRef<'a>>) -> i64 {
    let mut sum = crc32fast::Hasher::new();
    for value in values {
        let number;
        let (kind, bytes): (u8, &[u8]) = match value {
            ValueRef::Null => (0, &[]),
            ValueRef::Integer(it) => {
                number = it.to_le_bytes();
                (1, &number)
            }
            ValueRef::Real(it) => {
                number = it.to_le_bytes();
                (2, &number)
            }
            ValueRef::Text(text) => (3, text),
            ValueRef::Blob(bytes) => (4, bytes),
        };
        sum.update(&[kind]);
        sum.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        sum.update(bytes);
    }
    sum.finalize().into()
}

/// A text as a value to be summed; none is null.
pub(super) fn text<'a>(text: impl Into<Option<&'a str>>) -> ValueRef<'a> {
    text.into().map_or(ValueRef::Null, |it| ValueRef::Text(it.as_bytes()))
}

/// The values of some columns.
pub(super) fn values<'a, const N: usize>(
    row: &'a Row<'_>,
    columns: [usize; N],
) -> Result<impl Iterator<Item = ValueRef<'a>>> {
    let mut values = [ValueRef::Null; N];
    for (value, column) in values.iter_mut().zip(columns) {
        *value = row.get_ref(column)?;
    }
    Ok(values.into_iter())
}

/// # Errors
///
/// The row has a sum in a column, and what was read has another one. Rows of older versions have none.
pub(super) fn check_sum(row: &Row<'_>, column: usize, now: i64) -> Result<()> {
    match row.get::<_, Option<i64>>(column)? {
        Some(kept) if kept != now => Err(broken(column, "it was changed since it was written")),
        _ => Ok(()),
    }
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

/// A rendering that is named by this hash, which is that of its text.
pub(super) fn rendering(row: &Row<'_>, column: usize, hash: Digest) -> Result<Rendering> {
    let text = row.get_ref(column)?.as_bytes().map_err(|err| broken(column, err.to_string()))?;
    if Digest::of(text) != hash {
        return Err(broken(column, "the rendering is not the one that its hash names"));
    }
    json(row, column)
}

/// The columns of [`event`], to be selected in this order.
pub(super) const EVENT: &str = "events.id, events.tenant, events.format, events.attributes, \
     events.data_kind, events.data, events.alternate_ids, events.accepted_at_ms, events.revision, \
     events.sum";

pub(super) const EVENT_COLUMNS: usize = 10;

/// The sum of an event: of what it is, and of its data, which are forgotten first.
pub(super) fn event_sum<'a>(
    head: impl IntoIterator<Item = ValueRef<'a>>,
    data: ValueRef<'a>,
) -> i64 {
    sum(head) << 32 | sum([data])
}

/// An event; none when its data are no longer kept. What is read is checked as what a stranger sends: a disk
/// can turn bits, and JSON that is not JSON would be believed by everybody behind this.
pub(super) fn event(row: &Row<'_>, first: usize) -> Result<Option<Arc<Event>>> {
    let kind: Option<String> = row.get(first + 4)?;
    let data = row.get_ref(first + 5)?;
    if kind.is_some() && data == ValueRef::Null {
        return Ok(None);
    }
    let head = values(row, [0, 1, 2, 3, 4, 6, 7, 8].map(|it| first + it))?;
    check_sum(row, first + 9, event_sum(head, data))?;
    let bytes = row.get::<_, Option<Vec<u8>>>(first + 5)?.unwrap_or_default().into();
    let data = match kind.as_deref() {
        None => None,
        Some("json") => {
            let json = Json::parse_data(bytes).map_err(|err| broken(first + 5, err.to_string()))?;
            Some(Data::Json(json))
        }
        Some("text") => Some(Data::Text(bytes)),
        Some(_) => Some(Data::Binary(bytes)),
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
