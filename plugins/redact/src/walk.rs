//! Finds what is redacted: one pass over the text of the data, which stays text.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::EDITS_MAX;

/// A value that is redacted.
pub(crate) struct Found<'a> {
    /// Empty behind the first `EDITS_MAX`: a pointer can be as long as the data, and no edit needs it.
    pub(crate) pointer: String,
    /// Where its member begins, with the name; of an item, where the value does.
    pub(crate) entry_start: usize,
    pub(crate) value_start: usize,
    pub(crate) value: &'a str,
}

/// Everything that is redacted, in the order of the text. None is inside another.
pub(crate) fn find<'a>(
    data: &'a str,
    pointers: &BTreeSet<String>,
    fields: &BTreeSet<String>,
) -> serde_json::Result<Vec<Found<'a>>> {
    let wanted = Wanted::of(pointers);
    let mut walk = Walk { data, fields, path: Vec::new(), found: Vec::new() };
    let level = Level { walk: &mut walk, wanted: (!pointers.is_empty()).then_some(&wanted) };
    level.deserialize(&mut serde_json::Deserializer::from_str(data))?;
    Ok(walk.found)
}

/// The pointers as a tree, so that each value of the data is compared with one token of them.
#[derive(Default)]
struct Wanted {
    here: bool,
    below: BTreeMap<String, Wanted>,
}

impl Wanted {
    fn of(pointers: &BTreeSet<String>) -> Wanted {
        let mut root = Wanted::default();
        for pointer in pointers {
            let tokens = pointer.split('/').skip(1);
            let place = tokens.fold(&mut root, |it, token| {
                it.below.entry(token.replace("~1", "/").replace("~0", "~")).or_default()
            });
            place.here = true;
        }
        root
    }

    /// What is wanted of an array. Asked once for each array that a pointer leads to, not for each item.
    fn items(&self) -> BTreeMap<usize, &Wanted> {
        let index = |token: &str| token.parse().ok().filter(|it: &usize| it.to_string() == token);
        self.below.iter().filter_map(|(token, it)| Some((index(token)?, it))).collect()
    }
}

struct Walk<'w, 'a> {
    data: &'a str,
    fields: &'w BTreeSet<String>,
    /// The way to the value that is visited.
    path: Vec<Token<'a>>,
    found: Vec<Found<'a>>,
}

enum Token<'a> {
    Name(Cow<'a, str>),
    Index(usize),
}

impl<'a> Walk<'_, 'a> {
    fn take(&mut self, entry: &'a RawValue, value: &'a RawValue) {
        let pointer = if self.found.len() < EDITS_MAX { self.pointer() } else { String::new() };
        let start = |it: &RawValue| it.get().as_ptr().addr() - self.data.as_ptr().addr();
        let (entry_start, value_start) = (start(entry), start(value));
        self.found.push(Found { pointer, entry_start, value_start, value: value.get() });
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for token in &self.path {
            let written = match token {
                Token::Name(name) => {
                    write!(pointer, "/{}", name.replace('~', "~0").replace('/', "~1"))
                }
                Token::Index(index) => write!(pointer, "/{index}"),
            };
            written.expect("a text takes what is written");
        }
        pointer
    }
}

/// Visits one value and all that is in it.
struct Level<'v, 'w, 'a> {
    walk: &'v mut Walk<'w, 'a>,
    wanted: Option<&'v Wanted>,
}

impl<'a> DeserializeSeed<'a> for Level<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, value: D) -> Result<(), D::Error> {
        if self.wanted.is_none() && self.walk.fields.is_empty() {
            value.deserialize_ignored_any(IgnoredAny).map(|_| ())
        } else {
            value.deserialize_any(self)
        }
    }
}

impl<'a> Visitor<'a> for Level<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut items: A) -> Result<(), A::Error> {
        let places = self.wanted.map(Wanted::items).unwrap_or_default();
        for index in 0.. {
            let wanted = places.get(&index).copied();
            self.walk.path.push(Token::Index(index));
            let more = if wanted.is_some_and(|it| it.here) {
                let item = items.next_element::<&RawValue>()?;
                item.map(|item| self.walk.take(item, item))
            } else {
                items.next_element_seed(Level { walk: &mut *self.walk, wanted })?
            };
            self.walk.path.pop();
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(key) = members.next_key::<&RawValue>()? {
            let name = unquoted(key.get()).map_err(A::Error::custom)?;
            let wanted = self.wanted.and_then(|it| it.below.get(&*name));
            let here = wanted.is_some_and(|it| it.here) || self.walk.fields.contains(&*name);
            self.walk.path.push(Token::Name(name));
            if here {
                let value = members.next_value()?;
                self.walk.take(key, value);
            } else {
                members.next_value_seed(Level { walk: &mut *self.walk, wanted })?;
            }
            self.walk.path.pop();
        }
        Ok(())
    }
}

/// The characters of a JSON string.
pub(crate) fn unquoted(json: &str) -> serde_json::Result<Cow<'_, str>> {
    if json.contains('\\') {
        return serde_json::from_str(json).map(Cow::Owned);
    }
    Ok(Cow::Borrowed(json.trim_matches('"')))
}
