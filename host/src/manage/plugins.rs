//! Plugins: uploaded, checked, and made the current version of their name.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::check_configuration;
use crate::app::App;
use crate::clock;
use crate::event::{Tenant, Violation};
use crate::formats::Refusal;
use crate::plugin::{Digest, PluginName, PluginRef, PluginVersion};
use crate::subscription::Subscription;
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
    app: &App,
    tenant: Option<&Tenant>,
    name: &PluginName,
    file: File,
    expected: Option<Digest>,
) -> Result<(PluginVersion, Uploaded), UploadRefusal> {
    // Until it is stored: whoever comes next finds the quota and the current version as we leave them.
    let _turn = app.uploads.turn().await;
    let (File::Wasm(bytes) | File::Script(bytes)) = &file;
    let replaces = current(app, tenant, name).await?;
    check_expected(expected, replaces)?;
    let known = version(app, tenant, name, Digest::of(bytes)).await.is_ok();
    if !known {
        check_quota(app, tenant, bytes).await?;
    }
    let start = Instant::now();
    // At a start of ours, nobody is there who must not know what is compiled already.
    let known = known || tenant.is_none();
    let uploaded = {
        let (runtime, file) = (Arc::clone(&app.runtime), file.clone());
        tokio::task::spawn_blocking(move || match file {
            File::Script(bytes) => runtime.upload_script(&bytes),
            File::Wasm(bytes) => runtime.upload(&bytes, known),
        })
        .await
    };
    if let Some(tenant) = tenant {
        app.health.compiled(tenant, clock::now_ms(), start.elapsed());
    }
    let uploaded = uploaded
        .map_err(|_| Refusal::Unavailable("the plugin could not be tried".to_owned()))?
        .map_err(UploadRefusal::Plugin)?;
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
    let changed = follow(app, &version).await?;
    app.store.add_plugin(version.clone(), Some(bytes.clone()), replaces, changed).await?;
    app.catch_up().await?;
    Ok((version, uploaded))
}

/// Makes a version that is there the current one.
///
/// # Errors
///
/// There is no such version, it is deprecated, it would break a subscription, or the current version is
/// not the expected one.
pub async fn make_current(
    app: &App,
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
    let changed = follow(app, &version).await?;
    app.store.add_plugin(version.clone(), None, replaces, changed).await?;
    app.catch_up().await?;
    Ok(version)
}

/// Makes the version that was current before the present one current again.
///
/// # Errors
///
/// There was none, or as [`make_current`].
pub async fn roll_back(
    app: &App,
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
    let hour_max = app.settings.plugin_compile_hour_seconds;
    let spent = tenant.map(|it| app.health.compiled_for(it, clock::now_ms())).unwrap_or_default();
    if spent.as_secs() >= hour_max {
        let detail = format!(
            "compiling your plugins has taken {} s in this hour, and {hour_max} s is the most \
             (`plugin-compile-hour-seconds`); try again in the next one",
            spent.as_secs()
        );
        return Err(UploadRefusal::Quota(detail));
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
pub async fn share_standard(app: &App) -> anyhow::Result<()> {
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

/// The subscriptions that follow the name, with the new version in their renderings.
async fn follow(app: &App, version: &PluginVersion) -> Result<Vec<Subscription>, UploadRefusal> {
    let name = PluginRef::Name(version.name.clone());
    let mut changed = Vec::new();
    let mut violations = Vec::new();
    for mut it in app.store.followers(version.tenant.as_ref(), &version.name).await? {
        let mut rendering = (*it.rendering).clone();
        assert_eq!(rendering.steps.len(), it.format_steps.len() + it.steps.len(), "all are pinned");
        // A format's own steps follow shared plugins, and the subscriber's follow what its tenant sees.
        let of_format = version.tenant.is_none().then_some(&it.format_steps);
        let own = sees(app, &it.tenant, version).await?.then_some(&it.steps);
        let followed = of_format.into_iter().flatten().enumerate().chain(
            own.into_iter()
                .flatten()
                .enumerate()
                .map(|(at, step)| (at + it.format_steps.len(), step)),
        );
        let before = violations.len();
        for (at, step) in followed.filter(|(_, step)| step.plugin == name) {
            match check_configuration(app, &it.tenant, version, &it.id.to_string(), &step.config)
                .await?
            {
                Ok(pinned) => rendering.steps[at] = pinned,
                Err(wrong) => violations.extend(wrong),
            }
        }
        if violations.len() == before && rendering != *it.rendering {
            it.rendering_hash = rendering.hash();
            it.rendering = Arc::new(rendering);
            it.updated_at_ms = version.created_at_ms;
            changed.push(it);
        }
    }
    if violations.is_empty() { Ok(changed) } else { Err(UploadRefusal::Followers(violations)) }
}

/// Whether the tenant means this plugin by its name: its own one hides a shared one.
async fn sees(app: &App, tenant: &Tenant, version: &PluginVersion) -> Result<bool, Refusal> {
    let seen = app.store.plugin_versions(Some(tenant), &version.name).await?;
    Ok(version.tenant.is_some() || seen.iter().all(|it| it.tenant.is_none()))
}
