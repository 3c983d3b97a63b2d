//! Versions of plugins: which is current, which was, which is not to be used, and which can go.

use std::time::Duration;

use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::harness::plugins::filter_module;
use crate::harness::{Endpoint, PATIENCE, Yard};

/// A filter that accepts, or rejects with a reason, and differs by `mark`.
fn version(accepts: bool, mark: &str) -> Vec<u8> {
    let decision = if accepts { "(i32.const 1024)" } else { "(i32.const 1040)" };
    filter_module(decision, &format!(r#"(data (i32.const 60000) "{mark}")"#))
}

async fn is_delivered(yard: &Yard, endpoint: &mut Endpoint, count: &mut usize) -> bool {
    let before = yard.deliveries("state=delivered").await.len();
    yard.publish("t", json!(*count)).await;
    *count += 1;
    let settled = async || {
        let all = yard.deliveries("").await;
        all.iter().filter(|it| it["state"] == "delivered" || it["state"] == "filtered").count()
    };
    while settled().await < *count {
        tokio::task::yield_now().await;
    }
    endpoint.arrived();
    yard.deliveries("state=delivered").await.len() > before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_goes_forward_and_back_and_its_followers_with_it() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let first = yard.upload("gate", version(true, "1")).await["digest"].clone();
    yard.subscribe(&endpoint, json!({"steps": [{"plugin": "gate"}]})).await;
    let mut count = 0;
    assert!(is_delivered(&yard, &mut endpoint, &mut count).await);
    let second = yard.upload("gate", version(false, "2")).await["digest"].clone();
    assert!(!is_delivered(&yard, &mut endpoint, &mut count).await);

    let back = yard.client.post("/v1/plugins/gate/rollback", &json!({})).await;
    assert_eq!(back.header("etag"), format!("\"{}\"", first.as_str().unwrap()));
    assert_eq!(back.expect(200)["digest"], first);
    assert!(is_delivered(&yard, &mut endpoint, &mut count).await);
    // What was before is now the second one.
    yard.client.post("/v1/plugins/gate/rollback", &json!({})).await.expect(200);
    assert!(!is_delivered(&yard, &mut endpoint, &mut count).await);

    let current = "/v1/plugins/gate/current";
    let headers = |expected: &Value| {
        vec![
            ("content-type", "application/json".to_owned()),
            ("if-match", format!("\"{}\"", expected.as_str().unwrap())),
        ]
    };
    let call = async |headers: Vec<(&str, String)>, digest: &Value| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = json!({"digest": digest}).to_string();
        yard.client.call(Method::PUT, current, &headers, body).await
    };
    let late = call(headers(&first), &first).await;
    assert_eq!((late.status, &late.body["code"]), (412, &json!("not-current")));
    call(headers(&second), &first).await.expect(200);
    assert_eq!(yard.client.get("/v1/plugins/gate").await.expect(200)["digest"], first);
    let unknown = json!(format!("sha256:{}", "0".repeat(64)));
    call(headers(&first), &unknown).await.expect(404);
    let wrong = call(headers(&first), &json!("latest")).await;
    assert_eq!((wrong.status, wrong.fields()), (400, vec!["/digest"]));
    yard.client.post("/v1/plugins/nobody/rollback", &json!({})).await.expect(404);
}

/// More than are brought to a version in one step.
const MANY: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn many_followers_come_to_a_version_all_of_them() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.upload("gate", version(true, "1")).await;
    for _ in 0..MANY {
        yard.subscribe(&endpoint, json!({"steps": [{"plugin": "gate"}]})).await;
    }
    yard.upload("gate", version(false, "2")).await;
    yard.publish("t", json!(0)).await;
    yard.await_deliveries("state=filtered", MANY).await;
    yard.client.post("/v1/plugins/gate/rollback", &json!({})).await.expect(200);
    yard.publish("t", json!(1)).await;
    for _ in 0..MANY {
        assert_eq!(endpoint.next().await.json()["data"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_come_to_a_version_whose_switch_a_crash_has_broken_off() {
    let mut yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.upload("gate", version(true, "1")).await;
    for _ in 0..MANY {
        yard.subscribe(&endpoint, json!({"steps": [{"plugin": "gate"}]})).await;
    }
    yard.upload("gate", version(false, "2")).await;
    yard.stop().await;
    // As after a kill that came when the first version was current again and nobody had followed yet.
    let path = yard.folder().join("store.sqlite");
    let store = Connection::open(&path).unwrap();
    let back = "update plugins set digest = previous, previous = digest where name = 'gate'";
    assert_eq!(store.execute(back, ()).unwrap(), 1);
    let behind = "select count(*) from subscriptions join renderings on hash = rendering
                  where ended is null
                  and instr(definition, (select lower(hex(previous)) from plugins where name = 'gate'))";
    let behind = || store.query_row(behind, (), |row| row.get::<_, usize>(0)).unwrap();
    assert_eq!(behind(), MANY);
    yard.restart().await;
    let until = Instant::now() + PATIENCE;
    while behind() > 0 {
        assert!(Instant::now() < until, "{} are left behind", behind());
        sleep(Duration::from_millis(5)).await;
    }
    yard.publish("t", json!(1)).await;
    for _ in 0..MANY {
        assert_eq!(endpoint.next().await.json()["data"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_back_as_it_was_sent() {
    let yard = Yard::start().await;
    let file = version(true, "1");
    let headers = [("content-type", "application/wasm"), ("content-digest", "sha-256=:AAAA:")];
    let versions = "/v1/plugins/gate/versions";
    let changed = yard.client.call(Method::POST, versions, &headers, file.clone()).await;
    assert_eq!((changed.status, changed.fields()), (400, vec!["Content-Digest"]));

    let digest = yard.upload("gate", file.clone()).await["digest"].as_str().unwrap().to_owned();
    let one = format!("{versions}/{digest}");
    assert_eq!(yard.client.get(&one).await.expect(200)["current"], true);
    let got = yard.client.download(&format!("{one}/file")).await;
    assert_eq!(got.1, file);
    assert_eq!(got.0["content-type"], "application/wasm");
    // What is said of the file on its way out is taken on its way in.
    let given = got.0["content-digest"].to_str().unwrap();
    let headers = [("content-type", "application/wasm"), ("content-digest", given)];
    yard.client.call(Method::POST, versions, &headers, file).await.expect(201);

    // Of another tenant's plugin nobody hears.
    let other = yard.client.with_token(Some(&yard.token(Some("other"), "admin").await));
    for path in [&one, &format!("{one}/file"), "/v1/plugins/gate"] {
        other.get(path).await.expect(404);
    }
    other.call(Method::DELETE, &one, &[], "").await.expect(404);
    // The standard ones are there for all, and nobody's to change.
    let standard = yard.client.get("/v1/plugins/filter").await.expect(200);
    let one = format!("/v1/plugins/filter/versions/{}", standard["digest"].as_str().unwrap());
    yard.client.get(&one).await.expect(200);
    yard.client.call(Method::DELETE, &one, &[], "").await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deprecated_version_goes_on_but_is_not_named_anew() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let old = yard.upload("gate", version(true, "1")).await["digest"].clone();
    yard.subscribe(&endpoint, json!({"steps": [{"plugin": old}]})).await;
    let path = format!("/v1/plugins/gate/versions/{}/deprecation", old.as_str().unwrap());
    let reason = json!({"reason": "use the one from May"});
    let current = yard.client.json(Method::PUT, &path, &reason).await;
    assert_eq!((current.status, &current.body["code"]), (409, &json!("current-version")));
    yard.upload("gate", version(true, "2")).await;
    let deprecated = yard.client.json(Method::PUT, &path, &reason).await.expect(200);
    assert_eq!(deprecated["deprecated"], "use the one from May");

    let body = json!({"name": "x", "url": endpoint.url("/x"), "filters": [{"type": "*"}],
                      "steps": [{"plugin": old}]});
    let refused = yard.client.post("/v1/subscriptions", &body).await;
    assert_eq!((refused.status, refused.fields()), (400, vec!["/steps/0/plugin"]));
    assert!(refused.text.contains("use the one from May"));
    let back = yard.client.post("/v1/plugins/gate/rollback", &json!({})).await;
    assert_eq!((back.status, back.fields()), (400, vec!["/digest"]));
    assert!(is_delivered(&yard, &mut endpoint, &mut 0).await);

    yard.client.call(Method::DELETE, &path, &[], "").await.expect(200);
    yard.client.post("/v1/subscriptions", &body).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_uses_can_go() {
    let yard = Yard::start_with(|it| it.plugin_versions_max = Some(3)).await;
    let mut endpoint = Endpoint::start().await;
    let first = yard.upload("gate", version(true, "1")).await["digest"].clone();
    let made = yard.subscribe(&endpoint, json!({"steps": [{"plugin": first}]})).await;
    let second = yard.upload("gate", version(true, "2")).await["digest"].clone();
    let delete = async |digest: &Value| {
        let path = format!("/v1/plugins/gate/versions/{}", digest.as_str().unwrap());
        yard.client.call(Method::DELETE, &path, &[], "").await
    };
    assert_eq!(delete(&first).await.expect(409)["code"], "in-use");
    assert_eq!(delete(&second).await.expect(409)["code"], "in-use");
    assert!(is_delivered(&yard, &mut endpoint, &mut 0).await);
    // The delivery is in the log, and could be made again as long as it is.
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    yard.client.call(Method::DELETE, &path, &[], "").await.expect(204);
    assert_eq!(delete(&first).await.expect(409)["code"], "in-use");

    let unused = yard.upload("other-gate", version(true, "2")).await["digest"].clone();
    assert_eq!(unused, second);
    let fourth = yard.client.upload("gate", version(true, "3")).await;
    assert_eq!((fourth.status, &fourth.body["code"]), (409, &json!("quota-exceeded")));
    assert!(fourth.text.contains("plugin-versions-max"), "{}", fourth.text);
    // The same file again is no version more.
    yard.upload("gate", version(true, "2")).await;
    yard.client
        .call(
            Method::DELETE,
            &format!("/v1/plugins/other-gate/versions/{}", unused.as_str().unwrap()),
            &[],
            "",
        )
        .await
        .expect(204);
    yard.client.get("/v1/plugins/other-gate").await.expect(404);
    // The file is still the other plugin's.
    yard.subscribe(&endpoint, json!({"steps": [{"plugin": second}]})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_uploads_at_once_have_an_order() {
    let yard = Yard::start().await;
    yard.upload("gate", version(true, "0")).await;
    let (one, other) = (version(true, "1"), version(true, "2"));
    let (one, other) =
        tokio::join!(yard.client.upload("gate", one), yard.client.upload("gate", other));
    let taken = [&one, &other].iter().filter(|it| it.status == 201).count();
    assert!(taken >= 1, "{} {}", one.text, other.text);
    let current = yard.client.get("/v1/plugins/gate").await.expect(200)["digest"].clone();
    let versions = yard.client.get("/v1/plugins/gate/versions").await.expect(200);
    let versions = versions["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 1 + taken);
    assert_eq!(versions.iter().filter(|it| it["current"] == true).count(), 1);
    assert!(versions.iter().any(|it| it["digest"] == current));
}
