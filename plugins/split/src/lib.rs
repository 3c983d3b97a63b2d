//! Makes an event of each item of an array.
//!
//! ```json
//! {"at": "/orders", "keep": "document", "limit_exceeded": "first"}
//! ```

use hookyard_plugin::prelude::*;
use serde::Deserializer;
use serde::de::Error as _;
use serde_json::value::RawValue;

/// The most parts that the router takes.
const PARTS_MAX: usize = 64;

/// Where the items are, and what becomes of them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Split {
    #[serde(default, deserialize_with = "pointer")]
    #[schemars(
        description = "must be a JSON Pointer (RFC 6901): the place of the array. \
                       Where it is left out, the data are the array",
        extend("format" = "json-pointer")
    )]
    at: String,
    /// The data of a part: the `item` alone, or the `document` around an array of this one item.
    #[serde(default)]
    keep: Keep,
    /// What is done with more than 64 items: the event can `fail`, or be split into the `first` 64.
    #[serde(default)]
    limit_exceeded: LimitExceeded,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Keep {
    #[default]
    Item,
    Document,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum LimitExceeded {
    #[default]
    Fail,
    First,
}

fn pointer<'de, D: Deserializer<'de>>(text: D) -> Result<String, D::Error> {
    let text = String::deserialize(text)?;
    let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !text.is_empty() && !text.starts_with('/') || !escaped {
        return Err(D::Error::custom(format_args!(
            "`{text}` is not a JSON Pointer: it is empty or begins with `/`, and `~` is `~0`"
        )));
    }
    Ok(text)
}

impl Transform for Split {
    fn transform(&self, event: &Event, _: &Context) -> Result<Verdict> {
        self.parts(&event.raw(&self.at).unwrap_or_default())
    }
}

impl Split {
    /// `json` is what is at the place of the array; empty where there is nothing.
    fn parts(&self, json: &[u8]) -> Result<Verdict> {
        let Ok(items) = serde_json::from_slice::<Vec<&RawValue>>(json) else {
            let detail = format!("there is no array at `{}` of the event's data", self.at);
            return Err(Error::new("not-an-array", detail));
        };
        if items.is_empty() {
            return Ok(Verdict::drop("no-items"));
        }
        match self.limit_exceeded {
            LimitExceeded::Fail if items.len() > PARTS_MAX => Err(Error::new(
                "too-many-items",
                format_args!(
                    "there are {} items at `{}`, and an event has at most {PARTS_MAX} parts",
                    items.len(),
                    self.at
                ),
            )),
            LimitExceeded::Fail | LimitExceeded::First => {
                let parts = items.into_iter().take(PARTS_MAX).map(|item| self.part(item));
                Ok(Verdict::Split(parts.collect::<Result<_>>()?))
            }
        }
    }

    fn part(&self, item: &RawValue) -> Result<Output> {
        match self.keep {
            Keep::Item => Ok(Output::new().text(item.get())),
            Keep::Document => Output::new().put(&self.at, &[item]),
        }
    }
}

export!(Split: transform);

#[cfg(test)]
mod tests {
    use hookyard_plugin::NewData;
    use hookyard_plugin::stand_in::Sample;

    use super::*;

    const BASKET: &str = r#"{"id":9007199254740993,"orders":[{"n":1},2,null]}"#;

    fn plugin(config: &str) -> Split {
        serde_json::from_str(config).unwrap()
    }

    fn check(config: &str, data: &str, parts: &[&str]) {
        let sample = Sample::json(data);
        let Verdict::Split(outputs) = sample.transform(&plugin(config)).unwrap() else {
            panic!("the event is split");
        };
        let got: Vec<_> =
            outputs.into_iter().map(|it| sample.after(&Verdict::Replace(it))).collect();
        assert_eq!(got, parts);
    }

    fn fails(config: &str, data: &str, why: &str) {
        let err = Sample::json(data).transform(&plugin(config)).unwrap_err().to_string();
        assert_eq!(err, why);
    }

    fn many(count: usize) -> String {
        format!("{:?}", (0..count).collect::<Vec<_>>())
    }

    #[test]
    fn a_part_is_an_item() {
        check(r#"{"at": "/orders"}"#, BASKET, &[r#"{"n":1}"#, "2", "null"]);
        check("{}", r#"["a",["b"]]"#, &[r#""a""#, r#"["b"]"#]);
    }

    #[test]
    fn a_part_can_be_the_document_around_an_item() {
        check(
            r#"{"at": "/orders", "keep": "document"}"#,
            BASKET,
            &[
                r#"{"id":9007199254740993,"orders":[{"n":1}]}"#,
                r#"{"id":9007199254740993,"orders":[2]}"#,
                r#"{"id":9007199254740993,"orders":[null]}"#,
            ],
        );
        check(r#"{"keep": "document"}"#, "[1,2]", &["[1]", "[2]"]);
    }

    #[test]
    fn items_keep_the_spelling_that_they_came_in() {
        let check = |keep: &str, data: &[NewData]| {
            let plugin = plugin(&format!(r#"{{"at": "/a", "keep": "{keep}"}}"#));
            let Verdict::Split(parts) = plugin.parts(b"[ 1.50 , { \"b\" : 1E2 } ]").unwrap() else {
                panic!("the event is split");
            };
            assert_eq!(parts.into_iter().map(|it| it.data).collect::<Vec<_>>(), data);
        };
        let text = |text: &str| NewData::Text(text.to_owned());
        check("item", &[text("1.50"), text(r#"{ "b" : 1E2 }"#)]);
        let edit = |value: &str| {
            let edit =
                hookyard_plugin::Edit { pointer: "/a".to_owned(), value: Some(value.to_owned()) };
            NewData::Edits(vec![edit])
        };
        check("document", &[edit("[1.50]"), edit(r#"[{ "b" : 1E2 }]"#)]);
    }

    #[test]
    fn no_items_are_no_event() {
        let verdict = Sample::json(r#"{"a":[]}"#).transform(&plugin(r#"{"at": "/a"}"#)).unwrap();
        assert_eq!(verdict, Verdict::drop("no-items"));
    }

    #[test]
    fn what_is_no_array_cannot_be_split() {
        let why = "not-an-array: there is no array at `/a` of the event's data";
        for data in [r#"{"a":{"0":1}}"#, r#"{"a":null}"#, r#"{"a":"[]"}"#, "{}", "text"] {
            fails(r#"{"at": "/a"}"#, data, why);
        }
        fails("{}", BASKET, "not-an-array: there is no array at `` of the event's data");
    }

    #[test]
    fn there_are_at_most_64_parts() {
        let parts: Vec<_> = (0..64).map(|it| it.to_string()).collect();
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        check("{}", &many(64), &parts);
        check(r#"{"limit_exceeded": "first"}"#, &many(65), &parts);
        let why = "too-many-items: there are 65 items at ``, and an event has at most 64 parts";
        fails("{}", &many(65), why);
        fails(r#"{"limit_exceeded": "fail"}"#, &many(65), why);
    }

    #[test]
    fn a_wrong_configuration_is_refused() {
        let check = |config: &str, why: &str| {
            let err = serde_json::from_str::<Split>(config).err().expect(config).to_string();
            assert!(err.contains(why), "{config}: {err}");
        };
        check(r#"{"at": "orders"}"#, "`orders` is not a JSON Pointer");
        check(r#"{"at": "/~a"}"#, "`/~a` is not a JSON Pointer");
        check(r#"{"at": null}"#, "invalid type: null");
        check(r#"{"keep": "both"}"#, "unknown variant `both`, expected `item` or `document`");
        check(
            r#"{"limit_exceeded": "drop"}"#,
            "unknown variant `drop`, expected `fail` or `first`",
        );
        check(r#"{"path": "/a"}"#, "unknown field `path`");
    }
}
