//! Deliveries that are made again.

use async_trait::async_trait;
use hookyard_nouns::delivery::{Delivery, DeliveryState};
use hookyard_nouns::event::Tenant;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DeliveryQuery, Place, Result};

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

impl ReplayQuery {
    /// The same, as a search of the log.
    pub fn search(&self) -> DeliveryQuery {
        DeliveryQuery {
            delivery: self.delivery,
            subscriptions: self.subscription.map(|it| vec![it]),
            states: self.states.clone(),
            event_type: self.event_type.clone(),
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            ..DeliveryQuery::default()
        }
    }
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
    /// Where it has come to.
    pub place: Option<Place>,
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
    pub id: Uuid,
    pub subscription: Uuid,
    /// Whether the data of its event are kept.
    pub has_data: bool,
}

/// Some of the deliveries that a replay comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayPage {
    pub deliveries: Vec<Replayable>,
    /// Where to go on, unless that was the last of them. So many are looked at only that even an empty page
    /// may have it.
    pub next: Option<Place>,
}

/// What an engine does for replays.
#[async_trait]
pub trait ReplayStore: Send + Sync {
    /// How many deliveries a query finds.
    async fn replay_total(&self, tenant: &Tenant, query: &ReplayQuery) -> Result<u64>;

    /// The newest deliveries that a query finds.
    async fn replay_sample(
        &self,
        tenant: &Tenant,
        query: &ReplayQuery,
        limit: usize,
    ) -> Result<Vec<Delivery>>;

    async fn put_replay(&self, it: Replay) -> Result<()>;

    /// The next deliveries of a replay, oldest first, of events that were accepted before it began.
    async fn replay_page(&self, it: &Replay, limit: usize) -> Result<ReplayPage>;

    /// Makes these deliveries due, and keeps how far the replay has come, unless it was cancelled.
    /// Answers what is kept.
    async fn replay_these(&self, it: Replay, these: Vec<Uuid>, now_ms: i64) -> Result<Replay>;

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
