//! A text with pointers in braces, in whose place the values come.

use hookyard_plugin::prelude::*;

use crate::document::Document;
use crate::pointer::Pointer;

/// A text. `{/order/id}` is the value at that place: a text as it is, another value as JSON, and
/// nothing where there is none or where it is `null`. `{{` is a brace.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", inline)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Value(Pointer),
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut rest = &*text;
        while let Some((before, after)) = rest.split_once('{') {
            pieces.push(Piece::Text(before.to_owned()));
            if let Some(after) = after.strip_prefix('{') {
                pieces.push(Piece::Text("{".to_owned()));
                rest = after;
            } else if let Some((pointer, after)) = after.split_once('}') {
                pieces.push(Piece::Value(Pointer::try_from(pointer.to_owned())?));
                rest = after;
            } else {
                return Err(format!("`{{{after}` is not closed; write `{{{{` for a brace"));
            }
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Template(pieces))
    }
}

impl Template {
    pub(crate) fn fill(&self, document: &mut Document<'_>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(it) => text.push_str(it),
                Piece::Value(pointer) => {
                    let value = document.get(pointer).and_then(|it| it.text());
                    text.push_str(&value.unwrap_or_default());
                }
            }
        }
        text
    }
}
