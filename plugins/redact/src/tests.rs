//! What is redacted, and what stays.

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
    plugin.rewritten(before, &found).unwrap()
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
        r#"{"\"":"***","a/b~":{"":"***"},"in":{"x/~y":"***"},"é":"***","~1":"***"}"#,
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
    assert_eq!(verdict, Output::new().text(list(r#"{"b":"***"}"#)).into());
}

#[test]
fn a_new_text_keeps_every_other_byte() {
    let before = r#" { "a" : 1.10 , "b":[ 2 ], "\u0063":3e2 ,"d":{ "b" :4 } } "#;
    let check = |config: Value, after: &str| assert_eq!(rewritten(&plugin(config), before), after);
    check(
        json!({"fields": ["b"]}),
        r#" { "a" : 1.10 , "b":"***", "\u0063":3e2 ,"d":{ "b" :"***" } } "#,
    );
    check(
        json!({"fields": ["b"], "with": "remove"}),
        r#" { "a" : 1.10 , "\u0063":3e2 ,"d":{  } } "#,
    );
    check(json!({"fields": ["b", "c", "d"], "with": "remove"}), r#" { "a" : 1.10  } "#);
    check(json!({"fields": ["a", "c"], "with": "remove"}), r#" { "b":[ 2 ], "d":{ "b" :4 } } "#);
}

#[test]
fn data_may_be_nested_as_deep_as_the_router_takes_them() {
    let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(126), "]".repeat(126));
    check(json!({"fields": ["b"]}), &nested(r#"{"b":[[1]]}"#), &nested(r#"{"b":"***"}"#));
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
