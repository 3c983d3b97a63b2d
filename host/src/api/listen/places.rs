//! How many connections there are, in all and from each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which bound has been met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    All,
    Address,
}

#[derive(Debug)]
pub(super) struct Places {
    all_max: usize,
    address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

/// The right to be connected, for as long as it is held.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    from: IpAddr,
}

impl Places {
    pub(super) fn new(all_max: usize, address_max: usize) -> Arc<Places> {
        Arc::new(Places { all_max, address_max, taken: Mutex::default() })
    }

    /// # Errors
    ///
    /// Which bound has been met.
    pub(super) fn take(self: &Arc<Places>, from: IpAddr) -> Result<Place, Full> {
        let from = household(from);
        let mut taken = self.lock();
        if taken.all >= self.all_max {
            return Err(Full::All);
        }
        if taken.by.get(&from).is_some_and(|count| *count >= self.address_max) {
            return Err(Full::Address);
        }
        taken.all += 1;
        *taken.by.entry(from).or_default() += 1;
        Ok(Place { places: Arc::clone(self), from })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        let count = taken.by.get_mut(&self.from).expect("a place that is given back was taken");
        *count -= 1;
        if *count == 0 {
            taken.by.remove(&self.from);
        }
    }
}

/// Whom an address belongs to: a household or a server has a /64 of IPv6, and every address in it.
pub(super) fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>, from: &str) -> Result<Place, Full> {
        places.take(from.parse().unwrap())
    }

    #[test]
    fn places_are_counted_in_all_and_by_address() {
        let places = Places::new(3, 2);
        let one = take(&places, "192.0.2.1").unwrap();
        // The same address, as a socket for both kinds shows it.
        let _two = take(&places, "::ffff:192.0.2.1").unwrap();
        assert_eq!(take(&places, "192.0.2.1").unwrap_err(), Full::Address);
        let _three = take(&places, "2001:db8::1").unwrap();
        assert_eq!(take(&places, "2001:db8::2").unwrap_err(), Full::All);
        drop(one);
        let _four = take(&places, "2001:db8::2").unwrap();
        assert_eq!(take(&places, "2001:db8::3").unwrap_err(), Full::All);
        assert_eq!(places.lock().by.len(), 2);
    }

    #[test]
    fn a_network_of_a_household_is_one_address() {
        let places = Places::new(9, 1);
        let _one = take(&places, "2001:db8:0:1::1").unwrap();
        assert_eq!(take(&places, "2001:db8:0:1:ffff::").unwrap_err(), Full::Address);
        assert!(take(&places, "2001:db8:0:2::1").is_ok());
    }
}
