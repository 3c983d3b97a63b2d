//! What waits, in a line for each owner. The owner that has had least is next, so that a long line of one owner
//! costs the others nothing. Pure.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::Owner;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Items of one owner.
    pub own_items: usize,
    /// Bytes that these hold on to. One item may be larger than that.
    pub own_bytes: usize,
    /// Bytes of all owners together.
    pub all_bytes: usize,
}

/// Items in lines, by their owner.
#[derive(Debug)]
pub struct FairQueue<T> {
    room: Room,
    lines: HashMap<Owner, Line<T>>,
    /// The owners with items, by what they have had.
    order: BTreeSet<(u64, Owner)>,
    /// What an owner begins with that comes while nobody waits: as much as those have had that were served until
    /// then. From zero, it would go before them for as long as they had been served.
    served: u64,
    bytes: usize,
    /// With how many lines there is a look for those that can be forgotten.
    lines_max: usize,
}

/// How many owners are remembered at least that have nothing waiting.
const IDLE_LINES: usize = 1_024;

#[derive(Debug)]
struct Line<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    had: u64,
}

impl<T> FairQueue<T> {
    pub fn new(room: Room) -> FairQueue<T> {
        let (lines, order) = (HashMap::new(), BTreeSet::new());
        FairQueue { room, lines, order, served: 0, bytes: 0, lines_max: IDLE_LINES }
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether there is room for another item of an owner, if it is a small one.
    pub fn has_room(&self, owner: &Owner) -> bool {
        let own = self.lines.get(owner).map_or((0, 0), |line| (line.items.len(), line.bytes));
        own.0 < self.room.own_items
            && own.1 < self.room.own_bytes
            && self.bytes < self.room.all_bytes
    }

    /// The item of an owner that waits longest.
    pub fn first_of(&self, owner: &Owner) -> Option<&T> {
        self.lines.get(owner)?.items.front().map(|(item, _)| item)
    }

    /// The item of each owner that waits longest.
    pub fn firsts(&self) -> impl Iterator<Item = &T> {
        self.lines.values().filter_map(|line| line.items.front()).map(|(item, _)| item)
    }

    /// Adds an item, which holds on to so many bytes, to the end of its owner's line.
    ///
    /// # Errors
    ///
    /// There is no room for it; it is given back.
    pub fn push(&mut self, owner: &Owner, bytes: usize, item: T) -> Result<(), T> {
        let exceeds = |held: usize, max: usize| held + bytes > max && held > 0;
        let own = self.lines.get(owner).map_or((0, 0), |line| (line.items.len(), line.bytes));
        let is_full = own.0 >= self.room.own_items
            || exceeds(own.1, self.room.own_bytes)
            || exceeds(self.bytes, self.room.all_bytes);
        if is_full {
            return Err(item);
        }
        self.add(owner, bytes, item);
        Ok(())
    }

    /// Adds an item whatever there is already: for those that are bounded where they come from.
    pub fn add(&mut self, owner: &Owner, bytes: usize, item: T) {
        self.bytes += bytes;
        let line = self.line(owner);
        line.bytes += bytes;
        line.items.push_back((item, bytes));
    }

    /// Puts an item in front of its owner's others: what it goes on with was taken from there.
    pub fn add_first(&mut self, owner: &Owner, item: T) {
        self.line(owner).items.push_front((item, 0));
    }

    /// The line of an owner that is about to have an item.
    fn line(&mut self, owner: &Owner) -> &mut Line<T> {
        // An owner that was away for long does not go before all others for as long: it begins with what the
        // owner that is next has had.
        let least = self.least();
        if self.lines.len() >= self.lines_max {
            self.lines.retain(|_, line| !line.items.is_empty() || line.had > least);
            self.lines_max = IDLE_LINES.max(2 * self.lines.len());
        }
        let fresh = || Line { items: VecDeque::new(), bytes: 0, had: least };
        let line = self.lines.entry(owner.clone()).or_insert_with(fresh);
        if line.items.is_empty() {
            line.had = line.had.max(least);
            self.order.insert((line.had, owner.clone()));
        }
        line
    }

    /// Takes the next item of the next owner that may have one now.
    pub fn pop(&mut self, may: impl Fn(&Owner) -> bool) -> Option<(Owner, T)> {
        let next = self.order.iter().find(|(_, owner)| may(owner))?.clone();
        let (had, owner) = next;
        self.served = self.served.max(had);
        let line = self.lines.get_mut(&owner).expect("an owner in the order has a line");
        let (item, bytes) = line.items.pop_front().expect("an owner in the order has an item");
        line.bytes -= bytes;
        self.bytes -= bytes;
        if line.items.is_empty() {
            self.order.remove(&(had, owner.clone()));
        }
        Some((owner, item))
    }

    /// Takes all items away.
    pub fn clear(&mut self) -> Vec<T> {
        let mut items = Vec::new();
        while let Some((_, item)) = self.pop(|_| true) {
            items.push(item);
        }
        items
    }

    /// What was taken last for an owner has cost so much, in whatever unit all are charged.
    pub fn charge(&mut self, owner: &Owner, cost: u64) {
        let Some(line) = self.lines.get_mut(owner) else { return };
        if self.order.is_empty() {
            self.served = self.served.max(line.had + cost);
        }
        let least = self.order.first().map_or(self.served, |(had, _)| *had);
        if line.items.is_empty() && line.had + cost <= least {
            // An owner that would begin with what the next one has had anyway need not be remembered.
            self.lines.remove(owner);
            return;
        }
        let waits = self.order.remove(&(line.had, owner.clone()));
        line.had += cost;
        if waits {
            self.order.insert((line.had, owner.clone()));
        }
    }

    fn least(&self) -> u64 {
        self.order.first().map_or(self.served, |(had, _)| *had)
    }
}

#[cfg(test)]
mod tests {
    use hookyard_nouns::event::Tenant;

    use super::*;

    const ROOM: Room = Room { own_items: 100, own_bytes: 60, all_bytes: 100 };

    fn owner(name: &str) -> Owner {
        Some(Tenant::new(name).unwrap())
    }

    /// Who is next, when each of an owner's items costs so much.
    fn turns(queue: &mut FairQueue<()>, costs: &[(&str, u64)], count: usize) -> String {
        let mut turns = String::new();
        for _ in 0..count {
            let Some((next, ())) = queue.pop(|_| true) else { break };
            let (name, cost) = costs.iter().find(|(name, _)| owner(name) == next).unwrap();
            queue.charge(&next, *cost);
            turns.push_str(name);
        }
        turns
    }

    #[test]
    fn owners_take_turns_by_what_they_have_had() {
        let mut queue = FairQueue::new(ROOM);
        for _ in 0..10 {
            queue.push(&owner("a"), 0, ()).unwrap();
            queue.push(&owner("b"), 0, ()).unwrap();
        }
        assert_eq!(turns(&mut queue, &[("a", 20), ("b", 5)], 10), "abbbbabbbb");
    }

    #[test]
    fn who_was_away_has_saved_nothing_up() {
        let mut queue = FairQueue::new(ROOM);
        for _ in 0..10 {
            queue.push(&owner("a"), 0, ()).unwrap();
        }
        turns(&mut queue, &[("a", 20)], 5);
        for _ in 0..5 {
            queue.push(&owner("b"), 0, ()).unwrap();
        }
        assert_eq!(turns(&mut queue, &[("a", 20), ("b", 20)], 4), "abab");
    }

    #[test]
    fn who_was_alone_is_not_made_to_wait_for_it() {
        let mut queue = FairQueue::new(ROOM);
        for _ in 0..100 {
            queue.push(&owner("a"), 0, ()).unwrap();
            turns(&mut queue, &[("a", 20)], 1);
        }
        // It comes while nobody waits.
        for _ in 0..10 {
            queue.push(&owner("b"), 0, ()).unwrap();
        }
        assert_eq!(turns(&mut queue, &[("b", 20)], 1), "b");
        for _ in 0..3 {
            queue.push(&owner("a"), 0, ()).unwrap();
        }
        assert_eq!(turns(&mut queue, &[("a", 20), ("b", 20)], 6), "ababab");
    }

    #[test]
    fn owners_that_are_gone_are_forgotten() {
        let mut queue = FairQueue::new(ROOM);
        for number in 0..10 * IDLE_LINES {
            let name = format!("a{number}");
            queue.push(&owner(&name), 0, ()).unwrap();
            turns(&mut queue, &[(&name, 20)], 1);
        }
        assert!(queue.lines.len() <= IDLE_LINES, "{} are remembered", queue.lines.len());
    }

    #[test]
    fn what_waits_is_bounded_for_each_and_for_all() {
        let mut queue = FairQueue::new(ROOM);
        for _ in 0..100 {
            queue.push(&owner("many"), 0, ()).unwrap();
        }
        assert!(queue.push(&owner("many"), 0, ()).is_err(), "items of one owner");
        queue.push(&owner("large"), 50, ()).unwrap();
        assert!(queue.push(&owner("large"), 11, ()).is_err(), "bytes of one owner");
        queue.push(&owner("other"), 50, ()).unwrap();
        assert!(queue.push(&owner("third"), 1, ()).is_err(), "bytes of all");
        queue.pop(|it| *it == owner("large")).unwrap();
        queue.push(&owner("third"), 50, ()).unwrap();
        assert!(!queue.has_room(&owner("fourth")));
        let mut empty = FairQueue::new(ROOM);
        empty.push(&None, 1_000, ()).expect("one may be larger than all the room");
    }

    #[test]
    fn whoever_may_not_have_one_now_is_passed_over() {
        let mut queue = FairQueue::new(ROOM);
        queue.push(&owner("a"), 0, 1).unwrap();
        queue.push(&owner("b"), 0, 2).unwrap();
        queue.add_first(&owner("b"), 3);
        let not_a = |it: &Owner| *it != owner("a");
        let next = std::iter::from_fn(|| queue.pop(not_a)).map(|(_, item)| item);
        assert_eq!(next.collect::<Vec<_>>(), [3, 2]);
        assert_eq!(queue.firsts().collect::<Vec<_>>(), [&1]);
    }
}
