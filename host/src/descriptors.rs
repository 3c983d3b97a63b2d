//! How the descriptors of this process are shared: nobody takes those that the store and health
//! need.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// What is left for the store, compiled plugins, the log, and whoever asks whether the router is
/// well.
const RESERVE: usize = 256;
/// One of so many descriptors is for connections of the API.
const API_PART: usize = 4;
/// Requests to endpoints have this many whatever the limit is: without any, nothing is delivered.
const ENDPOINTS_MIN: usize = 64;
/// How many connections may be kept beside as many requests as may be out.
const KEPT_MAX: usize = 4_096;
/// How many names are looked up at a time, at least and at most; in between, one for so many
/// descriptors.
const LOOK_UPS_MIN: usize = 4;
const LOOK_UPS_MAX: usize = 256;
const DESCRIPTORS_A_LOOK_UP: usize = 64;
/// How many sockets a look-up takes at worst: two name servers are asked for two types, up to twice
/// while it is quick. Half as many again may be slow, and ask up to three times (`dns`).
const SOCKETS_A_LOOK_UP: usize = 2 * 2 * 2 + 2 * 2 * 3 / 2;

/// How many descriptors each may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    pub reserve: usize,
    /// Connections of the API.
    pub api: usize,
    /// Names that are looked up at a time, each of which takes several sockets.
    pub look_ups: usize,
    /// Connections to endpoints, those that are kept included.
    pub endpoints: usize,
    /// How many there would have to be for all requests that may be out.
    pub wanted: usize,
}

impl Shares {
    /// `limit`: how many descriptors the process may have. `in_flight_max`: how many requests may
    /// be out.
    pub fn new(limit: usize, in_flight_max: usize) -> Shares {
        let api = limit / API_PART;
        let look_ups = (limit / DESCRIPTORS_A_LOOK_UP).clamp(LOOK_UPS_MIN, LOOK_UPS_MAX);
        let others = RESERVE + api + SOCKETS_A_LOOK_UP * look_ups;
        let endpoints_max = in_flight_max.saturating_add(KEPT_MAX).max(ENDPOINTS_MIN);
        Shares {
            reserve: RESERVE,
            api,
            look_ups,
            endpoints: limit.saturating_sub(others).clamp(ENDPOINTS_MIN, endpoints_max),
            wanted: wanted(in_flight_max),
        }
    }

    /// What to tell the operator where the limit is too small for the settings.
    pub fn complaint(&self, limit: usize, in_flight_max: usize) -> Option<String> {
        (self.endpoints < in_flight_max).then(|| {
            format!(
                "this process may open {limit} files, which leaves {} for requests to endpoints, and \
                 no more are out at a time; in-flight-max is {in_flight_max}: raise the hard limit \
                 (`ulimit -Hn`, `LimitNOFILE=`) to {}, or lower in-flight-max",
                self.endpoints, self.wanted
            )
        })
    }
}

/// The limit under which so many requests may be out, with everything else.
fn wanted(in_flight_max: usize) -> usize {
    let others = RESERVE + SOCKETS_A_LOOK_UP * LOOK_UPS_MAX;
    in_flight_max.saturating_add(others) / (API_PART - 1) * API_PART + API_PART
}

/// How many descriptors this process may have now.
pub fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    // None: there is no limit.
    limit.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX))
}

/// Whether an error says that this process or its machine has no descriptors or no memory for
/// sockets.
pub fn are_short(err: &io::Error) -> bool {
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(err).is_some_and(|err| short.contains(&err))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limit: usize, in_flight_max: usize, endpoints: usize, complains: bool) {
        let shares = Shares::new(limit, in_flight_max);
        assert_eq!(shares.endpoints, endpoints, "{limit} {in_flight_max}: {shares:?}");
        assert_eq!(shares.complaint(limit, in_flight_max).is_some(), complains, "{shares:?}");
        let taken =
            shares.reserve + shares.api + SOCKETS_A_LOOK_UP * shares.look_ups + shares.endpoints;
        assert!(taken <= limit || endpoints == ENDPOINTS_MIN, "{shares:?}");
    }

    #[test]
    fn each_has_its_share() {
        check(1_024, 16_384, 288, true);
        check(4_096, 16_384, 1_920, true);
        check(20_000, 16_384, 11_160, true);
        check(65_536, 16_384, 20_480, false);
        check(usize::MAX, 16_384, 20_480, false);
        check(1_024, 100, 288, false);
        check(256, 16_384, ENDPOINTS_MIN, true);
        check(256, 10, ENDPOINTS_MIN, false);
    }

    #[test]
    fn what_is_asked_of_the_operator_is_enough() {
        for in_flight_max in [1, 100, 16_384, 100_000] {
            let wanted = wanted(in_flight_max);
            let shares = Shares::new(wanted, in_flight_max);
            assert_eq!(shares.complaint(wanted, in_flight_max), None, "{shares:?}");
        }
    }
}
