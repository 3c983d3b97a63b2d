//! Says why there was no answer, in words that help whoever runs the endpoint, and whose fault it
//! is.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hookyard_nouns::delivery::Reason;
use rustix::io::Errno;
use rustls::{AlertDescription, CertificateError};

use super::opening::Phase;
use super::stream::Endless;
use super::{HEAD_BYTES_MAX, HEADERS_MAX, Outcome};
use crate::descriptors;
use crate::dns::NoAddress;
use crate::egress::Denied;

const RESET: &str = "reset";
const NO_SOCKET: &str = "no-socket";

/// Why there is no answer. What is ours counts neither as an attempt nor against the endpoint.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    whose: Whose,
    pub(super) reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Endpoint,
    Ours,
}

impl Failure {
    pub(super) fn theirs(code: &str, detail: impl Into<String>) -> Failure {
        Failure { whose: Whose::Endpoint, reason: Reason::new(code, detail) }
    }

    fn ours(code: &str, detail: impl Into<String>) -> Failure {
        Failure { whose: Whose::Ours, reason: Reason::new(code, detail) }
    }

    pub(super) fn is_ours(&self) -> bool {
        self.whose == Whose::Ours
    }

    /// Whether the connection ended, or the endpoint refused to begin with the request.
    pub(super) fn is_loss(&self) -> bool {
        self.reason.code == RESET
    }

    pub(super) fn outcome(self) -> Outcome {
        match self.whose {
            Whose::Endpoint => Outcome::Unreachable(self.reason),
            Whose::Ours => Outcome::NotSent(self.reason),
        }
    }
}

pub(super) fn timed_out(phase: Phase) -> Failure {
    match phase {
        Phase::Dns => {
            Failure::theirs("dns-timeout", "the endpoint's name was not resolved in time")
        }
        Phase::Connect => {
            Failure::theirs("connect-timeout", "the endpoint did not take the connection in time")
        }
        Phase::Tls => {
            Failure::theirs("tls-timeout", "the endpoint did not end the TLS handshake in time")
        }
        Phase::Answer => Failure::theirs("timeout", "the endpoint did not answer in time"),
    }
}

pub(super) fn denied(denied: &Denied) -> Failure {
    Failure::theirs("egress-denied", format!("the endpoint {denied}"))
}

pub(super) fn all_sockets_taken() -> Failure {
    let words = "the router has as many connections to endpoints as it may; this one has to wait";
    Failure::ours(NO_SOCKET, words)
}

pub(super) fn no_address(err: &NoAddress) -> Failure {
    match err {
        NoAddress::Silent => timed_out(Phase::Dns),
        NoAddress::None(_) | NoAddress::Failing(_) => {
            Failure::theirs("dns", format!("the endpoint's name cannot be resolved: {err}"))
        }
        NoAddress::Busy => Failure::ours("dns-busy", err.to_string()),
        NoAddress::NoServer(_) => Failure::ours("no-name-server", err.to_string()),
        NoAddress::NoSocket(_) => Failure::ours(NO_SOCKET, err.to_string()),
    }
}

/// What is wrong on this machine, and not at the endpoint, where an I/O error says so by itself.
fn local(err: &io::Error) -> Option<Failure> {
    if descriptors::are_short(err) {
        let words = format!("the router has no socket for it now: {err}");
        return Some(Failure::ours(NO_SOCKET, words));
    }
    match Errno::from_io_error(err)? {
        Errno::PERM | Errno::ACCESS => {
            let words = format!("the router's machine does not let it connect there: {err}");
            Some(Failure::ours("not-permitted", words))
        }
        Errno::NETDOWN => {
            Some(Failure::ours("no-network", format!("the router's network is down: {err}")))
        }
        _ => None,
    }
}

/// `is_public`: the address is of the public Internet. `has_way` says whether this machine has a
/// route there by the family of an address.
pub(super) fn no_connection(
    err: &io::Error,
    address: IpAddr,
    is_public: bool,
    has_way: &dyn Fn(IpAddr) -> bool,
) -> Failure {
    if let Some(failure) = local(err) {
        return failure;
    }
    let no_way = || Failure::theirs("unreachable", "there is no way to the endpoint's network");
    match Errno::from_io_error(err) {
        // A machine without IPv6 says the same of each address of that family: it has none to send
        // from.
        Some(Errno::ADDRNOTAVAIL) if address.is_ipv6() && !has_way(address) => no_way(),
        Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE | Errno::AGAIN) => {
            Failure::ours(NO_SOCKET, format!("the router has no free port for it now: {err}"))
        }
        Some(Errno::CONNREFUSED) => {
            Failure::theirs("connect-refused", "nothing listens at the endpoint's address")
        }
        Some(Errno::NETUNREACH) => {
            let families = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
            if is_public && !families.into_iter().any(has_way) {
                let words = "the router has no way to the Internet now";
                return Failure::ours("no-network", format!("{words}: {err}"));
            }
            no_way()
        }
        Some(Errno::HOSTUNREACH | Errno::AFNOSUPPORT) => no_way(),
        _ => Failure::theirs("connect", format!("the endpoint cannot be connected to: {err}")),
    }
}

pub(super) fn no_handshake(err: &io::Error) -> Failure {
    if let Some(failure) = local(err) {
        return failure;
    }
    let inner = err.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
    let why = match inner {
        Some(err) => tls(err),
        None if was_closed(err) => "the endpoint closed the connection".to_owned(),
        None => err.to_string(),
    };
    Failure::theirs("tls", format!("the TLS handshake failed: {why}"))
}

fn tls(err: &rustls::Error) -> String {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    let words = match err {
        rustls::Error::InvalidCertificate(why) => match why {
            UnknownIssuer => {
                "nobody whom we trust has issued the endpoint's certificate, or the certificates \
                 between are missing"
            }
            Expired | ExpiredContext { .. } => "the endpoint's certificate has expired",
            NotValidYet | NotValidYetContext { .. } => {
                "the endpoint's certificate is not valid yet"
            }
            NotValidForName | NotValidForNameContext { .. } => {
                "the endpoint's certificate is for another name"
            }
            _ => return err.to_string(),
        },
        rustls::Error::InvalidMessage(_) => "the endpoint does not speak TLS",
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the endpoint asks for a certificate of ours"
        }
        _ => return err.to_string(),
    };
    format!("{words} ({err})")
}

/// Why a request was not answered.
pub(super) fn no_answer(err: &hyper::Error) -> Failure {
    let causes = std::iter::successors(Some(err as &(dyn Error + 'static)), |&err| cause(err));
    for cause in causes.clone() {
        if let Some(failure) = cause.downcast_ref().and_then(not_understood) {
            return failure;
        }
        if let Some(failure) = cause.downcast_ref().and_then(http2) {
            return failure;
        }
        if let Some(err) = cause.downcast_ref::<rustls::Error>() {
            return Failure::theirs("tls", format!("TLS failed: {}", tls(err)));
        }
        if cause.is::<Endless>() {
            let words = "the endpoint goes on and on without an answer";
            return Failure::theirs("answer-too-large", format!("{words}: {cause}"));
        }
        if let Some(failure) = cause.downcast_ref().and_then(broken) {
            return failure;
        }
    }
    let last = causes.last().map_or_else(|| err.to_string(), ToString::to_string);
    Failure::theirs("broken-answer", last)
}

fn not_understood(err: &hyper::Error) -> Option<Failure> {
    // Of a connection that many requests share, hyper says by a time-out that it did not answer a
    // ping.
    if err.is_incomplete_message() || err.is_closed() || err.is_canceled() || err.is_timeout() {
        return Some(closed_early());
    }
    if err.is_parse_too_large() {
        let words = "the head of the endpoint's answer has more than";
        let bounds = format!("{words} {HEADERS_MAX} headers or {HEAD_BYTES_MAX} bytes");
        return Some(Failure::theirs("answer-too-large", bounds));
    }
    let words = "the endpoint does not speak HTTP";
    err.is_parse().then(|| Failure::theirs("not-http", format!("{words}: {err}")))
}

/// The end of an HTTP/2 connection, or of one of its streams that the endpoint has not begun with.
fn http2(err: &h2::Error) -> Option<Failure> {
    let is_refused = err.is_reset() && err.reason() == Some(h2::Reason::REFUSED_STREAM);
    if err.is_remote() && (err.is_go_away() || is_refused) {
        let words = "the endpoint ended the connection before it answered";
        return Some(Failure::theirs(RESET, format!("{words}: {err}")));
    }
    broken(err.get_io()?)
}

fn broken(err: &io::Error) -> Option<Failure> {
    local(err).or_else(|| was_closed(err).then(closed_early))
}

/// What an I/O error is made of is not its source, but its source's source is.
fn cause<'a>(err: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match err.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => err.source(),
    }
}

fn was_closed(err: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(err.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof)
}

pub(super) fn closed_early() -> Failure {
    Failure::theirs(RESET, "the endpoint closed the connection before it answered")
}
