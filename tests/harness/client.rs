//! Calls of the API.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::time::Instant;

use super::PATIENCE;

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// What the API answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    /// The body, where the status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    /// The fields that a problem names.
    pub(crate) fn fields(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map_or(&[][..], Vec::as_slice);
        errors.iter().map(|it| it["field"].as_str().unwrap()).collect()
    }
}

impl Client {
    pub(crate) fn new(base: String, token: Option<String>) -> Client {
        hookyard::send::set_up_tls();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Client { http, base, token }
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) fn with_token(&self, token: Option<&str>) -> Client {
        Client { token: token.map(str::to_owned), ..self.clone() }
    }

    /// Any call. A header that is given here goes before the usual one.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        self.try_call(method, path, headers, body).await.unwrap()
    }

    /// Any call, which may find nobody.
    pub(crate) async fn try_call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Result<Answer> {
        let mut all = HeaderMap::new();
        if let Some(token) = &self.token {
            all.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            all.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let url = format!("{}{path}", self.base);
        let answer = self.http.request(method, url).headers(all).body(body).send().await?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, headers, body, text })
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], "").await
    }

    pub(crate) async fn json(&self, method: Method, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.call(method, path, &headers, body.to_string()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.json(Method::POST, path, body).await
    }

    /// Publishes in structured mode.
    pub(crate) async fn publish(&self, event: &Value) -> Answer {
        self.try_publish(event).await.unwrap()
    }

    /// The same, of a router that may die before it answers.
    pub(crate) async fn try_publish(&self, event: &Value) -> reqwest::Result<Answer> {
        let headers = [("content-type", "application/cloudevents+json")];
        self.try_call(Method::POST, "/v1/events", &headers, event.to_string()).await
    }

    /// The deliveries that a query finds, newest first, from all pages.
    pub(crate) async fn deliveries(&self, query: &str) -> Vec<Value> {
        let mut found = Vec::new();
        let mut before = String::new();
        loop {
            let path = format!("/v1/deliveries?limit=500&{query}{before}");
            let mut page = self.get(&path).await.expect(200);
            found.append(page["deliveries"].as_array_mut().unwrap());
            match page["next"].as_str() {
                Some(next) => before = format!("&before={next}"),
                None => return found,
            }
        }
    }

    /// Waits until a query finds so many deliveries.
    #[track_caller]
    pub(crate) fn await_deliveries(
        &self,
        query: &str,
        count: usize,
    ) -> impl Future<Output = Vec<Value>> {
        let caller = std::panic::Location::caller();
        async move {
            let until = Instant::now() + PATIENCE;
            loop {
                let found = self.deliveries(query).await;
                if found.len() == count {
                    return found;
                }
                let late = Instant::now() > until;
                let (there, one) = (found.len(), found.first());
                assert!(
                    !late,
                    "{count} of `{query}` are wanted at {caller}, there are {there}: {one:#?}",
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// The headers and the bytes of a file.
    pub(crate) async fn download(&self, path: &str) -> (HeaderMap, Vec<u8>) {
        let request = self.http.get(self.url(path)).bearer_auth(self.token.as_deref().unwrap());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        (answer.headers().clone(), answer.bytes().await.unwrap().to_vec())
    }

    pub(crate) async fn upload(&self, name: &str, file: impl Into<reqwest::Body>) -> Answer {
        let headers = [("content-type", "application/wasm")];
        self.call(Method::POST, &format!("/v1/plugins/{name}/versions"), &headers, file).await
    }
}
