//! Each call of the store, handed to a reader or to the writer.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::writer::Job;
use super::{
    Sqlite, access, counts, events, held, inspect, log, not_written, retention, search,
    subscriptions,
};
use crate::delivery::{Attempt, Delivery};
use crate::event::{Event, Tenant};
use crate::plugin::Digest;
use crate::render::Rendering;
use crate::store::{
    Accepted, Backlog, Claim, Counts, CountsQuery, DeliveryQuery, NewEvent, Page, Pruned, Record,
    Result, Retention, Stats, Store, SubscriptionVersion, Token, Unrouted,
};
use crate::subscription::{SigningSecret, Subscription};

#[async_trait]
impl Store for Sqlite {
    async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Accept { events, reply }).await?;
        answer.await.map_err(|_| not_written())?
    }

    async fn record(&self, records: Vec<Record>) {
        // A closed store has been asked to forget; the deliveries are due again at the next start.
        let _ = self.send(Job::Record(records)).await;
    }

    async fn flush(&self) {
        let (reply, answer) = oneshot::channel();
        if self.send(Job::Flush(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    async fn unrouted_tenants(&self) -> Result<Vec<(Tenant, u64)>> {
        self.write(|writing| Ok(writing.known.unrouted_tenants())).await
    }

    async fn unrouted(&self, tenant: &Tenant, after: u64, limit: usize) -> Result<Vec<Unrouted>> {
        let tenant = tenant.clone();
        let seqs = {
            let tenant = tenant.clone();
            self.write(move |writing| Ok(writing.known.unrouted(&tenant, after, limit))).await?
        };
        self.read(move |reader| events::unrouted(reader, &seqs)).await
    }

    async fn recorded(&self, event: &Event) -> Result<Vec<Uuid>> {
        let id = event.id;
        self.read(move |reader| log::recorded(reader, id)).await
    }

    async fn release_claims(&self, now_ms: i64) -> Result<()> {
        self.write(move |writing| Ok(log::release_claims(writing.connection, now_ms)?)).await
    }

    async fn set_back(&self, now_ms: i64, by_ms: i64) -> Result<()> {
        self.write(move |writing| Ok(log::set_back(writing.connection, now_ms, by_ms)?)).await
    }

    async fn due(&self) -> Result<Vec<(Uuid, i64)>> {
        self.read(log::due).await
    }

    async fn claim(
        &self,
        subscription: Uuid,
        now_ms: i64,
        limit: usize,
        order_wait_ms: Option<i64>,
    ) -> Result<Claim> {
        self.write(move |it| Ok(log::claim(it, subscription, now_ms, limit, order_wait_ms)?)).await
    }

    async fn holding(&self) -> Result<Vec<Uuid>> {
        self.read(held::all).await
    }

    async fn release_held(
        &self,
        subscription: Uuid,
        limit: usize,
        now_ms: i64,
    ) -> Result<Option<usize>> {
        self.write(move |it| Ok(held::release(it.connection, subscription, limit, now_ms)?)).await
    }

    async fn backlogs(&self) -> Result<Vec<Backlog>> {
        self.write(|writing| Ok(log::backlogs(writing)?)).await
    }

    async fn next_number(&self, tenant: &Tenant, format: &'static str) -> Result<u64> {
        let tenant = tenant.clone();
        self.write(move |it| Ok(subscriptions::next_number(it.connection, &tenant, format)?)).await
    }

    async fn create_subscription(
        &self,
        it: Subscription,
        unique: Vec<String>,
    ) -> Result<Subscription> {
        self.write(move |writing| subscriptions::create(writing, it, &unique)).await
    }

    async fn change_subscription(
        &self,
        it: Subscription,
        unique: Option<Vec<String>>,
        secret: Option<SigningSecret>,
    ) -> Result<Subscription> {
        self.write(move |writing| subscriptions::change(writing, it, unique.as_deref(), secret))
            .await
    }

    async fn delete_subscription(&self, tenant: &Tenant, id: Uuid) -> Result<Subscription> {
        let tenant = tenant.clone();
        self.write(move |writing| subscriptions::delete(writing, &tenant, id)).await
    }

    async fn rotate_secret(
        &self,
        tenant: &Tenant,
        id: Uuid,
        secret: SigningSecret,
        old_until_ms: i64,
        now_ms: i64,
    ) -> Result<Subscription> {
        let tenant = tenant.clone();
        self.write(move |it| {
            subscriptions::rotate_secret(it, &tenant, id, &secret, old_until_ms, now_ms)
        })
        .await
    }

    async fn subscription(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Subscription>> {
        let (tenant, key) = (tenant.clone(), Arc::clone(&self.key));
        self.read(move |reader| subscriptions::by_id(reader, &key, &tenant, id)).await
    }

    async fn subscription_by_provider_id(
        &self,
        tenant: &Tenant,
        format: &'static str,
        provider_id: &str,
    ) -> Result<Option<Subscription>> {
        let (tenant, key, id) = (tenant.clone(), Arc::clone(&self.key), provider_id.to_owned());
        self.read(move |it| subscriptions::by_provider_id(it, &key, &tenant, format, &id)).await
    }

    async fn subscriptions(
        &self,
        tenant: &Tenant,
        format: Option<&'static str>,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Subscription>> {
        let (tenant, key) = (tenant.clone(), Arc::clone(&self.key));
        self.read(move |it| subscriptions::list(it, &key, &tenant, format, after, limit)).await
    }

    async fn changes(&self, after: u64) -> Result<(u64, Vec<SubscriptionVersion>)> {
        let key = Arc::clone(&self.key);
        self.read(move |reader| subscriptions::changes(reader, &key, after)).await
    }

    async fn create_token(&self, token: Token) -> Result<()> {
        self.write(move |writing| Ok(access::create_token(writing.connection, &token)?)).await
    }

    async fn tokens(&self) -> Result<Vec<Token>> {
        self.read(access::tokens).await
    }

    async fn token(&self, hash: [u8; 32]) -> Result<Option<Token>> {
        self.read(move |reader| access::token(reader, hash)).await
    }

    async fn token_by_id(&self, id: Uuid) -> Result<Option<Token>> {
        self.read(move |reader| access::token_by_id(reader, id)).await
    }

    async fn revoke_token(&self, id: Uuid, now_ms: i64) -> Result<()> {
        self.write(move |writing| access::revoke_token(writing, id, now_ms)).await
    }

    async fn settings(&self, tenant: &Tenant, format: &'static str) -> Result<Option<Value>> {
        let tenant = tenant.clone();
        self.read(move |reader| access::settings(reader, &tenant, format)).await
    }

    async fn all_settings(&self) -> Result<Vec<(Tenant, &'static str, Value)>> {
        self.read(access::all_settings).await
    }

    async fn put_settings(
        &self,
        tenant: &Tenant,
        format: &'static str,
        settings: Value,
    ) -> Result<()> {
        let (tenant, text) = (tenant.clone(), settings.to_string());
        self.write(move |it| Ok(access::put_settings(it.connection, &tenant, format, &text)?)).await
    }

    async fn signing_key(&self, selector: &str) -> Result<Option<Vec<u8>>> {
        let (selector, key) = (selector.to_owned(), Arc::clone(&self.key));
        self.read(move |reader| access::signing_key(reader, &key, &selector)).await
    }

    async fn keep_signing_key(&self, selector: &str, made: Vec<u8>) -> Result<Vec<u8>> {
        let selector = selector.to_owned();
        self.write(move |writing| Ok(access::keep_signing_key(writing, &selector, &made)?)).await
    }

    async fn tenant_exists(&self, tenant: &Tenant) -> Result<bool> {
        let tenant = tenant.clone();
        self.read(move |reader| access::tenant_exists(reader, &tenant)).await
    }

    async fn put_identities(
        &self,
        tenant: &Tenant,
        profile: &str,
        ids: Vec<(String, String)>,
    ) -> Result<()> {
        let (tenant, profile) = (tenant.clone(), profile.to_owned());
        self.write(move |writing| Ok(access::put_identities(writing, &tenant, &profile, &ids)?))
            .await
    }

    async fn identities(&self, tenant: &Tenant, profile: &str) -> Result<Vec<(String, String)>> {
        let (tenant, profile) = (tenant.clone(), profile.to_owned());
        self.read(move |reader| access::identities(reader, &tenant, &profile)).await
    }

    async fn event(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Arc<Event>>> {
        let tenant = tenant.clone();
        self.read(move |reader| events::by_id(reader, &tenant, id)).await
    }

    async fn events(&self, tenant: &Tenant, before: u64, limit: usize) -> Result<Vec<Unrouted>> {
        let tenant = tenant.clone();
        self.read(move |reader| events::newest(reader, &tenant, before, limit)).await
    }

    async fn rendering(&self, hash: Digest) -> Result<Option<Rendering>> {
        self.read(move |reader| log::rendering(reader, hash)).await
    }

    async fn deliveries(&self, tenant: &Tenant, query: DeliveryQuery) -> Result<Page> {
        let tenant = tenant.clone();
        self.read(move |reader| search::deliveries(reader, &tenant, &query)).await
    }

    async fn purge(&self, tenant: &Tenant, ids: Vec<Uuid>) -> Result<u64> {
        let tenant = tenant.clone();
        self.write(move |it| {
            Ok(retention::purge(it.connection, &tenant, &ids, it.known.routed_upto_of(&tenant))?)
        })
        .await
    }

    async fn delivery(
        &self,
        tenant: &Tenant,
        id: Uuid,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>> {
        let tenant = tenant.clone();
        self.read(move |reader| search::delivery(reader, &tenant, id)).await
    }

    async fn counts(&self, tenant: &Tenant, query: CountsQuery) -> Result<Vec<(i64, Counts)>> {
        let tenant = tenant.clone();
        self.read(move |reader| counts::read(reader, &tenant, &query)).await
    }

    async fn failing(&self) -> Result<Vec<(Uuid, i64, u8)>> {
        self.read(log::failing).await
    }

    async fn prune(&self, now_ms: i64, retention: Retention) -> Result<Pruned> {
        self.write(move |writing| Ok(retention::prune(writing, now_ms, retention)?)).await
    }

    async fn stats(&self) -> Result<Stats> {
        self.read(inspect::stats).await
    }

    async fn check(&self) -> Result<Vec<String>> {
        self.read(inspect::check).await
    }

    async fn close(&self) {
        self.flush().await;
        let (reply, answer) = oneshot::channel();
        if self.send(Job::Close(reply)).await.is_ok() {
            let _ = answer.await;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
