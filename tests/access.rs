//! Tokens, scopes and tenants.

use std::process::{Command, Output};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::yard::{TENANT, event};
use crate::harness::{Endpoint, Yard};

/// The binary, on the store of a yard.
fn hookyard(yard: &Yard, arguments: &[&str]) -> Output {
    let store = format!("sqlite:{}", yard.folder().join("store.sqlite").display());
    Command::new(env!("CARGO_BIN_EXE_hookyard"))
        .args(arguments)
        .env("HOOKYARD_STORE", store)
        .env("HOOKYARD_KEY", base64_key())
        .output()
        .unwrap()
}

fn base64_key() -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.encode([7; 32])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_for_a_token() {
    let yard = Yard::start().await;
    let stranger = yard.client.with_token(None);
    let wrong = yard.client.with_token(Some("hky_wrong"));
    let id = uuid::Uuid::nil();
    let routes = [
        (Method::POST, "/v1/events".to_owned()),
        (Method::GET, format!("/v1/events/{id}")),
        (Method::PUT, "/v1/identities/1".to_owned()),
        (Method::GET, "/v1/identities/1".to_owned()),
        (Method::POST, "/v1/subscriptions".to_owned()),
        (Method::GET, "/v1/subscriptions".to_owned()),
        (Method::GET, format!("/v1/subscriptions/{id}")),
        (Method::PUT, format!("/v1/subscriptions/{id}")),
        (Method::DELETE, format!("/v1/subscriptions/{id}")),
        (Method::POST, format!("/v1/subscriptions/{id}/pause")),
        (Method::POST, format!("/v1/subscriptions/{id}/resume")),
        (Method::PUT, format!("/v1/subscriptions/{id}/steps")),
        (Method::PUT, format!("/v1/subscriptions/{id}/pace")),
        (Method::POST, format!("/v1/subscriptions/{id}/secret")),
        (Method::POST, format!("/v1/subscriptions/{id}/test")),
        (Method::POST, format!("/v1/subscriptions/{id}/compare")),
        (Method::POST, format!("/v1/subscriptions/{id}/shadow")),
        (Method::GET, "/v1/plugins".to_owned()),
        (Method::POST, "/v1/plugins/x/versions".to_owned()),
        (Method::GET, "/v1/plugins/x/versions".to_owned()),
        (Method::GET, "/v1/deliveries".to_owned()),
        (Method::GET, format!("/v1/deliveries/{id}")),
        (Method::POST, format!("/v1/deliveries/{id}/reproduce")),
        (Method::POST, "/v1/replays".to_owned()),
        (Method::GET, "/v1/replays".to_owned()),
        (Method::GET, format!("/v1/replays/{id}")),
        (Method::POST, format!("/v1/replays/{id}/cancel")),
    ];
    // A token that is good for nothing.
    let useless = yard.token(Some(TENANT), "nothing").await;
    let useless = yard.client.with_token(Some(&useless));
    for (method, path) in routes {
        let answer = stranger.call(method.clone(), &path, &[], "").await;
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{method} {path}");
        assert_eq!(answer.expect(401)["code"], "no-token");
        let answer = wrong.call(method.clone(), &path, &[], "").await;
        assert_eq!(answer.expect(401)["code"], "bad-token", "{method} {path}");
        let answer = useless.call(method.clone(), &path, &[], "").await;
        assert_eq!(answer.expect(403)["code"], "missing-scope", "{method} {path}");
    }
    assert_eq!(stranger.get("/healthz").await.status, 200);
    assert_eq!(stranger.get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_is_good_for_its_calls_alone() {
    let yard = Yard::start().await;
    let check = async |scope: &str, allowed: [bool; 4]| {
        let client = yard.client.with_token(Some(&yard.token(Some(TENANT), scope).await));
        let answers = [
            client.publish(&event("t", json!(1))).await.status,
            client.get("/v1/subscriptions").await.status,
            client.get("/v1/plugins").await.status,
            client.get("/v1/deliveries").await.status,
        ];
        for (status, allowed) in answers.into_iter().zip(allowed) {
            assert_eq!(status != 403, allowed, "{scope}: {answers:?}");
        }
    };
    check("events:write", [true, false, false, false]).await;
    check("subscriptions:read", [false, true, false, false]).await;
    check("plugins:read", [false, false, true, false]).await;
    check("deliveries:read", [false, false, false, true]).await;
    check("subscriptions:write plugins:write", [false; 4]).await;
    check("admin", [true; 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_crosses_tenants() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let subscription = yard.subscribe(&endpoint, json!({})).await;
    let subscription = subscription["id"].as_str().unwrap();
    let event_id = yard.publish("t", json!(1)).await;
    endpoint.next().await;
    let delivery = yard.await_deliveries("state=delivered", 1).await[0]["id"].clone();
    yard.upload("mine", crate::harness::plugins::plugin("misbehave")).await;

    let other = yard.client.with_token(Some(&yard.token(Some("other"), "admin").await));
    let absent = uuid::Uuid::now_v7().to_string();
    for path in ["/v1/subscriptions/", "/v1/events/", "/v1/deliveries/"] {
        let id = match path {
            "/v1/subscriptions/" => subscription,
            "/v1/events/" => &event_id,
            _ => delivery.as_str().unwrap(),
        };
        let theirs = other.get(&format!("{path}{id}")).await;
        let nobodys = other.get(&format!("{path}{absent}")).await;
        assert_eq!((theirs.status, &theirs.text), (404, &nobodys.text));
    }
    for (method, path) in [
        (Method::DELETE, format!("/v1/subscriptions/{subscription}")),
        (Method::POST, format!("/v1/subscriptions/{subscription}/pause")),
        (Method::POST, format!("/v1/subscriptions/{subscription}/secret")),
        (Method::GET, "/v1/plugins/mine/versions".to_owned()),
        (Method::GET, "/v1/subscriptions?tenant=acme".to_owned()),
    ] {
        let answer = other.call(method, &path, &[], "").await;
        assert!([400, 404].contains(&answer.status), "{path}: {}", answer.text);
    }
    let lists = ["/v1/subscriptions", "/v1/deliveries"];
    for list in lists {
        let found = other.get(list).await.expect(200);
        assert!(
            found.as_object().unwrap().values().all(|it| it.as_array().is_none_or(Vec::is_empty))
        );
    }
    let plugins = other.get("/v1/plugins").await.expect(200);
    let names = |it: &Value| it.as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    let names: Vec<Value> = names(&plugins["plugins"]);
    let standard =
        ["alternate-id", "filter", "javascript", "map", "minimize", "redact", "sample", "split"];
    assert_eq!(names, standard);

    // An event of theirs with the very id of ours is another event, and reaches nobody here.
    other.publish(&event("t", json!(2))).await.expect(202);
    let steps = json!({"steps": [{"plugin": "mine", "config": {"do": "pass"}}]});
    let body = json!({"name": "x", "url": endpoint.url("/x"), "filters": [{"type": "none"}]});
    let own = other.post("/v1/subscriptions", &body).await.expect(201);
    let path = format!("/v1/subscriptions/{}/steps", own["id"].as_str().unwrap());
    let answer = other.json(Method::PUT, &path, &steps).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["/steps/0/plugin"]));
    assert!(endpoint.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_acts_for_the_tenant_that_a_call_names() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    let operator = yard.client.with_token(Some(&yard.token(None, "admin").await));
    let mut it = event("t", json!(1));
    let answer = operator.publish(&it).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["tenant"]));
    it["tenant"] = "nobody".into();
    let answer = operator.publish(&it).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["tenant"]));
    it["tenant"] = TENANT.into();
    operator.publish(&it).await.expect(202);
    assert_eq!(endpoint.next().await.json()["tenant"], TENANT);
    let list = operator.get("/v1/subscriptions?tenant=acme").await.expect(200);
    assert_eq!(list["subscriptions"].as_array().unwrap().len(), 1);
    operator.get("/v1/subscriptions").await.expect(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_listed_and_revoked_beside_a_running_router() {
    let yard = Yard::start().await;
    let made = hookyard(
        &yard,
        &[
            "token",
            "create",
            "--tenant",
            "new",
            "--scopes",
            "events:write,deliveries:read",
            "--json",
        ],
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let client = yard.client.with_token(made["token"].as_str());
    client.publish(&event("t", json!(1))).await.expect(202);

    let listed = hookyard(&yard, &["token", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let id = made["id"].as_str().unwrap();
    let line = listed.lines().find(|line| line.starts_with(id)).unwrap();
    assert!(line.ends_with("valid  new  events:write,deliveries:read"), "{line}");
    assert!(!listed.contains(made["token"].as_str().unwrap()));

    assert!(hookyard(&yard, &["token", "revoke", id]).status.success());
    let until = tokio::time::Instant::now() + crate::harness::PATIENCE;
    while client.get("/v1/deliveries").await.status != 401 {
        assert!(tokio::time::Instant::now() < until, "the token still works");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    let unknown = hookyard(&yard, &["token", "create", "--tenant", "x", "--scopes", "all"]);
    assert!(!unknown.status.success());
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("`all` is not a scope; the scopes are events:write"), "{said}");
    assert!(
        !hookyard(&yard, &["token", "revoke", &uuid::Uuid::nil().to_string()]).status.success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_when_it_was_to_end() {
    let yard = Yard::start().await;
    let expired = hookyard(
        &yard,
        &["token", "create", "--tenant", TENANT, "--scopes", "admin", "--days", "0"],
    );
    let text = String::from_utf8(expired.stdout).unwrap();
    let client = yard.client.with_token(Some(text.trim()));
    assert_eq!(client.get("/v1/plugins").await.expect(401)["code"], "bad-token");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_to_be_read() {
    let yard = Yard::start().await;
    let endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let secret = made["secret"].as_str().unwrap();
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    for path in [path.as_str(), "/v1/subscriptions"] {
        let read = yard.client.get(path).await;
        assert!(!read.text.contains(secret) && !read.text.contains("whsec"), "{}", read.text);
    }
    let token = yard.client.token().unwrap().as_bytes();
    let raw = base64_raw(secret);
    for entry in std::fs::read_dir(yard.folder()).unwrap() {
        let file = std::fs::read(entry.unwrap().path()).unwrap();
        for hidden in [secret.as_bytes(), &raw, token] {
            assert!(!file.windows(hidden.len()).any(|it| it == hidden), "a secret is in the file");
        }
    }
}

fn base64_raw(secret: &str) -> Vec<u8> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap()
}
