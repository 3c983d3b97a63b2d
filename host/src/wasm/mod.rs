//! Runs plugins. The only room that knows wasmtime.
//!
//! `check` makes sure that an upload is a plugin; `engine` says how code is compiled and instances are
//! kept; `cache` keeps compiled code; `run` is one run of one plugin; `pipeline` is all the steps of a
//! subscription, one after the other.

mod bindings;
mod cache;
mod check;
mod engine;
mod imports;
mod pipeline;
mod run;
mod standard;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use crate::plugin::{Digest, Manifest, World};
use cache::Cache;
use check::Contract;
use engine::Ticker;
use run::{Loaded, Run};

pub use check::Refusal;
pub use engine::Limits;
pub use pipeline::{Addressee, Outcome, Step};
pub use standard::STANDARD_PLUGINS;

/// How many empty runs tell what one costs.
const TRIALS: usize = 21;
/// How many plugins are kept loaded.
const LOADED_MAX: usize = 4_096;

/// Why a run has no verdict. Each kind has a code that people search by.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the plugin trapped: {0}")]
    Trap(String),
    #[error("the plugin used up its {budget_ms} ms of CPU time")]
    Time { budget_ms: u128 },
    #[error("the plugin wanted more than {bytes_max} bytes of memory")]
    Memory { bytes_max: usize },
    #[error("the plugin answered more than {bytes_max} bytes")]
    Output { bytes_max: usize },
    #[error(
        "the plugin had more than {} bytes of data searched or edited",
        imports::SEARCHED_BYTES_MAX
    )]
    Search,
    #[error("the plugin's verdict cannot be carried out: {0}")]
    Verdict(String),
    #[error("the plugin refuses its configuration: {0}")]
    Configuration(String),
    /// Not at run time, but when a plugin is loaded.
    #[error("the plugin does not fit: {0}")]
    Unfit(String),
    /// Not the plugin's fault.
    #[error("the plugin could not be run: {0}")]
    Host(String),
}

impl Fault {
    pub fn code(&self) -> &'static str {
        match self {
            Fault::Trap(_) => "plugin-trap",
            Fault::Time { .. } => "plugin-timeout",
            Fault::Memory { .. } => "plugin-out-of-memory",
            Fault::Output { .. } => "plugin-output-too-large",
            Fault::Search => "plugin-search-too-large",
            Fault::Verdict(_) => "plugin-bad-verdict",
            Fault::Configuration(_) => "plugin-bad-configuration",
            Fault::Unfit(_) => "plugin-unfit",
            Fault::Host(_) => "plugin-not-run",
        }
    }
}

/// What an accepted upload is.
#[derive(Debug)]
pub struct Uploaded {
    pub digest: Digest,
    pub world: World,
    pub manifest: Manifest,
    pub compile_time: Duration,
    /// The median of a fresh instance that is asked nothing.
    pub empty_run_time: Duration,
}

/// Where the file of a plugin is read when it is not loaded yet.
pub type Files = Box<dyn Fn(Digest) -> anyhow::Result<Bytes> + Send + Sync>;

/// The engine, and the plugins that are loaded into it.
pub struct Runtime {
    engine: Engine,
    linker: Linker<Run>,
    ticker: Ticker,
    limits: Limits,
    contract: Contract,
    cache: Cache,
    files: Files,
    loaded: RwLock<HashMap<Digest, Arc<Loaded>>>,
    /// Compiling takes a core and much memory: one at a time.
    compiling: Mutex<()>,
}

impl Runtime {
    /// `cache` is a folder for compiled code, whose files are authenticated with `key`.
    ///
    /// # Errors
    ///
    /// The engine cannot be set up on this machine, or the folder cannot be used.
    pub fn new(
        limits: Limits,
        cache: &Path,
        key: [u8; 32],
        files: Files,
    ) -> anyhow::Result<Runtime> {
        let engine = engine::engine(&limits)?;
        Ok(Runtime {
            linker: run::linker(&engine)?,
            ticker: Ticker::start(&engine)?,
            limits,
            contract: Contract::new(),
            cache: Cache::open(cache, key, &engine)?,
            files,
            loaded: RwLock::default(),
            compiling: Mutex::default(),
            engine,
        })
    }

    /// Checks, compiles and tries an uploaded file. Takes a moment: not for a thread that others wait for.
    ///
    /// # Errors
    ///
    /// The file is not a plugin; the refusal says why.
    pub fn upload(&self, file: &[u8]) -> Result<Uploaded, Refusal> {
        let digest = Digest::of(file);
        let start = Instant::now();
        let plugin = self.compile(digest, file)?;
        let compile_time = start.elapsed();
        let world = plugin.world().expect("the contract has been checked");

        let mut times = Vec::with_capacity(TRIALS);
        for _ in 0..TRIALS {
            let start = Instant::now();
            plugin
                .empty_run(self)
                .map_err(|fault| Refusal::new(fault.code(), fault.to_string()))?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        let manifest = plugin.manifest.clone();
        self.keep(plugin);
        Ok(Uploaded { digest, world, manifest, compile_time, empty_run_time: times[TRIALS / 2] })
    }

    /// Tries whether a plugin takes a configuration that fits its schema.
    ///
    /// # Errors
    ///
    /// What the plugin says against it, or why it could not be asked.
    pub fn try_configuration(&self, digest: Digest, config: &str) -> Result<(), Fault> {
        self.plugin(digest)?.configure(self, config)
    }

    fn plugin(&self, digest: Digest) -> Result<Arc<Loaded>, Fault> {
        let loaded = self.loaded.read().expect("no holder of this lock panics");
        if let Some(plugin) = loaded.get(&digest) {
            return Ok(Arc::clone(plugin));
        }
        drop(loaded);
        let plugin = match self.cache.load(&self.engine, digest) {
            Some(component) => Loaded::new(self, digest, &component)?,
            None => {
                let file = (self.files)(digest).map_err(|err| Fault::Host(format!("{err:#}")))?;
                self.compile(digest, &file).map_err(|refusal| Fault::Host(refusal.detail))?
            }
        };
        Ok(self.keep(plugin))
    }

    fn keep(&self, plugin: Loaded) -> Arc<Loaded> {
        let plugin = Arc::new(plugin);
        let mut loaded = self.loaded.write().expect("no holder of this lock panics");
        if loaded.len() >= LOADED_MAX {
            // Whichever goes is loaded again in a fraction of a millisecond when it is needed.
            let any = loaded.keys().next().copied();
            any.map(|digest| loaded.remove(&digest));
        }
        loaded.insert(plugin.digest, Arc::clone(&plugin));
        plugin
    }

    fn compile(&self, digest: Digest, file: &[u8]) -> Result<Loaded, Refusal> {
        let refused = |fault: Fault| Refusal::new(fault.code(), fault.to_string());
        let component = self.contract.component(file)?;
        if let Some(component) = self.cache.load(&self.engine, digest) {
            return Loaded::new(self, digest, &component).map_err(refused);
        }
        let code = {
            let _one = self.compiling.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.engine.precompile_component(&component).map_err(|err| {
                Refusal::new("cannot-compile", format!("the file cannot be compiled: {err:#}"))
            })?
        };
        if let Err(err) = self.cache.store(digest, &code) {
            tracing::warn!(%digest, %err, "a compiled plugin cannot be kept");
        }
        #[expect(unsafe_code, reason = "these bytes were compiled a moment ago")]
        let component = unsafe { Component::deserialize(&self.engine, &code) };
        let component =
            component.map_err(|err| Refusal::new("cannot-compile", format!("{err:#}")))?;
        Loaded::new(self, digest, &component).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            filter_ms: 5,
            transform_ms: 20,
            configure_ms: 250,
            memory_bytes_max: 32 << 20,
            output_bytes_max: 1 << 20,
            runs_max: 4,
        }
    }

    fn runtime(folder: &Path) -> Runtime {
        let files: Files = Box::new(|digest| {
            let standard = STANDARD_PLUGINS.iter().find(|(_, file)| Digest::of(file) == digest);
            standard
                .map(|(_, file)| Bytes::from_static(file))
                .ok_or(anyhow::anyhow!("no such file"))
        });
        Runtime::new(limits(), folder, [7; 32], files).unwrap()
    }

    /// The only file in the cache.
    fn compiled(folder: &Path) -> std::path::PathBuf {
        let files = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
        let mut compiled = files.filter(|it| it.extension().is_some_and(|it| it == "compiled"));
        let first = compiled.next().unwrap();
        assert_eq!(compiled.next(), None);
        first
    }

    #[test]
    fn compiled_code_that_was_changed_is_not_loaded_but_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (_, filter) = STANDARD_PLUGINS.iter().find(|(name, _)| *name == "filter").unwrap();
        runtime(folder.path()).upload(filter).unwrap();
        let path = compiled(folder.path());
        let made = std::fs::read(&path).unwrap();
        for at in [0, 40, made.len() / 2, made.len() - 1] {
            let mut changed = made.clone();
            changed[at] ^= 1;
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &changed).unwrap();
            let config = r#"{"when": {"at": "/a", "exists": true}}"#;
            runtime(folder.path()).try_configuration(Digest::of(filter), config).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), made, "byte {at}");
        }
        // Somebody else's code is no better for being whole.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &made).unwrap();
        let files: Files = Box::new(|_| Ok(Bytes::from_static(STANDARD_PLUGINS[2].1)));
        let other = Runtime::new(limits(), folder.path(), [8; 32], files).unwrap();
        other.try_configuration(Digest::of(filter), "{}").unwrap_err();
        assert_ne!(std::fs::read(&path).unwrap(), made);
    }

    #[test]
    fn a_folder_is_cleared_of_nothing_but_old_code() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("notes.txt");
        let old = folder.path().join("0123.0000000000000000.compiled");
        std::fs::write(&kept, "mine").unwrap();
        std::fs::write(&old, "old").unwrap();
        runtime(folder.path());
        assert!(kept.exists() && !old.exists());
    }
}
