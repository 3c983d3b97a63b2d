//! The methods about webhooks, by JSON-RPC: one request, one answer, and status 200 for both good and
//! bad ones. Beside `addWebhook`, the methods' names are ours, after the pattern of the provider's
//! other families.

use std::cmp::Ordering;

use hookyard_nouns::endpoint;
use hookyard_nouns::json::Json;
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::rendering::Output;
use hookyard_nouns::subscription::{Draft, Filter, Subscription, TypePattern};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use url::Url;

use super::{NAME, Vision6};
use crate::formats::{
    Answer, Api, Call, Done, Granted, Operation, TokenPlace, Writer, check, read_json, whole_number,
};

/// The access level that every method about webhooks asks for: "Full access".
const FULL_ACCESS: &str = "full_access";
const METHODS: &str = "addWebhook, getWebhookById, searchWebhooks, countWebhooks, editWebhook, \
     deleteWebhook";
/// What is longer is no id.
const ID_BYTES_MAX: usize = 512;
/// What the positional parameters of a search are, after the key.
const SEARCH: [&str; 5] = ["criteria", "limit", "offset", "sort_by", "sort_order"];

impl Api for Vision6 {
    fn routes(&self) -> &'static [&'static str] {
        &["/api/jsonrpcserver", "/api/jsonrpcserver.php"]
    }

    fn token_place(&self) -> TokenPlace {
        TokenPlace::Body
    }

    /// The key is the first parameter.
    fn token(&self, call: &Call) -> Result<String, Refusal> {
        let request = self.read(call)?;
        let key = request["params"][0].as_str();
        key.filter(|it| !it.is_empty()).map(str::to_owned).ok_or(Refusal::NoToken)
    }

    fn operation(&self, call: &Call) -> Result<Operation, Refusal> {
        let request = self.read(call)?;
        let params = request["params"].as_array().map_or(&[][..], |it| &it[1..]);
        let argument = params.first().unwrap_or(&Value::Null);
        let tenant = None;
        match request["method"].as_str().unwrap_or_default() {
            "addWebhook" => {
                only(params, 1)?;
                let draft = Box::new(self.draft(argument)?);
                Ok(Operation::Create { tenant, draft })
            }
            "getWebhookById" => {
                only(params, 1)?;
                Ok(Operation::Read { tenant, id: id(argument)? })
            }
            "searchWebhooks" => {
                self.check_search(params, SEARCH.len())?;
                Ok(Operation::List { tenant })
            }
            "countWebhooks" => {
                self.check_search(params, 1)?;
                Ok(Operation::List { tenant })
            }
            "editWebhook" => {
                only(params, 1)?;
                check(argument, &self.edit)?;
                Ok(Operation::Patch { tenant, id: id(&argument["id"])?, patch: argument.clone() })
            }
            "deleteWebhook" => {
                only(params, 1)?;
                Ok(Operation::Delete { tenant, id: id(argument)? })
            }
            _ => Err(Refusal::WrongMethod(METHODS)),
        }
    }

    fn permit(&self, _: &Operation, granted: &Granted<'_>) -> Result<(), Refusal> {
        if granted.has(FULL_ACCESS) {
            Ok(())
        } else {
            Err(Refusal::MissingScope(FULL_ACCESS.to_owned()))
        }
    }

    fn patched(&self, present: &Subscription, patch: &Value) -> Result<Draft, Refusal> {
        let mut details = present.document.clone();
        for (name, value) in patch.as_object().into_iter().flatten().filter(|it| it.0 != "id") {
            details[name] = value.clone();
        }
        self.draft(&details)
    }

    fn answer(&self, call: &Call, outcome: Result<Done, Refusal>) -> Answer {
        if call.method != Method::POST {
            let text = "a request is sent by POST".to_owned();
            let mut answer = respond(b"null", Err((310, text)));
            answer.status = StatusCode::METHOD_NOT_ALLOWED;
            answer.headers.push((header::ALLOW, "POST".to_owned()));
            return answer;
        }
        let request = self.read(call).unwrap_or_default();
        // To the letter: some clients count beyond what a float can hold.
        let id = Json::parse(call.body.clone()).ok().and_then(|it| it.get("/id"));
        let is_id = |it: &Json| {
            it.bytes().len() <= ID_BYTES_MAX && !it.text().starts_with(['[', '{', 't', 'f'])
        };
        let id = id.filter(is_id);
        let id = id.as_ref().map_or(&b"null"[..], |it| it.bytes());
        let result = match outcome {
            Ok(Done::Created(it) | Done::Patched(it)) => Ok(number(&it)),
            Ok(Done::Read(it)) => Ok(details(&it)),
            Ok(Done::Listed(all)) => {
                let search = search(request["params"].as_array().map_or(&[][..], |it| &it[1..]));
                let found = find(&search, &all);
                let is_count = request["method"] == "countWebhooks";
                Ok(if is_count { found.len().into() } else { page(&search, found).into() })
            }
            Ok(_) => Ok(true.into()),
            Err(refusal) => Err(code_and_message(&refusal)),
        };
        respond(id, result)
    }

    fn provider_id(&self, number: u64, _: uuid::Uuid) -> String {
        number.to_string()
    }
}

impl Vision6 {
    fn read(&self, call: &Call) -> Result<Value, Refusal> {
        if call.method != Method::POST {
            return Err(Refusal::WrongMethod("POST"));
        }
        // Old clients send JSON with any media type, and so that is not looked at.
        read_json(&call.body, &self.request)
    }

    fn draft(&self, details: &Value) -> Result<Draft, Refusal> {
        check(details, &self.create)?;
        let text = |name: &str| details[name].as_str().unwrap_or_default();
        let (object, event, url) = (text("object"), text("event"), text("url"));
        let list = whole_number(&details["list_id"]).unwrap_or(0);
        let mut sets = vec![("format".to_owned(), vec![NAME.to_owned()])];
        // "0 to watch all Lists".
        if list != 0 {
            sets.push(("listid".to_owned(), vec![list.to_string()]));
        }
        let event_type = format!("{object}.{event}");
        let parsed = Url::parse(url).expect("the schema has checked the URL");
        let types = TypePattern::try_from(event_type.clone());
        let filter = Filter {
            types: types.expect("a type of the catalogue is a pattern"),
            attributes: sets,
        };
        let document = json!({"object": object, "event": event, "list_id": list, "url": url});
        Ok(Draft {
            // "A webhook with the exact details already exists."
            unique: vec![format!("{event_type} {list} {}", endpoint::identity(&parsed))],
            ..Draft::new(&event_type, parsed.clone(), "/url", vec![filter], document)
        })
    }

    fn check_search(&self, params: &[Value], count_max: usize) -> Result<(), Refusal> {
        only(params, count_max)?;
        check(&search(params), &self.search)
    }
}

fn only(params: &[Value], count_max: usize) -> Result<(), Refusal> {
    if params.len() <= count_max {
        Ok(())
    } else {
        let text = format!("the method takes the key and at most {count_max} more");
        Err(Refusal::Malformed(text))
    }
}

fn id(value: &Value) -> Result<String, Refusal> {
    let number = if value.is_number() { whole_number(value) } else { None };
    let wanted = || Refusal::Malformed("the id of a webhook must be a whole number".to_owned());
    number.map(|it| it.to_string()).ok_or_else(wanted)
}

fn number(it: &Subscription) -> Value {
    it.provider_id.parse::<u64>().unwrap_or_default().into()
}

fn details(it: &Subscription) -> Value {
    let mut details = it.document.clone();
    details["id"] = number(it);
    details
}

/// The positional parameters of a search by their names.
fn search(params: &[Value]) -> Value {
    SEARCH.iter().zip(params).map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn find(search: &Value, all: &[Subscription]) -> Vec<Value> {
    let criteria = search["criteria"].as_array().map_or(&[][..], Vec::as_slice);
    let fits = |it: &Value| criteria.iter().all(|criterion| meets(it, criterion));
    all.iter().map(details).filter(fits).collect()
}

fn meets(details: &Value, criterion: &Value) -> bool {
    let field = &details[criterion[0].as_str().unwrap_or_default()];
    let value = &criterion[2];
    let text = |it: &Value| it.as_str().map_or_else(|| it.to_string(), str::to_owned);
    let is = |value: &Value| compare(field, value) == Ordering::Equal;
    match criterion[1].as_str().unwrap_or_default() {
        "not" => !is(value),
        "in" => value.as_array().into_iter().flatten().any(is),
        "greater_than" => compare(field, value) == Ordering::Greater,
        "less_than" => compare(field, value) == Ordering::Less,
        "starts_with" => text(field).starts_with(&text(value)),
        "ends_with" => text(field).ends_with(&text(value)),
        "contains" => text(field).contains(&text(value)),
        _ => is(value),
    }
}

fn compare(one: &Value, other: &Value) -> Ordering {
    match (one.as_str(), other.as_str()) {
        (Some(one), Some(other)) => one.cmp(other),
        // A criterion may be below zero, and no field is.
        _ => whole_number(one).cmp(&whole_number(other)),
    }
}

fn page(search: &Value, mut found: Vec<Value>) -> Vec<Value> {
    let field = search["sort_by"].as_str().unwrap_or("id");
    let is_downwards = search["sort_order"] == "DESC";
    // Of what is the same, the older goes first either way.
    found.sort_by(|one, other| {
        let order = compare(&one[field], &other[field]);
        if is_downwards { order.reverse() } else { order }
    });
    let count = |name: &str, default| {
        let count = whole_number(&search[name]);
        count.map_or(default, |it| usize::try_from(it).unwrap_or(usize::MAX))
    };
    found.into_iter().skip(count("offset", 0)).take(count("limit", 100)).collect()
}

/// The provider's codes. Those beside 310 and 351 are from an older list of them (ours to apply here).
fn code_and_message(refusal: &Refusal) -> (u16, String) {
    let invalid = |why: String| (310, format!("Invalid Method Parameters: {why}"));
    match refusal {
        Refusal::NoToken | Refusal::BadToken => {
            (300, "Invalid Login: the API key is unknown, revoked or expired".to_owned())
        }
        Refusal::MissingScope(_) => {
            (321, "Access Denied: the API key does not have the level Full access".to_owned())
        }
        Refusal::WrongMethod(known) => {
            (104, format!("Unknown Method: the methods about webhooks are {known}"))
        }
        Refusal::Conflict(_) => (351, "Duplicate Webhook details not allowed".to_owned()),
        Refusal::Unavailable(_) | Refusal::TooMany(_) | Refusal::ListTooLong(_) => {
            (100, format!("Server Error: {refusal}"))
        }
        Refusal::NoAccount => (321, format!("Access Denied: {refusal}")),
        Refusal::NotFound | Refusal::OtherAccount => {
            invalid("there is no webhook with this id".to_owned())
        }
        other => invalid(other.to_string()),
    }
}

/// Always all three members, of which one is null.
fn respond(id: &[u8], result: Result<Value, (u16, String)>) -> Answer {
    let mut body = Writer::new(Output::new(usize::MAX), 128);
    body.raw("id", id);
    match result {
        Ok(result) => {
            body.raw("result", result.to_string().as_bytes());
            body.raw("error", b"null");
        }
        Err((code, message)) => {
            body.raw("result", b"null");
            body.raw("error", json!({"code": code, "message": message}).to_string().as_bytes());
        }
    }
    let body = body.into_body("application/json").expect("it may be of any size");
    Answer {
        status: StatusCode::OK,
        headers: Vec::new(),
        content_type: body.content_type,
        body: body.bytes,
    }
}
