//! Members of a name, taken out of JSON wherever they stand. What is left stays the text that it was.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in their order, each with its name as it was written and as it is read.
struct Members<'a>(Vec<(&'a RawValue, Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visit;

        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    let read =
                        serde_json::from_str(name.get()).map_err(serde::de::Error::custom)?;
                    members.push((name, read, value));
                }
                Ok(Members(members))
            }
        }

        from.deserialize_map(Visit)
    }
}

/// The JSON without the members of these names; none where it has none of them.
pub(crate) fn without(json: &RawValue, names: &[String]) -> serde_json::Result<Option<String>> {
    match json.get().as_bytes()[0] {
        b'{' => {
            let Members(members) = serde_json::from_str(json.get())?;
            let mut entries = Vec::with_capacity(members.len());
            let mut is_other = false;
            for (written, name, value) in members {
                if names.iter().any(|it| *it == name) {
                    is_other = true;
                    continue;
                }
                let left = without(value, names)?;
                is_other |= left.is_some();
                let value = left.map_or(Cow::Borrowed(value.get()), Cow::Owned);
                entries.push(format!("{}:{value}", written.get()));
            }
            Ok(is_other.then(|| format!("{{{}}}", entries.join(","))))
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json.get())?;
            let mut is_other = false;
            let mut entries = Vec::with_capacity(items.len());
            for item in items {
                let left = without(item, names)?;
                is_other |= left.is_some();
                entries.push(left.map_or(Cow::Borrowed(item.get()), Cow::Owned));
            }
            Ok(is_other.then(|| format!("[{}]", entries.join(","))))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, left: Option<&str>) {
        let it: &RawValue = serde_json::from_str(json).unwrap();
        let found = without(it, &["a".to_owned(), "b".to_owned()]).unwrap();
        assert_eq!(found.as_deref(), left, "{json}");
    }

    #[test]
    fn members_go_and_the_rest_stays_as_it_was_written() {
        check(r#"{"a":1}"#, Some("{}"));
        check(r#"{"\u0061":1, "c" : 1.00}"#, Some(r#"{"c":1.00}"#));
        check(
            r#"[{"c":{ "d" : 1 }},{"c":[{"b":{"c":1}}]}]"#,
            Some(r#"[{"c":{ "d" : 1 }},{"c":[{}]}]"#),
        );
        check(r#"{"\u0063":{"a":null}}"#, Some(r#"{"\u0063":{}}"#));
    }

    #[test]
    fn what_has_none_of_them_is_left_alone() {
        for json in ["1", "null", "[]", "{}", r#""a""#, r#"{"c":["a",{"aa":1}]}"#] {
            check(json, None);
        }
    }
}
