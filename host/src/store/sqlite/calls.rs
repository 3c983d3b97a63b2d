//! Each call of the store, handed to a reader or to the writer.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use hookyard_nouns::delivery::{Attempt, Delivery};
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Event, Tenant};
use hookyard_nouns::rendering::Rendering;
use hookyard_nouns::subscription::{SigningSecret, Subscription};
use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::queue::Job;
use super::writer::Writing;
use super::{
    Sqlite, access, closed, counts, deaths, due, events, found, held, inspect, log, not_written,
    retention, search, subscriptions, usage,
};
use crate::fair::Owner;
use crate::marks::Work;
use crate::store::{
    Accepted, Backlog, Claim, Counts, CountsQuery, Death, DeliveryQuery, NewEvent, Page, Pruned,
    Record, Result, Retention, Stats, Store, SubscriptionVersion, Token, Unrouted, UnroutedPage,
    Usage,
};

/// Whose turn a call takes.
pub(super) fn own(tenant: &Tenant) -> Owner {
    Some(tenant.clone())
}

/// How many events go into one job, so that a large batch of one tenant is written in turns.
const ACCEPTED_MAX: usize = 64;

#[async_trait]
impl Store for Sqlite {
    async fn accept(&self, mut events: Vec<NewEvent>) -> Result<Vec<Accepted>> {
        // A batch of the operator's may be of several tenants, and goes as the operator's.
        let first = events.first().map(|it| it.tenant.clone());
        let owner = first.filter(|first| events.iter().all(|it| it.tenant == *first));
        let (mut answers, mut accepted) = (Vec::new(), Vec::with_capacity(events.len()));
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(ACCEPTED_MAX));
            let events = std::mem::replace(&mut events, rest);
            let (reply, answer) = oneshot::channel();
            if !self.jobs.call(&owner, Job::Accept { events, reply }).await {
                return Err(closed());
            }
            answers.push(answer);
        }
        for answer in answers {
            accepted.extend(answer.await.map_err(|_| not_written())??);
        }
        Ok(accepted)
    }

    fn record(&self, records: Vec<Record>) {
        self.jobs.record(records);
    }

    fn has_room(&self, tenant: &Tenant) -> bool {
        self.jobs.has_room(tenant)
    }

    async fn room(&self, tenant: &Tenant) {
        loop {
            let room = self.jobs.room();
            if self.jobs.has_room(tenant) {
                return;
            }
            room.await;
        }
    }

    async fn flush(&self) {
        self.jobs.flush(None).await;
    }

    async fn flush_of(&self, tenant: &Tenant) {
        self.jobs.flush(Some(own(tenant))).await;
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.why()
    }

    fn is_dead(&self) -> bool {
        self.trouble.is_dead()
    }

    async fn unrouted_tenants(&self) -> Result<Vec<(Tenant, u64)>> {
        self.write(&None, |writing| Ok(writing.known.unrouted_tenants())).await
    }

    async fn unrouted(&self, tenant: &Tenant, after: u64, limit: usize) -> Result<UnroutedPage> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        let seqs =
            self.write(&owner, move |it| Ok(it.known.unrouted(&tenant, after, limit))).await?;
        self.read(&owner, move |reader| events::unrouted(reader, &seqs)).await
    }

    async fn count_deaths(&self, works: Vec<Work>, now_ms: i64) -> Result<Vec<Death>> {
        self.write(&None, move |writing| Ok(deaths::count(writing.connection, &works, now_ms)?))
            .await
    }

    async fn forget_deaths(&self, event: Uuid) -> Result<()> {
        self.write(&None, move |writing| Ok(deaths::forget(writing.connection, event)?)).await
    }

    async fn recorded(&self, event: &Event) -> Result<Vec<Uuid>> {
        let id = event.id;
        self.read(&own(&event.tenant), move |reader| log::recorded(reader, id)).await
    }

    async fn release_claims(&self, now_ms: i64) -> Result<()> {
        self.write(&None, move |it| Ok(due::release_claims(it.connection, now_ms)?)).await
    }

    async fn set_back(&self, now_ms: i64, by_ms: i64) -> Result<()> {
        // What waits to be written says times of the clock as it was.
        self.flush().await;
        self.write(&None, move |it| Ok(due::set_back(it.connection, now_ms, by_ms)?)).await
    }

    async fn due(&self) -> Result<Vec<(Tenant, Uuid, i64)>> {
        self.search(&None, due::all).await
    }

    async fn claim(
        &self,
        tenant: &Tenant,
        subscription: Uuid,
        now_ms: i64,
        limit: usize,
        order_wait_ms: Option<i64>,
    ) -> Result<Claim> {
        let claim = move |it: &mut Writing<'_>| {
            Ok(due::claim(it, subscription, now_ms, limit, order_wait_ms)?)
        };
        self.write(&own(tenant), claim).await
    }

    async fn holding(&self) -> Result<Vec<Uuid>> {
        self.search(&None, held::all).await
    }

    async fn release_held(
        &self,
        tenant: &Tenant,
        subscription: Uuid,
        limit: usize,
        now_ms: i64,
    ) -> Result<Option<usize>> {
        let release = move |it: &mut Writing<'_>| {
            Ok(held::release(it.connection, subscription, limit, now_ms)?)
        };
        self.write(&own(tenant), release).await
    }

    async fn backlogs(&self) -> Result<Vec<Backlog>> {
        self.write(&None, |writing| Ok(log::backlogs(writing)?)).await
    }

    async fn next_number(&self, tenant: &Tenant, format: &'static str) -> Result<u64> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.write(&owner, move |it| {
            Ok(subscriptions::next_number(it.connection, &tenant, format)?)
        })
        .await
    }

    async fn create_subscription(
        &self,
        it: Subscription,
        unique: Vec<String>,
    ) -> Result<Subscription> {
        let owner = own(&it.tenant);
        self.write(&owner, move |writing| subscriptions::create(writing, it, &unique)).await
    }

    async fn change_subscription(
        &self,
        it: Subscription,
        unique: Option<Vec<String>>,
        secret: Option<SigningSecret>,
    ) -> Result<Subscription> {
        let owner = own(&it.tenant);
        let change = move |writing: &mut Writing<'_>| {
            subscriptions::change(writing, it, unique.as_deref(), secret)
        };
        self.write(&owner, change).await
    }

    async fn delete_subscription(&self, tenant: &Tenant, id: Uuid) -> Result<()> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.write(&owner, move |writing| subscriptions::delete(writing, &tenant, id)).await
    }

    async fn rotate_secret(
        &self,
        tenant: &Tenant,
        id: Uuid,
        secret: SigningSecret,
        old_until_ms: i64,
        now_ms: i64,
    ) -> Result<Subscription> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.write(&owner, move |it| {
            subscriptions::rotate_secret(it, &tenant, id, &secret, old_until_ms, now_ms)
        })
        .await
    }

    async fn subscription(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Subscription>> {
        let (owner, tenant, key) = (own(tenant), tenant.clone(), Arc::clone(&self.key));
        self.read(&owner, move |reader| found::by_id(reader, &key, &tenant, id)).await
    }

    async fn subscription_by_provider_id(
        &self,
        tenant: &Tenant,
        format: &'static str,
        provider_id: &str,
    ) -> Result<Option<Subscription>> {
        let (owner, tenant, key, id) =
            (own(tenant), tenant.clone(), Arc::clone(&self.key), provider_id.to_owned());
        self.read(&owner, move |it| found::by_provider_id(it, &key, &tenant, format, &id)).await
    }

    async fn subscriptions(
        &self,
        tenant: &Tenant,
        format: Option<&'static str>,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Subscription>> {
        let (owner, tenant, key) = (own(tenant), tenant.clone(), Arc::clone(&self.key));
        self.search(&owner, move |it| found::list(it, &key, &tenant, format, after, limit)).await
    }

    async fn changes(&self, after: u64) -> Result<(u64, Vec<SubscriptionVersion>)> {
        let key = Arc::clone(&self.key);
        self.read(&None, move |reader| found::changes(reader, &key, after)).await
    }

    async fn create_token(&self, token: Token) -> Result<()> {
        let owner = token.tenant.clone();
        self.write(&owner, move |writing| access::create_token(writing, &token)).await
    }

    async fn tokens(&self) -> Result<Vec<Token>> {
        self.search(&None, access::tokens).await
    }

    async fn token(&self, hash: [u8; 32]) -> Result<Option<Token>> {
        self.read(&None, move |reader| access::token(reader, hash)).await
    }

    async fn token_by_id(&self, id: Uuid) -> Result<Option<Token>> {
        self.read(&None, move |reader| access::token_by_id(reader, id)).await
    }

    async fn revoke_token(&self, id: Uuid, now_ms: i64) -> Result<()> {
        self.write(&None, move |writing| access::revoke_token(writing, id, now_ms)).await
    }

    async fn settings(&self, tenant: &Tenant, format: &'static str) -> Result<Option<Value>> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.read(&owner, move |reader| access::settings(reader, &tenant, format)).await
    }

    async fn all_settings(&self) -> Result<Vec<(Tenant, &'static str, Value)>> {
        self.search(&None, access::all_settings).await
    }

    async fn put_settings(
        &self,
        tenant: &Tenant,
        format: &'static str,
        settings: Value,
    ) -> Result<()> {
        let (owner, tenant, text) = (own(tenant), tenant.clone(), settings.to_string());
        self.write(&owner, move |it| access::put_settings(it, &tenant, format, &text)).await
    }

    async fn signing_key(&self, selector: &str) -> Result<Option<Vec<u8>>> {
        let (selector, key) = (selector.to_owned(), Arc::clone(&self.key));
        self.read(&None, move |reader| access::signing_key(reader, &key, &selector)).await
    }

    async fn keep_signing_key(&self, selector: &str, made: Vec<u8>) -> Result<Vec<u8>> {
        let selector = selector.to_owned();
        self.write(&None, move |it| Ok(access::keep_signing_key(it, &selector, &made)?)).await
    }

    async fn usage(&self, tenant: &Tenant) -> Result<Usage> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.read(&owner, move |reader| usage::of(reader, &tenant)).await
    }

    async fn tenant_exists(&self, tenant: &Tenant) -> Result<bool> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.read(&owner, move |reader| access::tenant_exists(reader, &tenant)).await
    }

    async fn put_identities(
        &self,
        tenant: &Tenant,
        profile: &str,
        ids: Vec<(String, String)>,
    ) -> Result<()> {
        let (owner, tenant, profile) = (own(tenant), tenant.clone(), profile.to_owned());
        self.write(&owner, move |writing| access::put_identities(writing, &tenant, &profile, &ids))
            .await
    }

    async fn identities(&self, tenant: &Tenant, profile: &str) -> Result<Vec<(String, String)>> {
        let (owner, tenant, profile) = (own(tenant), tenant.clone(), profile.to_owned());
        self.read(&owner, move |reader| access::identities(reader, &tenant, &profile)).await
    }

    async fn event(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Arc<Event>>> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.search(&owner, move |reader| events::by_id(reader, &tenant, id)).await
    }

    async fn events(&self, tenant: &Tenant, before: u64, limit: usize) -> Result<Vec<Unrouted>> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.search(&owner, move |reader| events::newest(reader, &tenant, before, limit)).await
    }

    async fn rendering(&self, tenant: &Tenant, hash: Digest) -> Result<Option<Rendering>> {
        self.read(&own(tenant), move |reader| log::rendering(reader, hash)).await
    }

    async fn deliveries(&self, tenant: &Tenant, query: DeliveryQuery) -> Result<Page> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.search(&owner, move |reader| search::deliveries(reader, &tenant, &query)).await
    }

    async fn purge(&self, tenant: &Tenant, ids: Vec<Uuid>) -> Result<u64> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.write(&owner, move |it| {
            Ok(retention::purge(it.connection, &tenant, &ids, it.known.routed_upto_of(&tenant))?)
        })
        .await
    }

    async fn delivery(
        &self,
        tenant: &Tenant,
        id: Uuid,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.search(&owner, move |reader| log::delivery(reader, &tenant, id)).await
    }

    async fn counts(&self, tenant: &Tenant, query: CountsQuery) -> Result<Vec<(i64, Counts)>> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.search(&owner, move |reader| counts::read(reader, &tenant, &query)).await
    }

    async fn failing(&self) -> Result<Vec<(Uuid, i64, u8)>> {
        self.search(&None, log::failing).await
    }

    async fn prune(&self, now_ms: i64, retention: Retention) -> Result<Pruned> {
        self.write(&None, move |it| Ok(retention::prune(it, now_ms, retention)?)).await
    }

    async fn stats(&self) -> Result<Stats> {
        self.search(&None, inspect::stats).await
    }

    async fn check(&self) -> Result<Vec<String>> {
        self.search(&None, inspect::check).await
    }

    async fn close(&self) {
        self.jobs.close().await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
