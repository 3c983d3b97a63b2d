//! A proposed pipeline beside the real one, on a share of what is published. What comes of it is only
//! counted. Shadows live in memory and end with the process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use hookyard_nouns::clock;
use hookyard_nouns::delivery::Reason;
use hookyard_nouns::event::{Event, Tenant};
use hookyard_nouns::rendering::{Rendered, Rendering};
use hookyard_nouns::subscription::StepRef;
use serde::Serialize;
use uuid::Uuid;

use super::compare::{Change, Difference, Totals, differences, judge};
use crate::fair::Busy;
use crate::formats::Format;
use crate::render::render;
use crate::wasm::Runtime;

/// How many differences a shadow keeps as examples.
const EXAMPLES_MAX: usize = 50;
/// How many shadows there may be: of all tenants, and of one.
const SHADOWS_MAX: usize = 256;
const OWN_SHADOWS_MAX: usize = 32;
/// How much may wait to be seen by shadows, with what it is compared with: for all tenants, and for one.
const WAITING_BYTES_MAX: usize = 16 << 20;
const OWN_WAITING_BYTES_MAX: usize = 2 << 20;
/// What waits takes as much memory as this, however small the event is.
const WAITING_BYTES_MIN: usize = 4 << 10;

/// One proposed pipeline.
#[derive(Debug)]
pub struct Shadow {
    pub tenant: Tenant,
    pub steps: Vec<StepRef>,
    pub rendering: Rendering,
    /// Of a hundred events, about this many.
    pub percent: u8,
    pub began_at_ms: i64,
    pub ends_at_ms: i64,
    seen: Mutex<Seen>,
}

/// What has come of a shadow.
#[derive(Debug, Serialize)]
pub struct Report {
    steps: Vec<StepRef>,
    percent: u8,
    began_at: String,
    ends_at: String,
    #[serde(flatten)]
    seen: Seen,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Seen {
    totals: Totals,
    examples: Vec<Example>,
    /// How many events it would have seen, had there been room or the code of its plugins.
    left_out: u64,
}

/// An event of which something else would become.
#[derive(Clone, Debug, Serialize)]
struct Example {
    event: Uuid,
    change: Change,
    /// From what is really sent to what would be.
    diff: Vec<Difference>,
    reason: Option<Reason>,
}

/// All shadows, by their subscription.
#[derive(Default)]
pub struct Shadows {
    shadows: RwLock<HashMap<Uuid, Arc<Shadow>>>,
    /// How many there are: nearly always none, which costs no lock to know.
    count: AtomicUsize,
    waiting: Arc<Mutex<Waiting>>,
}

/// How many bytes wait to be seen.
#[derive(Debug, Default)]
struct Waiting {
    all: usize,
    own: HashMap<Tenant, usize>,
}

/// An event that waits to be seen by a shadow.
#[derive(Debug)]
pub struct Seeing {
    shadow: Arc<Shadow>,
    /// What is really sent.
    real: Rendered,
    /// Its part of what may wait.
    bytes: usize,
    waiting: Arc<Mutex<Waiting>>,
    is_seen: bool,
}

impl Shadow {
    pub fn new(
        tenant: Tenant,
        steps: Vec<StepRef>,
        rendering: Rendering,
        percent: u8,
        began_at_ms: i64,
        ends_at_ms: i64,
    ) -> Shadow {
        let seen = Mutex::default();
        Shadow { tenant, steps, rendering, percent, began_at_ms, ends_at_ms, seen }
    }

    /// What has come of it so far.
    pub fn report(&self) -> Report {
        let seen = lock(&self.seen).clone();
        Report {
            steps: self.steps.clone(),
            percent: self.percent,
            began_at: clock::rfc3339(self.began_at_ms),
            ends_at: clock::rfc3339(self.ends_at_ms),
            seen,
        }
    }

    /// The same events at every try: chosen by their id.
    fn chooses(&self, event: &Event) -> bool {
        event.id.as_u128() % 100 < u128::from(self.percent)
    }
}

impl Shadows {
    /// Begins a shadow, in the place of the one that the subscription may have.
    ///
    /// # Errors
    ///
    /// The tenant has as many as it may have, or all tenants together.
    pub fn begin(&self, subscription: Uuid, shadow: Shadow) -> Result<(), Busy> {
        let mut shadows = self.shadows.write().unwrap_or_else(PoisonError::into_inner);
        shadows.retain(|_, it| it.ends_at_ms > shadow.began_at_ms);
        self.count.store(shadows.len(), Ordering::Release);
        if !shadows.contains_key(&subscription) {
            let own = shadows.values().filter(|it| it.tenant == shadow.tenant).count();
            if own >= OWN_SHADOWS_MAX {
                return Err(Busy::Own);
            }
            if shadows.len() >= SHADOWS_MAX {
                return Err(Busy::All);
            }
        }
        shadows.insert(subscription, Arc::new(shadow));
        self.count.store(shadows.len(), Ordering::Release);
        Ok(())
    }

    /// Ends a shadow. Answers whether there was one.
    pub fn end(&self, subscription: Uuid) -> bool {
        let mut shadows = self.shadows.write().unwrap_or_else(PoisonError::into_inner);
        let ended = shadows.remove(&subscription).is_some();
        self.count.store(shadows.len(), Ordering::Release);
        ended
    }

    /// The shadow of a subscription; one that has ended can still be read.
    pub fn get(&self, subscription: Uuid) -> Option<Arc<Shadow>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let shadows = self.shadows.read().unwrap_or_else(PoisonError::into_inner);
        shadows.get(&subscription).cloned()
    }

    /// What the shadow of a subscription is to see, if there is one that wants the event. Where too much
    /// waits already, the shadow does without, and says so.
    pub fn seeing(&self, event: &Event, subscription: Uuid, real: &Rendered) -> Option<Seeing> {
        let shadow = self.get(subscription)?;
        if event.accepted_at_ms >= shadow.ends_at_ms || !shadow.chooses(event) {
            return None;
        }
        let bodies = match real {
            Rendered::Bodies(bodies) => bodies.iter().map(|it| it.bytes.len()).sum(),
            Rendered::Filtered(_) | Rendered::Failed(_) => 0,
        };
        let bytes = WAITING_BYTES_MIN + event.content.data_bytes() + bodies;
        if !lock(&self.waiting).take(&shadow.tenant, bytes) {
            lock(&shadow.seen).left_out += 1;
            return None;
        }
        let waiting = Arc::clone(&self.waiting);
        Some(Seeing { shadow, real: real.clone(), bytes, waiting, is_seen: false })
    }
}

impl Waiting {
    /// Whether there is room. The first one always has some, however large it is.
    fn take(&mut self, tenant: &Tenant, bytes: usize) -> bool {
        let own = self.own.get(tenant).copied().unwrap_or(0);
        let room = own == 0 || own + bytes <= OWN_WAITING_BYTES_MAX;
        let room = room && (self.all == 0 || self.all + bytes <= WAITING_BYTES_MAX);
        if room {
            self.own.insert(tenant.clone(), own + bytes);
            self.all += bytes;
        }
        room
    }

    fn give_back(&mut self, tenant: &Tenant, bytes: usize) {
        self.all -= bytes;
        let own = self.own.get_mut(tenant).expect("what is given back was taken");
        *own -= bytes;
        if *own == 0 {
            self.own.remove(tenant);
        }
    }
}

impl Drop for Seeing {
    /// However it ends: it was seen, it could not be, or there was no room for it.
    fn drop(&mut self) {
        lock(&self.shadow.seen).left_out += u64::from(!self.is_seen);
        lock(&self.waiting).give_back(&self.shadow.tenant, self.bytes);
    }
}

impl Seeing {
    /// Runs the shadow, and compares what comes of it with what is really sent. `bytes_max` bounds each body.
    pub fn see(
        mut self,
        runtime: &Runtime,
        format: &dyn Format,
        event: &Arc<Event>,
        bytes_max: usize,
    ) {
        let rendered = render(runtime, format, event, &self.shadow.rendering, bytes_max);
        let Ok((proposed, _)) = rendered else { return };
        self.is_seen = true;
        let mut seen = lock(&self.shadow.seen);
        let (change, reason) = judge(&self.real, &proposed);
        seen.totals.count(change);
        if change != Change::Same && seen.examples.len() < EXAMPLES_MAX {
            let diff = match (&self.real, &proposed) {
                (Rendered::Bodies(before), Rendered::Bodies(after)) => differences(before, after),
                _ => Vec::new(),
            };
            seen.examples.push(Example { event: event.id, change, diff, reason });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    fn shadow(name: &str) -> Shadow {
        Shadow::new(tenant(name), Vec::new(), Rendering::default(), 100, 0, 1)
    }

    #[test]
    fn no_tenant_has_all_the_shadows() {
        let shadows = Shadows::default();
        let ids: Vec<Uuid> = (0..SHADOWS_MAX).map(|_| Uuid::now_v7()).collect();
        for (number, id) in ids.iter().enumerate() {
            let name = format!("t{}", number / OWN_SHADOWS_MAX);
            shadows.begin(*id, shadow(&name)).unwrap();
        }
        assert_eq!(shadows.begin(Uuid::now_v7(), shadow("t0")), Err(Busy::Own));
        assert_eq!(shadows.begin(Uuid::now_v7(), shadow("new")), Err(Busy::All));
        assert_eq!(shadows.begin(ids[0], shadow("t0")), Ok(()), "in the place of its own");
        assert!(shadows.end(ids[0]));
        assert_eq!(shadows.begin(Uuid::now_v7(), shadow("new")), Ok(()));
    }

    #[test]
    fn what_waits_to_be_seen_is_bounded_for_each_tenant() {
        let mut waiting = Waiting::default();
        assert!(waiting.take(&tenant("a"), OWN_WAITING_BYTES_MAX + 1), "it is the first one");
        assert!(!waiting.take(&tenant("a"), 1));
        assert!(waiting.take(&tenant("b"), OWN_WAITING_BYTES_MAX));
        waiting.give_back(&tenant("a"), OWN_WAITING_BYTES_MAX + 1);
        assert!(waiting.take(&tenant("a"), 1));
        let others = (0..).map(|it| tenant(&format!("t{it}")));
        let taken = others.take(100).filter(|it| waiting.take(it, OWN_WAITING_BYTES_MAX)).count();
        assert_eq!(taken, WAITING_BYTES_MAX / OWN_WAITING_BYTES_MAX - 2);
    }
}
