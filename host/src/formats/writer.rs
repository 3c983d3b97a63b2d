//! Writes a JSON object member by member, without a tree of it.

use hookyard_nouns::rendering::{Body, Output, TooLarge};

/// A JSON object that is being written. What does not fit into its output is noticed at the end.
#[derive(Debug)]
pub struct Writer {
    out: Output,
    is_first: bool,
}

impl Writer {
    /// An object without members yet. `bytes` is about how long it will be.
    pub fn new(mut out: Output, bytes: usize) -> Writer {
        out.reserve(bytes);
        out.push(b"{");
        Writer { out, is_first: true }
    }

    /// Adds a member that is a text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.string(value);
    }

    /// Adds a member that is JSON already.
    pub fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.out.push(json);
    }

    /// The output with the whole object.
    pub fn finish(mut self) -> Output {
        self.out.push(b"}");
        self.out
    }

    /// The object as a body.
    ///
    /// # Errors
    ///
    /// It has more bytes than a body may have.
    pub fn into_body(self, content_type: &'static str) -> Result<Body, TooLarge> {
        self.finish().into_body(content_type)
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b",");
        }
        self.string(name);
        self.out.push(b":");
    }

    fn string(&mut self, text: &str) {
        // A text is always JSON. What fails is that the output is full, which it remembers.
        let _ = serde_json::to_writer(&mut self.out, text);
    }
}
