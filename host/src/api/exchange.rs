//! One call from its head to the end of its answer: who calls, and what it holds of the memory meanwhile.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hookyard_nouns::refusal::Refusal;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;

use super::Api;
use super::auth::Caller;
use super::budget::Hold;
use super::capacity::{HeldBytes, Stream, Work, no_memory, no_memory_for_strangers};
use super::listen::{Shared, lock};
use super::problem::Problem;
use crate::fair::{Owner, Permit};

/// How long an answer may be without being counted: nearly all are no longer.
const UNCOUNTED_BYTES_MAX: u64 = 4 << 10;

/// A body has come too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body has come too slowly")]
pub(super) struct TooSlow;

/// What an answer holds until it is sent.
#[derive(Debug)]
#[expect(dead_code, reason = "what is held is given back when it is dropped")]
pub(super) struct Held {
    bytes: Option<Hold<Owner>>,
    stream: Option<Stream>,
}

pub(crate) struct Exchange {
    api: Arc<Api>,
    from: IpAddr,
    pub(super) watch: Shared,
    host_is_wrong: bool,
    /// Nothing is other than before when it is done.
    is_safe: bool,
    call: Mutex<Call>,
}

#[derive(Default)]
struct Call {
    /// Who calls, once the token is known.
    owner: Option<Owner>,
    permit: Option<Permit>,
    body: Option<HeldBytes>,
    answer: Option<Hold<Owner>>,
    stream: Option<Stream>,
    /// The body was refused for its coding.
    is_encoded: bool,
}

impl Exchange {
    pub(super) fn new(
        api: Arc<Api>,
        from: IpAddr,
        watch: Shared,
        host_is_wrong: bool,
        is_safe: bool,
    ) -> Exchange {
        Exchange { api, from, watch, host_is_wrong, is_safe, call: Mutex::default() }
    }

    /// The exchange that a request belongs to.
    pub(super) fn of(extensions: &Extensions) -> Arc<Exchange> {
        let exchange = extensions.get::<Arc<Exchange>>();
        Arc::clone(exchange.expect("every call comes through a connection"))
    }

    /// # Errors
    ///
    /// The request does not say once to which host it is sent.
    pub(super) fn check_host(&self) -> Result<(), Refusal> {
        if self.host_is_wrong { Err(Refusal::BadHost) } else { Ok(()) }
    }

    /// The caller is known from now on. Waits until the call may be worked on.
    ///
    /// # Errors
    ///
    /// There is too much to do already.
    pub(super) async fn admit(&self, caller: &Caller, work: Work) -> Result<(), Refusal> {
        let owner = caller.bound_to().cloned();
        lock(&self.watch).is_known();
        lock(&self.call).owner = Some(owner.clone());
        let permit = self.api.capacity.admit(&owner, work).await?;
        lock(&self.call).permit = permit;
        Ok(())
    }

    /// Who calls, as far as is known.
    pub(super) fn owner(&self) -> Owner {
        lock(&self.call).owner.clone().flatten()
    }

    /// Holds so many bytes in all for the body.
    fn hold_body(&self, bytes: usize) -> Result<(), Refusal> {
        let mut call = lock(&self.call);
        let Call { owner, body, .. } = &mut *call;
        let capacity = &self.api.capacity;
        let held = body.get_or_insert_with(|| match owner {
            Some(owner) => HeldBytes::Known(capacity.bytes.hold(owner.clone())),
            None => HeldBytes::Strange(capacity.strange_bytes.hold(self.from)),
        });
        match held {
            HeldBytes::Known(hold) => hold.set(bytes).map_err(no_memory),
            HeldBytes::Strange(hold) => hold.set(bytes).map_err(no_memory_for_strangers),
        }
    }

    /// Holds so many bytes for the answer, before it is made.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    pub(super) fn hold_answer(&self, bytes: usize) -> Result<(), Refusal> {
        let mut call = lock(&self.call);
        let Call { owner: Some(owner), answer, .. } = &mut *call else { return Ok(()) };
        let hold = answer.get_or_insert_with(|| self.api.capacity.bytes.hold(owner.clone()));
        hold.set(bytes).map_err(no_memory)
    }

    /// The answer is sent piece by piece, of which there may be only so many at a time.
    ///
    /// # Errors
    ///
    /// There are as many already.
    pub(super) fn stream(&self, caller: &Caller) -> Result<(), Refusal> {
        let owner = caller.bound_to().cloned();
        let stream = self.api.capacity.stream(&owner, caller.id())?;
        lock(&self.call).stream = Some(stream);
        Ok(())
    }

    /// The answer, and what it holds until it is sent. What has been done is told in any case; what was only
    /// read can be read again.
    pub(super) fn answer(&self, mut response: Response) -> (Response, Option<Held>) {
        let call = std::mem::take(&mut *lock(&self.call));
        if call.is_encoded {
            // RFC 9110, section 15.5.16, also where an API has its own errors in answers of status 200.
            *response.status_mut() = Refusal::Encoded.status();
            let none = HeaderValue::from_static("identity");
            response.headers_mut().insert(header::ACCEPT_ENCODING, none);
        }
        let Some(owner) = call.owner else { return (response, None) };
        // The body has been dealt with: its memory becomes that of the answer.
        let mut bytes = call.answer.or(match call.body {
            Some(HeldBytes::Known(hold)) => Some(hold),
            Some(HeldBytes::Strange(_)) | None => None,
        });
        match response.body().size_hint().exact() {
            // What is sent piece by piece holds what was said before.
            None => {}
            Some(size) if size <= UNCOUNTED_BYTES_MAX => bytes = None,
            Some(size) => {
                let hold = bytes.get_or_insert_with(|| self.api.capacity.bytes.hold(owner));
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                match hold.set(size) {
                    Err(spent) if self.is_safe => {
                        return (Problem::from(no_memory(spent)).into_response(), None);
                    }
                    Err(_) => hold.set_anyway(size),
                    Ok(()) => {}
                }
            }
        }
        let stream = call.stream;
        let held = (bytes.is_some() || stream.is_some()).then_some(Held { bytes, stream });
        (response, held)
    }
}

/// What comes with a request behind its line.
pub(crate) struct Incoming {
    pub(super) headers: HeaderMap,
    pub(super) exchange: Arc<Exchange>,
    body: Body,
    is_encoded: bool,
}

impl<S: Send + Sync> FromRequest<S> for Incoming {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Incoming, Self::Rejection> {
        let (Parts { headers, extensions, .. }, body) = request.into_parts();
        let is_encoded = is_encoded(&headers);
        Ok(Incoming { headers, exchange: Exchange::of(&extensions), body, is_encoded })
    }
}

impl Incoming {
    /// Reads a body of at most so many bytes, which it holds until the answer is there.
    ///
    /// # Errors
    ///
    /// It is coded, too large, comes too slowly or ends before its time, or there is no memory for it. The rest is
    /// not read here: the connection sees to it that the client gets the answer.
    pub(super) async fn read(&mut self, bytes_max: usize) -> Result<Bytes, Refusal> {
        let too_large = || Refusal::TooLarge { bytes_max };
        let announced = self.body.size_hint().exact().map(usize::try_from);
        let announced = announced.map(|it| it.unwrap_or(usize::MAX));
        if self.is_encoded && announced != Some(0) {
            lock(&self.exchange.call).is_encoded = true;
            return Err(Refusal::Encoded);
        }
        if announced.is_some_and(|bytes: usize| bytes > bytes_max) {
            return Err(too_large());
        }
        let mut first = Bytes::new();
        let mut all = Vec::new();
        while let Some(frame) = self.body.frame().await {
            let Ok(chunk) = frame.map_err(|err| broken(&err))?.into_data() else { continue };
            let size = if all.is_empty() { first.len() } else { all.len() } + chunk.len();
            if size > bytes_max {
                return Err(too_large());
            }
            if size == chunk.len() {
                // One frame is the rule, and then nothing is copied.
                self.exchange.hold_body(size)?;
                first = chunk;
                continue;
            }
            if all.capacity() < size {
                // Twice as much, and no more than is announced.
                let wanted = (2 * size).min(announced.unwrap_or(bytes_max)).max(size);
                self.exchange.hold_body(wanted)?;
                all.reserve_exact(wanted - all.len());
            }
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(if all.is_empty() { first } else { all.into() })
    }

    /// Holds so many bytes more, for what becomes of a body that has been read.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    pub(super) fn hold(&self, bytes: usize) -> Result<(), Refusal> {
        self.exchange.hold_body(bytes)
    }
}

/// Whether a body is something else than its media type says until it is decoded (RFC 9110, section 8.4).
fn is_encoded(headers: &HeaderMap) -> bool {
    let all = headers.get_all(header::CONTENT_ENCODING).iter();
    all.flat_map(|it| it.as_bytes().split(|byte| *byte == b','))
        .any(|it| !it.trim_ascii().is_empty() && !it.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// Why a body could not be read.
fn broken(err: &axum::Error) -> Refusal {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(err);
    while let Some(it) = cause {
        if it.is::<TooSlow>() {
            return Refusal::TooSlow;
        }
        cause = it.source();
    }
    Refusal::Malformed("the body ended before its time".to_owned())
}
