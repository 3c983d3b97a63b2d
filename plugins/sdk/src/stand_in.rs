//! A stand-in for the router, so that a plugin's tests run natively.
//!
//! ```
//! use hookyard_plugin::{prelude::*, stand_in::Sample};
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Redact {}
//!
//! impl Transform for Redact {
//!     fn transform(&self, _: &Event, _: &Context) -> Result<Verdict> {
//!         Ok(Output::new().remove("/email").into())
//!     }
//! }
//!
//! let sample = Sample::json(r#"{"id":7,"email":"a@b.example"}"#);
//! let verdict = sample.transform(&Redact {}).unwrap();
//! assert_eq!(sample.after(&verdict), r#"{"id":7}"#);
//! ```

use std::cell::RefCell;

use serde_json::Value;

use crate::{
    Attributes, Context, Decision, Event, Filter, Level, NewData, Output, Result, Transform,
    Verdict,
};

/// An event to run a plugin on, and the logs of the run.
#[derive(Clone, Debug)]
pub struct Sample {
    attributes: Attributes,
    data: Vec<u8>,
    alternate_ids: Vec<(String, String)>,
    context: Context,
}

thread_local! {
    static CURRENT: RefCell<Option<Sample>> = const { RefCell::new(None) };
}

impl Sample {
    /// An event of type `sample` with these data.
    pub fn json(data: &str) -> Sample {
        Sample {
            attributes: Attributes {
                id: "1".to_owned(),
                source: "/sample".to_owned(),
                type_: "sample".to_owned(),
                subject: None,
                time: None,
                datacontenttype: Some("application/json".to_owned()),
                dataschema: None,
                extensions: Vec::new(),
            },
            data: data.as_bytes().to_vec(),
            alternate_ids: Vec::new(),
            context: Context {
                subscription: "00000000-0000-7000-8000-000000000000".to_owned(),
                format: "cloudevents".to_owned(),
                locale: None,
                received_ms: 0,
            },
        }
    }

    /// Sets a CloudEvents attribute.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: &str) -> Sample {
        let value = value.to_owned();
        match name {
            "id" => self.attributes.id = value,
            "source" => self.attributes.source = value,
            "type" => self.attributes.type_ = value,
            "subject" => self.attributes.subject = Some(value),
            "time" => self.attributes.time = Some(value),
            "datacontenttype" => self.attributes.datacontenttype = Some(value),
            "dataschema" => self.attributes.dataschema = Some(value),
            _ => self.attributes.extensions.push((name.to_owned(), value)),
        }
        self
    }

    /// Gives the profile that the event is about an alternate id.
    #[must_use]
    pub fn alternate_id(mut self, kind: &str, id: &str) -> Sample {
        self.alternate_ids.push((kind.to_owned(), id.to_owned()));
        self
    }

    /// Runs a filter on this event.
    ///
    /// # Errors
    ///
    /// What the filter answers.
    pub fn filter(&self, plugin: &impl Filter) -> Result<Decision> {
        self.run(|event| plugin.filter(event, &self.context))
    }

    /// Runs a transform on this event.
    ///
    /// # Errors
    ///
    /// What the transform answers.
    pub fn transform(&self, plugin: &impl Transform) -> Result<Verdict> {
        self.run(|event| plugin.transform(event, &self.context))
    }

    fn run<T>(&self, plugin: impl FnOnce(&Event) -> T) -> T {
        CURRENT.set(Some(self.clone()));
        let answer = plugin(&Event::current());
        CURRENT.set(None);
        answer
    }

    /// The data that the subscriber gets after a verdict, as text. The router keeps every byte that
    /// an edit does not touch; this stand-in writes the document anew.
    ///
    /// # Panics
    ///
    /// The verdict does not deliver exactly one event, or its edits do not fit the data.
    pub fn after(&self, verdict: &Verdict) -> String {
        let data = match verdict {
            Verdict::Pass => &NewData::Same,
            Verdict::Replace(Output { data, .. }) => data,
            Verdict::Split(_) | Verdict::Drop(_) | Verdict::Fail(_) => {
                panic!("one event was expected, not {verdict:?}")
            }
        };
        let bytes = match data {
            NewData::Same => self.data.clone(),
            NewData::Edits(edits) => {
                let mut document: Value =
                    serde_json::from_slice(&self.data).expect("edited data are JSON");
                for edit in edits {
                    let value = edit.value.as_deref().map(|json| {
                        serde_json::from_str(json).expect("the value of an edit is JSON")
                    });
                    apply(&mut document, &edit.pointer, value);
                }
                document.to_string().into_bytes()
            }
            NewData::Bytes(bytes) => bytes.clone(),
            NewData::Text(text) => text.clone().into_bytes(),
        };
        String::from_utf8(bytes).expect("the data are text")
    }
}

fn apply(document: &mut Value, pointer: &str, value: Option<Value>) {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        *document = value.expect("the whole document cannot be removed");
        return;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    match (document.pointer_mut(parent), value) {
        (Some(Value::Object(members)), Some(value)) => {
            members.insert(name, value);
        }
        (Some(Value::Object(members)), None) => {
            members.remove(&name);
        }
        (Some(Value::Array(items)), Some(value)) if name == "-" => items.push(value),
        (Some(Value::Array(items)), Some(value)) => {
            let index = name.parse::<usize>().expect("an index");
            // The end is where one more item goes, as in the router.
            if index == items.len() {
                items.push(value);
            } else {
                items[index] = value;
            }
        }
        (Some(Value::Array(items)), None) => {
            if let Some(index) = name.parse().ok().filter(|index| *index < items.len()) {
                items.remove(index);
            }
        }
        (_, None) => {}
        (_, Some(_)) => panic!("`{parent}` is neither an object nor an array"),
    }
}

/// What the router's imports answer, on this thread's sample.
pub(crate) mod host {
    use std::collections::HashMap;

    use serde_json::value::RawValue;

    use super::{Attributes, CURRENT, Level, Sample};

    fn current<T>(read: impl FnOnce(&Sample) -> T) -> T {
        CURRENT.with_borrow(|it| read(it.as_ref().expect("an event can be read during a run only")))
    }

    pub(crate) fn all_attributes() -> Attributes {
        current(|sample| sample.attributes.clone())
    }

    pub(crate) fn attribute(name: &str) -> Option<String> {
        let all = all_attributes();
        match name {
            "id" => Some(all.id),
            "source" => Some(all.source),
            "type" => Some(all.type_),
            "subject" => all.subject,
            "time" => all.time,
            "datacontenttype" => all.datacontenttype,
            "dataschema" => all.dataschema,
            _ => find(&all.extensions, name),
        }
    }

    /// As the text that it is, like the router: a number keeps all its digits.
    pub(crate) fn get(pointer: &str) -> Option<Vec<u8>> {
        let data = data();
        let mut value: &RawValue = serde_json::from_slice(&data).ok()?;
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return None;
        }
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            value = if value.get().starts_with('[') {
                let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
                items.get(token.parse::<usize>().ok()?).copied()?
            } else {
                let mut members: HashMap<String, &RawValue> =
                    serde_json::from_str(value.get()).ok()?;
                members.remove(&token)?
            };
        }
        Some(value.get().into())
    }

    pub(crate) fn get_many(pointers: &[String]) -> Vec<Option<Vec<u8>>> {
        pointers.iter().map(|pointer| get(pointer)).collect()
    }

    pub(crate) fn size() -> u32 {
        u32::try_from(data().len()).expect("a sample is small")
    }

    pub(crate) fn data() -> Vec<u8> {
        current(|sample| sample.data.clone())
    }

    pub(crate) fn text() -> Option<String> {
        String::from_utf8(data()).ok()
    }

    pub(crate) fn alternate_id(kind: &str) -> Option<String> {
        current(|sample| find(&sample.alternate_ids, kind))
    }

    pub(crate) fn log(level: Level, message: &str) {
        eprintln!("[{level:?}] {message}");
    }

    fn find(pairs: &[(String, String)], name: &str) -> Option<String> {
        pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }
}
