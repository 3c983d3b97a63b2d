//! What is wrong with what somebody sent, told to whoever sent it: shortly, however much it is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many things that are wrong are told at once.
pub const VIOLATIONS_MAX: usize = 20;
/// How much of the name of a field is repeated to whoever sent it, and how long a sentence may be that
/// says what is wrong.
const FIELD_BYTES_MAX: usize = 256;
pub const DETAIL_BYTES_MAX: usize = 1 << 10;

/// What is wrong with one field of what somebody sent, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// A JSON Pointer into a body, or the name of an attribute or parameter. A long one is cut.
    pub field: String,
    pub detail: String,
}

impl Violation {
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Violation {
        Violation {
            field: cut(field.into(), FIELD_BYTES_MAX),
            detail: cut(detail.into(), DETAIL_BYTES_MAX),
        }
    }

    /// The first ones of many, with a word where there are more. The others are not even made.
    pub fn first(all: impl IntoIterator<Item = Violation>) -> Vec<Violation> {
        let mut all = all.into_iter();
        let mut first: Vec<_> = all.by_ref().take(VIOLATIONS_MAX).collect();
        if all.next().is_some() {
            first.push(Violation::more());
        }
        first
    }

    /// There is more that is wrong.
    pub fn more() -> Violation {
        Violation::new(
            "",
            format!("has more that is wrong; {VIOLATIONS_MAX} things are told at once"),
        )
    }
}

/// A text of at most so many bytes, with `…` in the place of what is left out.
pub fn cut(mut text: String, bytes_max: usize) -> String {
    const LEFT_OUT: &str = "…";
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max - LEFT_OUT.len()));
        text.push_str(LEFT_OUT);
    }
    text
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "the body {}", self.detail)
        } else {
            write!(f, "`{}` {}", self.field, self.detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_repeated_at_length() {
        let it = Violation::new("é".repeat(1_000), "ü".repeat(10_000));
        assert_eq!((it.field.len(), it.detail.len()), (255, 1_023));
        assert!(it.field.ends_with("é…") && it.detail.ends_with("ü…"));
        assert_eq!(Violation::new("x".repeat(256), "").field.len(), 256);
        let many = |count: usize| Violation::first((0..count).map(|_| Violation::new("a", "b")));
        assert_eq!(many(20).len(), 20);
        assert_eq!(many(1_000).len(), 21);
        assert_eq!(
            many(1_000)[20].to_string(),
            "the body has more that is wrong; 20 things are told at once"
        );
    }
}
