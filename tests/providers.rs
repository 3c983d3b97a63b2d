//! Deliveries of the providers' formats, verified by what their receivers use.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::peers::{self, parse_str};
use crate::harness::yard::TENANT;
use crate::harness::{Endpoint, Receipt, Yard, root};

const VONAGE: &str = "application/vnd.newvoicemedia.v1+json";
const JSON_API: &str = "application/vnd.api+json";

/// A sample event, with an id of its own and other attributes.
fn sample(name: &str, id: &str, attributes: Value) -> Value {
    let file = root().join(format!("schemas/{name}.json"));
    let mut event: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    event["id"] = id.into();
    for (name, value) in attributes.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

/// The paths at which deliveries arrive, in order, and nothing beside them.
async fn paths(yard: &Yard, endpoint: &mut Endpoint, count: usize) -> Vec<String> {
    yard.await_deliveries("state=delivered", count).await;
    let mut paths: Vec<_> = endpoint.arrived().into_iter().map(|it| it.path).collect();
    paths.sort();
    paths
}

async fn kajabi_hook(yard: &Yard, url: &str, event: &str, resource: Value) -> Value {
    let body = json!({"data": {
        "type": "hooks",
        "attributes": {"target_url": url, "event": event, "resource_id": resource},
        "relationships": {"site": {"data": {"id": TENANT, "type": "sites"}}},
    }});
    let headers = [("content-type", JSON_API), ("accept", JSON_API)];
    let all = "/kajabi/v1/hooks";
    yard.client.call(Method::POST, all, &headers, body.to_string()).await.expect(201)
}

#[tokio::test(flavor = "multi_thread")]
async fn kajabi_delivers_to_the_hooks_of_a_resource_and_of_all() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let mut documents = Vec::new();
    for (path, event, resource) in [
        ("/any", "tag_added", json!(null)),
        ("/this", "tag_added", json!("7")),
        ("/that", "tag_added", json!(8)),
        ("/removed", "tag_removed", json!(null)),
    ] {
        documents.push(kajabi_hook(&yard, &endpoint.url(path), event, resource).await);
    }
    documents.push(yard.client.get("/kajabi/v1/hooks?page[size]=2").await.expect(200));
    documents.push(yard.client.get("/kajabi/v1/hooks/999").await.expect(404));
    let count = documents.len();
    assert_eq!(peers::check("json-api", &json!({"documents": documents})), count);

    let event = sample("kajabi/samples/tag_added", "1", json!({"resourceid": "7"}));
    yard.client.publish(&event).await.expect(202);
    let expected = json!({
        "id": event["subject"],
        "event": "tag_added",
        "payload": event["data"],
    });
    for _ in 0..2 {
        let receipt = endpoint.next().await;
        assert!(["/any", "/this"].contains(&receipt.path.as_str()), "{}", receipt.path);
        assert_eq!(receipt.json(), expected);
        assert_eq!(receipt.header("content-type"), "application/json");
        assert!(!receipt.headers.contains_key("webhook-signature"));
    }

    // Signed once somebody has asked for a secret.
    let all = yard.client.get("/v1/subscriptions").await.expect(200);
    let removed = all["subscriptions"].as_array().unwrap().last().unwrap()["id"].clone();
    let path = format!("/v1/subscriptions/{}/secret", removed.as_str().unwrap());
    let secret = yard.client.post(&path, &json!({})).await.expect(201)["secret"].clone();
    let event = sample("kajabi/samples/tag_removed", "2", json!({}));
    yard.client.publish(&event).await.expect(202);
    let receipt = endpoint.next().await;
    let found =
        peers::check("standard-webhooks", &peers::delivery(&receipt, &json!({"secret": secret})));
    assert_eq!(found["event"], "tag_removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn vision6_speaks_with_a_plain_client_and_delivers_to_lists() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let key = yard.token(Some(TENANT), "full_access").await;
    let details = |path: &str, list: u64| json!({"object": "contact", "event": "unsubscribed", "list_id": list, "url": endpoint.url(path)});
    let call = |method: &str, param: Value| json!([method, key, param]);
    let answers = peers::check(
        "json-rpc",
        &json!({
            "url": yard.client.url("/vision6/api/jsonrpcserver.php"),
            "calls": [
                call("addWebhook", details("/all", 0)),
                call("addWebhook", details("/this", 1791)),
                call("addWebhook", details("/that", 1792)),
                call("addWebhook", details("/that", 1792)),
                call("countWebhooks", json!([])),
            ],
        }),
    );
    let results: Vec<_> = answers.as_array().unwrap().iter().map(|it| &it["result"]).collect();
    assert_eq!(results, [&json!(1), &json!(2), &json!(3), &Value::Null, &json!(3)]);
    assert_eq!(answers[3]["error"]["code"], 351);

    let event = sample(
        "vision6/samples/contact.unsubscribed",
        "1",
        json!({"listid": "1791", "data": {"list_id": 1791, "contact_id": 142},
               "time": "2017-06-04T23:20:31Z"}),
    );
    yard.client.publish(&event).await.expect(202);
    let expected = r#"[{"list_id":1791,"contact_id":142,"object":"contact","event":"unsubscribed","timestamp":1496618431}]"#;
    for _ in 0..2 {
        let receipt = endpoint.next().await;
        assert!(["/all", "/this"].contains(&receipt.path.as_str()), "{}", receipt.path);
        assert_eq!(receipt.body, expected);
        assert_eq!(receipt.header("content-type"), "application/json");
        assert!(!receipt.headers.contains_key("webhook-signature"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vision6_takes_a_redirect_for_a_success_and_removes_what_fails_for_good() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let details = json!({"object": "list", "event": "created", "url": endpoint.url("/hook")});
    let body = json!({"id": 1, "method": "addWebhook", "params": [yard.client.token(), details]});
    yard.client.post("/vision6/api/jsonrpcserver", &body).await.expect(200);

    let publish = async |id: &str| {
        let event = sample("vision6/samples/list.created", id, json!({}));
        yard.client.publish(&event).await.expect(202);
    };
    endpoint.reply([(302, vec![("location", "/elsewhere".to_owned())])]);
    publish("1").await;
    endpoint.next().await;
    yard.await_deliveries("state=delivered", 1).await;
    endpoint.reply([(410, vec![])]);
    publish("2").await;
    endpoint.next().await;
    // Not even 410 is the end: there are five more attempts.
    let retrying = yard.await_deliveries("state=retrying", 1).await;
    assert_eq!(retrying[0]["reason"]["code"], "http-410");

    // What the end of the schedule has the dispatcher do.
    let subscriptions = yard.client.get("/v1/subscriptions").await.expect(200);
    let id = subscriptions["subscriptions"][0]["id"].as_str().unwrap().parse().unwrap();
    hookyard::manage::subscriptions::stop_delivering(yard.app(), id, None).await.unwrap();
    yard.await_deliveries("state=cancelled", 1).await;
    let body = json!({"id": 2, "method": "countWebhooks", "params": [yard.client.token(), []]});
    let count = yard.client.post("/vision6/api/jsonrpcserver", &body).await.expect(200);
    assert_eq!(count["result"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn copernica_delivers_a_signed_form() {
    let yard =
        Yard::start_with(|it| it.copernica_key_domain = Some("keys.example.com".into())).await;
    let mut endpoint = Endpoint::start().await;
    let body = json!({"handler": endpoint.url("/hook?a=b%20c"), "trigger": "create"});
    yard.client.post("/copernica/v4/webhooks", &body).await.expect(201);
    let event = sample("copernica/samples/create", "cp-1", json!({}));
    yard.client.publish(&event).await.expect(202);
    let receipt = endpoint.next().await;
    assert_eq!(receipt.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(receipt.header("x-copernica-id"), "account-acme");

    let data = &event["data"];
    let text = |it: &Value| it.as_str().map_or_else(|| it.to_string(), str::to_owned);
    let texts = |it: &Value| -> Value {
        let members = it.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
        let flag =
            |it: &Value| it.as_bool().map_or_else(|| text(it), |it| u8::from(it).to_string());
        members.map(|(name, value)| (name.clone(), Value::from(flag(value)))).collect()
    };
    let expected = json!({
        "type": "create",
        "parameters": texts(&data["parameters"]),
        "timestamp": "2026-01-31 12:00:00",
        "time": "1769860800",
        "profile": "123",
        "database": "1",
        "created": data["created"],
        "modified": data["modified"],
        "fields": texts(&data["fields"]),
        "interests": data["interests"],
        "id": "cp-1",
    });
    assert_eq!(parse_str(&receipt.body), expected);

    let keys = yard.client.with_token(Some(&yard.token(None, "admin").await));
    let keys = keys.get("/v1/signing-keys").await.expect(200);
    let records = keys["records"].as_array().unwrap();
    assert_eq!(records.len(), 2);
    let key = records[0]["value"].as_str().unwrap().split("p=").nth(1).unwrap();
    let more = json!({"key": key, "path": "/hook?a=b%20c"});
    let found = peers::check("http-signature", &peers::delivery(&receipt, &more));
    let key_id = found["keyId"].as_str().unwrap();
    assert_eq!(key_id, records[0]["name"]);
    assert!(key_id.ends_with("._domainkey.keys.example.com"), "{key_id}");
    // They are nobody's business but the operator's.
    yard.client.get("/v1/signing-keys").await.expect(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn copernica_delivers_interests_as_a_list_or_as_a_map() {
    use hookyard::formats::InterestShape::{List, Map};

    let mut yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let body = json!({"handler": endpoint.url("/hook"), "trigger": "create"});
    yard.client.post("/copernica/v4/webhooks", &body).await.expect(201);
    for (shape, sent, delivered) in [
        (List, json!(["blue"]), json!(["blue"])),
        (List, json!({"blue": 1, "red": 0, "a b": true}), json!(["a b", "blue"])),
        (Map, json!(["blue"]), json!({"blue": "1"})),
        (Map, json!({"blue": 1, "red": 0}), json!({"blue": "1", "red": "0"})),
    ] {
        yard.change_settings(|it| it.copernica_interests = Some(shape)).await;
        let id = uuid::Uuid::now_v7().to_string();
        let mut event = sample("copernica/samples/create", &id, json!({}));
        event["data"]["interests"] = sent;
        yard.client.publish(&event).await.expect(202);
        assert_eq!(parse_str(&endpoint.next().await.body)["interests"], delivered);
    }
    let mut wrong = sample("copernica/samples/create", "wrong", json!({}));
    wrong["data"]["interests"] = json!({"blue": "yes"});
    assert_eq!(yard.client.publish(&wrong).await.fields(), ["/data/interests/blue"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn copernica_attempts_are_signed_anew() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let body = json!({"handler": endpoint.url("/hook"), "trigger": "open"});
    yard.client.post("/copernica/v4/webhooks", &body).await.expect(201);
    endpoint.reply([(500, vec![])]);
    let event = sample("copernica/samples/open", "1", json!({}));
    yard.client.publish(&event).await.expect(202);
    let (first, second) = (endpoint.next().await, endpoint.next().await);
    assert_eq!(first.body, second.body);
    assert_ne!(first.header("x-nonce"), second.header("x-nonce"));
    assert_ne!(first.header("date"), second.header("date"));
    assert_ne!(first.header("signature"), second.header("signature"));
    // The id of an email's event is that of the message.
    assert_eq!(parse_str(&second.body)["id"], event["subject"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn copernica_delivers_what_was_selected() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    for (path, more) in [
        ("/all", ""),
        ("/database", "&database=1"),
        ("/other-database", "&database=2"),
        ("/collection", "&database=1&collection=5"),
        ("/caller", "&callers[]=ms&callers[]=publisher"),
        ("/other-caller", "&callers%5B%5D=ms"),
    ] {
        let body = format!("trigger=update&handler={}{more}", endpoint.url(path));
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let all = "/copernica/v4/webhooks";
        let made = yard.client.call(Method::POST, all, &headers, body).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let attributes = json!({"database": "1", "caller": "publisher"});
    let event = sample("copernica/samples/update", "1", attributes);
    yard.client.publish(&event).await.expect(202);
    assert_eq!(paths(&yard, &mut endpoint, 3).await, ["/all", "/caller", "/database"]);
    let attributes = json!({"database": "1", "collection": "5", "caller": "ms"});
    let event = sample("copernica/samples/update.subprofile", "2", attributes);
    yard.client.publish(&event).await.expect(202);
    let expected = ["/all", "/caller", "/collection", "/database", "/other-caller"];
    assert_eq!(paths(&yard, &mut endpoint, 8).await, expected);
}

async fn vonage_subscribe(yard: &Yard, body: &Value) -> Value {
    let headers = [("content-type", "application/json"), ("accept", VONAGE)];
    let all = "/vonage/webhooks/subscriptions";
    yard.client.call(Method::POST, all, &headers, body.to_string()).await.expect(200)
}

fn verify_jwt(receipt: &Receipt, secret: &Value) -> Value {
    peers::check("jwt", &peers::delivery(receipt, &json!({"secret": secret})))
}

#[tokio::test(flavor = "multi_thread")]
async fn vonage_delivers_cloudevents_with_a_jwt() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let body = json!({"name": "calls", "url": endpoint.url("/calls"), "events": ["channel.*"]});
    let made = vonage_subscribe(&yard, &body).await;
    // 206 is no success, and each attempt has a token of its own.
    endpoint.reply([(206, vec![])]);
    let event = sample("vonage/samples/channel.ended.v1", "1", json!({"region": "emea"}));
    yard.client.publish(&event).await.expect(202);
    let (first, second) = (endpoint.next().await, endpoint.next().await);
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("content-type"), "application/cloudevents+json");
    let expected = json!({
        "specversion": "1.0",
        "type": "channel.ended.v1",
        "id": "1",
        "source": event["source"],
        "subject": event["subject"],
        "time": event["time"],
        "datacontenttype": "application/json",
        "data": event["data"],
    });
    assert_eq!(first.json(), expected);
    let claims = [&first, &second].map(|it| verify_jwt(it, &made["secret"]));
    for it in &claims {
        assert_eq!(it["exp"].as_i64().unwrap() - it["iat"].as_i64().unwrap(), 300);
    }
    assert!(claims[0]["iat"].as_i64() < claims[1]["iat"].as_i64());

    // A secret that is changed signs at once, and alone.
    let secret = json!("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0NTY=");
    let one =
        format!("/vonage/webhooks/subscriptions/{}", made["subscriptionId"].as_str().unwrap());
    let headers = [("content-type", "application/json"), ("accept", VONAGE)];
    let patch = json!({"secret": secret}).to_string();
    let patched = yard.client.call(Method::PATCH, &one, &headers, patch).await.expect(200);
    assert_eq!(patched.get("secret"), None);
    yard.client
        .publish(&sample("vonage/samples/channel.held.v1", "2", json!({})))
        .await
        .expect(202);
    verify_jwt(&endpoint.next().await, &secret);
}

#[tokio::test(flavor = "multi_thread")]
async fn vonage_patterns_select() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    for (path, events) in [
        ("/exact", json!(["agent.presencechanged.v1"])),
        ("/entity", json!(["agent.*"])),
        ("/version", json!(["*.v1"])),
        ("/middle", json!(["agent.*.v1"])),
        ("/all", json!(["*", "agent.*"])),
        ("/other-version", json!(["*.v0", "channel.*"])),
    ] {
        let body = json!({"name": path, "url": endpoint.url(path), "events": events});
        vonage_subscribe(&yard, &body).await;
    }
    let disabled =
        json!({"name": "off", "url": endpoint.url("/off"), "events": ["*"], "enabled": false});
    vonage_subscribe(&yard, &disabled).await;
    let event = sample("vonage/samples/agent.presencechanged.v1", "1", json!({}));
    yard.client.publish(&event).await.expect(202);
    let expected = ["/all", "/entity", "/exact", "/middle", "/version"];
    assert_eq!(paths(&yard, &mut endpoint, 5).await, expected);
}

#[test]
fn formats_retry_as_their_providers_do() {
    let formats =
        hookyard::formats::Formats::new(&hookyard::config::Given::default().settle().choices());
    let total = |name: &str| {
        let policy = formats.get(name).unwrap().policy();
        (policy.schedule.len(), policy.schedule.iter().sum::<Duration>())
    };
    // Five retries after the first attempt.
    assert_eq!(total("vision6").0, 6);
    // "For up to 24 hours."
    assert_eq!(total("vonage").0, 12);
    assert!(total("vonage").1.mul_f64(1.2) < Duration::from_hours(24));
    for (name, successes, failures) in [
        ("vision6", &[200, 302, 399, 600][..], &[400, 404, 410, 599][..]),
        ("vonage", &[200, 205], &[199, 206, 299, 302, 404, 500]),
        ("kajabi", &[200, 299], &[302, 400]),
        ("copernica", &[200, 204], &[301, 500]),
        ("mypreferences", &[200, 204], &[301, 500]),
    ] {
        let format = formats.get(name).unwrap();
        assert!(successes.iter().all(|it| format.is_success(*it)), "{name}");
        assert!(!failures.iter().any(|it| format.is_success(*it)), "{name}");
    }
}
