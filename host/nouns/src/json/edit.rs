//! Changes one place of a JSON text and leaves every other byte alone.

use std::ops::Range;

use super::scan::{Place, find, place, skip_space, tokens};
use super::{DEPTH_MAX, check_data};

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
    let no_pointer = || EditError::Pointer(pointer.to_owned());
    let mut tokens = tokens(pointer).ok_or_else(no_pointer)?.peekable();
    let mut depth = 0;
    let mut container = 0;
    while let Some(token) = tokens.next() {
        depth += 1;
        if tokens.peek().is_none() {
            return edit_in(text, container, &token, value, (pointer, depth));
        }
        match find(text, container, &token) {
            Some(at) => container = at,
            None if value.is_none() => return Ok(()),
            None => return Err(EditError::NoParent(pointer.to_owned())),
        }
    }
    let value = checked((pointer, depth), value.ok_or(EditError::RemoveAll)?)?;
    text.splice(.., value.bytes());
    Ok(())
}

/// The end of the way: `token` names what is edited in the container.
fn edit_in(
    text: &mut Vec<u8>,
    container: usize,
    token: &str,
    value: Option<&str>,
    at: (&str, usize),
) -> Result<(), EditError> {
    match (place(text, container, token), value) {
        (Place::There { value: old, .. }, Some(value)) => {
            text.splice(old, checked(at, value)?.bytes());
        }
        (Place::There { entry, comma, .. }, None) => {
            text.drain(with_comma(text, entry, comma));
        }
        (Place::Absent { .. } | Place::Nowhere, None) => {}
        (Place::Absent { at: end, first, object }, Some(value)) => {
            let value = checked(at, value)?;
            let comma = if first { "" } else { "," };
            let new = if object {
                format!("{comma}{}:{value}", serde_json::Value::from(token))
            } else {
                format!("{comma}{value}")
            };
            text.splice(end..end, new.into_bytes());
        }
        (Place::Nowhere, Some(_)) if text[container] == b'[' => {
            return Err(EditError::Index(at.0.to_owned()));
        }
        (Place::Nowhere, Some(_)) => return Err(EditError::NoParent(at.0.to_owned())),
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

/// A value that is to stand so deep.
fn checked<'a>((pointer, depth): (&str, usize), value: &'a str) -> Result<&'a str, EditError> {
    check_data(value, DEPTH_MAX.saturating_sub(depth))
        .map_err(|err| EditError::Value { pointer: pointer.to_owned(), why: err.to_string() })?;
    Ok(value.trim())
}
