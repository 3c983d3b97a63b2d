//! The data while rules change them: a tree to read from, and the edits that make it of what came.
//!
//! The tree is opened only where a rule looks. What it is not opened at stays the text that it was.

use std::borrow::Cow;
use std::fmt;

use hookyard_plugin::{Edit, Error, Result};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::pointer::Pointer;

pub(crate) struct Document<'a> {
    root: Node<'a>,
    edits: Vec<Edit>,
}

#[derive(Clone, Debug)]
pub(crate) enum Node<'a> {
    /// JSON text that nobody has looked into, or that there is nothing in to look for.
    Raw(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(String, Node<'a>)>),
}

const NULL: Node<'_> = Node::Raw(Cow::Borrowed("null"));

impl<'a> Document<'a> {
    /// `json` is valid, as all data from the router are.
    pub(crate) fn new(json: &'a str) -> Document<'a> {
        Document { root: Node::raw(json), edits: Vec::new() }
    }

    /// What makes of the data that came what they are now.
    pub(crate) fn into_edits(self) -> Vec<Edit> {
        self.edits
    }

    pub(crate) fn get(&mut self, pointer: &Pointer) -> Option<&Node<'a>> {
        self.find(pointer.tokens()).map(|it| &*it)
    }

    /// Takes a value away. Where the whole goes, `null` stays until something is put.
    pub(crate) fn take(&mut self, pointer: &Pointer) -> Option<Node<'a>> {
        let Some((last, parents)) = pointer.tokens().split_last() else {
            return Some(std::mem::replace(&mut self.root, NULL));
        };
        let value = self.find(parents)?.take(last)?;
        self.edits.push(Edit { pointer: pointer.as_str().to_owned(), value: None });
        Some(value)
    }

    /// Puts a value, and makes the objects on the way that do not exist or are `null`.
    pub(crate) fn put(&mut self, pointer: &Pointer, value: Node<'a>) -> Result<()> {
        let tokens = pointer.tokens();
        let mut place = &mut self.root;
        let mut depth = 0;
        while depth < tokens.len() && !place.is_null() {
            place = place.place(&tokens[depth]).ok_or_else(|| {
                let detail = "is not inside an object or an array of the data";
                Error::new("no-place", format_args!("`{}` {detail}", pointer.as_str()))
            })?;
            depth += 1;
        }
        *place = tokens[depth..]
            .iter()
            .rfold(value, |value, token| Node::Object(vec![(token.clone(), value)]));
        self.edits.push(Edit {
            pointer: pointer.first(depth).to_owned(),
            value: Some(place.to_string()),
        });
        Ok(())
    }

    /// Keeps the values at these places and the objects and arrays around them.
    pub(crate) fn choose(&mut self, pointers: &[Pointer]) {
        let wanted: Vec<_> = pointers.iter().map(Pointer::tokens).collect();
        let root = std::mem::replace(&mut self.root, NULL);
        self.root = root.chosen(&wanted).unwrap_or(Node::Object(Vec::new()));
        self.edits = vec![Edit { pointer: String::new(), value: Some(self.root.to_string()) }];
    }

    fn find(&mut self, tokens: &[String]) -> Option<&mut Node<'a>> {
        tokens.iter().try_fold(&mut self.root, |node, token| node.child(token))
    }
}

impl<'a> Node<'a> {
    pub(crate) fn raw(json: &'a str) -> Node<'a> {
        Node::Raw(Cow::Borrowed(json))
    }

    pub(crate) fn of_text(text: String) -> Node<'a> {
        Node::Raw(Cow::Owned(Value::from(text).to_string()))
    }

    pub(crate) fn is_container(&self) -> bool {
        match self {
            Node::Raw(json) => json.starts_with(['{', '[']),
            Node::Array(_) | Node::Object(_) => true,
        }
    }

    /// The value inside a text: a text as it is, another value as JSON; none where it is `null`.
    pub(crate) fn text(&self) -> Option<String> {
        if self.is_null() {
            return None;
        }
        let json = self.to_string();
        Some(serde_json::from_str(&json).unwrap_or(json))
    }

    fn is_null(&self) -> bool {
        matches!(self, Node::Raw(json) if json == "null")
    }

    /// Looks one level into a text that is an object or an array.
    fn open(&mut self) {
        // Texts of our own are no containers.
        let Node::Raw(Cow::Borrowed(json)) = *self else { return };
        if json.starts_with('{') {
            let members = serde_json::Deserializer::from_str(json).deserialize_map(Members);
            *self = Node::Object(members.expect("the text of an object is valid JSON"));
        } else if json.starts_with('[') {
            let items: Vec<&RawValue> =
                serde_json::from_str(json).expect("the text of an array is valid JSON");
            *self = Node::Array(items.into_iter().map(|it| Node::raw(it.get())).collect());
        }
    }

    fn child(&mut self, token: &str) -> Option<&mut Node<'a>> {
        self.open();
        match self {
            Node::Raw(_) => None,
            Node::Array(items) => items.get_mut(index(token)?),
            Node::Object(members) => {
                members.iter_mut().find(|(key, _)| key == token).map(|(_, value)| value)
            }
        }
    }

    fn take(&mut self, token: &str) -> Option<Node<'a>> {
        self.open();
        match self {
            Node::Raw(_) => None,
            Node::Array(items) => {
                let at = index(token).filter(|at| *at < items.len())?;
                Some(items.remove(at))
            }
            Node::Object(members) => {
                let at = members.iter().position(|(key, _)| key == token)?;
                Some(members.remove(at).1)
            }
        }
    }

    /// The place for a value: that of the one that is there, or a new one that holds `null`.
    fn place(&mut self, token: &str) -> Option<&mut Node<'a>> {
        self.open();
        match self {
            Node::Raw(_) => None,
            Node::Array(items) => {
                let at = if token == "-" { items.len() } else { index(token)? };
                if at == items.len() {
                    items.push(NULL);
                }
                items.get_mut(at)
            }
            Node::Object(members) => {
                let there = members.iter().position(|(key, _)| key == token);
                let at = there.unwrap_or(members.len());
                if at == members.len() {
                    members.push((token.to_owned(), NULL));
                }
                Some(&mut members[at].1)
            }
        }
    }

    /// What is left when only the values at these pointers are kept; none where nothing is left.
    fn chosen(mut self, wanted: &[&[String]]) -> Option<Node<'a>> {
        if wanted.iter().any(|it| it.is_empty()) {
            return Some(self);
        }
        if wanted.is_empty() {
            return None;
        }
        let below = |token: &str| -> Vec<_> {
            wanted.iter().filter(|it| it[0] == token).map(|it| &it[1..]).collect()
        };
        self.open();
        match self {
            Node::Raw(_) => None,
            Node::Array(items) => {
                let items: Vec<_> = (0..)
                    .zip(items)
                    .filter_map(|(at, item): (usize, _)| item.chosen(&below(&at.to_string())))
                    .collect();
                (!items.is_empty()).then_some(Node::Array(items))
            }
            Node::Object(members) => {
                let members: Vec<_> = members
                    .into_iter()
                    .filter_map(|(key, value)| {
                        let value = value.chosen(&below(&key))?;
                        Some((key, value))
                    })
                    .collect();
                (!members.is_empty()).then_some(Node::Object(members))
            }
        }
    }
}

/// Writes the value as JSON.
impl fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Raw(json) => f.write_str(json),
            Node::Array(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Node::Object(members) => {
                f.write_str("{")?;
                for (at, (key, value)) in members.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{}:{value}", Value::from(&**key))?;
                }
                f.write_str("}")
            }
        }
    }
}

/// RFC 6901: no sign, and no zero before another digit.
fn index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with('0');
    (canonical && token.bytes().all(|it| it.is_ascii_digit())).then(|| token.parse().ok()).flatten()
}

/// Reads an object one level deep, in the order of the text.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, Node<'de>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            members.push((key, Node::raw(value.get())));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use hookyard_plugin::stand_in::Sample;
    use hookyard_plugin::{NewData, Output, Verdict};

    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::try_from(text.to_owned()).unwrap()
    }

    fn edits(document: Document<'_>) -> Vec<(String, Option<String>)> {
        document.into_edits().into_iter().map(|it| (it.pointer, it.value)).collect()
    }

    fn edit(pointer: &str, value: Option<&str>) -> (String, Option<String>) {
        (pointer.to_owned(), value.map(str::to_owned))
    }

    #[test]
    fn values_keep_the_spelling_that_they_came_in() {
        let json = r#"{"n": 1.50, "id": 184467440737095516150, "o": { "\u0061" : [1E2 , -0.0] }}"#;
        let mut document = Document::new(json);
        for (from, to) in [("/n", "/m"), ("/o", "/p"), ("/p/a/0", "/q"), ("/id", "/r/id")] {
            let value = document.take(&pointer(from)).unwrap();
            document.put(&pointer(to), value).unwrap();
        }
        let wanted = [
            edit("/n", None),
            edit("/m", Some("1.50")),
            edit("/o", None),
            edit("/p", Some(r#"{ "\u0061" : [1E2 , -0.0] }"#)),
            edit("/p/a/0", None),
            edit("/q", Some("1E2")),
            edit("/id", None),
            edit("/r", Some(r#"{"id":184467440737095516150}"#)),
        ];
        assert_eq!(edits(document), wanted);
    }

    #[test]
    fn what_is_chosen_is_one_new_text_of_old_values() {
        let mut document = Document::new(r#"{"z": 1.0, "a\"": [0, {"k": 2.50, "l": 3}], "y": 0}"#);
        document.take(&pointer("/y")).unwrap();
        document.choose(&[pointer("/a\"/1/k"), pointer("/z"), pointer("/y")]);
        assert_eq!(edits(document), [edit("", Some(r#"{"z":1.0,"a\"":[{"k":2.50}]}"#))]);
    }

    #[test]
    fn texts_are_read_as_what_they_say() {
        let mut document = Document::new(r#"{"t": "a\u0022\n", "n": 1.50, "z": null}"#);
        let mut check = |at: &str, text: Option<&str>| {
            let found = document.get(&pointer(at)).and_then(Node::text);
            assert_eq!(found.as_deref(), text, "{at}");
        };
        check("/t", Some("a\"\n"));
        check("/n", Some("1.50"));
        check("/z", None);
        check("/x", None);
    }

    /// All pairs of moves and copies between some places.
    #[test]
    fn the_edits_make_what_the_tree_became() {
        const BEFORE: &str = r#"{"a":{"b":{"c":1}},"l":[2,{"x":3},[4],5],"n":null,"t":"~/"}"#;
        const PLACES: [&str; 10] =
            ["", "/a", "/a/b", "/a/b/c", "/l/0", "/l/1/x", "/l/-", "/n/new/er", "/t", "/a~1~0"];
        let sample = Sample::json(BEFORE);
        let steps: Vec<_> =
            PLACES.iter().flat_map(|from| PLACES.map(|to| (pointer(from), pointer(to)))).collect();
        let done = |document: &mut Document<'_>, copy: bool, from: &Pointer, to: &Pointer| {
            let value = if copy { document.get(from).cloned() } else { document.take(from) };
            value.is_none_or(|value| document.put(to, value).is_ok())
        };
        let mut compared = 0;
        for (from, to) in &steps {
            for (next_from, next_to) in &steps {
                for copies in 0..4 {
                    let mut document = Document::new(BEFORE);
                    if !done(&mut document, copies & 1 == 0, from, to)
                        || !done(&mut document, copies & 2 == 0, next_from, next_to)
                    {
                        continue;
                    }
                    let tree: Value = serde_json::from_str(&document.root.to_string()).unwrap();
                    let mut output = Output::new();
                    output.data = NewData::Edits(document.into_edits());
                    assert_eq!(sample.after(&Verdict::Replace(output)), tree.to_string());
                    compared += 1;
                }
            }
        }
        assert!(compared > 10_000, "only {compared} could be compared");
    }
}
