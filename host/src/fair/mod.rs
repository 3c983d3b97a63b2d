//! What tenants share without being in each other's way: each has a part of it at most, and whoever waits is
//! served in turn, owner by owner.

use hookyard_nouns::event::Tenant;

mod cache;
mod pool;
mod queue;
mod semaphore;

pub use cache::Cache;
pub use pool::{Batch, Full, Pool};
pub use queue::{FairQueue, Room};
pub use semaphore::{Bounds, Busy, FairSemaphore, Permit};

/// For whom something is done: a tenant, or none for the operator and for the router itself.
pub type Owner = Option<Tenant>;
