//! JSON for people: a line for each value, and everything in it as it was written.

use super::Json;
use super::scan::Entries;

const STEP: &str = "  ";

impl Json {
    /// The text with a line for each member and item.
    pub fn pretty(&self) -> String {
        let mut text = String::new();
        write(&mut text, self.text(), 0);
        text
    }
}

fn write(to: &mut String, json: &str, depth: usize) {
    let (open, close) = match json.as_bytes()[0] {
        b'{' => ('{', '}'),
        b'[' => ('[', ']'),
        _ => return to.push_str(json),
    };
    to.push(open);
    let mut is_empty = true;
    for entry in Entries::of(json.as_bytes(), 0) {
        to.push_str(if is_empty { "\n" } else { ",\n" });
        is_empty = false;
        to.extend(std::iter::repeat_n(STEP, depth + 1));
        if open == '{' {
            to.push_str(&json[entry.key]);
            to.push_str(": ");
        }
        write(to, &json[entry.value], depth + 1);
    }
    if !is_empty {
        to.push('\n');
        to.extend(std::iter::repeat_n(STEP, depth));
    }
    to.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_white_space_is_another() {
        let json = r#"{"b":10.00,"a" : [1E+2 ,{"\u00e9":"x, {y}"},[]],"c":{}, "d":null}"#;
        let pretty = Json::parse(json.into()).unwrap().pretty();
        let lines = [
            "{",
            "  \"b\": 10.00,",
            "  \"a\": [",
            "    1E+2,",
            "    {",
            "      \"\\u00e9\": \"x, {y}\"",
            "    },",
            "    []",
            "  ],",
            "  \"c\": {},",
            "  \"d\": null",
            "}",
        ];
        assert_eq!(pretty, lines.join("\n"));
    }
}
