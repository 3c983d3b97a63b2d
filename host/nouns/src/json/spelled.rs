//! JSON for what only works on trees: numbers keep their spelling in it.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::scan::{skip_space, skip_value};

/// A tree without numbers: each of them is a text, its spelling. All other texts begin with a quotation mark, so
/// that the two are told apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spelled(pub Value);

impl Spelled {
    /// None where it is not JSON, or a text has half of a character.
    pub fn read(bytes: &[u8]) -> Option<Spelled> {
        let json: &RawValue = serde_json::from_slice(bytes).ok()?;
        serde_json::from_str(&without_numbers(json.get())).ok().map(Spelled)
    }
}

fn without_numbers(json: &str) -> String {
    let bytes = json.as_bytes();
    let mut texts = String::with_capacity(json.len());
    let mut at = 0;
    while let Some(first) = bytes.get(at) {
        let end = match first {
            b'"' | b'-' | b'0'..=b'9' => skip_value(bytes, at),
            _ => at + 1,
        };
        let token = &json[at..end];
        match first {
            b'"' if bytes.get(skip_space(bytes, end)) == Some(&b':') => texts.push_str(token),
            b'"' => texts.extend([r#""\""#, &token[1..]]),
            b'-' | b'0'..=b'9' => texts.extend(["\"", token, "\""]),
            _ => texts.push_str(token),
        }
        at = end;
    }
    texts
}

/// As the JSON that it was read from, but for white space.
impl Serialize for Spelled {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Part(&self.0).serialize(to)
    }
}

struct Part<'a>(&'a Value);

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) => match text.strip_prefix('"') {
                Some(text) => to.serialize_str(text),
                None => RawValue::from_string(text.clone())
                    .map_err(serde::ser::Error::custom)?
                    .serialize(to),
            },
            Value::Array(items) => to.collect_seq(items.iter().map(Part)),
            Value::Object(members) => {
                to.collect_map(members.iter().map(|(name, it)| (name, Part(it))))
            }
            other => other.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Spelled {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Spelled, D::Error> {
        let json = Box::<RawValue>::deserialize(from)?;
        Spelled::read(json.get().as_bytes())
            .ok_or_else(|| D::Error::custom("a text has half of a character"))
    }
}

impl fmt::Display for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_was_read() {
        for json in [
            "null",
            "-0.10",
            r#""1""#,
            r#""""#,
            r#"{"1":1,"a":[1E+2,"1E+2","\"",true,{"b":"c: \"d\""},[]],"c":{},"x":"y"}"#,
            "[993143214321423154315154321,10.00]",
        ] {
            assert_eq!(Spelled::read(json.as_bytes()).unwrap().to_string(), json);
        }
    }

    #[test]
    fn numbers_and_texts_are_never_the_same() {
        let read = |json: &str| Spelled::read(json.as_bytes()).unwrap();
        assert_ne!(read("1"), read("\"1\""));
        assert_ne!(read("1"), read("1.0"));
        assert_eq!(read("{\"a\" : [1, 2]}"), read("{\"a\":[1,2]}"));
    }

    #[test]
    fn what_is_no_tree_is_not_read() {
        for json in ["", "{", "1 2", r#""\ud83d""#] {
            assert_eq!(Spelled::read(json.as_bytes()), None, "{json}");
        }
    }
}
