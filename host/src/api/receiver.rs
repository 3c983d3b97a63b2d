//! An endpoint that agrees to everything, for the demo: it hands over what it got.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A delivery as it arrived.
#[derive(Debug)]
pub struct Receipt {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

/// Receives for as long as the task runs.
///
/// # Errors
///
/// The listener breaks.
pub async fn receive(
    listener: TcpListener,
    receipts: mpsc::Sender<Receipt>,
) -> std::io::Result<()> {
    let router = Router::new().fallback(take).with_state(Arc::new(receipts));
    axum::serve(listener, router).await
}

async fn take(
    State(receipts): State<Arc<mpsc::Sender<Receipt>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap) {
    let mut agreed = HeaderMap::new();
    if method == Method::OPTIONS {
        // The handshake of CloudEvents webhooks: whoever asks may send.
        let origin = headers.get("webhook-request-origin").cloned();
        agreed.extend(origin.map(|it| (HeaderName::from_static("webhook-allowed-origin"), it)));
        return (StatusCode::OK, agreed);
    }
    let receipt = Receipt { path: uri.path().to_owned(), headers, body, at: Instant::now() };
    match receipts.send(receipt).await {
        Ok(()) => (StatusCode::NO_CONTENT, agreed),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, agreed),
    }
}
