//! Plugins: uploaded, checked, and made the current version of their name.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use hookyard_nouns::clock;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Tenant, Violation};
use hookyard_nouns::plugin::{PluginName, PluginVersion};
use hookyard_nouns::refusal::Refusal;

use super::switch;
use crate::app::App;
use crate::fair::Owner;
use crate::wasm::{self, STANDARD_PLUGINS, Uploaded};

/// What is uploaded.
#[derive(Clone, Debug)]
pub enum File {
    /// A component, or a core module with the exports of one.
    Wasm(Bytes),
    /// A script in JavaScript.
    Script(Bytes),
}

/// Why an upload is not taken.
#[derive(Debug)]
pub enum UploadRefusal {
    /// The file is not a plugin that we run.
    Plugin(wasm::Refusal),
    /// Subscriptions follow the name with configurations that the new version does not take.
    Followers(Vec<Violation>),
    /// Another version is the current one than the caller thinks.
    NotCurrent(Option<Digest>),
    /// The tenant has as much as it may have.
    Quota(String),
    Other(Refusal),
}

impl<E: Into<Refusal>> From<E> for UploadRefusal {
    fn from(err: E) -> UploadRefusal {
        UploadRefusal::Other(err.into())
    }
}

/// Checks, compiles and tries a file, and makes it the current version of its name. The same file
/// again changes nothing. Without a tenant, the plugin is shared with all. `expected` is what the
/// current version has to be.
///
/// # Errors
///
/// The file is not a plugin, would break a subscription, or is more than the tenant may have; nothing
/// has changed.
pub async fn upload(
    app: &Arc<App>,
    tenant: Option<&Tenant>,
    name: &PluginName,
    file: File,
    expected: Option<Digest>,
) -> Result<(PluginVersion, Uploaded), UploadRefusal> {
    let owner = tenant.cloned();
    // Until it is stored: the owner's next upload finds the quota and the current version as we leave them.
    let _turn = app.uploads.turn(&owner).await.map_err(|_| {
        Refusal::Unavailable("several of your uploads wait for each other; try again".to_owned())
    })?;
    let (File::Wasm(bytes) | File::Script(bytes)) = &file;
    let replaces = current(app, tenant, name).await?;
    check_expected(expected, replaces)?;
    let known = version(app, tenant, name, Digest::of(bytes)).await.is_ok();
    if !known {
        check_quota(app, tenant, bytes).await?;
    }
    // At a start of ours, nobody is there who must not know what is compiled already.
    let known = known || tenant.is_none();
    let (runtime, made, payer) = (Arc::clone(&app.runtime), file.clone(), owner.clone());
    let make = move || match made {
        File::Script(bytes) => runtime.upload_script(&payer, &bytes),
        File::Wasm(bytes) => runtime.upload(&payer, &bytes, known),
    };
    let uploaded = match app.workshop.ask(&owner, bytes.len(), make).await {
        Some(Ok(uploaded)) => uploaded,
        Some(Err(refusal)) if !refusal.is_ours() => return Err(UploadRefusal::Plugin(refusal)),
        not_made => {
            tracing::warn!(%name, ?not_made, "an upload cannot be compiled");
            let why = "plugins cannot be compiled now; try again".to_owned();
            return Err(Refusal::Unavailable(why).into());
        }
    };
    let version = PluginVersion {
        name: name.clone(),
        tenant: tenant.cloned(),
        digest: uploaded.digest,
        size_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        world: uploaded.world,
        manifest: uploaded.manifest.clone(),
        created_at_ms: clock::now_ms(),
        current: true,
        deprecated: None,
    };
    switch::check(app, &version).await?;
    app.store.add_plugin(version.clone(), Some(bytes.clone()), replaces).await?;
    switch::switch(app, &version).await?;
    Ok((version, uploaded))
}

/// Makes a version that is there the current one.
///
/// # Errors
///
/// There is no such version, it is deprecated, it would break a subscription, or the current version is
/// not the expected one.
pub async fn make_current(
    app: &Arc<App>,
    tenant: Option<&Tenant>,
    name: &PluginName,
    digest: Digest,
    expected: Option<Digest>,
) -> Result<PluginVersion, UploadRefusal> {
    let replaces = current(app, tenant, name).await?;
    check_expected(expected, replaces)?;
    let mut version = version(app, tenant, name, digest).await?;
    if let Some(reason) = &version.deprecated {
        let detail = format!("names a version that is deprecated: {reason}");
        return Err(Refusal::Invalid(vec![Violation::new("/digest", detail)]).into());
    }
    version.current = true;
    switch::check(app, &version).await?;
    app.store.add_plugin(version.clone(), None, replaces).await?;
    switch::switch(app, &version).await?;
    Ok(version)
}

/// Makes the version that was current before the present one current again.
///
/// # Errors
///
/// There was none, or as [`make_current`].
pub async fn roll_back(
    app: &Arc<App>,
    tenant: Option<&Tenant>,
    name: &PluginName,
    expected: Option<Digest>,
) -> Result<PluginVersion, UploadRefusal> {
    let previous = app.store.previous_plugin(tenant, name).await?;
    let previous = previous.ok_or(Refusal::NotFound)?;
    make_current(app, tenant, name, previous, expected).await
}

/// A version of an owner's own plugin.
///
/// # Errors
///
/// There is none.
pub async fn version(
    app: &App,
    tenant: Option<&Tenant>,
    name: &PluginName,
    digest: Digest,
) -> Result<PluginVersion, Refusal> {
    let all = app.store.plugin_versions(tenant, name).await?;
    let found = all.into_iter().find(|it| it.digest == digest && it.tenant.as_ref() == tenant);
    found.ok_or(Refusal::NotFound)
}

async fn current(
    app: &App,
    tenant: Option<&Tenant>,
    name: &PluginName,
) -> Result<Option<Digest>, Refusal> {
    let all = app.store.plugin_versions(tenant, name).await?;
    let own = all.into_iter().find(|it| it.current && it.tenant.as_ref() == tenant);
    Ok(own.map(|it| it.digest))
}

fn check_expected(expected: Option<Digest>, present: Option<Digest>) -> Result<(), UploadRefusal> {
    match expected {
        Some(_) if expected != present => Err(UploadRefusal::NotCurrent(present)),
        _ => Ok(()),
    }
}

/// What a tenant may have. The operator, who shares with all, has no such limit.
async fn check_quota(
    app: &App,
    tenant: Option<&Tenant>,
    file: &Bytes,
) -> Result<(), UploadRefusal> {
    if tenant.is_none() {
        return Ok(());
    }
    if let Some(why) = app.workshop.hour_is_over(&tenant.cloned()) {
        return Err(UploadRefusal::Quota(why));
    }
    let (count, bytes) = app.store.plugin_usage(tenant).await?;
    let (count_max, bytes_max) = (app.settings.plugin_versions_max, app.settings.plugin_bytes_max);
    let size = u64::try_from(file.len()).unwrap_or(u64::MAX);
    if count >= count_max {
        let detail = format!(
            "you have {count} versions of plugins, and {count_max} is the most \
             (`plugin-versions-max`); delete those that nothing uses"
        );
        return Err(UploadRefusal::Quota(detail));
    }
    if bytes + size > bytes_max {
        let detail = format!(
            "your plugins would be {} bytes, and {bytes_max} is the most (`plugin-bytes-max`); delete \
             versions that nothing uses",
            bytes + size
        );
        return Err(UploadRefusal::Quota(detail));
    }
    Ok(())
}

/// Shares the plugins that this program brings along, unless they are shared already.
///
/// # Errors
///
/// One of them cannot be compiled or stored.
pub async fn share_standard(app: &Arc<App>) -> anyhow::Result<()> {
    for (name, file) in STANDARD_PLUGINS {
        let name = PluginName::try_from(name.to_owned()).map_err(|err| anyhow::anyhow!("{err}"))?;
        let digest = Digest::of(file);
        let versions = app.store.plugin_versions(None, &name).await?;
        if versions.iter().any(|it| it.current && it.digest == digest) {
            continue;
        }
        upload(app, None, &name, File::Wasm(Bytes::from_static(file)), None)
            .await
            .map_err(|refusal| anyhow::anyhow!("cannot share the plugin `{name}`: {refusal:?}"))?;
        tracing::info!(%name, %digest, "shares a standard plugin");
    }
    Ok(())
}

/// Orders the code of all plugins that run for somebody, as far as it is missing: after a change of the
/// engine, or where the folder has lost it. It is made beside the traffic.
pub fn order_missing_code(app: &App) {
    let mut wanted: HashSet<(Owner, Digest)> =
        STANDARD_PLUGINS.iter().map(|(_, file)| (None, Digest::of(file))).collect();
    for it in app.index().all() {
        let plugins = it.rendering.steps.iter().map(|step| step.plugin);
        wanted.extend(plugins.map(|plugin| (Some(it.tenant.clone()), plugin)));
    }
    for (tenant, plugin) in wanted {
        app.runtime.order_missing(plugin, &tenant);
    }
}
