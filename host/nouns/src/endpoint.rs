//! How the URL of an endpoint has to be written: nothing in it is left to be repaired.

use url::{Host, Position, Url};

/// Who says what an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// The clients of providers: to the letter.
    Exact,
    /// Ours, where people paste URLs: white space around them is cut off, and spaces behind the host are escaped.
    Pasted,
}

/// Whether a text is written as a URL. Parsers take many others, and each repairs them in its own way.
pub fn is_url(text: &str, writing: Writing) -> bool {
    let text = pasted(text, writing);
    let is_forbidden = |it: char| match it {
        ' ' => writing == Writing::Exact,
        _ => it == '\\' || it.is_control() || it.is_whitespace(),
    };
    Url::parse(text).is_ok_and(|url| !text.contains(is_forbidden) && has_its_host(text, &url))
}

/// What to write in the place of a text that is nearly a URL; none where nothing can be said but what an endpoint is.
pub fn hint(text: &str, writing: Writing) -> Option<String> {
    let url = Url::parse(pasted(text, writing)).ok()?;
    if !matches!(url.scheme(), "http" | "https") || is_url(text, writing) {
        return None;
    }
    let mut detail =
        "must be written as a scheme, `://`, a host, and what is behind it, without spaces, control characters or \
         backslashes"
            .to_owned();
    if url.username().is_empty() && url.password().is_none() {
        detail.push_str(&format!("; perhaps `{url}` is meant"));
    }
    Some(detail)
}

fn pasted(text: &str, writing: Writing) -> &str {
    match writing {
        Writing::Exact => text,
        Writing::Pasted => text.trim_ascii(),
    }
}

/// What tells one endpoint from another: a fragment never leaves its client.
pub fn identity(url: &Url) -> &str {
    &url[..Position::AfterQuery]
}

/// Whether the host is behind `://`, and is the one that is written there: parsers take `https:host`, and read
/// numbers and escapes as addresses.
fn has_its_host(text: &str, url: &Url) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let without_port = match host.rfind(':') {
        Some(at) if !host.ends_with(']') => &host[..at],
        _ => host,
    };
    scheme.eq_ignore_ascii_case(url.scheme())
        && match url.host() {
            Some(Host::Ipv4(it)) => it.to_string() == without_port,
            Some(Host::Ipv6(_)) => without_port.starts_with('['),
            Some(Host::Domain(it)) => {
                !without_port.is_ascii() || it.eq_ignore_ascii_case(without_port)
            }
            None => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, exact: bool, pasted: bool) {
        for (writing, fits) in [(Writing::Exact, exact), (Writing::Pasted, pasted)] {
            assert_eq!(is_url(text, writing), fits, "{text:?} {writing:?}");
        }
    }

    #[test]
    fn a_url_is_written_as_one() {
        check("https://example.com", true, true);
        check("HTTPS://Example.COM:8443/a%2fb?x={1}|[2]#f", true, true);
        check("https://grüße.example/Grüße?q=ü", true, true);
        check("https://[2001:db8:0::1]:8443/", true, true);
        check("http://127.0.0.1:8080/a/../b", true, true);
        check("https://example.com/a ", false, true);
        check(" https://example.com/a\n", false, true);
        check("https://example.com/a?x=1 2", false, true);
        check("https://exa mple.com/", false, false);
        for text in [
            "https:example.com",
            "https:/example.com",
            "https:///example.com",
            "https:\\\\example.com",
            "https://example.com\\a",
            "https://example.com/a\tb",
            "https://exam\nple.com/",
            "https://example.com/a\u{a0}b",
            "https://example.com/a\u{7f}",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://127.1/",
            "https://１２７.0.0.1/",
            "https://exa%6dple.com/",
            "example.com",
            "",
        ] {
            check(text, false, false);
        }
    }

    #[test]
    fn what_is_meant_is_said_and_never_a_password() {
        let said = |text| hint(text, Writing::Exact).unwrap();
        assert!(said("https:\\\\example.com\\a b").contains("`https://example.com/a%20b`"));
        assert!(!said("https://me:secret@example.com/a b").contains("secret"));
        for text in ["javascript:alert(1)", "example.com", "", "https://example.com/"] {
            assert_eq!(hint(text, Writing::Exact), None, "{text}");
        }
    }

    #[test]
    fn a_fragment_makes_no_other_endpoint() {
        let url: Url = "https://example.com/a?b#c".parse().unwrap();
        assert_eq!(identity(&url), "https://example.com/a?b");
    }
}
