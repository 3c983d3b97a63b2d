//! Names that nobody answers for, and name servers that are gone: no other name has to wait for
//! them, and no endpoint is blamed for what is ours.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, sleep};

use super::read_request;
use crate::harness::names::NameServer;
use crate::harness::yard::event;
use crate::harness::{Client, Endpoint, PATIENCE, Yard};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// A connection for each request, so that each needs the name.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
async fn answer_once(mut stream: TcpStream) {
    if read_request(&mut stream).await.is_some() {
        let _ = stream.write_all(OK).await;
    }
}

async fn start(names: &NameServer) -> Yard {
    let server = names.address;
    Yard::start_with(|it| it.dns_servers = Some(vec![server])).await
}

fn subscription(name: &str, url: &str) -> Value {
    json!({"name": name, "url": url, "filters": [{"type": "t"}]})
}

/// Publishes events one after the other, and reads the log in between.
async fn publish(client: &Client, count: usize) {
    for number in 0..count {
        client.publish(&event("t", json!(number))).await.expect(202);
        client.get("/v1/deliveries?limit=10").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_nobody_answers_for_keep_nobody_waiting() {
    const DEAD: usize = 400;
    const EVENTS: usize = 30;
    let names = NameServer::start("example.test.").await;
    names.point("good.example.test.", Some(LOCAL)).await;
    names.point("own.example.test.", Some(LOCAL)).await;
    let yard = start(&names).await;
    let endpoint = Endpoint::raw(answer_once).await;
    let port = endpoint.address().port();
    let attacker = yard.client.with_token(Some(&yard.token(Some("attacker"), "admin").await));
    for number in 0..DEAD {
        let url = format!("http://{number}.dead.test:{port}/");
        let body = subscription(&format!("dead {number}"), &url);
        attacker.post("/v1/subscriptions", &body).await.expect(201);
    }
    let own = subscription("own", &format!("http://own.example.test:{port}/"));
    let own = attacker.post("/v1/subscriptions", &own).await.expect(201);
    let good = subscription("good", &format!("http://good.example.test:{port}/"));
    yard.client.post("/v1/subscriptions", &good).await.expect(201);

    names.be_silent(".dead.test.");
    for _ in 0..3 {
        attacker.publish(&event("t", json!(0))).await.expect(202);
    }
    publish(&yard.client, EVENTS).await;
    for row in yard.await_deliveries("state=delivered", EVENTS).await {
        assert_eq!(row["attempts"], 1, "{row}");
    }
    // The tenant's own good name comes to its turn as well.
    let query = format!("state=delivered&subscription={}", own["id"].as_str().unwrap());
    for row in attacker.await_deliveries(&query, 3).await {
        assert_eq!(row["attempts"], 1, "{row}");
    }
    // And both do before the dead ones are over.
    let waiting = attacker.deliveries("state=pending").await;
    assert!(!waiting.is_empty(), "the good ones have waited for the dead ones");
    // And those of which it is known have failed by a fault of their own.
    for row in attacker.deliveries("state=retrying").await {
        assert_eq!(row["reason"]["code"], "dns-timeout", "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn name_servers_that_are_silent_cost_no_attempt() {
    let silent = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let server = silent.local_addr().unwrap();
    let yard = Yard::start_with(|it| it.dns_servers = Some(vec![server])).await;
    let endpoint = Endpoint::raw(answer_once).await;
    let url = format!("http://good.example.test:{}/", endpoint.address().port());
    yard.client.post("/v1/subscriptions", &subscription("good", &url)).await.expect(201);
    yard.client.publish(&event("t", json!(1))).await.expect(202);
    let until = Instant::now() + PATIENCE;
    loop {
        let rows = yard.deliveries("state=pending").await;
        if rows.iter().any(|it| it["reason"]["code"] == "no-name-server") {
            assert_eq!(rows[0]["attempts"], 0, "{rows:?}");
            break;
        }
        assert!(Instant::now() < until, "{rows:?} {:?}", yard.deliveries("").await);
        sleep(Duration::from_millis(50)).await;
    }
    // They come back, and the first attempt is the first one.
    let known = [("good.example.test.", LOCAL)];
    let _names = NameServer::start_on(silent, "example.test.", &known).await;
    let rows = yard.await_deliveries("state=delivered", 1).await;
    assert_eq!(rows[0]["attempts"], 1, "{rows:?}");
}

/// Whoever has a name lets it lead to an address that is allowed, and to another one the next time
/// that it is asked for: the address that was checked is the one that is connected to.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_its_mind_gains_nothing() {
    let names = NameServer::start("example.test.").await;
    let forbidden: IpAddr = [127, 0, 0, 2].into();
    names.point_by_turns("turns.example.test.", vec![LOCAL, forbidden]).await;
    let server = names.address;
    let yard = Yard::start_with(|it| {
        it.dns_servers = Some(vec![server]);
        it.egress_allow = Some(vec!["127.0.0.1/32".parse().unwrap()]);
    })
    .await;
    let endpoint = Endpoint::raw(answer_once).await;
    let port = endpoint.address().port();
    let trap = TcpListener::bind((forbidden, port)).await.unwrap();
    let url = format!("http://turns.example.test:{port}/");
    let body = subscription("turns", &url);
    // Where it leads when it is given is a matter of its turn.
    let first = yard.client.post("/v1/subscriptions", &body).await;
    if first.status != 201 {
        assert!(first.text.contains("leads to 127.0.0.2"), "{}", first.text);
        yard.client.post("/v1/subscriptions", &body).await.expect(201);
    }
    let pace = json!({"retry_after_seconds": vec![2; 20]});
    let made = yard.client.get("/v1/subscriptions").await.expect(200);
    let path =
        format!("/v1/subscriptions/{}/pace", made["subscriptions"][0]["id"].as_str().unwrap());
    yard.client.json(reqwest::Method::PUT, &path, &pace).await.expect(200);
    for number in 0..4 {
        yard.client.publish(&event("t", json!(number))).await.expect(202);
    }
    for row in yard.await_deliveries("state=delivered", 4).await {
        let delivery = yard.delivery(&row["id"]).await;
        for attempt in delivery["attempts"].as_array().unwrap() {
            let code = attempt["error"]["code"].as_str();
            assert!(code.is_none_or(|it| it == "egress-denied"), "{attempt}");
        }
    }
    let trapped = tokio::time::timeout(Duration::from_millis(50), trap.accept()).await;
    assert!(trapped.is_err(), "somebody connected to what was never allowed");
}
