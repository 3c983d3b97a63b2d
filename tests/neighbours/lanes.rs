//! Code that is made, and configurations that are checked: for each tenant in turn.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::compiler::Compiler;
use super::quiet::Quiet;
use crate::harness::{Endpoint, Yard};
use crate::hostile::guests::{TEXT, guest};
use crate::hostile::manifests::schema;

/// A plugin that takes so long to take its configuration that each configuration needs an image.
fn slow_to_configure() -> Vec<u8> {
    let counted = "(global.set $i (i64.add (global.get $i) (i64.const 1)))";
    let burn =
        format!("(loop {counted} (br_if 0 (i64.lt_u (global.get $i) (i64.const 30000000))))");
    guest().more("(global $i (mut i64) (i64.const 0))").configure(&burn).module()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_takes_the_compiler_long_delays_nobody_elses() {
    let compiler = Compiler::new();
    let program = compiler.program();
    let yard = Yard::start_with(|it| it.plugin_compiler = Some(program)).await;
    let mut quiet = Quiet::in_town(&yard).await;
    let mut tasks = JoinSet::new();
    compiler.hold();
    for number in 0..4 {
        let (client, module) = (yard.client.clone(), guest().words(TEXT, &[number]).module());
        tasks.spawn(async move { client.upload(&format!("b{number}"), module).await });
    }
    compiler.begins().await;
    compiler.hold_no_more();
    quiet.client.upload("small", guest().module()).await.expect(201);
    for _ in 0..20 {
        quiet.round_trip().await;
    }
    // One of them is still held, and the others are behind it.
    assert_eq!(tasks.len(), 4);
    assert!(tasks.try_join_next().is_none(), "they were not held");
    compiler.let_go();
    while let Some(answer) = tasks.join_next().await {
        answer.unwrap().expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_made_for_one_tenant_delay_nobody_elses_upload() {
    let compiler = Compiler::new();
    let program = compiler.program();
    let yard = Yard::start_with(|it| it.plugin_compiler = Some(program)).await;
    let quiet = Quiet::in_town(&yard).await;
    yard.upload("slow", slow_to_configure()).await;
    compiler.hold();
    let sink = Endpoint::start().await;
    // There is no image of any of these yet.
    let mark = uuid::Uuid::now_v7();
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let client = yard.client.clone();
        let body = json!({"name": "x", "url": sink.url("/"), "filters": [{"type": "none"}],
                          "steps": [{"plugin": "slow", "config": {"number": number, "mark": mark}}]});
        tasks.spawn(async move { client.post("/v1/subscriptions", &body).await });
    }
    compiler.begins().await;
    compiler.hold_no_more();
    quiet.client.upload("small", guest().words(TEXT, &[1]).module()).await.expect(201);
    assert!(tasks.try_join_next().is_none(), "they were not held");
    compiler.let_go();
    while let Some(answer) = tasks.join_next().await {
        answer.unwrap().expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_charged_to_the_hour_of_their_tenant() {
    let yard = Yard::start_with(|it| it.plugin_compile_hour_seconds = Some(1)).await;
    yard.upload("slow", slow_to_configure()).await;
    let sink = Endpoint::start().await;
    let mark = uuid::Uuid::now_v7();
    for number in 0..100 {
        let config = json!({"number": number, "mark": mark});
        let body = json!({"name": "x", "url": sink.url("/"), "filters": [{"type": "none"}],
                          "steps": [{"plugin": "slow", "config": config}]});
        let answer = yard.client.post("/v1/subscriptions", &body).await;
        if answer.status == 400 {
            assert!(answer.text.contains("plugin-compile-hour-seconds"), "{}", answer.text);
            let small = yard.client.upload("small", guest().words(TEXT, &[1]).module()).await;
            assert_eq!(small.body["code"], "quota-exceeded", "{}", small.text);
            return;
        }
        answer.expect(201);
    }
    panic!("a hundred images in a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_take_long_delay_nobody_elses_check() {
    let compiler = Compiler::new();
    let program = compiler.program();
    let yard = Yard::start_with(|it| it.plugin_compiler = Some(program)).await;
    let quiet = Quiet::in_town(&yard).await;
    let refer = |number: usize| json!({"$ref": format!("#/$defs/d{number}")});
    let mut all: serde_json::Map<String, Value> = (1..60)
        .map(|it| (format!("d{it}"), json!({"allOf": [refer(it - 1), refer(it - 1)]})))
        .collect();
    all.insert("d0".to_owned(), json!({"type": "object"}));
    let doubling = json!({"$ref": "#/$defs/d59", "$defs": all});
    yard.upload("doubling", schema(&doubling.to_string()).module()).await;
    quiet.client.upload("small", schema(r#"{"type": "object"}"#).module()).await.expect(201);
    let sink = Endpoint::start().await;
    let body = |plugin: &str| {
        json!({"name": "x", "url": sink.url("/"), "filters": [{"type": "none"}],
               "steps": [{"plugin": plugin}]})
    };
    let mut tasks = JoinSet::new();
    compiler.hold();
    for _ in 0..8 {
        let (client, body) = (yard.client.clone(), body("doubling"));
        tasks.spawn(async move { client.post("/v1/subscriptions", &body).await.status });
    }
    compiler.begins().await;
    compiler.hold_no_more();
    quiet.client.post("/v1/subscriptions", &body("small")).await.expect(201);
    assert!(tasks.try_join_next().is_none(), "they were not held");
    compiler.let_go();
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), 400);
}
