//! Write Hookyard plugins in Rust.
//!
//! A plugin is a type: its fields are its configuration (the JSON Schema that subscribers are checked
//! against is derived from them), and its [`Filter`] or [`Transform`] says what happens to an event.
//!
//! ```
//! use hookyard_plugin::prelude::*;
//!
//! /// Lets an order through when it is worth the trouble.
//! #[derive(Deserialize, JsonSchema)]
//! struct AtLeast {
//!     /// The smallest amount that is delivered.
//!     amount: f64,
//! }
//!
//! impl Filter for AtLeast {
//!     fn filter(&self, event: &Event, _: &Context) -> Result<Decision> {
//!         let amount: Option<f64> = event.get("/amount")?;
//!         Ok(Decision::accept_if(amount >= Some(self.amount), "too-small"))
//!     }
//! }
//!
//! export!(AtLeast: filter);
//! ```
//!
//! The crate of a plugin is a `cdylib` that depends on `hookyard-plugin` and on `serde` (whose derive
//! macros want to be named), and is built for `wasm32-unknown-unknown`.
//!
//! Every run has a fresh instance and no clock, no random numbers, no files and no network: what comes
//! out depends on the event, the configuration and the code alone. An error makes the verdict `fail`;
//! a panic is logged with its place. Off wasm32 the same code runs on a stand-in for the router, so
//! `cargo test` needs nothing else: see [`stand_in`].

#[cfg(target_arch = "wasm32")]
mod allocator;
#[doc(hidden)]
pub mod bindings;
mod event;
#[doc(hidden)]
pub mod exports;
#[cfg(not(target_arch = "wasm32"))]
pub mod stand_in;
mod verdict;

use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub use bindings::hookyard::plugin::log::Level;
pub use bindings::hookyard::plugin::types::{
    Attributes, CallContext as Context, Decision, Edit, NewData, Output, Reason, Verdict,
};
pub use event::Event;
#[doc(hidden)]
pub use {schemars, serde_json};

/// Everything that a plugin's source needs, `Deserialize` and `JsonSchema` included.
pub mod prelude {
    pub use schemars::{self, JsonSchema};
    pub use serde::{Deserialize, Serialize};

    pub use crate::{
        Context, Decision, Error, Event, Filter, Level, Output, Reason, Result, Transform, Verdict,
        export, log,
    };
}

/// What a filter or a transform answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Decides whether a subscription gets an event. Budget: 5 ms.
pub trait Filter: DeserializeOwned + JsonSchema {
    /// # Errors
    ///
    /// A filter has no verdict for an event that it cannot handle: the run is stopped, the error is
    /// logged, and the delivery fails visibly.
    fn filter(&self, event: &Event, context: &Context) -> Result<Decision>;
}

/// Changes what a subscription gets. Budget: 20 ms.
pub trait Transform: DeserializeOwned + JsonSchema {
    /// # Errors
    ///
    /// An error becomes the verdict `fail`: the delivery is shown as failed, with the error's code.
    fn transform(&self, event: &Event, context: &Context) -> Result<Verdict>;
}

/// Why an event cannot be handled. Any `std` error becomes one with `?`, under the code `error`.
#[derive(Debug)]
pub struct Error(Reason);

impl Error {
    /// `code` is short and stable, since people search by it; `detail` is for reading.
    pub fn new(code: impl Into<String>, detail: impl fmt::Display) -> Error {
        Error(Reason { code: code.into(), detail: Some(detail.to_string()) })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.detail {
            Some(detail) => write!(f, "{}: {detail}", self.0.code),
            None => write!(f, "{}", self.0.code),
        }
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(err: E) -> Error {
        Error::new("error", err)
    }
}

impl From<Error> for Reason {
    fn from(err: Error) -> Reason {
        err.0
    }
}

/// Writes a line to the plugin's log, which its owner can read. 20 lines and 4 KiB of them a run are kept.
pub fn log(level: Level, message: impl fmt::Display) {
    event::host::log(level, &message.to_string());
}
