//! What all of Hookyard speaks of: events, subscriptions, renderings, deliveries, and the values that they are made of.
//!
//! Nothing here reads or writes a file or a socket, and nothing waits. Whatever decides by one of these alone is here;
//! what needs the store, the network or a plugin is in a crate above.

pub mod clock;
pub mod cloudevent;
pub mod delivery;
pub mod digest;
pub mod endpoint;
pub mod event;
pub mod json;
pub mod plugin;
pub mod refusal;
pub mod rendering;
pub mod subscription;
