//! JSON as bytes that are known to be valid: read by pointer and edited in place, never parsed into a
//! tree that nobody reads.
//!
//! [`Json::parse`] is the only door. It looks at every byte once: well-formed, UTF-8, no two members
//! of one name in an object, at most [`DEPTH_MAX`] levels. Whatever comes later only skips over bytes.

mod edit;
mod pretty;
mod scan;
mod spelled;
mod surrogates;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use edit::edit;
use scan::{Entries, find, skip_space, skip_value, tokens, unescaped};
use surrogates::{ESCAPE, lone_surrogate, with_whole_characters};

pub use edit::EditError;
pub use spelled::Spelled;

/// By a member of this name, the JSON library means something else than an object.
const RESERVED: &str = "$serde_json::private::RawValue";
/// How deep arrays and objects may be nested: many parsers end at 128, and around the data there is an
/// envelope.
pub const DEPTH_MAX: usize = 100;

/// One JSON value as text. Cheap to clone; parts of it share its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(Bytes);

/// Why bytes are not JSON that we take. Says what is wrong, with line and column.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl Json {
    /// Takes bytes that are one JSON value, white space around it included.
    ///
    /// # Errors
    ///
    /// Checks a text and keeps it as it is. Numbers beyond the range of a 64-bit float are refused as well.
    pub fn parse(bytes: Bytes) -> Result<Json, JsonError> {
        let bytes = without_mark(&bytes);
        let text = utf8(&bytes)?;
        check(text, DEPTH_MAX).map_err(|err| match lone_surrogate(text) {
            Some(at) => JsonError(format!(
                "the escape `{}` after byte {at} is half of a character: the other half has to be beside it",
                &text[at..at + ESCAPE]
            )),
            None => err,
        })?;
        Ok(Json(without_space(&bytes)))
    }

    /// The same for data that go on as they came: an escape of half a character is taken, since many a program
    /// writes one where it has cut a text (RFC 8259, section 8.2). Whoever reads it here reads U+FFFD.
    ///
    /// # Errors
    ///
    /// As [`Json::parse`], but for halves of characters.
    pub fn parse_data(bytes: Bytes) -> Result<Json, JsonError> {
        let bytes = without_mark(&bytes);
        check_data(utf8(&bytes)?, DEPTH_MAX)?;
        Ok(Json(without_space(&bytes)))
    }

    /// The same for a whole event, in which the data are one level down.
    ///
    /// # Errors
    ///
    /// As [`Json::parse_data`].
    pub fn parse_event(bytes: Bytes) -> Result<Json, JsonError> {
        let bytes = without_mark(&bytes);
        check_data(utf8(&bytes)?, DEPTH_MAX + 1)?;
        Ok(Json(without_space(&bytes)))
    }

    /// What we serialised ourselves, or the store kept for us.
    pub fn trusted(bytes: Bytes) -> Json {
        debug_assert!(
            utf8(&bytes).is_ok_and(|text| check_data(text, DEPTH_MAX + 1).is_ok()),
            "not valid JSON"
        );
        Json(bytes)
    }

    /// `{}`
    pub fn empty_object() -> Json {
        Json(Bytes::from_static(b"{}"))
    }

    /// The text, without white space around it.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.0).expect("valid JSON is UTF-8")
    }

    /// The value as a `T`; none where it is not one.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        match serde_json::from_slice(&self.0) {
            Ok(it) => Some(it),
            Err(_) => serde_json::from_str(&with_whole_characters(self.text())?).ok(),
        }
    }

    /// The text with U+FFFD for each escape that is half of a character: many readers of JSON take no halves.
    pub fn whole_text(&self) -> Cow<'_, str> {
        with_whole_characters(self.text()).map_or(Cow::Borrowed(self.text()), Cow::Owned)
    }

    /// The first escape that is half of a character.
    pub fn lone_surrogate(&self) -> Option<&str> {
        let text = self.text();
        lone_surrogate(text).map(|at| &text[at..at + ESCAPE])
    }

    /// The value at a JSON Pointer (RFC 6901); none where there is no such value or no such pointer.
    pub fn get(&self, pointer: &str) -> Option<Json> {
        let mut at = 0;
        for token in tokens(pointer)? {
            at = find(&self.0, at, &token)?;
        }
        Some(Json(self.0.slice(at..skip_value(&self.0, at))))
    }

    /// The members of an object, in the order of the text; none where the value is no object.
    pub fn members(&self) -> Option<impl Iterator<Item = (Cow<'_, str>, Json)>> {
        (self.0[0] == b'{').then(|| {
            Entries::of(&self.0, 0).map(|it| (self.key(&it.key), Json(self.0.slice(it.value))))
        })
    }

    /// The items of an array; none where the value is no array.
    pub fn items(&self) -> Option<impl Iterator<Item = Json>> {
        (self.0[0] == b'[').then(|| Entries::of(&self.0, 0).map(|it| Json(self.0.slice(it.value))))
    }

    fn key(&self, quoted: &Range<usize>) -> Cow<'_, str> {
        let raw = &self.0[quoted.start + 1..quoted.end - 1];
        match std::str::from_utf8(raw) {
            Ok(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
            _ => Cow::Owned(unescaped(&self.0[quoted.clone()])),
        }
    }

    /// Makes edits one after the other and keeps every byte that none of them touches.
    ///
    /// An edit with a value puts it at its pointer: in place of what is there, as a new last member of
    /// an object, or at the end of an array (index `-`, or its length). An edit without one removes
    /// what is there, if anything is.
    ///
    /// # Errors
    ///
    /// The first edit that cannot be made.
    pub fn edit<'a>(
        &self,
        edits: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Json, EditError> {
        let mut text = self.0.to_vec();
        for (pointer, value) in edits {
            edit(&mut text, pointer, value)?;
        }
        Ok(Json(text.into()))
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Json {
        Json(value.to_string().into())
    }
}

/// Text stays as it is: a number keeps its digits, and an object the order of its members.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text: &RawValue = serde_json::from_slice(&self.0).map_err(serde::ser::Error::custom)?;
        text.serialize(to)
    }
}

/// Only from text are numbers kept as they were written: what has been a tree has lost that. An event may be in it.
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Json, D::Error> {
        let text: Box<str> = Box::<RawValue>::deserialize(from)?.into();
        Json::parse_event(Bytes::from(String::from(text))).map_err(D::Error::custom)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// All of it at once: string by string it takes longer.
fn utf8(bytes: &[u8]) -> Result<&str, JsonError> {
    std::str::from_utf8(bytes)
        .map_err(|err| JsonError(format!("not UTF-8 after byte {}", err.valid_up_to())))
}

fn check(text: &str, depth: usize) -> Result<(), JsonError> {
    let mut parser = serde_json::Deserializer::from_str(text);
    Check { depth }
        .deserialize(&mut parser)
        .and_then(|()| parser.end())
        .map_err(|err| JsonError(err.to_string()))
}

/// The same, and halves of characters are taken.
fn check_data(text: &str, depth: usize) -> Result<(), JsonError> {
    match check(text, depth) {
        Err(err) => match with_whole_characters(text) {
            Some(text) => check(&text, depth),
            None => Err(err),
        },
        Ok(()) => Ok(()),
    }
}

/// Without the byte order mark that some programs write before a text (RFC 8259, section 8.1).
pub fn without_mark(bytes: &Bytes) -> Bytes {
    bytes.slice(if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }..)
}

fn without_space(bytes: &Bytes) -> Bytes {
    let start = skip_space(bytes, 0);
    let end = bytes.len() - bytes.iter().rev().take_while(|it| it.is_ascii_whitespace()).count();
    bytes.slice(start..end)
}

/// Visits everything and keeps nothing.
struct Check {
    depth: usize,
}

impl Check {
    fn deeper<E: Error>(&self) -> Result<Check, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Check { depth }),
            None => Err(E::custom(format_args!("nested deeper than {DEPTH_MAX} levels"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.deeper()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut keys = Vec::new();
        while let Some(Key(key)) = members.next_key()? {
            if key == RESERVED {
                return Err(A::Error::custom(format_args!(
                    "the member name `{RESERVED}` is reserved"
                )));
            }
            members.next_value_seed(self.deeper()?)?;
            keys.push(key);
        }
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(A::Error::custom(format_args!("duplicate member `{}`", pair[0]))),
            None => Ok(()),
        }
    }
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use serde_json::Value;

    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn refused(text: &str, why: &str) {
        let err = Json::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap_err().to_string();
        assert!(err.contains(why), "{text}: {err}");
    }

    #[test]
    fn what_is_not_plain_json_is_refused() {
        refused("", "EOF");
        refused("{} {}", "trailing");
        refused(r#"{"a":1,"a":2}"#, "duplicate member `a`");
        refused(r#"{"a":1,"\u0061":2}"#, "duplicate member `a`");
        refused(r#"[{"$serde_json::private::RawValue":"1"}]"#, "is reserved");
        refused(r#"{"a":1,"$serde_json::private::RawValu\u0065":1}"#, "is reserved");
        refused(r#"[{"x":{"b":1,"c":2,"b":3}}]"#, "duplicate member `b`");
        refused(r#"["\ud800"]"#, "the escape `\\ud800` after byte 2 is half of a character");
        refused("[1e999]", "out of range");
        refused("[01]", "invalid number");
        refused(&("[".repeat(101) + &"]".repeat(101)), "nested deeper than 100 levels");
        let err = Json::parse(Bytes::from_static(b"\"\xff\"")).unwrap_err();
        assert_eq!(err.to_string(), "not UTF-8 after byte 1");
    }

    #[test]
    fn white_space_around_the_value_is_left_out() {
        assert_eq!(json(" \n{ \"a\": 1 }\t").text(), "{ \"a\": 1 }");
    }

    #[test]
    fn values_are_read_by_pointer() {
        let it =
            json(r#" {"a" : [ 1, {"b~/c": "x\"]"} ,[]], "": true, "\u00e9":9007199254740993} "#);
        let check = |pointer: &str, value: Option<&str>| {
            assert_eq!(it.get(pointer).as_ref().map(Json::text), value, "{pointer}");
        };
        check("/a/0", Some("1"));
        check("/a/1/b~0~1c", Some(r#""x\"]""#));
        check("/a/2", Some("[]"));
        check("/a/3", None);
        check("/a/-", None);
        check("/a/00", None);
        check("/a/+0", None);
        check("/", Some("true"));
        check("/é", Some("9007199254740993"));
        check("/a/0/x", None);
        check("a", None);
        check("", Some(it.text()));
    }

    fn edited(before: &str, pointer: &str, value: Option<&str>, after: &str) {
        assert_eq!(json(before).edit([(pointer, value)]).unwrap().text(), after);
    }

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        edited(r#"{ "a" : 1 , "b":2 }"#, "/a", Some(" [7] "), r#"{ "a" : [7] , "b":2 }"#);
        edited("[1, 2]", "/1", Some("3"), "[1, 3]");
        edited("[1, 2]", "", Some("{}"), "{}");
    }

    #[test]
    fn a_new_value_comes_last() {
        edited("{}", "/a", Some("1"), r#"{"a":1}"#);
        edited(r#"{ "b": 2 }"#, "/a\"", Some("1"), r#"{ "b": 2,"a\"":1 }"#);
        edited(r#"{"x":{}}"#, "/x/y", Some("1"), r#"{"x":{"y":1}}"#);
        edited("[]", "/-", Some("1"), "[1]");
        edited("[1 ]", "/1", Some("2"), "[1,2 ]");
    }

    #[test]
    fn a_removed_value_takes_one_comma_along() {
        edited(r#"{ "a":1, "b":2, "c":3 }"#, "/a", None, r#"{ "b":2, "c":3 }"#);
        edited(r#"{ "a":1, "b":2, "c":3 }"#, "/b", None, r#"{ "a":1, "c":3 }"#);
        edited(r#"{ "a":1, "b":2, "c":3 }"#, "/c", None, r#"{ "a":1, "b":2 }"#);
        edited(r#"{ "a":1 }"#, "/a", None, "{  }");
        edited("[1,2]", "/0", None, "[2]");
        edited("[1,2]", "/5", None, "[1,2]");
        edited(r#"{"a":1}"#, "/b/c", None, r#"{"a":1}"#);
    }

    #[test]
    fn an_edit_that_cannot_be_made_says_why() {
        let check = |pointer: &str, value: Option<&str>, why: EditError| {
            assert_eq!(json(r#"{"a":[1]}"#).edit([(pointer, value)]).unwrap_err(), why);
        };
        check("a", None, EditError::Pointer("a".to_owned()));
        check("", None, EditError::RemoveAll);
        check("/b/c", Some("1"), EditError::NoParent("/b/c".to_owned()));
        check("/a/0/c", Some("1"), EditError::NoParent("/a/0/c".to_owned()));
        check("/a/2", Some("1"), EditError::Index("/a/2".to_owned()));
        let bad = json("{}").edit([("/a", Some("{"))]).unwrap_err();
        assert!(bad.to_string().starts_with("the value for `/a` is not valid JSON"), "{bad}");
        let deep = "[".repeat(DEPTH_MAX - 1) + &"]".repeat(DEPTH_MAX - 1);
        assert!(json(r#"{"a":{}}"#).edit([("/a/b", Some(&*deep))]).is_err());
        assert!(json("{}").edit([("/b", Some(&*deep))]).is_ok());
    }

    /// Documents, pointers and edits by chance: what we do to the text is what a tree would become.
    #[test]
    fn edits_of_the_text_are_edits_of_the_tree() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..3_000 {
            let mut tree = any_value(&mut rng, 4);
            let text = if rng.random() {
                serde_json::to_string_pretty(&tree).unwrap()
            } else {
                tree.to_string()
            };
            let pointer = any_pointer(&mut rng, &tree);
            let new = rng.random::<bool>().then(|| any_value(&mut rng, 1));
            let got = json(&text);
            assert_eq!(
                got.get(&pointer).map(|it| it.read::<Value>().unwrap()),
                tree.pointer(&pointer).cloned(),
                "{pointer} of {text}"
            );
            let value = new.as_ref().map(Value::to_string);
            let Ok(got) = got.edit([(pointer.as_str(), value.as_deref())]) else { continue };
            edit_tree(&mut tree, &pointer, new);
            let reparsed = json(got.text());
            assert_eq!(reparsed.read::<Value>().unwrap(), tree, "{pointer} of {text}");
        }
    }

    const KEYS: [&str; 5] = ["a", "b/~", "\"", "\\", "é"];

    fn any_value(rng: &mut StdRng, depth: u32) -> Value {
        match rng.random_range(0..if depth == 0 { 4 } else { 7 }) {
            0 => Value::Null,
            1 => Value::from(rng.random::<i64>()),
            2 => Value::from(KEYS[rng.random_range(0..KEYS.len())]),
            3 => Value::from("a,]}:{[\\\" b"),
            4 => (0..rng.random_range(0..4)).map(|_| any_value(rng, depth - 1)).collect(),
            _ => (0..rng.random_range(0..4))
                .map(|index| (KEYS[index].to_owned(), any_value(rng, depth - 1)))
                .collect(),
        }
    }

    fn any_pointer(rng: &mut StdRng, tree: &Value) -> String {
        let mut pointer = String::new();
        let mut at = tree;
        while rng.random_range(0..5) > 0 {
            let token = match at {
                Value::Object(_) => KEYS[rng.random_range(0..KEYS.len())].to_owned(),
                Value::Array(items) => rng.random_range(0..=items.len()).to_string(),
                _ => break,
            };
            pointer = format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"));
            match tree.pointer(&pointer) {
                Some(next) => at = next,
                None => break,
            }
        }
        pointer
    }

    fn edit_tree(tree: &mut Value, pointer: &str, new: Option<Value>) {
        let Some((parent, token)) = pointer.rsplit_once('/') else {
            *tree = new.unwrap();
            return;
        };
        let token = token.replace("~1", "/").replace("~0", "~");
        match (tree.pointer_mut(parent).unwrap(), new) {
            (Value::Object(members), Some(new)) => _ = members.insert(token, new),
            (Value::Object(members), None) => _ = members.remove(&token),
            (Value::Array(items), Some(new)) => {
                let index: usize = token.parse().unwrap();
                if index == items.len() { items.push(new) } else { items[index] = new }
            }
            (Value::Array(items), None) => {
                let index = token.parse::<usize>().unwrap();
                if index < items.len() {
                    items.remove(index);
                }
            }
            _ => unreachable!(),
        }
    }
}
