//! The event that a run is about, read piece by piece.

use serde::de::DeserializeOwned;

use crate::{Attributes, Error, Result};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::stand_in::host;

/// The router's side of the contract.
#[cfg(target_arch = "wasm32")]
pub(crate) mod host {
    pub(crate) use crate::bindings::hookyard::plugin::event::*;
    pub(crate) use crate::bindings::hookyard::plugin::log::log;
}

/// The event that this run is about. It stays in the router: each method asks for one piece of it,
/// so a plugin pays for what it reads and for nothing else.
pub struct Event(());

impl Event {
    /// The only event that there is during a run. For [`crate::export!`] and the stand-in.
    #[doc(hidden)]
    pub fn current() -> Event {
        Event(())
    }

    /// The value at a JSON Pointer (RFC 6901) into the data; none where there is none, or where it is `null`.
    ///
    /// # Errors
    ///
    /// The code is `unexpected-value` when the value is there and is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, pointer: &str) -> Result<Option<T>> {
        self.raw(pointer).map_or(Ok(None), |json| parse(pointer, &json))
    }

    /// The raw JSON text of the value at a pointer.
    pub fn raw(&self, pointer: &str) -> Option<Vec<u8>> {
        host::get(pointer)
    }

    /// The raw JSON texts at several pointers, for the price of one call.
    pub fn raw_many(&self, pointers: &[String]) -> Vec<Option<Vec<u8>>> {
        host::get_many(pointers)
    }

    /// The whole data as a `T`. Prefer [`Event::get`]: it does not parse what is not needed.
    ///
    /// # Errors
    ///
    /// The code is `unexpected-value` when the data are not JSON that fits `T`.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T> {
        parse("", &host::data())
    }

    /// The whole data as it came.
    pub fn bytes(&self) -> Vec<u8> {
        host::data()
    }

    /// The whole data as text; none where it is not UTF-8.
    pub fn text(&self) -> Option<String> {
        host::text()
    }

    /// The length of the data in bytes.
    pub fn size(&self) -> usize {
        host::size() as usize
    }

    /// All the CloudEvents attributes.
    pub fn attributes(&self) -> Attributes {
        host::all_attributes()
    }

    /// One CloudEvents attribute by its name, extensions included.
    pub fn attribute(&self, name: &str) -> Option<String> {
        host::attribute(name)
    }

    /// The alternate id of a kind of the profile that the event is about.
    pub fn alternate_id(&self, kind: &str) -> Option<String> {
        host::alternate_id(kind)
    }
}

fn parse<T: DeserializeOwned>(pointer: &str, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|err| {
        Error::new("unexpected-value", format_args!("at `{pointer}` of the event's data: {err}"))
    })
}
