//! Finds its way through text that is known to be valid JSON. Looks at no byte twice.

use std::borrow::Cow;
use std::ops::Range;

use super::surrogates::with_whole_characters;

/// The tokens of a JSON Pointer, unescaped; none where it is not one.
pub(super) fn tokens(pointer: &str) -> Option<impl Iterator<Item = Cow<'_, str>>> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return None;
    }
    Some(pointer.split('/').skip(1).map(|token| {
        if token.contains('~') {
            Cow::Owned(token.replace("~1", "/").replace("~0", "~"))
        } else {
            Cow::Borrowed(token)
        }
    }))
}

/// Where a token of a pointer leads from a container.
pub(super) enum Place {
    There {
        entry: Range<usize>,
        value: Range<usize>,
        comma: Option<usize>,
    },
    /// It could be added here; `first` when the container is empty.
    Absent {
        at: usize,
        first: bool,
        object: bool,
    },
    /// The value is no container, or the array has no such index.
    Nowhere,
}

/// Where the value begins that a token leads to from a container. The value itself is not looked at.
pub(super) fn find(text: &[u8], container: usize, token: &str) -> Option<usize> {
    let object = match text[container] {
        b'{' => true,
        b'[' => false,
        _ => return None,
    };
    let mut left = if object { 0 } else { array_index(token)? };
    let mut entries = Entries::of(text, container);
    while let Some((key, value)) = entries.begin() {
        if if object { is_key(&text[key], token) } else { left == 0 } {
            return Some(value);
        }
        left = left.saturating_sub(1);
        entries.at = skip_value(text, value);
    }
    None
}

pub(super) fn place(text: &[u8], container: usize, token: &str) -> Place {
    let object = match text[container] {
        b'{' => true,
        b'[' => false,
        _ => return Place::Nowhere,
    };
    let index = if object { None } else { array_index(token) };
    let mut comma = None;
    let mut end = None;
    let mut count = 0;
    for entry in Entries::of(text, container) {
        let found =
            if object { is_key(&text[entry.key.clone()], token) } else { index == Some(count) };
        if found {
            let start = if object { entry.key.start } else { entry.value.start };
            return Place::There { entry: start..entry.value.end, value: entry.value, comma };
        }
        end = Some(entry.value.end);
        comma = Some(skip_space(text, entry.value.end));
        count += 1;
    }
    if object || token == "-" || index == Some(count) {
        Place::Absent { at: end.unwrap_or(container + 1), first: end.is_none(), object }
    } else {
        Place::Nowhere
    }
}

fn array_index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with('0');
    (canonical && token.bytes().all(|it| it.is_ascii_digit())).then(|| token.parse().ok()).flatten()
}

fn is_key(quoted: &[u8], token: &str) -> bool {
    let raw = &quoted[1..quoted.len() - 1];
    raw == token.as_bytes() && !token.contains('\\')
        || memchr::memchr(b'\\', raw).is_some() && unescaped(quoted) == token
}

pub(super) fn unescaped(quoted: &[u8]) -> String {
    let text = std::str::from_utf8(quoted).expect("valid JSON is UTF-8");
    let whole = with_whole_characters(text).map_or(Cow::Borrowed(text), Cow::Owned);
    serde_json::from_str(&whole).expect("a key of valid JSON is a valid string")
}

/// The members of an object, or the items of an array.
pub(super) struct Entries<'a> {
    text: &'a [u8],
    object: bool,
    at: usize,
}

pub(super) struct Entry {
    /// With its quotes; empty for an item.
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
}

impl Entries<'_> {
    pub(super) fn of(text: &[u8], container: usize) -> Entries<'_> {
        Entries { text, object: text[container] == b'{', at: container + 1 }
    }

    /// The key of the next entry, and where its value begins. Then `at` has to be set behind that.
    fn begin(&mut self) -> Option<(Range<usize>, usize)> {
        let mut at = skip_space(self.text, self.at);
        if self.text[at] == b',' {
            at = skip_space(self.text, at + 1);
        }
        if matches!(self.text[at], b'}' | b']') {
            return None;
        }
        let mut key = at..at;
        if self.object {
            key.end = skip_string(self.text, at);
            let colon = skip_space(self.text, key.end);
            at = skip_space(self.text, colon + 1);
        }
        Some((key, at))
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let (key, value) = self.begin()?;
        self.at = skip_value(self.text, value);
        Some(Entry { key, value: value..self.at })
    }
}

pub(super) fn skip_space(text: &[u8], at: usize) -> usize {
    at + text[at..].iter().take_while(|it| matches!(it, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// From the opening quote to behind the closing one.
fn skip_string(text: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', &text[at..]).expect("a string of valid JSON ends");
        match text[at] {
            b'"' => return at + 1,
            _ => at += 2,
        }
    }
}

pub(super) fn skip_value(text: &[u8], at: usize) -> usize {
    match text[at] {
        b'"' => skip_string(text, at),
        b'{' | b'[' => skip_container(text, at),
        _ => {
            let ends = |it: &u8| matches!(it, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            text[at..].iter().position(ends).map_or(text.len(), |length| at + length)
        }
    }
}

fn skip_container(text: &[u8], bracket: usize) -> usize {
    let mut depth = 0;
    let mut at = bracket;
    loop {
        match text[at] {
            b'"' => {
                at = skip_string(text, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
}
