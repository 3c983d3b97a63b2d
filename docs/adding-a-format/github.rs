//! The example of the guide: hooks in the style of GitHub's REST API, for pushes and releases.

use hookyard::formats::{Answer, Api, Call, Catalogue, Done, Format, Operation, Writer, read_json};
use hookyard::schemas::{Endpoints, Schema};
use hookyard::sign::{Unsigned, hex, hmac_sha256};
use hookyard_nouns::event::{Content, Data, Event};
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::rendering::{Body, Output, Rendering, TooLarge};
use hookyard_nouns::subscription::{Draft, Filter, NewSecret, State, Subscription, TypePattern};
use http::{HeaderName, Method, StatusCode};
use serde_json::{Value, json};

const ALL: &str = "/repos/{owner}/{repo}/hooks";
const ONE: &str = "/repos/{owner}/{repo}/hooks/{id}";
const DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");
const SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");

pub(crate) struct GitHub {
    catalogue: Catalogue,
    create: Schema,
}

impl GitHub {
    pub(crate) fn new(endpoints: Endpoints) -> GitHub {
        GitHub {
            catalogue: Catalogue::ours(
                include_str!("schemas/catalogue.json"),
                include_str!("schemas/data.json"),
            ),
            create: Schema::ours(include_str!("schemas/create.json"), endpoints),
        }
    }
}

impl Format for GitHub {
    fn name(&self) -> &'static str {
        "github"
    }

    fn catalogue(&self) -> Option<&Catalogue> {
        Some(&self.catalogue)
    }

    fn encode(
        &self,
        _: &Event,
        content: &Content,
        _: &Rendering,
        out: Output,
    ) -> Result<Body, TooLarge> {
        let mut body = Writer::new(out, 1_024);
        body.text("event", &content.attributes.event_type);
        if let Some(Data::Json(data)) = &content.data {
            for (name, value) in data.members().into_iter().flatten() {
                body.raw(&name, value.bytes());
            }
        }
        body.into_body("application/json")
    }

    fn sign(&self, it: &Unsigned<'_>) -> Vec<(HeaderName, String)> {
        let mut headers = vec![(DELIVERY, it.delivery.to_string())];
        if let Some(secret) = it.secrets.first() {
            let mac = hmac_sha256(&secret.key, [it.body]);
            headers.push((SIGNATURE, format!("sha256={}", hex(&mac))));
        }
        headers
    }

    fn api(&self) -> Option<&dyn Api> {
        Some(self)
    }
}

impl Api for GitHub {
    fn routes(&self) -> &'static [&'static str] {
        &[ALL, ONE]
    }

    fn operation(&self, call: &Call) -> Result<Operation, Refusal> {
        let tenant = call.parameters.get("owner").cloned();
        let id = call.parameters.get("id").cloned().unwrap_or_default();
        match (call.route, &call.method) {
            (ALL, &Method::POST) => {
                let hook = read_json(&call.body, &self.create)?;
                let repository = call.parameters.get("repo").map_or("", String::as_str);
                Ok(Operation::Create { tenant, draft: Box::new(draft(&hook, repository)) })
            }
            (ALL, &Method::GET) => Ok(Operation::List { tenant }),
            (ALL, _) => Err(Refusal::WrongMethod("GET, POST")),
            (_, &Method::GET) => Ok(Operation::Read { tenant, id }),
            (_, &Method::DELETE) => Ok(Operation::Delete { tenant, id }),
            (_, _) => Err(Refusal::WrongMethod("GET, DELETE")),
        }
    }

    fn answer(&self, _: &Call, outcome: Result<Done, Refusal>) -> Answer {
        match outcome {
            Ok(Done::Created(it)) => Answer::json(StatusCode::CREATED, &hook(&it)),
            Ok(Done::Read(it)) => Answer::json(StatusCode::OK, &hook(&it)),
            Ok(Done::Listed(all)) => Answer::json(StatusCode::OK, &all.iter().map(hook).collect()),
            Ok(_) => Answer::empty(StatusCode::NO_CONTENT),
            Err(refusal) => {
                Answer::json(refusal.status(), &json!({"message": refusal.to_string()}))
            }
        }
    }

    fn provider_id(&self, number: u64, _: uuid::Uuid) -> String {
        number.to_string()
    }
}

fn draft(hook: &Value, repository: &str) -> Draft {
    let events: Vec<&str> =
        hook["events"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let url = hook["config"]["url"].as_str().unwrap_or_default();
    let secret = hook["config"]["secret"].as_str();
    let filters = events.iter().map(|event| Filter {
        types: TypePattern::try_from((*event).to_owned()).expect("the schema knows the events"),
        attributes: vec![
            ("format".to_owned(), vec!["github".to_owned()]),
            ("repository".to_owned(), vec![repository.to_owned()]),
        ],
    });
    let document = json!({"events": events, "config": {"url": url}});
    let url = url.parse().expect("the schema has checked the URL");
    Draft {
        state: if hook["active"] == false { State::Paused } else { State::Active },
        secret: secret.map_or(NewSecret::None, |it| NewSecret::Given(it.as_bytes().to_vec())),
        ..Draft::new("web", url, "/config/url", filters.collect(), document)
    }
}

fn hook(it: &Subscription) -> Value {
    json!({
        "id": it.provider_id.parse::<u64>().unwrap_or_default(),
        "name": it.name,
        "active": it.state == State::Active,
        "events": it.document["events"],
        "config": it.document["config"],
    })
}
