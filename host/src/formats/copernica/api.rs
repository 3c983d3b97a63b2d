//! The webhooks of the REST API: JSON or a form becomes a draft.

use std::ops::RangeInclusive;

use hookyard_nouns::event::{Violation, essence, is_json_type};
use hookyard_nouns::json::without_mark;
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::subscription::{Draft, Filter, Subscription, TypePattern};
use http::{HeaderName, Method, StatusCode, header};
use serde_json::{Value, json};
use url::Url;

use super::form;
use super::{CONTENT_TYPE, Copernica, NAME};
use crate::formats::{
    Answer, Api, Call, Done, Login, Operation, bearer, check, read_json, take_id, whole_number,
};
use crate::schemas::Schema;

/// Of the versions, this one is documented; its calls about webhooks are those of the ones before.
const ALL: &str = "/{version}/webhooks";
const ONE: &str = "/{version}/webhook/{id}";
const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "v4"];
/// The provider's clients read the id of something new here.
const CREATED: HeaderName = HeaderName::from_static("x-created");
const LOCATION: HeaderName = HeaderName::from_static("x-location");
const DELETED: HeaderName = HeaderName::from_static("x-deleted");

/// How many items a list answers, and at most (the provider's page on paging).
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// There are fewer items.
const START_MAX: usize = 1_000_000_000;

impl Api for Copernica {
    fn routes(&self) -> &'static [&'static str] {
        &[ALL, ONE]
    }

    /// The provider has a host of its own for this; the path is ours.
    fn login(&self) -> Option<Login> {
        Some(Login::Exchange { path: "/authenticate", expires_s: 24 * 3_600 })
    }

    /// In the header, or in the URL as before v4.
    fn token(&self, call: &Call) -> Result<String, Refusal> {
        match call.parameter("access_token") {
            Some(token) if !call.headers.contains_key(header::AUTHORIZATION) => Ok(token),
            _ => bearer(&call.headers),
        }
    }

    fn operation(&self, call: &Call) -> Result<Operation, Refusal> {
        if !VERSIONS.contains(&version(call)) {
            return Err(Refusal::UnknownPath);
        }
        let tenant = None;
        let id = || {
            let text = call.parameters.get("id").map_or("", String::as_str);
            text.parse::<u64>().map(|it| it.to_string()).map_err(|_| Refusal::NotFound)
        };
        match (call.route, &call.method) {
            (ALL, &Method::POST) => {
                let details = read(call, &self.create)?;
                Ok(Operation::Create { tenant, draft: Box::new(draft(&details)) })
            }
            (ALL, &Method::GET) => {
                Page::asked(call)?;
                Ok(Operation::List { tenant })
            }
            (ALL, _) => Err(Refusal::WrongMethod("GET, POST")),
            (ONE, &Method::GET) => Ok(Operation::Read { tenant, id: id()? }),
            (ONE, &Method::PUT) => {
                let (id, mut patch) = (id()?, read(call, &self.replace)?);
                take_id(&mut patch, "ID", &id)?;
                Ok(Operation::Patch { tenant, id, patch })
            }
            (ONE, &Method::DELETE) => Ok(Operation::Delete { tenant, id: id()? }),
            (_, _) => Err(Refusal::WrongMethod("GET, PUT, DELETE")),
        }
    }

    /// A PUT says everything but the database and the collection, which stay.
    fn patched(&self, present: &Subscription, patch: &Value) -> Result<Draft, Refusal> {
        let mut details = patch.clone();
        for name in ["database", "collection"] {
            if !present.document[name].is_null() {
                details[name] = present.document[name].clone();
            }
        }
        Ok(draft(&details))
    }

    fn answer(&self, call: &Call, outcome: Result<Done, Refusal>) -> Answer {
        match outcome {
            Ok(Done::Created(it)) => {
                let mut answer = Answer::empty(StatusCode::CREATED);
                let path = ONE.replace("{version}", version(call)).replace("{id}", &it.provider_id);
                answer.headers.push((CREATED, it.provider_id));
                answer.headers.push((LOCATION, format!("{}{path}", call.base)));
                answer
            }
            Ok(Done::Read(it)) => Answer::json(StatusCode::OK, &webhook(&it)),
            Ok(Done::Listed(all)) => match Page::asked(call) {
                Ok(page) => Answer::json(StatusCode::OK, &page.of(&all)),
                Err(refusal) => refused(&refusal),
            },
            Ok(Done::Deleted(it)) => {
                let mut answer = Answer::empty(StatusCode::NO_CONTENT);
                answer.headers.push((DELETED, format!("webhook {}", it.provider_id)));
                answer
            }
            Ok(_) => Answer::empty(StatusCode::NO_CONTENT),
            Err(refusal) => refused(&refusal),
        }
    }

    fn provider_id(&self, number: u64, _: uuid::Uuid) -> String {
        number.to_string()
    }
}

fn version(call: &Call) -> &str {
    call.parameters.get("version").map_or("", String::as_str)
}

/// "JSON or form, by the content type."
fn read(call: &Call, schema: &Schema) -> Result<Value, Refusal> {
    let media_type = call.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let media_type = media_type.unwrap_or_default();
    if essence(media_type) == CONTENT_TYPE {
        let form = form::parse(&without_mark(&call.body));
        let form = form.map_err(|why| Refusal::Malformed(format!("the form {why}")))?;
        check(&form, schema)?;
        Ok(form)
    } else if is_json_type(media_type) {
        read_json(&call.body, schema)
    } else {
        Err(Refusal::WrongMediaType("`application/json` or `application/x-www-form-urlencoded`"))
    }
}

/// Of details that fit their schema.
fn draft(details: &Value) -> Draft {
    let text = |name: &str| details[name].as_str().unwrap_or_default();
    let (handler, trigger) = (text("handler"), text("trigger"));
    // In a form they are texts.
    let (database, collection) =
        (whole_number(&details["database"]), whole_number(&details["collection"]));
    let callers: Vec<String> = details["callers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it.as_str().map(str::to_owned))
        .collect();
    let mut sets = vec![("format".to_owned(), vec![NAME.to_owned()])];
    // What is left out stands for all.
    sets.extend(database.map(|it| ("database".to_owned(), vec![it.to_string()])));
    sets.extend(collection.map(|it| ("collection".to_owned(), vec![it.to_string()])));
    if !callers.is_empty() {
        sets.push(("caller".to_owned(), callers.clone()));
    }
    let types = TypePattern::try_from(trigger.to_owned());
    let filter =
        Filter { types: types.expect("a type of the catalogue is a pattern"), attributes: sets };
    let url = Url::parse(handler).expect("the schema has checked the URL");
    let document = json!({
        "handler": handler,
        "trigger": trigger,
        "callers": callers,
        "database": database,
        "collection": collection,
    });
    Draft::new(trigger, url, "/handler", vec![filter], document)
}

fn webhook(it: &Subscription) -> Value {
    json!({
        "ID": it.provider_id,
        "handler": it.document["handler"],
        "trigger": it.document["trigger"],
        "callers": it.document["callers"],
    })
}

/// Which webhooks a list is to show (the provider's page on paging).
struct Page {
    start: usize,
    limit: usize,
    total: bool,
}

impl Page {
    fn asked(call: &Call) -> Result<Page, Refusal> {
        let number = |name: &str, default: usize, range: RangeInclusive<usize>, detail: &str| {
            let Some(text) = call.parameter(name) else { return Ok(default) };
            let wrong = || Refusal::Invalid(vec![Violation::new(name, detail)]);
            text.parse().ok().filter(|it| range.contains(it)).ok_or_else(wrong)
        };
        let first = "must be the number of the first item, from 0";
        let start = number("start", 0, 0..=START_MAX, first)?;
        let limit = number("limit", PAGE, 1..=PAGE_MAX, "must be a number of items, 1 to 1000")?;
        Ok(Page { start, limit, total: call.parameter("total").as_deref() != Some("false") })
    }

    fn of(&self, all: &[Subscription]) -> Value {
        let data: Vec<_> = all.iter().skip(self.start).take(self.limit).map(webhook).collect();
        let mut list =
            json!({"start": self.start, "limit": self.limit, "count": data.len(), "data": data});
        if self.total {
            list["total"] = all.len().into();
        }
        list
    }
}

/// The pages say that there is a message in the body, and no more; the shape is ours.
fn refused(refusal: &Refusal) -> Answer {
    let message = match refusal {
        Refusal::NotFound | Refusal::OtherAccount => "there is no such webhook".to_owned(),
        other => other.to_string(),
    };
    let mut answer = Answer::json(refusal.status(), &json!({"error": {"message": message}}));
    if let Refusal::WrongMethod(allowed) = refusal {
        answer.headers.push((header::ALLOW, (*allowed).to_owned()));
    }
    answer
}
