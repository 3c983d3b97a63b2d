//! The demo's router, receiver and subscriptions.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hookyard_nouns::clock;
use hookyard_nouns::event::Tenant;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::show::{self, Totals};
use super::verify::{Keys, Verified};
use super::{ACCOUNT, PATIENCE, subscribe};
use crate::api::new_token;
use crate::api::receiver::{Receipt, receive};
use crate::cli::client::Client;
use crate::config::Given;
use crate::keys;
use crate::manage;
use crate::schemas;
use crate::server::Server;
use crate::wasm::STANDARD_PLUGINS;

const JSON: &str = "application/json";
/// What the filter lets through.
pub(super) const AMOUNT_MIN: u64 = 100;
/// The sample events that are shown: of MyPreferences one of each entity, of the others one.
const SAMPLES: [&str; 12] = [
    "mypreferences/samples/profile.created",
    "mypreferences/samples/preference.added",
    "mypreferences/samples/consent.updated",
    "mypreferences/samples/contacts.email.updated",
    "mypreferences/samples/group.added",
    "mypreferences/samples/customfield.updated",
    "mypreferences/samples/tag.added",
    "mypreferences/samples/standardfield.defaultlocale.updated",
    "kajabi/samples/tag_added",
    "vision6/samples/contact.unsubscribed",
    "copernica/samples/create",
    "vonage/samples/channel.ended.v1",
];

/// A router and a receiver for it, until [`Stage::strike`].
pub(super) struct Stage {
    server: Server,
    client: Client,
    receiver: JoinHandle<std::io::Result<()>>,
    pub(super) receipts: mpsc::Receiver<Receipt>,
    keys: Keys,
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
            // There is no name here that a record could be published for.
            copernica_validation: Some(false),
            ..Given::default()
        };
        let server = Server::start(settings.settle()).await?;
        let tenant = Tenant::new(ACCOUNT).map_err(|err| anyhow::anyhow!("{err}"))?;
        let (token, text) = new_token(Some(tenant), vec!["admin".to_owned()], None);
        server.app.store.create_token(token).await?;
        let client = Client::new(format!("http://{}", server.address()), text)?;

        show::heading("A router and a receiver on this machine")?;
        show::fact("router", &format!("http://{}, on a temporary SQLite file", server.address()))?;
        show::fact("receiver", &format!("http://{endpoint}"))?;
        let keys = Keys::default();
        let mut stage = Stage { server, client, receiver, receipts, keys, _folder: folder };
        stage.upload(plugin).await?;
        stage.keys = subscribe::everywhere(&stage.client, endpoint).await?;
        // Without a domain of its own, a demo has no DNS; a receiver would look there.
        let selector = keys::selector(clock::now_ms());
        stage.keys.router = Some(manage::keys::get(&stage.server.app, &selector).await?);
        let ids = json!({"LoyaltyNumber": "L-204817"});
        let path = "/v1/identities/1024";
        stage.client.call(Method::PUT, path, JSON, ids.to_string()).await?;
        show::fact("identity", &format!("profile 1024 is also {ids}"))?;
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
        )?;
        Ok(())
    }

    pub(super) async fn publish(&self, event: &Value) -> anyhow::Result<Expected> {
        let since = Instant::now();
        let media_type = "application/cloudevents+json";
        self.client.call(Method::POST, "/v1/events", media_type, event.to_string()).await?;
        let paths: &[&str] = match event["format"].as_str() {
            Some("mypreferences") => &["/full", "/minimised", "/alternate"],
            Some("kajabi") => &["/kajabi"],
            Some("vision6") => &["/vision6"],
            Some("copernica") => &["/copernica"],
            Some("vonage") => &["/vonage"],
            Some(_) => &[],
            None if event["data"]["amount"].as_u64() >= Some(AMOUNT_MIN) => &["/orders"],
            None => &[],
        };
        Ok(Expected { paths: paths.iter().map(|it| (*it).to_owned()).collect(), since })
    }

    pub(super) fn verify(&self, it: &Receipt) -> anyhow::Result<Verified> {
        self.keys.verify(it)
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
            show::filtered(&event, &it["reason"])?;
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
        let file = schemas::file(&format!("{name}.json"));
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
