//! Calls of a router's API.

use anyhow::Context;
use http::{Method, header};
use serde_json::Value;

use crate::send::set_up_tls;

/// A caller with a token.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    pub(super) fn new(base: String, token: String) -> anyhow::Result<Client> {
        set_up_tls();
        Ok(Client { http: reqwest::Client::builder().no_proxy().build()?, base, token })
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Makes a call, which gives and takes one media type, and answers with the body.
    ///
    /// # Errors
    ///
    /// There is no answer, or one that is not a success.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        media_type: &'static str,
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<Value> {
        let bytes = self.ask(method, path, media_type, body).await?;
        Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// The same, and the body as it came.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        media_type: &'static str,
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<Vec<u8>> {
        let request = self
            .http
            .request(method.clone(), format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, media_type)
            .header(header::ACCEPT, media_type)
            .body(body);
        answer(request, &format!("{method} {path}")).await
    }

    /// Gets a file.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub(super) async fn bytes(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let request = self
            .http
            .get(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        answer(request, &format!("GET {path}")).await
    }
}

async fn answer(request: reqwest::RequestBuilder, what: &str) -> anyhow::Result<Vec<u8>> {
    let answer = request.send().await.with_context(|| what.to_owned())?;
    let status = answer.status();
    let bytes = answer.bytes().await?.to_vec();
    anyhow::ensure!(status.is_success(), "{what} answered {status}: {}", refusal(&bytes));
    Ok(bytes)
}

/// What an answer says for a person: the detail of a problem and its errors, or else all of it.
fn refusal(bytes: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
    let Some(detail) = problem["detail"].as_str() else {
        return String::from_utf8_lossy(bytes).into_owned();
    };
    let errors = problem["errors"].as_array().into_iter().flatten();
    let errors = errors.map(|it| {
        let of = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
        format!("\n  {} {}", of("field"), of("detail"))
    });
    detail.to_owned() + &errors.collect::<String>()
}
