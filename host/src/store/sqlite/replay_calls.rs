//! The calls of [`ReplayStore`], most of them a statement or two of `replays`.

use async_trait::async_trait;
use hookyard_nouns::delivery::Delivery;
use hookyard_nouns::event::Tenant;
use rusqlite::Connection;
use uuid::Uuid;

use super::calls::own;
use super::writer::Writing;
use super::{Sqlite, replays, search};
use crate::store::{Replay, ReplayPage, ReplayQuery, ReplayStore, Result};

#[async_trait]
impl ReplayStore for Sqlite {
    async fn replay_total(&self, tenant: &Tenant, query: &ReplayQuery) -> Result<u64> {
        let (owner, search) = (tenant.clone(), query.search());
        let parts = self.search(&own(tenant), move |it| search::parts(it, &owner, &search)).await?;
        let mut total = 0;
        for mut part in parts {
            // Nobody else has to wait for more than a part of a long count.
            loop {
                let (owner, search) = (tenant.clone(), part.clone());
                let count = move |it: &Connection| search::count(it, &owner, &search);
                let (count, next) = self.search(&own(tenant), count).await?;
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
            let look = move |it: &Connection| search::deliveries(it, &owner, &part);
            let page = self.search(&own(tenant), look).await?;
            sample.extend(page.deliveries);
            search.after = page.next;
            if page.next.is_none() || sample.len() == limit {
                return Ok(sample);
            }
        }
    }

    async fn put_replay(&self, it: Replay) -> Result<()> {
        self.write(&own(&it.tenant.clone()), move |writing| replays::begin(writing, &it)).await
    }

    async fn replay_page(&self, it: &Replay, limit: usize) -> Result<ReplayPage> {
        let (owner, it) = (own(&it.tenant), it.clone());
        self.search(&owner, move |reader| replays::page(reader, &it, limit)).await
    }

    async fn replay_these(&self, it: Replay, these: Vec<Uuid>, now_ms: i64) -> Result<Replay> {
        let owner = own(&it.tenant);
        let replay = move |writing: &mut Writing<'_>| {
            replays::replay_these(writing.connection, &it, &these, now_ms)
        };
        self.write(&owner, replay).await
    }

    async fn replay(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Replay>> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.read(&owner, move |reader| replays::by_id(reader, &tenant, id)).await
    }

    async fn replays(
        &self,
        tenant: &Tenant,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Replay>> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.search(&owner, move |reader| replays::list(reader, &tenant, before, limit)).await
    }

    async fn running_replays(&self) -> Result<Vec<Replay>> {
        self.read(&None, replays::running).await
    }

    async fn cancel_replay(&self, tenant: &Tenant, id: Uuid, now_ms: i64) -> Result<Replay> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.write(&owner, move |it| replays::cancel(it.connection, &tenant, id, now_ms)).await
    }
}
