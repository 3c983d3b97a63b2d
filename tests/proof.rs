//! Endpoints show that they want deliveries, before they get the first.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::endpoint::Consent;
use crate::harness::names::NameServer;
use crate::harness::yard::TENANT;
use crate::harness::{Endpoint, Yard};

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_is_asked_for_and_its_rate_is_kept() {
    let mut yard =
        Yard::start_with(|it| it.webhook_origin = Some("router.example.com".into())).await;
    let mut endpoint = Endpoint::start().await;
    let body = json!({
        "name": "asked",
        "url": endpoint.url("/asked"),
        "filters": [{"type": "*"}],
        "handshake": true,
    });
    let refused = yard.client.post("/v1/subscriptions", &body).await;
    assert_eq!((refused.status, refused.fields()), (400, vec!["/url"]));
    assert!(
        refused.text.contains("WebHook-Allowed-Origin: router.example.com"),
        "{}",
        refused.text
    );

    let another = vec![("WebHook-Allowed-Origin", "elsewhere.example.com")];
    endpoint.consents(Consent::Headers(another));
    yard.client.post("/v1/subscriptions", &body).await.expect(400);

    let agreed =
        vec![("WebHook-Allowed-Origin", "router.example.com"), ("WebHook-Allowed-Rate", "300")];
    endpoint.consents(Consent::Headers(agreed));
    let made = yard.client.post("/v1/subscriptions", &body).await.expect(201);
    assert_eq!(made["rate_per_minute"], 300);

    let since = Instant::now();
    for number in 0..4 {
        yard.publish("t", json!(number)).await;
    }
    for _ in 0..4 {
        // Each delivery names what was agreed upon.
        let receipt = endpoint.next().await;
        assert_eq!(receipt.header("webhook-request-origin"), "router.example.com");
    }
    // 300 a minute are one each 200 ms.
    assert!(since.elapsed().as_millis() >= 600, "{:?}", since.elapsed());

    // So does a test, after the router has started again with another name.
    yard.change_settings(|it| it.webhook_origin = Some("other.example.com".into())).await;
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    yard.client.post(&format!("{path}/test"), &json!({})).await.expect(200);
    assert_eq!(endpoint.next().await.header("webhook-request-origin"), "router.example.com");
    yard.change_settings(|it| it.webhook_origin = Some("router.example.com".into())).await;

    // It is asked again when it is to be active again.
    yard.client.post(&format!("{path}/pause"), &json!({})).await.expect(200);
    endpoint.consents(Consent::None);
    yard.client.post(&format!("{path}/resume"), &json!({})).await.expect(400);
    assert_eq!(yard.client.get(&path).await.expect(200)["state"], "paused");
    endpoint.consents(Consent::Headers(vec![("WebHook-Allowed-Origin", "*")]));
    let resumed = yard.client.post(&format!("{path}/resume"), &json!({})).await.expect(200);
    assert_eq!((&resumed["state"], &resumed["rate_per_minute"]), (&json!("active"), &json!(null)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mypreferences_endpoint_is_validated_or_its_subscription_stays_paused() {
    let yard = Yard::start_with(|it| it.mypreferences_validation = Some(true)).await;
    let mut endpoint = Endpoint::start().await;
    let all = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
    let body = |state: &str, path: &str| {
        json!({
            "Name": "validated",
            "Url": endpoint.url(path),
            "State": state,
            "Subscriptions": [{"Entity": "Tags", "EventType": "tag.added"}],
        })
    };
    let made = yard.client.post(&all, &body("Active", "/a")).await.expect(201);
    assert_eq!(made["State"], "Paused");
    let one = format!("{all}/{}", made["Id"]);
    let active = body("Active", "/a");
    let other = body("Active", "/b");

    for consent in [Consent::Echo, Consent::Headers(vec![("WebHook-Allowed-Origin", "*")])] {
        endpoint.consents(consent);
        let changed = yard.client.json(Method::PUT, &one, &active).await.expect(200);
        assert_eq!(changed["State"], "Active");
        // Another URL is another endpoint.
        endpoint.consents(Consent::None);
        let changed = yard.client.json(Method::PUT, &one, &other).await.expect(200);
        assert_eq!(changed["State"], "Paused");
    }
    // One that is paused is not asked.
    let paused = yard.client.post(&all, &body("Paused", "/c")).await.expect(201);
    assert_eq!(paused["State"], "Paused");
    assert!(endpoint.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copernica_domain_is_validated_by_a_txt_record() {
    let names = NameServer::start("example.test.").await;
    let server = names.address;
    let yard = Yard::start_with(|it| {
        it.copernica_validation = Some(true);
        it.dns_servers = Some(vec![server]);
    })
    .await;
    let create = async |host: &str| {
        let body = json!({"handler": format!("https://{host}/hook"), "trigger": "update"});
        yard.client.post("/copernica/v4/webhooks", &body).await
    };
    let refused = create("hooks.shop.example.test").await;
    let message = refused.body["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(refused.status, 400);
    assert!(message.contains("_copernica-challenge.hooks.shop.example.test"), "{message}");
    let wanted = message.split("the value `").nth(1).unwrap().split('`').next().unwrap();

    names.publish("_copernica-challenge.shop.example.test.", "something else").await;
    create("hooks.shop.example.test").await.expect(400);
    names.publish("_copernica-challenge.shop.example.test.", wanted).await;
    // A record covers what is below its domain, and nothing else.
    create("hooks.shop.example.test").await.expect(201);
    create("shop.example.test").await.expect(201);
    create("example.test").await.expect(400);
    create("workshop.example.test").await.expect(400);
    assert!(create("127.0.0.1").await.text.contains("must have a domain"));

    // Another account has another value, and the change of a handler is validated as well.
    let other = yard.client.with_token(Some(&yard.token(Some("other"), "admin").await));
    let body = json!({"handler": "https://shop.example.test/", "trigger": "update"});
    let refused = other.post("/copernica/v4/webhooks", &body).await;
    assert!(refused.status == 400 && !refused.text.contains(wanted), "{}", refused.text);
    let elsewhere: Value = json!({"handler": "https://example.test/", "trigger": "update"});
    yard.client.json(Method::PUT, "/copernica/v4/webhook/1", &elsewhere).await.expect(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_is_silent_is_named_as_the_reason() {
    let nobody = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let yard = Yard::start_with(|it| {
        it.copernica_validation = Some(true);
        it.dns_servers = Some(vec![nobody]);
    })
    .await;
    let body = json!({"handler": "https://shop.example/", "trigger": "update"});
    let refused = yard.client.post("/copernica/v4/webhooks", &body).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("DNS says"), "{}", refused.text);
}
