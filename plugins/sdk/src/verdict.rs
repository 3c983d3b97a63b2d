//! Short ways to say a verdict.

use serde::Serialize;

use crate::{Decision, Edit, NewData, Output, Reason, Result, Verdict};

impl Decision {
    /// Accepts the event when `condition` holds; rejects it under `code` when it does not.
    pub fn accept_if(condition: bool, code: &str) -> Decision {
        if condition { Decision::Accept } else { Decision::Reject(Some(Reason::code(code))) }
    }
}

impl Reason {
    /// A reason that its code says all about.
    pub fn code(code: &str) -> Reason {
        Reason { code: code.to_owned(), detail: None }
    }
}

impl Verdict {
    /// The subscription does not get the event: a decision, shown under `code`.
    pub fn drop(code: &str) -> Verdict {
        Verdict::Drop(Some(Reason::code(code)))
    }
}

impl From<Output> for Verdict {
    fn from(output: Output) -> Verdict {
        Verdict::Replace(output)
    }
}

impl Default for Output {
    fn default() -> Output {
        Output::new()
    }
}

/// Edits keep every byte that they do not touch. [`Output::json`], [`Output::text`] and
/// [`Output::bytes`] replace the whole data instead; of the two kinds, the last one called counts.
impl Output {
    /// Changes nothing yet.
    pub fn new() -> Output {
        Output { set: Vec::new(), unset: Vec::new(), data: NewData::Same }
    }

    /// Sets a CloudEvents attribute.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Output {
        self.set.push((name.to_owned(), value.into()));
        self
    }

    /// Takes an optional CloudEvents attribute away.
    #[must_use]
    pub fn unset(mut self, name: &str) -> Output {
        self.unset.push(name.to_owned());
        self
    }

    /// Puts a value at a JSON Pointer: in place of the one that is there, or as a new member of an
    /// object, or (at index `-`) as a new item at the end of an array.
    ///
    /// # Errors
    ///
    /// The value cannot be JSON.
    pub fn put(self, pointer: &str, value: &impl Serialize) -> Result<Output> {
        let json = serde_json::to_string(value)?;
        Ok(self.edit(pointer, Some(json)))
    }

    /// Removes the value at a JSON Pointer. Nothing happens where there is none.
    #[must_use]
    pub fn remove(self, pointer: &str) -> Output {
        self.edit(pointer, None)
    }

    /// The data become this JSON document.
    ///
    /// # Errors
    ///
    /// The value cannot be JSON.
    pub fn json(mut self, value: &impl Serialize) -> Result<Output> {
        self.data = NewData::Text(serde_json::to_string(value)?);
        Ok(self)
    }

    /// The data become this text. Set `datacontenttype` as well where it is not JSON.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Output {
        self.data = NewData::Text(text.into());
        self
    }

    /// The data become these bytes. Set `datacontenttype` as well where they are not JSON.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Output {
        self.data = NewData::Bytes(bytes.into());
        self
    }

    fn edit(mut self, pointer: &str, value: Option<String>) -> Output {
        let edit = Edit { pointer: pointer.to_owned(), value };
        match &mut self.data {
            NewData::Edits(edits) => edits.push(edit),
            NewData::Same | NewData::Bytes(_) | NewData::Text(_) => {
                self.data = NewData::Edits(vec![edit]);
            }
        }
        self
    }
}
