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
        let request = self
            .http
            .request(method.clone(), format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, media_type)
            .header(header::ACCEPT, media_type)
            .body(body);
        let answer = request.send().await.with_context(|| format!("{method} {path}"))?;
        let status = answer.status();
        let text = answer.text().await?;
        anyhow::ensure!(status.is_success(), "{method} {path} answered {status}: {text}");
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}
