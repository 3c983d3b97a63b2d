//! Writes a JSON object member by member, without a tree of it.

use bytes::Bytes;

use crate::render::Body;

/// See the head of this module.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An object without members yet. `bytes` is about how long it will be.
    pub fn new(bytes: usize) -> Writer {
        let mut out = Vec::with_capacity(bytes);
        out.push(b'{');
        Writer { out }
    }

    /// Adds a member that is a text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        serde_json::to_writer(&mut self.out, value).expect("a text is always JSON");
    }

    /// Adds a member that is JSON already.
    pub fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(json);
    }

    /// The object's text.
    pub fn finish(mut self) -> Bytes {
        self.out.push(b'}');
        self.out.into()
    }

    /// The object as a body.
    pub fn into_body(self, content_type: &'static str) -> Body {
        Body { bytes: self.finish(), content_type }
    }

    fn name(&mut self, name: &str) {
        if self.out.len() > 1 {
            self.out.push(b',');
        }
        serde_json::to_writer(&mut self.out, name).expect("a text is always JSON");
        self.out.push(b':');
    }
}
