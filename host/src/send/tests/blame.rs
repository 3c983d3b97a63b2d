//! Whose fault it is that there is no answer: what is ours is never recorded as the endpoint's.

use std::io;

use rustix::io::Errno;

use crate::dns::NoAddress;
use crate::egress::Denied;
use crate::send::Outcome;
use crate::send::explain::{self, Failure};
use crate::send::opening::Phase;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Theirs,
}
use Whose::{Ours, Theirs};

#[track_caller]
fn check(failure: Failure, whose: Whose, code: &str) {
    match (failure.outcome(), whose) {
        (Outcome::NotSent(reason), Ours) | (Outcome::Unreachable(reason), Theirs) => {
            assert_eq!(reason.code, code, "{reason:?}");
        }
        (other, _) => panic!("{whose:?} {code}: {other:?}"),
    }
}

fn error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

/// The way of a machine to IPv4 and to IPv6.
const BOTH: [bool; 2] = [true, true];
const ONLY_V4: [bool; 2] = [true, false];
const NONE: [bool; 2] = [false, false];

const V4: &str = "1.1.1.1";
const V6: &str = "2606:4700::1111";
const ALLOWED: &str = "10.0.0.1";

#[test]
fn a_connection_that_cannot_be_made() {
    for (errno, address, ways, whose, code) in [
        (Errno::MFILE, V4, BOTH, Ours, "no-socket"),
        (Errno::NFILE, V4, BOTH, Ours, "no-socket"),
        (Errno::NOBUFS, V4, BOTH, Ours, "no-socket"),
        (Errno::NOMEM, V6, BOTH, Ours, "no-socket"),
        (Errno::ADDRNOTAVAIL, V4, BOTH, Ours, "no-socket"),
        (Errno::ADDRNOTAVAIL, V4, NONE, Ours, "no-socket"),
        (Errno::ADDRNOTAVAIL, V6, BOTH, Ours, "no-socket"),
        (Errno::ADDRNOTAVAIL, V6, ONLY_V4, Theirs, "unreachable"),
        (Errno::ADDRINUSE, V4, BOTH, Ours, "no-socket"),
        (Errno::AGAIN, V4, BOTH, Ours, "no-socket"),
        (Errno::PERM, V4, BOTH, Ours, "not-permitted"),
        (Errno::ACCESS, V4, BOTH, Ours, "not-permitted"),
        (Errno::NETDOWN, V4, BOTH, Ours, "no-network"),
        (Errno::NETUNREACH, V4, NONE, Ours, "no-network"),
        (Errno::NETUNREACH, V6, NONE, Ours, "no-network"),
        (Errno::NETUNREACH, V6, ONLY_V4, Theirs, "unreachable"),
        (Errno::NETUNREACH, V4, BOTH, Theirs, "unreachable"),
        (Errno::NETUNREACH, ALLOWED, NONE, Theirs, "unreachable"),
        (Errno::HOSTUNREACH, V4, BOTH, Theirs, "unreachable"),
        (Errno::AFNOSUPPORT, V6, ONLY_V4, Theirs, "unreachable"),
        (Errno::CONNREFUSED, V4, BOTH, Theirs, "connect-refused"),
        (Errno::CONNRESET, V4, BOTH, Theirs, "connect"),
        (Errno::TIMEDOUT, V4, BOTH, Theirs, "connect"),
    ] {
        let has_way = |family: std::net::IpAddr| ways[usize::from(family.is_ipv6())];
        let is_public = address != ALLOWED;
        let address = address.parse().unwrap();
        let failure = explain::no_connection(&error(errno), address, is_public, &has_way);
        check(failure, whose, code);
    }
}

#[test]
fn a_name_that_is_not_resolved() {
    let text = || "why".to_owned();
    for (err, whose, code) in [
        (NoAddress::None(text()), Theirs, "dns"),
        (NoAddress::Failing(text()), Theirs, "dns"),
        (NoAddress::Silent, Theirs, "dns-timeout"),
        (NoAddress::Busy, Ours, "dns-busy"),
        (NoAddress::NoServer(text()), Ours, "no-name-server"),
        (NoAddress::NoSocket(text()), Ours, "no-socket"),
    ] {
        assert_eq!(err.is_ours(), whose == Ours, "{err:?}");
        check(explain::no_address(&err), whose, code);
    }
}

#[test]
fn a_handshake_that_fails() {
    for (errno, whose, code) in [
        (Errno::NOBUFS, Ours, "no-socket"),
        (Errno::NOMEM, Ours, "no-socket"),
        (Errno::PERM, Ours, "not-permitted"),
        (Errno::NETDOWN, Ours, "no-network"),
        (Errno::CONNRESET, Theirs, "tls"),
        (Errno::PIPE, Theirs, "tls"),
    ] {
        check(explain::no_handshake(&error(errno)), whose, code);
    }
}

#[test]
fn what_is_neither() {
    check(explain::all_sockets_taken(), Ours, "no-socket");
    let denied = Denied::Address("10.0.0.1".parse().unwrap());
    check(explain::denied(&denied), Theirs, "egress-denied");
    let denied = Denied::Port { port: 25, allowed: "443".to_owned() };
    check(explain::denied(&denied), Theirs, "egress-denied");
    for (phase, code) in [
        (Phase::Dns, "dns-timeout"),
        (Phase::Connect, "connect-timeout"),
        (Phase::Tls, "tls-timeout"),
        (Phase::Answer, "timeout"),
    ] {
        check(explain::timed_out(phase), Theirs, code);
    }
    check(explain::closed_early(), Theirs, "reset");
}
