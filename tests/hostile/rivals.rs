//! Uploads of one name at the same time, by several tasks of several tenants: they have an order, and no
//! tenant sees anything of another.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::Victim;
use super::guests::guest;
use crate::harness::{Client, process};

const TENANTS: [&str; 3] = ["red", "green", "blue"];
const TASKS: usize = 4;
const UPLOADS: usize = 3;
const VERSIONS: &str = "/v1/plugins/gate/versions";

/// A plugin that differs by its mark.
fn version(mark: &str) -> Vec<u8> {
    guest().bytes(60_000, mark.as_bytes()).module()
}

fn digests(versions: &Value) -> Vec<String> {
    let all = versions["versions"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().map(|it| it["digest"].as_str().unwrap().to_owned()).collect()
}

/// Uploads again and again, and looks each time at what there is. Answers what was accepted.
async fn rival(client: Client, tenant: &'static str, task: usize) -> BTreeSet<String> {
    let mut accepted = BTreeSet::new();
    for upload in 0..UPLOADS {
        // One file is everybody's; the others are this task's own.
        let mark =
            if upload == 1 { "common".to_owned() } else { format!("{tenant}{task}{upload}") };
        let answer = client.upload("gate", version(&mark)).await;
        match answer.status {
            201 => _ = accepted.insert(answer.body["digest"].as_str().unwrap().to_owned()),
            // Somebody was faster.
            503 => assert_eq!(answer.body["code"], "unavailable", "{}", answer.text),
            status => panic!("{status} {}", answer.text),
        }
        let seen = client.get(VERSIONS).await;
        if seen.status == 404 {
            assert!(accepted.is_empty(), "{tenant} has lost a version");
            continue;
        }
        let seen = seen.expect(200);
        let current =
            seen["versions"].as_array().unwrap().iter().filter(|it| it["current"] == true);
        assert_eq!(current.count(), 1, "{seen}");
        let all = digests(&seen);
        assert!(accepted.iter().all(|it| all.contains(it)), "{tenant} misses one: {seen}");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{seen}");
    }
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_one_name_have_an_order_and_tenants_do_not_see_each_other() {
    let victim = Victim::start().await;
    let path = victim.store.strip_prefix("sqlite:").unwrap();
    let client = |tenant: &str| victim.router.client(&process::token(path.as_ref(), tenant));
    let clients = TENANTS.map(client);
    let mut tasks = tokio::task::JoinSet::new();
    for (tenant, client) in TENANTS.into_iter().zip(&clients) {
        for task in 0..TASKS {
            let client = client.clone();
            tasks.spawn(async move { (tenant, rival(client, tenant, task).await) });
        }
    }
    let mut accepted = TENANTS.map(|_| BTreeSet::new());
    while let Some(done) = tasks.join_next().await {
        let (tenant, digests) = done.unwrap();
        let at = TENANTS.iter().position(|it| *it == tenant).unwrap();
        accepted[at].extend(digests);
    }
    for (client, own) in clients.iter().zip(&accepted) {
        let seen = digests(&client.get(VERSIONS).await.expect(200));
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), *own);
        let current = client.get("/v1/plugins/gate").await.expect(200);
        assert!(own.contains(current["digest"].as_str().unwrap()), "{current}");
        for digest in accepted.iter().flatten() {
            let wanted = if own.contains(digest) { 200 } else { 404 };
            for path in [format!("{VERSIONS}/{digest}"), format!("{VERSIONS}/{digest}/file")] {
                let answer = client.call(Method::GET, &path, &[], "").await;
                assert_eq!(answer.status, wanted, "{path}");
            }
            let body = json!({"name": "x", "url": victim.sink.url("/"), "filters": [{"type": "*"}],
                              "steps": [{"plugin": digest}]});
            let wanted = if own.contains(digest) { 201 } else { 400 };
            client.post("/v1/subscriptions", &body).await.expect(wanted);
        }
    }
    victim.check_unharmed().await;
}
