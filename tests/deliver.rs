//! Attempts, retries, and endpoints that misbehave.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::harness::yard::event;
use crate::harness::{Endpoint, PATIENCE, Yard};

/// Reads until the head of a request has come.
async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.windows(4).any(|it| it == b"\r\n\r\n") {
        let mut more = [0; 4096];
        match stream.read(&mut more).await {
            Ok(0) | Err(_) => return,
            Ok(count) => head.extend_from_slice(&more[..count]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_signed_and_recorded() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let event_id = yard.publish("t", json!({"a": 1})).await;
    let receipt = endpoint.next().await;
    assert!(receipt.is_signed_with(made["secret"].as_str().unwrap()));
    assert!(receipt.header("user-agent").starts_with("Hookyard/"));

    let row = yard.await_deliveries("state=delivered", 1).await.remove(0);
    assert_eq!(row["id"], receipt.header("webhook-id"));
    assert_eq!(row["event"], event_id);
    assert_eq!(yard.deliveries(&format!("event={event_id}")).await, std::slice::from_ref(&row));
    let whole = yard.delivery(&row["id"]).await;
    let attempts = whole["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!((&attempts[0]["status"], &attempts[0]["error"]), (&json!(200), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_signs_beside_the_old_one() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let old = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let made = yard.subscribe(&endpoint, json!({"secret": old})).await;
    assert_eq!(made["secret"], old);
    let path = format!("/v1/subscriptions/{}/secret", made["id"].as_str().unwrap());
    let new = yard.client.post(&path, &json!({})).await.expect(201)["secret"].clone();
    yard.publish("t", json!(1)).await;
    let receipt = endpoint.next().await;
    assert!(receipt.is_signed_with(old));
    assert!(receipt.is_signed_with(new.as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_brings_the_same_body_though_everything_has_changed() {
    let mut yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let steps = json!([{"plugin": "minimize", "config": {"remove": ["/b"]}}]);
    let made = yard.subscribe(&endpoint, json!({"steps": steps})).await;
    endpoint.reply([(500, vec![])]);
    yard.publish("t", json!({"a": 1, "b": 2})).await;
    let first = endpoint.next().await;
    let row = yard.await_deliveries("state=retrying", 1).await.remove(0);
    assert_eq!(row["reason"]["code"], "http-500");

    let path = format!("/v1/subscriptions/{}/steps", made["id"].as_str().unwrap());
    yard.client.json(Method::PUT, &path, &json!({"steps": []})).await.expect(200);
    yard.restart().await;
    let second = endpoint.next().await;
    assert_eq!(second.header("webhook-id"), first.header("webhook-id"));
    assert_eq!(second.body, first.body);
    assert!(second.is_signed_with(made["secret"].as_str().unwrap()));
    let waited = second.header("webhook-timestamp").parse::<i64>().unwrap()
        - first.header("webhook-timestamp").parse::<i64>().unwrap();
    assert!((4..=PATIENCE.as_secs() as i64).contains(&waited), "{waited} s");

    yard.await_deliveries("state=delivered", 1).await;
    let whole = yard.delivery(&row["id"]).await;
    let attempts = whole["attempts"].as_array().unwrap();
    let told: Vec<_> = attempts.iter().map(|it| (&it["number"], &it["status"])).collect();
    assert_eq!(told, [(&json!(1), &json!(500)), (&json!(2), &json!(200))]);
    assert_eq!(whole["body_digest"], row["body_digest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_decides_how_it_goes_on() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let mut elsewhere = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let now = hookyard_nouns::clock::now_ms() / 1_000;
    endpoint.reply([
        (302, vec![("location", elsewhere.url("/trap"))]),
        (503, vec![("retry-after", "3600".to_owned())]),
        (429, vec![]),
        (410, vec![]),
    ]);
    for _ in 0..4 {
        yard.publish("t", json!(1)).await;
        endpoint.next().await;
    }
    let retrying = yard.await_deliveries("state=retrying", 3).await;
    let due = |code: &str| {
        let row = retrying.iter().find(|it| it["reason"]["code"] == code).unwrap();
        let at = row["next_attempt_at"].as_str().unwrap();
        hookyard_nouns::clock::parse_rfc3339(at).unwrap() / 1_000 - now
    };
    assert!((4..30).contains(&due("http-302")), "{retrying:?}");
    assert!((3_600..3_630).contains(&due("http-503")), "{retrying:?}");
    assert!((60..90).contains(&due("http-429")), "{retrying:?}");
    let dead = yard.await_deliveries("state=dead", 1).await;
    assert_eq!(dead[0]["reason"]["code"], "gone");
    assert!(elsewhere.arrived().is_empty());

    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    let until = Instant::now() + PATIENCE;
    while yard.client.get(&path).await.expect(200)["state"] != "disabled" {
        assert!(Instant::now() < until, "410 disables");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    yard.publish("t", json!("nobody wants it")).await;
    yard.client.post(&format!("{path}/resume"), &json!({})).await.expect(200);
    yard.publish("t", json!("wanted again")).await;
    assert_eq!(endpoint.next().await.json()["data"], "wanted again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_endpoint_is_told_in_words() {
    let yard = Yard::start().await;
    let mut healthy = Endpoint::start().await;
    yard.subscribe(&healthy, json!({})).await;
    let closed = Endpoint::raw(async |mut stream: TcpStream| read_head(&mut stream).await).await;
    let midway = Endpoint::raw(async |mut stream: TcpStream| {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await;
    })
    .await;
    let not_http = Endpoint::raw(async |mut stream: TcpStream| {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n").await;
    })
    .await;
    let nobody = {
        let gone = Endpoint::start().await;
        gone.url("/hook")
    };
    let cases = [
        (closed.url("/"), "reset", "closed the connection"),
        (midway.url("/"), "reset", "closed the connection"),
        (not_http.url("/"), "not-http", "does not speak HTTP"),
        (nobody, "connect-refused", "nothing listens"),
        ("http://name.invalid/".to_owned(), "dns", "name"),
        (format!("https://127.0.0.1:{}/", healthy.address().port()), "tls", "TLS"),
    ];
    let mut subscriptions = Vec::new();
    for (url, ..) in &cases {
        subscriptions.push(yard.subscribe(&healthy, json!({"url": url})).await);
    }
    yard.publish("t", json!(1)).await;
    healthy.next().await;
    for (subscription, (url, code, words)) in subscriptions.iter().zip(&cases) {
        let id = subscription["id"].as_str().unwrap();
        let query = format!("state=retrying&subscription={id}");
        let row = yard.await_deliveries(&query, 1).await.remove(0);
        assert_eq!(row["reason"]["code"], *code, "{url}: {row}");
        assert!(row["reason"]["detail"].as_str().unwrap().contains(words), "{url}: {row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_cut_and_counts_by_its_status() {
    let yard = Yard::start().await;
    let (written, how_much) = watch::channel(0_usize);
    let endless = Endpoint::raw(move |mut stream: TcpStream| {
        let written = written.clone();
        async move {
            read_head(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";
            let _ = stream.write_all(head).await;
            let chunk = vec![b'x'; 1 << 20];
            while stream.write_all(&chunk).await.is_ok() {
                written.send_modify(|bytes| *bytes += chunk.len());
            }
            written.send_modify(|bytes| *bytes += 1);
        }
    })
    .await;
    yard.subscribe(&endless, json!({})).await;
    yard.publish("t", json!(1)).await;
    let row = yard.await_deliveries("state=delivered", 1).await.remove(0);
    let whole = yard.delivery(&row["id"]).await;
    assert_eq!(whole["attempts"][0]["answer"].as_str().unwrap().len(), 16 * 1024);
    // The connection was closed long before the gigabyte was over.
    let mut how_much = how_much;
    how_much.wait_for(|bytes| bytes % 2 == 1).await.unwrap();
    assert!(*how_much.borrow() < 64 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_holds_up_nobody_else_and_times_out() {
    let yard = Yard::start().await;
    let mut healthy = Endpoint::start().await;
    let hangs = Endpoint::raw(async |mut stream: TcpStream| {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let slow = yard.subscribe(&hangs, json!({})).await;
    yard.subscribe(&healthy, json!({})).await;
    let start = Instant::now();
    for number in 0..100 {
        yard.publish("t", json!(number)).await;
        healthy.next().await;
    }
    assert!(start.elapsed() < Duration::from_secs(15), "the healthy one waited");
    // What is out is visible while it is out.
    let query = format!("state=pending&subscription={}", slow["id"].as_str().unwrap());
    yard.await_deliveries(&query, 100).await;
    let timed_out = {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = yard.deliveries("state=retrying").await;
            if !found.is_empty() || Instant::now() > until {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(timed_out[0]["reason"]["code"], "timeout", "{timed_out:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_not_public_are_not_reached() {
    // The endpoint was allowed when the subscription was made, and is not any more.
    let mut yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let by_name = format!("http://localhost:{}/", endpoint.address().port());
    yard.subscribe(&endpoint, json!({})).await;
    yard.subscribe(&endpoint, json!({"url": by_name})).await;
    yard.change_settings(|it| it.egress_allow = Some(vec![])).await;
    yard.publish("t", json!(1)).await;
    let rows = yard.await_deliveries("state=retrying", 2).await;
    for row in rows {
        assert_eq!(row["reason"]["code"], "egress-denied", "{row}");
    }
    assert!(endpoint.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_in_memory_waits_in_the_store() {
    let yard = Yard::start().await;
    let (open, gate) = watch::channel(false);
    let gated = Endpoint::raw(move |mut stream: TcpStream| {
        let mut gate = gate.clone();
        async move {
            loop {
                read_request(&mut stream).await;
                if gate.wait_for(|open| *open).await.is_err() {
                    return;
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    yard.subscribe(&gated, json!({})).await;
    const COUNT: usize = 1_000;
    let batch: Vec<Value> = (0..COUNT).map(|number| event("t", json!(number))).collect();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let body = json!(batch).to_string();
    yard.client.call(Method::POST, "/v1/events", &headers, body).await.expect(202);
    // Few wait in memory for an endpoint that has taken none yet; the others are due in the store.
    yard.await_deliveries("state=pending", COUNT).await;
    open.send(true).unwrap();
    yard.await_deliveries("state=delivered", COUNT).await;
}

/// Reads one request with its body.
async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text.split("content-length: ").nth(1).unwrap_or("0");
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if request.len() >= end + 4 + length {
                return;
            }
        }
        let mut more = [0; 4096];
        match stream.read(&mut more).await {
            Ok(0) | Err(_) => std::future::pending().await,
            Ok(count) => request.extend_from_slice(&more[..count]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_has_ended_is_made_anew_at_once() {
    let yard = Yard::start().await;
    let once = Endpoint::raw(async |mut stream: TcpStream| {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        // The second request on a connection finds it closed.
        read_request(&mut stream).await;
    })
    .await;
    yard.subscribe(&once, json!({})).await;
    for count in 1..4 {
        yard.publish("t", json!(count)).await;
        let delivered = yard.await_deliveries("state=delivered", count).await;
        assert!(delivered.iter().all(|it| it["attempts"] == 1), "{delivered:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_goes_all_the_way_and_shows_everything() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let steps = json!([{"plugin": "minimize", "config": {"remove": ["/b"]}}]);
    let made = yard.subscribe(&endpoint, json!({"steps": steps})).await;
    let path = format!("/v1/subscriptions/{}/test", made["id"].as_str().unwrap());
    endpoint.reply([(503, vec![])]);
    let body = json!({"event": event("t", json!({"a": 1, "b": 2}))});
    let shown = yard.client.post(&path, &body).await.expect(200);
    let receipt = endpoint.next().await;
    let request = &shown["requests"][0];
    assert_eq!((&request["status"], &request["success"]), (&json!(503), &json!(false)));
    assert_eq!(request["body"].as_str().unwrap().as_bytes(), receipt.body);
    assert_eq!(receipt.json()["data"], json!({"a": 1}));
    for name in ["webhook-signature", "host", "content-type", "user-agent"] {
        assert_eq!(request["headers"][name], receipt.header(name), "{name}");
    }
    let phases: Vec<_> = request["phases"].as_object().unwrap().keys().collect();
    assert_eq!(phases, ["connect_us", "first_byte_us"], "the URL has an address in it");
    assert_eq!(shown["runs"][0]["fault"], Value::Null);
    // Without an event, there is a sample.
    let shown = yard.client.post(&path, &json!({})).await.expect(200);
    assert_eq!(endpoint.next().await.json()["data"], shown["event"]["data"]);
    assert!(yard.deliveries("").await.is_empty(), "it is no delivery");
    let refused = yard.client.post(&path, &json!({"type": "x", "event": 1, "y": 2})).await;
    assert_eq!(refused.fields(), ["/event", "/y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_subscription_cancels_what_it_was_to_get() {
    let yard = Yard::start().await;
    let endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    endpoint.reply([(500, vec![]), (500, vec![])]);
    yard.publish("t", json!(1)).await;
    yard.publish("t", json!(2)).await;
    yard.await_deliveries("state=retrying", 2).await;
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    assert_eq!(yard.client.call(Method::DELETE, &path, &[], "").await.status, 204);
    yard.await_deliveries("state=cancelled", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_what_is_out_and_loses_nothing() {
    let mut yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    const COUNT: usize = 500;
    let batch: Vec<Value> = (0..COUNT).map(|number| event("t", json!(number))).collect();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let body = json!(batch).to_string();
    yard.client.call(Method::POST, "/v1/events", &headers, body).await.expect(202);
    yard.restart().await;
    yard.await_deliveries("state=delivered", COUNT).await;
    let mut seen: Vec<u64> =
        endpoint.arrived().iter().map(|it| it.json()["data"].as_u64().unwrap()).collect();
    seen.sort_unstable();
    let count = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), COUNT);
    // Whatever was out when the stop came was waited for, so nothing came twice.
    assert_eq!(count, COUNT);
}
