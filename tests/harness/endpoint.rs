//! A receiver that hands over what it got, and can be told to misbehave.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PATIENCE;

/// A request as it arrived.
#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What it was answered with; 0: with nothing.
    pub(crate) status: u16,
}

impl Receipt {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    /// Whether the official library of Standard Webhooks takes the signature.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let webhook = standardwebhooks::Webhook::new(secret).unwrap();
        webhook.verify(&self.body, &self.headers).is_ok()
    }
}

/// What to answer when it is asked whether it wants deliveries.
#[derive(Clone, Debug, Default)]
pub(crate) enum Consent {
    /// Nothing that anybody would understand.
    #[default]
    None,
    /// These headers to OPTIONS.
    Headers(Vec<(&'static str, &'static str)>),
    /// The code that it was sent.
    Echo,
}

/// What to answer: a status, and headers.
pub(crate) type Reply = (u16, Vec<(&'static str, String)>);

pub(crate) struct Endpoint {
    address: SocketAddr,
    receipts: mpsc::UnboundedReceiver<Receipt>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    consent: Arc<Mutex<Consent>>,
    refusals: Arc<Mutex<Refusals>>,
    task: JoinHandle<()>,
    /// Dropped when it is to end.
    open: Option<oneshot::Sender<()>>,
}

/// Answers of 500, of which no delivery gets more than one.
#[derive(Default)]
struct Refusals {
    left: usize,
    refused: HashSet<String>,
}

struct Shared {
    tell: mpsc::UnboundedSender<Receipt>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    consent: Arc<Mutex<Consent>>,
    refusals: Arc<Mutex<Refusals>>,
}

impl Endpoint {
    /// Answers 200, unless told otherwise.
    pub(crate) async fn start() -> Endpoint {
        Endpoint::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Endpoint {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, receipts) = mpsc::unbounded_channel();
        let (replies, consent, refusals) = (Arc::default(), Arc::default(), Arc::default());
        let shared = Shared {
            tell,
            replies: Arc::clone(&replies),
            consent: Arc::clone(&consent),
            refusals: Arc::clone(&refusals),
        };
        let router = Router::new().fallback(take).with_state(Arc::new(shared));
        let (open, closed) = oneshot::channel::<()>();
        let closed = async move { _ = closed.await };
        let serve = axum::serve(listener, router).with_graceful_shutdown(closed);
        let task = tokio::spawn(async move { serve.await.unwrap() });
        Endpoint { address, receipts, replies, consent, refusals, task, open: Some(open) }
    }

    /// Does with each connection what the test says.
    pub(crate) async fn raw<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Endpoint {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, receipts) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let _tell = tell;
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        let refusals = Arc::default();
        let (replies, consent) = (Arc::default(), Arc::default());
        Endpoint { address, receipts, replies, consent, refusals, task, open: None }
    }

    /// Ends like a server that is stopped: what it has begun is answered, its connections are closed, and
    /// nothing listens any more.
    pub(crate) async fn stop(&mut self) {
        self.open = None;
        (&mut self.task).await.unwrap();
    }

    /// The next requests are answered like this, one after the other; then 200 again.
    pub(crate) fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().unwrap().extend(replies);
    }

    /// From now on, whoever asks for consent gets this.
    pub(crate) fn consents(&self, consent: Consent) {
        *self.consent.lock().unwrap() = consent;
    }

    /// So many of the next deliveries are answered with 500, each once: its second retry is far off.
    pub(crate) fn refuse(&self, count: usize) {
        self.refusals.lock().unwrap().left += count;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request.
    #[track_caller]
    pub(crate) fn next(&mut self) -> impl Future<Output = Receipt> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            match timeout(PATIENCE, self.receipts.recv()).await {
                Ok(Some(receipt)) => receipt,
                _ => panic!("nothing arrived for {caller}"),
            }
        }
    }

    /// What has arrived by now.
    pub(crate) fn arrived(&mut self) -> Vec<Receipt> {
        std::iter::from_fn(|| self.receipts.try_recv().ok()).collect()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The answer to a question, where this is one.
fn consent(shared: &Shared, method: &Method, body: &[u8]) -> Option<Response> {
    let consent = shared.consent.lock().unwrap().clone();
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = asked.get("ValidationCode");
    match (consent, code) {
        (Consent::Headers(headers), _) if method == Method::OPTIONS => {
            let mut response = StatusCode::OK.into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            Some(response)
        }
        (_, _) if method == Method::OPTIONS => Some(StatusCode::OK.into_response()),
        (Consent::Echo, Some(code)) => {
            Some(serde_json::json!({"ValidationResponse": code}).to_string().into_response())
        }
        (_, Some(_)) => Some(StatusCode::OK.into_response()),
        (_, None) => None,
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(answer) = consent(&shared, &method, &body) {
        return answer;
    }
    let id = headers.get("webhook-id").map(|it| it.to_str().unwrap().to_owned());
    let (status, more) = shared.reply(id.unwrap_or_default());
    let receipt = Receipt { path: uri.path().to_owned(), headers, body, status };
    // The test may have ended.
    let _ = shared.tell.send(receipt);
    let mut response = StatusCode::from_u16(status).unwrap().into_response();
    for (name, value) in more {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

impl Shared {
    fn reply(&self, delivery: String) -> Reply {
        let mut refusals = self.refusals.lock().unwrap();
        if refusals.left > 0 && refusals.refused.insert(delivery) {
            refusals.left -= 1;
            return (500, vec![]);
        }
        drop(refusals);
        self.replies.lock().unwrap().pop_front().unwrap_or((200, vec![]))
    }
}
