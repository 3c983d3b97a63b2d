//! Each call about plugins, handed to a reader or to the writer.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::{Sqlite, log, plugin_log, plugins, quarantines, subscriptions};
use crate::event::Tenant;
use crate::plugin::{Digest, PluginName, PluginRef, PluginVersion};
use crate::store::{Due, LogEntry, LogQuery, PluginStore, Quarantine, Result};
use crate::subscription::Subscription;

#[async_trait]
impl PluginStore for Sqlite {
    async fn add_plugin(
        &self,
        version: PluginVersion,
        file: Option<Bytes>,
        replaces: Option<Digest>,
        changed: Vec<Subscription>,
    ) -> Result<()> {
        self.write(move |it| plugins::add(it, &version, file.as_deref(), replaces, changed)).await
    }

    async fn previous_plugin(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
    ) -> Result<Option<Digest>> {
        let (tenant, name) = (tenant.cloned(), name.clone());
        self.read(move |reader| plugins::previous(reader, tenant.as_ref(), &name)).await
    }

    async fn deprecate_plugin(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
        digest: Digest,
        reason: Option<String>,
    ) -> Result<()> {
        let (tenant, name) = (tenant.cloned(), name.clone());
        self.write(move |it| {
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
        let (tenant, name) = (tenant.cloned(), name.clone());
        self.write(move |it| plugins::delete(it.connection, tenant.as_ref(), &name, digest)).await
    }

    async fn plugin_usage(&self, tenant: Option<&Tenant>) -> Result<(u64, u64)> {
        let tenant = tenant.cloned();
        self.read(move |reader| plugins::usage(reader, tenant.as_ref())).await
    }

    async fn plugins(&self, tenant: Option<&Tenant>) -> Result<Vec<PluginVersion>> {
        let tenant = tenant.cloned();
        self.read(move |reader| plugins::all(reader, tenant.as_ref())).await
    }

    async fn plugin_versions(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
    ) -> Result<Vec<PluginVersion>> {
        let (tenant, name) = (tenant.cloned(), name.clone());
        self.read(move |reader| plugins::versions(reader, tenant.as_ref(), &name)).await
    }

    async fn find_plugin(
        &self,
        tenant: Option<&Tenant>,
        it: &PluginRef,
    ) -> Result<Option<PluginVersion>> {
        let (tenant, it) = (tenant.cloned(), it.clone());
        self.read(move |reader| plugins::find(reader, tenant.as_ref(), &it)).await
    }

    async fn followers(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
    ) -> Result<Vec<Subscription>> {
        let (tenant, name, key) = (tenant.cloned(), name.clone(), Arc::clone(&self.key));
        self.read(move |it| subscriptions::followers(it, &key, tenant.as_ref(), &name)).await
    }

    async fn plugin_file(&self, digest: Digest) -> Result<Option<Bytes>> {
        self.read(move |reader| plugins::file(reader, digest)).await
    }

    async fn allow_rollback(
        &self,
        tenant: Option<&Tenant>,
        name: &PluginName,
        allowed: bool,
    ) -> Result<()> {
        let (tenant, name) = (tenant.cloned(), name.clone());
        self.write(move |it| {
            plugins::allow_rollback(it.connection, tenant.as_ref(), &name, allowed)
        })
        .await
    }

    async fn rollback_allowed(&self, tenant: Option<&Tenant>, name: &PluginName) -> Result<bool> {
        let (tenant, name) = (tenant.cloned(), name.clone());
        self.read(move |reader| plugins::rollback_allowed(reader, tenant.as_ref(), &name)).await
    }

    async fn plugin_log(&self, tenant: &Tenant, query: LogQuery) -> Result<Vec<(u64, LogEntry)>> {
        let tenant = tenant.clone();
        self.read(move |reader| plugin_log::search(reader, &tenant, &query)).await
    }

    async fn put_quarantine(&self, it: Quarantine) -> Result<()> {
        self.write(move |writing| Ok(quarantines::put(writing.connection, &it)?)).await
    }

    async fn quarantines(&self) -> Result<Vec<Quarantine>> {
        self.read(quarantines::all).await
    }

    async fn lift_quarantine(&self, subscription: Uuid) -> Result<()> {
        self.write(move |it| Ok(quarantines::lift(it.connection, subscription)?)).await
    }

    async fn oldest_held(&self, subscription: Uuid) -> Result<Option<Due>> {
        self.read(move |reader| log::oldest_held(reader, subscription)).await
    }
}
