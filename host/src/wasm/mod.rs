//! Runs plugins. The only room that knows wasmtime.
//!
//! `compiler` makes compiled code of an upload, in a process of its own: there, `check` makes sure that
//! it is a plugin, `compile` compiles and tries it, and `image` keeps what it is once it is configured.
//! `cache` keeps compiled code; `engine` says how instances are kept; `run` is one run of one plugin;
//! `configured` knows which images are worth having; `pipeline` is all the steps of a subscription, one
//! after the other; `manifest` checks what a plugin says of itself.

mod bindings;
mod cache;
#[cfg(feature = "compiler")]
mod check;
#[cfg(feature = "compiler")]
mod compile;
mod compiler;
mod configured;
mod engine;
#[cfg(feature = "compiler")]
mod image;
mod imports;
mod manifest;
mod pipeline;
mod run;
mod standard;
mod stopwatch;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasmtime::component::Component;

use crate::event::Violation;
use crate::plugin::{Digest, Manifest, World};
use cache::Cache;
use compiler::{About, Job};
use configured::Maker;
use engine::{Allocation, Machine};
use run::Loaded;

#[cfg(feature = "compiler")]
pub use compiler::serve_one;
pub use compiler::{Budget, Compiler};
pub use engine::{Limits, Purpose};
pub use pipeline::{Addressee, Outcome, Ran, Step, StepRun, time_us};
use standard::JAVASCRIPT;
pub use standard::STANDARD_PLUGINS;

/// How many bytes of plugins are kept loaded, as code.
const LOADED_BYTES_MAX: usize = 256 << 20;
/// The largest script.
const SCRIPT_BYTES_MAX: usize = 64 << 10;

/// Why a file is not a plugin. `code` is stable; the text says what to do about it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    pub code: String,
    pub detail: String,
}

impl Refusal {
    pub fn new(code: &str, detail: impl Into<String>) -> Refusal {
        Refusal { code: code.to_owned(), detail: detail.into() }
    }

    /// Whether the router is to blame and not the file.
    pub fn is_ours(&self) -> bool {
        self.code == NOT_RUN
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal::new(fault.code(), fault.to_string())
    }
}

const NOT_RUN: &str = "plugin-not-run";

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
            Fault::Host(_) => NOT_RUN,
        }
    }
}

/// What an accepted upload is.
#[derive(Debug)]
pub struct Uploaded {
    pub digest: Digest,
    pub world: World,
    pub manifest: Manifest,
    /// The interfaces that it asks the router for.
    pub imports: Vec<String>,
    pub compile_time: Duration,
    /// The median of a fresh instance that is asked nothing.
    pub empty_run_time: Duration,
}

/// Where the file of a plugin is read when it is not loaded yet.
pub type Files = Box<dyn Fn(Digest) -> anyhow::Result<Bytes> + Send + Sync>;

/// Plugins that are loaded, as many as fit.
#[derive(Default)]
struct Shelf {
    plugins: HashMap<Digest, Arc<Loaded>>,
    bytes: usize,
}

impl Shelf {
    fn put(&mut self, digest: Digest, plugin: Arc<Loaded>) {
        self.remove(digest);
        while self.bytes + plugin.bytes > LOADED_BYTES_MAX {
            // Whichever goes is loaded again in a moment when it is needed.
            let Some(any) = self.plugins.keys().next().copied() else { break };
            self.remove(any);
        }
        self.bytes += plugin.bytes;
        self.plugins.insert(digest, plugin);
    }

    fn remove(&mut self, digest: Digest) {
        self.bytes -= self.plugins.remove(&digest).map_or(0, |it| it.bytes);
    }
}

/// The engine, and the plugins that are loaded into it.
pub struct Runtime {
    machine: Machine,
    compiler: Compiler,
    cache: Cache,
    files: Files,
    loaded: RwLock<Shelf>,
    /// None where runs are measured: there, each of them is to cost all that it costs.
    maker: OnceLock<Maker>,
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
        purpose: Purpose,
        compiler: Compiler,
        cache: &Path,
        key: [u8; 32],
        files: Files,
    ) -> anyhow::Result<Arc<Runtime>> {
        let (allocation, folder) = match purpose {
            Purpose::Serve => (Allocation::Pooled, cache.to_owned()),
            Purpose::Measure => (Allocation::OnDemand, cache.join("measured")),
        };
        let runtime = Arc::new(Runtime {
            machine: Machine::new(limits, purpose, allocation)?,
            compiler,
            cache: Cache::open(&folder, key)?,
            files,
            loaded: RwLock::default(),
            maker: OnceLock::new(),
            compiling: Mutex::default(),
        });
        if purpose == Purpose::Serve {
            let maker = Maker::start(Arc::downgrade(&runtime))?;
            assert!(runtime.maker.set(maker).is_ok(), "it is set once");
        }
        Ok(runtime)
    }

    /// Checks, compiles and tries an uploaded file. Takes a moment: not for a thread that others wait for.
    /// `known`: the one who uploads it has it already. To everybody else it must look new, whoever
    /// may have uploaded it before.
    ///
    /// # Errors
    ///
    /// The file is not a plugin; the refusal says why.
    pub fn upload(&self, file: &[u8], known: bool) -> Result<Uploaded, Refusal> {
        let digest = Digest::of(file);
        let cached = if known { self.cache.load(&self.machine.engine, digest) } else { None };
        let (plugin, about) = match cached {
            Some((component, about)) => {
                (Loaded::new(&self.machine, &component, about.manifest.clone())?, about)
            }
            None => self.compile(self.job(), digest, file)?,
        };
        self.keep(digest, plugin);
        Ok(Uploaded {
            digest,
            world: about.world,
            manifest: about.manifest,
            imports: about.imports,
            compile_time: about.compile_time,
            empty_run_time: about.empty_run_time,
        })
    }

    /// The same for a script in JavaScript, which the plugin `javascript` runs.
    ///
    /// # Errors
    ///
    /// It is not a script that makes a plugin.
    pub fn upload_script(&self, file: &[u8]) -> Result<Uploaded, Refusal> {
        let digest = Digest::of(file);
        let script = script(file).ok_or_else(|| {
            Refusal::new("not-a-script", "the script is empty, or it is not text in UTF-8")
        })?;
        if script.len() > SCRIPT_BYTES_MAX {
            let detail = format!("the script is larger than {SCRIPT_BYTES_MAX} bytes");
            return Err(Refusal::new("too-large", detail));
        }
        let interpreter = self.interpreter()?;
        let start = Instant::now();
        let plugin = interpreter.of_script(&self.machine, script).map_err(|fault| match fault {
            Fault::Configuration(why) => Refusal::new("bad-script", why),
            other => Refusal::from(other),
        })?;
        let compile_time = start.elapsed();
        let manifest = plugin.manifest.clone();
        manifest::check(&manifest)?;
        if let Some(schema) = &manifest.config_schema {
            // That it is a schema; nothing has to fit it yet.
            self.compiler.check(schema.clone(), "null")?;
        }
        let start = Instant::now();
        plugin.empty_run(&self.machine)?;
        self.keep(digest, plugin);
        Ok(Uploaded {
            digest,
            world: World::Both,
            manifest,
            imports: Vec::new(),
            compile_time,
            empty_run_time: start.elapsed(),
        })
    }

    /// What a schema that a stranger wrote says against a configuration, JSON text. Takes a moment: not
    /// for a thread that others wait for.
    ///
    /// # Errors
    ///
    /// It is not a schema, or it takes too long to say; or we cannot ask.
    pub fn violations(&self, schema: Value, config: &str) -> Result<Vec<Violation>, Refusal> {
        self.compiler.check(schema, config)
    }

    /// Tries whether a plugin takes a configuration that fits its schema.
    ///
    /// # Errors
    ///
    /// What the plugin says against it, or why it could not be asked.
    pub fn try_configuration(&self, digest: Digest, config: &str) -> Result<(), Fault> {
        self.plugin(digest)?.configure(&self.machine, config)
    }

    fn plugin(&self, digest: Digest) -> Result<Arc<Loaded>, Fault> {
        let loaded = self.loaded.read().expect("no holder of this lock panics");
        if let Some(plugin) = loaded.plugins.get(&digest) {
            return Ok(Arc::clone(plugin));
        }
        drop(loaded);
        let plugin = match self.cache.load(&self.machine.engine, digest) {
            Some((component, about)) => Loaded::new(&self.machine, &component, about.manifest)?,
            None => {
                let file = self.file(digest)?;
                match script(&file) {
                    Some(script) => self.interpreter()?.of_script(&self.machine, script)?,
                    None => {
                        let compiled = self.compile(self.job(), digest, &file);
                        compiled.map_err(|refusal| Fault::Host(refusal.detail))?.0
                    }
                }
            }
        };
        Ok(self.keep(digest, plugin))
    }

    /// The plugin that runs scripts.
    fn interpreter(&self) -> Result<Arc<Loaded>, Fault> {
        self.plugin(Digest::of(JAVASCRIPT))
    }

    fn file(&self, digest: Digest) -> Result<Bytes, Fault> {
        let standard = STANDARD_PLUGINS.iter().find(|(_, file)| Digest::of(file) == digest);
        match standard {
            Some((_, file)) => Ok(Bytes::from_static(file)),
            None => (self.files)(digest).map_err(|err| Fault::Host(format!("{err:#}"))),
        }
    }

    fn keep(&self, digest: Digest, plugin: Loaded) -> Arc<Loaded> {
        let plugin = Arc::new(plugin);
        let mut loaded = self.loaded.write().expect("no holder of this lock panics");
        loaded.put(digest, Arc::clone(&plugin));
        plugin
    }

    fn job(&self) -> Job {
        Job { purpose: self.machine.purpose, limits: self.machine.limits, config: None }
    }

    /// Has a file compiled, and keeps the code under a name.
    fn compile(&self, job: Job, name: Digest, file: &[u8]) -> Result<(Loaded, About), Refusal> {
        let compiled = {
            let _one = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
            self.compiler.compile(job, file)?
        };
        if let Err(err) = self.cache.store(name, &compiled) {
            tracing::warn!(%name, %err, "a compiled plugin cannot be kept");
        }
        #[expect(unsafe_code, reason = "these bytes were compiled for us a moment ago")]
        let component = unsafe { Component::deserialize(&self.machine.engine, &compiled.code) };
        let component =
            component.map_err(|err| Refusal::new("cannot-compile", format!("{err:#}")))?;
        let plugin = Loaded::new(&self.machine, &component, compiled.about.manifest.clone())?;
        Ok((plugin, compiled.about))
    }
}

/// The text of a file that is a script: WebAssembly is not text.
fn script(file: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(file).ok()?;
    (!text.contains('\0') && !text.trim().is_empty()).then_some(text)
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

    fn open(folder: &Path, key: [u8; 32], files: Files) -> Arc<Runtime> {
        Runtime::new(limits(), Purpose::Serve, Compiler::Here, folder, key, files).unwrap()
    }

    pub(super) fn runtime(folder: &Path) -> Arc<Runtime> {
        let files: Files = Box::new(|digest| {
            let standard = STANDARD_PLUGINS.iter().find(|(_, file)| Digest::of(file) == digest);
            standard
                .map(|(_, file)| Bytes::from_static(file))
                .ok_or(anyhow::anyhow!("no such file"))
        });
        open(folder, [7; 32], files)
    }

    /// The only file in the cache.
    fn compiled(folder: &Path) -> std::path::PathBuf {
        let files = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
        let mut compiled = files.filter(|it| it.extension().is_some_and(|it| it == "compiled"));
        let first = compiled.next().unwrap();
        assert_eq!(compiled.next(), None);
        first
    }

    /// What is in a file of the cache beside its tag and how long it took to make it.
    fn code(file: &[u8]) -> &[u8] {
        compiler::read_message::<About>(&file[32..]).unwrap().1
    }

    #[test]
    fn compiled_code_that_was_changed_is_not_loaded_but_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (_, filter) = STANDARD_PLUGINS.iter().find(|(name, _)| *name == "filter").unwrap();
        runtime(folder.path()).upload(filter, true).unwrap();
        let path = compiled(folder.path());
        let made = std::fs::read(&path).unwrap();
        for at in [0, 40, made.len() / 2, made.len() - 1] {
            let mut changed = made.clone();
            changed[at] ^= 1;
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &changed).unwrap();
            let config = r#"{"when": {"at": "/a", "exists": true}}"#;
            runtime(folder.path()).try_configuration(Digest::of(filter), config).unwrap();
            assert!(code(&std::fs::read(&path).unwrap()) == code(&made), "byte {at}");
        }
        // Somebody else's code is no better for being whole.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &made).unwrap();
        let files: Files = Box::new(|_| Ok(Bytes::from_static(STANDARD_PLUGINS[2].1)));
        let other = open(folder.path(), [8; 32], files);
        other.try_configuration(Digest::of(filter), "{}").unwrap_err();
        assert!(std::fs::read(&path).unwrap() != made);
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
