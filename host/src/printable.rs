//! Text of tenants, plugins and endpoints on its way to a terminal. A control character could move the cursor, change
//! what was printed before, or send keys; a mark of writing direction could show words in another order.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Control characters but for line breaks and tabs, and the marks that change the direction of writing (Unicode
/// Standard Annex 9, section 2).
fn is_escaped(it: char) -> bool {
    let is_direction = matches!(
        it,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    is_direction || (it.is_control() && it != '\n' && it != '\t')
}

/// The text with these characters as `\u` and four digits, as JSON knows them too.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_escaped) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for it in text.chars() {
        if is_escaped(it) {
            write!(shown, "\\u{:04x}", u32::from(it)).expect("a text takes everything");
        } else {
            shown.push(it);
        }
    }
    shown.into()
}

/// A line of the log: one whatever is in it, so that no text can pretend to be the next line.
pub(crate) fn log_line(written: &[u8]) -> String {
    let text = String::from_utf8_lossy(written);
    let line = text.strip_suffix('\n').unwrap_or(&text);
    printable(line).replace('\n', "\\n") + "\n"
}

/// What is formatted, printable.
pub struct Printable<T>(pub T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&printable(&self.0.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_steers_a_terminal_is_escaped() {
        let text = "a\u{1b}[2J\u{7}\r\u{9b}1m \u{202e}gpj.exe\u{2069}\u{200f}\n\tb";
        let shown = r"a\u001b[2J\u0007\u000d\u009b1m \u202egpj.exe\u2069\u200f";
        assert_eq!(printable(text), format!("{shown}\n\tb"));
        let plain = "grüße, 你好, שלום 👋";
        assert!(matches!(printable(plain), Cow::Borrowed(it) if it == plain));
        assert_eq!(Printable(format_args!("{}\u{8}", 1)).to_string(), r"1\u0008");
    }

    #[test]
    fn json_stays_json() {
        let told = serde_json::json!({"text": "\u{202e}\u{1b}"});
        let shown = printable(&told.to_string()).into_owned();
        assert!(shown.is_ascii());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), told);
    }

    #[test]
    fn a_line_of_the_log_is_one_line() {
        let line = log_line(b"WARN failed err=a\nINFO all is well\x1b[1m\xff\n");
        assert_eq!(line, "WARN failed err=a\\nINFO all is well\\u001b[1m\u{fffd}\n");
    }
}
