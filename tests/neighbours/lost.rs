//! Code that is lost is made anew beside what runs, and what needs it waits.

use std::fs;
use std::path::{Path, PathBuf};

use hookyard::wasm::STANDARD_PLUGINS;
use hookyard_nouns::digest::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::compiler::Compiler;
use super::quiet::Quiet;
use crate::harness::yard::event;
use crate::harness::{Client, Endpoint, PATIENCE, Yard, root};
use crate::hostile::guests::guest;

const SCRIPT: &str = "const transform = () => replace({set: {by: 'script'}});";

fn standard(name: &str) -> Digest {
    let (_, file) = STANDARD_PLUGINS.iter().find(|(it, _)| *it == name).unwrap();
    Digest::of(file)
}

/// A router with a folder of its own for compiled code, in which the standard plugins are.
struct Town {
    yard: Yard,
    code: TempDir,
}

impl Town {
    async fn start() -> Town {
        // Compiles them, where nobody has done so yet.
        Yard::start().await.stop().await;
        let code = tempfile::tempdir().unwrap();
        fs::create_dir(code.path().join("measured")).unwrap();
        for folder in ["", "measured"] {
            let shared = root().join("target/test-plugins").join(folder);
            for (name, _) in STANDARD_PLUGINS {
                for file in files_of(&shared, standard(name)) {
                    let copy = code.path().join(folder).join(file.file_name().unwrap());
                    fs::copy(&file, copy).unwrap();
                }
            }
        }
        let folder = code.path().to_owned();
        let yard = Yard::start_with(|it| it.plugin_cache = Some(folder)).await;
        Town { yard, code }
    }

    /// The router ends, the code of a plugin is lost, and the router starts again.
    async fn lose(&mut self, plugin: Digest, change: impl FnOnce(&mut hookyard::config::Given)) {
        self.yard.stop().await;
        let folders = [self.code.path().to_owned(), self.code.path().join("measured")];
        let lost: Vec<_> = folders.iter().flat_map(|it| files_of(it, plugin)).collect();
        assert!(!lost.is_empty(), "there was no code of it");
        lost.iter().for_each(|file| fs::remove_file(file).unwrap());
        self.yard.change_settings(change).await;
    }
}

fn files_of(folder: &Path, plugin: Digest) -> Vec<PathBuf> {
    let name = plugin.to_string()[7..].to_owned();
    let files = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    files.filter(|it| it.file_name().unwrap().to_str().unwrap().starts_with(&name)).collect()
}

/// Asks until the code is there.
async fn when_ready(client: Client, path: String, body: Value) -> String {
    loop {
        let answer = client.post(&path, &body).await;
        if answer.status != 503 {
            assert_eq!(answer.status, 200, "{}", answer.text);
            return answer.text;
        }
        assert_eq!(answer.header("retry-after"), "1", "{}", answer.text);
    }
}

/// Calls twice what needs code that is lost, beside a neighbour's events. Answers what the calls were told.
async fn call_beside_traffic(town: &mut Town, path: &str, body: &Value) -> Vec<String> {
    let mut quiet = Quiet::in_town(&town.yard).await;
    let compiler = Compiler::new();
    compiler.hold();
    let program = compiler.program();
    town.lose(standard("javascript"), |it| it.plugin_compiler = Some(program)).await;
    quiet.moves(&town.yard);
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        tasks.spawn(when_ready(town.yard.client.clone(), path.to_owned(), body.clone()));
    }
    compiler.begins().await;
    // More than there are threads that route.
    for _ in 0..20 {
        quiet.round_trip().await;
    }
    assert!(tasks.try_join_next().is_none(), "there is no code yet");
    compiler.let_go();
    timeout(PATIENCE, tasks.join_all()).await.expect("it has no end")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tried_is_compiled_where_nothing_is_routed() {
    let mut town = Town::start().await;
    let body = json!({"event": event("t", json!(1)), "config": {"script": SCRIPT}});
    for told in call_beside_traffic(&mut town, "/v1/plugins/javascript/try", &body).await {
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["verdict"], "replace", "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compared_is_compiled_where_nothing_is_routed() {
    let mut town = Town::start().await;
    let mut endpoint = Endpoint::start().await;
    let made = town.yard.subscribe(&endpoint, json!({})).await;
    town.yard.publish("t", json!(1)).await;
    endpoint.next().await;
    let path = format!("/v1/subscriptions/{}/compare", made["id"].as_str().unwrap());
    let body = json!({"steps": [{"plugin": "javascript", "config": {"script": SCRIPT}}]});
    for told in call_beside_traffic(&mut town, &path, &body).await {
        let lines: Vec<Value> =
            told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["change"], "changed", "{told}");
        assert_eq!(lines[1]["totals"]["changed"], 1, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_is_lost_is_made_beside_the_traffic_and_what_needs_it_waits() {
    let mut town = Town::start().await;
    let mut quiet = Quiet::in_town(&town.yard).await;
    let mut slow = Endpoint::start().await;
    let steps = json!([{"plugin": "javascript", "config": {"script": SCRIPT}}]);
    town.yard.subscribe(&slow, json!({"steps": steps})).await;
    let compiler = Compiler::new();
    compiler.hold();
    let program = compiler.program();
    town.lose(standard("javascript"), |it| it.plugin_compiler = Some(program)).await;
    quiet.moves(&town.yard);
    let began = Instant::now();
    // More than there are threads that route.
    const EVENTS: usize = 8;
    for number in 0..EVENTS {
        town.yard.publish("t", json!(number)).await;
    }
    let mut arrived = Vec::new();
    // Until somebody is told what is waited for, there is no code.
    let mut waited = false;
    while arrived.len() < EVENTS {
        quiet.round_trip().await;
        arrived.extend(slow.arrived());
        if !waited {
            let waiting = town.yard.deliveries("state=pending").await;
            waited = waiting.iter().any(|it| it["reason"]["code"] == "plugin-not-ready");
            if waited {
                compiler.let_go();
            }
        }
        assert!(began.elapsed() < PATIENCE, "they never come");
    }
    assert!(arrived.iter().all(|it| it.json()["by"] == "script"));
    let sent = town.yard.await_deliveries("state=delivered", EVENTS).await;
    assert!(sent.iter().all(|it| it["reason"] == Value::Null), "{sent:?}");
    // What comes now finds the code.
    town.yard.publish("t", json!(EVENTS)).await;
    assert_eq!(slow.next().await.json()["data"], EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_code_was_lost_is_rendered_by_the_version_that_was_current_for_it() {
    let mut town = Town::start().await;
    let marks = |mark: &str| format!("const transform = () => replace({{set: {{by: '{mark}'}}}});");
    let upload = async |client: &Client, mark: &str| {
        let headers = [("content-type", "text/javascript")];
        let path = "/v1/plugins/own/versions";
        let it = client.call(reqwest::Method::POST, path, &headers, marks(mark)).await.expect(201);
        it["digest"].as_str().unwrap().parse::<Digest>().unwrap()
    };
    let first = upload(&town.yard.client, "first").await;
    let mut endpoint = Endpoint::start().await;
    town.yard.subscribe(&endpoint, json!({"steps": [{"plugin": "own"}]})).await;
    // Neither the script nor what runs it is there.
    town.yard.stop().await;
    for plugin in [first, standard("javascript")] {
        for file in files_of(town.code.path(), plugin) {
            fs::remove_file(file).unwrap();
        }
    }
    town.yard.restart().await;
    town.yard.publish("t", json!(1)).await;
    upload(&town.yard.client, "second").await;
    town.yard.publish("t", json!(2)).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let body = endpoint.next().await.json();
        seen.push((body["data"].as_u64().unwrap(), body["by"].as_str().unwrap().to_owned()));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(1, "first".to_owned()), (2, "second".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compiled_any_more_fails_with_a_sentence() {
    let mut town = Town::start().await;
    let made = town.yard.upload("own", guest().module()).await;
    let digest: Digest = made["digest"].as_str().unwrap().parse().unwrap();
    let endpoint = Endpoint::start().await;
    town.yard.subscribe(&endpoint, json!({"steps": [{"plugin": "own"}]})).await;
    // The engine alone takes more memory than this.
    town.lose(digest, |it| it.plugin_compile_bytes_max = Some(8 << 20)).await;
    town.yard.publish("t", json!(1)).await;
    let failed = town.yard.await_deliveries("state=failed", 1).await.remove(0);
    assert_eq!(failed["reason"]["code"], "plugin-unfit", "{failed}");
    let detail = failed["reason"]["detail"].as_str().unwrap();
    assert!(detail.contains("cannot be compiled any more"), "{detail}");
}
