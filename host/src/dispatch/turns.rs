//! Who sends next: tenants take turns, and within a tenant its lanes do. A tenant whose endpoints hang leaves
//! room for the others, and one with very many endpoints does not begin with all of them at once. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use hookyard_nouns::event::Tenant;
use hookyard_nouns::rendering::Body;
use uuid::Uuid;

use super::bodies::Bodies;

/// For how long a request counts as young: about as long as it takes to sign and send it. Then it waits for its
/// endpoint, and takes memory but no processor. Where tasks wait for a processor, each of the steps of a request
/// waits as long as its first one did.
const YOUNG_MS: u64 = 10;
const STEPS: u64 = 4;
/// How many young requests there may be, and how many of one tenant. Each has a task that the others' tasks wait
/// for: thousands that begin at once would hold up everybody.
const YOUNG_MAX: usize = 256;
const YOUNG_OWN_MAX: usize = 128;

/// How much may be out at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) requests: usize,
    pub(super) bytes: usize,
}

impl Room {
    /// What one tenant may have of it.
    fn share(self) -> Room {
        Room {
            requests: (self.requests - self.requests / 4).max(1),
            bytes: self.bytes - self.bytes / 4,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Tenants with lanes that have something to send, in the order of their turns.
    tenants: VecDeque<Tenant>,
    lanes: HashMap<Tenant, VecDeque<Uuid>>,
    requests: usize,
    requests_of: HashMap<Tenant, usize>,
    /// The bodies that are out.
    bodies: Bodies,
    /// The requests that are young, and how many each tenant has of them.
    young: HashSet<Uuid>,
    young_of: HashMap<Tenant, usize>,
    /// When requests have begun, by their age. Some of them have ended since.
    ages: VecDeque<(u64, Uuid, Tenant)>,
    /// How long a task waits for a processor.
    lag_ms: u64,
}

impl Turns {
    /// A lane gets in line.
    pub(super) fn push(&mut self, tenant: &Tenant, lane: Uuid) {
        let lanes = self.lanes.entry(tenant.clone()).or_default();
        if lanes.is_empty() {
            self.tenants.push_back(tenant.clone());
        }
        lanes.push_back(lane);
    }

    /// The next lane, if there is room for what it sends, of a tenant that may send. `now_ms` is a time that is never
    /// set back.
    pub(super) fn next(
        &mut self,
        room: Room,
        now_ms: u64,
        may_send: impl Fn(&Tenant) -> bool,
    ) -> Option<Uuid> {
        self.grow_up(now_ms);
        let is_full = self.requests >= room.requests
            || self.bodies.bytes() >= room.bytes
            || self.young.len() >= YOUNG_MAX;
        if is_full {
            return None;
        }
        for _ in 0..self.tenants.len() {
            let tenant = self.tenants.pop_front()?;
            let has_room = may_send(&tenant) && self.has_room(&tenant, room.share());
            let lanes = self.lanes.get_mut(&tenant).expect("a tenant in line has lanes");
            let lane = if has_room { lanes.pop_front() } else { None };
            if lanes.is_empty() {
                self.lanes.remove(&tenant);
            } else {
                self.tenants.push_back(tenant);
            }
            if lane.is_some() {
                return lane;
            }
        }
        None
    }

    /// The task of a request has waited so long for a processor.
    pub(super) fn lags(&mut self, lag_ms: u64) {
        self.lag_ms = lag_ms;
    }

    /// When a lane that waits for young requests to grow up may have its turn; none where nobody waits for that.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let waits = !self.tenants.is_empty();
        self.ages.front().filter(|_| waits).map(|(begun_ms, ..)| begun_ms + self.young_ms())
    }

    /// A request for a delivery goes out with its body.
    pub(super) fn begins(&mut self, tenant: &Tenant, id: Uuid, body: &Body, now_ms: u64) {
        self.requests += 1;
        *self.requests_of.entry(tenant.clone()).or_default() += 1;
        self.bodies.hold(tenant, body);
        self.young.insert(id);
        self.ages.push_back((now_ms, id, tenant.clone()));
        *self.young_of.entry(tenant.clone()).or_default() += 1;
    }

    /// It has ended.
    pub(super) fn ends(&mut self, tenant: &Tenant, id: Uuid, body: &Body) {
        self.is_old(tenant, id);
        self.requests -= 1;
        take_one(&mut self.requests_of, tenant);
        self.bodies.let_go(tenant, body);
    }

    fn has_room(&self, tenant: &Tenant, share: Room) -> bool {
        let of = |counts: &HashMap<Tenant, usize>| counts.get(tenant).copied().unwrap_or(0);
        of(&self.requests_of) < share.requests
            && self.bodies.bytes_of(tenant) < share.bytes
            && of(&self.young_of) < YOUNG_OWN_MAX
    }

    fn young_ms(&self) -> u64 {
        YOUNG_MS + STEPS * self.lag_ms
    }

    fn grow_up(&mut self, now_ms: u64) {
        let young_ms = self.young_ms();
        while self.ages.front().is_some_and(|(begun_ms, ..)| begun_ms + young_ms <= now_ms) {
            let Some((_, id, tenant)) = self.ages.pop_front() else { return };
            self.is_old(&tenant, id);
        }
    }

    fn is_old(&mut self, tenant: &Tenant, id: Uuid) {
        if self.young.remove(&id) {
            take_one(&mut self.young_of, tenant);
        }
    }
}

fn take_one(counts: &mut HashMap<Tenant, usize>, tenant: &Tenant) {
    let count = counts.get_mut(tenant).expect("what ends has begun");
    *count -= 1;
    if *count == 0 {
        counts.remove(tenant);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    fn body(size: usize) -> Body {
        Body { bytes: Bytes::from(vec![7; size]), content_type: "" }
    }

    #[test]
    fn tenants_take_turns_however_many_lanes_they_have() {
        let room = Room { requests: 100, bytes: 100 };
        let mut turns = Turns::default();
        for lane in 1..=3 {
            turns.push(&tenant("many"), Uuid::from_u128(lane));
        }
        turns.push(&tenant("one"), Uuid::from_u128(9));
        let order: Vec<u128> = std::iter::from_fn(|| turns.next(room, 0, |_| true))
            .map(|lane| lane.as_u128())
            .collect();
        assert_eq!(order, [1, 9, 2, 3]);
    }

    #[test]
    fn one_tenant_leaves_room_for_the_others() {
        let room = Room { requests: 4, bytes: 100_000 };
        let mut turns = Turns::default();
        let (hangs, small) = (tenant("hangs"), body(10));
        for lane in 1..=4 {
            turns.push(&hangs, Uuid::from_u128(lane));
        }
        for id in 0..3 {
            turns.next(room, 0, |_| true).unwrap();
            turns.begins(&hangs, Uuid::from_u128(id), &small, 0);
        }
        assert_eq!(turns.next(room, 0, |_| true), None);
        turns.push(&tenant("other"), Uuid::from_u128(9));
        assert_eq!(turns.next(room, 0, |_| true), Some(Uuid::from_u128(9)));
        turns.ends(&hangs, Uuid::from_u128(0), &small);
        assert_eq!(turns.next(room, 0, |_| true), Some(Uuid::from_u128(4)));
        turns.begins(&hangs, Uuid::from_u128(3), &body(60_000), 0);
        let room = Room { requests: 9, bytes: 60_000 };
        assert!(turns.next(room, 0, |_| true).is_none(), "all bytes are out");
    }

    #[test]
    fn one_tenant_does_not_begin_with_all_at_once() {
        let room = Room { requests: 10_000, bytes: usize::MAX };
        let mut turns = Turns::default();
        let (many, small) = (tenant("many"), body(10));
        for lane in 0..1_000 {
            turns.push(&many, Uuid::from_u128(lane));
        }
        let mut id = 0;
        let mut begin = |turns: &mut Turns, now_ms| {
            let begun = std::iter::from_fn(|| {
                turns.next(room, now_ms, |_| true)?;
                id += 1;
                turns.begins(&many, Uuid::from_u128(id), &small, now_ms);
                Some(())
            });
            begun.count()
        };
        assert_eq!(begin(&mut turns, 5), YOUNG_OWN_MAX);
        turns.ends(&many, Uuid::from_u128(1), &small);
        assert_eq!(begin(&mut turns, 5), 1, "one that has ended makes room at once");
        turns.push(&tenant("one"), Uuid::from_u128(9_999));
        assert_eq!(turns.next(room, 6, |_| true), Some(Uuid::from_u128(9_999)));
        assert_eq!(turns.next_ms(), Some(5 + YOUNG_MS));
        assert_eq!(begin(&mut turns, 5 + YOUNG_MS), YOUNG_OWN_MAX);
        // Tasks wait for a processor: these are not on their way yet.
        turns.lags(100);
        assert_eq!(begin(&mut turns, 5 + 3 * YOUNG_MS), 0);
        assert_eq!(begin(&mut turns, 5 + 2 * YOUNG_MS + STEPS * 100), YOUNG_OWN_MAX);
    }
}
