//! Escapes in JSON texts that are half of a character: `\ud83d` without its other half.

/// How long an escape is.
pub(super) const ESCAPE: usize = 6;
const INSTEAD: &str = "\\ufffd";

/// Where the first escape is that is half of a character.
pub(super) fn lone_surrogate(text: &str) -> Option<usize> {
    lone_surrogates(text).next()
}

/// The text with U+FFFD for each half of a character, of the same length; none where there are no halves.
pub(super) fn with_whole_characters(text: &str) -> Option<String> {
    let mut lone = lone_surrogates(text).peekable();
    lone.peek()?;
    let (mut whole, mut end) = (String::with_capacity(text.len()), 0);
    for at in lone {
        whole.push_str(&text[end..at]);
        whole.push_str(INSTEAD);
        end = at + ESCAPE;
    }
    whole.push_str(&text[end..]);
    Some(whole)
}

fn lone_surrogates(text: &str) -> impl Iterator<Item = usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += memchr::memchr(b'\\', bytes.get(at..)?)?;
            match escape(bytes, at) {
                // Whatever is behind a backslash belongs to it: `\\\\u` is no escape of this kind.
                None => at += 2,
                Some(0xd800..=0xdbff)
                    if matches!(escape(bytes, at + ESCAPE), Some(0xdc00..=0xdfff)) =>
                {
                    at += 2 * ESCAPE;
                }
                Some(0xd800..=0xdfff) => {
                    at += ESCAPE;
                    return Some(at - ESCAPE);
                }
                Some(_) => at += ESCAPE,
            }
        }
    })
}

/// The code unit that is escaped here.
fn escape(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_characters_are_found_and_made_whole() {
        for (text, whole) in [
            (r#""plain""#, None),
            (r#""\ud83d\ude00""#, None),
            (r#""\\ud83d""#, None),
            (r#""\u00e9\n""#, None),
            (r#""\ud83d""#, Some(r#""\ufffd""#)),
            (r#""\uDE00 \ud83d\ude00""#, Some(r#""\ufffd \ud83d\ude00""#)),
            (r#""\ud83d\ud83d\ude00é""#, Some(r#""\ufffd\ud83d\ude00é""#)),
            (r#""\\\ude00\ud83d"#, Some(r#""\\\ufffd\ufffd"#)),
            (r#"\ud8"#, None),
            (r#"\"#, None),
        ] {
            assert_eq!(with_whole_characters(text).as_deref(), whole, "{text}");
            assert_eq!(lone_surrogate(text).is_some(), whole.is_some(), "{text}");
        }
    }
}
