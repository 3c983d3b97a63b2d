//! `application/x-www-form-urlencoded` as PHP writes and reads it, with brackets for lists and maps.

use hookyard_nouns::json::Json;
use hookyard_nouns::rendering::Output;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

/// What PHP's `urlencode` leaves as it is; it makes a space a `+`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b' ');

/// Writes a form, variable by variable, as far as its output takes them.
#[derive(Debug)]
pub(super) struct Form {
    out: Output,
}

impl Form {
    pub(super) fn new(out: Output) -> Form {
        Form { out }
    }

    pub(super) fn add(&mut self, name: &str, value: &str) {
        if !self.out.is_empty() {
            self.out.push(b"&");
        }
        self.escape(name);
        self.out.push(b"=");
        self.escape(value);
    }

    /// A map becomes `name[key]=…`, a list `name[]=…` ("sent per key-value pair", "sent per item"), as
    /// deep as they go; in a list of maps or lists, each has its index. `true` and `false` are 1 and
    /// 0, null is left out.
    pub(super) fn add_json(&mut self, name: &str, value: &Json) {
        self.add_below(&mut name.to_owned(), value);
    }

    /// `name` is the same again at the end: it is not copied for each item, since a long name and many items
    /// that write nothing would take long without ever filling the output.
    fn add_below(&mut self, name: &mut String, value: &Json) {
        if self.out.is_full() {
            return;
        }
        let length = name.len();
        if let Some(members) = value.members() {
            for (key, value) in members {
                name.extend(["[", &key, "]"]);
                self.add_below(name, &value);
                name.truncate(length);
            }
        } else if let Some(items) = value.items() {
            for (at, item) in items.enumerate() {
                let is_deep = item.text().starts_with(['[', '{']);
                let at = if is_deep { at.to_string() } else { String::new() };
                name.extend(["[", &at, "]"]);
                self.add_below(name, &item);
                name.truncate(length);
            }
        } else {
            match value.text() {
                "null" => {}
                "true" => self.add(name, "1"),
                "false" => self.add(name, "0"),
                // A number stays as it was written: ids may be longer than a float can hold.
                number => match value.read::<String>() {
                    Some(text) => self.add(name, &text),
                    None => self.add(name, number),
                },
            }
        }
    }

    /// The output with the whole form.
    pub(super) fn finish(self) -> Output {
        self.out
    }

    fn escape(&mut self, text: &str) {
        for (at, word) in text.split(' ').enumerate() {
            if at > 0 {
                self.out.push(b"+");
            }
            for piece in utf8_percent_encode(word, ENCODED) {
                self.out.push(piece.as_bytes());
            }
        }
    }
}

/// How many variables a form may have: as many as PHP reads (`max_input_vars`).
const VARIABLES_MAX: usize = 1_000;

/// Reads a form of texts and lists of texts: `name=…`, `name[]=…`, `name[0]=…`.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn parse(body: &[u8]) -> Result<Value, String> {
    let body = std::str::from_utf8(body).map_err(|_| "is not UTF-8".to_owned())?;
    if body.split('&').take(VARIABLES_MAX + 1).count() > VARIABLES_MAX {
        return Err(format!("has more than {VARIABLES_MAX} variables"));
    }
    let mut form = Map::new();
    for pair in body.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        match name.split_once('[') {
            None => {
                if form.contains_key(&name) {
                    return Err(format!("has `{name}` more than once"));
                }
                form.insert(name, value.into());
            }
            Some((list, index)) => {
                let index = index.strip_suffix(']').filter(|it| it.bytes().all(is_digit));
                if index.is_none() || list.is_empty() {
                    return Err(format!("has `{name}`, which is neither a text nor a list"));
                }
                let items = form.entry(list).or_insert_with(|| Value::Array(Vec::new()));
                let items = items.as_array_mut();
                items.ok_or_else(|| format!("has `{list}` more than once"))?.push(value.into());
            }
        }
    }
    Ok(Value::Object(form))
}

fn is_digit(it: u8) -> bool {
    it.is_ascii_digit()
}

fn decode(text: &str) -> Result<String, String> {
    let escapes_end = text
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8();
    match decoded {
        Ok(decoded) if escapes_end => Ok(decoded.into_owned()),
        _ => Err("has an escape that is no text in UTF-8".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use hookyard_nouns::rendering::TooLarge;
    use serde_json::json;

    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text.to_owned().into()).unwrap()
    }

    fn written(name: &str, value: &str) -> String {
        let mut form = Form::new(Output::new(1_000));
        form.add_json(name, &json(value));
        let body = form.finish().into_body("").unwrap();
        String::from_utf8(body.bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_form_is_written_as_php_would() {
        for (value, expected) in [
            (r#""a b+c*d~é""#, "x=a+b%2Bc%2Ad%7E%C3%A9"),
            (
                r#"{"mail":"a@b.c","on":true,"off":false,"no":null}"#,
                "x%5Bmail%5D=a%40b.c&x%5Bon%5D=1&x%5Boff%5D=0",
            ),
            (r#"["blue","red"]"#, "x%5B%5D=blue&x%5B%5D=red"),
            (r#"[{"a":1},[2]]"#, "x%5B0%5D%5Ba%5D=1&x%5B1%5D%5B%5D=2"),
            ("9007199254740993", "x=9007199254740993"),
            ("1.50", "x=1.50"),
            ("[]", ""),
            ("null", ""),
        ] {
            assert_eq!(written("x", value), expected);
        }
    }

    #[test]
    fn a_form_that_repeats_a_long_name_ends_at_its_bound() {
        let name = "n".repeat(30_000);
        let items = ["1"; 20_000].join(",");
        for value in [format!("[{items}]"), format!(r#"{{"{name}":[[{items}]]}}"#)] {
            let mut form = Form::new(Output::new(1 << 20));
            form.add_json(&name, &json(&value));
            assert_eq!(form.finish().into_body(""), Err(TooLarge { bytes_max: 1 << 20 }));
        }
    }

    #[test]
    fn a_form_is_read_with_its_lists() {
        let form =
            parse(b"handler=http%3A%2F%2Fa+b&callers[]=ms&callers%5B%5D=x&n[3]=1&e=").unwrap();
        let expected =
            json!({"handler": "http://a b", "callers": ["ms", "x"], "n": ["1"], "e": ""});
        assert_eq!(form, expected);
        for wrong in
            ["a=1&a=2", "a=1&a[]=2", "a[x]=1", "a[=1", "a[0][1]=2", "a=%zz", "a=%ff", "[]=1"]
        {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(parse(b"a=\xff").is_err());
    }
}
