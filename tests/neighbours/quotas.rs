//! How much a tenant may have of what it makes by itself: each number is shown, and refused beyond its bound.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::yard::TENANT;
use crate::harness::{Endpoint, Yard};

/// What a tenant has and may have of one thing.
async fn usage(client: &Client, name: &str) -> (u64, u64) {
    let all = client.get(&format!("/v1/tenants/{TENANT}/usage")).await.expect(200);
    let number =
        |of: &str| all["usage"][name][of].as_u64().unwrap_or_else(|| panic!("{name}: {all}"));
    (number("used"), number("max"))
}

fn own(url: &str) -> Value {
    json!({"name": "test", "url": url, "filters": [{"type": "*"}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_so_many_subscriptions_of_all_formats_together() {
    let yard = Yard::start_with(|it| it.subscriptions_max = Some(2)).await;
    let endpoint = Endpoint::start().await;
    let url = endpoint.url("/hook");
    let first = yard.client.post("/v1/subscriptions", &own(&url)).await.expect(201);
    let hook = json!({"handler": url, "trigger": "create"});
    yard.client.post("/copernica/v4/webhooks", &hook).await.expect(201);

    let refused = yard.client.post("/v1/subscriptions", &own(&url)).await;
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("quota-exceeded")));
    assert!(
        refused.text.contains("3 subscriptions, and 2 is the most (`subscriptions-max`)"),
        "{refused:?}"
    );
    let refused = yard.client.post("/copernica/v4/webhooks", &hook).await;
    assert!(!(200..300).contains(&refused.status), "{refused:?}");
    assert!(refused.text.contains("`subscriptions-max`"), "{refused:?}");
    assert_eq!(usage(&yard.client, "subscriptions").await, (2, 2));

    let other =
        yard.client.with_token(Some(&yard.token(Some("other"), "subscriptions:write").await));
    other.post("/v1/subscriptions", &own(&url)).await.expect(201);
    let path = format!("/v1/subscriptions/{}", first["id"].as_str().unwrap());
    yard.client.call(Method::DELETE, &path, &[], "").await.expect(204);
    yard.client.post("/copernica/v4/webhooks", &hook).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_grow_are_refused_and_those_that_shrink_are_not() {
    let mut yard = Yard::start_with(|it| it.subscription_bytes_max = Some(15_000)).await;
    let endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    let filters = |bytes: usize| {
        let source = |number: usize| json!({"type": format!("{number}.{}", "s".repeat(200))});
        let mut body = own(&endpoint.url("/hook"));
        body["filters"] = (0..bytes / 220).map(source).collect();
        body
    };
    yard.client.json(Method::PUT, &path, &filters(12_000)).await.expect(200);
    let refused = yard.client.json(Method::PUT, &path, &filters(18_000)).await;
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("quota-exceeded")));
    let (used, max) = usage(&yard.client, "subscription_bytes").await;
    assert!((11_000..15_000).contains(&used) && max == 15_000, "{used}");

    yard.change_settings(|it| it.subscription_bytes_max = Some(5_000)).await;
    yard.client.json(Method::PUT, &path, &filters(9_000)).await.expect(200);
    let refused = yard.client.json(Method::PUT, &path, &filters(11_000)).await;
    assert_eq!(refused.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_and_profiles_come_to_an_end() {
    let yard = Yard::start_with(|it| {
        it.tokens_max = Some(4);
        it.identities_max = Some(3);
    })
    .await;
    let (id, secret) = yard.client_credentials(Some(TENANT), "view:contacts", None).await;
    let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let mut statuses = Vec::new();
    while statuses.len() < 5 && statuses.last() != Some(&429) {
        let path = "/kajabi/v1/oauth/token";
        let answer = yard.client.call(Method::POST, path, &headers, form.clone()).await;
        statuses.push(answer.status);
        if answer.status == 429 {
            assert_eq!(answer.body["error"], "temporarily_unavailable");
            assert!(answer.text.contains("`tokens-max`"), "{answer:?}");
        }
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    assert_eq!(usage(&yard.client, "tokens").await, (4, 4));

    yard.identify("1", &json!({"a": "1", "b": "2"})).await;
    let put = async |profile: &str, ids: Value| {
        let path = format!("/v1/identities/{profile}");
        yard.client.json(Method::PUT, &path, &ids).await
    };
    let refused = put("2", json!({"a": "3", "b": "4"})).await;
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("quota-exceeded")));
    assert_eq!(usage(&yard.client, "identities").await, (2, 3));
    put("1", json!({})).await.expect(200);
    put("2", json!({"a": "3", "b": "4"})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_replays_go_on_at_the_same_time() {
    let yard = Yard::start_with(|it| it.replays_max = Some(0)).await;
    let endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let refused = yard.client.post("/v1/replays", &json!({"subscription": made["id"]})).await;
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("quota-exceeded")));
    assert_eq!(usage(&yard.client, "replays").await, (0, 0));
}
