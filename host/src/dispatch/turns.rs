//! Whose turn it is: tenants take turns, and within a tenant its lanes do. A tenant whose endpoints hang leaves
//! room for the others. Pure.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use crate::event::Tenant;

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

/// How much is out.
#[derive(Clone, Copy, Debug, Default)]
struct Out {
    requests: usize,
    bytes: usize,
}

impl Out {
    /// One may be larger than all the room there is.
    fn fits(self, room: Room) -> bool {
        self.requests < room.requests && self.bytes < room.bytes
    }
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Tenants with lanes that have something to send, in the order of their turns.
    tenants: VecDeque<Tenant>,
    lanes: HashMap<Tenant, VecDeque<Uuid>>,
    out: Out,
    out_of: HashMap<Tenant, Out>,
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

    /// The next lane, if there is room for what it sends.
    pub(super) fn next(&mut self, room: Room) -> Option<Uuid> {
        if !self.out.fits(room) {
            return None;
        }
        for _ in 0..self.tenants.len() {
            let tenant = self.tenants.pop_front()?;
            let has_room = self.out_of.get(&tenant).is_none_or(|it| it.fits(room.share()));
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

    /// A request goes out.
    pub(super) fn begins(&mut self, tenant: &Tenant, bytes: usize) {
        for out in [&mut self.out, self.out_of.entry(tenant.clone()).or_default()] {
            out.requests += 1;
            out.bytes += bytes;
        }
    }

    /// It has ended.
    pub(super) fn ends(&mut self, tenant: &Tenant, bytes: usize) {
        let of_tenant = self.out_of.get_mut(tenant).expect("a request that ends has begun");
        for out in [&mut self.out, of_tenant] {
            out.requests -= 1;
            out.bytes -= bytes;
        }
        if self.out_of[tenant].requests == 0 {
            self.out_of.remove(tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    #[test]
    fn tenants_take_turns_however_many_lanes_they_have() {
        let room = Room { requests: 100, bytes: 100 };
        let mut turns = Turns::default();
        for lane in 1..=3 {
            turns.push(&tenant("many"), Uuid::from_u128(lane));
        }
        turns.push(&tenant("one"), Uuid::from_u128(9));
        let order: Vec<u128> =
            std::iter::from_fn(|| turns.next(room)).map(|lane| lane.as_u128()).collect();
        assert_eq!(order, [1, 9, 2, 3]);
    }

    #[test]
    fn one_tenant_leaves_room_for_the_others() {
        let room = Room { requests: 4, bytes: 100 };
        let mut turns = Turns::default();
        let hangs = tenant("hangs");
        for lane in 1..=4 {
            turns.push(&hangs, Uuid::from_u128(lane));
        }
        for _ in 0..3 {
            turns.next(room).unwrap();
            turns.begins(&hangs, 10);
        }
        assert_eq!(turns.next(room), None);
        turns.push(&tenant("other"), Uuid::from_u128(9));
        assert_eq!(turns.next(room), Some(Uuid::from_u128(9)));
        turns.ends(&hangs, 10);
        assert_eq!(turns.next(room), Some(Uuid::from_u128(4)));
        turns.begins(&hangs, 60);
        assert!(turns.next(Room { requests: 9, bytes: 60 }).is_none(), "all bytes are out");
    }
}
