//! Makes code: of uploads, and anew of what is no longer there. Only here is anything compiled, in the lane
//! and never where events are routed. A run that misses code orders it, and is told to come again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hookyard_nouns::clock;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Tenant, Violation};
use serde_json::Value;
use tokio::sync::watch;

use super::cache::Cache;
use super::compiler::{About, Compiler, Job, Made};
use super::hours::Hours;
use super::lane::{Lane, Rank};
use super::standard::JAVASCRIPT;
use super::{Fault, Limits, Purpose, Refusal, STANDARD_PLUGINS};
use crate::fair::{self, Owner};

/// After how long something is tried again that failed for reasons of ours, and something that was refused.
/// The router may have been short of time or memory when it was.
const OURS_AGAIN: Duration = Duration::from_secs(5);
const REFUSED_AGAIN: Duration = Duration::from_mins(10);
/// How many failures are remembered.
const FAILED_MAX: usize = 4_096;
const TEXT_BYTES_MAX: usize = 1 << 10;
/// When to come again for what could not be ordered now.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// Where the file of a plugin is read that the program does not bring along; none where there is none.
pub type Files = Box<dyn Fn(Digest) -> anyhow::Result<Option<Bytes>> + Send + Sync>;

/// What a workshop works with.
pub struct Equipment {
    pub compiler: Compiler,
    pub limits: Limits,
    /// For what engines there is to be code.
    pub forms: Vec<Purpose>,
    /// A folder for compiled code, whose files are authenticated with the key.
    pub folder: PathBuf,
    pub key: [u8; 32],
    pub files: Files,
    /// How much CPU time the compiler may take for one tenant within an hour.
    pub hour_max: Duration,
}

/// Has code compiled and keeps it on disk. The engines of a process share it.
pub struct Workshop {
    pub(super) limits: Limits,
    compiler: Compiler,
    forms: Vec<Purpose>,
    serving: Cache,
    measuring: Cache,
    files: Files,
    standard: HashMap<Digest, &'static [u8]>,
    /// The plugin that runs scripts.
    pub(super) javascript: Digest,
    pub(super) lane: Lane,
    orders: Mutex<Orders>,
    hours: Hours,
    me: Weak<Workshop>,
}

struct Orders {
    /// What is being made or waits for it, and who is told when that has ended.
    pending: HashMap<(Owner, Digest), watch::Sender<()>>,
    failed: fair::Cache<Digest, Failed>,
}

struct Failed {
    until: Instant,
    /// Why it cannot be made; none where the router is to blame.
    why: Option<String>,
}

/// Something that is being made.
#[derive(Clone, Debug)]
pub struct Making(Option<watch::Receiver<()>>);

impl Making {
    /// Ends when it is made or cannot be made, or when it is worth asking again.
    pub async fn ended(self) {
        match self.0 {
            // The sender is dropped then.
            Some(mut it) => while it.changed().await.is_ok() {},
            None => tokio::time::sleep(COME_AGAIN).await,
        }
    }
}

impl PartialEq for Making {
    /// Whatever it is, it is not there yet.
    fn eq(&self, _: &Making) -> bool {
        true
    }
}

impl Eq for Making {}

/// An order that is carried out. However that ends, those who wait for it are told.
struct UnderWay {
    workshop: Weak<Workshop>,
    order: (Owner, Digest),
    end: End,
}

enum End {
    /// There was no room for it, or the router stops. It is ordered again by whoever comes next.
    NotBegun,
    Panicked,
    Done(Result<(), Refusal>),
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(workshop) = self.workshop.upgrade() else { return };
        let result = match std::mem::replace(&mut self.end, End::Panicked) {
            End::NotBegun => Ok(()),
            End::Panicked => Err(Fault::Host("making it panicked".to_owned()).into()),
            End::Done(result) => result,
        };
        workshop.ended(&self.order, result);
    }
}

impl Workshop {
    /// # Errors
    ///
    /// A folder cannot be used, or the system gives no more threads.
    pub fn open(it: Equipment) -> anyhow::Result<Arc<Workshop>> {
        let serving = Cache::open(&it.folder, it.key)?;
        let measuring = Cache::open(&it.folder.join("measured"), it.key)?;
        let lane = Lane::start()?;
        Ok(Arc::new_cyclic(|me| Workshop {
            limits: it.limits,
            compiler: it.compiler,
            forms: it.forms,
            serving,
            measuring,
            files: it.files,
            standard: STANDARD_PLUGINS.iter().map(|(_, file)| (Digest::of(file), *file)).collect(),
            javascript: Digest::of(JAVASCRIPT),
            lane,
            orders: Mutex::new(Orders {
                pending: HashMap::new(),
                failed: fair::Cache::new(FAILED_MAX),
            }),
            hours: Hours::new(it.hour_max),
            me: Weak::clone(me),
        }))
    }

    pub(super) fn cache(&self, purpose: Purpose) -> &Cache {
        match purpose {
            Purpose::Serve => &self.serving,
            Purpose::Measure => &self.measuring,
        }
    }

    fn folder(&self) -> &Path {
        self.serving.folder()
    }

    /// Whether there is code in all forms.
    pub(super) fn has_all(&self, name: Digest) -> bool {
        self.forms.iter().all(|it| self.cache(*it).size(name).is_some())
    }

    /// Who pays for the making of a plugin: nobody for one that the router brings along.
    pub(super) fn payer(&self, plugin: Digest, tenant: &Owner) -> Owner {
        if self.standard.contains_key(&plugin) { None } else { tenant.clone() }
    }

    /// # Errors
    ///
    /// The file cannot be read, or there is none.
    pub(super) fn file(&self, plugin: Digest) -> Result<Bytes, Refusal> {
        if let Some(file) = self.standard.get(&plugin) {
            return Ok(Bytes::from_static(file));
        }
        let found = (self.files)(plugin).map_err(|err| Fault::Host(format!("{err:#}")))?;
        found.ok_or_else(|| Refusal::new("not-found", "its file is not in the store any more"))
    }

    /// Has a file compiled in the forms that are missing, and in this one at any rate.
    ///
    /// # Errors
    ///
    /// It cannot be compiled, or not now.
    pub(super) fn compile(
        &self,
        owner: &Owner,
        plugin: Digest,
        purpose: Purpose,
        file: &[u8],
    ) -> Result<About, Refusal> {
        let is_missing = |it: Purpose| it == purpose || self.cache(it).size(plugin).is_none();
        self.compile_for(owner, plugin, file, is_missing)
    }

    /// Has a file compiled in all forms, whatever is there already.
    ///
    /// # Errors
    ///
    /// As [`Workshop::compile`].
    pub(super) fn compile_anew(&self, owner: &Owner, file: &[u8]) -> Result<About, Refusal> {
        let plugin = Digest::of(file);
        let about = self.compile_for(owner, plugin, file, |_| true)?;
        self.orders().failed.remove(&plugin);
        Ok(about)
    }

    fn compile_for(
        &self,
        owner: &Owner,
        name: Digest,
        file: &[u8],
        wanted: impl Fn(Purpose) -> bool,
    ) -> Result<About, Refusal> {
        let forms: Vec<_> = self.forms.iter().copied().filter(|it| wanted(*it)).collect();
        self.make(owner, name, Job { forms, limits: self.limits, config: None }, file)
    }

    /// Has an image made of a plugin that has taken a configuration.
    ///
    /// # Errors
    ///
    /// There can be none, or not now.
    pub(super) fn compile_image(
        &self,
        owner: &Owner,
        name: Digest,
        file: &[u8],
        config: String,
    ) -> Result<About, Refusal> {
        let forms = vec![Purpose::Serve];
        self.make(owner, name, Job { forms, limits: self.limits, config: Some(config) }, file)
    }

    fn make(&self, owner: &Owner, name: Digest, job: Job, file: &[u8]) -> Result<About, Refusal> {
        let forms = job.forms.clone();
        let mut spent = Duration::ZERO;
        let made = self.compiler.compile(self.folder(), job, file, &mut spent);
        self.hours.charge(owner, clock::now_ms(), spent);
        let Made { about, lengths, mut code } = made?;
        for (purpose, length) in forms.into_iter().zip(lengths) {
            let kept = self.cache(purpose).store(name, owner, &about, &mut code, length);
            kept.map_err(|err| Fault::Host(format!("compiled code cannot be kept: {err}")))?;
        }
        Ok(about)
    }

    /// Keeps a script, which needs no code of its own but what is known of it.
    pub(super) fn keep_script(
        &self,
        owner: &Owner,
        plugin: Digest,
        about: &About,
        script: &str,
    ) -> Result<(), Refusal> {
        for purpose in &self.forms {
            let (mut text, length) = (script.as_bytes(), script.len() as u64);
            let kept = self.cache(*purpose).store(plugin, owner, about, &mut text, length);
            kept.map_err(|err| Fault::Host(format!("a script cannot be kept: {err}")))?;
        }
        self.orders().failed.remove(&plugin);
        Ok(())
    }

    /// What a schema that a stranger wrote says against a configuration, JSON text. Takes a moment: not
    /// for a thread that others wait for.
    ///
    /// # Errors
    ///
    /// It is not a schema, or it takes too long to say; or we cannot ask.
    pub fn violations(&self, schema: Value, config: &str) -> Result<Vec<Violation>, Refusal> {
        self.compiler.check(self.folder(), schema, config)
    }

    /// Does something in the owner's turn of the lane, which holds on to so many bytes until then; none where as
    /// much waits for the owner as may, or where it panics.
    pub async fn ask<T: Send + 'static>(
        &self,
        owner: &Owner,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.lane.ask(owner, bytes, work).await
    }

    /// Begins nothing any more. What is being compiled ends with this process.
    pub fn stop(&self) {
        self.lane.stop();
    }

    /// What is known of something that is not there.
    ///
    /// # Errors
    ///
    /// It is being made, or it cannot be made. If it is none of these, it is to be ordered.
    pub(super) fn standing(&self, owner: &Owner, name: Digest) -> Result<(), Fault> {
        let mut orders = self.orders();
        if let Some(ended) = orders.pending.get(&(owner.clone(), name)) {
            return Err(Fault::NotReady(Making(Some(ended.subscribe()))));
        }
        match orders.failed.get(&name) {
            Some(failed) if failed.until > Instant::now() => Err(match &failed.why {
                Some(why) => Fault::Unfit(format!("it cannot be compiled any more: {why}")),
                None => Fault::NotReady(Making(None)),
            }),
            _ => Ok(()),
        }
    }

    /// Orders something, which holds on to so many bytes, unless it is ordered already. Answers that it is being
    /// made.
    pub(super) fn order(
        &self,
        owner: &Owner,
        name: Digest,
        rank: Rank,
        bytes: usize,
        work: impl FnOnce() -> Result<(), Refusal> + Send + 'static,
    ) -> Fault {
        let order = (owner.clone(), name);
        let mut orders = self.orders();
        if let Some(ended) = orders.pending.get(&order) {
            return Fault::NotReady(Making(Some(ended.subscribe())));
        }
        let (ended, wait) = watch::channel(());
        orders.pending.insert(order.clone(), ended);
        drop(orders);
        let workshop = Weak::clone(&self.me);
        let under_way = UnderWay { workshop, order, end: End::NotBegun };
        let work = move || {
            let mut under_way = under_way;
            under_way.end = End::Panicked;
            under_way.end = End::Done(work());
        };
        let is_ordered = self.lane.submit(owner, rank, bytes, work).is_ok();
        Fault::NotReady(Making(is_ordered.then_some(wait)))
    }

    fn ended(&self, order: &(Owner, Digest), result: Result<(), Refusal>) {
        let mut orders = self.orders();
        // Whoever waits is told by that.
        orders.pending.remove(order);
        let Err(refusal) = result else { return };
        let (owner, name) = order;
        tracing::warn!(%name, code = refusal.code, why = refusal.detail, "code cannot be made");
        let (why, wait) = match refusal.is_ours() {
            true => (None, OURS_AGAIN),
            false => (Some(shortened(&refusal.detail).to_owned()), REFUSED_AGAIN),
        };
        let failed = Failed { until: Instant::now() + wait, why };
        orders.failed.put(owner, *name, 1, failed);
    }

    /// Why the compiler does no more for a tenant in this hour; none where it does.
    pub fn hour_is_over(&self, owner: &Owner) -> Option<String> {
        self.hours.is_over(owner, clock::now_ms())
    }

    /// How much CPU time the compiler has taken for a tenant in this hour.
    pub fn compiled_for(&self, tenant: &Tenant) -> Duration {
        self.hours.spent(tenant, clock::now_ms())
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        lock(&self.orders)
    }
}

/// As much of a text as is kept of it: it may be a stranger's.
pub(super) fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
