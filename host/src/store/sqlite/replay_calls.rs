//! The calls of [`ReplayStore`], most of them a statement or two of `replays`.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Sqlite, replays, search};
use crate::delivery::Delivery;
use crate::event::Tenant;
use crate::store::{Replay, ReplayPage, ReplayQuery, ReplayStore, Result};

#[async_trait]
impl ReplayStore for Sqlite {
    async fn replay_total(&self, tenant: &Tenant, query: &ReplayQuery) -> Result<u64> {
        let (owner, search) = (tenant.clone(), query.search());
        let parts = self.read(move |reader| search::parts(reader, &owner, &search)).await?;
        let mut total = 0;
        for mut part in parts {
            // Nobody else has to wait for more than a part of a long count.
            loop {
                let (owner, search) = (tenant.clone(), part.clone());
                let (count, next) =
                    self.read(move |reader| search::count(reader, &owner, &search)).await?;
                total += count;
                part.after = next;
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(total)
    }

    async fn replay_sample(
        &self,
        tenant: &Tenant,
        query: &ReplayQuery,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        let mut search = query.search();
        let mut sample = Vec::new();
        loop {
            search.limit = limit - sample.len();
            let (owner, part) = (tenant.clone(), search.clone());
            let page = self.read(move |reader| search::deliveries(reader, &owner, &part)).await?;
            sample.extend(page.deliveries);
            search.after = page.next;
            if page.next.is_none() || sample.len() == limit {
                return Ok(sample);
            }
        }
    }

    async fn put_replay(&self, it: Replay) -> Result<()> {
        self.write(move |writing| Ok(replays::put(writing.connection, &it)?)).await
    }

    async fn replay_page(&self, it: &Replay, limit: usize) -> Result<ReplayPage> {
        let it = it.clone();
        self.read(move |reader| replays::page(reader, &it, limit)).await
    }

    async fn replay_these(&self, it: Replay, these: Vec<Uuid>, now_ms: i64) -> Result<Replay> {
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
