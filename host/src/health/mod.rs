//! How plugins do: what their runs take, how often they fail, what they write, and for which
//! subscriptions they are not run for a while because they fail.

mod breaker;
mod meter;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use hookyard_nouns::delivery::Reason;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::plugin::LogLine;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::fair::{Cache, Owner};
use crate::store::{LogEntry, Quarantine};
use crate::wasm::StepRun;
use breaker::Breaker;
use meter::Meter;

pub use meter::Usage;

/// Of how many pairs of subscription and plugin is known how they fail, and what their runs take, which is
/// some 20 KB of each. Where there are more, the tenant with the most of them loses some of its own.
const BREAKERS_MAX: usize = 32_768;
const METERS_MAX: usize = 2_048;
/// How many versions are known to have failed.
const FAILING_MAX: usize = 4_096;
/// How many lines a plugin may write for a subscription each minute.
const LINES_MAX: u32 = 120;
const MINUTE_MS: i64 = 60_000;

/// What is counted of plugins, and which subscriptions are quarantined.
pub struct Health {
    watched: Mutex<Watched>,
    quarantines: RwLock<HashMap<Uuid, Quarantine>>,
    /// Versions that have been quarantined for somebody.
    failing: Mutex<Cache<Digest, ()>>,
    /// How many quarantines there are: nearly always none, which costs no lock to know.
    quarantined: AtomicUsize,
    /// A quarantine has begun, or is to be looked at before its time.
    pub changed: Notify,
}

/// A subscription and a plugin that it runs.
type Pair = (Uuid, Digest);

struct Watched {
    breakers: Cache<Pair, Breaking>,
    meters: Cache<Pair, (Tenant, Meter)>,
}

#[derive(Default)]
struct Breaking {
    breaker: Breaker,
    /// The minute, and how many lines there were in it.
    lines: (i64, u32),
}

impl Default for Health {
    fn default() -> Health {
        let watched =
            Watched { breakers: Cache::new(BREAKERS_MAX), meters: Cache::new(METERS_MAX) };
        Health {
            watched: Mutex::new(watched),
            quarantines: RwLock::default(),
            failing: Mutex::new(Cache::new(FAILING_MAX)),
            quarantined: AtomicUsize::default(),
            changed: Notify::default(),
        }
    }
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
        let owner = Some(who.tenant.clone());
        for run in runs {
            let pair = (who.subscription, run.plugin);
            watched.meter(&owner, pair, who.tenant, now_ms).count(&run);
            let it = watched.breaking(&owner, pair);
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
        let mine = watched.meters.iter().filter(|((_, plugin), (of, _))| {
            of == tenant && (plugins.is_empty() || plugins.contains(plugin))
        });
        let mut usage: Vec<_> = mine
            .map(|((subscription, plugin), (_, it))| it.usage(*subscription, *plugin))
            .collect();
        usage.sort_by_key(|it| std::cmp::Reverse(it.runs));
        usage
    }

    /// Takes up what is kept in the store.
    pub fn take_up(&self, quarantines: Vec<Quarantine>) {
        quarantines.into_iter().for_each(|it| self.quarantine(it));
    }

    /// From now on, deliveries of the subscription are held.
    pub fn quarantine(&self, it: Quarantine) {
        lock(&self.failing).put(&Some(it.tenant.clone()), it.plugin, 1, ());
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
    fn meter(&mut self, owner: &Owner, pair: Pair, tenant: &Tenant, now_ms: i64) -> &mut Meter {
        if !self.meters.contains(&pair) {
            self.meters.put(owner, pair, 1, (tenant.clone(), Meter::new(now_ms)));
        }
        &mut self.meters.get(&pair).expect("what is new is kept").1
    }

    fn breaking(&mut self, owner: &Owner, pair: Pair) -> &mut Breaking {
        if !self.breakers.contains(&pair) {
            self.breakers.put(owner, pair, 1, Breaking::default());
        }
        self.breakers.get(&pair).expect("what is new is kept")
    }
}

impl Breaking {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failure(plugin: Digest) -> StepRun {
        StepRun {
            step: 0,
            plugin,
            time: Duration::ZERO,
            memory_bytes: 0,
            output_bytes: 0,
            fuel: None,
            log: Vec::new(),
            fault: Some("plugin-trap"),
        }
    }

    #[test]
    fn nobodys_breaker_is_forgotten_for_anothers_many() {
        let health = Health::default();
        let (mine, other) = (Tenant::new("mine").unwrap(), Tenant::new("other").unwrap());
        let (plugin, subscription) = (Digest::of(b"p"), Uuid::now_v7());
        let fails = |tenant: &Tenant, subscription: Uuid| {
            let who = Who { tenant, subscription, event: Uuid::nil() };
            health.count(who, vec![failure(plugin)], 0).failing
        };
        for _ in 0..4 {
            assert_eq!(fails(&mine, subscription), None);
            for _ in 0..BREAKERS_MAX / 2 {
                fails(&other, Uuid::now_v7());
            }
        }
        assert_eq!(fails(&mine, subscription), Some(plugin), "it is the fifth in a row");
        assert_eq!(health.usage(&mine, &[])[0].runs, 5);
        assert_eq!(health.usage(&other, &[]).len(), METERS_MAX - 1);
    }
}
