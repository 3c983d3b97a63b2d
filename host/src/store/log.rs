//! What the delivery log is asked, and what it answers.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

use hookyard_nouns::delivery::{Delivery, DeliveryState};
use hookyard_nouns::event::{Event, Tenant};
use hookyard_nouns::rendering::Rendering;
use uuid::Uuid;

/// A delivery whose next attempt is due, with all that the attempt needs.
#[derive(Debug)]
pub struct Due {
    pub tenant: Tenant,
    pub event_seq: u64,
    pub delivery: Delivery,
    /// None when the event's data are no longer kept.
    pub event: Option<Arc<Event>>,
    pub rendering: Arc<Rendering>,
}

/// What is looked for in the delivery log. What is left out narrows nothing.
#[derive(Clone, Debug, Default)]
pub struct DeliveryQuery {
    /// This one.
    pub delivery: Option<Uuid>,
    /// Of any of these.
    pub subscriptions: Option<Vec<Uuid>>,
    /// How the URL begins that the subscription has now.
    pub endpoint: Option<String>,
    pub event: Option<Uuid>,
    /// The type of the event.
    pub event_type: Option<String>,
    /// The subject of the event.
    pub subject: Option<String>,
    /// In any of these; empty: in any.
    pub states: Vec<DeliveryState>,
    /// The code of the reason, of those that are held, filtered, failed or dead.
    pub reason: Option<String>,
    /// What the endpoint answered to the newest attempt.
    pub status: Option<u16>,
    /// Of events that were accepted at or after this time, and before that one.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    /// Only what comes after this place, which a [`Page`] gave out.
    pub after: Option<Place>,
    pub limit: usize,
}

/// A place in the delivery log, which begins with the newest events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub created_at_ms: i64,
    pub event_seq: u64,
    pub seq: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.created_at_ms, self.event_seq, self.seq)
    }
}

impl FromStr for Place {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Place, ParseIntError> {
        let mut numbers = text.split('.');
        let mut next = || numbers.next().unwrap_or_default();
        Ok(Place {
            created_at_ms: next().parse()?,
            event_seq: next().parse()?,
            seq: next().parse()?,
        })
    }
}

/// A part of the delivery log.
#[derive(Debug)]
pub struct Page {
    pub deliveries: Vec<Delivery>,
    /// Where to go on; none at the end. There may be more even where there are fewer than were asked for:
    /// a search looks at so many only.
    pub next: Option<Place>,
}

/// What happened in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted, and accepted once more. Of a tenant alone.
    pub events: u64,
    pub duplicates: u64,
    pub attempts: u64,
    pub attempts_failed: u64,
    pub delivered: u64,
    pub dead: u64,
    pub failed: u64,
    pub filtered: u64,
    /// Of all attempts together, and of the longest.
    pub duration_ms: u64,
    pub duration_max_ms: u64,
}

impl Counts {
    /// Both together.
    pub fn add(&mut self, it: &Counts) {
        self.events += it.events;
        self.duplicates += it.duplicates;
        self.attempts += it.attempts;
        self.attempts_failed += it.attempts_failed;
        self.delivered += it.delivered;
        self.dead += it.dead;
        self.failed += it.failed;
        self.filtered += it.filtered;
        self.duration_ms += it.duration_ms;
        self.duration_max_ms = self.duration_max_ms.max(it.duration_max_ms);
    }
}

/// Which counts are asked for.
#[derive(Clone, Copy, Debug)]
pub struct CountsQuery {
    /// None: of all of them together.
    pub subscription: Option<Uuid>,
    pub from_ms: i64,
    pub to_ms: i64,
    pub step_minutes: u32,
}

/// What waits for a tenant.
#[derive(Clone, Debug)]
pub struct Backlog {
    pub tenant: Tenant,
    /// Deliveries that are not settled, those that are held included.
    pub deliveries: u64,
    /// Events that are not routed.
    pub events: u64,
}

/// What [`Store::claim`] gives out.
#[derive(Debug)]
pub struct Claim {
    pub due: Vec<Due>,
    /// When there is something to be claimed again.
    pub next_ms: Option<i64>,
}
