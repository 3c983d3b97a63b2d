//! Says why there was no answer, in words that help whoever runs the endpoint.

use std::error::Error;
use std::io;

use hyper_util::client::legacy;
use rustix::io::Errno;
use rustls::{AlertDescription, CertificateError};

use super::connect::{Endless, NoConnection, Phase};
use super::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::delivery::Reason;
use crate::egress::{Denied, Unresolved};

pub(super) const RESET: &str = "reset";

pub(super) fn timed_out(phase: Phase) -> Reason {
    match phase {
        Phase::Dns => Reason::new("dns-timeout", "the endpoint's name was not resolved in time"),
        Phase::Connect => {
            Reason::new("connect-timeout", "the endpoint did not take the connection in time")
        }
        Phase::Tls => {
            Reason::new("tls-timeout", "the endpoint did not end the TLS handshake in time")
        }
        Phase::Answer => Reason::new("timeout", "the endpoint did not answer in time"),
    }
}

pub(super) fn denied(denied: &Denied) -> Reason {
    Reason::new("egress-denied", format!("the endpoint {denied}"))
}

/// What is missing is not the endpoint's.
pub(super) const NO_SOCKET: &str = "no-socket";

fn no_socket(err: &io::Error) -> Option<Reason> {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    let is_ours = Errno::from_io_error(err).is_some_and(|err| ours.contains(&err));
    is_ours.then(|| Reason::new(NO_SOCKET, format!("the router has no socket for it now: {err}")))
}

pub(super) fn no_address(err: &Unresolved) -> Reason {
    match err {
        Unresolved::Denied(err) => denied(err),
        Unresolved::Unknown(err) if let Some(reason) = no_socket(err) => reason,
        Unresolved::Unknown(err) => {
            let why = err.to_string();
            let why = why.trim_start_matches("failed to lookup address information: ");
            Reason::new("dns", format!("the endpoint's name cannot be resolved: {why}"))
        }
    }
}

pub(super) fn no_connection(err: &io::Error) -> Reason {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    if let Some(reason) = no_socket(err) {
        return reason;
    }
    match err.kind() {
        ConnectionRefused => {
            Reason::new("connect-refused", "nothing listens at the endpoint's address")
        }
        HostUnreachable | NetworkUnreachable => {
            Reason::new("unreachable", "there is no way to the endpoint's network")
        }
        _ => Reason::new("connect", format!("the endpoint cannot be connected to: {err}")),
    }
}

pub(super) fn no_handshake(err: &io::Error) -> Reason {
    let inner = err.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
    let why = match inner {
        Some(err) => tls(err),
        None if was_closed(err) => "the endpoint closed the connection".to_owned(),
        None => err.to_string(),
    };
    Reason::new("tls", format!("the TLS handshake failed: {why}"))
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
pub(super) fn no_answer(err: &legacy::Error) -> Reason {
    let causes = std::iter::successors(Some(err as &(dyn Error + 'static)), |&err| cause(err));
    for cause in causes.clone() {
        if let Some(NoConnection(reason)) = cause.downcast_ref() {
            return reason.clone();
        }
        if let Some(reason) = cause.downcast_ref().and_then(not_understood) {
            return reason;
        }
        if let Some(err) = cause.downcast_ref::<rustls::Error>() {
            return Reason::new("tls", format!("TLS failed: {}", tls(err)));
        }
        if cause.is::<Endless>() {
            let words = "the endpoint goes on and on without an answer";
            return Reason::new("answer-too-large", format!("{words}: {cause}"));
        }
        if cause.downcast_ref::<io::Error>().is_some_and(was_closed) {
            return closed_early();
        }
    }
    let last = causes.last().map_or_else(|| err.to_string(), ToString::to_string);
    Reason::new(if err.is_connect() { "connect" } else { "broken-answer" }, last)
}

fn not_understood(err: &hyper::Error) -> Option<Reason> {
    if err.is_incomplete_message() || err.is_closed() || err.is_canceled() {
        return Some(closed_early());
    }
    if err.is_parse_too_large() {
        let words = "the head of the endpoint's answer has more than";
        let bounds = format!("{words} {HEADERS_MAX} headers or {HEAD_BYTES_MAX} bytes");
        return Some(Reason::new("answer-too-large", bounds));
    }
    let words = "the endpoint does not speak HTTP";
    err.is_parse().then(|| Reason::new("not-http", format!("{words}: {err}")))
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

fn closed_early() -> Reason {
    Reason::new(RESET, "the endpoint closed the connection before it answered")
}
