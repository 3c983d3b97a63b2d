//! One request and the head of its answer, over a connection that was kept or over a fresh one.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::connect::{Connection, Connector};
use super::explain::{self, Failure};
use super::kept::{Kept, Origin};
use super::opening::{Opening, Phase, Progress};
use super::{Phases, our_origin};
use crate::fair::Owner;
use crate::patience;

/// What came of a request.
pub(super) struct Exchange {
    pub(super) answered: Result<Answer, Failure>,
    pub(super) phases: Phases,
}

/// The head of an answer, with what is needed to read on.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) deadline: Instant,
    origin: Origin,
    connection: Connection,
}

impl Answer {
    /// Its body has been read to its end: the connection can be used again.
    pub(super) fn give_back(self, kept: &Arc<Kept>) {
        kept.give_back(self.origin, self.connection);
    }
}

/// A connection for a request, and how it was made, where it was made for it.
struct Found {
    connection: Connection,
    opening: Option<Arc<Opening>>,
}

/// How sending on a connection has ended.
enum Ended {
    Answered(Response<Incoming>),
    /// The connection had ended before, and nothing was sent.
    Unsent(Request<Full<Bytes>>),
    Failed(Failure),
}

/// Makes a request, which has `limit` in all. What it has to wait for something of ours is not
/// counted.
///
/// A kept connection that ends before a byte of the answer has come says nothing of the endpoint as
/// it is now: it may have been restarted since. So the request is made once more, on a fresh
/// connection and with all of its time, and that is what counts. What else was kept from before is
/// not used any more.
pub(super) async fn exchange(
    connector: &Connector,
    kept: &Arc<Kept>,
    make: impl Fn() -> Request<Full<Bytes>>,
    owner: &Owner,
    limit: Duration,
) -> Exchange {
    let mut request = make();
    let uri = std::mem::take(request.uri_mut());
    let Some(origin) = our_origin(&uri) else {
        let failure = Failure::theirs("bad-url", "the endpoint's URL has no host");
        return Exchange { answered: Err(failure), phases: Phases::default() };
    };
    let mut deadline = Instant::now() + limit;
    let mut may_be_kept = true;
    loop {
        let found = find(connector, kept, &origin, owner, deadline, may_be_kept).await;
        let Found { mut connection, opening } = match found {
            Ok(found) => found,
            Err((failure, phases)) => return Exchange { answered: Err(failure), phases },
        };
        let held_up = opening.as_ref().map_or(Duration::ZERO, |it| it.held_up());
        let mut phases = opening.as_ref().map(|it| it.progress().phases).unwrap_or_default();
        let (since, until) = (Instant::now(), deadline + held_up);
        let dressed = dress(request, &uri, connection.is_http2());
        let ended = send(&mut connection, dressed, until).await;
        phases.first_byte = Some(since.elapsed());
        let failure = match ended {
            Ended::Answered(response) => {
                let answer = Answer { response, deadline: until, origin, connection };
                return Exchange { answered: Ok(answer), phases };
            }
            Ended::Unsent(back) if opening.is_none() => {
                request = back;
                continue;
            }
            Ended::Unsent(_) => explain::closed_early(),
            Ended::Failed(failure) => failure,
        };
        let is_kept = opening.is_none();
        let is_unheard = connection.is_http2() || !connection.has_heard();
        if is_kept && is_unheard && failure.is_loss() {
            kept.forget(&origin, connection.link(), since);
            request = make();
            deadline = Instant::now() + limit;
            may_be_kept = false;
            continue;
        }
        // Silence may be the network's: a connection that it has forgotten. An endpoint of HTTP/2
        // is pinged.
        if is_kept && is_unheard && !connection.is_http2() {
            kept.forget(&origin, connection.link(), since);
        }
        return Exchange { answered: Err(failure), phases };
    }
}

async fn send(connection: &mut Connection, request: Request<Full<Bytes>>, until: Instant) -> Ended {
    match patience::timeout_at(until, connection.send(request)).await {
        Ok(Ok(response)) => Ended::Answered(response),
        Ok(Err(mut err)) => match err.take_message() {
            Some(request) => Ended::Unsent(request),
            None => Ended::Failed(explain::no_answer(err.error())),
        },
        Err(_) => Ended::Failed(explain::timed_out(Phase::Answer)),
    }
}

/// Finds a connection: one that is kept, or a fresh one, or one that becomes free before that is
/// there.
async fn find(
    connector: &Connector,
    kept: &Arc<Kept>,
    origin: &Origin,
    owner: &Owner,
    deadline: Instant,
    may_be_kept: bool,
) -> Result<Found, (Failure, Phases)> {
    if may_be_kept && let Some(connection) = kept.take(origin) {
        return Ok(Found { connection, opening: None });
    }
    let opening = Arc::<Opening>::default();
    let opened = connector.clone().open(origin.clone(), owner.clone(), Arc::clone(&opening));
    let mut opened = Box::pin(opened);
    let free = async { if may_be_kept { kept.wait(origin).await } else { pending().await } };
    let mut free = pin!(free);
    loop {
        let until = deadline + opening.held_up();
        let ready = async {
            tokio::select! {
                biased;
                free = &mut free => Ok((free, true)),
                opened = &mut opened => opened.map(|it| (it, false)),
            }
        };
        match patience::timeout_at(until, ready).await {
            Ok(Ok((connection, true))) => {
                // What was begun is of use to the next request. It ends by itself, within its
                // phases.
                let (kept, origin) = (Arc::clone(kept), origin.clone());
                tokio::spawn(async move {
                    if let Ok(connection) = opened.await {
                        kept.put(origin, connection);
                    }
                });
                return Ok(Found { connection, opening: None });
            }
            Ok(Ok((connection, false))) => {
                if let Some(shared) = connection.shared() {
                    kept.put(origin.clone(), shared);
                }
                return Ok(Found { connection, opening: Some(opening) });
            }
            Ok(Err(failure)) => return Err((failure, opening.progress().phases)),
            // It has waited for something of ours meanwhile, and the endpoint still has time.
            Err(_) if Instant::now() < deadline + opening.held_up() => {}
            Err(_) => {
                let Progress { phases, present, .. } = opening.progress();
                // Between two phases nothing is waited for.
                let phase = present.map_or(Phase::Connect, |(phase, _)| phase);
                return Err((explain::timed_out(phase), phases));
            }
        }
    }
}

/// Gives a request the form that its connection asks for.
fn dress(mut request: Request<Full<Bytes>>, uri: &Uri, is_http2: bool) -> Request<Full<Bytes>> {
    if is_http2 {
        *request.uri_mut() = uri.clone();
        request.headers_mut().remove(header::HOST);
        return request;
    }
    let path = uri.path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    let authority = uri.authority().map_or("", |it| it.as_str());
    // A user's name is for nobody but the endpoint's own login, and none is taken in URLs.
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = HeaderValue::try_from(host).expect("an authority is visible ASCII");
    request.headers_mut().insert(header::HOST, host);
    request
}
