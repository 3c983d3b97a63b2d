//! What goes over the wire, to the letter: publishers and endpoints that do what the standards let them do.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::yard::{TENANT, event};
use crate::harness::{Client, Endpoint, Yard};
use crate::neighbours::raw::{Raw, address, head};

const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");

/// Publishes in binary mode, and answers what the endpoint gets.
async fn round_trip(
    yard: &Yard,
    endpoint: &mut Endpoint,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Value {
    let id = uuid::Uuid::now_v7().to_string();
    let usual = [("ce-specversion", "1.0"), ("ce-id", &id), ("ce-source", "/s"), ("ce-type", "t")];
    let headers = [&usual, headers].concat();
    yard.client.call(Method::POST, "/v1/events", &headers, body.to_vec()).await.expect(202);
    endpoint.next().await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_binary_mode_are_decoded_once() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    for (sent, wanted) in [
        ("50%+5 extra", "50%+5 extra"),
        ("a%2525", "a%25"),
        (r#""say \"hi\"""#, r#"say "hi""#),
        (r#""a" and "b""#, r#""a" and "b""#),
        ("Gr%C3%BC%C3%9Fe", "Grüße"),
    ] {
        let got = round_trip(&yard, &mut endpoint, &[("ce-subject", sent)], b"").await;
        assert_eq!(got["subject"], wanted, "{sent}");
    }
    let mut raw = Raw::open(address(&yard.client)).await;
    let twice = "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\nce-id: 2\r\n";
    let more = format!("{twice}content-length: 0\r\n");
    raw.say(head("POST /v1/events", yard.client.token(), &more)).await;
    let heard = raw.hear().await;
    assert_eq!((heard.status, &heard.json()["errors"][0]["field"]), (400, &json!("id")));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_are_what_is_surely_known_of_them() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    let base64 = |bytes: &[u8]| json!({"data_base64": BASE64_STANDARD.encode(bytes)});
    for (media_type, bytes, wanted) in [
        (None, &b"hello"[..], base64(b"hello")),
        (None, b"{\"a\":1}", base64(b"{\"a\":1}")),
        (Some("application/json"), b"\xef\xbb\xbf{\"a\":1}", json!({"data": {"a": 1}})),
        (Some("text/plain"), "é".as_bytes(), json!({"data": "é"})),
        (Some("text/plain; charset=iso-8859-1"), "é".as_bytes(), base64("é".as_bytes())),
        (Some("application/json; charset=utf-16"), b"1", base64(b"1")),
        (Some("application/octet-stream"), b"text", base64(b"text")),
    ] {
        let headers: Vec<_> = media_type.iter().map(|it| ("content-type", *it)).collect();
        let got = round_trip(&yard, &mut endpoint, &headers, bytes).await;
        for (name, value) in wanted.as_object().unwrap() {
            assert_eq!(got[name], *value, "{media_type:?} {bytes:?}: {got}");
        }
    }
    for (more, wanted) in [
        (base64(b"12"), base64(b"12")),
        (
            json!({"datacontenttype": "application/json", "data_base64": base64(b"{")["data_base64"]}),
            base64(b"{"),
        ),
        (
            json!({"datacontenttype": "application/json", "data_base64": base64(b"[1]")["data_base64"]}),
            json!({"data": [1]}),
        ),
        (json!({"datacontenttype": "text/plain", "data": "x"}), json!({"data": "x"})),
    ] {
        let mut it = event("t", json!(null));
        it.as_object_mut().unwrap().remove("data");
        it.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        yard.client.publish(&it).await.expect(202);
        let got = endpoint.next().await.json();
        for (name, value) in wanted.as_object().unwrap() {
            assert_eq!(got[name], *value, "{more}: {got}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_keep_their_types_through_steps_and_the_store() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let steps = json!([{"plugin": "javascript", "config":
        {"script": "const transform = () => replace({set: {label: '7', sequence2: '8'}});"}}]);
    yard.subscribe(&endpoint, json!({"steps": steps})).await;
    let mut it = event("t", json!({}));
    let typed =
        json!({"sequence": 42, "urgent": true, "least": -2147483648, "label": 1, "text": "42"});
    it.as_object_mut().unwrap().extend(typed.as_object().unwrap().clone());
    yard.client.publish(&it).await.expect(202);
    let got = endpoint.next().await.json();
    let wanted = json!({"sequence": 42, "urgent": true, "least": -2147483648, "label": "7",
                        "sequence2": "8", "text": "42"});
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(got[name], *value, "{name}");
    }
    // As it is kept.
    let row = yard.await_deliveries("state=delivered", 1).await.remove(0);
    let kept = yard.client.get(&format!("/v1/events/{}", row["event"].as_str().unwrap())).await;
    assert!(kept.text.contains("[\"sequence\",42]"), "{}", kept.text);
    let mut large = event("t", json!({}));
    large["sequence"] = 2_147_483_648_u32.into();
    assert_eq!(yard.client.publish(&large).await.fields(), ["sequence"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_coded_is_refused_on_every_route() {
    let yard = Yard::start().await;
    let routes = [
        ("/v1/events", "application/cloudevents+json"),
        ("/v1/events", "text/plain"),
        ("/v1/subscriptions", "application/json"),
        ("/v1/identities/p", "application/json"),
        ("/v1/plugins/x/versions", "application/wasm"),
        ("/kajabi/v1/hooks", "application/vnd.api+json"),
        ("/kajabi/v1/oauth/token", "application/x-www-form-urlencoded"),
        ("/vonage/webhooks/subscriptions", "application/json"),
        ("/copernica/v4/webhooks", "application/json"),
        ("/vision6/api/jsonrpcserver", "application/json"),
        ("/mypreferences/Profiles/v4/acme/Webhooks/Subscriptions", "application/json"),
    ];
    for (path, media_type) in routes {
        let method = if path.contains("identities") { Method::PUT } else { Method::POST };
        for coding in ["gzip", "identity, br", "x-unknown"] {
            let headers = [
                ("content-type", media_type),
                ("content-encoding", coding),
                ("ce-specversion", "1.0"),
                ("accept", "*/*, application/vnd.newvoicemedia.v1+json"),
            ];
            let answer = yard.client.call(method.clone(), path, &headers, "\x1f\u{8b}").await;
            assert_eq!(answer.status, 415, "{path}: {}", answer.text);
            assert_eq!(answer.header("accept-encoding"), "identity", "{path}");
            assert!(answer.text.contains("Content-Encoding"), "{path}: {}", answer.text);
        }
    }
    let headers = [STRUCTURED, ("content-encoding", "identity")];
    let body = event("t", json!(1)).to_string();
    yard.client.call(Method::POST, "/v1/events", &headers, body).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_character_is_passed_on_in_data_and_told_elsewhere() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let steps = json!([{"plugin": "filter", "config": {"when": {"at": "/t", "prefix": "cut "}}},
                       {"plugin": "minimize", "config": {"remove": ["/b"]}}]);
    yard.subscribe(&endpoint, json!({"steps": steps})).await;
    let publish = async |subject: &str, data: &str| {
        let id = uuid::Uuid::now_v7();
        let body = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t","subject":"{subject}","data":{data}}}"#
        );
        yard.client.call(Method::POST, "/v1/events", &[STRUCTURED], body).await
    };
    publish("x", r#"{"t":"cut \ud83d","b":1,"k\udc00":2}"#).await.expect(202);
    let got = endpoint.next().await;
    let text = String::from_utf8(got.body.to_vec()).unwrap();
    assert!(text.contains(r#""data":{"t":"cut \ud83d","k\udc00":2}"#), "{text}");
    let refused = publish("cut \\ud83d", "{}").await;
    assert_eq!((refused.status, refused.fields()), (400, vec!["subject"]), "{}", refused.text);
    assert!(refused.text.contains("half of a character"), "{}", refused.text);
    let body = r#"{"name":"cut \ud83d","url":"https://example.com/","filters":[]}"#;
    let headers = [("content-type", "application/json")];
    let refused = yard.client.call(Method::POST, "/v1/subscriptions", &headers, body).await;
    assert!(refused.text.contains("half of a character"), "{}", refused.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_have_the_years_0000_to_9999() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    for time in [
        "9999-12-31T23:59:59.9999999Z",
        "0000-01-01T00:00:00Z",
        "2022-03-01T10:00:00.1234567890123+05:30",
    ] {
        let mut it = event("t", json!({}));
        it["time"] = time.into();
        yard.client.publish(&it).await.expect(202);
        assert_eq!(endpoint.next().await.json()["time"], time);
        let query = format!("/v1/deliveries?to={}", time.replace('+', "%2B"));
        yard.client.get(&query).await.expect(200);
    }
    let bare = yard.client.get("/v1/deliveries?from=2022-03-01T10:00:00+05:30").await;
    assert!(bare.text.contains("%2B"), "{}", bare.text);
    let replay =
        json!({"from": "0000-01-01T00:00:00Z", "to": "9999-12-31T23:59:59Z", "dry_run": true});
    yard.client.post("/v1/replays", &replay).await.expect(200);
}

/// Answers each request with these bytes.
async fn answering(bytes: &'static [u8]) -> Endpoint {
    Endpoint::raw(async move |mut stream: TcpStream| {
        if crate::neighbours::read_request(&mut stream).await.is_some() {
            let _ = stream.write_all(bytes).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_nearly_right_counts_by_its_status() {
    let yard = Yard::start().await;
    for (at, bytes) in [
        &b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nX-A : a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nX-\xc3\xa9: a\r\nno colon\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let endpoint = answering(bytes).await;
        let made = yard.subscribe(&endpoint, json!({})).await;
        yard.publish("t", json!(at)).await;
        let query = format!("state=delivered&subscription={}", made["id"].as_str().unwrap());
        yard.await_deliveries(&query, 1).await;
        let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
        yard.client.call(Method::DELETE, &path, &[], "").await.expect(204);
    }
}

/// Makes a subscription to a URL in each of the formats.
async fn subscribe_in(client: &Client, format: &str, url: &str) -> (u16, String) {
    let (path, media_type, body) = match format {
        "vonage" => (
            "/vonage/webhooks/subscriptions",
            "application/json",
            json!({"name": uuid::Uuid::now_v7().to_string(), "url": url, "events": ["channel.*"]}),
        ),
        "copernica" => (
            "/copernica/v4/webhooks",
            "application/json",
            json!({"handler": url, "trigger": "click"}),
        ),
        "kajabi" => (
            "/kajabi/v1/hooks",
            "application/vnd.api+json",
            json!({"data": {"type": "hooks", "attributes": {"target_url": url, "event": "purchase"},
                   "relationships": {"site": {"data": {"type": "sites", "id": TENANT}}}}}),
        ),
        "mypreferences" => (
            "/mypreferences/Profiles/v4/acme/Webhooks/Subscriptions",
            "application/json",
            json!({"Name": "x", "Url": url, "Subscriptions": [{"Entity": "Tags", "EventType": "tag.added"}]}),
        ),
        _ => (
            "/v1/subscriptions",
            "application/json",
            json!({"name": "x", "url": url, "filters": [{"type": "x"}]}),
        ),
    };
    let accept = ("accept", "*/*, application/vnd.newvoicemedia.v1+json");
    let headers = [("content-type", media_type), accept];
    let answer = client.call(Method::POST, path, &headers, body.to_string()).await;
    (answer.status, answer.text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_of_an_endpoint_is_written_as_one() {
    let yard = Yard::start().await;
    for format in ["vonage", "copernica", "kajabi", "mypreferences", "cloudevents"] {
        for url in [
            "https:192.88.98.1/a",
            "https:\\\\192.88.98.1\\a",
            "https://192.88.98.1/a\tb",
            "https://0xc0.88.98.1/",
        ] {
            let (status, text) = subscribe_in(&yard.client, format, url).await;
            assert!(matches!(status, 400 | 422), "{format} {url}: {status} {text}");
            assert!(text.contains("https://192.88.98.1/"), "{format} {url}: {text}");
        }
        let pasted = subscribe_in(&yard.client, format, " https://192.88.98.1/b c ").await;
        let taken = pasted.0 < 300;
        assert_eq!(taken, format == "cloudevents", "{format}: {pasted:?}");
        let port = subscribe_in(&yard.client, format, "https://192.88.98.1:0/").await;
        assert!(port.1.contains("port 0"), "{format}: {port:?}");
    }
    // A fragment makes no other endpoint.
    let first = subscribe_in(&yard.client, "mypreferences", "https://192.88.98.1/a#one").await;
    assert_eq!(first.0, 201, "{}", first.1);
    let second = subscribe_in(&yard.client, "mypreferences", "https://192.88.98.1/a#two").await;
    assert_eq!(second.0, 409, "{}", second.1);
}
