//! Makes one HTTP attempt. The only module that sends requests to endpoints.

mod ask;
mod connect;
mod exchange;
mod explain;
mod kept;
mod opening;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookyard_nouns::clock;
use hookyard_nouns::delivery::Reason;
use hookyard_nouns::event::Tenant;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::time::Instant;
use url::{Position, Url};

use crate::dns::Dns;
use crate::egress::Egress;
use crate::fair::Owner;
use crate::patience;
pub use ask::Consent;
pub(crate) use ask::REQUEST_ORIGIN;
use connect::Connector;
use exchange::{Answer, Exchange, exchange};
use kept::{Kept, Origin};

/// How much of an answer is kept.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How many headers an answer may have, and how large its head may be.
const HEADERS_MAX: usize = 100;
const HEAD_BYTES_MAX: usize = 64 * 1024;
const USER_AGENT: &str = concat!("Hookyard/", env!("CARGO_PKG_VERSION"));
const ACCEPT: &str = "*/*";

/// Says what TLS is made of, for every client of this process. Needed once, and harmless again.
pub fn set_up_tls() {
    // The first to set it wins; every one of us sets the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Connections to endpoints.
pub struct Sender {
    connector: Connector,
    kept: Arc<Kept>,
}

/// A request for a delivery.
#[derive(Debug)]
pub struct Request {
    /// Whose delivery it is: tenants share what there is of sockets and look-ups of names.
    pub tenant: Tenant,
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

/// How long each phase of a request took, the one in which it failed included. There are none that
/// it did not come to or did not need: a kept connection takes neither of the first three.
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
    /// Nothing was sent, or nothing arrived, and that is not the endpoint's fault: it will be tried
    /// again.
    NotSent(Reason),
    /// It cannot be sent, now or later: a bug of ours.
    Broken(Reason),
}

impl Sent {
    /// What there is to say where no request was made.
    pub fn nothing(outcome: Outcome) -> Sent {
        let (took, phases) = (Duration::ZERO, Phases::default());
        Sent { outcome, took, phases, headers: Vec::new() }
    }
}

impl Sender {
    /// Trusts whom the system trusts. `sockets_max`: how many connections to endpoints there may
    /// be, those that are kept included; one tenant has three quarters of them at most. Must be
    /// called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up on this machine.
    pub fn new(egress: Arc<Egress>, dns: Arc<Dns>, sockets_max: usize) -> anyhow::Result<Sender> {
        set_up_tls();
        let tls = ClientConfig::builder().with_platform_verifier()?.with_no_client_auth();
        Ok(Sender::with_tls(egress, dns, sockets_max, tls))
    }

    fn with_tls(
        egress: Arc<Egress>,
        dns: Arc<Dns>,
        sockets_max: usize,
        tls: ClientConfig,
    ) -> Sender {
        let kept = Kept::new();
        let connector = Connector::new(egress, dns, Arc::clone(&kept), sockets_max, tls);
        Sender { connector, kept }
    }

    /// Makes the request.
    pub async fn send(&self, it: Request) -> Sent {
        let start = Instant::now();
        let Ok(uri) = Uri::try_from(it.url.as_str()) else {
            let reason = Reason::new("bad-url", "the endpoint's URL cannot be sent over HTTP");
            return Sent::nothing(Outcome::Unreachable(reason));
        };
        let owner = Some(it.tenant.clone());
        let make = || post(&it, uri.clone());
        let Exchange { answered, phases } = self.exchange(make, &owner, it.timeout).await;
        let outcome = match answered {
            Ok(answer) => self.answered(answer).await,
            Err(failure) => failure.outcome(),
        };
        Sent { outcome, took: start.elapsed(), phases, headers: shown(it) }
    }

    async fn exchange(
        &self,
        make: impl Fn() -> http::Request<Full<Bytes>>,
        owner: &Owner,
        limit: Duration,
    ) -> Exchange {
        exchange(&self.connector, &self.kept, make, owner, limit).await
    }

    /// The status decides, however the answer goes on.
    async fn answered(&self, answer: Answer) -> Outcome {
        let status = answer.response.status().as_u16();
        let retry_after = answer.response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|it| parse_retry_after(it, clock::now_ms()));
        let answer = self.body(answer).await;
        Outcome::Answered { status, retry_after, answer }
    }

    /// The first [`ANSWER_BYTES_MAX`] of an answer. One that breaks off is kept as far as it came,
    /// and one that is too long is not read on, though its connection is lost.
    async fn body(&self, mut answer: Answer) -> Vec<u8> {
        let mut bytes = Vec::new();
        let body = answer.response.body_mut();
        // What has come in time is kept.
        let read = patience::timeout_at(answer.deadline, read(body, &mut bytes)).await;
        if read.is_ok_and(|is_whole| is_whole) {
            answer.give_back(&self.kept);
        }
        bytes
    }
}

/// Reads at most [`ANSWER_BYTES_MAX`]. Answers whether that is all there is.
async fn read(body: &mut Incoming, bytes: &mut Vec<u8>) -> bool {
    loop {
        match body.frame().await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => {
                let Some(chunk) = frame.data_ref() else { continue };
                let room = ANSWER_BYTES_MAX - bytes.len();
                bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room || bytes.len() == ANSWER_BYTES_MAX {
                    return false;
                }
            }
        }
    }
}

/// Where a URL leads; none where it leads nowhere.
fn our_origin(uri: &Uri) -> Option<Origin> {
    Some((uri.scheme()?.clone(), uri.authority()?.clone()))
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

/// Seconds, of any number of digits, or a date (RFC 9110, section 10.2.3). A number that is too large is a long wait.
fn parse_retry_after(value: &HeaderValue, now_ms: i64) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let at = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    let now = Duration::from_millis(now_ms.unsigned_abs());
    Some(at.saturating_sub(now))
}
