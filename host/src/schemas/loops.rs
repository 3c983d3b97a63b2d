//! Schemas that refer to themselves without end. JSON Schema 2020-12, core, section 9.4.1: no schema may be run into
//! an infinite loop.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Keywords whose schemas are for the same value as the schema that they are in.
const LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const SINGLE: [&str; 4] = ["not", "if", "then", "else"];
const NAMED: [&str; 2] = ["dependentSchemas", "dependencies"];
const REFERENCES: [&str; 2] = ["$ref", "$dynamicRef"];

/// A JSON Pointer to a schema that refers to itself for one and the same value, by however many others; none where
/// there is none. References within the document that begin with `#` are followed. A schema that is for what is
/// inside the value ends with the value.
pub(super) fn endless(root: &Value) -> Option<String> {
    let mut anchors = HashMap::new();
    collect_anchors(root, &mut anchors);
    let mut search = Search { root, anchors, states: HashMap::new() };
    search.look_below(root, "")
}

struct Search<'a> {
    root: &'a Value,
    anchors: HashMap<&'a str, &'a Value>,
    /// Of each schema, by its place in memory: whether it is being looked at, or has been.
    states: HashMap<*const Value, bool>,
}

impl<'a> Search<'a> {
    /// Looks at everything that can be a schema.
    fn look_below(&mut self, value: &'a Value, pointer: &str) -> Option<String> {
        match value {
            Value::Object(members) => {
                if self.is_endless(value) {
                    return Some(pointer.to_owned());
                }
                members.iter().find_map(|(name, it)| {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    self.look_below(it, &format!("{pointer}/{name}"))
                })
            }
            Value::Array(items) => items
                .iter()
                .enumerate()
                .find_map(|(at, it)| self.look_below(it, &format!("{pointer}/{at}"))),
            _ => None,
        }
    }

    /// Whether a schema comes back to one that is being looked at.
    fn is_endless(&mut self, schema: &'a Value) -> bool {
        match self.states.get(&std::ptr::from_ref(schema)) {
            Some(being_looked_at) => return *being_looked_at,
            None => self.states.insert(schema, true),
        };
        let found = self.for_the_same_value(schema).into_iter().any(|it| self.is_endless(it));
        self.states.insert(schema, false);
        found
    }

    fn for_the_same_value(&self, schema: &'a Value) -> Vec<&'a Value> {
        let lists = LISTS.iter().filter_map(|it| schema[*it].as_array()).flatten();
        let single = SINGLE.iter().filter_map(|it| schema.get(*it));
        let named =
            NAMED.iter().filter_map(|it| schema[*it].as_object()).flat_map(|it| it.values());
        let referred = REFERENCES.iter().filter_map(|it| self.find(schema[*it].as_str()?));
        lists.chain(single).chain(named).chain(referred).filter(|it| it.is_object()).collect()
    }

    /// The schema that a reference leads to, inside this document.
    fn find(&self, reference: &str) -> Option<&'a Value> {
        let fragment = reference.strip_prefix('#')?;
        let fragment = percent_decode_str(fragment).decode_utf8().ok()?;
        if fragment.is_empty() || fragment.starts_with('/') {
            return self.root.pointer(&fragment);
        }
        self.anchors.get(&*fragment).copied()
    }
}

fn collect_anchors<'a>(value: &'a Value, anchors: &mut HashMap<&'a str, &'a Value>) {
    match value {
        Value::Object(members) => {
            let names = ["$anchor", "$dynamicAnchor"].iter().filter_map(|it| value[*it].as_str());
            anchors.extend(names.map(|name| (name, value)));
            members.values().for_each(|it| collect_anchors(it, anchors));
        }
        Value::Array(items) => items.iter().for_each(|it| collect_anchors(it, anchors)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_that_comes_back_to_itself_is_found() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"not": {"if": {"$ref": "#"}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
            json!({"properties": {"a": {"anyOf": [true, {"$ref": "#/properties/a"}]}}}),
            json!({"properties": {"a": {"$ref": "#x"}}, "$defs": {"b": {"$anchor": "x", "oneOf": [{"$ref": "#x"}]}}}),
            json!({"dependentSchemas": {"a": {"$ref": "#"}}}),
            json!({"$defs": {"a b": {"$ref": "#/$defs/a%20b"}}}),
        ] {
            assert!(endless(&schema).is_some(), "{schema}");
        }
    }

    #[test]
    fn a_schema_of_what_is_inside_a_value_ends() {
        for schema in [
            json!({}),
            json!(true),
            json!({"properties": {"next": {"$ref": "#"}}}),
            json!({"items": {"anyOf": [{"$ref": "#"}, {"type": "string"}]}}),
            json!({"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "object"}}}),
            json!({"$ref": "https://example.com/"}),
            json!({"enum": [{"$ref": 1}]}),
        ] {
            assert_eq!(endless(&schema), None, "{schema}");
        }
    }
}
