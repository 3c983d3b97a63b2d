//! The demo's subscriptions: in each format, by the provider's own API.

use std::net::SocketAddr;

use http::Method;
use serde_json::{Value, json};

use super::stage::AMOUNT_MIN;
use super::verify::Keys;
use super::{ACCOUNT, show};
use crate::cli::client::Client;
use crate::schemas;

const JSON: &str = "application/json";

/// Makes them all, and answers with what signs their deliveries.
pub(super) async fn everywhere(client: &Client, endpoint: SocketAddr) -> anyhow::Result<Keys> {
    let mut keys = Keys::default();
    mypreferences(client, endpoint, &mut keys).await?;
    kajabi(client, endpoint).await?;
    vision6(client, endpoint).await?;
    copernica(client, endpoint).await?;
    vonage(client, endpoint, &mut keys).await?;
    cloudevents(client, endpoint, &mut keys).await?;
    Ok(keys)
}

fn documented(format: &str) -> Value {
    let text = schemas::file(&format!("{format}/create.sample.json"));
    serde_json::from_str(text).expect("a file of `schemas/` is JSON")
}

async fn mypreferences(
    client: &Client,
    endpoint: SocketAddr,
    keys: &mut Keys,
) -> anyhow::Result<()> {
    let variants = [
        ("full", json!({})),
        ("minimised", json!({"IsMinimized": true})),
        ("alternate", json!({"AlternateIdType": "LoyaltyNumber"})),
    ];
    for (name, more) in variants {
        let mut body = documented("mypreferences");
        body["Name"] = name.into();
        body["Url"] = format!("http://{endpoint}/{name}").into();
        for (member, value) in more.as_object().into_iter().flatten() {
            body[member] = value.clone();
        }
        let path = format!("/mypreferences/Profiles/v4/{ACCOUNT}/Webhooks/Subscriptions");
        let it = client.call(Method::POST, &path, JSON, body.to_string()).await?;
        show::fact("mypreferences", &format!("subscription {} `{name}` {more}", it["Id"]))?;
    }
    // The provider's API shows no secret, so each of its subscriptions gets a new one.
    let all = client.call(Method::GET, "/v1/subscriptions", JSON, "").await?;
    for it in all["subscriptions"].as_array().into_iter().flatten() {
        let path = format!("/v1/subscriptions/{}/secret", it["id"].as_str().unwrap_or_default());
        let secret = client.call(Method::POST, &path, JSON, "").await?;
        let name = it["name"].as_str().unwrap_or_default();
        keys.add_standard(&format!("/{name}"), &secret["secret"])?;
    }
    Ok(())
}

async fn kajabi(client: &Client, endpoint: SocketAddr) -> anyhow::Result<()> {
    let body = json!({"data": {
        "type": "hooks",
        "attributes": {"target_url": format!("http://{endpoint}/kajabi"), "event": "tag_added"},
        "relationships": {"site": {"data": {"id": ACCOUNT, "type": "sites"}}},
    }});
    let media_type = "application/vnd.api+json";
    let it = client.call(Method::POST, "/kajabi/v1/hooks", media_type, body.to_string()).await?;
    show::fact("kajabi", &format!("hook {} to `tag_added` of any tag", it["data"]["id"]))
}

async fn vision6(client: &Client, endpoint: SocketAddr) -> anyhow::Result<()> {
    let mut details = documented("vision6");
    details["list_id"] = 0.into();
    details["url"] = format!("http://{endpoint}/vision6").into();
    let body = json!({"id": 1, "method": "addWebhook", "params": [client.token(), details]});
    let path = "/vision6/api/jsonrpcserver.php";
    let it = client.call(Method::POST, path, JSON, body.to_string()).await?;
    anyhow::ensure!(it["error"].is_null(), "vision6 refused: {}", it["error"]);
    show::fact(
        "vision6",
        &format!("webhook {} to `unsubscribed` contacts of all lists", it["result"]),
    )
}

async fn copernica(client: &Client, endpoint: SocketAddr) -> anyhow::Result<()> {
    let body = format!("trigger=create&handler=http%3A%2F%2F{endpoint}%2Fcopernica");
    let media_type = "application/x-www-form-urlencoded";
    client.call(Method::POST, "/copernica/v4/webhooks", media_type, body).await?;
    show::fact("copernica", "webhook 1 to `create`, by a form")
}

async fn vonage(client: &Client, endpoint: SocketAddr, keys: &mut Keys) -> anyhow::Result<()> {
    let body = json!({
        "name": "calls",
        "url": format!("http://{endpoint}/vonage"),
        "events": ["channel.*.v1"],
    });
    let media_type = "application/vnd.newvoicemedia.v1+json";
    let path = "/vonage/webhooks/subscriptions";
    let it = client.call(Method::POST, path, media_type, body.to_string()).await?;
    show::fact("vonage", &format!("subscription {} to `channel.*.v1`", it["subscriptionId"]))?;
    keys.add_vonage("/vonage", &it["secret"])
}

async fn cloudevents(client: &Client, endpoint: SocketAddr, keys: &mut Keys) -> anyhow::Result<()> {
    let filter = json!({"when": {"at": "/amount", "gte": AMOUNT_MIN}});
    let body = json!({
        "name": "orders that are worth it",
        "url": format!("http://{endpoint}/orders"),
        "filters": [{"type": "order.*"}],
        "steps": [{"plugin": "worth-it", "config": filter}],
    });
    let it = client.call(Method::POST, "/v1/subscriptions", JSON, body.to_string()).await?;
    show::fact("cloudevents", &format!("subscription {} to `order.*`, {filter}", it["id"]))?;
    keys.add_standard("/orders", &it["secret"])
}
