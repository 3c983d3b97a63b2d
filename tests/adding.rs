//! The guide on adding a format keeps its promise: its example is a format like any other.

use reqwest::Method;
use serde_json::json;

use crate::harness::yard::{TENANT, event};
use crate::harness::{Endpoint, Yard, peers, root};

#[path = "../docs/adding-a-format/github.rs"]
pub(crate) mod github;

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_guide_is_a_format() {
    let mut yard =
        Yard::start_with_format(|choices| Box::new(github::GitHub::new(choices.endpoints))).await;
    let mut endpoint = Endpoint::start().await;
    let hooks = format!("/github/repos/{TENANT}/widgets/hooks");
    let body = json!({
        "name": "web",
        "events": ["push"],
        "config": {"url": endpoint.url("/push"), "content_type": "json", "secret": "It's a secret"},
    });
    let made = yard.client.post(&hooks, &body).await.expect(201);
    let expected = json!({
        "id": 1,
        "name": "web",
        "active": true,
        "events": ["push"],
        "config": {"url": endpoint.url("/push")},
    });
    assert_eq!(made, expected);
    assert_eq!(yard.client.get(&hooks).await.expect(200), json!([expected]));
    let refused = yard.client.post(&hooks, &json!({"events": ["pull"], "config": {}})).await;
    let message = "`/config/url` is missing; it must be a URL that begins with `https://`; \
                   `/events/0` must be `push` or `release`";
    assert_eq!((refused.status, &refused.body["message"]), (400, &json!(message)));

    // It lives through a restart, as the others do.
    yard.restart().await;
    let mut push = event("push", json!({"ref": "refs/heads/main", "after": "0".repeat(40)}));
    push["format"] = "github".into();
    push["repository"] = "gadgets".into();
    yard.client.publish(&push).await.expect(202);
    push["id"] = "another".into();
    push["repository"] = "widgets".into();
    yard.client.publish(&push).await.expect(202);
    let receipt = endpoint.next().await;
    let expected = json!({"event": "push", "ref": "refs/heads/main", "after": "0".repeat(40)});
    assert_eq!(receipt.json(), expected);
    let input = peers::delivery(&receipt, &json!({"secret": "It's a secret"}));
    assert_eq!(peers::check("hub-signature", &input), true);
    assert!(endpoint.arrived().is_empty());

    yard.client.call(Method::DELETE, &format!("{hooks}/1"), &[], "").await.expect(204);
    yard.client.get(&format!("{hooks}/1")).await.expect(404);
}

#[test]
fn the_guide_names_what_a_format_is_made_of() {
    let guide = std::fs::read_to_string(root().join("docs/adding-a-format.md")).unwrap();
    let schemas = std::fs::read_to_string(root().join("schemas/README.md")).unwrap();
    for file in ["github.rs", "create.json", "catalogue.json", "data.json"] {
        assert!(guide.contains(file), "the guide does not name `{file}`");
    }
    for folder in std::fs::read_dir(root().join("schemas")).unwrap() {
        let path = folder.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!path.is_dir() || schemas.contains(&format!("`{name}/`")), "{name}");
    }
}
