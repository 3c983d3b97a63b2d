//! A place in the data: a JSON Pointer (RFC 6901), checked when it is configured.

use hookyard_plugin::prelude::*;
use serde::Deserializer;
use serde::de::Error as _;

/// What a place is in a configuration.
#[derive(Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(
    with = "String",
    inline,
    description = "must be a JSON Pointer (RFC 6901) into the data",
    extend("format" = "json-pointer"),
)]
pub(crate) struct Pointer {
    text: String,
    /// Unescaped.
    tokens: Vec<String>,
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Pointer, String> {
        let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !text.is_empty() && !text.starts_with('/') || !escaped {
            return Err(format!(
                "`{text}` is not a JSON Pointer: it is empty or begins with `/`, and `~` is `~0`"
            ));
        }
        let tokens = text.split('/').skip(1).map(|it| it.replace("~1", "/").replace("~0", "~"));
        Ok(Pointer { tokens: tokens.collect(), text })
    }
}

impl Pointer {
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// The first tokens of this pointer, as a pointer.
    pub(crate) fn first(&self, count: usize) -> &str {
        let end = self.text.match_indices('/').nth(count).map(|(at, _)| at);
        &self.text[..end.unwrap_or(self.text.len())]
    }
}

/// A pointer to anything but the whole.
pub(crate) fn of_a_part<'de, D: Deserializer<'de>>(text: D) -> Result<Pointer, D::Error> {
    let pointer = Pointer::deserialize(text)?;
    if pointer.tokens.is_empty() {
        return Err(D::Error::custom("the data as a whole cannot be removed"));
    }
    Ok(pointer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_unescaped() {
        let check = |text: &str, tokens: &[&str]| {
            assert_eq!(Pointer::try_from(text.to_owned()).unwrap().tokens(), tokens);
        };
        check("", &[]);
        check("/", &[""]);
        check("/a~1b/~01/0", &["a/b", "~1", "0"]);
    }

    #[test]
    fn a_pointer_begins_with_shorter_ones() {
        let pointer = Pointer::try_from("/a~1b//c".to_owned()).unwrap();
        let first: Vec<_> = (0..=3).map(|count| pointer.first(count)).collect();
        assert_eq!(first, ["", "/a~1b", "/a~1b/", "/a~1b//c"]);
    }
}
