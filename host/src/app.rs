//! What is opened once at start and lent to everyone, and the signals by which the rooms wake each other.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::available_parallelism;

use anyhow::Context;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use uuid::Uuid;

use crate::clock;
use crate::config::Settings;
use crate::delivery::Delivery;
use crate::dns::Dns;
use crate::egress::Egress;
use crate::event::Tenant;
use crate::formats::{AccountRate, Format, Formats};
use crate::health::{self, Health, Who};
use crate::index::Index;
use crate::keys::SigningKey;
use crate::manage::{Backlogs, Releases, Uploads};
use crate::render::{Body, Rendered};
use crate::secret::ServerKey;
use crate::send::Sender;
use crate::store::{self, LogEntry, Record, Sharing, Signals, Sqlite, Store, Unrouted};
use crate::subscription::{State, Subscription};
use crate::trial::Shadows;
use crate::wasm::{Files, Purpose, Runtime, StepRun};
use crate::workers::Workers;

/// See the head of this module.
pub struct App {
    pub settings: Settings,
    pub store: Arc<dyn Store>,
    pub formats: Formats,
    pub runtime: Arc<Runtime>,
    /// For trials: it counts what a run costs.
    pub measuring: Arc<Runtime>,
    pub egress: Arc<Egress>,
    pub sender: Sender,
    pub dns: Dns,
    pub key: ServerKey,
    /// Keys for deliveries, by selector.
    pub keys: std::sync::Mutex<HashMap<String, Arc<SigningKey>>>,
    pub making_key: Mutex<()>,
    pub workers: Workers,
    pub health: Health,
    pub uploads: Uploads,
    /// A replay has been asked for.
    pub replay_begins: Notify,
    /// What was held and is going out again.
    pub releases: Releases,
    /// Who may publish no more for now.
    pub backlogs: Backlogs,
    pub shadows: Shadows,
    /// Grows whenever tokens may have been changed by another process.
    pub tokens_changed: watch::Receiver<u64>,
    /// How fast accounts take deliveries, where they have said so.
    account_rates: RwLock<HashMap<(Tenant, &'static str), AccountRate>>,
    index: RwLock<Index>,
    /// The revision that the index knows.
    revision: AtomicU64,
    catching_up: Mutex<()>,
    /// What stage 3 is told.
    pub outgoing: mpsc::Sender<Signal>,
}

/// What the dispatcher is told by rooms that do not know it.
#[derive(Debug)]
pub enum Signal {
    /// Deliveries to be made now.
    Ready(Vec<Ready>),
    /// Subscriptions that have changed, or have deliveries in the store that were not there before.
    Changed(Vec<Uuid>),
}

/// A delivery with its body, ready to be attempted, which the store may not know yet.
#[derive(Debug)]
pub struct Ready {
    pub tenant: Tenant,
    pub event_seq: u64,
    pub delivery: Delivery,
    pub body: Body,
    /// It is about an event of our own.
    pub is_ours: bool,
    /// What the plugins took to make the body, in microseconds; none where none ran.
    pub plugins_us: Option<u32>,
    /// None when the store has the delivery already.
    pub unrecorded: Option<Arc<Unrecorded>>,
}

/// Knows when the store knows all deliveries of an event.
#[derive(Debug)]
pub struct Unrecorded {
    tenant: Tenant,
    event_seq: u64,
    /// One for the routing of the event, and one for each delivery.
    left: AtomicUsize,
}

impl Unrecorded {
    /// The event is being routed.
    pub fn new(tenant: Tenant, event_seq: u64) -> Unrecorded {
        Unrecorded { tenant, event_seq, left: AtomicUsize::new(1) }
    }

    /// There is another delivery that has to be recorded.
    pub fn one_more(&self) {
        self.left.fetch_add(1, Ordering::AcqRel);
    }

    /// To be called when a delivery is handed to the store, or when the routing ends. What the last of
    /// them answers has to be handed over after it.
    pub fn one_recorded(&self) -> Option<Record> {
        let last = self.left.fetch_sub(1, Ordering::AcqRel) == 1;
        last.then(|| Record::Routed { tenant: self.tenant.clone(), seq: self.event_seq })
    }
}

impl App {
    /// Opens everything. Must be called within a Tokio runtime. `accepted` is called by the store's
    /// writer with the events of each commit, and must not wait.
    ///
    /// # Errors
    ///
    /// Something cannot be opened; the text says what and why.
    pub async fn open(
        settings: Settings,
        formats: Formats,
        accepted: Box<dyn Fn(Vec<Unrouted>) + Send>,
        outgoing: mpsc::Sender<Signal>,
    ) -> anyhow::Result<App> {
        let egress = Arc::new(Egress::new(settings.endpoints(), settings.egress_allow.clone()));
        let key = server_key(&settings)?;
        let (tell_tokens, tokens_changed) = watch::channel(0);
        let signals = Signals {
            accepted,
            changed: Box::new(move || tell_tokens.send_modify(|count| *count += 1)),
        };
        let path = settings.sqlite_path()?;
        let sqlite = Sqlite::open(path, key.clone(), Sharing::Exclusive, signals)
            .with_context(|| format!("cannot open the store `{}`", settings.store))?;
        let store: Arc<dyn Store> = Arc::new(sqlite);

        let workers = match settings.workers {
            0 => available_parallelism().map_or(2, NonZero::get),
            count => count,
        };
        let limits =
            settings.limits(u32::try_from(workers).context("that many workers cannot be had")?);
        let cache = settings.beside_store(&settings.plugin_cache, ".plugins")?;
        let compiler = settings.compiler()?;
        let runtime = |purpose| {
            let (key, files) = (key.derive("compiled plugins"), plugin_files(Arc::clone(&store)));
            Runtime::new(limits, purpose, compiler.clone(), &cache, key, files).with_context(|| {
                format!("cannot set up plugins with the cache `{}`", cache.display())
            })
        };
        let app = App {
            formats,
            dns: Dns::new(&settings.dns_servers),
            runtime: runtime(Purpose::Serve)?,
            measuring: runtime(Purpose::Measure)?,
            key,
            keys: std::sync::Mutex::default(),
            making_key: Mutex::default(),
            sender: Sender::new(Arc::clone(&egress)).context("cannot set up outgoing HTTP")?,
            health: Health::default(),
            uploads: Uploads::default(),
            replay_begins: Notify::new(),
            releases: Releases::default(),
            backlogs: Backlogs::default(),
            shadows: Shadows::default(),
            workers: Workers::start(workers).context("cannot start the worker threads")?,
            egress,
            store,
            settings,
            tokens_changed,
            account_rates: RwLock::default(),
            index: RwLock::default(),
            revision: AtomicU64::new(0),
            catching_up: Mutex::default(),
            outgoing,
        };
        for (tenant, format, settings) in app.store.all_settings().await? {
            app.set_account_rate(&tenant, app.format(format), &settings);
        }
        app.health.take_up(app.store.quarantines().await?);
        app.read_changes().await?;
        for id in app.store.holding().await? {
            if app.subscription(id).is_some_and(|it| it.state == State::Active) {
                app.releases.begin(id);
            }
        }
        Ok(app)
    }

    /// What an account has set holds from now on.
    pub fn set_account_rate(&self, tenant: &Tenant, format: &dyn Format, settings: &Value) {
        let rate = format.api().and_then(|api| api.account_rate(settings));
        let mut rates = self.account_rates.write().unwrap_or_else(PoisonError::into_inner);
        let account = (tenant.clone(), format.name());
        match rate {
            Some(rate) => _ = rates.insert(account, rate),
            None => _ = rates.remove(&account),
        }
    }

    /// How fast an account takes deliveries, where it has said so.
    pub fn account_rate(&self, account: &(Tenant, &'static str)) -> Option<AccountRate> {
        let rates = self.account_rates.read().unwrap_or_else(PoisonError::into_inner);
        rates.get(account).copied()
    }

    /// Counts what plugins have done for a subscription, and begins a quarantine where it has been too
    /// bad. Answers with the lines that are to be kept.
    pub async fn count_runs(
        &self,
        who: Who<'_>,
        rendered: &Rendered,
        runs: Vec<StepRun>,
    ) -> Vec<LogEntry> {
        let now_ms = clock::now_ms();
        let counted = self.health.count(who, runs, now_ms);
        if let (Some(plugin), Rendered::Failed(reason)) = (counted.failing, rendered) {
            let wait_ms = self.settings.plugin_probe_ms;
            let it = health::quarantine(who, plugin, reason.clone(), now_ms, wait_ms);
            // Nothing is held before it is on disk that it is to be: a crash would leave it held.
            match self.store.put_quarantine(it.clone()).await {
                Ok(()) => {
                    self.health.quarantine(it);
                    self.health.changed.notify_one();
                }
                Err(err) => tracing::warn!(%plugin, %err, "cannot quarantine a plugin that fails"),
            }
        }
        counted.lines
    }

    /// Which subscriptions there are.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present state of a subscription.
    pub fn subscription(&self, id: Uuid) -> Option<Arc<Subscription>> {
        self.index().current(id).cloned()
    }

    /// The revision that the index knows.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Whether the index knows everything up to a revision.
    pub fn knows(&self, revision: u64) -> bool {
        revision <= self.revision()
    }

    /// Brings the index up to date with the store, and tells the dispatcher what has changed.
    ///
    /// # Errors
    ///
    /// The store cannot be read; the index stays as it was.
    pub async fn catch_up(&self) -> store::Result<()> {
        let changed = self.read_changes().await?;
        if !changed.is_empty() {
            // Without a dispatcher there is nobody to tell.
            let _ = self.outgoing.send(Signal::Changed(changed)).await;
        }
        Ok(())
    }

    async fn read_changes(&self) -> store::Result<Vec<Uuid>> {
        let _one = self.catching_up.lock().await;
        let known = self.revision.load(Ordering::Acquire);
        let (revision, versions) = self.store.changes(known).await?;
        let mut changed = Vec::new();
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        for version in versions {
            let (id, began) = (version.subscription.id, version.subscription.revision);
            if began > known {
                index.put(Arc::new(version.subscription));
            }
            if let Some(ended) = version.ended {
                index.end(id, ended);
            }
            changed.push(id);
        }
        self.revision.store(revision, Ordering::Release);
        Ok(changed)
    }

    /// Forgets states of subscriptions that no event can ask for any more.
    pub fn prune_index(&self, revision: u64) {
        self.index.write().unwrap_or_else(PoisonError::into_inner).prune(revision);
    }

    /// The format of a stored subscription or event.
    ///
    /// # Panics
    ///
    /// The format is known by name and not built in: the store was written by a newer program.
    pub fn format(&self, name: &str) -> &dyn Format {
        self.formats.get(name).expect("the store has only formats that this program knows")
    }
}

/// From the environment, or else from a file.
pub fn server_key(settings: &Settings) -> anyhow::Result<ServerKey> {
    if let Ok(text) = std::env::var("HOOKYARD_KEY") {
        return ServerKey::parse(&text)
            .map_err(anyhow::Error::msg)
            .context("HOOKYARD_KEY is wrong");
    }
    let path = settings.beside_store(&settings.key_file, ".key")?;
    ServerKey::open(&path).with_context(|| format!("cannot use the key file `{}`", path.display()))
}

/// Plugins are asked for on worker threads, which may wait.
fn plugin_files(store: Arc<dyn Store>) -> Files {
    let handle = Handle::current();
    Box::new(move |digest| {
        let file = handle.block_on(store.plugin_file(digest))?;
        file.with_context(|| format!("the store has no plugin {digest}"))
    })
}
