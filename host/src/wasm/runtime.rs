//! The engine, and the plugins that are loaded into it. What a run misses it has ordered, and compiles nothing.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use hookyard_nouns::digest::Digest;
use hookyard_nouns::plugin::World;
use hookyard_nouns::rendering::Step;

use super::cache::Cached;
use super::compiler::About;
use super::configured::Images;
use super::engine::{Allocation, Machine};
use super::lane::Rank;
use super::loaded::Loaded;
use super::workshop::{Workshop, lock};
use super::{Fault, Limits, Purpose, Refusal, Uploaded, manifest};
use crate::fair::{self, Owner};

/// The largest script.
const SCRIPT_BYTES_MAX: usize = 64 << 10;
/// How much code the runs for one event load by themselves: to read so much and to check its tag takes some ten
/// milliseconds. The rest is loaded in the lane.
const LOADED_HERE_BYTES_MAX: u64 = 8 << 20;

/// How many bytes of code are kept loaded.
#[derive(Clone, Copy, Debug)]
pub struct CodeBytes {
    pub plugins_max: usize,
    pub images_max: usize,
}

/// What may still be loaded here, in bytes.
pub(super) struct Here(u64);

impl Here {
    pub(super) fn new() -> Here {
        Here(LOADED_HERE_BYTES_MAX)
    }

    /// Whether a file of this size is loaded here; one that is not there is not.
    pub(super) fn loads(&mut self, bytes: Option<u64>) -> bool {
        let left = bytes.and_then(|bytes| self.0.checked_sub(bytes));
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// An engine and what is loaded into it. Threads share it.
pub struct Runtime {
    pub(super) machine: Machine,
    pub(super) workshop: Arc<Workshop>,
    loaded: Mutex<fair::Cache<Digest, Arc<Loaded>>>,
    pub(super) images: Mutex<Images>,
    pub(super) me: Weak<Runtime>,
}

impl Runtime {
    /// # Errors
    ///
    /// The engine cannot be set up on this machine.
    pub fn new(
        workshop: &Arc<Workshop>,
        purpose: Purpose,
        kept: CodeBytes,
    ) -> anyhow::Result<Arc<Runtime>> {
        let allocation = match purpose {
            Purpose::Serve => Allocation::Pooled,
            Purpose::Measure => Allocation::OnDemand,
        };
        let machine = Machine::new(workshop.limits, purpose, allocation)?;
        Ok(Arc::new_cyclic(|me| Runtime {
            machine,
            workshop: Arc::clone(workshop),
            loaded: Mutex::new(fair::Cache::new(kept.plugins_max)),
            images: Mutex::new(Images::new(kept.images_max)),
            me: Weak::clone(me),
        }))
    }

    /// What a run may use.
    pub fn limits(&self) -> &Limits {
        &self.machine.limits
    }

    /// Checks, compiles and tries an uploaded file. Takes long: for the lane alone.
    /// `known`: the one who uploads it has it already. To everybody else it must look new, whoever
    /// may have uploaded it before.
    ///
    /// # Errors
    ///
    /// The file is not a plugin; the refusal says why.
    pub fn upload(&self, owner: &Owner, file: &[u8], known: bool) -> Result<Uploaded, Refusal> {
        let digest = Digest::of(file);
        let is_made = known && self.workshop.has_all(digest);
        let loaded = if is_made { self.load(digest, owner)? } else { None };
        let about = match loaded {
            Some((_, about)) => about,
            None => {
                self.workshop.compile_anew(owner, file)?;
                self.load_what_was_made(digest, owner)?.1
            }
        };
        Ok(uploaded(digest, about))
    }

    /// The same for a script in JavaScript, which the plugin `javascript` runs.
    ///
    /// # Errors
    ///
    /// It is not a script that makes a plugin.
    pub fn upload_script(&self, owner: &Owner, file: &[u8]) -> Result<Uploaded, Refusal> {
        let digest = Digest::of(file);
        let script = script(file).ok_or_else(|| {
            Refusal::new("not-a-script", "the script is empty, or it is not text in UTF-8")
        })?;
        if script.len() > SCRIPT_BYTES_MAX {
            let detail = format!("the script is larger than {SCRIPT_BYTES_MAX} bytes");
            return Err(Refusal::new("too-large", detail));
        }
        let about = self.make_script(owner, digest, script)?;
        self.load_what_was_made(digest, owner)?;
        Ok(uploaded(digest, about))
    }

    /// Makes sure that steps can be run at once, and compiles what is missing. Takes long: for whoever waits
    /// for nothing else.
    ///
    /// # Errors
    ///
    /// One of the plugins cannot be had.
    pub fn prepare(&self, steps: &[Step]) -> Result<(), Refusal> {
        steps.iter().try_for_each(|step| self.make(step.plugin, &None).map(|_| ()))
    }

    /// Orders the code of a plugin, where there is none on disk in all forms. One that the router brings along is
    /// loaded as well.
    pub fn order_missing(&self, plugin: Digest, tenant: &Owner) {
        let payer = self.workshop.payer(plugin, tenant);
        if !self.workshop.has_all(plugin) {
            self.order_making(plugin, &payer);
        } else if payer.is_none() && !self.is_loaded(plugin) {
            self.order_loading(plugin, &payer);
        }
    }

    pub(super) fn is_loaded(&self, plugin: Digest) -> bool {
        lock(&self.loaded).contains(&plugin)
    }

    /// A plugin that is loaded, or can be within milliseconds.
    ///
    /// # Errors
    ///
    /// It is being made, or cannot be.
    pub(super) fn plugin(
        &self,
        plugin: Digest,
        tenant: &Owner,
        here: &mut Here,
    ) -> Result<Arc<Loaded>, Fault> {
        if let Some(loaded) = lock(&self.loaded).get(&plugin) {
            return Ok(Arc::clone(loaded));
        }
        let payer = self.workshop.payer(plugin, tenant);
        self.workshop.standing(&payer, plugin)?;
        let size = self.workshop.cache(self.machine.purpose).size(plugin);
        if here.loads(size)
            && let Some((loaded, _)) = self.load(plugin, &payer)?
        {
            return Ok(loaded);
        }
        Err(match size {
            Some(_) => self.order_loading(plugin, &payer),
            None => self.order_making(plugin, &payer),
        })
    }

    pub(super) fn order_loading(&self, plugin: Digest, payer: &Owner) -> Fault {
        let (me, owner) = (Weak::clone(&self.me), payer.clone());
        self.workshop.order(payer, plugin, Rank::OnDisk, 0, move || {
            let Some(me) = me.upgrade() else { return Ok(()) };
            match me.load(plugin, &owner) {
                Ok(None) if me.workshop.cache(me.machine.purpose).size(plugin).is_some() => {
                    Err(Fault::Host("its code is on disk and cannot be read".to_owned()).into())
                }
                // Where it has to be made, or the plugin that runs it, whoever comes next orders that.
                Ok(_) | Err(Fault::NotReady(_)) => Ok(()),
                Err(fault) => Err(fault.into()),
            }
        })
    }

    fn order_making(&self, plugin: Digest, payer: &Owner) -> Fault {
        let (me, owner) = (Weak::clone(&self.me), payer.clone());
        let make = move || me.upgrade().map_or(Ok(()), |me| me.make(plugin, &owner).map(|_| ()));
        self.workshop.order(payer, plugin, Rank::Needed, 0, make)
    }

    /// A plugin, whatever has to be done for it.
    pub(super) fn make(&self, plugin: Digest, payer: &Owner) -> Result<Arc<Loaded>, Refusal> {
        let loaded = match self.load(plugin, payer) {
            // It is a script.
            Err(Fault::NotReady(_)) => {
                self.make(self.workshop.javascript, &None)?;
                self.load(plugin, payer)?
            }
            loaded => loaded?,
        };
        if let Some((loaded, _)) = loaded {
            return Ok(loaded);
        }
        let file = self.workshop.file(plugin)?;
        match script(&file) {
            Some(script) => self.make_script(payer, plugin, script).map(|_| ())?,
            None => {
                self.workshop.compile(payer, plugin, self.machine.purpose, &file).map(|_| ())?;
            }
        }
        Ok(self.load_what_was_made(plugin, payer)?.0)
    }

    fn make_script(&self, owner: &Owner, plugin: Digest, script: &str) -> Result<About, Refusal> {
        let interpreter = self.make(self.workshop.javascript, &None)?;
        let start = Instant::now();
        let loaded = interpreter.of_new_script(&self.machine, script);
        let loaded = loaded.map_err(|fault| match fault {
            Fault::Configuration(why) => Refusal::new("bad-script", why),
            other => Refusal::from(other),
        })?;
        let compile_time = start.elapsed();
        let manifest = loaded.manifest.clone();
        manifest::check(&manifest)?;
        if let Some(schema) = &manifest.config_schema {
            // That it is a schema; nothing has to fit it yet.
            self.workshop.violations(schema.clone(), "null")?;
        }
        let start = Instant::now();
        loaded.empty_run(&self.machine)?;
        let (world, imports, empty_run_time) = (World::Both, Vec::new(), start.elapsed());
        let about =
            About { world, manifest, imports, compile_time, empty_run_time, is_script: true };
        self.workshop.keep_script(owner, plugin, &about, script)?;
        Ok(about)
    }

    /// Loads what is on disk; none where it has to be made.
    fn load(&self, plugin: Digest, payer: &Owner) -> Result<Option<(Arc<Loaded>, About)>, Fault> {
        let Some(cached) = self.workshop.cache(self.machine.purpose).load(plugin) else {
            return Ok(None);
        };
        match self.link(plugin, payer, cached)? {
            Ok(loaded) => Ok(Some(loaded)),
            // The engine was another one, or had other settings.
            Err(err) => {
                self.workshop.cache(self.machine.purpose).give_up(plugin, &format!("{err:#}"));
                Ok(None)
            }
        }
    }

    /// Loads what was made a moment ago.
    fn load_what_was_made(
        &self,
        plugin: Digest,
        payer: &Owner,
    ) -> Result<(Arc<Loaded>, About), Refusal> {
        let cached = self.workshop.cache(self.machine.purpose).load(plugin);
        let cached =
            cached.ok_or_else(|| Fault::Host("what was made cannot be read".to_owned()))?;
        let linked = self.link(plugin, payer, cached)?;
        linked.map_err(|err| Refusal::new("cannot-compile", format!("{err:#}")))
    }

    /// Makes a plugin of code, and keeps it. Answers as well what the engine says against it.
    fn link(
        &self,
        plugin: Digest,
        payer: &Owner,
        cached: Cached,
    ) -> Result<wasmtime::Result<(Arc<Loaded>, About)>, Fault> {
        let about = cached.about.clone();
        let loaded = if about.is_script {
            let script =
                script(&cached.code).ok_or_else(|| Fault::Unfit("no script".to_owned()))?;
            let interpreter = self.plugin(self.workshop.javascript, &None, &mut Here::new())?;
            interpreter.of_script(script, about.manifest.clone())
        } else {
            match cached.component(&self.machine.engine) {
                Ok(component) => Loaded::new(&self.machine, &component, about.manifest.clone())?,
                Err(err) => return Ok(Err(err)),
            }
        };
        let loaded = Arc::new(loaded);
        let mut shelf = lock(&self.loaded);
        let gone = shelf.put(payer, plugin, loaded.bytes, Arc::clone(&loaded));
        drop(shelf);
        // To unmap code takes a moment, in which nobody has to wait for the lock.
        drop(gone);
        Ok(Ok((loaded, about)))
    }

    /// The time that `configure` may take of a run's, so that it needs no image.
    pub(super) fn configure_max(&self, plugin: &Loaded) -> Duration {
        plugin.budget(&self.machine.limits) / 4
    }
}

fn uploaded(digest: Digest, about: About) -> Uploaded {
    let About { world, manifest, imports, compile_time, empty_run_time, .. } = about;
    Uploaded { digest, world, manifest, imports, compile_time, empty_run_time }
}

/// The text of a file that is a script: WebAssembly is not text.
fn script(file: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(file).ok()?;
    (!text.contains('\0') && !text.trim().is_empty()).then_some(text)
}
