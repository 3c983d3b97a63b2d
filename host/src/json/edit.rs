//! Changes one place of a JSON text and leaves every other byte alone.

use std::ops::Range;

use super::scan::{Place, place, skip_space, tokens};
use super::{DEPTH_MAX, check};

/// Why an edit cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The pointer does not follow RFC 6901.
    #[error("`{0}` is not a JSON Pointer: it is empty or begins with `/`")]
    Pointer(String),
    /// The value is not JSON, or would be nested too deep at its place.
    #[error("the value for `{pointer}` is not valid JSON: {why}")]
    Value { pointer: String, why: String },
    /// There is no object or array that could hold the value.
    #[error("`{0}` is not inside an object or an array of the data")]
    NoParent(String),
    /// An array has no such index and it is not the next one.
    #[error("`{0}` is beyond the end of its array")]
    Index(String),
    /// The data as a whole cannot be removed by an edit.
    #[error("the data as a whole cannot be removed")]
    RemoveAll,
}

/// Makes one edit, as [`super::Json::edit`] says.
pub(super) fn edit(
    text: &mut Vec<u8>,
    pointer: &str,
    value: Option<&str>,
) -> Result<(), EditError> {
    let mut tokens =
        tokens(pointer).ok_or_else(|| EditError::Pointer(pointer.to_owned()))?.peekable();
    let mut depth = 0;
    let mut at = 0;
    let mut last = Place::There { entry: 0..text.len(), value: 0..text.len(), comma: None };
    while let Some(token) = tokens.next() {
        depth += 1;
        last = place(text, at, &token);
        match &last {
            Place::There { value, .. } => at = value.start,
            Place::Absent { .. } | Place::Nowhere if value.is_none() => return Ok(()),
            Place::Absent { at, first, object } if tokens.peek().is_none() => {
                let value = checked(pointer, value.unwrap_or_default(), depth)?;
                let comma = if *first { "" } else { "," };
                let new = if *object {
                    format!("{comma}{}:{value}", serde_json::Value::from(&*token))
                } else {
                    format!("{comma}{value}")
                };
                text.splice(*at..*at, new.into_bytes());
                return Ok(());
            }
            Place::Absent { .. } => return Err(EditError::NoParent(pointer.to_owned())),
            Place::Nowhere if text[at] == b'[' => return Err(EditError::Index(pointer.to_owned())),
            Place::Nowhere => return Err(EditError::NoParent(pointer.to_owned())),
        }
    }
    let Place::There { entry, value: old, comma } = last else {
        unreachable!("every other place returned above");
    };
    match value {
        Some(value) => {
            let value = checked(pointer, value, depth)?;
            text.splice(old, value.bytes());
        }
        None if pointer.is_empty() => return Err(EditError::RemoveAll),
        None => {
            text.drain(with_comma(text, entry, comma));
        }
    }
    Ok(())
}

/// An entry goes together with the comma before it; the first one with the comma after it.
fn with_comma(text: &[u8], entry: Range<usize>, comma_before: Option<usize>) -> Range<usize> {
    let after = skip_space(text, entry.end);
    match comma_before {
        Some(comma) => comma..entry.end,
        None if text[after] == b',' => entry.start..skip_space(text, after + 1),
        None => entry,
    }
}

fn checked<'a>(pointer: &str, value: &'a str, depth: usize) -> Result<&'a str, EditError> {
    check(value.as_bytes(), DEPTH_MAX.saturating_sub(depth))
        .map_err(|err| EditError::Value { pointer: pointer.to_owned(), why: err.to_string() })?;
    Ok(value.trim())
}
