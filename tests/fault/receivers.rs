//! Endpoints that do not keep to HTTP: what they are sent ends in time, with little memory, and with a
//! reason that tells what was wrong.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{Rig, Row, event};
use crate::harness::Endpoint;

/// What a delivery may take: the timeout of our format, and what a busy machine adds.
const TOOK_MAX_MS: u64 = 25_000;
const MEMORY_MAX: u64 = 64 << 20;

struct Receiver {
    name: &'static str,
    /// What it answers first, and then again and again, with a pause.
    first: Vec<u8>,
    again: Vec<u8>,
    pause: Duration,
    /// What becomes of the delivery; none: it is delivered.
    code: Option<&'static str>,
}

fn receiver(
    name: &'static str,
    first: impl AsRef<[u8]>,
    again: impl AsRef<[u8]>,
    pause_ms: u64,
    code: Option<&'static str>,
) -> Receiver {
    let (first, again) = (first.as_ref().to_vec(), again.as_ref().to_vec());
    Receiver { name, first, again, pause: Duration::from_millis(pause_ms), code }
}

fn receivers() -> Vec<Receiver> {
    let ok = "HTTP/1.1 200 OK\r\n";
    let many = format!("{ok}{}\r\n", "x: y\r\n".repeat(10_000));
    let (chunked, length) =
        ("Transfer-Encoding: chunked\r\n\r\n", "Content-Length: 1073741824\r\n\r\n");
    let (flood, upgrade) =
        ("HTTP/1.1 102 Processing\r\n\r\n", "Upgrade: x\r\nConnection: upgrade\r\n\r\n");
    let nothing = "Content-Length: 0\r\n\r\n";
    let (timeout, too_large) = (Some("timeout"), Some("answer-too-large"));
    vec![
        receiver("a byte a second in the head", ok, "x", 1_000, timeout),
        receiver("a byte a second in the body", format!("{ok}{length}"), "x", 1_000, None),
        receiver("never closes", format!("{ok}\r\nok"), "", 0, None),
        receiver("sends 1 GB", format!("{ok}{length}"), [b'x'; 1 << 16], 0, None),
        receiver("10,000 headers", many, "", 0, too_large),
        receiver("a header without end", ok, [b'x'; 1 << 12], 0, too_large),
        receiver("wrong chunks", format!("{ok}{chunked}wrong\r\n"), "", 0, None),
        receiver(
            "100-continue",
            format!("HTTP/1.1 100 Continue\r\n\r\n{ok}{nothing}"),
            "",
            0,
            None,
        ),
        receiver("a flood of 1xx", "", flood.repeat(100), 1, too_large),
        receiver("101", format!("HTTP/1.1 101 Other\r\n{upgrade}"), "", 0, Some("http-101")),
    ]
}

/// Answers one request; ends when the router closes the connection.
async fn serve(receiver: Arc<Receiver>, mut stream: TcpStream) {
    let mut request = [0; 4_096];
    if stream.read(&mut request).await.is_err() || stream.write_all(&receiver.first).await.is_err()
    {
        return;
    }
    if receiver.again.is_empty() {
        while stream.read(&mut request).await.is_ok_and(|count| count > 0) {}
        return;
    }
    while stream.write_all(&receiver.again).await.is_ok() {
        sleep(receiver.pause).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_delivery_ends_with_an_explained_outcome() {
    let mut rig = Rig::started().await;
    let mut healthy = Endpoint::start().await;
    rig.subscribe(healthy.url("/a"), "*").await;
    let client = rig.client();
    client.publish(&event("first", "other", 1)).await.expect(202);
    healthy.next().await;
    let memory = rig.router().bytes("VmHWM");

    let (mut endpoints, mut subscriptions) = (Vec::new(), Vec::new());
    let all: Vec<_> = receivers().into_iter().map(Arc::new).collect();
    for receiver in &all {
        let serving = Arc::clone(receiver);
        let endpoint = Endpoint::raw(move |stream| serve(Arc::clone(&serving), stream)).await;
        subscriptions.push(rig.subscribe(endpoint.url("/hook"), "t").await);
        endpoints.push(endpoint);
    }
    client.publish(&event("second", "t", 1)).await.expect(202);
    healthy.next().await;
    let mut longest_ms = 0;
    for (receiver, subscription) in all.iter().zip(&subscriptions) {
        let state = if receiver.code.is_some() { "retrying" } else { "delivered" };
        let id = subscription["id"].as_str().unwrap();
        let query = format!("subscription={id}&state={state}");
        let row = client.await_deliveries(&query, 1).await.remove(0);
        let path = format!("/v1/deliveries/{}", row["id"].as_str().unwrap());
        let first = client.get(&path).await.expect(200)["attempts"][0].clone();
        let told = (first["error"]["code"].as_str(), first["error"]["detail"].as_str());
        assert_eq!(told.0, receiver.code, "{}: {first}", receiver.name);
        assert_eq!(told.1.is_some(), receiver.code.is_some(), "{}: {first}", receiver.name);
        let took_ms = first["duration_ms"].as_u64().unwrap();
        assert!(took_ms < TOOK_MAX_MS, "{}: {first}", receiver.name);
        println!("{}: {took_ms} ms, {told:?}", receiver.name);
        longest_ms = longest_ms.max(took_ms);
    }
    let memory = rig.router().bytes("VmHWM") - memory;
    assert!(memory < MEMORY_MAX, "{memory} bytes more");
    rig.kill();
    let more = format!(
        "the longest took {:.1} s; {} MiB more memory",
        longest_ms as f64 / 1_000.0,
        memory >> 20
    );
    let fault = "receivers: slow, endless, not HTTP";
    let (operations, recovery) = (all.len() + 2, None);
    Row { fault, operations, lost: 0, duplicated: 0, recovery, more }.print();
}
