//! How plugins do: what their runs take, how often they fail, what they write, and for which
//! subscriptions they are not run for a while because they fail.

mod breaker;
mod meter;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::delivery::Reason;
use crate::event::Tenant;
use crate::plugin::{Digest, LogLine};
use crate::store::{LogEntry, Quarantine};
use crate::wasm::StepRun;
use breaker::Breaker;
use meter::Meter;

pub use meter::Usage;

/// Of how many pairs of subscription and plugin something is known.
const WATCHED_MAX: usize = 4_096;
/// How many lines a plugin may write for a subscription each minute.
const LINES_MAX: u32 = 120;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// See the head of this module.
#[derive(Default)]
pub struct Health {
    watched: Mutex<HashMap<(Uuid, Digest), Watched>>,
    quarantines: RwLock<HashMap<Uuid, Quarantine>>,
    /// Versions that have been quarantined for somebody.
    failing: Mutex<HashSet<Digest>>,
    /// Of each tenant, the hour and how long the compiler has worked for it in that hour.
    compiling: Mutex<HashMap<Tenant, (i64, Duration)>>,
    /// How many quarantines there are: nearly always none, which costs no lock to know.
    quarantined: AtomicUsize,
    /// A quarantine has begun, or is to be looked at before its time.
    pub changed: Notify,
}

struct Watched {
    tenant: Tenant,
    meter: Meter,
    breaker: Breaker,
    /// The minute, and how many lines there were in it.
    lines: (i64, u32),
}

/// For whom something was run.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    pub tenant: &'a Tenant,
    pub subscription: Uuid,
    pub event: Uuid,
}

/// What follows from the runs for one event.
#[derive(Debug, Default)]
pub struct Counted {
    /// What is to be kept of the lines that were written.
    pub lines: Vec<LogEntry>,
    /// A plugin that has failed too often.
    pub failing: Option<Digest>,
}

impl Health {
    /// Counts runs.
    pub fn count(&self, who: Who<'_>, runs: Vec<StepRun>, now_ms: i64) -> Counted {
        let mut counted = Counted::default();
        if runs.is_empty() {
            return counted;
        }
        let mut watched = lock(&self.watched);
        for run in runs {
            let key = (who.subscription, run.plugin);
            if watched.len() >= WATCHED_MAX && !watched.contains_key(&key) {
                // Whoever is forgotten is known anew after the next run.
                let any = watched.keys().next().copied();
                any.map(|it| watched.remove(&it));
            }
            let it = watched.entry(key).or_insert_with(|| Watched {
                tenant: who.tenant.clone(),
                meter: Meter::new(now_ms),
                breaker: Breaker::default(),
                lines: (0, 0),
            });
            it.meter.count(&run);
            if it.breaker.count(run.fault.is_some(), now_ms / MINUTE_MS) {
                counted.failing = Some(run.plugin);
            }
            for line in run.log {
                if it.may_write(now_ms / MINUTE_MS) {
                    counted.lines.push(entry(who, run.plugin, now_ms, line));
                }
            }
        }
        counted
    }

    /// What the runs of some plugins have taken, for the subscriptions of a tenant, since this process
    /// began to count.
    pub fn usage(&self, tenant: &Tenant, plugins: &[Digest]) -> Vec<Usage> {
        let watched = lock(&self.watched);
        let mine = watched.iter().filter(|((_, plugin), it)| {
            it.tenant == *tenant && (plugins.is_empty() || plugins.contains(plugin))
        });
        let mut usage: Vec<_> = mine
            .map(|((subscription, plugin), it)| it.meter.usage(*subscription, *plugin))
            .collect();
        usage.sort_by_key(|it| std::cmp::Reverse(it.runs));
        usage
    }

    /// How long the compiler has worked for a tenant in this hour.
    pub fn compiled_for(&self, tenant: &Tenant, now_ms: i64) -> Duration {
        let compiling = lock(&self.compiling);
        let it = compiling.get(tenant).filter(|(hour, _)| *hour == now_ms / HOUR_MS);
        it.map_or(Duration::ZERO, |(_, time)| *time)
    }

    /// The compiler has worked for a tenant.
    pub fn compiled(&self, tenant: &Tenant, now_ms: i64, time: Duration) {
        let mut compiling = lock(&self.compiling);
        compiling.retain(|_, (hour, _)| *hour == now_ms / HOUR_MS);
        compiling.entry(tenant.clone()).or_insert((now_ms / HOUR_MS, Duration::ZERO)).1 += time;
    }

    /// Takes up what is kept in the store.
    pub fn take_up(&self, quarantines: Vec<Quarantine>) {
        quarantines.into_iter().for_each(|it| self.quarantine(it));
    }

    /// From now on, deliveries of the subscription are held.
    pub fn quarantine(&self, it: Quarantine) {
        let mut failing = lock(&self.failing);
        if failing.len() >= WATCHED_MAX {
            failing.clear();
        }
        failing.insert(it.plugin);
        drop(failing);
        let mut quarantines = self.quarantines.write().unwrap_or_else(PoisonError::into_inner);
        quarantines.insert(it.subscription, it);
        self.quarantined.store(quarantines.len(), Ordering::Release);
    }

    /// Whether a version has failed so often for some subscription that it was quarantined.
    pub fn has_failed(&self, plugin: Digest) -> bool {
        lock(&self.failing).contains(&plugin)
    }

    /// The plugin is run again.
    pub fn lift(&self, subscription: Uuid) {
        let mut quarantines = self.quarantines.write().unwrap_or_else(PoisonError::into_inner);
        quarantines.remove(&subscription);
        self.quarantined.store(quarantines.len(), Ordering::Release);
    }

    /// A quarantine is looked at before its time.
    pub fn probe_now(&self, subscription: Uuid, now_ms: i64) {
        let mut quarantines = self.quarantines.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(it) = quarantines.get_mut(&subscription) {
            it.probe_at_ms = now_ms;
            self.changed.notify_one();
        }
    }

    /// The quarantine of a subscription, if it is in one.
    pub fn quarantine_of(&self, subscription: Uuid) -> Option<Quarantine> {
        if self.quarantined.load(Ordering::Acquire) == 0 {
            return None;
        }
        let quarantines = self.quarantines.read().unwrap_or_else(PoisonError::into_inner);
        quarantines.get(&subscription).cloned()
    }

    /// All of them.
    pub fn quarantines(&self) -> Vec<Quarantine> {
        let quarantines = self.quarantines.read().unwrap_or_else(PoisonError::into_inner);
        quarantines.values().cloned().collect()
    }
}

/// The beginning of a quarantine.
pub fn quarantine(
    who: Who<'_>,
    plugin: Digest,
    reason: Reason,
    now_ms: i64,
    probe_after_ms: i64,
) -> Quarantine {
    Quarantine {
        subscription: who.subscription,
        tenant: who.tenant.clone(),
        plugin,
        reason,
        since_ms: now_ms,
        probes: 0,
        probe_at_ms: now_ms + probe_after_ms,
    }
}

impl Watched {
    fn may_write(&mut self, minute: i64) -> bool {
        if self.lines.0 != minute {
            self.lines = (minute, 0);
        }
        self.lines.1 += 1;
        self.lines.1 <= LINES_MAX
    }
}

fn entry(who: Who<'_>, plugin: Digest, at_ms: i64, line: LogLine) -> LogEntry {
    LogEntry {
        tenant: who.tenant.clone(),
        plugin,
        subscription: who.subscription,
        event: who.event,
        at_ms,
        line,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
