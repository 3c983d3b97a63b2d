//! Delivers an event when its data meet a condition.
//!
//! ```json
//! {"when": {"all": [
//!     {"at": "/amount", "gte": 100, "lt": 1000},
//!     {"any": [{"at": "/country", "in": ["AT", "DE"]}, {"at": "/vip", "exists": true}]},
//!     {"not": {"at": "/reference", "prefix": "test-"}}
//! ]}}
//! ```

mod number;
mod value;

use std::cmp::Ordering;

use hookyard_plugin::prelude::*;
use serde_json::value::RawValue;

use number::Number;
use value::{Node, Value};

/// Which events are delivered.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct When {
    /// The condition that the data have to meet.
    when: Condition,
}

/// Everything in a condition has to hold: `{"at": "/amount", "gte": 10, "lt": 20}` is a range.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "minProperties" = 1,
    "dependentRequired" = {
        "equals": ["at"], "in": ["at"], "exists": ["at"], "prefix": ["at"], "suffix": ["at"],
        "gt": ["at"], "gte": ["at"], "lt": ["at"], "lte": ["at"],
    },
    "dependentSchemas" = {"at": {
        "anyOf": [
            {"required": ["equals"]}, {"required": ["in"]}, {"required": ["exists"]},
            {"required": ["prefix"]}, {"required": ["suffix"]}, {"required": ["gt"]},
            {"required": ["gte"]}, {"required": ["lt"]}, {"required": ["lte"]},
        ],
    }},
))]
struct Condition {
    /// Each of these holds.
    all: Option<Vec<Condition>>,
    /// At least one of these holds.
    any: Option<Vec<Condition>>,
    /// This does not hold.
    // An `anyOf` with `null` would hide what is wrong in it.
    #[serde(default)]
    #[schemars(with = "Condition")]
    not: Option<Box<Condition>>,
    #[schemars(
        description = "must be a JSON Pointer (RFC 6901): the place of the value that the tests beside it are about",
        extend("format" = "json-pointer")
    )]
    at: Option<String>,
    /// The value is this one. Numbers are compared by what they are worth: 1 equals 1.0.
    #[serde(default, deserialize_with = "even_null")]
    equals: Option<Value>,
    /// The value is one of these.
    r#in: Option<Vec<Value>>,
    /// Whether there is a value, `null` included.
    exists: Option<bool>,
    /// The value is a text that begins like this.
    prefix: Option<String>,
    /// The value is a text that ends like this.
    suffix: Option<String>,
    /// The value is a number greater than this.
    gt: Option<Number>,
    /// The value is a number greater than or equal to this.
    gte: Option<Number>,
    /// The value is a number less than this.
    lt: Option<Number>,
    /// The value is a number less than or equal to this.
    lte: Option<Number>,
}

/// `"equals": null` is a test, unlike `"equals"` left out.
fn even_null<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

impl Filter for When {
    fn filter(&self, event: &Event, _: &Context) -> Result<Decision> {
        Ok(Decision::accept_if(self.when.holds(event)?, "condition-not-met"))
    }
}

impl Condition {
    fn holds(&self, event: &Event) -> Result<bool> {
        if let Some(all) = &self.all {
            for condition in all {
                if !condition.holds(event)? {
                    return Ok(false);
                }
            }
        }
        if let Some(any) = &self.any {
            let mut one = false;
            for condition in any {
                one = one || condition.holds(event)?;
            }
            if !one {
                return Ok(false);
            }
        }
        if let Some(not) = &self.not
            && not.holds(event)?
        {
            return Ok(false);
        }
        self.at.as_ref().map_or(Ok(true), |pointer| {
            let value = event.raw(pointer);
            if self.exists.is_some_and(|exists| exists != value.is_some()) {
                return Ok(false);
            }
            match value {
                Some(json) if self.needs_a_value() => {
                    Ok(self.fits(&Node::read(serde_json::from_slice(&json)?)?))
                }
                Some(_) => Ok(true),
                None => Ok(!self.needs_a_value()),
            }
        })
    }

    /// Whether a test beside `exists` is there: each is false where there is no value.
    fn needs_a_value(&self) -> bool {
        self.equals.is_some()
            || self.r#in.is_some()
            || self.prefix.is_some()
            || self.suffix.is_some()
            || [&self.gt, &self.gte, &self.lt, &self.lte].iter().any(|it| it.is_some())
    }

    fn fits(&self, value: &Node<&RawValue>) -> bool {
        let compare = |limit: &Option<Number>, fits: fn(Ordering) -> bool| match (limit, value) {
            (None, _) => true,
            (Some(limit), Node::Number(number)) => fits(number.cmp(limit)),
            _ => false,
        };
        let is_text = |fits: &dyn Fn(&str) -> bool| match value {
            Node::Text(text) => fits(text),
            _ => false,
        };
        self.equals.as_ref().is_none_or(|it| it.is(value))
            && self.r#in.as_ref().is_none_or(|list| list.iter().any(|it| it.is(value)))
            && self.prefix.as_ref().is_none_or(|it| is_text(&|text| text.starts_with(it)))
            && self.suffix.as_ref().is_none_or(|it| is_text(&|text| text.ends_with(it)))
            && compare(&self.gt, Ordering::is_gt)
            && compare(&self.gte, Ordering::is_ge)
            && compare(&self.lt, Ordering::is_lt)
            && compare(&self.lte, Ordering::is_le)
    }
}

export!(When: filter);

#[cfg(test)]
mod tests {
    use hookyard_plugin::stand_in::Sample;

    use super::*;

    const EVENT: &str = r#"{
        "amount": 150, "rate": 1.5, "id": 9007199254740993, "country": "AT",
        "reference": "order-77", "note": null, "lines": [{"sku": "a"}]
    }"#;

    fn check(when: &str, delivered: bool) {
        let plugin = When { when: serde_json::from_str(when).unwrap() };
        let decision = Sample::json(EVENT).filter(&plugin).unwrap();
        assert_eq!(decision == Decision::Accept, delivered, "{when}");
    }

    #[test]
    fn equals_compares_values_and_not_spellings() {
        check(r#"{"at": "/country", "equals": "AT"}"#, true);
        check(r#"{"at": "/country", "equals": "DE"}"#, false);
        check(r#"{"at": "/amount", "equals": 150.0}"#, true);
        check(r#"{"at": "/amount", "equals": "150"}"#, false);
        check(r#"{"at": "/lines/0", "equals": {"sku": "a"}}"#, true);
        check(r#"{"at": "/note", "equals": null}"#, true);
        check(r#"{"at": "/none", "equals": null}"#, false);
    }

    #[test]
    fn large_whole_numbers_are_told_apart() {
        check(r#"{"at": "/id", "equals": 9007199254740993}"#, true);
        check(r#"{"at": "/id", "equals": 9007199254740992}"#, false);
        check(r#"{"at": "/id", "gt": 9007199254740992}"#, true);
        check(r#"{"at": "/id", "in": [9007199254740992, 9.007199254740993e15]}"#, true);
    }

    #[test]
    fn numbers_of_any_length_are_told_apart() {
        let check = |when: &str, delivered: bool| {
            let plugin = When { when: serde_json::from_str(when).unwrap() };
            let data = r#"{"wei": 993143214321423154315154321, "share": 0.100000000000000000001}"#;
            let decision = Sample::json(data).filter(&plugin).unwrap();
            assert_eq!(decision == Decision::Accept, delivered, "{when}");
        };
        check(r#"{"at": "/wei", "equals": 993143214321423154315154321}"#, true);
        check(r#"{"at": "/wei", "equals": 993143214321423154315154322}"#, false);
        check(r#"{"at": "/wei", "gt": 993143214321423154315154320}"#, true);
        check(r#"{"at": "/wei", "lt": 993143214321423154315154321.5}"#, true);
        check(r#"{"at": "/share", "gt": 0.1}"#, true);
        check(r#"{"at": "/share", "lte": 0.1}"#, false);
        let all = r#"{"share": 1.00000000000000000001e-1, "wei": 993143214321423154315154321.0}"#;
        check(&format!(r#"{{"at": "", "equals": {all}}}"#), true);
    }

    #[test]
    fn in_is_one_of_a_list() {
        check(r#"{"at": "/country", "in": ["DE", "AT"]}"#, true);
        check(r#"{"at": "/country", "in": []}"#, false);
    }

    #[test]
    fn exists_sees_null() {
        check(r#"{"at": "/note", "exists": true}"#, true);
        check(r#"{"at": "/none", "exists": true}"#, false);
        check(r#"{"at": "/none", "exists": false}"#, true);
    }

    #[test]
    fn prefix_and_suffix_are_for_texts() {
        check(r#"{"at": "/reference", "prefix": "order-"}"#, true);
        check(r#"{"at": "/reference", "suffix": "-77"}"#, true);
        check(r#"{"at": "/reference", "prefix": "order-", "suffix": "-78"}"#, false);
        check(r#"{"at": "/amount", "prefix": "15"}"#, false);
    }

    #[test]
    fn numbers_are_compared() {
        check(r#"{"at": "/amount", "gte": 150, "lt": 150.5}"#, true);
        check(r#"{"at": "/amount", "gt": 150}"#, false);
        check(r#"{"at": "/rate", "lte": 1}"#, false);
        check(r#"{"at": "/country", "gt": 0}"#, false);
        check(r#"{"at": "/none", "lt": 0}"#, false);
    }

    #[test]
    fn conditions_are_combined() {
        check(r#"{"all": [{"at": "/amount", "gt": 1}, {"at": "/country", "equals": "AT"}]}"#, true);
        check(r#"{"all": [{"at": "/amount", "gt": 1}, {"at": "/country", "equals": "X"}]}"#, false);
        check(r#"{"any": [{"at": "/amount", "lt": 1}, {"at": "/country", "equals": "AT"}]}"#, true);
        check(r#"{"any": []}"#, false);
        check(r#"{"all": []}"#, true);
        check(r#"{"not": {"at": "/none", "exists": true}}"#, true);
        check(r#"{"not": {"at": "/country", "equals": "AT"}}"#, false);
    }
}
