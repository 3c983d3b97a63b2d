//! What is wrong with the router costs its endpoints nothing.

use hookyard::formats::{Api, Catalogue, Format};
use hookyard::sign::Unsigned;
use hookyard_nouns::event::{Content, Event};
use hookyard_nouns::rendering::{Body, Output, Rendering, TooLarge};
use http::HeaderName;
use serde_json::json;

use crate::adding::github::GitHub;
use crate::harness::yard::{TENANT, event};
use crate::harness::{Endpoint, Yard};

/// A format with a bug.
struct Panics(GitHub);

impl Format for Panics {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn catalogue(&self) -> Option<&Catalogue> {
        self.0.catalogue()
    }

    fn encode(
        &self,
        event: &Event,
        content: &Content,
        rendering: &Rendering,
        out: Output,
    ) -> Result<Body, TooLarge> {
        self.0.encode(event, content, rendering, out)
    }

    fn sign(&self, it: &Unsigned<'_>) -> Vec<(HeaderName, String)> {
        assert!(it.body.windows(4).all(|it| it != b"0000"), "it cannot sign this");
        self.0.sign(it)
    }

    fn api(&self) -> Option<&dyn Api> {
        self.0.api()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_panics_fails_its_delivery_and_nothing_else() {
    // As many as would be enough for its breaker.
    const BROKEN: usize = 20;
    let yard =
        Yard::start_with_format(|choices| Box::new(Panics(GitHub::new(choices.endpoints)))).await;
    let mut endpoint = Endpoint::start().await;
    let hooks = format!("/github/repos/{TENANT}/widgets/hooks");
    let config = json!({"url": endpoint.url("/push"), "content_type": "json", "secret": "secret"});
    let body = json!({"name": "web", "events": ["push"], "config": config});
    yard.client.post(&hooks, &body).await.expect(201);
    let mut told = Endpoint::start().await;
    yard.subscribe(&told, json!({"filters": [{"type": "hookyard.endpoint.*"}]})).await;
    let publish = async |after: &str| {
        let mut push = event("push", json!({"ref": "refs/heads/main", "after": after.repeat(40)}));
        push["format"] = "github".into();
        push["repository"] = "widgets".into();
        yard.client.publish(&push).await.expect(202);
    };
    for _ in 0..BROKEN {
        publish("0").await;
    }
    for row in yard.await_deliveries("state=failed", BROKEN).await {
        assert_eq!(row["reason"]["code"], "internal", "{row}");
        assert_eq!((&row["attempts"], &row["next_attempt_at"]), (&json!(0), &json!(null)), "{row}");
    }
    publish("1").await;
    assert_eq!(endpoint.next().await.path, "/push");
    yard.await_deliveries("state=delivered", 1).await;
    assert!(endpoint.arrived().is_empty() && told.arrived().is_empty(), "the endpoint is healthy");
}
