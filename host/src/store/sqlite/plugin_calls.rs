//! Each call about plugins, handed to a reader or to the writer.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::plugin::{PluginName, PluginRef, PluginVersion};
use hookyard_nouns::subscription::Subscription;
use uuid::Uuid;

use super::calls::own;
use super::writer::Writing;
use super::{Sqlite, due, found, plugin_log, plugins, quarantines};
use crate::store::{Due, LogEntry, LogQuery, PluginStore, Quarantine, Result};

#[async_trait]
impl PluginStore for Sqlite {
    async fn add_plugin(
        &self,
        version: PluginVersion,
        file: Option<Bytes>,
        replaces: Option<Digest>,
    ) -> Result<()> {
        let owner = version.tenant.clone();
        let add = move |it: &mut Writing<'_>| {
            plugins::add(it.connection, &version, file.as_deref(), replaces)
        };
        self.write(&owner, add).await
    }

    async fn follow_plugin(
        &self,
        version: PluginVersion,
        changed: Vec<Subscription>,
    ) -> Result<usize> {
        let owner = version.tenant.clone();
        self.write(&owner, move |it| plugins::follow(it, &version, changed)).await
    }

    async fn previous_plugin(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
    ) -> Result<Option<Digest>> {
        let (owner, tenant, name) = (tenant.cloned(), tenant.cloned(), name.clone());
        self.read(&owner, move |reader| plugins::previous(reader, tenant.as_ref(), &name)).await
    }

    async fn deprecate_plugin(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
        digest: Digest,
        reason: Option<String>,
    ) -> Result<()> {
        let (owner, tenant, name) = (tenant.cloned(), tenant.cloned(), name.clone());
        self.write(&owner, move |it| {
            plugins::deprecate(it.connection, tenant.as_ref(), &name, digest, reason.as_deref())
        })
        .await
    }

    async fn delete_plugin(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
        digest: Digest,
    ) -> Result<()> {
        let (owner, tenant, name) = (tenant.cloned(), tenant.cloned(), name.clone());
        self.write(&owner, move |it| plugins::delete(it.connection, tenant.as_ref(), &name, digest))
            .await
    }

    async fn plugin_usage(&self, tenant: Option<&Tenant>) -> Result<(u64, u64)> {
        let (owner, tenant) = (tenant.cloned(), tenant.cloned());
        self.read(&owner, move |reader| plugins::usage(reader, tenant.as_ref())).await
    }

    async fn plugins(&self, tenant: Option<&Tenant>) -> Result<Vec<PluginVersion>> {
        let (owner, tenant) = (tenant.cloned(), tenant.cloned());
        self.search(&owner, move |reader| plugins::all(reader, tenant.as_ref())).await
    }

    async fn plugin_versions(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
    ) -> Result<Vec<PluginVersion>> {
        let (owner, tenant, name) = (tenant.cloned(), tenant.cloned(), name.clone());
        self.read(&owner, move |reader| plugins::versions(reader, tenant.as_ref(), &name)).await
    }

    async fn find_plugin(
        &self,
        tenant: Option<&Tenant>,
        it: &PluginRef,
    ) -> Result<Option<PluginVersion>> {
        let (owner, tenant, it) = (tenant.cloned(), tenant.cloned(), it.clone());
        self.read(&owner, move |reader| plugins::find(reader, tenant.as_ref(), &it)).await
    }

    async fn followers(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Subscription>> {
        let (owner, tenant, name, key) =
            (tenant.cloned(), tenant.cloned(), name.clone(), Arc::clone(&self.key));
        self.search(&owner, move |it| {
            found::followers(it, &key, tenant.as_ref(), &name, after, limit)
        })
        .await
    }

    async fn plugin_file(&self, digest: Digest) -> Result<Option<Bytes>> {
        self.read(&None, move |reader| plugins::file(reader, digest)).await
    }

    async fn allow_rollback(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
        allowed: bool,
    ) -> Result<()> {
        let (owner, tenant, name) = (tenant.cloned(), tenant.cloned(), name.clone());
        self.write(&owner, move |it| {
            plugins::allow_rollback(it.connection, tenant.as_ref(), &name, allowed)
        })
        .await
    }

    async fn rollback_allowed(&self, tenant: Option<&Tenant>, name: &PluginName) -> Result<bool> {
        let (owner, tenant, name) = (tenant.cloned(), tenant.cloned(), name.clone());
        self.read(&owner, move |reader| plugins::rollback_allowed(reader, tenant.as_ref(), &name))
            .await
    }

    async fn plugin_log(&self, tenant: &Tenant, query: LogQuery) -> Result<Vec<(u64, LogEntry)>> {
        let (owner, tenant) = (own(tenant), tenant.clone());
        self.search(&owner, move |reader| plugin_log::search(reader, &tenant, &query)).await
    }

    async fn put_quarantine(&self, it: Quarantine) -> Result<()> {
        let owner = own(&it.tenant);
        self.write(&owner, move |writing| Ok(quarantines::put(writing.connection, &it)?)).await
    }

    async fn quarantines(&self) -> Result<Vec<Quarantine>> {
        self.search(&None, quarantines::all).await
    }

    async fn lift_quarantine(&self, tenant: &Tenant, subscription: Uuid) -> Result<()> {
        let lift = move |it: &mut Writing<'_>| Ok(quarantines::lift(it.connection, subscription)?);
        self.write(&own(tenant), lift).await
    }

    async fn oldest_held(&self, tenant: &Tenant, subscription: Uuid) -> Result<Option<Due>> {
        self.read(&own(tenant), move |reader| due::oldest_held(reader, subscription)).await
    }
}
