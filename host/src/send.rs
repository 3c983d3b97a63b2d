//! Makes one HTTP attempt. The only module that sends requests.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use reqwest::Response;
use reqwest::redirect::Policy;
use url::Url;

use crate::clock;
use crate::delivery::Reason;
use crate::egress::{Denied, Egress, Resolver};

/// How much of an answer is kept.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;
const CONNECT: Duration = Duration::from_secs(5);
/// How long an endpoint may think about whether it wants deliveries.
const QUESTION: Duration = Duration::from_secs(10);
/// Connections to an endpoint that are kept for the next request.
const IDLE_CONNECTIONS_MAX: usize = 32;
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
/// What ends within this time has not been thought about.
const AT_ONCE: Duration = Duration::from_millis(100);
const USER_AGENT: &str = concat!("Hookyard/", env!("CARGO_PKG_VERSION"));

/// Says what TLS is made of, for every client of this process. Needed once, and harmless again.
pub fn set_up_tls() {
    // The first to set it wins; every one of us sets the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Connections to endpoints.
pub struct Sender {
    client: reqwest::Client,
    egress: Arc<Egress>,
}

/// A request for a delivery.
#[derive(Debug)]
pub struct Request {
    pub url: Url,
    pub content_type: &'static str,
    /// What signs it, and what else the format asks for.
    pub headers: Vec<(HeaderName, String)>,
    pub body: Bytes,
    pub timeout: Duration,
}

/// What came of a request. An endpoint that fails is a normal day.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Answered {
        status: u16,
        /// How long the endpoint asks us to wait.
        retry_after: Option<Duration>,
        /// The first [`ANSWER_BYTES_MAX`] of the body.
        answer: Vec<u8>,
    },
    /// There was no answer.
    Unreachable(Reason),
    /// Nothing was sent, and that is not the endpoint's fault.
    NotSent(Reason),
}

/// What an endpoint says when it is asked whether it wants deliveries.
#[derive(Debug, Default)]
pub struct Consent {
    pub allowed_origin: Option<String>,
    pub allowed_rate: Option<String>,
}

impl Sender {
    /// # Errors
    ///
    /// TLS cannot be set up on this machine.
    pub fn new(egress: Arc<Egress>) -> anyhow::Result<Sender> {
        set_up_tls();
        let client = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .dns_resolver(Arc::new(Resolver(Arc::clone(&egress))))
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_CONNECTION)
            .tcp_nodelay(true)
            .build()?;
        Ok(Sender { client, egress })
    }

    /// Makes the request, and answers with how long it took. Where the connection ends at once, it is
    /// made a second time: that is how a connection looks that was kept and that the endpoint has
    /// closed meanwhile.
    pub async fn send(&self, request: Request) -> (Outcome, Duration) {
        let start = Instant::now();
        let mut result = self.attempt(&request).await;
        if result.as_ref().is_err_and(was_closed) && start.elapsed() < AT_ONCE {
            result = self.attempt(&request).await;
        }
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(err) => Outcome::Unreachable(explain(&err)),
        };
        (outcome, start.elapsed())
    }

    /// Asks an endpoint whether it wants deliveries from us (CloudEvents 1.0.2, HTTP 1.1 Web Hooks,
    /// section 4).
    ///
    /// # Errors
    ///
    /// There was no answer; the text says why.
    pub async fn ask_for_consent(&self, url: &Url, origin: &str) -> Result<Consent, String> {
        let origin = HeaderValue::try_from(origin).map_err(|err| err.to_string())?;
        let request = self
            .client
            .request(Method::OPTIONS, url.clone())
            .header("WebHook-Request-Origin", origin)
            .timeout(QUESTION);
        let response = self.ask(url, request).await?;
        if !response.status().is_success() {
            return Ok(Consent::default());
        }
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
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
    pub async fn ask_for_echo(&self, url: &Url, code: &str) -> Result<String, String> {
        let request = self
            .client
            .post(url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(serde_json::json!({"ValidationCode": code}).to_string())
            .timeout(QUESTION);
        let mut response = self.ask(url, request).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("answers `ValidationCode` with {}", response.status()));
        }
        let answer: serde_json::Value =
            serde_json::from_slice(&head(&mut response).await).unwrap_or_default();
        Ok(answer["ValidationResponse"].as_str().unwrap_or_default().to_owned())
    }

    async fn ask(&self, url: &Url, request: reqwest::RequestBuilder) -> Result<Response, String> {
        self.egress.check_literal(url).map_err(|denied| denied.to_string())?;
        request.send().await.map_err(|err| {
            let reason = explain(&err);
            format!("cannot be asked: {}", reason.detail.unwrap_or(reason.code))
        })
    }

    async fn attempt(&self, it: &Request) -> Result<Outcome, reqwest::Error> {
        // An address in the URL is never resolved, so the resolver does not see it.
        if let Err(denied) = self.egress.check_literal(&it.url) {
            return Ok(Outcome::Unreachable(egress_denied(&denied)));
        }
        let mut headers = HeaderMap::with_capacity(it.headers.len() + 1);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(it.content_type));
        for (name, value) in &it.headers {
            let value = HeaderValue::try_from(value).expect("our header values are visible ASCII");
            headers.insert(name, value);
        }
        let request = self.client.post(it.url.clone()).headers(headers);
        let request = request.body(it.body.clone()).timeout(it.timeout);
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|it| parse_retry_after(it, clock::now_ms()));
        // The status decides, however the answer goes on.
        let answer = head(&mut response).await;
        Ok(Outcome::Answered { status, retry_after, answer })
    }
}

/// The first [`ANSWER_BYTES_MAX`] of an answer. One that breaks off is kept as far as it came, and one
/// that is too long is not read on, though its connection is lost.
async fn head(response: &mut Response) -> Vec<u8> {
    let mut answer = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_BYTES_MAX - answer.len();
        answer.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if answer.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    answer
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn parse_retry_after(value: &HeaderValue, now_ms: i64) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let at = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    let now = Duration::from_millis(now_ms.unsigned_abs());
    Some(at.saturating_sub(now))
}

const RESET: &str = "reset";

/// Says why there was no answer, in words that help whoever runs the endpoint.
fn explain(err: &reqwest::Error) -> Reason {
    let causes = causes(err);
    for cause in causes.clone() {
        if let Some(denied) = cause.downcast_ref::<Denied>() {
            return egress_denied(denied);
        }
        if let Some(http) = cause.downcast_ref::<hyper::Error>() {
            if http.is_incomplete_message() {
                return closed_early();
            }
            if http.is_parse() {
                return Reason::new(
                    "not-http",
                    format!("the endpoint does not speak HTTP: {http}"),
                );
            }
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Reason::new("tls", format!("the TLS handshake failed: {tls}"));
        }
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && let Some(reason) = explain_io(io)
        {
            return reason;
        }
    }
    if err.is_timeout() {
        return if err.is_connect() {
            Reason::new("connect-timeout", "the endpoint did not take the connection in time")
        } else {
            Reason::new("timeout", "the endpoint did not answer in time")
        };
    }
    let last = causes.last().map_or_else(|| err.to_string(), ToString::to_string);
    let code = if err.is_connect() { "connect" } else { "broken-answer" };
    Reason::new(code, last)
}

fn causes(err: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> + Clone {
    std::iter::successors(Some(err as &(dyn Error + 'static)), |&err| cause(err))
}

/// Whether the endpoint ended a connection that it had taken.
fn was_closed(err: &reqwest::Error) -> bool {
    !err.is_connect() && explain(err).code == RESET
}

/// What an I/O error is made of is not its source, but its source's source is.
fn cause<'a>(err: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match err.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => err.source(),
    }
}

fn egress_denied(denied: &Denied) -> Reason {
    Reason::new("egress-denied", format!("the endpoint {denied}"))
}

fn closed_early() -> Reason {
    Reason::new(RESET, "the endpoint closed the connection before it answered")
}

fn explain_io(err: &io::Error) -> Option<Reason> {
    Some(match err.kind() {
        io::ErrorKind::ConnectionRefused => {
            Reason::new("connect-refused", "nothing listens at the endpoint's address")
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => closed_early(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Reason::new("unreachable", "there is no way to the endpoint's network")
        }
        io::ErrorKind::NotFound => Reason::new("dns", "the endpoint's name has no address"),
        _ if err.to_string().contains("failed to lookup address") => {
            Reason::new("dns", "the endpoint's name cannot be resolved")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now_ms = 784_111_777_000;
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let parsed = parse_retry_after(&HeaderValue::from_static(text), now_ms);
            assert_eq!(parsed, seconds.map(Duration::from_secs), "{text}");
        }
    }
}
