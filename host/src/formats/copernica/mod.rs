//! Copernica: the webhooks of its REST API v4.
//!
//! Facts are from the provider's documentation of webhooks, their security and the REST API, and from
//! its library for HTTP signatures. Where these are silent, the convention is ours and says so.

mod api;
mod form;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hookyard_nouns::clock;
use hookyard_nouns::event::{Content, Data, Event};
use hookyard_nouns::json::Json;
use hookyard_nouns::rendering::{Body, Output, Rendering, TooLarge};
use http::{HeaderName, header};
use serde::Deserialize;
use serde_json::Value;

use super::{Api, Catalogue, Choices, Format, Proof};
use crate::schemas::{self, Schema};
use crate::sign::{self, Unsigned};
use form::Form;

const NAME: &str = "copernica";
const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";
const COPERNICA_ID: HeaderName = HeaderName::from_static("x-copernica-id");
const DIGEST: HeaderName = HeaderName::from_static("digest");
const NONCE: HeaderName = HeaderName::from_static("x-nonce");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// The variables of a delivery in the order of the provider's tables, without those that come from the
/// event itself.
const OF_PROFILE: [&str; 8] = [
    "profile",
    "subprofile",
    "database",
    "collection",
    "created",
    "modified",
    "fields",
    "interests",
];
const OF_EMAIL: [&str; 13] = [
    "recipient",
    "ip",
    "useragent",
    "referer",
    "original",
    "envelope",
    "mime",
    "action",
    "state",
    "code",
    "extended",
    "description",
    "tags",
];

/// How the interests of a profile are written. The page gives the rule for a list, and its example
/// shows a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum InterestShape {
    /// `interests[]=blue`
    List,
    /// `interests[blue]=1`
    Map,
}

/// The format `copernica`, with its schemas.
pub struct Copernica {
    catalogue: Catalogue,
    create: Schema,
    replace: Schema,
    interests: InterestShape,
    validation: bool,
    key_domain: String,
}

impl Copernica {
    pub fn new(choices: &Choices) -> Copernica {
        let schema = |name: &str| {
            Schema::ours(schemas::file(&format!("{NAME}/{name}.json")), choices.endpoints)
        };
        Copernica {
            catalogue: Catalogue::load(NAME),
            create: schema("create"),
            replace: schema("replace"),
            interests: choices.interests,
            validation: choices.copernica_validation,
            key_domain: choices.copernica_key_domain.clone(),
        }
    }

    fn add(&self, form: &mut Form, name: &str, value: &Json) {
        if name == "interests" {
            self.add_interests(form, value);
        } else {
            form.add_json(name, value);
        }
    }

    /// They come as a list of those that are on, or as an object that says of each whether it is.
    fn add_interests(&self, form: &mut Form, value: &Json) {
        let listed = value.items().into_iter().flatten();
        let listed = listed.filter_map(|it| Some((it.read::<String>()?, true)));
        let mapped = value.members().into_iter().flatten();
        let mapped =
            mapped.map(|(name, it)| (name.into_owned(), matches!(it.text(), "1" | "true")));
        for (interest, is_on) in listed.chain(mapped) {
            match self.interests {
                InterestShape::List if is_on => form.add("interests[]", &interest),
                InterestShape::List => {}
                InterestShape::Map => {
                    form.add(&format!("interests[{interest}]"), if is_on { "1" } else { "0" });
                }
            }
        }
    }
}

impl Format for Copernica {
    fn name(&self) -> &'static str {
        NAME
    }

    fn catalogue(&self) -> Option<&Catalogue> {
        Some(&self.catalogue)
    }

    /// The variables of the provider's tables. `id` is in all examples and in some tables: for an
    /// email it is the id of the message, which is the event's subject; for a profile it is that of
    /// the event (ours). Times are in UTC (ours).
    fn encode(
        &self,
        event: &Event,
        content: &Content,
        _: &Rendering,
        out: Output,
    ) -> Result<Body, TooLarge> {
        let it = &content.attributes;
        let at_ms = it.time.as_deref().and_then(clock::parse_rfc3339);
        let at_ms = at_ms.unwrap_or(event.accepted_at_ms);
        let is_email = self.catalogue.get(&it.event_type).is_some_and(|it| it.entity == "email");
        let mut form = Form::new(out);
        if is_email {
            form.add("id", it.subject.as_deref().unwrap_or(&it.id));
        }
        form.add("type", &it.event_type);
        let data = match &content.data {
            Some(Data::Json(json)) => Some(json),
            Some(Data::Text(_) | Data::Binary(_)) | None => None,
        };
        if let Some(parameters) = data.and_then(|it| it.get("/parameters")) {
            form.add_json("parameters", &parameters);
        }
        form.add("timestamp", &clock::date_and_time(at_ms));
        form.add("time", &at_ms.div_euclid(1_000).to_string());
        let order = if is_email { &OF_EMAIL[..] } else { &OF_PROFILE };
        for name in order {
            if let Some(value) = data.and_then(|it| it.get(&format!("/{name}"))) {
                self.add(&mut form, name, &value);
            }
        }
        // What a plugin has added.
        for (name, value) in data.and_then(Json::members).into_iter().flatten() {
            if name != "parameters" && !order.contains(&&*name) {
                form.add_json(&name, &value);
            }
        }
        if !is_email {
            form.add("id", &it.id);
        }
        form.finish().into_body(CONTENT_TYPE)
    }

    /// An HTTP signature (draft-cavage-http-signatures) with RSA and SHA-256. The names that are signed
    /// and the digest's algorithm are in lower case, as the provider's own verifier wants them.
    fn sign(&self, it: &Unsigned<'_>) -> Vec<(HeaderName, String)> {
        let key = it.key.expect("the format has a key that changes each month");
        let date = clock::http_date(it.now_ms);
        let account = format!("account-{}", it.tenant);
        let digest = format!("sha-256={}", BASE64_STANDARD.encode(sign::sha256(it.body)));
        let nonce = BASE64_STANDARD.encode(it.nonce);
        let target = &it.url[url::Position::BeforePath..url::Position::AfterQuery];
        let host = &it.url[url::Position::BeforeHost..url::Position::AfterPort];
        let length = it.body.len().to_string();
        let signed = [
            ("(request-target)", &*format!("post {target}")),
            ("host", host),
            ("date", &date),
            ("content-length", &length),
            ("content-type", it.content_type),
            ("x-copernica-id", &account),
            ("digest", &digest),
            ("x-nonce", &nonce),
        ];
        let lines: Vec<_> = signed.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let names: Vec<_> = signed.iter().map(|(name, _)| *name).collect();
        let signature = format!(
            r#"keyId="{}._domainkey.{}",algorithm="rsa-sha256",headers="{}",signature="{}""#,
            key.selector,
            self.key_domain,
            names.join(" "),
            BASE64_STANDARD.encode(key.sign(lines.join("\n").as_bytes())),
        );
        vec![
            (header::DATE, date),
            (COPERNICA_ID, account),
            (DIGEST, digest),
            (NONCE, nonce),
            (SIGNATURE, signature),
        ]
    }

    fn has_rotating_key(&self) -> bool {
        true
    }

    /// "An HTTP(S) POST call."
    fn takes_http(&self) -> bool {
        true
    }

    fn proof(&self, _: &Value) -> Proof {
        if self.validation { Proof::DnsRecord } else { Proof::None }
    }

    /// Of an email, the subject is the message.
    fn profile(&self, content: &Content) -> Option<String> {
        match &content.data {
            Some(Data::Json(json)) => json.get("/profile").map(|it| it.text().to_owned()),
            Some(Data::Text(_) | Data::Binary(_)) | None => None,
        }
    }

    fn api(&self) -> Option<&dyn Api> {
        Some(self)
    }
}
