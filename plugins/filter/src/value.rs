//! Values of JSON, compared by what they mean and not by how they are written.

use std::collections::BTreeMap;

use hookyard_plugin::prelude::*;
use serde_json::value::RawValue;

use crate::number::Number;

/// A value, read as far as its members or items, which are of type `T`.
pub(crate) enum Node<T> {
    /// `true`, `false` or `null`.
    Literal(String),
    Number(Number),
    Text(String),
    List(Vec<T>),
    Object(BTreeMap<String, T>),
}

impl<'a, T: Deserialize<'a>> Node<T> {
    /// Fails where an item cannot be read.
    pub(crate) fn read(value: &'a RawValue) -> serde_json::Result<Node<T>> {
        let json = value.get();
        Ok(match json.as_bytes()[0] {
            b'{' => Node::Object(serde_json::from_str(json)?),
            b'[' => Node::List(serde_json::from_str(json)?),
            b'"' => Node::Text(serde_json::from_str(json)?),
            _ => match Number::read(json) {
                Some(number) => Node::Number(number),
                None => Node::Literal(json.to_owned()),
            },
        })
    }
}

/// A configured value. It is read as a whole when the plugin is configured, so that a long list of them costs an
/// event only the comparisons.
#[derive(JsonSchema)]
#[schemars(with = "serde_json::Value")]
pub(crate) struct Value(Node<Value>);

impl Value {
    /// Whether a value of an event is the same one. The members of objects may be in any order. The value is read
    /// only as deep as this one is.
    pub(crate) fn is(&self, value: &Node<&RawValue>) -> bool {
        let within = |one: &Value, other: &RawValue| Node::read(other).is_ok_and(|it| one.is(&it));
        match (&self.0, value) {
            (Node::Literal(one), Node::Literal(other)) => one == other,
            (Node::Number(one), Node::Number(other)) => one == other,
            (Node::Text(one), Node::Text(other)) => one == other,
            (Node::List(one), Node::List(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, it)| within(one, it))
            }
            (Node::Object(one), Node::Object(other)) => {
                let is_there = |(name, one)| other.get(name).is_some_and(|it| within(one, it));
                one.len() == other.len() && one.iter().all(is_there)
            }
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(value: D) -> Result<Value, D::Error> {
        let json: Box<RawValue> = Box::deserialize(value)?;
        Node::read(&json).map(Value).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(left: &str, right: &str, are_same: bool) {
        for (one, other) in [(left, right), (right, left)] {
            let configured: Value = serde_json::from_str(one).unwrap();
            let value = serde_json::from_str(other).unwrap();
            assert_eq!(configured.is(&Node::read(value).unwrap()), are_same, "{one} and {other}");
        }
    }

    #[test]
    fn values_are_the_same_however_they_are_written() {
        check(r#"{"a":1,"b":[true,null]}"#, r#"{ "b": [true, null], "\u0061": 1.0 }"#, true);
        check(r#""\u00e9""#, r#""é""#, true);
        check("[]", "[ ]", true);
        check(r#"{"a":[{"b":10}]}"#, r#"{"a":[{"b":1e1}]}"#, true);
    }

    #[test]
    fn other_values_are_not_the_same() {
        check(r#"{"a":1}"#, r#"{"a":1,"b":2}"#, false);
        check(r#"{"a":1}"#, r#"{"b":1}"#, false);
        check("[1,2]", "[2,1]", false);
        check("[1]", "[1,1]", false);
        check("1", "\"1\"", false);
        check("0", "false", false);
        check("null", "false", false);
        check("{}", "[]", false);
    }
}
