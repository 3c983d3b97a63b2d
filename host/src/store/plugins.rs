//! What is kept of plugins: versions, what they write, and which of them are not run for a while.

use async_trait::async_trait;
use bytes::Bytes;
use hookyard_nouns::delivery::Reason;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::plugin::{LogLevel, LogLine, PluginName, PluginRef, PluginVersion};
use hookyard_nouns::subscription::Subscription;
use serde::Serialize;
use uuid::Uuid;

use super::{Due, Result};

/// A line in the log of a plugin.
#[derive(Clone, Debug)]
pub struct LogEntry {
    pub tenant: Tenant,
    pub plugin: Digest,
    pub subscription: Uuid,
    pub event: Uuid,
    pub at_ms: i64,
    pub line: LogLine,
}

/// Which lines are looked for.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// Of these versions; all where there are none.
    pub plugins: Vec<Digest>,
    pub event: Option<Uuid>,
    pub subscription: Option<Uuid>,
    /// At least this one.
    pub level: Option<LogLevel>,
    /// The ones after this number, oldest first; without it, the newest ones, newest first.
    pub after: Option<u64>,
    /// Of the newest ones, only those before this number.
    pub before: Option<u64>,
    pub limit: usize,
}

/// A subscription whose plugin failed so often that its deliveries are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quarantine {
    #[serde(skip)]
    pub subscription: Uuid,
    #[serde(skip)]
    pub tenant: Tenant,
    pub plugin: Digest,
    /// What went wrong the last time.
    pub reason: Reason,
    #[serde(skip)]
    pub since_ms: i64,
    /// How often it has been tried again, in vain.
    pub probes: u32,
    #[serde(skip)]
    pub probe_at_ms: i64,
}

/// What an engine does for plugins.
#[async_trait]
pub trait PluginStore: Send + Sync {
    /// Stores a version of a plugin, unless it is there, and makes it the current one in the place of
    /// `replaces`. Who follows the name is brought to it by [`PluginStore::follow_plugin`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Changed`] when `replaces` is not the current version.
    async fn add_plugin(
        &self,
        version: PluginVersion,
        file: Option<Bytes>,
        replaces: Option<Digest>,
    ) -> Result<()>;

    /// Stores new states of some subscriptions that follow the name of a version. One that has been changed meanwhile
    /// stays as it is. Answers how many these are.
    ///
    /// # Errors
    ///
    /// [`StoreError::Changed`] when it is not the current version any more; nothing is stored.
    async fn follow_plugin(
        &self,
        version: PluginVersion,
        changed: Vec<Subscription>,
    ) -> Result<usize>;

    /// The version of a plugin of this owner's that was current before the present one.
    async fn previous_plugin(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
    ) -> Result<Option<Digest>>;

    /// Says of a version why no new step is to name it, or takes that back.
    async fn deprecate_plugin(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
        digest: Digest,
        reason: Option<String>,
    ) -> Result<()>;

    /// Deletes a version, and with the last one the plugin.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] when something that is kept was or will be made with it, or when it is
    /// the current one of several.
    async fn delete_plugin(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
        digest: Digest,
    ) -> Result<()>;

    /// How many versions an owner has, and how many bytes they are.
    async fn plugin_usage(&self, tenant: Option<&Tenant>) -> Result<(u64, u64)>;

    /// The plugins that a tenant can use, shared ones included; each in its current version.
    async fn plugins(&self, tenant: Option<&Tenant>) -> Result<Vec<PluginVersion>>;

    /// The versions of one plugin, newest first; the tenant's own plugin goes before a shared one.
    async fn plugin_versions(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
    ) -> Result<Vec<PluginVersion>>;

    /// The version that a step of this tenant means; without a tenant, among the shared ones.
    async fn find_plugin(
        &self,
        tenant: Option<&Tenant>,
        it: &PluginRef,
    ) -> Result<Option<PluginVersion>>;

    /// Subscriptions with a step that follows a name: of one tenant, with a step of its own; or, for
    /// a shared plugin, of all, with any step. In the order of their ids, behind this one.
    async fn followers(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Subscription>>;

    /// The file of a plugin.
    async fn plugin_file(&self, digest: Digest) -> Result<Option<Bytes>>;

    /// Says whether a version that is quarantined is replaced by the one before it.
    ///
    /// # Errors
    ///
    /// [`super::StoreError::NotFound`] when the owner has no such plugin.
    async fn allow_rollback(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
        allowed: bool,
    ) -> Result<()>;

    /// Whether that has been allowed.
    async fn rollback_allowed(&self, tenant: Option<&Tenant>, name: &PluginName) -> Result<bool>;

    /// Lines of the log, each with the number that continues it.
    async fn plugin_log(&self, tenant: &Tenant, query: LogQuery) -> Result<Vec<(u64, LogEntry)>>;

    /// Begins a quarantine or brings it up to date.
    async fn put_quarantine(&self, it: Quarantine) -> Result<()>;

    /// All quarantines.
    async fn quarantines(&self) -> Result<Vec<Quarantine>>;

    /// Ends a quarantine.
    async fn lift_quarantine(&self, tenant: &Tenant, subscription: Uuid) -> Result<()>;

    /// The oldest delivery of a subscription that is held and was never rendered.
    async fn oldest_held(&self, tenant: &Tenant, subscription: Uuid) -> Result<Option<Due>>;
}
