//! A router on a port of its own, with a temporary store.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hookyard::config::Given;
use hookyard::formats::{Choices, Format, Formats};
use hookyard::server::Server;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Client, Endpoint, root};

/// The account of [`Yard::client`].
pub(crate) const TENANT: &str = "acme";

pub(crate) struct Yard {
    server: Option<Server>,
    settings: Given,
    more: Option<More>,
    /// May do everything, for [`TENANT`].
    pub(crate) client: Client,
    folder: TempDir,
}

/// Makes a format that is not built in.
pub(crate) type More = fn(&Choices) -> Box<dyn Format>;

/// Settings that tests have in common. The compiled plugins are shared: they are the same for all.
pub(crate) fn settings(folder: &TempDir) -> Given {
    let key = folder.path().join("key");
    std::fs::write(&key, BASE64_STANDARD.encode([7; 32])).unwrap();
    Given {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        store: Some(format!("sqlite:{}", folder.path().join("store.sqlite").display())),
        key_file: Some(key),
        plugin_cache: Some(root().join("target/test-plugins")),
        plugin_compiler: Some(super::process::binary().into()),
        egress_allow: Some(vec!["127.0.0.0/8".parse().unwrap()]),
        egress_http: Some(true),
        // What endpoints have to show is tested by itself.
        mypreferences_validation: Some(false),
        copernica_validation: Some(false),
        shutdown_ms: Some(5_000),
        ..Given::default()
    }
}

impl Yard {
    pub(crate) async fn start() -> Yard {
        Yard::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Given)) -> Yard {
        Yard::start_as(change, None).await
    }

    pub(crate) async fn start_with_format(more: More) -> Yard {
        Yard::start_as(|_| (), Some(more)).await
    }

    async fn start_as(change: impl FnOnce(&mut Given), more: Option<More>) -> Yard {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(&folder);
        change(&mut settings);
        let client = Client::new(String::new(), None);
        let mut yard = Yard { server: None, settings, more, client, folder };
        yard.run().await;
        let token = yard.token(Some(TENANT), "admin").await;
        yard.client = yard.client.with_token(Some(&token));
        yard
    }

    async fn run(&mut self) {
        let settings = self.settings.clone().settle();
        let choices = settings.choices();
        let mut formats = Formats::new(&choices);
        if let Some(more) = self.more {
            formats = formats.with(more(&choices));
        }
        let server = Server::start_with(settings, formats).await.unwrap();
        let token = self.client.token().map(str::to_owned);
        self.client = Client::new(format!("http://{}", server.address()), token);
        self.server = Some(server);
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Stops and starts again, on the same store and another port.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.run().await;
    }

    /// Stops, and starts with other settings.
    pub(crate) async fn change_settings(&mut self, change: impl FnOnce(&mut Given)) {
        change(&mut self.settings);
        self.restart().await;
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn app(&self) -> &std::sync::Arc<hookyard::app::App> {
        &self.server.as_ref().unwrap().app
    }

    /// A new token with these scopes, divided by spaces.
    pub(crate) async fn token(&self, tenant: Option<&str>, scopes: &str) -> String {
        self.client_credentials(tenant, scopes, None).await.1
    }

    pub(crate) async fn revoke(&self, id: &str) {
        let store = &self.server.as_ref().unwrap().app.store;
        store.revoke_token(id.parse().unwrap(), hookyard_nouns::clock::now_ms()).await.unwrap();
    }

    /// The id and the text of a new token that ends after some days.
    pub(crate) async fn client_credentials(
        &self,
        tenant: Option<&str>,
        scopes: &str,
        days: Option<u32>,
    ) -> (String, String) {
        let scopes = scopes.split_whitespace().map(str::to_owned).collect();
        let tenant = tenant.map(|it| hookyard_nouns::event::Tenant::new(it).unwrap());
        let (token, text) = hookyard::api::new_token(tenant, scopes, days);
        let id = token.id.to_string();
        self.server.as_ref().unwrap().app.store.create_token(token).await.unwrap();
        (id, text)
    }

    /// A subscription of our own format to everything, with `more` of its members.
    pub(crate) async fn subscribe(&self, endpoint: &Endpoint, more: Value) -> Value {
        let mut body = json!({
            "name": "test",
            "url": endpoint.url("/hook"),
            "filters": [{"type": "*"}],
        });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.client.post("/v1/subscriptions", &body).await.expect(201)
    }

    /// Publishes an event of a type with these data, and answers with our id for it.
    pub(crate) async fn publish(&self, event_type: &str, data: Value) -> String {
        let answer = self.client.publish(&event(event_type, data)).await.expect(202);
        answer["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn upload(&self, name: &str, file: Vec<u8>) -> Value {
        self.client.upload(name, file).await.expect(201)
    }

    /// The deliveries that a query finds, newest first.
    pub(crate) async fn deliveries(&self, query: &str) -> Vec<Value> {
        self.client.deliveries(query).await
    }

    /// Waits until the log has so many deliveries that a query finds.
    #[track_caller]
    pub(crate) fn await_deliveries(
        &self,
        query: &str,
        count: usize,
    ) -> impl Future<Output = Vec<Value>> {
        self.client.await_deliveries(query, count)
    }

    /// One delivery, with its attempts.
    pub(crate) async fn delivery(&self, id: &Value) -> Value {
        self.client.get(&format!("/v1/deliveries/{}", id.as_str().unwrap())).await.expect(200)
    }

    pub(crate) async fn identify(&self, profile: &str, ids: &Value) {
        self.client.json(Method::PUT, &format!("/v1/identities/{profile}"), ids).await.expect(200);
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        // A test that ends here does not wait for a stop; the store can be opened again all the same.
        self.server.take();
    }
}

/// An event of a type with these data, and an id of its own.
pub(crate) fn event(event_type: &str, data: Value) -> Value {
    json!({
        "specversion": "1.0",
        "id": uuid::Uuid::now_v7(),
        "source": "/tests",
        "type": event_type,
        "data": data,
    })
}
