//! To which host a request is sent (RFC 9112, section 3.2).

use http::request::Parts;
use http::uri::Authority;
use http::{Version, header};

/// Whether a request names its host as it has to: once, and as a host with or without a port. Before HTTP/1.1
/// it need not name any.
pub(super) fn is_named_once(parts: &Parts) -> bool {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return false;
    }
    match first {
        Some(host) => host.to_str().is_ok_and(is_host),
        None => parts.version < Version::HTTP_11,
    }
}

/// `uri-host [ ":" port ]`, where the host may be empty.
fn is_host(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let has_port = |it: &Authority| {
        let host = it.host().len();
        let port = text[host..].strip_prefix(':');
        text.len() == host || port.is_some_and(|it| it.is_empty() || it.parse::<u16>().is_ok())
    };
    !text.contains('@') && text.parse::<Authority>().is_ok_and(|it| has_port(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for (text, is) in [
            ("a.example", true),
            ("a.example:8080", true),
            ("a.example:", true),
            ("127.0.0.1:1", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("", true),
            ("a.example:x", false),
            ("a.example:70000", false),
            ("a b", false),
            ("a/b", false),
            ("user@a", false),
            ("[::1", false),
            ("a,b c", false),
        ] {
            assert_eq!(is_host(text), is, "{text:?}");
        }
    }
}
