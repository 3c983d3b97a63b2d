//! Code that is made, and configurations that are checked: for each tenant in turn.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::compiler::Compiler;
use super::quiet::{Quiet, SOON};
use crate::harness::{Endpoint, Yard};
use crate::hostile::guests::{TEXT, entangled, guest};
use crate::hostile::manifests::schema;

/// What a small upload may take while others are compiled.
const SMALL: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_takes_the_compiler_long_delays_nobody_elses() {
    let compiler = Compiler::new();
    let program = compiler.program();
    let yard = Yard::start_with(|it| {
        it.plugin_compile_seconds = Some(4);
        it.plugin_compiler = Some(program);
    })
    .await;
    let mut quiet = Quiet::in_town(&yard).await;
    let bomb = entangled(2_000);
    let mut tasks = JoinSet::new();
    compiler.forget();
    for number in 0..4 {
        let (client, bomb) = (yard.client.clone(), bomb.clone());
        tasks.spawn(async move { client.upload(&format!("b{number}"), bomb).await });
    }
    compiler.begins().await;
    let began = Instant::now();
    quiet.client.upload("small", guest().module()).await.expect(201);
    let took = began.elapsed();
    assert!(took < SMALL, "an upload took {took:?}");
    while began.elapsed() < SMALL {
        let took = quiet.round_trip().await;
        assert!(took < SOON, "an event took {took:?}");
    }
    let mut bombs = 0;
    while let Some(answer) = tasks.join_next().await {
        bombs += usize::from(answer.unwrap().body["code"] == "compile-limit");
    }
    assert_eq!(bombs, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_made_for_one_tenant_delay_nobody_elses_upload() {
    let compiler = Compiler::new();
    let program = compiler.program();
    let yard = Yard::start_with(|it| it.plugin_compiler = Some(program)).await;
    let quiet = Quiet::in_town(&yard).await;
    let counted = "(global.set $i (i64.add (global.get $i) (i64.const 1)))";
    let burn =
        format!("(loop {counted} (br_if 0 (i64.lt_u (global.get $i) (i64.const 30000000))))");
    // An image of many pages takes a while.
    let fill = "(memory.fill (i32.const 0x40000) (i32.const 7) (i32.const 0xd00000))";
    let slow = guest()
        .pages(300)
        .more("(global $i (mut i64) (i64.const 0))")
        .configure(&format!("{burn} {fill}"));
    yard.upload("slow", slow.realloc("(i32.const 0x3000)").module()).await;
    compiler.forget();
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
    let began = Instant::now();
    quiet.client.upload("small", guest().module()).await.expect(201);
    let took = began.elapsed();
    assert!(took < SMALL, "an upload took {took:?}");
    while let Some(answer) = tasks.join_next().await {
        answer.unwrap().expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_charged_to_the_hour_of_their_tenant() {
    let yard = Yard::start_with(|it| it.plugin_compile_hour_seconds = Some(1)).await;
    let counted = "(global.set $i (i64.add (global.get $i) (i64.const 1)))";
    let burn =
        format!("(loop {counted} (br_if 0 (i64.lt_u (global.get $i) (i64.const 30000000))))");
    let slow = guest().more("(global $i (mut i64) (i64.const 0))").configure(&burn);
    yard.upload("slow", slow.module()).await;
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
    compiler.forget();
    for _ in 0..8 {
        let (client, body) = (yard.client.clone(), body("doubling"));
        tasks.spawn(async move { client.post("/v1/subscriptions", &body).await.status });
    }
    compiler.begins().await;
    let began = Instant::now();
    quiet.client.post("/v1/subscriptions", &body("small")).await.expect(201);
    let took = began.elapsed();
    assert!(took < SMALL, "a check took {took:?}");
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), 400);
}
