//! What is kept, and the trait that each engine implements.
//!
//! Two kinds of writes. Those that somebody waits for (an accepted event, a changed subscription)
//! answer after their commit. Records of deliveries are handed over and committed soon: nothing on the way
//! of an event waits for them. What is asked for one tenant is done in the order in which it was asked; between
//! tenants the writer takes turns.

#[cfg(test)]
mod contract;
mod log;
mod plugins;
mod replays;
mod sqlite;
mod usage;

use std::sync::Arc;

use async_trait::async_trait;
use hookyard_nouns::delivery::{Attempt, Delivery};
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Content, Event, Tenant};
use hookyard_nouns::rendering::Rendering;
use hookyard_nouns::subscription::{SigningSecret, Subscription};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::marks::Work;

pub use log::{Backlog, Claim, Counts, CountsQuery, DeliveryQuery, Due, Page, Place};
pub use plugins::{LogEntry, LogQuery, PluginStore, Quarantine};
pub use replays::{Replay, ReplayPage, ReplayQuery, ReplayState, ReplayStore, Replayable};
pub use sqlite::{Sharing, Sqlite};
pub use usage::Usage;

/// Why something was not read or written. Texts are for the operator; callers answer by the kind.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine cannot write or read now; nothing of the request was done.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Another subscription has this, and no two may have it.
    #[error("`{0}` is taken")]
    Conflict(String),
    /// It was changed between reading and writing.
    #[error("it was changed by somebody else at the same time")]
    Changed,
    #[error("there is no such thing")]
    NotFound,
    /// A tenant would have more than it may: in a sentence, with the number and the setting.
    #[error("{0}")]
    Quota(String),
    /// A row is not what was written: nothing is made of it.
    #[error("a row of the store is broken: {0}")]
    Broken(String),
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// An event that has been checked and is to be accepted.
#[derive(Debug)]
pub struct NewEvent {
    pub id: Uuid,
    pub tenant: Tenant,
    pub format: &'static str,
    pub content: Arc<Content>,
    /// Whose alternate ids are looked up.
    pub profile: Option<String>,
    /// Alternate ids that the event itself brings; they go before the ones looked up.
    pub alternate_ids: Vec<(String, String)>,
    pub accepted_at_ms: i64,
}

/// What became of a [`NewEvent`], as its publisher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// Of the event as it was accepted the first time.
    pub id: Uuid,
    /// The same tenant, source and id was accepted before; nothing was stored.
    pub duplicate: bool,
}

/// An event that is committed and has to be routed.
#[derive(Clone, Debug)]
pub struct Unrouted {
    /// Grows with each event of the store.
    pub seq: u64,
    pub event: Arc<Event>,
}

/// Something that happened and that nobody waits to have written.
#[derive(Debug)]
pub enum Record {
    /// What is known of a delivery by now. `attempted`: its newest attempt has not been recorded before.
    Delivery { tenant: Tenant, event_seq: u64, delivery: Box<Delivery>, attempted: bool },
    /// A plugin dropped an event for a subscription.
    Filtered { tenant: Tenant, subscription: Uuid, at_ms: i64 },
    /// What a plugin wrote during a run.
    Log(Box<LogEntry>),
    /// An endpoint does nothing but fail since a time, of which so many percent have been announced until
    /// it is disabled; none: not any more.
    Failing { tenant: Tenant, subscription: Uuid, since: Option<(i64, u8)> },
    /// Every delivery of an event has been recorded before this.
    Routed { tenant: Tenant, seq: u64 },
}

impl UnroutedPage {
    /// The number of the last event of the page; none where there are no more.
    pub fn upto(&self) -> Option<u64> {
        let last = self.events.last().map(|it| it.seq);
        last.max(self.broken.last().map(|(seq, _)| *seq))
    }
}

impl Record {
    /// Whose record it is. Those of one tenant are written in the order in which they were handed over.
    pub fn tenant(&self) -> &Tenant {
        match self {
            Record::Delivery { tenant, .. }
            | Record::Filtered { tenant, .. }
            | Record::Failing { tenant, .. }
            | Record::Routed { tenant, .. } => tenant,
            Record::Log(it) => &it.tenant,
        }
    }

    /// What it is about, for the operator. Without anything that was received or sent.
    pub fn what(&self) -> String {
        match self {
            Record::Delivery { delivery, .. } => format!("delivery {}", delivery.id),
            Record::Filtered { subscription, .. } => format!("filtered for {subscription}"),
            Record::Log(it) => format!("a line of plugin {}", it.plugin),
            Record::Failing { subscription, .. } => format!("failures of {subscription}"),
            Record::Routed { seq, .. } => format!("routing of event number {seq}"),
        }
    }
}

/// Events that are not routed.
#[derive(Debug, Default)]
pub struct UnroutedPage {
    pub events: Vec<Unrouted>,
    /// Events that cannot be read, each with its number and what is wrong. They can never be routed.
    pub broken: Vec<(u64, String)>,
}

/// How often a process has ended while it worked on something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    pub tenant: Tenant,
    pub work: Work,
    pub count: u32,
}

/// One state of a subscription and the revision at which it ended, if it did.
#[derive(Debug)]
pub struct SubscriptionVersion {
    pub subscription: Subscription,
    pub ended: Option<u64>,
}

/// A bearer of rights.
#[derive(Clone, Debug)]
pub struct Token {
    pub id: Uuid,
    /// SHA-256 of the token's text, which is kept nowhere.
    pub hash: [u8; 32],
    /// None for the operator's own, which may act for any tenant.
    pub tenant: Option<Tenant>,
    pub scopes: Vec<String>,
    pub created_at_ms: i64,
    pub expires_at_ms: Option<i64>,
    pub revoked_at_ms: Option<i64>,
    /// The token that this one was given out for: it ends with that one.
    pub parent: Option<Uuid>,
}

/// How long and how much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub payloads_ms: i64,
    pub attempts_ms: i64,
    /// Above this, settled payloads go before their time.
    pub bytes_max: u64,
}

/// What came of [`Store::prune`].
#[derive(Clone, Copy, Debug)]
pub struct Pruned {
    /// There is more to forget.
    pub more: bool,
    /// States of subscriptions that ended at or before this revision are asked for by no event.
    pub revision: u64,
}

/// How much is in a store.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    pub bytes: u64,
    /// Of these, what is empty.
    pub free_bytes: u64,
    pub events: u64,
    pub deliveries: u64,
    /// Of these, what is still to be delivered.
    pub unsettled: u64,
    pub subscriptions: u64,
    /// Versions of all plugins.
    pub plugins: u64,
    pub oldest_event_ms: Option<i64>,
    /// Of an event whose data may still be kept.
    pub oldest_data_ms: Option<i64>,
}

/// Called from the engine's own thread; must not wait.
pub struct Signals {
    /// Events that have just been committed, in order.
    pub accepted: Box<dyn Fn(Vec<Unrouted>) + Send>,
    /// Tokens have ended, or something may have been changed by another process.
    pub changed: Box<dyn Fn() + Send>,
}

/// What an engine does. Whatever gives a tenant more than it may have is refused with [`StoreError::Quota`].
#[async_trait]
pub trait Store: PluginStore + ReplayStore {
    /// Commits events; those that were accepted before are left out. Answers in the order given. Where not all of
    /// them can be committed the first ones may be; sent again they are known.
    async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>>;

    /// Hands records over. Never waits and never fails: what cannot be written now is written later, before
    /// anything that is handed over after it for the same tenant. Whoever can make many of them for one
    /// tenant looks first whether there is room.
    fn record(&self, records: Vec<Record>);

    /// Whether few enough records of a tenant wait to be written that more of them may be made.
    fn has_room(&self, tenant: &Tenant) -> bool;

    /// Waits until there is room for a tenant's records.
    async fn room(&self, tenant: &Tenant);

    /// Waits until everything that was handed over so far is committed.
    async fn flush(&self);

    /// Waits until everything is committed that was handed over so far for one tenant.
    async fn flush_of(&self, tenant: &Tenant);

    /// Why nothing can be written now, or could not until a moment ago; none when all is well.
    fn trouble(&self) -> Option<String>;

    /// Whether nothing will ever be written again by this process.
    fn is_dead(&self) -> bool;

    /// For each tenant with events that are not routed, the number before the first of them.
    async fn unrouted_tenants(&self) -> Result<Vec<(Tenant, u64)>>;

    /// The tenant's next events that are not routed, after a number.
    /// They are so few that they have a few megabytes together.
    async fn unrouted(&self, tenant: &Tenant, after: u64, limit: usize) -> Result<UnroutedPage>;

    /// Counts that a process has ended while it worked on these. Answers all that was counted for events that
    /// are kept. What another version of the program has died of is forgotten.
    async fn count_deaths(&self, works: Vec<Work>, now_ms: i64) -> Result<Vec<Death>>;

    /// An event was worked on, and nothing happened.
    async fn forget_deaths(&self, event: Uuid) -> Result<()>;

    /// The ids of an event's deliveries that have been recorded.
    async fn recorded(&self, event: &Event) -> Result<Vec<Uuid>>;

    /// Makes everything due that was being attempted when the process ended. Once, at start.
    async fn release_claims(&self, now_ms: i64) -> Result<()>;

    /// The clock was set back, and it is this time now: what waits for a later one waits for one that is
    /// sooner by as much.
    async fn set_back(&self, now_ms: i64, by_ms: i64) -> Result<()>;

    /// For each subscription with deliveries to come, when the next one is due.
    async fn due(&self) -> Result<Vec<(Tenant, Uuid, i64)>>;

    /// Takes deliveries that are due, oldest first. They are due no more: given out again is what is
    /// recorded with a time, or was given out to a process that has ended.
    /// Of those with the same order key only the first one is due; one that has been tried for longer than
    /// `order_wait_ms` holds the others up no more.
    async fn claim(
        &self,
        tenant: &Tenant,
        subscription: Uuid,
        now_ms: i64,
        limit: usize,
        order_wait_ms: Option<i64>,
    ) -> Result<Claim>;

    /// The subscriptions that deliveries are held for, or were held for and have not gone yet.
    async fn holding(&self) -> Result<Vec<Uuid>>;

    /// Makes the oldest deliveries due that are held for a subscription, once all that are due are gone
    /// out. Those that go one after the other (`IN_TURN`) go before those that do not. Answers how many; none where
    /// nothing is held and all that were held have gone, or where something keeps it from being delivered to.
    async fn release_held(
        &self,
        tenant: &Tenant,
        subscription: Uuid,
        limit: usize,
        now_ms: i64,
    ) -> Result<Option<usize>>;

    /// What waits, tenant by tenant.
    async fn backlogs(&self) -> Result<Vec<Backlog>>;

    /// A number that counts the tenant's subscriptions in a format, for the provider's id.
    async fn next_number(&self, tenant: &Tenant, format: &'static str) -> Result<u64>;

    /// Stores a new subscription at a new revision. `unique` is what no other of its tenant and format
    /// may have.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] with the one of `unique` that is taken.
    async fn create_subscription(
        &self,
        it: Subscription,
        unique: Vec<String>,
    ) -> Result<Subscription>;

    /// Stores a new state of the subscription whose present state has `it.revision`. None for `unique` and
    /// for `secret`, which replaces all that there are, leaves these as they are.
    ///
    /// # Errors
    ///
    /// [`StoreError::Changed`] when that is not the present state any more.
    async fn change_subscription(
        &self,
        it: Subscription,
        unique: Option<Vec<String>>,
        secret: Option<SigningSecret>,
    ) -> Result<Subscription>;

    /// Ends a subscription; what it still was to get is cancelled.
    async fn delete_subscription(&self, tenant: &Tenant, id: Uuid) -> Result<()>;

    /// Signs with a new secret; the ones before it sign beside it until a time.
    async fn rotate_secret(
        &self,
        tenant: &Tenant,
        id: Uuid,
        secret: SigningSecret,
        old_until_ms: i64,
        now_ms: i64,
    ) -> Result<Subscription>;

    async fn subscription(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Subscription>>;

    async fn subscription_by_provider_id(
        &self,
        tenant: &Tenant,
        format: &'static str,
        provider_id: &str,
    ) -> Result<Option<Subscription>>;

    /// The tenant's subscriptions in the order of their ids, after one.
    async fn subscriptions(
        &self,
        tenant: &Tenant,
        format: Option<&'static str>,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Subscription>>;

    /// The revision, and every state of a subscription that began or ended after an earlier one.
    async fn changes(&self, after: u64) -> Result<(u64, Vec<SubscriptionVersion>)>;

    /// Stores a token; its tenant begins to exist if it did not.
    async fn create_token(&self, token: Token) -> Result<()>;

    /// All tokens but those that were given out for others.
    async fn tokens(&self) -> Result<Vec<Token>>;

    async fn token(&self, hash: [u8; 32]) -> Result<Option<Token>>;

    async fn token_by_id(&self, id: Uuid) -> Result<Option<Token>>;

    /// Ends a token, and those that were given out for it.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] when there is none, or it has been ended before.
    async fn revoke_token(&self, id: Uuid, now_ms: i64) -> Result<()>;

    /// What an account has set in a provider's API.
    async fn settings(&self, tenant: &Tenant, format: &'static str) -> Result<Option<Value>>;

    /// What all accounts have set: tenant, format, settings.
    async fn all_settings(&self) -> Result<Vec<(Tenant, &'static str, Value)>>;

    async fn put_settings(
        &self,
        tenant: &Tenant,
        format: &'static str,
        settings: Value,
    ) -> Result<()>;

    /// One of the router's own keys, as PKCS #8.
    async fn signing_key(&self, selector: &str) -> Result<Option<Vec<u8>>>;

    /// Keeps a key, unless there is one; answers the one that is kept.
    async fn keep_signing_key(&self, selector: &str, made: Vec<u8>) -> Result<Vec<u8>>;

    async fn tenant_exists(&self, tenant: &Tenant) -> Result<bool>;

    /// What a tenant has of what is bounded.
    async fn usage(&self, tenant: &Tenant) -> Result<Usage>;

    /// Replaces the alternate ids of a profile.
    async fn put_identities(
        &self,
        tenant: &Tenant,
        profile: &str,
        ids: Vec<(String, String)>,
    ) -> Result<()>;

    async fn identities(&self, tenant: &Tenant, profile: &str) -> Result<Vec<(String, String)>>;

    async fn event(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Arc<Event>>>;

    /// The tenant's events whose data are kept, newest first, before a number.
    async fn events(&self, tenant: &Tenant, before: u64, limit: usize) -> Result<Vec<Unrouted>>;

    /// A rendering that something is or was made by.
    async fn rendering(&self, tenant: &Tenant, hash: Digest) -> Result<Option<Rendering>>;

    /// The log, newest first.
    async fn deliveries(&self, tenant: &Tenant, query: DeliveryQuery) -> Result<Page>;

    /// Forgets deliveries that are settled. Others, and those of events that may still be routed again, are
    /// left out. Answers how many are gone.
    async fn purge(&self, tenant: &Tenant, ids: Vec<Uuid>) -> Result<u64>;

    /// A delivery with all its attempts, oldest first.
    async fn delivery(&self, tenant: &Tenant, id: Uuid)
    -> Result<Option<(Delivery, Vec<Attempt>)>>;

    /// What happened, each step with when it begins, oldest first. Steps without anything are left out.
    async fn counts(&self, tenant: &Tenant, query: CountsQuery) -> Result<Vec<(i64, Counts)>>;

    /// Which subscriptions have endpoints that fail: since when, and how much of the time until they are
    /// disabled has been announced, in percent.
    async fn failing(&self) -> Result<Vec<(Uuid, i64, u8)>>;

    /// Forgets some of what is older or more than wanted.
    async fn prune(&self, now_ms: i64, retention: Retention) -> Result<Pruned>;

    /// How much there is. Counts all of it.
    async fn stats(&self) -> Result<Stats>;

    /// What is wrong with the store, in a sentence each. Reads all of it.
    async fn check(&self) -> Result<Vec<String>>;

    /// Commits what was handed over, where that is possible, and ends.
    async fn close(&self);
}
