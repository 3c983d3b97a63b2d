//! Values that are kept while there is room. Where there is none, the owner whose values weigh most loses the
//! one that it has not used for longest: whoever fills the room makes room for itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use super::Owner;

/// A bounded map from keys to values, each of which belongs to an owner. What a value weighs is said by
/// whoever puts it: its bytes, or 1 where values are only counted.
pub struct Cache<K, V, O = Owner> {
    weight_max: usize,
    weight: usize,
    entries: HashMap<K, Entry<V, O>>,
    owners: HashMap<O, Own<K>>,
    /// Each owner, by what its values weigh together.
    heaviest: BTreeSet<(usize, O)>,
    /// Grows with each use of a value, and so tells which of two was used later.
    age: u64,
}

struct Entry<V, O> {
    value: V,
    owner: O,
    weight: usize,
    used: u64,
}

/// What one owner has.
struct Own<K> {
    weight: usize,
    /// Its keys, the one that was not used for longest first.
    ages: BTreeMap<u64, K>,
}

impl<K: Clone + Eq + Hash, V, O: Clone + Eq + Hash + Ord> Cache<K, V, O> {
    pub fn new(weight_max: usize) -> Cache<K, V, O> {
        Cache {
            weight_max,
            weight: 0,
            entries: HashMap::new(),
            owners: HashMap::new(),
            heaviest: BTreeSet::new(),
            age: 0,
        }
    }

    /// A value, which counts as used now.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        // Nearly always it is the one that was used last, and then nothing has to be moved.
        if entry.used != self.age {
            let own = self.owners.get_mut(&entry.owner).expect("whoever owns a value is known");
            let key = own.ages.remove(&entry.used).expect("each value has its age");
            self.age += 1;
            entry.used = self.age;
            own.ages.insert(self.age, key);
        }
        Some(&mut entry.value)
    }

    /// Puts a value, in the place of the one that is there. Answers what had to make room for it. The new
    /// value itself is always kept, even where it weighs more than there is room for.
    pub fn put(&mut self, owner: &O, key: K, weight: usize, value: V) -> Vec<(K, V)> {
        self.remove(&key);
        self.age += 1;
        let used = self.age;
        let own = self.owners.entry(owner.clone());
        let own = own.or_insert_with(|| Own { weight: 0, ages: BTreeMap::new() });
        own.ages.insert(used, key.clone());
        self.heaviest.remove(&(own.weight, owner.clone()));
        own.weight += weight;
        self.heaviest.insert((own.weight, owner.clone()));
        self.weight += weight;
        self.entries.insert(key.clone(), Entry { value, owner: owner.clone(), weight, used });
        let mut gone = Vec::new();
        while self.weight > self.weight_max {
            let Some(next) = self.next_to_go(&key) else { break };
            let value = self.remove(&next).expect("a key that has an age has a value");
            gone.push((next, value));
        }
        gone
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let Entry { value, owner, weight, used } = self.entries.remove(key)?;
        let own = self.owners.get_mut(&owner).expect("whoever owns a value is known");
        self.heaviest.remove(&(own.weight, owner.clone()));
        own.weight -= weight;
        own.ages.remove(&used);
        if own.ages.is_empty() {
            self.owners.remove(&owner);
        } else {
            self.heaviest.insert((own.weight, owner));
        }
        self.weight -= weight;
        Some(value)
    }

    /// All values, in no order. None of them counts as used by that.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Of the heaviest owner with another value than the new one. Only one owner can have none but that,
    /// so that this looks at two owners at most.
    fn next_to_go(&self, new: &K) -> Option<K> {
        let oldest = |owner: &O| self.owners[owner].ages.values().find(|key| *key != new).cloned();
        self.heaviest.iter().rev().find_map(|(_, owner)| oldest(owner))
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    type Small = Cache<u32, &'static str, char>;

    fn keys(gone: Vec<(u32, &str)>) -> Vec<u32> {
        gone.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn whoever_has_most_loses_what_it_has_not_used_for_longest() {
        let mut it = Small::new(10);
        for key in 0..7 {
            assert!(it.put(&'a', key, 1, "a").is_empty());
        }
        for key in 10..13 {
            assert!(it.put(&'b', key, 1, "b").is_empty());
        }
        it.get(&0);
        assert_eq!(keys(it.put(&'b', 13, 1, "b")), [1], "0 was used since");
        assert_eq!(keys(it.put(&'a', 7, 1, "a")), [2]);
        assert_eq!(keys(it.put(&'c', 20, 3, "c")), [3, 4, 10], "both had four then");
        assert!(it.contains(&0) && it.contains(&11) && it.contains(&20));
    }

    #[test]
    fn an_owner_may_have_all_that_nobody_else_wants() {
        let mut it = Small::new(4);
        for key in 0..100 {
            let gone = it.put(&'a', key, 1, "a");
            assert_eq!(gone.len(), usize::from(key >= 4));
        }
        assert_eq!(it.iter().count(), 4);
    }

    #[test]
    fn what_is_new_is_kept_even_where_it_is_the_largest() {
        let mut it = Small::new(10);
        it.put(&'a', 1, 6, "a");
        it.put(&'b', 2, 3, "b");
        assert_eq!(keys(it.put(&'b', 3, 9, "b")), [2, 1]);
        assert_eq!(keys(it.put(&'a', 4, 50, "a")), [3], "it is alone then");
        assert_eq!(it.get(&4), Some(&mut "a"));
        assert_eq!(keys(it.put(&'c', 5, 1, "c")), [4]);
    }

    #[test]
    fn a_value_that_is_put_again_belongs_to_whoever_put_it_last() {
        let mut it = Small::new(4);
        it.put(&'a', 1, 3, "a");
        it.put(&'b', 1, 1, "b");
        assert_eq!(it.weight, 1);
        it.put(&'a', 2, 3, "a");
        assert_eq!(keys(it.put(&'b', 3, 1, "b")), [2]);
        assert_eq!(it.remove(&1), Some("b"));
        assert_eq!(it.remove(&1), None);
    }

    /// What is kept, weighed and aged is what a plain list says, whatever happens.
    #[test]
    fn it_does_what_a_list_would_do() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut it = Cache::<u32, u32, u32>::new(50);
        // Owner, key, weight and value, the one that was not used for longest first.
        let mut list: Vec<(u32, u32, usize, u32)> = Vec::new();
        for value in 0..20_000 {
            let key = rng.random_range(0..40);
            let at = list.iter().position(|it| it.1 == key);
            match rng.random_range(0..3) {
                0 => {
                    let used = at.map(|at| list.remove(at));
                    assert_eq!(it.get(&key).copied(), used.map(|it| it.3));
                    list.extend(used);
                }
                1 => assert_eq!(it.remove(&key), at.map(|at| list.remove(at).3)),
                _ => {
                    let (owner, weight) = (rng.random_range(0..4), rng.random_range(1..20));
                    at.map(|at| list.remove(at));
                    list.push((owner, key, weight, value));
                    let mut gone = Vec::new();
                    while list.iter().map(|it| it.2).sum::<usize>() > 50 && list.len() > 1 {
                        let all = |owner: u32| -> usize {
                            list.iter().filter(|it| it.0 == owner).map(|it| it.2).sum()
                        };
                        let others = list[..list.len() - 1].iter();
                        let heaviest = others.map(|it| (all(it.0), it.0)).max().unwrap().1;
                        let at = list.iter().position(|it| it.0 == heaviest).unwrap();
                        let (_, key, _, value) = list.remove(at);
                        gone.push((key, value));
                    }
                    assert_eq!(it.put(&owner, key, weight, value), gone);
                }
            }
            assert_eq!(it.weight, list.iter().map(|it| it.2).sum::<usize>());
            assert_eq!(it.iter().count(), list.len());
        }
    }
}
