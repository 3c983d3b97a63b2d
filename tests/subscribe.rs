//! Our own subscriptions.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::yard::{TENANT, event};
use crate::harness::{Endpoint, Yard};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_refused_holds_up_no_event() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    let body = json!({
        "Name": "twice",
        "Url": endpoint.url("/twice"),
        "Subscriptions": [{"Entity": "Tags", "EventType": "tag.added"}],
    });
    let path = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
    yard.client.post(&path, &body).await.expect(201);
    yard.client.post(&path, &body).await.expect(409);
    yard.publish("t", json!(1)).await;
    assert_eq!(endpoint.next().await.json()["data"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_made_read_replaced_and_deleted() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let body = json!({
        "name": "orders",
        "url": endpoint.url("/orders"),
        "filters": [{"type": "order.*", "attributes": {"region": ["eu", "us"]}}],
    });
    let answer = yard.client.post("/v1/subscriptions", &body).await;
    let location = answer.header("location").to_owned();
    let mut made = answer.expect(201);
    assert_eq!(location, format!("/v1/subscriptions/{}", made["id"].as_str().unwrap()));
    assert!(made.as_object_mut().unwrap().remove("secret").unwrap().is_string());
    let mut read = yard.client.get(&location).await.expect(200);
    assert_eq!(read.as_object_mut().unwrap().remove("filtered").unwrap(), 0);
    assert_eq!(read.as_object_mut().unwrap().remove("quarantine").unwrap(), Value::Null);
    assert_eq!(read, made);
    assert_eq!(made["state"], "active");

    let mut wanted = event("order.paid", json!(1));
    wanted["region"] = "eu".into();
    yard.client.publish(&wanted).await.expect(202);
    yard.publish("order.paid", json!("without a region")).await;
    yard.publish("bill.paid", json!("of another type")).await;
    assert_eq!(endpoint.next().await.json()["id"], wanted["id"]);

    let body = json!({
        "name": "bills",
        "url": endpoint.url("/bills"),
        "filters": [{"type": "bill.paid"}],
        "state": "active",
    });
    let replaced = yard.client.json(Method::PUT, &location, &body).await.expect(200);
    assert_eq!(replaced["name"], "bills");
    assert!(replaced["revision"].as_u64() > made["revision"].as_u64());
    yard.publish("order.paid", json!(1)).await;
    yard.publish("bill.paid", json!(2)).await;
    let receipt = endpoint.next().await;
    assert_eq!((receipt.path.as_str(), receipt.json()["data"].clone()), ("/bills", json!(2)));

    let deleted = yard.client.call(Method::DELETE, &location, &[], "").await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    yard.client.get(&location).await.expect(404);
    yard.client.call(Method::DELETE, &location, &[], "").await.expect(404);
    yard.publish("bill.paid", json!(3)).await;
    yard.await_deliveries("state=delivered", 2).await;
    assert!(endpoint.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_page_by_page() {
    let yard = Yard::start().await;
    let endpoint = Endpoint::start().await;
    let mut made = Vec::new();
    for number in 0..5 {
        let it = yard.subscribe(&endpoint, json!({"name": number.to_string()})).await;
        made.push(it["id"].clone());
    }
    let mut listed = Vec::new();
    let mut next = String::new();
    loop {
        let page = yard.client.get(&format!("/v1/subscriptions?limit=2{next}")).await.expect(200);
        let ids = page["subscriptions"].as_array().unwrap().iter().map(|it| it["id"].clone());
        listed.extend(ids);
        match page["next"].as_str() {
            Some(after) => next = format!("&after={after}"),
            None => break,
        }
    }
    assert_eq!(listed, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_in_a_subscription_is_told_at_once() {
    let yard = Yard::start_with(|it| it.egress_http = Some(false)).await;
    let check = async |body: Value, fields: &[&str]| {
        let answer = yard.client.post("/v1/subscriptions", &body).await;
        assert_eq!((answer.status, answer.fields()), (400, fields.to_vec()), "{body}");
    };
    let good = || json!({"name": "x", "url": "https://192.88.98.1/", "filters": [{"type": "a"}]});
    yard.client.post("/v1/subscriptions", &good()).await.expect(201);
    let with = |name: &str, value: Value| {
        let mut body = good();
        body[name] = value;
        body
    };
    check(json!({}), &["/filters", "/name", "/url"]).await;
    check(with("url", json!("http://example.com")), &["/url"]).await;
    check(with("url", json!("nonsense")), &["/url"]).await;
    check(with("url", json!("https://10.0.0.1/")), &["/url"]).await;
    check(with("url", json!("https://user@192.88.98.1/")), &["/url"]).await;
    check(with("filters", json!([])), &["/filters"]).await;
    check(with("filters", json!([{"type": "a*"}])), &["/filters/0/type"]).await;
    check(
        with("filters", json!([{"type": "a", "attributes": {"Bad": ["x"], "ok": []}}])),
        &["/filters/0/attributes/Bad", "/filters/0/attributes/ok"],
    )
    .await;
    check(with("state", json!("disabled")), &["/state"]).await;
    check(with("secret", json!("whsec_short")), &["/secret"]).await;
    check(with("more", json!(1)), &["/more"]).await;
    check(with("steps", json!([{"plugin": "nothing"}])), &["/steps/0/plugin"]).await;
    let steps = json!([{"plugin": "minimize", "config": {"remove": [7], "x": 1}},
                       {"plugin": "filter"}]);
    check(
        with("steps", steps),
        &["/steps/0/config/remove/0", "/steps/0/config/x", "/steps/1/config/when"],
    )
    .await;

    let media_type = [("content-type", "text/plain")];
    let answer = yard.client.call(Method::POST, "/v1/subscriptions", &media_type, "x").await;
    assert_eq!(answer.expect(415)["code"], "wrong-media-type");
    let json = [("content-type", "application/json")];
    for (body, words) in [("{", "EOF"), (r#"{"name":1,"name":2}"#, "duplicate member `name`")] {
        let answer = yard.client.call(Method::POST, "/v1/subscriptions", &json, body).await;
        assert_eq!(answer.expect(400)["code"], "malformed", "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_pointer_is_refused_by_every_plugin() {
    let yard = Yard::start_with(|it| it.egress_http = Some(false)).await;
    let steps = json!([
        {"plugin": "minimize", "config": {"remove": ["/a", "b", ""]}},
        {"plugin": "alternate-id", "config": {"kind": "k", "put": "a", "remove": ["b/c"]}},
        {"plugin": "filter", "config": {"when": {"any": [
            {"at": "amount", "gt": 1}, {"not": {"at": "/a~2", "exists": true}},
            {"at": "", "exists": true}, {"at": "/a~1b", "exists": true},
        ]}}},
        {"plugin": "redact", "config": {"pointers": ["/a", "b", ""]}},
        {"plugin": "map", "config": {"rules": [
            {"choose": ["/a", "b"]}, {"copy": {"from": "/a", "to": "b"}}, {"remove": "a"}, {"remove": ""},
        ]}},
        {"plugin": "sample", "config": {"percent": 1, "by": "/a~2"}},
        {"plugin": "split", "config": {"at": "orders"}},
    ]);
    let body = json!({"name": "x", "url": "https://192.88.98.1/", "filters": [{"type": "a"}],
                      "steps": steps});
    let refused = yard.client.post("/v1/subscriptions", &body).await.expect(400);
    let errors = refused["errors"].as_array().unwrap().iter();
    let errors: Vec<_> = errors.map(|it| it["field"].as_str().unwrap()).collect();
    let pointers = [
        "/steps/0/config/remove/1",
        "/steps/1/config/put",
        "/steps/1/config/remove/0",
        "/steps/2/config/when/any/0/at",
        "/steps/2/config/when/any/1/not/at",
        "/steps/3/config/pointers/1",
        "/steps/3/config/pointers/2",
        "/steps/4/config/rules/0/choose/1",
        "/steps/4/config/rules/1/copy/to",
        "/steps/4/config/rules/2/remove",
        "/steps/4/config/rules/3/remove",
        "/steps/5/config/by",
        "/steps/6/config/at",
    ];
    assert_eq!(errors, pointers, "{refused}");
    for it in refused["errors"].as_array().unwrap() {
        let detail = it["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("must be ") && detail.contains("a JSON Pointer (RFC 6901)"),
            "{it}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_subscription_skips_or_catches_up() {
    let yard = Yard::start().await;
    let mut skips = Endpoint::start().await;
    let mut catches_up = Endpoint::start().await;
    let one = yard.subscribe(&skips, json!({})).await;
    let two = yard.subscribe(&catches_up, json!({"catch_up": true})).await;
    let path =
        |it: &Value, what| format!("/v1/subscriptions/{}/{what}", it["id"].as_str().unwrap());
    for it in [&one, &two] {
        let paused = yard.client.post(&path(it, "pause"), &json!({})).await.expect(200);
        assert_eq!(paused["state"], "paused");
    }
    for number in 0..3 {
        yard.publish("t", json!(number)).await;
    }
    let held = yard.await_deliveries("state=held", 3).await;
    assert!(held.iter().all(|it| it["subscription"] == two["id"]));
    for it in [&one, &two] {
        yard.client.post(&path(it, "resume"), &json!({})).await.expect(200);
    }
    let mut caught_up = Vec::new();
    for _ in 0..3 {
        caught_up.push(catches_up.next().await.json()["data"].as_u64().unwrap());
    }
    caught_up.sort_unstable();
    assert_eq!(caught_up, [0, 1, 2]);
    yard.publish("t", json!("new")).await;
    assert_eq!(catches_up.next().await.json()["data"], "new");
    assert_eq!(skips.next().await.json()["data"], "new");
    yard.await_deliveries("state=delivered", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_survive_a_restart() {
    let mut yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    yard.restart().await;
    yard.publish("t", json!(1)).await;
    let receipt = endpoint.next().await;
    assert!(receipt.is_signed_with(made["secret"].as_str().unwrap()));
}
