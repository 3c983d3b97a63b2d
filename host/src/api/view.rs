//! An event as it is shown, piece by piece: its data are the bytes that they were, and no tree is made of them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use hookyard_nouns::clock;
use hookyard_nouns::event::{Data, Event};
use hyper::body::Frame;
use serde_json::json;

use super::SMALL_BYTES;

/// How many bytes of the data are in a piece: JSON as they are, and what is written in another way. The
/// latter divides by three, so that base64 has no end in between.
const JSON_PART_BYTES: usize = 64 << 10;
const WRITTEN_PART_BYTES: usize = 12 << 10;

/// The text of an event, as an iterator over its pieces.
pub(super) struct EventText {
    event: Arc<Event>,
    at: At,
    /// Without line ends, so that it can be a part of a line.
    on_one_line: bool,
}

#[derive(Clone, Copy)]
enum At {
    Head,
    /// From this byte of the data on.
    Data(usize),
    End,
}

impl EventText {
    pub(super) fn new(event: Arc<Event>) -> EventText {
        EventText { event, at: At::Head, on_one_line: false }
    }

    pub(super) fn on_one_line(event: Arc<Event>) -> EventText {
        EventText { event, at: At::Head, on_one_line: true }
    }

    /// As the body of an answer. A short one is written at once.
    pub(super) fn into_body(self) -> Body {
        if self.event.content.data_bytes() > SMALL_BYTES {
            return Body::new(self);
        }
        self.flatten().collect::<Vec<u8>>().into()
    }

    fn head(&self) -> Bytes {
        let event = &self.event;
        let head = json!({
            "id": event.id,
            "format": event.format,
            "attributes": event.content.attributes,
            "alternate_ids": event.alternate_ids.iter().cloned().collect::<HashMap<_, _>>(),
            "accepted_at": clock::rfc3339(event.accepted_at_ms),
            "revision": event.revision,
        });
        let mut text = head.to_string();
        text.truncate(text.len() - 1);
        text.push_str(match &event.content.data {
            None => "}",
            Some(Data::Json(_)) => ",\"data\":",
            Some(Data::Text(_)) => ",\"data\":\"",
            Some(Data::Binary(_)) => ",\"data_base64\":\"",
        });
        text.into()
    }

    /// The piece that begins at a byte of the data, and where the next one begins.
    fn part(&self, data: &Data, from: usize) -> (Bytes, usize) {
        let bytes = data.bytes();
        match data {
            Data::Json(_) => {
                let end = bytes.len().min(from + JSON_PART_BYTES);
                (self.json_part(bytes.slice(from..end)), end)
            }
            Data::Text(_) => {
                let mut end = bytes.len().min(from + WRITTEN_PART_BYTES);
                // Not within a character, of which the later bytes are like this.
                while end < bytes.len() && end > from + 1 && bytes[end] & 0xC0 == 0x80 {
                    end -= 1;
                }
                let text = serde_json::to_string(&String::from_utf8_lossy(&bytes[from..end]));
                let quoted = Bytes::from(text.expect("a text is always JSON"));
                (quoted.slice(1..quoted.len() - 1), end)
            }
            Data::Binary(_) => {
                let end = bytes.len().min(from + WRITTEN_PART_BYTES);
                (BASE64_STANDARD.encode(&bytes[from..end]).into(), end)
            }
        }
    }

    /// Between the values of a JSON text, a line end says the same as a space; within a text there is none.
    fn json_part(&self, part: Bytes) -> Bytes {
        if !self.on_one_line || memchr::memchr2(b'\n', b'\r', &part).is_none() {
            return part;
        }
        let space = |it: &u8| if matches!(it, b'\n' | b'\r') { b' ' } else { *it };
        part.iter().map(space).collect::<Vec<u8>>().into()
    }
}

impl Iterator for EventText {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let event = Arc::clone(&self.event);
        let data = event.content.data.as_ref();
        match (self.at, data) {
            (At::Head, None) => {
                self.at = At::End;
                Some(self.head())
            }
            (At::Head, Some(_)) => {
                self.at = At::Data(0);
                Some(self.head())
            }
            (At::Data(from), Some(data)) if from < data.bytes().len() => {
                let (part, end) = self.part(data, from);
                self.at = At::Data(end);
                Some(part)
            }
            (At::Data(_), data) => {
                self.at = At::End;
                let is_json = matches!(data, Some(Data::Json(_)));
                Some(Bytes::from_static(if is_json { b"}" } else { b"\"}" }))
            }
            (At::End, _) => None,
        }
    }
}

impl HttpBody for EventText {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use hookyard_nouns::event::{Attributes, Content, Tenant};
    use hookyard_nouns::json::Json;
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;

    fn text(data: Option<Data>, on_one_line: bool) -> String {
        let attributes = [("specversion", "1.0"), ("id", "1"), ("source", "/x"), ("type", "t")];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let event = Arc::new(Event {
            id: Uuid::nil(),
            tenant: Tenant::new("acme").unwrap(),
            format: "cloudevents",
            content: Arc::new(Content { attributes: Attributes::new(attributes).unwrap(), data }),
            alternate_ids: vec![("Card".to_owned(), "C-1".to_owned())],
            accepted_at_ms: 0,
            revision: 7,
        });
        let pieces =
            if on_one_line { EventText::on_one_line(event) } else { EventText::new(event) };
        String::from_utf8(pieces.flatten().collect()).unwrap()
    }

    fn read(data: Option<Data>) -> Value {
        serde_json::from_str(&text(data, true)).unwrap()
    }

    fn json(text: &str) -> Data {
        Data::Json(Json::parse(text.to_owned().into()).unwrap())
    }

    #[test]
    fn an_event_is_shown_with_its_data_as_they_were() {
        let it = read(None);
        assert_eq!((&it["alternate_ids"]["Card"], &it["revision"]), (&json!("C-1"), &json!(7)));
        assert!(it.get("data").is_none());
        let data = "{ \"n\": 9007199254740993.10,\n \"t\": \"a\\nb\" }";
        assert!(text(Some(json(data)), false).ends_with(&format!(",\"data\":{data}}}")));
        let line = text(Some(json(data)), true);
        assert!(!line.contains('\n') && line.contains("9007199254740993.10"), "{line}");
        assert_eq!(read(Some(json(data)))["data"]["t"], "a\nb");
    }

    #[test]
    fn pieces_end_where_they_may() {
        for count in [0, 1, 2, 12_287, 12_288, 12_289, 50_000] {
            let long = "é\"\n€😀".repeat(count / 12 + 1) + &"x".repeat(count % 12);
            let it = read(Some(Data::Text(long.clone().into())));
            assert_eq!(it["data"], long.as_str(), "{count}");
            let bytes: Vec<u8> = (0..count).map(|it| (it % 251) as u8).collect();
            let it = read(Some(Data::Binary(bytes.clone().into())));
            let text = it["data_base64"].as_str().unwrap();
            assert_eq!(BASE64_STANDARD.decode(text).unwrap(), bytes, "{count}");
        }
        let long = json(&json!(vec!["\n"; 30_000]).to_string());
        assert_eq!(read(Some(long))["data"].as_array().unwrap().len(), 30_000);
    }
}
