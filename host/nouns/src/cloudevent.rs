//! What a publisher sends: a CloudEvent in the forms of the specification, and beside it what is for
//! the router alone.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde_json::Value;

use crate::event::{
    AttributeValue, Attributes, AttributesSize, Content, Data, Kind, Violation, is_json_type,
    is_standard, kind_of_bytes,
};
use crate::json::Json;
use crate::refusal::Refusal;

/// How many alternate ids an event may have.
const ALTERNATE_IDS_MAX: usize = 100;

/// What a publisher sent, before anything of it is checked.
pub struct Sent {
    pub attributes: Vec<(String, AttributeValue)>,
    pub data: SentData,
}

/// The data as they came.
pub enum SentData {
    None,
    /// The member `data` of the JSON format.
    Json(Json),
    /// The member `data_base64` of the JSON format, decoded.
    Base64(Bytes),
    /// The body of the binary mode.
    Body(Bytes),
}

/// Reads an event in the CloudEvents JSON format 1.0.2, sections 2 and 3.
///
/// # Errors
///
/// It is not JSON, or not an event.
pub fn structured(body: Bytes) -> Result<Sent, Refusal> {
    let json = Json::parse_event(body)
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
                    Some(bytes) => sent.data = SentData::Base64(bytes.into()),
                    None => violations.push(Violation::new("data_base64", "must be base64")),
                }
            }
            _ => match attribute(&name, &value) {
                Ok(it) => sent.attributes.push((name.into_owned(), it)),
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

/// An attribute in the JSON format 1.0.2, section 2.2: an integer and a boolean are what they are.
fn attribute(name: &str, value: &Json) -> Result<AttributeValue, String> {
    if let Some(escape) = value.lone_surrogate() {
        return Err(format!("has `{escape}`, which is half of a character"));
    }
    match value.read().unwrap_or(Value::Null) {
        Value::String(text) => Ok(text.into()),
        _ if is_standard(name) || name == "specversion" => Err("must be a string".to_owned()),
        Value::Bool(it) => Ok(it.into()),
        it => match it.as_i64().and_then(|it| i32::try_from(it).ok()) {
            Some(it) => Ok(it.into()),
            None => Err("must be a string, a boolean or a 32-bit integer".to_owned()),
        },
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
        // Whose event it is may be known to whoever gets it.
        let tenant = attributes.get("tenant").map(str::to_owned);
        let mut take = |name| attributes.unset(name).ok().flatten();
        let (format, ids) = (take("format"), take("alternateids"));
        let alternate_ids = alternate_ids(ids.as_deref()).map_err(|it| vec![it])?;
        let data = data(&attributes, self.data).map_err(|it| vec![it])?;
        Ok(Publication { tenant, format, alternate_ids, content: Content { attributes, data } })
    }
}

/// What the data are, by the member that they came in and by their media type.
fn data(attributes: &Attributes, sent: SentData) -> Result<Option<Data>, Violation> {
    let media_type = attributes.datacontenttype.as_deref();
    let bytes = match sent {
        SentData::None => return Ok(None),
        // JSON is what the member `data` is where nothing else is said.
        SentData::Json(json) if media_type.is_none_or(is_json_type) => {
            return Ok(Some(Data::Json(json)));
        }
        // Not JSON by its media type: then a JSON string is the text itself.
        SentData::Json(json) => {
            let text = if json.lone_surrogate().is_some() { None } else { json.read::<String>() };
            return Ok(Some(text.map_or(Data::Json(json), |text| Data::Text(text.into()))));
        }
        SentData::Base64(ref bytes) | SentData::Body(ref bytes) => bytes.clone(),
    };
    Ok(Some(match kind_of_bytes(media_type, &bytes) {
        Kind::Text => Data::Text(bytes),
        Kind::Binary => Data::Binary(bytes),
        Kind::Json => match Json::parse_data(bytes.clone()) {
            Ok(json) => Data::Json(json),
            // Whoever says so in base64 means the bytes.
            Err(_) if matches!(sent, SentData::Base64(_)) => Data::Binary(bytes),
            Err(err) => return Err(Violation::new("/data", format!("is not JSON: {err}"))),
        },
    }))
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
