//! Deliveries that are made again.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Result;
use crate::delivery::{Delivery, DeliveryState};
use crate::event::Tenant;

/// Which deliveries are made again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<Uuid>,
    /// Settled ones alone: the others are made anyway.
    pub states: Vec<DeliveryState>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Of events that were accepted at or after this time, and before that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayState {
    Running,
    Done,
    Cancelled,
}

/// A replay and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub id: Uuid,
    pub tenant: Tenant,
    pub query: ReplayQuery,
    /// Whether bodies are made as the subscription would have them now.
    pub present: bool,
    pub per_minute: Option<u32>,
    /// The number of the delivery that was looked at last.
    pub cursor: u64,
    /// The number of the last delivery that there was when it began.
    pub upto: u64,
    /// How many deliveries it is about.
    pub total: u64,
    pub replayed: u64,
    /// The data of their events are no longer kept.
    pub skipped: u64,
    pub state: ReplayState,
    pub created_at_ms: i64,
    pub ended_at_ms: Option<i64>,
}

/// A delivery that a replay comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayable {
    pub seq: u64,
    pub subscription: Uuid,
    /// Whether the data of its event are kept.
    pub has_data: bool,
}

/// What an engine does for replays.
#[async_trait]
pub trait ReplayStore: Send + Sync {
    /// How many deliveries a query finds, and the number of the last delivery that there is.
    async fn replay_total(&self, tenant: &Tenant, query: ReplayQuery) -> Result<(u64, u64)>;

    /// The newest deliveries that a query finds.
    async fn replay_sample(
        &self,
        tenant: &Tenant,
        query: ReplayQuery,
        limit: usize,
    ) -> Result<Vec<Delivery>>;

    async fn put_replay(&self, it: Replay) -> Result<()>;

    /// The next deliveries of a replay, oldest first.
    async fn replay_page(&self, it: &Replay, limit: usize) -> Result<Vec<Replayable>>;

    /// Makes these deliveries due, and keeps how far the replay has come, unless it was cancelled.
    /// Answers what is kept.
    async fn replay_these(&self, it: Replay, these: Vec<u64>, now_ms: i64) -> Result<Replay>;

    async fn replay(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Replay>>;

    /// A tenant's replays, newest first, before one.
    async fn replays(
        &self,
        tenant: &Tenant,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Replay>>;

    async fn running_replays(&self) -> Result<Vec<Replay>>;

    /// Ends a replay before its time; one that has ended stays as it is.
    ///
    /// # Errors
    ///
    /// [`super::StoreError::NotFound`] when there is none.
    async fn cancel_replay(&self, tenant: &Tenant, id: Uuid, now_ms: i64) -> Result<Replay>;
}
