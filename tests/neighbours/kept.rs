//! Connections that were kept and turn out dead cost a healthy endpoint nothing: neither an attempt
//! nor its breaker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::read_request;
use crate::harness::yard::event;
use crate::harness::{Endpoint, PATIENCE, Yard};

/// As many as are kept for one endpoint.
const KEPT: usize = 32;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What an old connection does when it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Resets,
    /// It is closed without a word, as by a balancer that has forgotten it.
    Closes,
}

/// An endpoint that can be replaced by another one behind the same address.
struct Server {
    end: End,
    generation: AtomicUsize,
    /// How many requests have come over connections of an earlier generation.
    tried_dead: AtomicUsize,
    /// So many requests are answered; the others wait.
    answers_max: watch::Sender<usize>,
    answered: AtomicUsize,
    waiting: watch::Sender<usize>,
}

impl Server {
    fn new(end: End) -> Arc<Server> {
        Arc::new(Server {
            end,
            generation: AtomicUsize::new(0),
            tried_dead: AtomicUsize::new(0),
            answers_max: watch::Sender::new(2 * KEPT),
            answered: AtomicUsize::new(0),
            waiting: watch::Sender::new(0),
        })
    }

    async fn start(self: &Arc<Server>) -> Endpoint {
        let server = Arc::clone(self);
        Endpoint::raw(move |stream| serve(Arc::clone(&server), stream)).await
    }

    fn generation(&self) -> usize {
        self.generation.load(Ordering::SeqCst)
    }

    /// Nobody is behind the connections that there are now.
    fn is_replaced(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

async fn serve(server: Arc<Server>, mut stream: TcpStream) {
    let born = server.generation();
    while read_request(&mut stream).await.is_some() {
        if server.generation() != born {
            server.tried_dead.fetch_add(1, Ordering::SeqCst);
            if server.end == End::Resets {
                stream.set_zero_linger().unwrap();
            }
            return;
        }
        let number = server.answered.fetch_add(1, Ordering::SeqCst);
        server.waiting.send_modify(|it| *it += 1);
        let mut answers_max = server.answers_max.subscribe();
        let may_answer = answers_max.wait_for(|max| number < *max).await.is_ok();
        server.waiting.send_modify(|it| *it -= 1);
        if !may_answer || stream.write_all(OK).await.is_err() {
            return;
        }
    }
}

/// All at once.
async fn publish(yard: &Yard, count: usize) {
    let batch: Vec<_> = (0..count).map(|it| event("t", json!(it))).collect();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let batch = json!(batch).to_string();
    yard.client.call(Method::POST, "/v1/events", &headers, batch).await.expect(202);
}

/// A router that keeps as many connections to an endpoint as it may, and how many deliveries there
/// were.
async fn with_kept_connections(server: &Server, endpoint: &Endpoint) -> (Yard, usize) {
    let yard = Yard::start().await;
    yard.subscribe(endpoint, json!({})).await;
    // Each that succeeds allows one more at the same time, as long as there are more.
    let made = 4 * KEPT;
    publish(&yard, made).await;
    let mut waiting = server.waiting.subscribe();
    timeout(PATIENCE, waiting.wait_for(|it| *it == KEPT)).await.unwrap().unwrap();
    server.answers_max.send_replace(usize::MAX);
    yard.await_deliveries("state=delivered", made).await;
    (yard, made)
}

/// Everything has arrived at its first attempt.
async fn assert_nothing_was_lost(yard: &Yard, count: usize) {
    for row in yard.await_deliveries("state=delivered", count).await {
        assert_eq!(row["attempts"], 1, "{row}");
    }
}

async fn check_dead(end: End) {
    let server = Server::new(end);
    let endpoint = server.start().await;
    let (yard, made) = with_kept_connections(&server, &endpoint).await;
    server.is_replaced();
    publish(&yard, 1).await;
    yard.await_deliveries("state=delivered", made + 1).await;
    publish(&yard, 20).await;
    assert_nothing_was_lost(&yard, made + 21).await;
    let tried = server.tried_dead.load(Ordering::SeqCst);
    assert_eq!(tried, 1, "once one is dead, the others of its age are not tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_dead_connection_the_others_are_not_tried() {
    check_dead(End::Resets).await;
    check_dead(End::Closes).await;
}

async fn check_replaced(end: End) {
    let server = Server::new(end);
    let endpoint = server.start().await;
    let (yard, made) = with_kept_connections(&server, &endpoint).await;
    server.is_replaced();
    publish(&yard, 10).await;
    assert_nothing_was_lost(&yard, made + 10).await;
    // What they were sent on is dead; what was opened for them instead is kept.
    publish(&yard, 10).await;
    assert_nothing_was_lost(&yard, made + 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_replaced_loses_nothing_of_what_comes_at_once() {
    check_replaced(End::Resets).await;
    check_replaced(End::Closes).await;
}
