//! Clients of the providers log in as they are used to.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::yard::TENANT;
use crate::harness::{Yard, client};

const FORM: &str = "application/x-www-form-urlencoded";

async fn post(yard: &Yard, path: &str, headers: &[(&str, &str)], form: &str) -> client::Answer {
    let headers = [&[("content-type", FORM)], headers].concat();
    let anybody = yard.client.with_token(None);
    anybody.call(Method::POST, path, &headers, form.to_owned()).await
}

fn access_token(answer: &Value) -> &str {
    answer["access_token"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kajabi_client_logs_in_refreshes_and_revokes() {
    let yard = Yard::start().await;
    let (id, secret) = yard.client_credentials(Some(TENANT), "view:contacts", None).await;
    let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    let first = post(&yard, "/kajabi/v1/oauth/token", &[], &form).await.expect(200);
    assert_eq!((&first["token_type"], &first["expires_in"]), (&json!("Bearer"), &json!(7_200)));
    let hooks = async |token: &str| {
        yard.client.with_token(Some(token)).get("/kajabi/v1/hooks").await.status
    };
    assert_eq!(hooks(access_token(&first)).await, 200);

    let refresh = first["refresh_token"].as_str().unwrap();
    // It is good for new tokens, once, and for nothing else.
    assert_eq!(hooks(refresh).await, 403);
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    let second = post(&yard, "/kajabi/api/v1/oauth/token", &[], &form).await.expect(200);
    assert_eq!(hooks(access_token(&second)).await, 200);
    let again = post(&yard, "/kajabi/v1/oauth/token", &[], &form).await.expect(400);
    assert_eq!(again["error"], "invalid_grant");

    let form = format!("token={}", access_token(&second));
    post(&yard, "/kajabi/v1/oauth/revoke", &[], &form).await.expect(200);
    assert_eq!(hooks(access_token(&second)).await, 401);
    assert_eq!(hooks(access_token(&first)).await, 200);
    // "Deleting an API key kills its tokens."
    yard.revoke(&id).await;
    assert_eq!(hooks(access_token(&first)).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_renews_what_was_granted_once() {
    let yard = Yard::start().await;
    let (id, secret) =
        yard.client_credentials(Some(TENANT), "view:contacts view:purchases", None).await;
    let path = "/kajabi/v1/oauth/token";
    let client = format!("client_id={id}&client_secret={secret}");
    let form = format!("grant_type=client_credentials&scope=view%3Acontacts&{client}");
    let first = post(&yard, path, &[], &form).await.expect(200);
    assert_eq!(first["scope"], "view:contacts");
    let refresh = first["refresh_token"].as_str().unwrap();
    let with = |more: &str| format!("grant_type=refresh_token&refresh_token={refresh}{more}");
    // Not for more than was granted, nor for another client.
    let (other, others_secret) = yard.client_credentials(Some(TENANT), "view:contacts", None).await;
    let another = with(&format!("&client_id={other}&client_secret={others_secret}"));
    assert_eq!(post(&yard, path, &[], &another).await.expect(400)["error"], "invalid_grant");
    // Of several at the same time, one is the first.
    let form = with("");
    let again = || post(&yard, path, &[], &form);
    let (one, two, three) = tokio::join!(again(), again(), again());
    let (taken, refused): (Vec<_>, Vec<_>) =
        [one, two, three].into_iter().partition(|it| it.status == 200);
    assert_eq!((taken.len(), refused.len()), (1, 2));
    assert_eq!(taken[0].body["scope"], "view:contacts");
    assert!(refused.iter().all(|it| it.body["error"] == "invalid_grant"));

    let more = format!("grant_type=client_credentials&scope=view%3Aorders&{client}");
    assert_eq!(post(&yard, path, &[], &more).await.expect(400)["error"], "invalid_scope");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vonage_client_asks_for_some_of_its_scopes() {
    let yard = Yard::start().await;
    let (id, secret) = yard.client_credentials(Some(TENANT), "admin:read admin:write", None).await;
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")));
    let headers = [("authorization", basic.as_str())];
    let path = "/vonage/Auth/connect/token";
    let form = "grant_type=client_credentials&scope=admin%3Aread";
    let answer = post(&yard, path, &headers, form).await.expect(200);
    assert_eq!(answer["scope"], "admin:read");
    let reader = yard.client.with_token(Some(access_token(&answer)));
    let accept = ("accept", "application/vnd.newvoicemedia.v1+json");
    let all = "/vonage/webhooks/subscriptions";
    reader.call(Method::GET, all, &[accept], "").await.expect(200);
    reader.call(Method::POST, all, &[accept], "{}").await.expect(400);
    let body = json!({"name": "x-1", "url": "https://192.88.98.1/", "events": ["*"]}).to_string();
    reader.call(Method::POST, all, &[accept], body).await.expect(403);

    let form = "grant_type=client_credentials&scope=admin%3Aread+plugins%3Awrite";
    let refused = post(&yard, path, &headers, form).await.expect(400);
    assert_eq!(refused["error"], "invalid_scope");
    let form = "grant_type=client_credentials";
    let wrong = [("authorization", "Basic eDp5")];
    assert_eq!(post(&yard, path, &wrong, form).await.expect(401)["error"], "invalid_client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mypreferences_client_names_its_account_as_the_scope() {
    let yard = Yard::start().await;
    let (id, secret) = yard.client_credentials(Some(TENANT), "subscriptions:read", None).await;
    let form = format!(
        "grant_type=client_credentials&client_id={id}&client_secret={secret}&scope={TENANT}%2F7"
    );
    let answer = post(&yard, "/mypreferences/oauth/token", &[], &form).await.expect(200);
    let client = yard.client.with_token(Some(access_token(&answer)));
    let path = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
    client.get(&path).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copernica_token_is_exchanged_for_one_of_a_day() {
    let yard = Yard::start().await;
    let (_, token) = yard.client_credentials(Some(TENANT), "subscriptions:read", None).await;
    let form = format!("access_token={token}");
    let answer = post(&yard, "/copernica/authenticate", &[], &form).await;
    assert_eq!(answer.status, 200);
    let client = yard.client.with_token(Some(&answer.text));
    client.get("/copernica/v4/webhooks").await.expect(200);
    // In the URL, as older clients have it.
    let path = format!("/copernica/v4/webhooks?access_token={}", answer.text);
    yard.client.with_token(None).get(&path).await.expect(200);
    // What was exchanged is not exchanged again.
    let form = format!("access_token={}", answer.text);
    post(&yard, "/copernica/authenticate", &[], &form).await.expect(401);
}
