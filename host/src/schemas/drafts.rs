//! Which JSON Schema a stranger's schema is. It is read as 2020-12, and keywords of older drafts that would mean
//! something else then are refused.

use serde_json::Value;

const OWN: &str = "https://json-schema.org/draft/2020-12/schema";
const OLDER: [&str; 4] = [
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
];
/// Keywords of older drafts that would be ignored, with what to write instead.
const GONE: [(&str, &str); 4] = [
    ("additionalItems", "`items`, after `prefixItems`"),
    ("$recursiveRef", "`$dynamicRef`"),
    ("$recursiveAnchor", "`$dynamicAnchor`"),
    ("id", "`$id`"),
];
/// The drafts that ignore everything beside a `$ref`.
const LONELY_REFERENCES: &[&str] = OLDER.split_at(3).0;
/// These stand beside a `$ref` and decide nothing.
const NOTES: [&str; 11] = [
    "$ref",
    "$schema",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "readOnly",
    "writeOnly",
];
/// What is in these is named by the author, and what is in those is no schema.
const NAMED: [&str; 5] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
const VALUES: [&str; 5] = ["const", "enum", "default", "examples", "$vocabulary"];

/// # Errors
///
/// It is of another draft, and 2020-12 would not read it in the same way. Says where, and what to write instead.
pub(super) fn check(source: &Value) -> Result<(), String> {
    let named = source["$schema"].as_str().map(|it| it.strip_suffix('#').unwrap_or(it));
    match named {
        None | Some(OWN) => Ok(()),
        Some(it) if OLDER.contains(&it) => {
            match other(source, "", LONELY_REFERENCES.contains(&it)) {
                Some((pointer, cure)) => Err(format!(
                    "is of the draft `{it}`, and `#{pointer}` means something else in JSON Schema 2020-12, as which it \
                     is read: {cure}"
                )),
                None => Ok(()),
            }
        }
        Some(it) => Err(format!(
            "names `{it}` as its `$schema`; it is read as JSON Schema 2020-12 (`{OWN}`) or left out"
        )),
    }
}

/// The first keyword that would mean something else, and the cure.
fn other(schema: &Value, pointer: &str, lonely_references: bool) -> Option<(String, String)> {
    let below = |pointer: &str, name: &str| {
        format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
    };
    let other = |it, pointer: &str| other(it, pointer, lonely_references);
    match schema {
        Value::Object(members) => {
            if let Some((name, instead)) = GONE.iter().find(|(it, _)| members.contains_key(*it)) {
                return Some((below(pointer, name), format!("use {instead}")));
            }
            if lonely_references
                && members.get("$ref").is_some_and(Value::is_string)
                && let Some(name) = members.keys().find(|it| !NOTES.contains(&&***it))
            {
                let cure = "the draft ignores it beside `$ref`; leave it out, or put the `$ref` into `allOf`";
                return Some((below(pointer, name), cure.to_owned()));
            }
            members.iter().find_map(|(name, it)| {
                let at = below(pointer, name);
                match it {
                    _ if VALUES.contains(&&**name) => None,
                    Value::Object(schemas) if NAMED.contains(&&**name) => {
                        schemas.iter().find_map(|(name, it)| other(it, &below(&at, name)))
                    }
                    it => other(it, &at),
                }
            })
        }
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(at, it)| other(it, &format!("{pointer}/{at}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_2020_12_would_read_in_another_way_is_refused_with_its_place() {
        let older = |mut schema: Value| {
            schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
            check(&schema)
        };
        for (schema, place) in [
            (json!({"additionalItems": false}), "`#/additionalItems`"),
            (json!({"properties": {"a/b": {"id": "x"}}}), "`#/properties/a~1b/id`"),
            (json!({"allOf": [{}, {"$recursiveRef": "#"}]}), "`#/allOf/1/$recursiveRef`"),
            (
                json!({"properties": {"a": {"$ref": "#/definitions/a", "minLength": 1}}}),
                "`#/properties/a/minLength`",
            ),
        ] {
            let why = older(schema.clone()).unwrap_err();
            assert!(why.contains(place) && why.contains("2020-12"), "{why}");
            assert_eq!(
                check(&schema),
                Ok(()),
                "where no draft is named, the keyword is the author's own"
            );
        }
        older(json!({"properties": {"id": {"type": "string"}}, "default": {"id": 1}})).unwrap();
        older(
            json!({"properties": {"$ref": {"type": "string"}, "a": {"$ref": "#", "title": "A"}}}),
        )
        .unwrap();
        let newer = "https://json-schema.org/draft/2019-09/schema";
        check(&json!({"$schema": newer, "$ref": "#/$defs/a", "minLength": 1})).unwrap();
        older(json!({"dependencies": {"a": ["b"]}, "definitions": {"id": {}}})).unwrap();
        check(&json!({"$schema": OWN, "id": 1})).unwrap();
        check(&json!(true)).unwrap();
        let why = check(&json!({"$schema": "https://elsewhere.example/meta"})).unwrap_err();
        assert!(why.contains("https://elsewhere.example/meta") && why.contains("2020-12"), "{why}");
    }
}
