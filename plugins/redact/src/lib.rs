//! Redacts an event's data: at given places, and wherever members of given names are.
//!
//! ```json
//! {"fields": ["email", "phone"], "pointers": ["/customer/name"], "with": "hash", "salt": "k7-…"}
//! ```

mod walk;

use std::borrow::Cow;
use std::collections::BTreeSet;

use hookyard_plugin::prelude::*;
use sha2::{Digest as _, Sha256};

use walk::Found;

/// Each edit has the router look for its place from the start of the data. More of them than this are
/// answered as one new text, in which we keep the bytes between them ourselves.
const EDITS_MAX: usize = 16;

/// What is redacted, and what comes in its place. Data that are not JSON pass as they are.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "anyOf" = [{"required": ["pointers"]}, {"required": ["fields"]}],
    "dependentSchemas" = {
        "mask": {"properties": {"with": {"const": "mask"}}},
        "salt": {"properties": {"with": {"const": "hash"}}, "required": ["with"]},
    },
))]
struct Redact {
    /// JSON Pointers (RFC 6901) into the data as they came. One that points at nothing changes nothing.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100), extend("items" = {
        "type": "string",
        "maxLength": 1024,
        "pattern": "^(/([^/~]|~[01])*)+$",
        "description": "must be a JSON Pointer (RFC 6901) to a part of the data, of at most 1024 characters",
    }))]
    pointers: BTreeSet<String>,
    /// Names of members that are redacted wherever they are in the data, with all that is in them.
    /// Upper and lower case are told apart.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100), inner(length(max = 256)))]
    fields: BTreeSet<String>,
    /// What happens to a value.
    #[serde(default)]
    with: With,
    /// The text that `mask` puts in the place of a value.
    #[serde(default = "stars")]
    #[schemars(length(max = 256))]
    mask: String,
    /// What `hash` puts before each value. Without a secret one, a hash of something short, such as a
    /// phone number, can be traced back by trying all of them.
    #[serde(default)]
    #[schemars(length(max = 256))]
    salt: String,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum With {
    /// The value goes, and its name with it.
    Remove,
    /// A text that is always the same takes the value's place.
    #[default]
    Mask,
    /// `sha256:` and the SHA-256, in hex, of the salt and the value: of a text its characters in UTF-8,
    /// without quotes and escapes; of anything else its JSON as it is written. Equal texts stay equal.
    Hash,
}

fn stars() -> String {
    "***".to_owned()
}

impl Transform for Redact {
    fn transform(&self, event: &Event, _: &Context) -> Result<Verdict> {
        let Some(json) = event.raw("") else { return Ok(Verdict::Pass) };
        let data = String::from_utf8(json)?;
        let found = walk::find(&data, &self.pointers, &self.fields)?;
        Ok(match found.len() {
            0 => Verdict::Pass,
            1..=EDITS_MAX => self.edits(&found)?.into(),
            _ => Output::new().bytes(self.rewritten(&data, &found)?).into(),
        })
    }
}

impl Redact {
    fn edits(&self, found: &[Found<'_>]) -> Result<Output> {
        // From the last to the first: a removed item moves only those that are behind it.
        found.iter().rev().try_fold(Output::new(), |output, it| match self.instead(it.value)? {
            Some(text) => output.put(&it.pointer, &text),
            None => Ok(output.remove(&it.pointer)),
        })
    }

    fn rewritten(&self, data: &str, found: &[Found<'_>]) -> Result<Vec<u8>> {
        let data = data.as_bytes();
        let mut new = Vec::with_capacity(data.len());
        let mut rest = 0;
        for it in found {
            let end = it.value_start + it.value.len();
            if let Some(text) = self.instead(it.value)? {
                new.extend_from_slice(&data[rest..it.value_start]);
                serde_json::to_writer(&mut new, &text)?;
                rest = end;
                continue;
            }
            new.extend_from_slice(&data[rest..it.entry_start]);
            rest = end;
            // An entry goes together with the comma behind it; the last one with the comma before it.
            if let Some(behind) = data[end..].trim_ascii_start().strip_prefix(b",") {
                rest = data.len() - behind.trim_ascii_start().len();
            } else if let Some(before) = new.trim_ascii_end().strip_suffix(b",") {
                new.truncate(before.len());
            }
        }
        new.extend_from_slice(&data[rest..]);
        Ok(new)
    }

    /// The text that takes a value's place; none where the value goes.
    fn instead(&self, value: &str) -> Result<Option<Cow<'_, str>>> {
        Ok(match self.with {
            With::Remove => None,
            With::Mask => Some(Cow::Borrowed(&self.mask)),
            With::Hash if value.starts_with('"') => {
                Some(Cow::Owned(self.hash(&walk::unquoted(value)?)))
            }
            With::Hash => Some(Cow::Owned(self.hash(value))),
        })
    }

    fn hash(&self, value: &str) -> String {
        let hash = Sha256::new().chain_update(&self.salt).chain_update(value).finalize();
        let digit = |it: u8| char::from_digit(it.into(), 16).expect("half a byte is a digit");
        let hex = hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        "sha256:".chars().chain(hex).collect()
    }
}

export!(Redact: transform);

#[cfg(test)]
mod tests {
    use hookyard_plugin::stand_in::Sample;
    use serde_json::{Value, json};

    use super::*;

    fn plugin(config: Value) -> Redact {
        serde_json::from_value(config).unwrap()
    }

    /// Edits and a new text have to say the same.
    fn check(config: Value, before: &str, after: &str) {
        let plugin = plugin(config);
        let sample = Sample::json(before);
        assert_eq!(sample.after(&sample.transform(&plugin).unwrap()), after);
        assert_eq!(rewritten(&plugin, before).parse::<Value>().unwrap().to_string(), after);
    }

    fn rewritten(plugin: &Redact, before: &str) -> String {
        let found = walk::find(before, &plugin.pointers, &plugin.fields).unwrap();
        String::from_utf8(plugin.rewritten(before, &found).unwrap()).unwrap()
    }

    fn untouched(config: Value, data: &str) {
        assert_eq!(Sample::json(data).transform(&plugin(config)).unwrap(), Verdict::Pass);
    }

    #[test]
    fn a_field_is_masked_wherever_it_is() {
        check(
            json!({"fields": ["email"]}),
            r#"{"a":[{"email":null},[{"email":{"email":1}}]],"email":"a@b.example","emails":2}"#,
            r#"{"a":[{"email":"***"},[{"email":"***"}]],"email":"***","emails":2}"#,
        );
    }

    #[test]
    fn a_pointer_is_one_place() {
        check(
            json!({"pointers": ["/a/1/email", "/b"], "mask": "\"?\""}),
            r#"{"a":[{"email":1},{"email":2}],"b":{"c":[]},"email":3}"#,
            r#"{"a":[{"email":1},{"email":"\"?\""}],"b":"\"?\"","email":3}"#,
        );
    }

    #[test]
    fn what_is_inside_a_redacted_value_goes_with_it() {
        check(
            json!({"pointers": ["/a/b", "/a", "/a/b/0"], "fields": ["b"]}),
            r#"{"a":{"b":[1]},"c":{"b":[1]}}"#,
            r#"{"a":"***","c":{"b":"***"}}"#,
        );
    }

    #[test]
    fn pointers_are_into_the_data_as_they_came() {
        let remove = |pointers: &[&str]| json!({"pointers": pointers, "with": "remove"});
        check(remove(&["/0", "/1", "/10"]), "[0,1,2,3,4,5,6,7,8,9,10]", "[2,3,4,5,6,7,8,9]");
        check(remove(&["/1", "/2"]), "[0,1,2]", "[0]");
        check(remove(&["/0", "/1"]), "[0,1]", "[]");
        check(remove(&["/0/a", "/1/a"]), r#"[{"a":1},{"a":1,"b":2}]"#, r#"[{},{"b":2}]"#);
    }

    #[test]
    fn names_are_compared_by_their_characters() {
        check(
            json!({"pointers": ["/a~1b~0/", "/~01"], "fields": ["é", "\"", "x/~y"]}),
            r#"{"\u00e9":1,"\"":2,"a\/b~":{"":3},"in":{"x/~y":4},"~1":5}"#,
            r#"{"\"":"***","a/b~":{"":"***"},"in":{"x/~y":"***"},"~1":"***","é":"***"}"#,
        );
    }

    #[test]
    fn a_hash_is_of_the_salt_and_the_value() {
        // printf 'pepperé"' | sha256sum
        check(
            json!({"fields": ["a"], "with": "hash", "salt": "pepper"}),
            r#"{"a":"\u00e9\""}"#,
            r#"{"a":"sha256:752fbaa75ae548656beae2451f84dd026ce24c08aab67dec6d03d5e20b6bc3f1"}"#,
        );
        // printf '{"b": 1.0}' | sha256sum
        let hash = "sha256:cd3e34219d4b4bc5dcf5d84be8e9b1a05c514236f9d3cb71841d8aace36eb12a";
        let hashing = plugin(json!({"pointers": ["/a"], "with": "hash"}));
        assert_eq!(rewritten(&hashing, r#"{"a": {"b": 1.0} }"#), format!(r#"{{"a": "{hash}" }}"#));
    }

    #[test]
    fn what_is_not_there_changes_nothing() {
        untouched(
            json!({"fields": ["email"], "pointers": ["/a/b", "/b/1", "/b/00"]}),
            r#"{"a":1,"b":[0]}"#,
        );
        untouched(json!({"fields": ["email"]}), r#""email""#);
        untouched(json!({"pointers": ["/0"]}), "[]");
        untouched(json!({"fields": ["email"]}), "email: a@b.example");
    }

    #[test]
    fn a_few_places_are_edits() {
        let plugin = plugin(json!({"fields": ["b"], "pointers": ["/a"]}));
        let verdict = Sample::json(r#"{"a":1,"b":2}"#).transform(&plugin).unwrap();
        let edits = Output::new().put("/b", &"***").unwrap().put("/a", &"***").unwrap();
        assert_eq!(verdict, edits.into());
    }

    #[test]
    fn many_places_are_one_text() {
        let plugin = plugin(json!({"fields": ["b"]}));
        let list = |item: &str| format!("[{}]", vec![item; EDITS_MAX + 1].join(","));
        let verdict = Sample::json(&list(r#"{"b":2}"#)).transform(&plugin).unwrap();
        assert_eq!(verdict, Output::new().bytes(list(r#"{"b":"***"}"#)).into());
    }

    #[test]
    fn a_new_text_keeps_every_other_byte() {
        let before = r#" { "a" : 1.10 , "b":[ 2 ], "\u0063":3e2 ,"d":{ "b" :4 } } "#;
        let check =
            |config: Value, after: &str| assert_eq!(rewritten(&plugin(config), before), after);
        check(
            json!({"fields": ["b"]}),
            r#" { "a" : 1.10 , "b":"***", "\u0063":3e2 ,"d":{ "b" :"***" } } "#,
        );
        check(
            json!({"fields": ["b"], "with": "remove"}),
            r#" { "a" : 1.10 , "\u0063":3e2 ,"d":{  } } "#,
        );
        check(json!({"fields": ["b", "c", "d"], "with": "remove"}), r#" { "a" : 1.10  } "#);
        check(
            json!({"fields": ["a", "c"], "with": "remove"}),
            r#" { "b":[ 2 ], "d":{ "b" :4 } } "#,
        );
    }

    #[test]
    fn data_may_be_nested_as_deep_as_the_router_takes_them() {
        let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(126), "]".repeat(126));
        check(json!({"fields": ["b"]}), &nested(r#"{"b":1}"#), &nested(r#"{"b":"***"}"#));
    }

    fn takes(config: &Value) -> bool {
        let schema = schemars::schema_for!(Redact);
        let fits = jsonschema::draft202012::is_valid(schema.as_value(), config);
        fits && serde_json::from_value::<Redact>(config.clone()).is_ok()
    }

    #[test]
    fn a_configuration_says_what_and_how() {
        for config in [
            json!({"fields": ["email", ""]}),
            json!({"pointers": ["/", "/a/0/~0~1"], "with": "remove"}),
            json!({"pointers": ["/a"], "fields": ["b"], "mask": ""}),
            json!({"fields": ["a"], "with": "mask", "mask": "?"}),
            json!({"fields": ["a"], "with": "hash", "salt": "pepper"}),
        ] {
            assert!(takes(&config), "{config}");
        }
        for config in [
            json!({}),
            json!({"with": "remove"}),
            json!({"fields": []}),
            json!({"fields": ["a", "a"]}),
            json!({"fields": "a"}),
            json!({"fields": ["x".repeat(257)]}),
            json!({"fields": (0..101).map(|it| it.to_string()).collect::<Vec<_>>()}),
            json!({"pointers": [""]}),
            json!({"pointers": ["a"]}),
            json!({"pointers": ["/~2"]}),
            json!({"fields": ["a"], "with": "encrypt"}),
            json!({"fields": ["a"], "with": "hash", "mask": "?"}),
            json!({"fields": ["a"], "with": "mask", "salt": "pepper"}),
            json!({"fields": ["a"], "salt": "pepper"}),
            json!({"fields": ["a"], "mask": null}),
            json!({"fields": ["a"], "patterns": ["[0-9]+"]}),
        ] {
            assert!(!takes(&config), "{config}");
        }
    }
}
