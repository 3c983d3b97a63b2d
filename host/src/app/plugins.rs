//! What plugins are made and run by.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;

use super::threads::TRIAL_THREADS;
use crate::config::Settings;
use crate::secret::ServerKey;
use crate::store::Store;
use crate::wasm::{CodeBytes, Equipment, Files, Purpose, Runtime, Workshop};

/// How much code is kept loaded for trials.
const MEASURED_BYTES_MAX: usize = 32 << 20;

/// The workshop, and an engine for what is sent and for what is tried.
pub(super) struct Plugins {
    pub(super) workshop: Arc<Workshop>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) measuring: Arc<Runtime>,
}

/// Opens all of that. `workers` is how many of them a tenant may have.
///
/// # Errors
///
/// Something cannot be opened; the text says what and why.
pub(super) fn open(
    settings: &Settings,
    workers: usize,
    store: &Arc<dyn Store>,
    key: &ServerKey,
) -> anyhow::Result<Plugins> {
    let runs = u32::try_from(workers + 1 + TRIAL_THREADS);
    let folder = settings.beside_store(&settings.plugin_cache, ".plugins")?;
    let shown = folder.display().to_string();
    let workshop = Workshop::open(Equipment {
        compiler: settings.compiler()?,
        limits: settings.limits(runs.context("that many workers cannot be had")?),
        forms: vec![Purpose::Serve, Purpose::Measure],
        folder,
        key: key.derive("compiled plugins"),
        files: files(Arc::clone(store)),
        hour_max: Duration::from_secs(settings.plugin_compile_hour_seconds),
    });
    let workshop =
        workshop.with_context(|| format!("cannot set up plugins with the cache `{shown}`"))?;
    let runtime = |purpose, plugins_max, images_max| {
        let kept = CodeBytes { plugins_max, images_max };
        Runtime::new(&workshop, purpose, kept).context("cannot set up plugins")
    };
    let (plugins_bytes, images_bytes) =
        (settings.plugin_loaded_bytes_max, settings.plugin_images_bytes_max);
    let serving = runtime(Purpose::Serve, plugins_bytes, images_bytes)?;
    let measuring = runtime(Purpose::Measure, MEASURED_BYTES_MAX, 0)?;
    Ok(Plugins { workshop, runtime: serving, measuring })
}

/// Files are asked for in the lane of the workshop, whose threads may wait.
fn files(store: Arc<dyn Store>) -> Files {
    let handle = Handle::current();
    Box::new(move |digest| Ok(handle.block_on(store.plugin_file(digest))?))
}
