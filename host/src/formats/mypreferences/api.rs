//! The subscriptions of the integration API: requests that become drafts, and the answers.

use std::collections::HashMap;

use hookyard_nouns::endpoint;
use hookyard_nouns::event::{Violation, is_json_type};
use hookyard_nouns::json::Json;
use hookyard_nouns::plugin::PluginRef;
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::subscription::{
    Draft, Filter, NewSecret, State, StepRef, Subscription, TypePattern,
};
use http::{Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::{AlternateIdShape, MyPreferences, NAME};
use crate::formats::{
    AccountRate, Answer, Api, Call, Catalogue, Done, Login, Operation, read_json, whole_number,
};
use crate::schemas::Schema;

/// The provider's pages print no path beside `/Profiles/v4/{clientId}`; the rest is ours.
const ALL: &str = "/Profiles/v4/{clientId}/Webhooks/Subscriptions";
const ONE: &str = "/Profiles/v4/{clientId}/Webhooks/Subscriptions/{subscriptionId}";
const SETTINGS: &str = "/Profiles/v4/{clientId}/Webhooks/Settings";
/// "Default 500" messages, and then a pause of "default 1" second.
const REQUESTS: u64 = 500;
const DURATION_S: u64 = 1;

impl Api for MyPreferences {
    fn routes(&self) -> &'static [&'static str] {
        &[ALL, ONE, SETTINGS]
    }

    /// The provider's page on OAuth; the path is ours.
    fn login(&self) -> Option<Login> {
        Some(Login::OAuth {
            token: &["/oauth/token"],
            revoke: &[],
            expires_s: 3_600,
            refresh: false,
        })
    }

    fn operation(&self, call: &Call) -> Result<Operation, Refusal> {
        let tenant = call.parameters.get("clientId").cloned();
        let id = || integer(call.parameters.get("subscriptionId").map_or("", String::as_str));
        match (call.route, &call.method) {
            (ALL, &Method::POST) => {
                check_media_type(call)?;
                let (draft, _) = self.draft(&self.create, &call.body)?;
                Ok(Operation::Create { tenant, draft: Box::new(draft) })
            }
            (ALL, &Method::GET) => match call.parameter("subscriptionId") {
                Some(id) => Ok(Operation::Read { tenant, id: integer(&id)? }),
                None => Ok(Operation::List { tenant }),
            },
            (ALL, _) => Err(Refusal::WrongMethod("GET, POST")),
            (ONE, &Method::PUT) => {
                check_media_type(call)?;
                let id = id()?;
                let (draft, is_active) = self.draft(&self.replace, &call.body)?;
                // "Deactivating a subscription will result in its deletion."
                if is_active {
                    Ok(Operation::Replace { tenant, id, draft: Box::new(draft) })
                } else {
                    Ok(Operation::Delete { tenant, id })
                }
            }
            (ONE, &Method::DELETE) => Ok(Operation::Delete { tenant, id: id()? }),
            (ONE, _) => Err(Refusal::WrongMethod("PUT, DELETE")),
            (SETTINGS, &Method::GET) => Ok(Operation::ReadSettings { tenant }),
            (SETTINGS, &Method::PUT) => {
                check_media_type(call)?;
                let asked = read_json(&call.body, &self.settings)?;
                let number = |name: &str, default: u64| {
                    whole_number(&asked["Settings"][name]).unwrap_or(default).into()
                };
                let settings = settings(
                    number("MaxConcurrentRequests", REQUESTS),
                    number("Duration", DURATION_S),
                );
                Ok(Operation::WriteSettings { tenant, settings })
            }
            (_, _) => Err(Refusal::WrongMethod("GET, PUT")),
        }
    }

    /// "Up to so many messages in a cycle, across all active subscriptions."
    fn account_rate(&self, settings: &Value) -> Option<AccountRate> {
        let number = |name: &str| whole_number(&settings["Settings"][name]);
        Some(AccountRate {
            deliveries: number("MaxConcurrentRequests")?,
            cycle_ms: i64::try_from(number("Duration")?).ok()?.checked_mul(1_000)?,
        })
    }

    fn default_settings(&self) -> Value {
        let mut settings = settings(REQUESTS.into(), DURATION_S.into());
        settings["Edited"] = json!({"Date": null});
        settings
    }

    fn answer(&self, call: &Call, outcome: Result<Done, Refusal>) -> Answer {
        match outcome {
            Ok(Done::Created(it)) => Answer::json(StatusCode::CREATED, &document(&it, true)),
            Ok(Done::Replaced(it)) => Answer::json(StatusCode::OK, &document(&it, true)),
            // The page answers a list, of one when `subscriptionId` is given (ours).
            Ok(Done::Read(it)) => Answer::json(StatusCode::OK, &json!([document(&it, true)])),
            Ok(Done::Listed(all)) => {
                Answer::json(StatusCode::OK, &all.iter().map(|it| document(it, true)).collect())
            }
            // An update that deletes answers as an update does.
            Ok(Done::Deleted(it)) if call.method == Method::PUT => {
                Answer::json(StatusCode::OK, &document(&it, false))
            }
            Ok(Done::Settings(settings)) => Answer::json(StatusCode::OK, &settings),
            Ok(_) => Answer::empty(StatusCode::NO_CONTENT),
            Err(refusal) => refused(&refusal),
        }
    }

    fn provider_id(&self, number: u64, _: Uuid) -> String {
        number.to_string()
    }
}

impl MyPreferences {
    /// What the format puts in front of the subscriber's own steps.
    fn format_steps(&self, request: &Request) -> Vec<StepRef> {
        let standard = |name: &str, config: Value| StepRef {
            plugin: PluginRef::try_from(name.to_owned())
                .expect("a standard plugin has a valid name"),
            config: Json::from(&config),
        };
        let mut steps = Vec::new();
        if request.is_minimized {
            steps.push(standard("minimize", json!({"remove": ["/Data", "/PreviousData"]})));
        }
        if let Some(kind) = &request.alternate_id_type {
            let put = match self.alternate_id {
                AlternateIdShape::Member => "/AlternateId",
                AlternateIdShape::Value => "/ProfileId",
            };
            let typed = self.alternate_id == AlternateIdShape::Member;
            // Data are lists of profiles, or of parts of one, which have its id inside, too.
            let everywhere = ["ProfileId"];
            let config =
                json!({"kind": kind, "put": put, "everywhere": everywhere, "typed": typed});
            steps.push(standard("alternate-id", config));
        }
        steps
    }

    fn draft(&self, schema: &Schema, body: &[u8]) -> Result<(Draft, bool), Refusal> {
        let document = read_json(body, schema)?;
        let request = Request::deserialize(&document).expect("the schema has checked the body");
        let filters: Vec<Filter> =
            request.subscriptions.iter().map(|it| it.filter(&self.catalogue)).collect();
        check_repetitions(&filters)?;
        let locale = request.locale_id.as_deref().map(|it| self.catalogue.locale(it)).transpose();
        let locale =
            locale.map_err(|detail| Refusal::Invalid(vec![Violation::new("/LocaleId", detail)]))?;
        let url = Url::parse(&request.url).expect("the schema has checked the URL");
        // The page forbids the same URL with the same event in two subscriptions, whatever they select.
        let unique: Vec<String> = filters
            .iter()
            .map(|it| format!("{} {}", endpoint::identity(&url), it.types.as_str()))
            .collect();
        let draft = Draft {
            name: request.name.clone(),
            state: match request.state {
                RequestState::Active => State::Active,
                RequestState::Paused | RequestState::Inactive => State::Paused,
            },
            catch_up: request.catch_up_on_resume,
            locale,
            filters,
            format_steps: self.format_steps(&request),
            steps: None,
            secret: NewSecret::Made,
            document: json!({
                "Description": request.description,
                "Url": request.url,
                "LocaleId": request.locale_id,
                "State": request.state.as_str(),
                "IsMinimized": request.is_minimized,
                "AlternateIdType": request.alternate_id_type,
                "Subscriptions": document["Subscriptions"],
            }),
            unique,
            url,
            url_field: "/Url",
        };
        Ok((draft, request.is_active))
    }
}

/// A body that fits its schema.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    name: String,
    description: Option<String>,
    #[serde(alias = "LocaleID")]
    locale_id: Option<String>,
    url: String,
    #[serde(default)]
    state: RequestState,
    #[serde(default)]
    is_minimized: bool,
    #[serde(default = "yes")]
    is_active: bool,
    #[serde(default)]
    catch_up_on_resume: bool,
    alternate_id_type: Option<String>,
    subscriptions: Vec<RequestItem>,
}

fn yes() -> bool {
    true
}

/// "If you don't specify a state with your request, the default state of "Paused" will be applied."
#[derive(Clone, Copy, Default, Deserialize)]
enum RequestState {
    Active,
    #[default]
    Paused,
    Inactive,
}

impl RequestState {
    fn as_str(self) -> &'static str {
        match self {
            RequestState::Active => "Active",
            RequestState::Paused => "Paused",
            RequestState::Inactive => "Inactive",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RequestItem {
    event_type: String,
    #[serde(default)]
    filters: Vec<Value>,
    #[serde(default)]
    consent_types: Vec<Value>,
    #[serde(default)]
    contact_types: Vec<Value>,
    #[serde(default)]
    groups: Vec<Value>,
    #[serde(default)]
    custom_fields: Vec<Value>,
}

impl RequestItem {
    /// A wildcard beside named values wins; `ContactTypes` left out is `AllContactTypes` (both ours).
    fn filter(&self, catalogue: &Catalogue) -> Filter {
        let selectors = [
            ("filterid", &self.filters, "AllFilters"),
            ("consenttype", &self.consent_types, "AllConsents"),
            ("contacttype", &self.contact_types, "AllContactTypes"),
            ("group", &self.groups, "AllGroups"),
            ("customfield", &self.custom_fields, "AllCustomFields"),
        ];
        let mut attributes = vec![("format".to_owned(), vec![NAME.to_owned()])];
        for (attribute, values, all) in selectors {
            if !values.is_empty() && values.iter().all(|it| it != all) {
                // A filter id may be a number or a text.
                let number = |it: &Value| {
                    whole_number(it).map_or_else(|| it.to_string(), |it| it.to_string())
                };
                let text = |it: &Value| it.as_str().map_or_else(|| number(it), str::to_owned);
                attributes.push((attribute.to_owned(), values.iter().map(text).collect()));
            }
        }
        let types = TypePattern::try_from(catalogue.canonical(&self.event_type).to_owned())
            .expect("a type of the catalogue is a pattern");
        Filter { types, attributes }
    }
}

/// One event type twice in a request, whatever it selects (ours; between two subscriptions it is 409).
fn check_repetitions(filters: &[Filter]) -> Result<(), Refusal> {
    let mut seen = HashMap::new();
    let repeated = filters.iter().enumerate().filter_map(|(at, it)| {
        let first = *seen.entry(it.types.as_str()).or_insert(at);
        (first < at).then(|| {
            let field = format!("/Subscriptions/{at}/EventType");
            Violation::new(field, format!("is already at /Subscriptions/{first}"))
        })
    });
    let violations = Violation::first(repeated);
    if violations.is_empty() { Ok(()) } else { Err(Refusal::Invalid(violations)) }
}

fn settings(requests: Value, duration_s: Value) -> Value {
    json!({"Settings": {"MaxConcurrentRequests": requests, "Duration": duration_s}})
}

fn integer(text: &str) -> Result<String, Refusal> {
    let detail = "must be the number of a subscription";
    text.parse::<u64>()
        .map(|number| number.to_string())
        .map_err(|_| Refusal::Invalid(vec![Violation::new("subscriptionId", detail)]))
}

fn check_media_type(call: &Call) -> Result<(), Refusal> {
    let media_type = call.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    // The page lists the header as optional.
    if media_type.is_none_or(is_json_type) {
        Ok(())
    } else {
        Err(Refusal::WrongMediaType("application/json"))
    }
}

fn document(it: &Subscription, is_active: bool) -> Value {
    let own = &it.document;
    let state = match (it.state, own["State"].as_str()) {
        (State::Active, _) => "Active",
        (State::Paused, Some("Inactive")) | (State::Disabled, _) => "Inactive",
        (State::Paused, _) => "Paused",
    };
    json!({
        "Id": it.provider_id.parse::<u64>().unwrap_or_default(),
        "Name": it.name,
        "Description": own["Description"],
        "LocaleId": own["LocaleId"],
        "Url": own["Url"],
        "Subscriptions": own["Subscriptions"],
        "State": state,
        "IsMinimized": own["IsMinimized"],
        "IsActive": is_active,
        "CatchUpOnResume": it.catch_up,
        "AlternateIdType": own["AlternateIdType"],
    })
}

/// `{"Message": …}`, as on the page "Delete subscription".
fn refused(refusal: &Refusal) -> Answer {
    let message = match refusal {
        Refusal::MissingScope(scope) => {
            format!("your user has no permission for this: the token does not have `{scope}`")
        }
        Refusal::Conflict(what) => {
            let (url, event_type) = what.rsplit_once(' ').unwrap_or((what, ""));
            format!("another subscription delivers `{event_type}` to `{url}` already")
        }
        other => other.to_string(),
    };
    let mut answer = Answer::json(refusal.status(), &json!({"Message": message}));
    match refusal {
        Refusal::NoToken | Refusal::BadToken => {
            let challenge = "Bearer".to_owned();
            answer.headers.push((header::WWW_AUTHENTICATE, challenge));
        }
        Refusal::WrongMethod(allowed) => {
            answer.headers.push((header::ALLOW, (*allowed).to_owned()));
        }
        _ => {}
    }
    answer
}
