//! A tenant that wants nothing but its events.

use serde_json::json;

use crate::harness::yard::event;
use crate::harness::{Client, Endpoint, Yard};

/// Another tenant than the one that attacks. Its events go through a plugin.
pub(super) struct Quiet {
    pub(super) client: Client,
    endpoint: Endpoint,
}

impl Quiet {
    pub(super) async fn in_town(yard: &Yard) -> Quiet {
        let token = yard.token(Some("quiet"), "admin").await;
        let client = yard.client.with_token(Some(&token));
        let endpoint = Endpoint::start().await;
        let body = json!({"name": "x", "url": endpoint.url("/"), "filters": [{"type": "*"}],
                          "steps": [{"plugin": "minimize", "config": {"remove": ["/b"]}}]});
        client.post("/v1/subscriptions", &body).await.expect(201);
        Quiet { client, endpoint }
    }

    /// At its new address.
    pub(super) fn moves(&mut self, yard: &Yard) {
        self.client = yard.client.with_token(self.client.token());
    }

    /// Publishes an event, and waits until it is at the endpoint.
    pub(super) async fn round_trip(&mut self) {
        self.client.publish(&event("t", json!({"a": 1, "b": 2}))).await.expect(202);
        assert_eq!(self.endpoint.next().await.json()["data"], json!({"a": 1}));
    }
}
