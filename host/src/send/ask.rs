//! Questions to an endpoint, before it gets the first delivery.

use std::time::Duration;

use bytes::Bytes;
use hookyard_nouns::event::Tenant;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use url::Url;

use super::exchange::Answer;
use super::{Sender, our_request};

/// Where deliveries come from (CloudEvents 1.0.2, HTTP 1.1 Web Hooks, section 4.1.2).
pub(crate) const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
/// How long an endpoint may think about whether it wants deliveries.
const QUESTION: Duration = Duration::from_secs(10);

/// What an endpoint says when it is asked whether it wants deliveries.
#[derive(Debug, Default)]
pub struct Consent {
    pub allowed_origin: Option<String>,
    pub allowed_rate: Option<String>,
}

impl Sender {
    /// Asks an endpoint whether it wants deliveries from us (CloudEvents 1.0.2, HTTP 1.1 Web Hooks,
    /// section 4).
    ///
    /// # Errors
    ///
    /// There was no answer; the text says why.
    pub async fn ask_for_consent(
        &self,
        tenant: &Tenant,
        url: &Url,
        origin: &str,
    ) -> Result<Consent, String> {
        let origin = HeaderValue::try_from(origin).map_err(|err| err.to_string())?;
        let header = (REQUEST_ORIGIN, origin);
        let answer = self.ask(tenant, url, Method::OPTIONS, header, Bytes::new()).await?;
        let header =
            |name: &str| Some(answer.response.headers().get(name)?.to_str().ok()?.to_owned());
        if !answer.response.status().is_success() {
            return Ok(Consent::default());
        }
        Ok(Consent {
            allowed_origin: header("WebHook-Allowed-Origin"),
            allowed_rate: header("WebHook-Allowed-Rate"),
        })
    }

    /// Sends an endpoint a code, and answers what it answers as `ValidationResponse`.
    ///
    /// # Errors
    ///
    /// There was no answer, or another one; the text says why.
    pub async fn ask_for_echo(
        &self,
        tenant: &Tenant,
        url: &Url,
        code: &str,
    ) -> Result<String, String> {
        let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = serde_json::json!({"ValidationCode": code}).to_string();
        let answer = self.ask(tenant, url, Method::POST, json, body.into()).await?;
        let status = answer.response.status();
        if status != StatusCode::OK {
            return Err(format!("answers `ValidationCode` with {status}"));
        }
        let answer = self.body(answer).await;
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
        Ok(answer["ValidationResponse"].as_str().unwrap_or_default().to_owned())
    }

    async fn ask(
        &self,
        tenant: &Tenant,
        url: &Url,
        method: Method,
        (name, value): (HeaderName, HeaderValue),
        body: Bytes,
    ) -> Result<Answer, String> {
        let uri = Uri::try_from(url.as_str()).map_err(|err| err.to_string())?;
        let make = || {
            let mut request = our_request(method.clone(), uri.clone(), body.clone());
            request.headers_mut().insert(name.clone(), value.clone());
            request
        };
        let exchange = self.exchange(make, &Some(tenant.clone()), QUESTION).await;
        exchange.answered.map_err(|failure| {
            let reason = failure.reason;
            format!("cannot be asked: {}", reason.detail.unwrap_or(reason.code))
        })
    }
}
