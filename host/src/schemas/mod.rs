//! JSON Schemas, compiled once. The only room that knows `jsonschema`.

mod drafts;
mod loops;

use hookyard_nouns::endpoint::{self, Writing};
use hookyard_nouns::event::{VIOLATIONS_MAX, Violation};
use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;
use url::Url;

/// Every file of `schemas/`: its path below the folder, and its text.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/schemas.rs"));

/// How many values a document may have for everything that is wrong with it to be looked for. The validator
/// makes all the errors that there are before it tells the first of them: of a larger document one is told.
const VALUES_MAX: usize = 10_000;
/// How large a schema from a stranger may be, in bytes of JSON.
const STRANGE_SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// How large what becomes of one pattern may be, in bytes.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// The text of a file of `schemas/`, for example `mypreferences/create.json`.
///
/// # Panics
///
/// There is no such file: its name is a mistake in our code.
pub fn file(name: &str) -> &'static str {
    let file = FILES.iter().find(|(it, _)| *it == name);
    file.unwrap_or_else(|| panic!("there is no schemas/{name}")).1
}

/// The files of `schemas/` in a folder: their names in it without `.json`, and their texts.
pub fn folder(name: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().filter_map(move |(path, text)| {
        let file = path.strip_prefix(name)?.strip_prefix('/')?.strip_suffix(".json")?;
        (!file.contains('/')).then_some((file, *text))
    })
}

/// A JSON Schema (2020-12), ready to check values.
pub struct Schema {
    source: Value,
    validator: Validator,
}

/// The formats of the URLs of endpoints.
const HTTPS: &str = "https-endpoint";
const ANY: &str = "endpoint";
const PASTED: &str = "pasted-https-endpoint";

/// Which URLs may be endpoints: what `"format": "https-endpoint"` in a schema means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// As the schema says.
    Strict,
    /// `http` everywhere: the operator allows it, for development.
    HttpAllowed,
}

impl Schema {
    /// Compiles one of our own schemas.
    ///
    /// # Panics
    ///
    /// The text is not a schema: a mistake in our files.
    pub fn ours(text: &str, endpoints: Endpoints) -> Schema {
        let source = serde_json::from_str(text).expect("a file of `schemas/` is JSON");
        Schema::compile(source, endpoints)
            .unwrap_or_else(|err| panic!("a file of `schemas/` is not a JSON Schema: {err}"))
    }

    /// Compiles one of the `$defs` of one of our own schemas.
    ///
    /// # Panics
    ///
    /// The text is not a schema, or has no such definition.
    pub fn definition(text: &str, name: &str) -> Schema {
        let mut source: Value = serde_json::from_str(text).expect("a file of `schemas/` is JSON");
        assert!(source["$defs"][name].is_object(), "there is no definition `{name}`");
        source["$ref"] = Value::from(format!("#/$defs/{name}"));
        Schema::compile(source, Endpoints::Strict)
            .unwrap_or_else(|err| panic!("`{name}` is not a JSON Schema: {err}"))
    }

    /// Compiles a schema that a stranger wrote. It can refer to nothing outside itself, and its
    /// patterns are matched in linear time. Even so, a small schema can take long to compile and to
    /// check by: who wrote it decides where that may be done.
    ///
    /// # Errors
    ///
    /// Why it is not a schema that we take.
    pub fn strange(source: &Value) -> Result<Schema, String> {
        if source.to_string().len() > STRANGE_SCHEMA_BYTES_MAX {
            return Err(format!("is larger than {STRANGE_SCHEMA_BYTES_MAX} bytes"));
        }
        drafts::check(source)?;
        if let Some(pointer) = loops::endless(source) {
            return Err(format!(
                "refers to itself without end at `#{pointer}`: a reference has to lead to a schema of something \
                 inside the value"
            ));
        }
        Schema::compile(source.clone(), Endpoints::Strict)
    }

    fn compile(source: Value, endpoints: Endpoints) -> Result<Schema, String> {
        let patterns = PatternOptions::regex();
        let patterns = patterns.size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let http = endpoints == Endpoints::HttpAllowed;
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .offline()
            .with_pattern_options(patterns)
            .should_validate_formats(true)
            .with_format(HTTPS, move |text: &str| is_endpoint(text, http, Writing::Exact))
            .with_format(ANY, |text: &str| is_endpoint(text, true, Writing::Exact))
            .with_format(PASTED, move |text: &str| is_endpoint(text, http, Writing::Pasted))
            .build(&source)
            .map_err(|err| unusable(&err))?;
        Ok(Schema { source, validator })
    }

    /// What is wrong with a value, each with a JSON Pointer to it. Empty when the value fits.
    pub fn violations(&self, value: &Value) -> Vec<Violation> {
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        let mut violations = Vec::new();
        let is_small = has_at_most(value, VALUES_MAX);
        if is_small {
            for err in self.validator.iter_errors(value) {
                self.explain(&err, &mut violations);
                if violations.len() > VIOLATIONS_MAX {
                    break;
                }
            }
        } else if let Err(err) = self.validator.validate(value) {
            self.explain(&err, &mut violations);
        }
        let has_more = violations.len() > VIOLATIONS_MAX;
        violations.truncate(VIOLATIONS_MAX);
        // The order in which a validator looks is no order to rely on.
        violations.sort_by(|one, other| one.field.cmp(&other.field));
        violations.extend(has_more.then(Violation::more));
        if !is_small {
            let detail =
                format!("has more than {VALUES_MAX} values, of which one that is wrong is told");
            violations.push(Violation::new("", detail));
        }
        violations
    }

    /// A description in a schema says what would be right; the validator's own words never show a value.
    /// Adds what is not told of the same field already, and one more at most than are told.
    fn explain(&self, err: &ValidationError<'_>, told: &mut Vec<Violation>) {
        let at = err.instance_path().as_str();
        let member = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        let mut tell = |violation: Violation| {
            if told.iter().all(|it| it.field != violation.field) {
                told.push(violation);
            }
            told.len() <= VIOLATIONS_MAX
        };
        match err.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let schema = err.schema_path().as_str();
                let schema = schema.rsplit_once('/').map_or("", |(parent, _)| parent);
                let hint = self.description(&format!("{schema}/properties/{name}"));
                let detail = match hint {
                    Some(hint) => format!("is missing; it {hint}"),
                    None => "is missing".to_owned(),
                };
                tell(Violation::new(member(name), detail));
            }
            // There may be very many of them.
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                for name in unexpected {
                    if !tell(Violation::new(member(name), "is not known here")) {
                        break;
                    }
                }
            }
            ValidationErrorKind::PropertyNames { error } => {
                let name = error.instance().as_str().unwrap_or_default();
                let hint = self.hint(err.schema_path().as_str());
                tell(Violation::new(member(name), hint.unwrap_or("is not known here")));
            }
            kind => {
                let hint = self.hint(err.schema_path().as_str());
                let badly_written = match (kind, &**err.instance()) {
                    (ValidationErrorKind::Format { format }, Value::String(text)) => {
                        writing(format).and_then(|it| endpoint::hint(text, it))
                    }
                    _ => None,
                };
                let detail = badly_written
                    .or_else(|| hint.map(str::to_owned))
                    .unwrap_or_else(|| own_words(err));
                tell(Violation::new(at, detail));
            }
        }
    }

    /// The description of the schema at a keyword's place, or of the schema that the keyword is in.
    fn hint(&self, keyword: &str) -> Option<&str> {
        let schema = keyword.rsplit_once('/').map_or("", |(schema, _)| schema);
        self.description(keyword).or_else(|| self.description(schema))
    }

    /// The description of a schema inside this one, when it says what a value must be.
    fn description(&self, pointer: &str) -> Option<&str> {
        let text = self.source.pointer(pointer)?.get("description")?.as_str()?;
        text.starts_with("must ").then_some(text)
    }
}

/// Why a schema cannot be used: where in it, and what would be right.
fn unusable(err: &ValidationError<'_>) -> String {
    let at = err.instance_path();
    match err.kind() {
        ValidationErrorKind::Format { format } if format == "regex" => format!(
            "has a pattern at `#{at}` that cannot be used: patterns are matched in linear time, so they have no \
             look-around and no back references, and they are not large: {err}"
        ),
        _ => format!("is wrong at `#{at}`, read as JSON Schema 2020-12: {err}"),
    }
}

/// Whether a value has so many values in it at most, itself included.
fn has_at_most(value: &Value, count: usize) -> bool {
    fn left_of(value: &Value, left: usize) -> Option<usize> {
        let left = left.checked_sub(1)?;
        match value {
            Value::Array(items) => items.iter().try_fold(left, |left, it| left_of(it, left)),
            Value::Object(members) => members.values().try_fold(left, |left, it| left_of(it, left)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(left),
        }
    }
    left_of(value, count).is_some()
}

/// What the validator says, without the value that it says it of.
fn own_words(err: &ValidationError<'_>) -> String {
    err.masked_with("").to_string().trim().to_owned()
}

/// How strictly URLs of a format are read; none where it is not one of endpoints.
fn writing(format: &str) -> Option<Writing> {
    match format {
        HTTPS | ANY => Some(Writing::Exact),
        PASTED => Some(Writing::Pasted),
        _ => None,
    }
}

fn is_endpoint(text: &str, http: bool, writing: Writing) -> bool {
    let has_scheme = |url: Url| url.scheme() == "https" || http && url.scheme() == "http";
    Url::parse(text).is_ok_and(has_scheme) && endpoint::is_url(text, writing)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: &Value, value: &Value, violations: &[(&str, &str)]) {
        let got = Schema::strange(schema).unwrap().violations(value);
        let expected: Vec<_> =
            violations.iter().map(|(field, detail)| Violation::new(*field, *detail)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_violation_points_at_the_value_and_says_what_would_be_right() {
        let schema = json!({
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "description": "must be a text"},
                "a/b": {"items": {"maximum": 3}},
                "free": {"type": "boolean", "description": "Whether it is free."},
            },
            "additionalProperties": false,
        });
        check(&schema, &json!({"name": "x", "a/b": [1]}), &[]);
        check(&schema, &json!({}), &[("/name", "is missing; it must be a text")]);
        check(&schema, &json!({"name": 1}), &[("/name", "must be a text")]);
        check(
            &schema,
            &json!({"name": "x", "a/b": [1, 4], "free": "secret", "more": 1}),
            &[
                ("/a~1b/1", "is greater than the maximum of 3"),
                ("/free", "is not of type \"boolean\""),
                ("/more", "is not known here"),
            ],
        );
    }

    #[test]
    fn of_much_that_is_wrong_a_little_is_told() {
        let schema = json!({
            "properties": {"all": {"items": {"type": "string"}}},
            "additionalProperties": false,
        });
        let schema = Schema::strange(&schema).unwrap();
        let start = std::time::Instant::now();
        let many = |count: usize| -> Value {
            (0..count).map(|it| (format!("{it}{}", "x".repeat(300)), json!(1))).collect()
        };
        let told = schema.violations(&many(9_000));
        assert_eq!((told.len(), &told[20]), (21, &Violation::more()));
        assert!(told.iter().all(|it| it.field.len() <= 256), "{told:?}");
        let told = schema.violations(&many(80_000));
        assert!((2..=22).contains(&told.len()), "{told:?}");
        // The same name cut or not: one that begins like another is told once.
        let alike: Value =
            (0..50).map(|it| (format!("{}{it}", "x".repeat(300)), json!(1))).collect();
        assert_eq!(schema.violations(&alike).len(), 1);
        let few = schema.violations(&json!({"all": [1, 2, 3]}));
        assert_eq!(
            few.iter().map(|it| &*it.field).collect::<Vec<_>>(),
            ["/all/0", "/all/1", "/all/2"]
        );
        let told = schema.violations(&json!({"all": vec![1; 500_000]}));
        assert_eq!(told.iter().map(|it| &*it.field).collect::<Vec<_>>(), ["/all/0", ""]);
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn a_strangers_schema_stays_inside_itself() {
        assert!(Schema::strange(&json!({"$ref": "https://example.com/schema.json"})).is_err());
        assert!(Schema::strange(&json!({"$ref": "file:///etc/passwd"})).is_err());
        assert!(Schema::strange(&json!({"type": "nothing"})).is_err());
        assert!(Schema::strange(&json!({"description": "x".repeat(70_000)})).is_err());
    }

    #[test]
    fn an_endpoint_is_https_unless_the_operator_allows_more() {
        let text = r#"{"format": "https-endpoint"}"#;
        for (url, strict, http_allowed) in [
            ("https://example.com/x?y", true, true),
            ("http://example.com", false, true),
            ("ftp://example.com", false, false),
            ("https://", false, false),
            ("example.com", false, false),
        ] {
            let valid =
                |endpoints| Schema::ours(text, endpoints).violations(&url.into()).is_empty();
            assert_eq!(valid(Endpoints::Strict), strict, "{url}");
            assert_eq!(valid(Endpoints::HttpAllowed), http_allowed, "{url}");
        }
    }
}
