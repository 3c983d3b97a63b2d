//! The calls of one connection: each is handed to the router of the API, and its body and its answer are
//! watched on their way.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use tower_service::Service as _;

use super::places::Full;
use super::{Shared, host, lock};
use crate::api::exchange::{Exchange, Held, TooSlow};
use crate::api::problem::Problem;
use crate::api::{Api, HEALTH};

/// What a connection may call.
pub(super) struct Calls {
    pub(super) api: Arc<Api>,
    pub(super) router: Router,
    pub(super) watch: Shared,
    pub(super) from: IpAddr,
    /// It is beyond the connections that there may be, and only health is told.
    pub(super) beyond: Option<Full>,
}

impl Service<Request<Incoming>> for Calls {
    type Response = http::Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let body = self.body(body);
        let refusal = self.refusal(parts.uri.path());
        let host_is_wrong = !host::is_named_once(&parts);
        let is_safe = parts.method.is_safe();
        let exchange = Arc::new(Exchange::new(
            Arc::clone(&self.api),
            self.from,
            Arc::clone(&self.watch),
            host_is_wrong,
            is_safe,
        ));
        parts.extensions.insert(Arc::clone(&exchange));
        let request = Request::from_parts(parts, body);
        let closes = self.beyond.is_some();
        let mut router = self.router.clone();
        Box::pin(async move {
            let response = match refusal {
                Some(problem) => {
                    drop(request);
                    problem.into_response()
                }
                None => router.call(request).await.unwrap_or_else(|never| match never {}),
            };
            Ok(answer(&exchange, response, closes))
        })
    }
}

impl Calls {
    fn body(&self, body: Incoming) -> Body {
        let has_body = !body.is_end_stream();
        lock(&self.watch).call_begins(has_body);
        if !has_body {
            return Body::empty();
        }
        Body::new(Coming { body, watch: Arc::clone(&self.watch), has_ended: false })
    }

    /// Why a call is not even looked at.
    fn refusal(&self, path: &str) -> Option<Problem> {
        let full = self.beyond?;
        (!HEALTH.contains(&path)).then(|| match full {
            Full::All => Problem::full(
                "there are as many connections as there may be (`connections-max`); try again later",
            ),
            Full::Address => Problem::full(
                "there are as many connections from your address as there may be \
                 (`connections-per-address-max`); end some of them",
            ),
        })
    }
}

fn answer(exchange: &Exchange, response: Response, closes: bool) -> http::Response<Answer> {
    let (mut response, held) = exchange.answer(response);
    // What is left of a body that nobody reads is no request.
    if closes || lock(&exchange.watch).is_unread() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let watch = Arc::clone(&exchange.watch);
    response.map(|body| Answer { body, watch, held })
}

/// The body of a request as it comes.
struct Coming {
    body: Incoming,
    watch: Shared,
    has_ended: bool,
}

impl HttpBody for Coming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let it = &mut *self;
        match Pin::new(&mut it.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                lock(&it.watch).body_came(Instant::now(), bytes);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(err))) => Poll::Ready(Some(Err(err.into()))),
            Poll::Ready(None) => {
                it.has_ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let is_late = lock(&it.watch).body_is_awaited(Instant::now(), cx.waker());
                if is_late { Poll::Ready(Some(Err(TooSlow.into()))) } else { Poll::Pending }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        // A small body has come with its head. Where no call wanted it, the connection is good for more.
        let mut cx = Context::from_waker(Waker::noop());
        while !self.has_ended && !self.body.is_end_stream() {
            match Pin::new(&mut self.body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => self.has_ended = true,
                Poll::Ready(Some(Err(_))) | Poll::Pending => break,
            }
        }
        let has_ended = self.has_ended || self.body.is_end_stream();
        lock(&self.watch).body_is_done(has_ended);
    }
}

/// The body of an answer as it is sent.
pub(super) struct Answer {
    body: Body,
    watch: Shared,
    held: Option<Held>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        lock(&self.watch).call_ends(Instant::now(), self.held.take());
    }
}
