//! Plugins on the way of an event: what they can say, and what happens when they go wrong.

use serde_json::{Value, json};

use crate::harness::plugins::plugin;
use crate::harness::yard::{TENANT, event};
use crate::harness::{Endpoint, Yard};

/// A yard with the plugin `misbehave`.
async fn yard() -> Yard {
    let yard = Yard::start().await;
    yard.upload("misbehave", plugin("misbehave")).await;
    yard
}

fn misbehave(what: &str, with: &str) -> Value {
    json!({"plugin": "misbehave", "config": {"do": what, "with": with}})
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_plugins_work_for_everyone() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.identify("7", &json!({"Loyalty": "L-7"})).await;
    let steps = json!([
        {"plugin": "filter", "config": {"when": {"at": "/amount", "gte": 100}}},
        {"plugin": "minimize", "config": {"remove": ["/lines", "/nothing"]}},
        {"plugin": "alternate-id", "config": {
            "kind": "Loyalty", "put": "/loyalty", "remove": ["/customer"]}},
    ]);
    let made = yard.subscribe(&endpoint, json!({"steps": steps})).await;
    assert_eq!(made["steps"][2]["of"], "subscriber");
    let order = |amount: u64| {
        let data = json!({"amount": amount, "customer": 7, "lines": [1, 2, 3], "id": 9_007_199_254_740_993_u64});
        let mut order = event("order.paid", data);
        order["subject"] = "7".into();
        order
    };
    yard.client.publish(&order(99)).await.expect(202);
    yard.client.publish(&order(100)).await.expect(202);
    let body = endpoint.next().await.json();
    let data = json!({"amount": 100, "id": 9_007_199_254_740_993_u64, "loyalty": "L-7"});
    assert_eq!(body["data"], data);
    assert_eq!(body["subject"], "L-7");
    let dropped = yard.await_deliveries("state=filtered", 1).await;
    assert_eq!(dropped[0]["reason"]["code"], "condition-not-met");
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    assert_eq!(yard.client.get(&path).await.expect(200)["filtered"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_plugins_reshape_redact_and_split() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let steps = json!([
        {"plugin": "sample", "config": {"percent": 100, "by": "subject"}},
        {"plugin": "map", "config": {"rules": [
            {"template": {"at": "/title", "text": "Order {/id} of {/customer/name}"}},
            {"attribute": {"name": "region", "from": "/customer/region"}},
            {"choose": ["/id", "/title", "/customer", "/lines"]},
        ]}},
        {"plugin": "redact", "config": {"fields": ["mail"], "pointers": ["/customer/name"]}},
        {"plugin": "split", "config": {"at": "/lines", "keep": "document"}},
    ]);
    yard.subscribe(&endpoint, json!({"steps": steps})).await;
    let customer = json!({"name": "Ada", "mail": "ada@example.com", "region": "eu"});
    let data = json!({"id": 9_007_199_254_740_993_u64, "customer": customer, "note": "x",
                      "lines": [{"sku": "a", "mail": "b@example.com"}, {"sku": "b"}]});
    let mut order = event("order.paid", data);
    order["subject"] = "7".into();
    yard.client.publish(&order).await.expect(202);
    // Without a key there is no share to be in.
    yard.publish("order.paid", json!({"lines": []})).await;

    let mut bodies = [endpoint.next().await.json(), endpoint.next().await.json()];
    bodies.sort_by_key(|it| it["id"].to_string());
    let lines = [json!({"sku": "a", "mail": "***"}), json!({"sku": "b"})];
    for (body, line) in bodies.iter().zip(lines) {
        let expected = json!({
            "id": 9_007_199_254_740_993_u64,
            "title": "Order 9007199254740993 of Ada",
            "customer": {"name": "***", "mail": "***", "region": "eu"},
            "lines": [line],
        });
        assert_eq!((&body["data"], &body["region"]), (&expected, &json!("eu")));
    }
    let dropped = yard.await_deliveries("state=filtered", 1).await;
    assert_eq!(dropped[0]["reason"]["code"], "no-key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_is_delivered_part_by_part() {
    let yard = yard().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({"steps": [misbehave("split", "3")]})).await;
    let whole = event("t", json!({}));
    yard.client.publish(&whole).await.expect(202);
    let mut parts = Vec::new();
    for _ in 0..3 {
        let receipt = endpoint.next().await;
        let body = receipt.json();
        parts.push((
            body["data"]["part"].as_u64().unwrap(),
            body["id"].as_str().unwrap().to_owned(),
            receipt.header("webhook-id").to_owned(),
        ));
    }
    parts.sort();
    let id = whole["id"].as_str().unwrap();
    for (at, (part, part_id, _)) in parts.iter().enumerate() {
        assert_eq!((*part, part_id), (at as u64, &format!("{id}.{}", at + 1)));
    }
    let delivered = yard.await_deliveries("state=delivered", 3).await;
    for (part, _, webhook_id) in &parts {
        let row = delivered.iter().find(|it| it["part"] == *part).unwrap();
        assert_eq!(row["id"], *webhook_id);
    }
}

/// One way to go wrong: the code that it is shown under, and words of its reason.
#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_go_wrong_has_its_name_and_hurts_nobody_else() {
    let yard = yard().await;
    let mut healthy = Endpoint::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&healthy, json!({})).await;
    let cases = [
        ("fail", "why", "cannot", "why"),
        ("error", "/text", "unexpected-value", "at `/text` of the event's data"),
        ("panic", "hard", "plugin-trap", "on purpose: hard"),
        ("loop", "", "plugin-timeout", "used up its 20 ms"),
        ("eat", "", "plugin-out-of-memory", "33554432 bytes of memory"),
        ("split", "0", "plugin-bad-verdict", "a split into nothing"),
        ("split", "65", "plugin-bad-verdict", "at most 64"),
        ("text", "{not json", "plugin-bad-verdict", "the new data are not JSON"),
        ("flood", "2000000", "plugin-output-too-large", "answered more than"),
        ("put-raw", "{", "plugin-bad-verdict", "is not valid JSON"),
        ("bad-attribute", "", "plugin-bad-verdict", "`Bad Name`"),
        ("no-id", "", "plugin-bad-verdict", "`id` is required"),
        ("search", "100000", "plugin-output-too-large", "answered more than"),
    ];
    let mut subscriptions = Vec::new();
    for (what, with, ..) in cases {
        let steps = json!([misbehave(what, with)]);
        subscriptions.push(yard.subscribe(&endpoint, json!({"steps": steps})).await);
    }
    yard.publish("t", json!({"text": "x"})).await;
    healthy.next().await;
    yard.await_deliveries("state=failed", cases.len()).await;
    for (subscription, (what, _, code, words)) in subscriptions.iter().zip(cases) {
        let query = format!("subscription={}", subscription["id"].as_str().unwrap());
        let delivery = yard.await_deliveries(&query, 1).await.remove(0);
        assert_eq!(delivery["reason"]["code"], code, "{what}: {delivery}");
        let detail = delivery["reason"]["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{what}: {detail}");
        assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("failed"), &json!(0)));
    }
    // A panic says where.
    let panicked = yard.deliveries("state=failed").await;
    let panicked = panicked.iter().find(|it| it["reason"]["code"] == "plugin-trap").unwrap();
    let detail = panicked["reason"]["detail"].as_str().unwrap();
    assert!(detail.contains("misbehave/src/lib.rs:"), "{detail}");

    // And the router goes on as if nothing had been.
    yard.publish("t", json!({"text": "again"})).await;
    assert_eq!(healthy.next().await.json()["data"]["text"], "again");
    assert!(endpoint.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_through_much_data_is_stopped() {
    let yard = yard().await;
    let endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({"steps": [misbehave("search", "300")]})).await;
    yard.publish("t", json!({"much": "x".repeat(200_000)})).await;
    let failed = yard.await_deliveries("state=failed", 1).await;
    assert_eq!(failed[0]["reason"]["code"], "plugin-search-too-large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_has_a_budget_for_all_its_runs() {
    let yard = yard().await;
    let endpoint = Endpoint::start().await;
    // Each of the 384 runs takes about a millisecond, which is far within the budget of a run.
    let mut steps = vec![misbehave("split", "64")];
    steps.extend([(); 6].map(|()| misbehave("spin", "2000000")));
    yard.subscribe(&endpoint, json!({"steps": steps})).await;
    yard.publish("t", json!({})).await;
    let failed = yard.await_deliveries("state=failed", 1).await;
    let reason = &failed[0]["reason"];
    assert_eq!(reason["code"], "plugin-timeout");
    assert!(reason["detail"].as_str().unwrap().contains("125 ms"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_is_a_decision_and_a_chatty_plugin_is_cut_short() {
    let yard = yard().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({"steps": [misbehave("chatter", "")]})).await;
    yard.subscribe(&endpoint, json!({"steps": [misbehave("drop", "no-need")]})).await;
    yard.publish("t", json!(1)).await;
    endpoint.next().await;
    let dropped = yard.await_deliveries("state=filtered", 1).await;
    assert_eq!(dropped[0]["reason"], json!({"code": "no-need"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_sees_what_it_declared_and_nothing_else() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let uploaded = yard.upload("peek", plugin("peek")).await;
    assert_eq!(uploaded["world"], "hookyard:plugin/plugin@1");
    assert_eq!(uploaded["manifest"]["reads"], json!(["/open"]));
    yard.subscribe(&endpoint, json!({"steps": [{"plugin": "peek"}]})).await;
    yard.publish("t", json!({"open": {"wanted": true}, "openly": 1, "secret": 2})).await;
    yard.publish("t", json!({"open": {"wanted": false}})).await;
    let seen = endpoint.next().await.json()["seen"].as_str().unwrap().to_owned();
    assert_eq!(seen, "Some(15) None false 0 None [true, false]");
    let dropped = yard.await_deliveries("state=filtered", 1).await;
    assert_eq!(dropped[0]["reason"]["code"], "not-wanted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_told_for_whom_it_runs() {
    let yard = yard().await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({"steps": [misbehave("reveal", "/a")]})).await;
    yard.publish("t", json!({"a": [1, {"b": 2}]})).await;
    let seen = endpoint.next().await.json()["seen"].clone();
    assert_eq!(seen, format!("[1,{{\"b\":2}}] 17 cloudevents {}", made["id"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_plugins_take_long_waits_for_itself() {
    let yard = yard().await;
    let endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({"steps": [misbehave("loop", "")]})).await;
    let token = yard.token(Some("other"), "admin").await;
    let other = yard.client.with_token(Some(&token));
    let mut others = Endpoint::start().await;
    let body = json!({"name": "x", "url": others.url("/x"), "filters": [{"type": "*"}]});
    other.post("/v1/subscriptions", &body).await.expect(201);

    let slow: Vec<Value> = (0..300).map(|number| event("t", json!(number))).collect();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let method = reqwest::Method::POST;
    yard.client.call(method, "/v1/events", &headers, json!(slow).to_string()).await.expect(202);
    other.publish(&event("t", json!(1))).await.expect(202);
    others.next().await;
    // Six seconds of looping are still to come for the one, and the other has its event.
    let failed = yard.deliveries("state=failed").await;
    assert!(failed.len() < 300, "the other tenant waited for all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_follows_a_name_or_stays_with_a_digest() {
    let yard = Yard::start().await;
    let mut follows = Endpoint::start().await;
    let mut stays = Endpoint::start().await;
    let first = yard.upload("mine", plugin("misbehave")).await;
    let config = json!({"do": "pass", "with": ""});
    let step = |plugin: &Value| json!({"steps": [{"plugin": plugin, "config": config}]});
    let follower = yard.subscribe(&follows, step(&json!("mine"))).await;
    yard.subscribe(&stays, step(&first["digest"])).await;

    // The new version does not take what the follower asks of it.
    let answer = yard.client.upload("mine", plugin("peek")).await;
    let problem = answer.expect(409);
    assert_eq!(problem["code"], "breaks-subscriptions");
    let field = problem["errors"][0]["field"].as_str().unwrap();
    assert!(field.starts_with(follower["id"].as_str().unwrap()), "{field}");
    let versions = yard.client.get("/v1/plugins/mine/versions").await.expect(200);
    assert_eq!(versions["versions"].as_array().unwrap().len(), 1);

    // One that does: the same program with a section more, which makes it another file.
    let mut file = plugin("misbehave");
    file.extend([0, 5, 4, b'm', b'o', b'r', b'e']);
    let second = yard.upload("mine", file).await;
    assert_ne!(second["digest"], first["digest"]);
    let path = format!("/v1/subscriptions/{}", follower["id"].as_str().unwrap());
    let now = yard.client.get(&path).await.expect(200);
    assert_eq!(now["steps"][0]["digest"], second["digest"]);
    assert_ne!(now["rendering"], follower["rendering"]);
    yard.publish("t", json!(1)).await;
    follows.next().await;
    stays.next().await;
    let versions = yard.client.get("/v1/plugins/mine/versions").await.expect(200);
    let current: Vec<_> =
        versions["versions"].as_array().unwrap().iter().map(|it| it["current"].clone()).collect();
    assert_eq!(current, [true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_set_in_any_format() {
    let yard = yard().await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let path = format!("/v1/subscriptions/{}/steps", made["id"].as_str().unwrap());
    let put = async |steps: Value| {
        yard.client.json(reqwest::Method::PUT, &path, &json!({"steps": steps})).await
    };
    let answer = put(json!([misbehave("dance", "")])).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["/steps/0/config/do"]));
    put(json!([misbehave("text", "\"changed\"")])).await.expect(200);
    yard.publish("t", json!("as it was")).await;
    assert_eq!(endpoint.next().await.json()["data"], "changed");
    put(json!([])).await.expect(200);
    yard.publish("t", json!("as it was")).await;
    assert_eq!(endpoint.next().await.json()["data"], "as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_plugin_does_not_stand_in_for_a_formats_own() {
    let yard = yard().await;
    let mut endpoint = Endpoint::start().await;
    yard.upload("minimize", plugin("misbehave")).await;
    let body = json!({
        "Name": "minimised",
        "Url": endpoint.url("/hook"),
        "State": "Active",
        "IsMinimized": true,
        "Subscriptions": [{"Entity": "Tags", "EventType": "tag.added"}],
    });
    let path = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
    yard.client.post(&path, &body).await.expect(201);
    let mut event = event("tag.added", json!({"ProfileId": 1, "Data": [{"Tag": "vip"}]}));
    event["format"] = "mypreferences".into();
    yard.client.publish(&event).await.expect(202);
    let received = endpoint.next().await.json();
    assert_eq!((&received["ProfileId"], received.get("Data")), (&json!(1), None));
}
