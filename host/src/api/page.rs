//! Lists that end when they are long enough, in things or in bytes, and say where to go on.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

/// About how long a list is at most. The first thing of a list is in it however long it is.
const BYTES_MAX: usize = 1 << 20;

/// A JSON object with a list in it, as far as the list has come.
#[derive(Debug)]
pub(super) struct Page {
    text: Vec<u8>,
    /// Where the list begins.
    start: usize,
    count: usize,
}

impl Page {
    /// As many of the first things as there is room for, under a name.
    pub(super) fn of<'a, T, S: Serialize>(
        name: &str,
        all: &'a [T],
        show: impl Fn(&'a T) -> S,
    ) -> Page {
        let text = format!("{{\"{name}\":[").into_bytes();
        let mut page = Page { start: text.len(), text, count: 0 };
        let _ = all.iter().take_while(|it| page.add(&show(it))).count();
        page
    }

    /// Adds a thing. Answers whether there was room for it.
    fn add(&mut self, it: &impl Serialize) -> bool {
        let end = self.text.len();
        if self.count > 0 {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, it).expect("memory takes what is written");
        let fits = self.count == 0 || self.text.len() - self.start <= BYTES_MAX;
        if fits {
            self.count += 1;
        } else {
            self.text.truncate(end);
        }
        fits
    }

    /// How many things there are in it.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The list alone.
    pub(super) fn into_list(mut self) -> Value {
        self.text.push(b']');
        serde_json::from_slice(&self.text[self.start - 1..]).expect("a list of JSON is JSON")
    }

    /// The text of the object, with where the next list begins.
    pub(super) fn into_text(mut self, next: Option<impl fmt::Display>) -> String {
        let next = json!(next.map(|it| it.to_string()));
        self.text.extend_from_slice(format!("],\"next\":{next}}}").as_bytes());
        String::from_utf8(self.text).expect("JSON is UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_when_it_is_long_enough() {
        let show = |it: &usize| json!("x".repeat(*it));
        let count = |sizes: &[usize]| Page::of("all", sizes, show).count();
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[1, 2, 3]), 3);
        assert_eq!(count(&[400_000; 5]), 2);
        assert_eq!(count(&[2_000_000, 1]), 1, "the first one is there in any case");
        let read = |sizes: &[usize], next: Option<u8>| -> Value {
            serde_json::from_str(&Page::of("all", sizes, show).into_text(next)).unwrap()
        };
        assert_eq!(read(&[1, 2], Some(7)), json!({"all": ["x", "xx"], "next": "7"}));
        assert_eq!(read(&[], None), json!({"all": [], "next": null}));
        let cut = Page::of("all", &[600_000, 600_000, 1], show);
        assert_eq!(cut.into_list().as_array().unwrap().len(), 1);
    }
}
