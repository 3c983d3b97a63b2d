//! Which JSON Schema a stranger's schema is. It is read as 2020-12, and keywords of older drafts that would be ignored
//! then are refused.

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
        Some(it) if OLDER.contains(&it) => match gone(source, "") {
            Some((pointer, instead)) => Err(format!(
                "is of the draft `{it}`, and `#{pointer}` means nothing in JSON Schema 2020-12, as which it is read: \
                 use {instead}"
            )),
            None => Ok(()),
        },
        Some(it) => Err(format!(
            "names `{it}` as its `$schema`; it is read as JSON Schema 2020-12 (`{OWN}`) or left out"
        )),
    }
}

/// The first keyword that would be ignored.
fn gone(schema: &Value, pointer: &str) -> Option<(String, &'static str)> {
    let below = |name: &str| format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
    match schema {
        Value::Object(members) => {
            if let Some((name, instead)) = GONE.iter().find(|(it, _)| members.contains_key(*it)) {
                return Some((below(name), instead));
            }
            members.iter().find_map(|(name, it)| match it {
                _ if VALUES.contains(&&**name) => None,
                Value::Object(schemas) if NAMED.contains(&&**name) => {
                    let at = below(name);
                    let named = |name: &str| name.replace('~', "~0").replace('/', "~1");
                    schemas.iter().find_map(|(name, it)| gone(it, &format!("{at}/{}", named(name))))
                }
                it => gone(it, &below(name)),
            })
        }
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(at, it)| gone(it, &format!("{pointer}/{at}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_2020_12_would_ignore_is_refused_with_its_place() {
        let older = |mut schema: Value| {
            schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
            check(&schema)
        };
        for (schema, place) in [
            (json!({"additionalItems": false}), "`#/additionalItems`"),
            (json!({"properties": {"a/b": {"id": "x"}}}), "`#/properties/a~1b/id`"),
            (json!({"allOf": [{}, {"$recursiveRef": "#"}]}), "`#/allOf/1/$recursiveRef`"),
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
        older(json!({"dependencies": {"a": ["b"]}, "definitions": {"id": {}}})).unwrap();
        check(&json!({"$schema": OWN, "id": 1})).unwrap();
        check(&json!(true)).unwrap();
        let why = check(&json!({"$schema": "https://elsewhere.example/meta"})).unwrap_err();
        assert!(why.contains("https://elsewhere.example/meta") && why.contains("2020-12"), "{why}");
    }
}
