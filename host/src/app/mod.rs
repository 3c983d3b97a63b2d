//! What is opened once at start and lent to everyone, and the signals by which the rooms wake each other.

mod plugins;
mod threads;

use std::collections::HashMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::available_parallelism;

use anyhow::Context;
use hookyard_nouns::clock;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::rendering::Rendered;
use hookyard_nouns::subscription::{State, Subscription};
use serde_json::Value;
use tokio::sync::{Mutex, Notify, watch};
use uuid::Uuid;

use crate::config::Settings;
use crate::descriptors::{self, Shares};
use crate::dns::Dns;
use crate::egress::Egress;
use crate::fair::Pool;
use crate::formats::{AccountRate, Format, Formats};
use crate::health::{self, Health, Who};
use crate::inbox::Inbox;
use crate::index::Index;
use crate::keys::SigningKey;
use crate::manage::{Backlogs, Releases, Uploads};
use crate::marks::{Marks, SetAside, Slot, Work};
use crate::secret::{ServerKey, open_to_others};
use crate::send::Sender;
use crate::store::{self, LogEntry, Quarantine, Sharing, Signals, Sqlite, Store, Unrouted};
use crate::supervise::Stages;
use crate::trial::Shadows;
use crate::wasm::{Runtime, StepRun, Workshop};
use plugins::Plugins;
use threads::Threads;

/// What all rooms are lent: settings, the store, the engine, and each other's signals.
pub struct App {
    pub settings: Settings,
    pub store: Arc<dyn Store>,
    pub formats: Formats,
    /// Makes the code of plugins.
    pub workshop: Arc<Workshop>,
    pub runtime: Arc<Runtime>,
    /// For trials: it counts what a run costs.
    pub measuring: Arc<Runtime>,
    pub egress: Arc<Egress>,
    pub sender: Sender,
    pub dns: Arc<Dns>,
    pub key: ServerKey,
    /// Keys for deliveries, by selector.
    pub keys: std::sync::Mutex<HashMap<String, Arc<SigningKey>>>,
    pub making_key: Mutex<()>,
    /// What routes events and makes bodies.
    pub workers: Pool<Slot>,
    /// What runs plugins for which no event waits: trials, checks of configurations, probes, shadows.
    pub trials: Pool<Slot>,
    /// What reads large bodies of the API and writes large answers. The workers may have thousands of tasks of a
    /// tenant waiting, behind which its calls would not be answered.
    pub parsers: Pool<()>,
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
    /// What goes to the dispatcher.
    pub outgoing: Arc<Inbox>,
    /// What has ended the process twice, and is not worked on any more.
    pub set_aside: SetAside,
    /// What was being worked on when the last process ended without being stopped.
    pub was_worked_on: Vec<Work>,
    pub stages: Arc<Stages>,
}

fn open_store(
    settings: &Settings,
    key: &ServerKey,
    signals: Signals,
) -> anyhow::Result<Arc<dyn Store>> {
    let path = settings.sqlite_path()?;
    let sqlite = Sqlite::open(path, key.clone(), Sharing::Exclusive, settings.quotas(), signals)
        .with_context(|| format!("cannot open the store `{}`", settings.store))?;
    Ok(Arc::new(sqlite))
}

impl App {
    /// Opens everything. Must be called within a Tokio runtime. `accepted` is called by the store's
    /// writer with the events of each commit, and must not wait.
    ///
    /// # Errors
    ///
    /// Something cannot be opened; the text says what and why.
    pub async fn open(
        mut settings: Settings,
        formats: Formats,
        accepted: Box<dyn Fn(Vec<Unrouted>) + Send>,
    ) -> anyhow::Result<App> {
        let egress = Arc::new(settings.egress());
        let shares = shares(&settings);
        // What has no socket waits in its queue, where it costs nothing.
        settings.in_flight_max = settings.in_flight_max.min(shares.endpoints);
        settings.connections_max = settings.connections_max.min(shares.api);
        let dns = Arc::new(Dns::new(&settings.dns_servers, shares.look_ups));
        let sender = Sender::new(Arc::clone(&egress), Arc::clone(&dns), shares.endpoints)
            .context("cannot set up outgoing HTTP")?;
        let key = server_key(&settings)?;
        let (tell_tokens, tokens_changed) = watch::channel(0);
        let signals = Signals {
            accepted,
            changed: Box::new(move || tell_tokens.send_modify(|count| *count += 1)),
        };
        let store = open_store(&settings, &key, signals)?;

        let workers = match settings.workers {
            0 => available_parallelism().map_or(2, NonZero::get),
            count => count,
        };
        let Plugins { workshop, runtime, measuring } =
            plugins::open(&settings, workers, &store, &key)?;
        let marks = settings.beside_store(Path::new(""), ".working")?;
        let marks =
            Marks::open(&marks).with_context(|| format!("cannot use `{}`", marks.display()))?;
        let was_worked_on = marks.left().to_vec();
        let Threads { workers, trials, parsers } =
            threads::start(marks, workers).context("cannot start the worker threads")?;
        let app = App {
            formats,
            dns,
            workshop,
            runtime,
            measuring,
            key,
            keys: std::sync::Mutex::default(),
            making_key: Mutex::default(),
            sender,
            health: Health::default(),
            uploads: Uploads::default(),
            replay_begins: Notify::new(),
            releases: Releases::default(),
            backlogs: Backlogs::default(),
            shadows: Shadows::default(),
            was_worked_on,
            workers,
            trials,
            parsers,
            egress,
            store,
            settings,
            tokens_changed,
            account_rates: RwLock::default(),
            index: RwLock::default(),
            revision: AtomicU64::new(0),
            catching_up: Mutex::default(),
            outgoing: Arc::default(),
            set_aside: SetAside::default(),
            stages: Arc::default(),
        };
        app.take_up().await?;
        Ok(app)
    }

    /// Reads from the store what is kept in memory, once at start.
    async fn take_up(&self) -> store::Result<()> {
        for (tenant, format, settings) in self.store.all_settings().await? {
            self.set_account_rate(&tenant, self.format(format), &settings);
        }
        self.health.take_up(self.store.quarantines().await?);
        self.read_changes().await?;
        for id in self.store.holding().await? {
            if let Some(it) = self.subscription(id).filter(|it| it.state == State::Active) {
                self.releases.begin(&it.tenant, id);
            }
        }
        Ok(())
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

    /// Counts what plugins have done for a subscription. Answers with the lines that are to be kept, and with the
    /// quarantine that is to begin where it has been too bad.
    pub fn count_runs(
        &self,
        who: Who<'_>,
        rendered: &Rendered,
        runs: Vec<StepRun>,
    ) -> (Vec<LogEntry>, Option<Quarantine>) {
        let now_ms = clock::now_ms();
        let counted = self.health.count(who, runs, now_ms);
        let wait_ms = self.settings.plugin_probe_ms;
        let begins = match (counted.failing, rendered) {
            (Some(plugin), Rendered::Failed(reason)) => {
                Some(health::quarantine(who, plugin, reason.clone(), now_ms, wait_ms))
            }
            _ => None,
        };
        (counted.lines, begins)
    }

    /// Begins a quarantine. Nothing is held before it is on disk that it is to be: a crash would leave it held.
    pub async fn begin_quarantine(&self, it: Quarantine) {
        match self.store.put_quarantine(it.clone()).await {
            Ok(()) => {
                self.health.quarantine(it);
                self.health.changed.notify_one();
            }
            Err(err) => {
                tracing::warn!(plugin = %it.plugin, %err, "cannot quarantine a plugin that fails");
            }
        }
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
        for (tenant, id) in self.read_changes().await? {
            self.outgoing.changed(&tenant, [id]);
        }
        Ok(())
    }

    async fn read_changes(&self) -> store::Result<Vec<(Tenant, Uuid)>> {
        let _one = self.catching_up.lock().await;
        let known = self.revision.load(Ordering::Acquire);
        let (revision, versions) = self.store.changes(known).await?;
        let mut changed = Vec::new();
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        for version in versions {
            let (id, began) = (version.subscription.id, version.subscription.revision);
            let tenant = version.subscription.tenant.clone();
            if began > known {
                index.put(Arc::new(version.subscription));
            }
            if let Some(ended) = version.ended {
                index.end(id, ended);
            }
            changed.push((tenant, id));
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

/// How the descriptors of this process are shared. Where there are too few of them, the log says so.
fn shares(settings: &Settings) -> Shares {
    let (limit, in_flight_max) = (descriptors::limit(), settings.in_flight_max);
    let shares = Shares::new(limit, in_flight_max);
    if let Some(complaint) = shares.complaint(limit, in_flight_max) {
        tracing::warn!("{complaint}");
    }
    if shares.api < settings.connections_max {
        tracing::warn!(
            "takes {} connections and not {} (`connections-max`), a quarter of the {limit} files that this \
             process may open: raise the hard limit (`ulimit -Hn`, `LimitNOFILE=`), or lower \
             connections-max",
            shares.api,
            settings.connections_max
        );
    }
    shares
}

/// From the environment, or else from a file.
pub fn server_key(settings: &Settings) -> anyhow::Result<ServerKey> {
    if let Ok(text) = std::env::var("HOOKYARD_KEY") {
        return ServerKey::parse(&text)
            .map_err(anyhow::Error::msg)
            .context("HOOKYARD_KEY is wrong");
    }
    let path = settings.beside_store(&settings.key_file, ".key")?;
    let is_written = settings.sqlite_path()?.metadata().is_ok_and(|it| it.len() > 0);
    anyhow::ensure!(
        path.exists() || !is_written,
        "there is no key file `{}`, and the store was written with one: put it back; another one cannot open \
         the signing secrets",
        path.display()
    );
    open_to_others(&path).inspect(|why| tracing::warn!("{why}"));
    ServerKey::open(&path).with_context(|| format!("cannot use the key file `{}`", path.display()))
}
