//! Reshapes the data of an event by rules, done one after the other.
//!
//! ```json
//! {"rules": [
//!     {"choose": ["/id", "/customer", "/lines"]},
//!     {"move": {"from": "/customer/mail", "to": "/contact/email"}},
//!     {"copy": {"from": "/lines/0/sku", "to": "/first"}},
//!     {"remove": "/customer/born"},
//!     {"set": {"at": "/schema", "value": 2}},
//!     {"template": {"at": "/title", "text": "Order {/id} of {/customer/name}"}},
//!     {"attribute": {"name": "region", "from": "/customer/region"}}
//! ]}
//! ```
//!
//! Values are carried as the text that they came as, so that no number changes its spelling.

mod document;
mod pointer;
mod template;

use hookyard_plugin::NewData;
use hookyard_plugin::prelude::*;
use schemars::Schema;
use serde_json::Value;
use serde_json::value::RawValue;

use document::{Document, Node};
use pointer::Pointer;
use template::Template;

/// What is done with the data.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Map {
    /// Done in this order; each sees what those before it made of the data.
    #[schemars(length(min = 1))]
    rules: Vec<Rule>,
}

/// One thing to do. All places are JSON Pointers (RFC 6901) into the data.
///
/// A rule whose `from` points at nothing changes nothing. What is put somewhere replaces what is
/// there, or is added to its object, or (at index `-`) to the end of its array. Objects on the way
/// that do not exist, or are `null`, are made.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[schemars(inline, transform = one_member)]
enum Rule {
    /// Only the values at these places stay, each where it is. The rest of an array closes up.
    Choose(#[schemars(length(min = 1))] Vec<Pointer>),
    /// The value at `from` is taken away, and then put at `to`.
    Move { from: Pointer, to: Pointer },
    /// The value at `from` is put at `to` as well.
    Copy { from: Pointer, to: Pointer },
    #[schemars(description = "must be a JSON Pointer (RFC 6901) to a part of the data, which goes")]
    Remove(
        #[serde(deserialize_with = "pointer::of_a_part")]
        #[schemars(length(min = 1))]
        Pointer,
    ),
    /// This value is put at `at`.
    Set {
        at: Pointer,
        #[schemars(with = "Value")]
        value: Box<RawValue>,
    },
    /// A text is put at `at`.
    Template { at: Pointer, text: Template },
    /// The text, number or boolean at `from` becomes an extension attribute.
    Attribute { name: Extension, from: Pointer },
}

/// The names that are no extension's.
const NO_EXTENSIONS: [&str; 9] = [
    "data",
    "datacontenttype",
    "dataschema",
    "id",
    "source",
    "specversion",
    "subject",
    "time",
    "type",
];

/// The name of an extension attribute.
#[derive(Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(
    with = "String",
    inline,
    description = "must be `a` to `z` and `0` to `9`, and no name that CloudEvents itself uses",
    extend("pattern" = "^[a-z0-9]+$", "not" = {"enum": NO_EXTENSIONS}),
)]
struct Extension(String);

impl TryFrom<String> for Extension {
    type Error = String;

    fn try_from(name: String) -> Result<Extension, String> {
        let letter = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(letter) {
            return Err(format!(
                "`{name}` is not an attribute name: only `a` to `z` and `0` to `9` may be in it"
            ));
        }
        if NO_EXTENSIONS.contains(&&*name) {
            return Err(format!("`{name}` is not the name of an extension attribute"));
        }
        Ok(Extension(name))
    }
}

/// Says of a rule that it is an object with one member. Of a `oneOf`, which is what an enum is by
/// itself, a checker can only say that nothing fits; of members it says which one is wrong.
fn one_member(schema: &mut Schema) {
    let Some(Value::Array(kinds)) = schema.remove("oneOf") else { return };
    let mut members = serde_json::Map::new();
    for mut kind in kinds {
        let description = kind["description"].take();
        let Value::Object(properties) = kind["properties"].take() else { continue };
        for (name, mut member) in properties {
            member["description"] = description.clone();
            members.insert(name, member);
        }
    }
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), members.into());
    schema.insert("additionalProperties".to_owned(), false.into());
    schema.insert("minProperties".to_owned(), 1.into());
    schema.insert("maxProperties".to_owned(), 1.into());
}

impl Transform for Map {
    fn transform(&self, event: &Event, _: &Context) -> Result<Verdict> {
        let data = event.raw("");
        let data = data.ok_or_else(|| Error::new("not-json", "the event has no data in JSON"))?;
        let mut document = Document::new(str::from_utf8(&data)?);
        let mut output = Output::new();
        for rule in &self.rules {
            output = rule.apply(&mut document, output)?;
        }
        let edits = document.into_edits();
        if !edits.is_empty() {
            output.data = NewData::Edits(edits);
        }
        Ok(output.into())
    }
}

impl Rule {
    /// Changes the data in `document` and the attributes in `output`.
    fn apply<'a>(&'a self, document: &mut Document<'a>, output: Output) -> Result<Output> {
        match self {
            Rule::Choose(pointers) => document.choose(pointers),
            // Taken away and put back, an item of an array would replace the one after it.
            Rule::Move { from, to } if from == to => {}
            Rule::Move { from, to } => {
                if let Some(value) = document.take(from) {
                    document.put(to, value)?;
                }
            }
            Rule::Copy { from, to } => {
                if let Some(value) = document.get(from).cloned() {
                    document.put(to, value)?;
                }
            }
            Rule::Remove(pointer) => drop(document.take(pointer)),
            Rule::Set { at, value } => document.put(at, Node::raw(value.get()))?,
            Rule::Template { at, text } => {
                let text = text.fill(document);
                document.put(at, Node::of_text(text))?;
            }
            Rule::Attribute { name, from } => {
                let Some(value) = document.get(from) else { return Ok(output) };
                if let Some(text) = attribute(value).map_err(|why| {
                    let at = from.as_str();
                    Error::new(
                        "unexpected-value",
                        format_args!("at `{at}` of the event's data: {why}"),
                    )
                })? {
                    return Ok(output.set(&name.0, text));
                }
            }
        }
        Ok(output)
    }
}

/// The value as that of an attribute; none where it is `null`.
fn attribute(value: &Node<'_>) -> Result<Option<String>, &'static str> {
    if value.is_container() {
        return Err("an object or an array cannot be an attribute");
    }
    let text = value.text();
    if text.as_ref().is_some_and(|it| it.contains(char::is_control)) {
        return Err("an attribute cannot have control characters");
    }
    Ok(text)
}

export!(Map: transform);

#[cfg(test)]
mod tests {
    use hookyard_plugin::stand_in::Sample;

    use super::*;

    const ORDER: &str = r#"{
        "id": 9007199254740993, "region": "eu", "vip": true, "note": null,
        "customer": {"name": "Ada \"A\"", "mail": "ada@example.com", "born": 1815},
        "lines": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}, {"sku": "c", "n": 3}]
    }"#;

    fn map(rules: &str) -> Map {
        serde_json::from_str(&format!(r#"{{"rules": {rules}}}"#)).unwrap()
    }

    /// What `rules` make of the order, of which the tests look at `at`.
    fn check(rules: &str, at: &str, after: &str) {
        let sample = Sample::json(ORDER);
        let data = sample.after(&sample.transform(&map(rules)).unwrap());
        let data: Value = serde_json::from_str(&data).unwrap();
        let found = data.pointer(at).map(Value::to_string);
        assert_eq!(found.as_deref().unwrap_or("nothing"), after, "{rules}");
    }

    fn attributes(rules: &str) -> Vec<(String, String)> {
        let Verdict::Replace(output) = Sample::json(ORDER).transform(&map(rules)).unwrap() else {
            panic!("something is delivered");
        };
        output.set
    }

    fn fails(data: &str, rules: &str, why: &str) {
        let err = Sample::json(data).transform(&map(rules)).unwrap_err().to_string();
        assert!(err.starts_with(why), "{rules}: {err}");
    }

    fn refused(config: &str, why: &str) {
        let err = serde_json::from_str::<Map>(config).err().expect(config).to_string();
        assert!(err.contains(why), "{config}: {err}");
    }

    #[test]
    fn a_value_is_moved() {
        let rules = r#"[{"move": {"from": "/customer/mail", "to": "/contact/email"}}]"#;
        check(rules, "/contact", r#"{"email":"ada@example.com"}"#);
        check(rules, "/customer/mail", "nothing");
        check(r#"[{"move": {"from": "/id", "to": "/id"}}]"#, "/id", "9007199254740993");
        check(r#"[{"move": {"from": "/lines/0", "to": "/lines/0"}}]"#, "/lines/0/sku", r#""a""#);
        check(r#"[{"move": {"from": "/lines/0", "to": "/lines/-"}}]"#, "/lines/2/sku", r#""a""#);
    }

    #[test]
    fn the_data_can_be_wrapped_and_unwrapped() {
        let wrap = r#"{"move": {"from": "", "to": "/order"}}"#;
        check(&format!("[{wrap}]"), "/order/id", "9007199254740993");
        check(&format!("[{wrap}]"), "/id", "nothing");
        let unwrap = r#"{"move": {"from": "/order", "to": ""}}"#;
        check(&format!("[{wrap}, {unwrap}]"), "/id", "9007199254740993");
        check(
            r#"[{"move": {"from": "/region", "to": "/region/code"}}]"#,
            "/region/code",
            r#""eu""#,
        );
        check(
            r#"[{"move": {"from": "/customer/name", "to": "/customer"}}]"#,
            "/customer/name",
            "nothing",
        );
    }

    #[test]
    fn a_value_is_copied() {
        let rules = r#"[{"copy": {"from": "/lines/1/sku", "to": "/customer/bought"}}]"#;
        check(rules, "/customer/bought", r#""b""#);
        check(rules, "/lines/1/sku", r#""b""#);
        check(r#"[{"copy": {"from": "", "to": "/all"}}]"#, "/all/region", r#""eu""#);
    }

    #[test]
    fn a_missing_from_changes_nothing() {
        let order = serde_json::from_str::<Value>(ORDER).unwrap().to_string();
        check(r#"[{"move": {"from": "/none", "to": "/id"}}]"#, "", &order);
        check(r#"[{"copy": {"from": "/lines/3", "to": "/id"}}]"#, "", &order);
        check(r#"[{"remove": "/customer/none/at/all"}]"#, "", &order);
        assert_eq!(attributes(r#"[{"attribute": {"name": "x", "from": "/none"}}]"#), []);
    }

    #[test]
    fn a_value_is_removed() {
        check(r#"[{"remove": "/customer/born"}]"#, "/customer/born", "nothing");
        check(r#"[{"remove": "/lines/0"}, {"remove": "/lines/0"}]"#, "/lines/0/sku", r#""c""#);
    }

    #[test]
    fn a_value_is_set_and_its_parents_are_made() {
        check(r#"[{"set": {"at": "/id", "value": null}}]"#, "/id", "null");
        check(r#"[{"set": {"at": "/a/b/0", "value": [1]}}]"#, "/a", r#"{"b":{"0":[1]}}"#);
        check(r#"[{"set": {"at": "/note/x", "value": 1}}]"#, "/note", r#"{"x":1}"#);
        check(r#"[{"set": {"at": "/lines/-/x", "value": 1}}]"#, "/lines/3", r#"{"x":1}"#);
        check(r#"[{"set": {"at": "", "value": {"x": 1}}}]"#, "", r#"{"x":1}"#);
    }

    #[test]
    fn a_text_is_made_of_values() {
        let made = |text: &str, after: &str| {
            let text = Value::from(text);
            let rules = format!(r#"[{{"template": {{"at": "/t", "text": {text}}}}}]"#);
            check(&rules, "/t", &Value::from(after).to_string());
        };
        made("Hello {/customer/name}, order {/id}", "Hello Ada \"A\", order 9007199254740993");
        made("{/vip} {/lines/0}", r#"true {"sku": "a", "n": 1}"#);
        made("<{/none}{/note}>", "<>");
        made("{{/id} }}", "{/id} }}");
    }

    #[test]
    fn only_what_is_chosen_stays() {
        check(
            r#"[{"choose": ["/vip", "/customer/name", "/none", "/id"]}]"#,
            "",
            r#"{"customer":{"name":"Ada \"A\""},"id":9007199254740993,"vip":true}"#,
        );
        check(
            r#"[{"choose": ["/lines/2/sku", "/lines/0", "/region/x"]}]"#,
            "",
            r#"{"lines":[{"n":1,"sku":"a"},{"sku":"c"}]}"#,
        );
        check(r#"[{"choose": ["/none"]}]"#, "", "{}");
        check(r#"[{"choose": ["/customer", "/customer/name"]}]"#, "/customer/born", "1815");
    }

    #[test]
    fn a_rule_sees_what_the_ones_before_it_made() {
        check(
            r#"[
                {"set": {"at": "/made/first", "value": "x"}},
                {"copy": {"from": "/made", "to": "/second"}},
                {"template": {"at": "/made/third", "text": "{/second/first}{/lines/0/sku}"}},
                {"choose": ["/made", "/lines/1"]},
                {"move": {"from": "/lines/0/sku", "to": "/made/fourth"}},
                {"remove": "/lines"}
            ]"#,
            "",
            r#"{"made":{"first":"x","fourth":"b","third":"xa"}}"#,
        );
    }

    #[test]
    fn attributes_are_texts_numbers_and_booleans() {
        let set = |from: &str| {
            let rules = format!(r#"[{{"attribute": {{"name": "x1", "from": "{from}"}}}}]"#);
            attributes(&rules).pop().map(|(_, value)| value)
        };
        assert_eq!(set("/region").as_deref(), Some("eu"));
        assert_eq!(set("/id").as_deref(), Some("9007199254740993"));
        assert_eq!(set("/vip").as_deref(), Some("true"));
        assert_eq!(set("/note"), None);
        for from in ["/customer", "/lines", ""] {
            let rules = format!(r#"[{{"attribute": {{"name": "x1", "from": "{from}"}}}}]"#);
            fails(ORDER, &rules, "unexpected-value: at `");
        }
        let rules = r#"[{"attribute": {"name": "x1", "from": "/a"}}]"#;
        fails(r#"{"a": "b\nc"}"#, rules, "unexpected-value: at `/a`");
    }

    #[test]
    fn attributes_alone_leave_the_data_as_they_are() {
        let plugin = map(r#"[{"attribute": {"name": "region", "from": "/region"}}]"#);
        let wanted = Output::new().set("region", "eu");
        assert_eq!(Sample::json(ORDER).transform(&plugin).unwrap(), Verdict::Replace(wanted));
    }

    #[test]
    fn a_place_that_nothing_can_be_put_at_fails_the_event() {
        fails(ORDER, r#"[{"set": {"at": "/region/x", "value": 1}}]"#, "no-place: `/region/x`");
        fails(ORDER, r#"[{"set": {"at": "/lines/4", "value": 1}}]"#, "no-place: `/lines/4`");
        fails(ORDER, r#"[{"copy": {"from": "/id", "to": "/lines/x"}}]"#, "no-place: `/lines/x`");
        fails("[", r#"[{"remove": "/a"}]"#, "not-json");
    }

    #[test]
    fn a_wrong_configuration_is_refused() {
        let rule = |rule: &str, why: &str| refused(&format!(r#"{{"rules": [{rule}]}}"#), why);
        refused("{}", "missing field `rules`");
        refused(r#"{"rules": [], "x": 1}"#, "unknown field `x`");
        rule("{}", "expected value");
        rule(r#"{"rename": {"from": "/a", "to": "/b"}}"#, "unknown variant `rename`");
        rule(r#"{"remove": "/a", "choose": ["/a"]}"#, "expected value");
        rule(r#"{"move": {"from": "/a"}}"#, "missing field `to`");
        rule(r#"{"move": {"from": "/a", "to": "/b", "x": 1}}"#, "unknown field `x`");
        rule(r#"{"copy": {"from": "a", "to": "/b"}}"#, "`a` is not a JSON Pointer");
        rule(r#"{"choose": ["/a", "/~2"]}"#, "`/~2` is not a JSON Pointer");
        rule(r#"{"remove": ""}"#, "the data as a whole cannot be removed");
        rule(r#"{"set": {"at": "/a"}}"#, "missing field `value`");
        rule(r#"{"template": {"at": "/a", "text": "{/b"}}"#, "is not closed");
        rule(r#"{"template": {"at": "/a", "text": "{b}"}}"#, "`b` is not a JSON Pointer");
        rule(r#"{"attribute": {"name": "Region", "from": "/a"}}"#, "not an attribute name");
        rule(r#"{"attribute": {"name": "type", "from": "/a"}}"#, "`type` is not the name of an");
    }

    #[test]
    fn the_schema_lists_what_a_rule_can_be() {
        let schema = schemars::schema_for!(Map);
        let rule = schema.pointer("/properties/rules/items").unwrap();
        let members: Vec<_> = rule["properties"].as_object().unwrap().keys().collect();
        let all = ["attribute", "choose", "copy", "move", "remove", "set", "template"];
        assert_eq!(members, all);
        assert_eq!((&rule["minProperties"], &rule["maxProperties"]), (&1.into(), &1.into()));
        assert_eq!(rule.pointer("/properties/move/required"), Some(&["from", "to"].into()));
    }
}
