//! Publishers, receivers and clients that others have written, each with a router.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::yard::TENANT;
use crate::harness::{Endpoint, Yard, peers, root};

const VONAGE: &str = "application/vnd.newvoicemedia.v1+json";
const JSON_API: &str = "application/vnd.api+json";

/// A CloudEvents SDK, and what it writes in its own way.
struct Sdk {
    name: &'static str,
    call: fn(&str, &Value) -> Value,
    modes: &'static [&'static str],
    /// Noon.
    time: &'static str,
    /// A true boolean, in a header.
    truth: &'static str,
    /// A text that it can put into a header.
    header: &'static str,
}

const SDKS: [Sdk; 2] = [
    Sdk {
        name: "javascript",
        call: peers::check,
        modes: &["binary", "structured", "batch"],
        time: "2026-01-31T12:00:00.000Z",
        truth: "true",
        // It does not encode: of what is not ASCII it makes no header, or one that is refused.
        header: "100% sure",
    },
    Sdk {
        name: "python",
        call: peers::python,
        modes: &["binary", "structured"],
        time: "2026-01-31T12:00:00Z",
        truth: "True",
        header: "Grüße 50% €",
    },
];

fn with(mut it: Value, more: &Value) -> Value {
    it.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    it
}

/// The attributes of an event, of all types.
fn attributes(id: &str, text: &str, media_type: &str) -> Value {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": "/peers",
        "type": "com.example.peers",
        "time": "2026-01-31T12:00:00Z",
        "subject": text,
        "datacontenttype": media_type,
        "label": text,
        "digits": "42",
        "sequence": 42,
        "least": i32::MIN,
        "urgent": true,
    })
}

/// Data of each kind, with their media type.
fn kinds_of_data() -> [(&'static str, Value); 3] {
    [
        ("application/json", json!({"data": {"name": "Zoë", "price": 1.5, "tags": ["a", null]}})),
        ("text/plain", json!({"data": "Grüße €"})),
        ("application/octet-stream", json!({"data_base64": "AP8H"})),
    ]
}

fn sample(name: &str) -> Value {
    let file = root().join(format!("schemas/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sdks_publish_arrives_member_by_member() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    for sdk in &SDKS {
        for mode in sdk.modes {
            let is_binary = *mode == "binary";
            let text = if is_binary { sdk.header } else { "Grüße 50% €" };
            for (media_type, data) in kinds_of_data() {
                let id = format!("{} {mode} {media_type}", sdk.name);
                let attributes = attributes(&id, text, media_type);
                let input = json!({
                    "url": yard.client.url("/v1/events"),
                    "token": yard.client.token(),
                    "mode": mode,
                    "attributes": attributes,
                });
                let answer = (sdk.call)("cloudevents-publish", &with(input, &data));
                assert_eq!(answer["status"], 202, "{id}: {answer}");

                let mut expected = with(attributes, &data);
                expected["time"] = sdk.time.into();
                if is_binary {
                    // A header has no type.
                    let texts =
                        json!({"sequence": "42", "least": "-2147483648", "urgent": sdk.truth});
                    expected = with(expected, &texts);
                }
                assert_eq!(endpoint.next().await.json(), expected, "{id}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_read_by_the_sdks_and_verified_by_two_libraries() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    for (media_type, data) in kinds_of_data() {
        let event = with(attributes(media_type, "Grüße 50% €", media_type), &data);
        yard.client.publish(&event).await.expect(202);
        let receipt = endpoint.next().await;
        let input = peers::delivery(&receipt, &json!({"secret": made["secret"]}));
        for sdk in &SDKS {
            let mut expected = event.clone();
            expected["time"] = sdk.time.into();
            let read = (sdk.call)("cloudevents-receive", &input);
            assert_eq!(read, expected, "{} {media_type}", sdk.name);
        }
        for verifier in ["standard-webhooks", "svix"] {
            assert_eq!(peers::python(verifier, &input), event, "{verifier} {media_type}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vonage_deliveries_are_verified_by_a_second_library() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let body = json!({"name": "calls", "url": endpoint.url("/calls"), "events": ["channel.*"]});
    let headers = [("content-type", "application/json"), ("accept", VONAGE)];
    let all = "/vonage/webhooks/subscriptions";
    let made = yard.client.call(Method::POST, all, &headers, body.to_string()).await.expect(200);
    yard.client.publish(&sample("vonage/samples/channel.ended.v1")).await.expect(202);
    let receipt = endpoint.next().await;
    let claims =
        peers::python("jwt", &peers::delivery(&receipt, &json!({"secret": made["secret"]})));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_by_php_makes_a_copernica_webhook_and_its_deliveries_are_verified_by_our_records() {
    let yard =
        Yard::start_with(|it| it.copernica_key_domain = Some("keys.example.com".into())).await;
    let mut endpoint = Endpoint::start().await;
    let handler = endpoint.url("/hook?a=b%20c");
    let fields = json!({"handler": handler, "trigger": "create", "callers": ["rest", "ms"]});
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let all = "/copernica/v4/webhooks";
    let form = peers::build_query(&fields);
    let made = yard.client.call(Method::POST, all, &headers, form).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let read = yard.client.get(all).await.expect(200)["data"][0].clone();
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(read[name], *value, "{name}");
    }

    let event = with(sample("copernica/samples/create"), &json!({"caller": "ms"}));
    yard.client.publish(&event).await.expect(202);
    let receipt = endpoint.next().await;
    let operator = yard.client.with_token(Some(&yard.token(None, "admin").await));
    let records = operator.get("/v1/signing-keys").await.expect(200)["records"].clone();
    // The key of this month, and that of the next one.
    let keys = [&records[0], &records[1]].map(|it| {
        // DNS keeps a text in parts.
        let parts = it["strings"].as_array().unwrap();
        let record: String = parts.iter().map(|it| it.as_str().unwrap()).collect();
        assert_eq!(it["value"], record);
        peers::python("copernica-record", &json!({"record": record}))
    });
    assert_ne!(keys[0], keys[1]);
    let more = json!({"key": keys[0], "path": "/hook?a=b%20c"});
    let signature = peers::python("http-signature", &peers::delivery(&receipt, &more));
    assert_eq!(signature, json!({"keyId": records[0]["name"], "algorithm": "rsa-sha256"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn vision6_speaks_with_two_more_clients() {
    for (client, error) in [
        ("json-rpc-jsonrpclib", json!(351)),
        // It knows version 2.0 alone: where there is a result, be it null, it sees no error.
        ("json-rpc-jsonrpcclient", Value::Null),
    ] {
        let yard = Yard::start().await;
        let mut endpoint = Endpoint::start().await;
        let key = yard.token(Some(TENANT), "full_access").await;
        let details = json!({
            "object": "contact",
            "event": "unsubscribed",
            "list_id": 0,
            "url": endpoint.url("/hook"),
        });
        let of_a_list = with(details.clone(), &json!({"list_id": 1}));
        let calls = [
            json!(["addWebhook", key, details]),
            json!(["addWebhook", key, of_a_list]),
            json!(["addWebhook", key, of_a_list]),
            json!(["countWebhooks", key, []]),
        ];
        let url = yard.client.url("/vision6/api/jsonrpcserver.php");
        let answers = peers::python(client, &json!({"url": url, "calls": calls}));
        let results: Vec<_> = answers.as_array().unwrap().iter().map(|it| &it["result"]).collect();
        assert_eq!(results, [&json!(1), &json!(2), &Value::Null, &json!(2)], "{client}");
        assert_eq!(answers[2]["error"]["code"], error, "{client}");

        let data = json!({"list_id": 2, "contact_id": 142});
        let event = sample("vision6/samples/contact.unsubscribed");
        let event = with(event, &json!({"listid": "2", "data": data}));
        yard.client.publish(&event).await.expect(202);
        assert_eq!(endpoint.next().await.json()[0]["contact_id"], 142, "{client}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_api_client_reads_kajabi_hooks_page_by_page() {
    let yard = Yard::start().await;
    let headers = [("content-type", JSON_API), ("accept", JSON_API)];
    let mut made = Vec::new();
    for resource in 1..=5 {
        let url = "https://192.88.98.1/";
        let body = json!({"data": {
            "type": "hooks",
            "attributes": {"target_url": url, "event": "tag_added", "resource_id": resource},
            "relationships": {"site": {"data": {"id": TENANT, "type": "sites"}}},
        }});
        let all = "/kajabi/v1/hooks";
        let hook =
            yard.client.call(Method::POST, all, &headers, body.to_string()).await.expect(201);
        made.push(hook["data"]["id"].clone());
    }
    let input = json!({"url": yard.client.url("/kajabi/v1"), "token": yard.client.token()});
    assert_eq!(peers::python("json-api", &input), json!(made));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oauth_library_logs_in() {
    let yard = Yard::start().await;
    let account = format!("{TENANT}/7");
    let profiles = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
    for (token_path, scopes, scope, path, media_type) in [
        ("/kajabi/v1/oauth/token", "view:contacts", "view:contacts", "/kajabi/v1/hooks", JSON_API),
        (
            "/vonage/Auth/connect/token",
            "admin:read admin:write",
            "admin:read",
            "/vonage/webhooks/subscriptions",
            VONAGE,
        ),
        (
            "/mypreferences/oauth/token",
            "subscriptions:read",
            account.as_str(),
            profiles.as_str(),
            "application/json",
        ),
    ] {
        let (id, secret) = yard.client_credentials(Some(TENANT), scopes, None).await;
        let input = json!({
            "token_url": yard.client.url(token_path),
            "client_id": id,
            "client_secret": secret,
            "scope": scope,
            "call_url": yard.client.url(path),
            "accept": media_type,
        });
        let found = peers::python("oauth", &input);
        assert_eq!(found["status"], 200, "{token_path}: {found}");
        assert_ne!(found["token"]["access_token"], secret);
    }
}
