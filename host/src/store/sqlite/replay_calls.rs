//! The calls of [`ReplayStore`], each of them a statement or two of `replays`.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Sqlite, replays};
use crate::delivery::Delivery;
use crate::event::Tenant;
use crate::store::{Replay, ReplayQuery, ReplayStore, Replayable, Result};

#[async_trait]
impl ReplayStore for Sqlite {
    async fn replay_total(&self, tenant: &Tenant, query: ReplayQuery) -> Result<(u64, u64)> {
        let tenant = tenant.clone();
        self.read(move |reader| replays::total(reader, &tenant, &query)).await
    }

    async fn replay_sample(
        &self,
        tenant: &Tenant,
        query: ReplayQuery,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        let tenant = tenant.clone();
        self.read(move |reader| replays::sample(reader, &tenant, &query, limit)).await
    }

    async fn put_replay(&self, it: Replay) -> Result<()> {
        self.write(move |writing| Ok(replays::put(writing.connection, &it)?)).await
    }

    async fn replay_page(&self, it: &Replay, limit: usize) -> Result<Vec<Replayable>> {
        let it = it.clone();
        self.read(move |reader| replays::page(reader, &it, limit)).await
    }

    async fn replay_these(&self, it: Replay, these: Vec<u64>, now_ms: i64) -> Result<Replay> {
        self.write(move |writing| replays::replay_these(writing.connection, &it, &these, now_ms))
            .await
    }

    async fn replay(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Replay>> {
        let tenant = tenant.clone();
        self.read(move |reader| replays::by_id(reader, &tenant, id)).await
    }

    async fn replays(
        &self,
        tenant: &Tenant,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Replay>> {
        let tenant = tenant.clone();
        self.read(move |reader| replays::list(reader, &tenant, before, limit)).await
    }

    async fn running_replays(&self) -> Result<Vec<Replay>> {
        self.read(replays::running).await
    }

    async fn cancel_replay(&self, tenant: &Tenant, id: Uuid, now_ms: i64) -> Result<Replay> {
        let tenant = tenant.clone();
        self.write(move |writing| replays::cancel(writing.connection, &tenant, id, now_ms)).await
    }
}
