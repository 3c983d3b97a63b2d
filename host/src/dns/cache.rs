//! Addresses that were found not long ago, so that a name in use is not looked up for each
//! connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::NoAddress;

/// Whoever moves a name to another address is followed within this time.
const FOUND: Duration = Duration::from_secs(30);
/// Whoever has just published a name does not wait for long because it was asked for before.
const NOT_FOUND: Duration = Duration::from_secs(2);
/// How many names are remembered.
const NAMES_MAX: usize = 4_096;
/// How many addresses of one name are remembered.
const ADDRESSES_MAX: usize = 16;

/// The addresses of a name, at most [`ADDRESSES_MAX`].
pub type Addresses = Arc<[IpAddr]>;

#[derive(Default)]
pub(super) struct Cache {
    names: Mutex<HashMap<String, Entry>>,
}

#[derive(Clone)]
struct Entry {
    found: Result<Addresses, NoAddress>,
    until: Instant,
}

impl Cache {
    pub(super) fn get(&self, name: &str) -> Option<Result<Addresses, NoAddress>> {
        let names = self.lock();
        let entry = names.get(name).filter(|it| Instant::now() < it.until)?;
        Some(entry.found.clone())
    }

    /// Keeps what was found for as long as the name servers say, but not for long. What no name
    /// server has said is not kept.
    pub(super) fn put(&self, name: &str, found: &Result<Addresses, NoAddress>, ttl: Duration) {
        let ttl = match found {
            Ok(_) => ttl.min(FOUND),
            Err(NoAddress::None(_)) => ttl.min(NOT_FOUND),
            Err(_) => return,
        };
        if ttl.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut names = self.lock();
        if names.len() >= NAMES_MAX {
            names.retain(|_, entry| now < entry.until);
        }
        if names.len() >= NAMES_MAX {
            // Of so many at a time, any half goes: each costs its next user one look-up, which is
            // bounded by tenant.
            let mut count = 0;
            names.retain(|_, _| {
                count += 1;
                count % 2 == 0
            });
        }
        names.insert(name.to_owned(), Entry { found: found.clone(), until: now + ttl });
    }

    pub(super) fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// IPv4 and IPv6 by turns, so that a family that leads nowhere here costs one attempt and not all
/// of them.
pub(super) fn by_turns(found: impl Iterator<Item = IpAddr>) -> Addresses {
    let (v4, v6): (Vec<_>, Vec<_>) = found.partition(IpAddr::is_ipv4);
    let length = v4.len().max(v6.len());
    let pairs = (0..length).flat_map(|at| [v4.get(at), v6.get(at)]);
    pairs.flatten().copied().take(ADDRESSES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn found(address: &str) -> Result<Addresses, NoAddress> {
        Ok(Arc::from([address.parse().unwrap()]))
    }

    async fn check(found: Result<Addresses, NoAddress>, ttl_s: u64, kept_s: u64) {
        let (cache, ttl) = (Cache::default(), Duration::from_secs(ttl_s));
        cache.put("a", &found, ttl);
        if kept_s > 0 {
            advance(Duration::from_secs(kept_s) - Duration::from_millis(1)).await;
            assert_eq!(cache.get("a"), Some(found), "{ttl_s}");
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!(cache.get("a"), None, "{ttl_s}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_kept_as_long_as_name_servers_say_but_not_for_long() {
        check(found("192.0.2.1"), 0, 0).await;
        check(found("192.0.2.1"), 7, 7).await;
        check(found("192.0.2.1"), 86_400, 30).await;
        check(Err(NoAddress::None("none".to_owned())), 1, 1).await;
        check(Err(NoAddress::None("none".to_owned())), 3_600, 2).await;
        for failed in [
            NoAddress::Silent,
            NoAddress::Failing(String::new()),
            NoAddress::Busy,
            NoAddress::NoServer(String::new()),
            NoAddress::NoSocket(String::new()),
        ] {
            check(Err(failed), 3_600, 0).await;
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let cache = Cache::default();
        for number in 0..3 * NAMES_MAX {
            cache.put(&number.to_string(), &found("192.0.2.1"), FOUND);
            assert!(cache.lock().len() <= NAMES_MAX);
        }
        let last = (3 * NAMES_MAX - 1).to_string();
        assert!(cache.get(&last).is_some());
        cache.forget(&last);
        assert!(cache.get(&last).is_none());
    }

    #[test]
    fn the_families_take_turns() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"].map(address);
        let ordered = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"].map(address);
        assert_eq!(*by_turns(all.into_iter()), ordered);
        let many = std::iter::repeat_n(address("192.0.2.1"), 1_000);
        assert_eq!(by_turns(many).len(), ADDRESSES_MAX);
    }
}
