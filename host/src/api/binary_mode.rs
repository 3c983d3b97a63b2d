//! The binary mode of the CloudEvents HTTP binding 1.0.2, section 3.1: attributes are headers, and the body is the
//! data.

use hookyard_nouns::event::{AttributeValue, Violation};
use http::{HeaderMap, header};

/// The header `Content-Type`; none where there is none.
///
/// # Errors
///
/// There are two of them, or it is not text.
pub(super) fn media_type(headers: &HeaderMap) -> Result<Option<&str>, Violation> {
    let mut all = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(first) = all.next() else { return Ok(None) };
    let wrong = |detail| Violation::new("datacontenttype", detail);
    if all.next().is_some() {
        return Err(wrong("must be in one header `Content-Type`, and not in several"));
    }
    first.to_str().map(Some).map_err(|_| wrong("must be visible ASCII"))
}

/// What the headers say of an event whose data are of this media type.
///
/// # Errors
///
/// What is wrong with them, one by one.
pub(super) fn attributes(
    headers: &HeaderMap,
    media_type: Option<&str>,
) -> Result<Vec<(String, AttributeValue)>, Vec<Violation>> {
    let mut attributes = Vec::new();
    let mut violations = Vec::new();
    for header in headers.keys() {
        let Some(name) = header.as_str().strip_prefix("ce-") else { continue };
        let mut values = headers.get_all(header).iter();
        let value = values.next().and_then(|it| it.to_str().ok()).and_then(decoded);
        match value {
            _ if name == "datacontenttype" => {
                violations.push(Violation::new(name, "must be in the header `Content-Type`"));
            }
            _ if values.next().is_some() => {
                let detail = format!("must be in one header `ce-{name}`, and not in several");
                violations.push(Violation::new(name, detail));
            }
            Some(text) => attributes.push((name.to_owned(), text.into())),
            None => {
                let detail = "must be visible ASCII, with everything else percent-encoded as UTF-8";
                violations.push(Violation::new(name, detail));
            }
        }
    }
    attributes.extend(media_type.map(|it| ("datacontenttype".to_owned(), it.to_owned().into())));
    if violations.is_empty() { Ok(attributes) } else { Err(Violation::first(violations)) }
}

/// The value of a header, after section 3.1.3.2: a quoted string is unescaped first, and then one round of percent
/// decoding is made. None where that is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    match unquoted(text) {
        Some(text) => percent_decoded(&text),
        None => percent_decoded(text),
    }
}

/// A text that is exactly one quoted string of RFC 7230, section 3.2.6, without its quotes and backslashes; none where
/// it is anything else.
fn unquoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut plain = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return None,
            '\\' => plain.push(letters.next()?),
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// One round: `%` and two hexadecimal digits are a byte of UTF-8, and everything else stands for itself.
fn percent_decoded(text: &str) -> Option<String> {
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(text).collect();
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn check(text: &str, wanted: Option<&str>) {
        assert_eq!(decoded(text).as_deref(), wanted, "{text}");
    }

    #[test]
    fn header_values_are_percent_decoded_once() {
        check("plain", Some("plain"));
        check("Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro € 😀"));
        check("50%+5", Some("50%+5"));
        check("100%", Some("100%"));
        check("%4", Some("%4"));
        check("%%41", Some("%A"));
        check("%2541", Some("%41"));
        check("%ff", None);
        check("%C3", None);
        check("a+b", Some("a+b"));
    }

    /// Only hexadecimal digits make an escape, whatever byte there is behind the `%`.
    #[test]
    fn an_escape_is_two_hexadecimal_digits_and_nothing_else() {
        for first in 0x20..0x7f {
            for second in 0x20..0x7f {
                let (first, second) = (char::from(first), char::from(second));
                let text = format!("x%{first}{second}");
                let wanted = match (first.to_digit(16), second.to_digit(16)) {
                    (Some(high), Some(low)) => {
                        let byte = u8::try_from(high * 16 + low).unwrap();
                        byte.is_ascii().then(|| format!("x{}", char::from(byte)))
                    }
                    _ => Some(text.clone()),
                };
                check(&text, wanted.as_deref());
            }
        }
    }

    #[test]
    fn exactly_one_quoted_string_is_unquoted() {
        check(r#""quoted""#, Some("quoted"));
        check(r#""say \"hi\" now""#, Some(r#"say "hi" now"#));
        check(r#""C:\\tmp""#, Some(r"C:\tmp"));
        check(r#""\%41""#, Some("A"));
        check(r#""\\%22""#, Some(r#"\""#));
        check(r#""""#, Some(""));
        for text in [r#"""#, r#""a" and "b""#, r#""a\""#, r#"a"b""#, r#""a"b"#, r"a\b"] {
            check(text, Some(text));
        }
    }

    fn named(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut all = HeaderMap::new();
        pairs.for_each(|(name, value)| _ = all.append(name, value));
        all
    }

    #[test]
    fn an_attribute_has_one_value() {
        let fields = |pairs: &[(&'static str, &'static str)]| {
            let wrong = attributes(&named(pairs), None).unwrap_err();
            wrong.into_iter().map(|it| it.field).collect::<Vec<_>>()
        };
        assert_eq!(fields(&[("ce-id", "1"), ("ce-type", "t"), ("ce-id", "1")]), ["id"]);
        assert_eq!(fields(&[("ce-mine", "1"), ("ce-mine", "2"), ("ce-mine", "3")]), ["mine"]);
        assert_eq!(fields(&[("ce-datacontenttype", "text/plain")]), ["datacontenttype"]);
        assert_eq!(fields(&[("ce-subject", "%ff")]), ["subject"]);
        let twice = named(&[("content-type", "text/plain"), ("content-type", "text/plain")]);
        assert_eq!(media_type(&twice).unwrap_err().field, "datacontenttype");
    }
}
