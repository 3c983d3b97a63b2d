//! A router, an endpoint, and plugins, as tests need them.

pub(crate) mod client;
pub(crate) mod endpoint;
pub(crate) mod moody;
pub(crate) mod names;
pub(crate) mod peers;
pub(crate) mod plugins;
pub(crate) mod process;
pub(crate) mod yard;

pub(crate) use client::Client;
pub(crate) use endpoint::{Endpoint, Receipt};
pub(crate) use moody::{Heard, Mood, Moody};
pub(crate) use yard::Yard;

use std::time::Duration;

/// How long a test waits for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The root of the project.
pub(crate) fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
