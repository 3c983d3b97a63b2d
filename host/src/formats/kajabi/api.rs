//! The hooks: JSON:API 1.1 documents that become drafts, and the answers.

use bytes::Bytes;
use hookyard_nouns::clock;
use hookyard_nouns::event::Violation;
use hookyard_nouns::json::Json;
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::subscription::{Draft, Filter, Subscription, TypePattern};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::{Kajabi, NAME};
use crate::formats::{Answer, Api, Call, Done, Granted, Login, Operation, read_json, whole_number};
use crate::schemas;

const MEDIA_TYPE: &str = "application/vnd.api+json";
const ALL: &str = "/v1/hooks";
const ONE: &str = "/v1/hooks/{id}";
/// The provider's page prints this prefix; its changelog takes it back.
const OLD_ALL: &str = "/api/v1/hooks";
const OLD_ONE: &str = "/api/v1/hooks/{id}";

/// How long a page is, and at most (ours, as elsewhere in the provider's API).
const PAGE: usize = 20;
const PAGE_MAX: usize = 100;
/// There are fewer pages.
const PAGE_NUMBER_MAX: usize = 1_000_000_000;

impl Api for Kajabi {
    fn routes(&self) -> &'static [&'static str] {
        &[ALL, ONE, OLD_ALL, OLD_ONE]
    }

    fn login(&self) -> Option<Login> {
        Some(Login::OAuth {
            token: &["/v1/oauth/token", "/api/v1/oauth/token"],
            revoke: &["/v1/oauth/revoke", "/api/v1/oauth/revoke"],
            expires_s: 7_200,
            refresh: true,
        })
    }

    fn operation(&self, call: &Call) -> Result<Operation, Refusal> {
        let id = call.parameters.get("id").map_or("", String::as_str);
        match (call.route, &call.method) {
            (ALL | OLD_ALL, &Method::GET | &Method::POST) | (_, &Method::GET) => {}
            (ALL | OLD_ALL, _) => return Err(Refusal::WrongMethod("GET, POST")),
            (_, _) if self.sample(id).is_some() => return Err(Refusal::WrongMethod("GET")),
            (_, &Method::DELETE) => {}
            (_, _) => return Err(Refusal::WrongMethod("GET, DELETE")),
        }
        check_accept(&call.headers)?;
        match (call.route, &call.method) {
            (ALL | OLD_ALL, &Method::POST) => {
                check_media_type(&call.headers)?;
                check_has_no_id(&call.body)?;
                let document = read_json(&call.body, &self.create)?;
                let site = &document["data"]["relationships"]["site"]["data"]["id"];
                let tenant = site.as_str().map(str::to_owned);
                Ok(Operation::Create { tenant, draft: Box::new(draft(&document)) })
            }
            (ALL | OLD_ALL, _) => {
                Page::asked(self, call)?;
                Ok(Operation::List { tenant: None })
            }
            (_, &Method::DELETE) => Ok(Operation::Delete { tenant: None, id: number(id)? }),
            (_, _) => match self.sample(id) {
                Some(payload) => Ok(Operation::Show(answer(StatusCode::OK, &payload))),
                None => Ok(Operation::Read { tenant: None, id: number(id)? }),
            },
        }
    }

    /// To make a hook, every scope of its event; for everything else, any of them (ours).
    fn permit(&self, operation: &Operation, granted: &Granted<'_>) -> Result<(), Refusal> {
        let missing = if let Operation::Create { draft, .. } = operation {
            let event = self.catalogue.get(draft.document["event"].as_str().unwrap_or_default());
            let needed = event.into_iter().flat_map(|it| &it.scopes);
            needed.filter(|it| !granted.has(it)).map(String::as_str).collect::<Vec<_>>().join(", ")
        } else if self.scopes.iter().any(|it| granted.has(it)) {
            String::new()
        } else {
            let all: Vec<_> = self.scopes.iter().map(String::as_str).collect();
            all.join(" or ")
        };
        if missing.is_empty() { Ok(()) } else { Err(Refusal::MissingScope(missing)) }
    }

    fn answer(&self, call: &Call, outcome: Result<Done, Refusal>) -> Answer {
        match outcome {
            Ok(Done::Created(it)) => {
                let mut created = answer(StatusCode::CREATED, &json!({"data": resource(&it)}));
                let location = format!("{}{}/{}", call.base, call.route, it.provider_id);
                created.headers.push((header::LOCATION, location));
                created
            }
            Ok(Done::Read(it)) => answer(StatusCode::OK, &json!({"data": resource(&it)})),
            Ok(Done::Listed(all)) => match Page::asked(self, call) {
                Ok(page) => answer(StatusCode::OK, &page.of(call, &all)),
                Err(refusal) => refused(&refusal),
            },
            Ok(Done::Shown(shown)) => shown,
            Ok(_) => Answer::empty(StatusCode::NO_CONTENT),
            Err(refusal) => refused(&refusal),
        }
    }

    fn provider_id(&self, number: u64, _: uuid::Uuid) -> String {
        number.to_string()
    }
}

impl Kajabi {
    /// The payload that `<event>_sample` answers.
    fn sample(&self, name: &str) -> Option<Value> {
        let event = name.strip_suffix("_sample")?;
        self.catalogue.get(event)?;
        let file = schemas::file(&format!("{NAME}/samples/{event}.json"));
        let mut sample: Value = serde_json::from_str(file).expect("a sample is JSON");
        Some(sample["data"].take())
    }
}

/// Of a document that fits its schema.
fn draft(document: &Value) -> Draft {
    let attributes = &document["data"]["attributes"];
    let text = |name: &str| attributes[name].as_str().unwrap_or_default();
    let (url, event) = (text("target_url"), text("event"));
    // The provider types it as an integer, and its examples show a text.
    let resource = whole_number(&attributes["resource_id"]);
    let mut sets = vec![("format".to_owned(), vec![NAME.to_owned()])];
    // Without it, "the webhook will be triggered for all events of the specified type".
    sets.extend(resource.map(|id| ("resourceid".to_owned(), vec![id.to_string()])));
    let types = TypePattern::try_from(event.to_owned());
    let parsed = Url::parse(url).expect("the schema has checked the URL");
    let filter =
        Filter { types: types.expect("a type of the catalogue is a pattern"), attributes: sets };
    let document = json!({"target_url": url, "event": event, "resource_id": resource});
    Draft::new(event, parsed, "/data/attributes/target_url", vec![filter], document)
}

fn resource(it: &Subscription) -> Value {
    json!({
        "id": it.provider_id,
        "type": "hooks",
        "attributes": {
            "target_url": it.document["target_url"],
            "event": it.document["event"],
            "resource_id": it.document["resource_id"],
            "created_at": clock::rfc3339(it.created_at_ms),
            "updated_at": clock::rfc3339(it.updated_at_ms),
        },
        "relationships": {
            "site": {"data": {"id": it.tenant.as_str(), "type": "sites"}},
        },
    })
}

/// Which hooks a list is to show.
struct Page {
    number: usize,
    size: usize,
    event: Option<String>,
}

impl Page {
    fn asked(kajabi: &Kajabi, call: &Call) -> Result<Page, Refusal> {
        let mut page = Page { number: 1, size: PAGE, event: None };
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(call.query.as_bytes()) {
            let wrong =
                |detail: &str| Err(Refusal::Invalid(vec![Violation::new(name.as_ref(), detail)]));
            if seen.contains(&name) {
                return wrong("must be given once");
            }
            let count = value.parse::<usize>().ok().filter(|it| *it > 0);
            match (&*name, count) {
                ("page[number]", Some(count)) if count <= PAGE_NUMBER_MAX => page.number = count,
                ("page[number]", _) => return wrong("must be the number of a page, from 1"),
                ("page[size]", Some(count)) if count <= PAGE_MAX => page.size = count,
                ("page[size]", _) => {
                    return wrong("must be the number of hooks on a page, 1 to 100");
                }
                ("filter[event_eq]", _) if kajabi.catalogue.get(&value).is_some() => {
                    page.event = Some(value.into_owned());
                }
                ("filter[event_eq]", _) => return wrong("must be one of the six events"),
                (_, _) => return wrong("is not a parameter of this list"),
            }
            seen.push(name);
        }
        Ok(page)
    }

    fn of(&self, call: &Call, all: &[Subscription]) -> Value {
        let wanted = |it: &&Subscription| {
            self.event.as_ref().is_none_or(|event| it.document["event"] == event.as_str())
        };
        let all: Vec<_> = all.iter().filter(wanted).collect();
        let pages = all.len().div_ceil(self.size);
        let data: Vec<_> = all
            .chunks(self.size)
            .nth(self.number - 1)
            .into_iter()
            .flatten()
            .map(|it| resource(it))
            .collect();
        let last = pages.max(1);
        let link = |number: usize| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("page[number]", &number.to_string());
            query.append_pair("page[size]", &self.size.to_string());
            if let Some(event) = &self.event {
                query.append_pair("filter[event_eq]", event);
            }
            format!("{}{}?{}", call.base, call.route, query.finish())
        };
        let neighbour = |number: usize, is_there: bool| is_there.then(|| link(number));
        json!({
            "data": data,
            "links": {
                "self": link(self.number),
                "first": link(1),
                "prev": neighbour((self.number - 1).min(last), self.number > 1),
                "next": neighbour(self.number + 1, self.number < pages),
                "last": link(last),
            },
            "meta": {
                "total_pages": pages,
                "total_count": all.len(),
                "current_page": self.number,
            },
        })
    }
}

/// A hook's id is a number without ornaments.
fn number(text: &str) -> Result<String, Refusal> {
    let number: Option<u64> = text.parse().ok();
    number.map(|it| it.to_string()).filter(|it| it == text).ok_or(Refusal::NotFound)
}

/// JSON:API 1.1, "Server Responsibilities": no parameters but `ext` and `profile`, and we know no
/// extension.
fn check_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    if value.is_some_and(is_json_api) { Ok(()) } else { Err(Refusal::WrongMediaType(MEDIA_TYPE)) }
}

/// JSON:API 1.1, "Client-Generated IDs": where they are not supported, the answer is 403.
fn check_has_no_id(body: &Bytes) -> Result<(), Refusal> {
    let id = Json::parse(body.clone()).ok().and_then(|it| it.get("/data/id"));
    let why = "the id of a hook is given here; leave out `/data/id`";
    // Some clients write each member that there may be.
    if id.is_some_and(|it| it.text() != "null") {
        Err(Refusal::Forbidden(why.to_owned()))
    } else {
        Ok(())
    }
}

fn check_accept(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut offers = headers.get_all(header::ACCEPT).iter().peekable();
    if offers.peek().is_none() {
        return Ok(());
    }
    let takes = |offer: &str| {
        let mut parts = offer.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let (quality, others): (Vec<_>, Vec<_>) = parts.partition(|it| it.starts_with("q="));
        let refused =
            quality.iter().any(|it| it[2..].trim().parse::<f32>().is_ok_and(|it| it == 0.0));
        !refused
            // Many clients ask for plain JSON, which the answer is as well.
            && (["*/*", "application/*", "application/json"]
                .iter()
                .any(|it| it.eq_ignore_ascii_case(essence))
                || is_json_api(&[&[essence], &others[..]].concat().join(";")))
    };
    let taken = offers
        .filter_map(|it| it.to_str().ok())
        .any(|it| it.trim().is_empty() || it.split(',').map(str::trim).any(takes));
    if taken { Ok(()) } else { Err(Refusal::NotAcceptable(MEDIA_TYPE)) }
}

fn is_json_api(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    parts.next().is_some_and(|it| it.eq_ignore_ascii_case(MEDIA_TYPE))
        && parts.all(|it| it.starts_with("profile="))
}

fn answer(status: StatusCode, document: &Value) -> Answer {
    let mut answer = Answer { content_type: MEDIA_TYPE, ..Answer::json(status, document) };
    // JSON:API 1.1, "Server Responsibilities".
    answer.headers.push((header::VARY, "Accept".to_owned()));
    answer
}

/// JSON:API 1.1, "Error Objects".
fn refused(refusal: &Refusal) -> Answer {
    let of_parameter = |it: &Violation| !it.field.is_empty() && !it.field.starts_with('/');
    let status = match refusal {
        Refusal::OtherAccount => StatusCode::FORBIDDEN,
        Refusal::Invalid(violations) if violations.iter().any(of_parameter) => {
            StatusCode::BAD_REQUEST
        }
        Refusal::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        other => other.status(),
    };
    let error = |source: Option<Value>, detail: String| {
        let mut error = json!({
            "status": status.as_str(),
            "title": status.canonical_reason(),
            "detail": detail,
        });
        if let Some(source) = source {
            error["source"] = source;
        }
        error
    };
    let errors = match refusal {
        Refusal::Invalid(violations) => violations
            .iter()
            .map(|it| {
                let kind = if of_parameter(it) { "parameter" } else { "pointer" };
                error(Some(json!({kind: it.field})), it.to_string())
            })
            .collect(),
        Refusal::OtherAccount => {
            let source = json!({"pointer": "/data/relationships/site/data/id"});
            vec![error(Some(source), "your token has no access to this site".to_owned())]
        }
        Refusal::NotFound => vec![error(None, "there is no such hook".to_owned())],
        other => vec![error(None, other.to_string())],
    };
    let mut answer = answer(status, &json!({"errors": errors}));
    answer.headers.extend(match refusal {
        Refusal::NoToken | Refusal::BadToken => {
            Some((header::WWW_AUTHENTICATE, "Bearer".to_owned()))
        }
        Refusal::WrongMethod(allowed) => Some((header::ALLOW, (*allowed).to_owned())),
        _ => None,
    });
    answer
}
