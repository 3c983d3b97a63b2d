//! A proposed pipeline beside the real one, on a share of what is published. What comes of it is only
//! counted. Shadows live in memory and end with the process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde_json::{Value, json};
use uuid::Uuid;

use super::compare::{Change, Totals, differences, judge};
use crate::clock;
use crate::event::Event;
use crate::formats::Format;
use crate::render::{Rendered, Rendering, render};
use crate::subscription::StepRef;
use crate::wasm::Runtime;

/// How many differences a shadow keeps as examples.
const EXAMPLES_MAX: usize = 50;
/// How many shadows there may be.
const SHADOWS_MAX: usize = 256;

/// One proposed pipeline.
#[derive(Debug)]
pub struct Shadow {
    pub steps: Vec<StepRef>,
    pub rendering: Rendering,
    /// Of a hundred events, about this many.
    pub percent: u8,
    pub began_at_ms: i64,
    pub ends_at_ms: i64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    totals: Totals,
    examples: Vec<Value>,
}

/// All shadows, by their subscription.
#[derive(Default)]
pub struct Shadows {
    shadows: RwLock<HashMap<Uuid, Arc<Shadow>>>,
    /// How many there are: nearly always none, which costs no lock to know.
    count: AtomicUsize,
}

impl Shadow {
    pub fn new(
        steps: Vec<StepRef>,
        rendering: Rendering,
        percent: u8,
        began_at_ms: i64,
        ends_at_ms: i64,
    ) -> Shadow {
        Shadow { steps, rendering, percent, began_at_ms, ends_at_ms, seen: Mutex::default() }
    }

    /// What has come of it so far.
    pub fn report(&self) -> Value {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "steps": self.steps,
            "percent": self.percent,
            "began_at": clock::rfc3339(self.began_at_ms),
            "ends_at": clock::rfc3339(self.ends_at_ms),
            "totals": seen.totals,
            "examples": seen.examples,
        })
    }

    /// The same events at every try: chosen by their id.
    fn chooses(&self, event: &Event) -> bool {
        event.id.as_u128() % 100 < u128::from(self.percent)
    }
}

impl Shadows {
    /// Begins a shadow, in the place of the one that the subscription may have. Answers whether there
    /// was room.
    pub fn begin(&self, subscription: Uuid, shadow: Shadow) -> bool {
        let mut shadows = self.shadows.write().unwrap_or_else(PoisonError::into_inner);
        shadows.retain(|_, it| it.ends_at_ms > shadow.began_at_ms);
        let room = shadows.len() < SHADOWS_MAX || shadows.contains_key(&subscription);
        if room {
            shadows.insert(subscription, Arc::new(shadow));
        }
        self.count.store(shadows.len(), Ordering::Release);
        room
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

    /// Runs the shadow of a subscription, if there is one that wants the event, and compares what comes
    /// of it with what is really sent.
    pub fn see(
        &self,
        runtime: &Runtime,
        format: &dyn Format,
        event: &Arc<Event>,
        subscription: Uuid,
        real: &Rendered,
    ) {
        let Some(shadow) = self.get(subscription) else { return };
        if event.accepted_at_ms >= shadow.ends_at_ms || !shadow.chooses(event) {
            return;
        }
        let Ok((proposed, _)) = render(runtime, format, event, &shadow.rendering) else { return };
        let (change, reason) = judge(real, &proposed);
        let mut seen = shadow.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.totals.count(change);
        if change != Change::Same && seen.examples.len() < EXAMPLES_MAX {
            let diff = match (real, &proposed) {
                (Rendered::Bodies(before), Rendered::Bodies(after)) => differences(before, after),
                _ => Vec::new(),
            };
            let example =
                json!({"event": event.id, "change": change, "diff": diff, "reason": reason});
            seen.examples.push(example);
        }
    }
}
