//! What a publisher sends: a CloudEvent in the forms of the specification, and beside it what is for
//! the router alone.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde_json::Value;

use crate::event::{
    Attributes, AttributesSize, Content, Data, Violation, is_json_type, is_standard,
};
use crate::formats::Refusal;
use crate::json::Json;

/// How many alternate ids an event may have.
const ALTERNATE_IDS_MAX: usize = 100;

/// What a publisher sent, before anything of it is checked.
pub struct Sent {
    pub attributes: Vec<(String, String)>,
    pub data: SentData,
}

/// The data as they came.
pub enum SentData {
    None,
    /// The member `data` of the JSON format.
    Json(Json),
    /// Bytes that are what their media type says.
    Bytes(Bytes),
}

/// Reads an event in the CloudEvents JSON format 1.0.2, sections 2 and 3.
///
/// # Errors
///
/// It is not JSON, or not an event.
pub fn structured(body: Bytes) -> Result<Sent, Refusal> {
    let json = Json::parse(body)
        .map_err(|err| Refusal::Malformed(format!("the event is not JSON: {err}")))?;
    let Some(members) = json.members() else {
        return Err(Refusal::Malformed("the event must be a JSON object".to_owned()));
    };
    let mut sent = Sent { attributes: Vec::new(), data: SentData::None };
    let mut violations = Vec::new();
    let mut has_data = false;
    let mut size = AttributesSize::default();
    for (name, value) in members {
        if name != "data" && name != "data_base64" {
            // Before any of them is read; how long the texts are is known once they are.
            size.add(&name, "").map_err(|it| Refusal::Invalid(vec![it]))?;
        }
        match &*name {
            // In the JSON format, null is the same as absent.
            _ if value.text() == "null" && name != "data" => {}
            "data" | "data_base64" if has_data => {
                violations.push(Violation::new("data_base64", "must not be beside `data`"));
            }
            "data" => {
                has_data = true;
                sent.data = SentData::Json(value);
            }
            "data_base64" => {
                has_data = true;
                let text: Option<String> = value.read();
                match text.and_then(|text| BASE64_STANDARD.decode(text).ok()) {
                    Some(bytes) => sent.data = SentData::Bytes(bytes.into()),
                    None => violations.push(Violation::new("data_base64", "must be base64")),
                }
            }
            _ => match attribute_text(&name, &value) {
                Ok(text) => sent.attributes.push((name.into_owned(), text)),
                Err(detail) => violations.push(Violation::new(name, detail)),
            },
        }
    }
    if violations.is_empty() {
        Ok(sent)
    } else {
        Err(Refusal::Invalid(Violation::first(violations)))
    }
}

/// The canonical string of an attribute (CloudEvents 1.0.2, "Type System").
fn attribute_text(name: &str, value: &Json) -> Result<String, &'static str> {
    match value.read().unwrap_or(Value::Null) {
        Value::String(text) => Ok(text),
        _ if is_standard(name) || name == "specversion" => Err("must be a string"),
        Value::Bool(it) => Ok(it.to_string()),
        Value::Number(it) if it.as_i64().is_some_and(|it| i32::try_from(it).is_ok()) => {
            Ok(it.to_string())
        }
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err("must be a string, a boolean or a 32-bit integer")
        }
    }
}

/// An event that has been read.
pub struct Publication {
    /// What it says for the router alone.
    pub tenant: Option<String>,
    pub format: Option<String>,
    pub alternate_ids: Vec<(String, String)>,
    pub content: Content,
}

impl Sent {
    /// Checks the event by itself, and takes out of it what is for the router alone.
    ///
    /// # Errors
    ///
    /// What is wrong with it, field by field.
    pub fn read(self) -> Result<Publication, Vec<Violation>> {
        let mut attributes = Attributes::new(self.attributes)?;
        let mut take = |name| attributes.unset(name).ok().flatten();
        let (tenant, format, ids) = (take("tenant"), take("format"), take("alternateids"));
        let alternate_ids = alternate_ids(ids.as_deref()).map_err(|it| vec![it])?;
        let data = data(&attributes, self.data).map_err(|it| vec![it])?;
        Ok(Publication { tenant, format, alternate_ids, content: Content { attributes, data } })
    }
}

fn data(attributes: &Attributes, sent: SentData) -> Result<Option<Data>, Violation> {
    let is_json = attributes.is_json();
    Ok(match sent {
        SentData::None => None,
        SentData::Json(json) if is_json => Some(Data::Json(json)),
        // Not JSON by its media type: then a JSON string is the text itself.
        SentData::Json(json) => match json.read() {
            Some(Value::String(text)) => Some(Data::Text(text.into())),
            _ => Some(Data::Json(json)),
        },
        SentData::Bytes(bytes) if is_json => {
            let json = Json::parse(bytes);
            let json =
                json.map_err(|err| Violation::new("/data", format!("is not JSON: {err}")))?;
            Some(Data::Json(json))
        }
        SentData::Bytes(bytes) => {
            let media_type = attributes.datacontenttype.as_deref().unwrap_or_default();
            let is_text = is_text_type(media_type) && std::str::from_utf8(&bytes).is_ok();
            Some(if is_text { Data::Text(bytes) } else { Data::Binary(bytes) })
        }
    })
}

fn is_text_type(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("text/")
        || essence.ends_with("/xml")
        || essence.ends_with("+xml")
        || is_json_type(media_type)
}

/// The extension attribute `alternateids`: a JSON object of kinds and ids, as text.
fn alternate_ids(text: Option<&str>) -> Result<Vec<(String, String)>, Violation> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let ids = Json::parse(text.to_owned().into()).ok();
    let ids: Option<BTreeMap<String, String>> = ids.and_then(|it| it.read());
    let ids = ids.ok_or_else(|| {
        let detail = "must be a JSON object of texts, such as `{\"LoyaltyNumber\":\"L-7\"}`";
        Violation::new("alternateids", detail)
    })?;
    if ids.len() > ALTERNATE_IDS_MAX {
        let detail = format!("must have at most {ALTERNATE_IDS_MAX} ids");
        return Err(Violation::new("alternateids", detail));
    }
    Ok(ids.into_iter().collect())
}
