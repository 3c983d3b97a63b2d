//! Makes one HTTP attempt. The only module that sends requests to endpoints.

mod connect;
mod explain;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::time::{Instant, timeout_at};
use url::{Position, Url};

use crate::clock;
use crate::delivery::Reason;
use crate::egress::Egress;
use connect::{Connector, OPENING, Opening, Phase, Progress};

/// How much of an answer is kept.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How many headers an answer may have, and how large its head may be.
const HEADERS_MAX: usize = 100;
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long an endpoint may think about whether it wants deliveries.
const QUESTION: Duration = Duration::from_secs(10);
/// Connections to an endpoint that are kept for the next request.
const IDLE_CONNECTIONS_MAX: usize = 32;
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
/// A connection that many requests share is asked so often whether it is alive, and has so long to say
/// so: otherwise, one that is dead would take each of them for as long as there are any.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);
/// What ends within this time has not been thought about.
const AT_ONCE: Duration = Duration::from_millis(100);
const USER_AGENT: &str = concat!("Hookyard/", env!("CARGO_PKG_VERSION"));
const ACCEPT: &str = "*/*";

/// Says what TLS is made of, for every client of this process. Needed once, and harmless again.
pub fn set_up_tls() {
    // The first to set it wins; every one of us sets the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Connections to endpoints.
pub struct Sender {
    client: Client<Connector, Full<Bytes>>,
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

/// A request that was made.
#[derive(Debug)]
pub struct Sent {
    pub outcome: Outcome,
    pub took: Duration,
    pub phases: Phases,
    /// What was sent, but for what would let somebody in.
    pub headers: Vec<(HeaderName, String)>,
}

/// How long each phase of a request took, the one in which it failed included. There are none that it
/// did not come to or did not need: a kept connection takes neither of the first three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    pub dns: Option<Duration>,
    pub connect: Option<Duration>,
    pub tls: Option<Duration>,
    /// From when the connection got the request until the head of the answer.
    pub first_byte: Option<Duration>,
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

impl Sent {
    /// What there is to say where no request was made.
    pub fn nothing(outcome: Outcome) -> Sent {
        let (took, phases) = (Duration::ZERO, Phases::default());
        Sent { outcome, took, phases, headers: Vec::new() }
    }
}

/// A request on its way, and back or not.
struct Exchange {
    answered: Result<Response<Incoming>, Reason>,
    phases: Phases,
    is_on_kept_connection: bool,
}

impl Sender {
    /// Trusts whom the system trusts.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up on this machine.
    pub fn new(egress: Arc<Egress>) -> anyhow::Result<Sender> {
        set_up_tls();
        let tls = ClientConfig::builder().with_platform_verifier()?.with_no_client_auth();
        Ok(Sender::with_tls(egress, tls))
    }

    fn with_tls(egress: Arc<Egress>, tls: ClientConfig) -> Sender {
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_CONNECTION)
            .http1_max_headers(HEADERS_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http2_max_header_list_size(HEAD_BYTES_MAX as u32)
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PONG)
            .build(Connector::new(egress, tls));
        Sender { client }
    }

    /// Makes the request. Where a kept connection ends at once, it is made a second time: that is how
    /// one looks that the endpoint has closed meanwhile.
    pub async fn send(&self, it: Request) -> Sent {
        let start = Instant::now();
        let Ok(uri) = Uri::try_from(it.url.as_str()) else {
            let reason = Reason::new("bad-url", "the endpoint's URL cannot be sent over HTTP");
            return Sent::nothing(Outcome::Unreachable(reason));
        };
        let deadline = start + it.timeout;
        let mut exchange = self.exchange(post(&it, uri.clone()), deadline).await;
        if exchange.was_closed() && start.elapsed() < AT_ONCE {
            exchange = self.exchange(post(&it, uri), deadline).await;
        }
        let outcome = match exchange.answered {
            Ok(response) => answered(response, deadline).await,
            Err(reason) if reason.code == explain::NO_SOCKET => Outcome::NotSent(reason),
            Err(reason) => Outcome::Unreachable(reason),
        };
        Sent { outcome, took: start.elapsed(), phases: exchange.phases, headers: shown(it) }
    }

    /// Asks an endpoint whether it wants deliveries from us (CloudEvents 1.0.2, HTTP 1.1 Web Hooks,
    /// section 4).
    ///
    /// # Errors
    ///
    /// There was no answer; the text says why.
    pub async fn ask_for_consent(&self, url: &Url, origin: &str) -> Result<Consent, String> {
        let origin = HeaderValue::try_from(origin).map_err(|err| err.to_string())?;
        let name = HeaderName::from_static("webhook-request-origin");
        let response = self.ask(url, Method::OPTIONS, (name, origin), Bytes::new()).await?;
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
        let deadline = Instant::now() + QUESTION;
        let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = serde_json::json!({"ValidationCode": code}).to_string();
        let response = self.ask(url, Method::POST, json, body.into()).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("answers `ValidationCode` with {}", response.status()));
        }
        let answer = head(response.into_body(), deadline).await;
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
        Ok(answer["ValidationResponse"].as_str().unwrap_or_default().to_owned())
    }

    async fn ask(
        &self,
        url: &Url,
        method: Method,
        (name, value): (HeaderName, HeaderValue),
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let uri = Uri::try_from(url.as_str()).map_err(|err| err.to_string())?;
        let mut request = our_request(method, uri, body);
        request.headers_mut().insert(name, value);
        let exchange = self.exchange(request, Instant::now() + QUESTION).await;
        exchange
            .answered
            .map_err(|reason| format!("cannot be asked: {}", reason.detail.unwrap_or(reason.code)))
    }

    /// Sends a request and waits for the head of its answer.
    async fn exchange(
        &self,
        mut request: http::Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Exchange {
        let mut connection = capture_connection(&mut request);
        let answering = OPENING.scope(Cell::default(), self.client.request(request));
        let mut answering = pin!(answering);
        let mut handed_at = None;
        let answered = timeout_at(deadline, async {
            loop {
                tokio::select! {
                    biased;
                    answered = &mut answering => break answered,
                    _ = connection.wait_for_connection_metadata(), if handed_at.is_none() => {
                        handed_at = Some(Instant::now());
                    }
                }
            }
        })
        .await;
        let used = connection.connection_metadata().as_ref().and_then(|it| {
            let mut extensions = http::Extensions::new();
            it.get_extras(&mut extensions);
            extensions.remove::<Arc<Opening>>()
        });
        // One that was begun for this request does not matter where another became free before.
        let begun = answering.take_value().and_then(Cell::into_inner);
        let is_on_kept_connection = match (&used, &begun) {
            (Some(used), Some(begun)) => !Arc::ptr_eq(used, begun),
            (Some(_), None) => true,
            (None, _) => false,
        };
        let opening = begun.filter(|_| !is_on_kept_connection);
        let Progress { mut phases, present, opened_at } =
            opening.map(|it| it.progress()).unwrap_or_default();
        if used.is_some() {
            phases.first_byte = opened_at.or(handed_at).map(|it| it.elapsed());
        }
        let answered = match answered {
            Ok(answered) => answered.map_err(|err| explain::no_answer(&err)),
            Err(_) if used.is_some() => Err(explain::timed_out(Phase::Answer)),
            // Without one of its own, it has waited for a connection that others are to share.
            Err(_) => Err(explain::timed_out(present.map_or(Phase::Connect, |(phase, _)| phase))),
        };
        Exchange { answered, phases, is_on_kept_connection }
    }
}

impl Exchange {
    /// Whether the endpoint ended a connection that it had taken for another request.
    fn was_closed(&self) -> bool {
        self.is_on_kept_connection
            && self.answered.as_ref().is_err_and(|reason| reason.code == explain::RESET)
    }
}

fn our_request(method: Method, uri: Uri, body: Bytes) -> http::Request<Full<Bytes>> {
    let mut request = http::Request::new(Full::new(body));
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    let headers = request.headers_mut();
    headers.reserve(8);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
    request
}

fn post(it: &Request, uri: Uri) -> http::Request<Full<Bytes>> {
    let mut request = our_request(Method::POST, uri, it.body.clone());
    let headers: &mut HeaderMap = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(it.content_type));
    for (name, value) in &it.headers {
        let value = HeaderValue::try_from(value).expect("our header values are visible ASCII");
        headers.insert(name, value);
    }
    request
}

/// The headers of a request, as whoever looks for what went wrong may see them.
fn shown(it: Request) -> Vec<(HeaderName, String)> {
    let host = &it.url[Position::BeforeHost..Position::AfterPort];
    let mut headers = Vec::with_capacity(it.headers.len() + 5);
    headers.extend([
        (header::HOST, host.to_owned()),
        (header::USER_AGENT, USER_AGENT.to_owned()),
        (header::ACCEPT, ACCEPT.to_owned()),
        (header::CONTENT_TYPE, it.content_type.to_owned()),
        (header::CONTENT_LENGTH, it.body.len().to_string()),
    ]);
    headers.extend(it.headers);
    for (name, value) in &mut headers {
        if *name == header::AUTHORIZATION {
            let scheme = value.split_once(' ').map_or("", |(scheme, _)| scheme);
            *value = format!("{scheme} ***").trim_start().to_owned();
        }
    }
    headers
}

/// The status decides, however the answer goes on.
async fn answered(response: Response<Incoming>, deadline: Instant) -> Outcome {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|it| parse_retry_after(it, clock::now_ms()));
    let answer = head(response.into_body(), deadline).await;
    Outcome::Answered { status, retry_after, answer }
}

/// The first [`ANSWER_BYTES_MAX`] of an answer. One that breaks off is kept as far as it came, and one
/// that is too long is not read on, though its connection is lost.
async fn head(mut body: Incoming, deadline: Instant) -> Vec<u8> {
    let mut answer = Vec::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(chunk) = frame.data_ref() else { continue };
            let room = ANSWER_BYTES_MAX - answer.len();
            answer.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if answer.len() == ANSWER_BYTES_MAX {
                break;
            }
        }
    };
    // What has come in time is kept.
    let _ = timeout_at(deadline, reading).await;
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
