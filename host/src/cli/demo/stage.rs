//! The demo's router, receiver and subscriptions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::PATIENCE;
use super::show::{self, Totals};
use crate::api::receiver::{Receipt, receive};
use crate::cli::client::Client;
use crate::cli::token::new_token;
use crate::config::Given;
use crate::event::Tenant;
use crate::schemas;
use crate::server::Server;
use crate::sign;
use crate::subscription::SigningSecret;
use crate::wasm::STANDARD_PLUGINS;

const JSON: &str = "application/json";
const ACCOUNT: &str = "acme";
/// What the filter lets through.
const AMOUNT_MIN: u64 = 100;
/// The sample events that are shown, one of each entity.
const SAMPLES: [&str; 8] = [
    "profile.created",
    "preference.added",
    "consent.updated",
    "contacts.email.updated",
    "group.added",
    "customfield.updated",
    "tag.added",
    "standardfield.defaultlocale.updated",
];

/// See the head of this module.
pub(super) struct Stage {
    server: Server,
    client: Client,
    receiver: JoinHandle<std::io::Result<()>>,
    pub(super) receipts: mpsc::Receiver<Receipt>,
    secrets: HashMap<String, SigningSecret>,
    _folder: TempDir,
}

/// What an event is to bring.
pub(super) struct Expected {
    pub(super) paths: Vec<String>,
    pub(super) since: Instant,
}

impl Stage {
    pub(super) async fn set(plugin: Option<&Path>) -> anyhow::Result<Stage> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let endpoint = listener.local_addr()?;
        let (tell, receipts) = mpsc::channel(1_024);
        let receiver = tokio::spawn(receive(listener, tell));
        let settings = Given {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            store: Some(format!("sqlite:{}", folder.path().join("demo.sqlite").display())),
            egress_allow: Some(vec!["127.0.0.0/8".parse()?]),
            egress_http: Some(true),
            ..Given::default()
        };
        let server = Server::start(settings.settle()).await?;
        let tenant = Tenant::new(ACCOUNT).map_err(|err| anyhow::anyhow!("{err}"))?;
        let (token, text) = new_token(Some(tenant), vec!["admin".to_owned()], None);
        server.app.store.create_token(token).await?;
        let client = Client::new(format!("http://{}", server.address()), text)?;

        show::heading("A router and a receiver on this machine");
        show::fact("router", &format!("http://{}, on a temporary SQLite file", server.address()));
        show::fact("receiver", &format!("http://{endpoint}"));
        let secrets = HashMap::new();
        let mut stage = Stage { server, client, receiver, receipts, secrets, _folder: folder };
        stage.upload(plugin).await?;
        stage.subscribe(endpoint).await?;
        let ids = json!({"LoyaltyNumber": "L-204817"});
        let path = "/v1/identities/1024";
        stage.client.call(Method::PUT, path, JSON, ids.to_string()).await?;
        show::fact("identity", &format!("profile 1024 is also {ids}"));
        Ok(stage)
    }

    async fn upload(&self, plugin: Option<&Path>) -> anyhow::Result<()> {
        let (file, from) = match plugin {
            Some(path) => {
                let file = std::fs::read(path)
                    .with_context(|| format!("cannot read the plugin `{}`", path.display()))?;
                (file, path.display().to_string())
            }
            None => {
                let bundled = STANDARD_PLUGINS.iter().find(|(name, _)| *name == "filter");
                (bundled.context("no filter")?.1.to_vec(), "this program".to_owned())
            }
        };
        let path = "/v1/plugins/worth-it/versions";
        let it = self.client.call(Method::POST, path, "application/wasm", file).await?;
        show::fact(
            "plugin",
            &format!(
                "`worth-it`, {} bytes from {from}, compiled in {} ms; an empty run takes {} µs",
                it["size_bytes"], it["compile_ms"], it["empty_run_us"]
            ),
        );
        Ok(())
    }

    async fn subscribe(&mut self, endpoint: SocketAddr) -> anyhow::Result<()> {
        let documented: Value =
            serde_json::from_str(schemas::file("mypreferences/create.sample.json"))?;
        let variants = [
            ("full", json!({})),
            ("minimised", json!({"IsMinimized": true})),
            ("alternate", json!({"AlternateIdType": "LoyaltyNumber"})),
        ];
        for (name, more) in variants {
            let mut body = documented.clone();
            body["Name"] = name.into();
            body["Url"] = format!("http://{endpoint}/{name}").into();
            for (member, value) in more.as_object().into_iter().flatten() {
                body[member] = value.clone();
            }
            let path = format!("/mypreferences/Profiles/v4/{ACCOUNT}/Webhooks/Subscriptions");
            let it = self.client.call(Method::POST, &path, JSON, body.to_string()).await?;
            show::fact("mypreferences", &format!("subscription {} `{name}` {more}", it["Id"]));
        }
        let filter = json!({"when": {"at": "/amount", "gte": AMOUNT_MIN}});
        let body = json!({
            "name": "orders that are worth it",
            "url": format!("http://{endpoint}/orders"),
            "filters": [{"type": "order.*"}],
            "steps": [{"plugin": "worth-it", "config": filter}],
        });
        let path = "/v1/subscriptions";
        let it = self.client.call(Method::POST, path, JSON, body.to_string()).await?;
        show::fact("cloudevents", &format!("subscription {} to `order.*`, {filter}", it["id"]));
        self.keep_secret("/orders", &it["secret"])?;

        // The provider's API shows no secret, so each of its subscriptions gets a new one.
        let all = self.client.call(Method::GET, path, JSON, "").await?;
        for it in all["subscriptions"].as_array().into_iter().flatten() {
            if it["format"] != "mypreferences" {
                continue;
            }
            let id = it["id"].as_str().unwrap_or_default();
            let path = format!("/v1/subscriptions/{id}/secret");
            let secret = self.client.call(Method::POST, &path, JSON, "").await?;
            let name = it["name"].as_str().unwrap_or_default();
            self.keep_secret(&format!("/{name}"), &secret["secret"])?;
        }
        Ok(())
    }

    fn keep_secret(&mut self, path: &str, secret: &Value) -> anyhow::Result<()> {
        let key = sign::parse_secret(secret.as_str().unwrap_or_default());
        let key = key.map_err(|err| anyhow::anyhow!("{err}"))?;
        self.secrets.insert(path.to_owned(), SigningSecret { key, valid_until_ms: None });
        Ok(())
    }

    pub(super) async fn publish(&self, event: &Value) -> anyhow::Result<Expected> {
        let since = Instant::now();
        let media_type = "application/cloudevents+json";
        self.client.call(Method::POST, "/v1/events", media_type, event.to_string()).await?;
        let paths: &[&str] = match event["format"].as_str() {
            Some(_) => &["/full", "/minimised", "/alternate"],
            None if event["data"]["amount"].as_u64() >= Some(AMOUNT_MIN) => &["/orders"],
            None => &[],
        };
        Ok(Expected { paths: paths.iter().map(|it| (*it).to_owned()).collect(), since })
    }

    /// Checks a signature as a receiver does (Standard Webhooks), and that the body is what its
    /// subscription asked for.
    pub(super) fn verify(&self, it: &Receipt) -> anyhow::Result<()> {
        let header = |name: &str| -> anyhow::Result<&str> {
            let value = it.headers.get(name).with_context(|| format!("`{name}` is missing"))?;
            Ok(value.to_str()?)
        };
        let secret = self.secrets.get(&it.path).context("a path without a subscription")?;
        let sent_ms = header("webhook-timestamp")?.parse::<i64>()? * 1_000;
        let id = header("webhook-id")?;
        let expected = sign::standard_webhooks(std::slice::from_ref(secret), id, sent_ms, &it.body);
        // For a day, the secret before this one signs as well.
        let signed = header("webhook-signature")?.split(' ').any(|it| it == expected);
        ensure!(signed, "the signature of {id} is wrong");

        let body: Value = serde_json::from_slice(&it.body)?;
        let fits = match it.path.as_str() {
            "/minimised" => body.get("Data").is_none() && body["ProfileId"] == 1024,
            "/alternate" => {
                !it.body.windows(4).any(|it| it == b"1024")
                    && body["AlternateId"]["Id"] == "L-204817"
            }
            "/full" => body["ProfileId"] == 1024,
            _ => body["data"]["amount"].as_u64() >= Some(AMOUNT_MIN),
        };
        ensure!(fits, "the body of {id} is not what `{}` asked for: {body}", it.path);
        Ok(())
    }

    /// Waits for what was to be dropped, and says why it was.
    pub(super) async fn show_filtered(
        &self,
        expected: usize,
        totals: &mut Totals,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut dropped = self.list("filtered").await?;
        while dropped.len() < expected && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
            dropped = self.list("filtered").await?;
        }
        ensure!(dropped.len() == expected, "{expected} deliveries were to be dropped");
        for it in dropped.iter().rev() {
            let path = format!("/v1/events/{}", it["event"].as_str().unwrap_or_default());
            let event = self.client.call(Method::GET, &path, JSON, "").await?;
            show::filtered(&event, &it["reason"]);
            totals.filtered += 1;
        }
        Ok(())
    }

    /// The deliveries in a state, newest first.
    pub(super) async fn list(&self, state: &str) -> anyhow::Result<Vec<Value>> {
        let path = format!("/v1/deliveries?state={state}&limit=500");
        let mut found = self.client.call(Method::GET, &path, JSON, "").await?;
        Ok(found["deliveries"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    pub(super) async fn strike(self) {
        self.server.stop().await;
        self.receiver.abort();
    }
}

/// The events that are shown.
pub(super) fn events() -> Vec<Value> {
    let sample = |name: &&str| {
        let file = schemas::file(&format!("mypreferences/samples/{name}.json"));
        serde_json::from_str(file).expect("a sample is JSON")
    };
    let orders = [("1001", 250), ("1002", 40), ("1003", 100), ("1004", 99)];
    let orders = orders.map(|(id, amount)| order(id, amount));
    SAMPLES.iter().map(sample).chain(orders).collect()
}

pub(super) fn measured_event(number: usize) -> Value {
    order(&format!("measured-{number}"), AMOUNT_MIN)
}

fn order(id: &str, amount: u64) -> Value {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": "/shop",
        "type": "order.paid",
        "datacontenttype": JSON,
        "data": {"order": id, "amount": amount, "currency": "EUR"},
    })
}
