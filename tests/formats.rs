//! The providers' APIs: each file is a conversation, run over a real socket.
//!
//! `tests/formats/<format>/*.json` holds requests and the answers that they get, to the letter. With
//! `UPDATE=1` in the environment, the answers are written anew: read the difference before it lands.

use std::collections::BTreeMap;
use std::path::Path;

use hookyard_nouns::clock::{now_ms, parse_rfc3339};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::harness::yard::TENANT;
use crate::harness::{Yard, root};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Conversation {
    about: String,
    cases: Vec<Case>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    request: Request,
    /// Values of the answer that later cases need, by name: what `{{name}}` stands for from then on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    keep: BTreeMap<String, String>,
    #[serde(default)]
    answer: Reply,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    path: String,
    /// `none`, `wrong`, `expired`, `reader`, `other`, `scopes:` with scopes, or, when left out, one that
    /// may do everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    headers: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    /// A body that is sent as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    form: Option<String>,
    /// A body that is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    /// A body of so many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
}

impl Request {
    fn body(&self) -> Vec<u8> {
        let hex = |text: &String| {
            let digits = text.as_bytes().chunks(2).map(|it| std::str::from_utf8(it).unwrap());
            digits.map(|it| u8::from_str_radix(it, 16).unwrap()).collect()
        };
        let json = || self.body.as_ref().map(|it| it.to_string().into_bytes());
        let text = || self.text.clone().or_else(|| self.form.clone()).map(String::into_bytes);
        let bytes = || self.bytes.map(|count| vec![b'x'; count]);
        let body = json().or_else(text).or_else(|| self.hex.as_ref().map(hex)).or_else(bytes);
        body.unwrap_or_default()
    }

    fn content_type(&self) -> Option<&'static str> {
        match self {
            _ if self.headers.contains_key("content-type") => None,
            Request { body: Some(_), .. } => Some("application/json"),
            Request { form: Some(_), .. } => Some("application/x-www-form-urlencoded"),
            _ => None,
        }
    }
}

#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    status: u16,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    headers: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    body: Value,
}

/// The headers that are part of an answer, where they are there.
const HEADERS: [&str; 8] = [
    "content-type",
    "www-authenticate",
    "allow",
    "cache-control",
    "location",
    "x-created",
    "x-location",
    "x-deleted",
];

/// What stands for what.
#[derive(Default)]
struct Kept(BTreeMap<String, String>);

impl Kept {
    fn put(&self, text: &str) -> String {
        let replace = |text: String, (name, value): (&String, &String)| {
            text.replace(&format!("{{{{{name}}}}}"), value)
        };
        self.0.iter().fold(text.to_owned(), replace)
    }

    fn take(&self, text: &str) -> String {
        let replace = |text: String, (name, value): (&String, &String)| {
            text.replace(value, &format!("{{{{{name}}}}}"))
        };
        self.0.iter().fold(text.to_owned(), replace)
    }
}

/// What has just happened, did so at `{{now}}`.
fn mask_times(value: &mut Value) {
    match value {
        Value::String(text) => {
            let age_ms = parse_rfc3339(text).map(|at_ms| now_ms() - at_ms);
            if age_ms.is_some_and(|it| (0..600_000).contains(&it)) {
                "{{now}}".clone_into(text);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_times),
        Value::Object(members) => members.values_mut().for_each(mask_times),
        _ => {}
    }
}

async fn run(format: &str) -> usize {
    let mut count = 0;
    let mut files: Vec<_> = std::fs::read_dir(root().join("tests/formats").join(format))
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        count += converse(format, &file).await;
    }
    count
}

async fn token(yard: &Yard, kind: Option<&str>) -> Option<String> {
    let of = async |tenant, scopes: &str| Some(yard.token(Some(tenant), scopes).await);
    match kind {
        None => yard.client.token().map(str::to_owned),
        Some("none") => None,
        Some("wrong") => Some("hky_wrong".to_owned()),
        Some("expired") => Some(yard.client_credentials(Some(TENANT), "admin", Some(0)).await.1),
        Some("reader") => of(TENANT, "subscriptions:read").await,
        Some("other") => of("other", "admin").await,
        Some(scopes) => {
            let scopes = scopes.strip_prefix("scopes:").expect("a kind of token");
            of(TENANT, &scopes.replace(',', " ")).await
        }
    }
}

async fn converse(format: &str, file: &Path) -> usize {
    let text = std::fs::read_to_string(file).unwrap();
    let mut conversation: Conversation = serde_json::from_str(&text).unwrap();
    let yard = Yard::start_with(|it| {
        it.egress_http = Some(false);
        it.egress_allow = Some(vec![]);
    })
    .await;
    yard.token(Some("other"), "admin").await;
    let update = std::env::var_os("UPDATE").is_some();
    let mut kept = Kept::default();
    kept.0.insert("base".to_owned(), yard.client.url(""));
    let mut different = Vec::new();
    for case in &mut conversation.cases {
        let it = &case.request;
        let token = token(&yard, it.token.as_deref()).await;
        kept.0.insert("token".to_owned(), token.clone().unwrap_or_default());
        // There the key is in the body, and nowhere else.
        let client = yard.client.with_token(token.as_deref().filter(|_| format != "vision6"));
        let mut headers: Vec<(&str, &str)> = it
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();
        headers.extend(it.content_type().map(|media_type| ("content-type", media_type)));
        let body = match String::from_utf8(it.body()) {
            Ok(text) => kept.put(&text).into_bytes(),
            Err(bytes) => bytes.into_bytes(),
        };
        let method: Method = it.method.parse().unwrap();
        let answer = client.call(method, &kept.put(&it.path), &headers, body).await;
        for (name, pointer) in &case.keep {
            let value = answer.body.pointer(pointer).and_then(Value::as_str);
            let value = value.unwrap_or_else(|| panic!("{}: no {pointer}", case.case));
            kept.0.insert(name.clone(), value.to_owned());
        }
        kept.0.remove("token");
        let told = HEADERS.into_iter().filter(|name| answer.headers.contains_key(*name));
        let mut body: Value = serde_json::from_str(&kept.take(&answer.body.to_string())).unwrap();
        mask_times(&mut body);
        let reply = Reply {
            status: answer.status,
            headers: told
                .map(|name| (name.to_owned(), kept.take(answer.header(name)).into()))
                .collect(),
            body,
        };
        if reply != case.answer {
            let was = serde_json::to_string(&case.answer).unwrap();
            let is = serde_json::to_string(&reply).unwrap();
            different.push(format!("{}\n  expected {was}\n  answered {is}", case.case));
        }
        if update {
            case.answer = reply;
        }
    }
    if update {
        let text = serde_json::to_string_pretty(&conversation).unwrap();
        std::fs::write(file, text + "\n").unwrap();
        different.iter().for_each(|it| println!("{it}"));
    } else {
        assert!(different.is_empty(), "{}: {}", file.display(), different.join("\n"));
    }
    conversation.cases.len()
}

async fn speaks_as_documented(format: &str) {
    let count = run(format).await;
    println!("{format}: {count} conformance cases");
    assert!(count >= 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn mypreferences_speaks_as_documented() {
    speaks_as_documented("mypreferences").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kajabi_speaks_as_documented() {
    speaks_as_documented("kajabi").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vision6_speaks_as_documented() {
    speaks_as_documented("vision6").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copernica_speaks_as_documented() {
    speaks_as_documented("copernica").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vonage_speaks_as_documented() {
    speaks_as_documented("vonage").await;
}
