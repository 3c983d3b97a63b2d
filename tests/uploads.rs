//! What is not a plugin, and what is one without much of a toolchain.

use serde_json::{Value, json};

use crate::harness::plugins::{filter_module, plugin};
use crate::harness::{Endpoint, Yard};
use crate::neighbours::raw::{Raw, address, head};

const ACCEPT: &str = "(i32.const 1024)";
const REJECT: &str = "(i32.const 1040)";

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_plugin_is_refused_by_name() {
    let yard = Yard::start().await;
    let truncated = plugin("misbehave")[..10_000].to_vec();
    let mut flipped = plugin("misbehave");
    for at in (5_000..flipped.len()).step_by(997) {
        flipped[at] ^= 0x55;
    }
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("nothing", vec![], "not-wasm", "does not begin"),
        ("text", b"#!/bin/sh\necho hello\n".to_vec(), "not-wasm", "does not begin"),
        ("truncated", truncated, "invalid-wasm", "not WebAssembly that we run"),
        ("flipped bits", flipped, "invalid-wasm", "not WebAssembly that we run"),
        ("an empty module", wat("(module)"), "missing-export", "lifecycle@1.0.0"),
        ("an empty component", wat("(component)"), "missing-export", "lifecycle@1.0.0"),
        (
            "WASI",
            wat(r#"(module (import "wasi_snapshot_preview1" "fd_write"
                    (func (param i32 i32 i32 i32) (result i32))))"#),
            "forbidden-import",
            "plugins have no WASI",
        ),
        (
            "a component with WASI",
            wat(r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#),
            "forbidden-import",
            "`wasi:clocks/wall-clock@0.2.0`",
        ),
        (
            "another world",
            wat(r#"(module (import "env" "now" (func (result i64))))"#),
            "forbidden-import",
            "`env`",
        ),
        (
            "the next major version",
            wat(r#"(module (import "hookyard:plugin/event@2.0.0" "size" (func (result i32))))"#),
            "forbidden-import",
            "version 1.x",
        ),
        (
            "a wrong signature",
            wat(r#"(module (memory (export "memory") 1)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
                (func (export "hookyard:plugin/lifecycle@1.0.0#describe") (result i64) i64.const 0)
                (func (export "hookyard:plugin/lifecycle@1.0.0#configure") (param i32 i32) (result i32)
                    i32.const 0)
                (func (export "hookyard:plugin/filter@1.0.0#filter") (result i32) i32.const 0))"#),
            "unfit-interface",
            "does not fit `plugin.wit`",
        ),
        ("64-bit memory", wat("(module (memory i64 1))"), "invalid-wasm", "memory64"),
        ("shared memory", wat("(module (memory 1 1 shared))"), "invalid-wasm", "threads"),
        ("tail calls", wat("(module (func $f (return_call $f)))"), "invalid-wasm", "tail calls"),
    ];
    for (what, file, code, words) in cases {
        let answer = yard.client.upload("x", file).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (422, &json!(code)),
            "{what}: {}",
            answer.text
        );
        assert!(answer.body["detail"].as_str().unwrap().contains(words), "{what}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_misbehaves_when_it_is_tried_is_refused() {
    let yard = Yard::start_with(|it| it.plugin_configure_ms = Some(20)).await;
    let forever = "(func $forever (loop (br 0))) (start $forever)";
    let trap = "(func $trap unreachable) (start $trap)";
    let memory = "(memory $more 2000)";
    for (more, code) in [(forever, "plugin-timeout"), (trap, "plugin-trap")] {
        let answer = yard.client.upload("x", filter_module(ACCEPT, more)).await;
        assert_eq!((answer.status, &answer.body["code"]), (422, &json!(code)), "{}", answer.text);
    }
    let answer = yard.client.upload("x", filter_module(ACCEPT, memory)).await;
    assert_eq!(answer.status, 422, "{}", answer.text);

    // A manifest that points outside the memory, and one with a schema that is none.
    let wild = r#"(data (i32.const 0) "\ff\ff\ff\7f\ff\ff\00\00")"#;
    let answer = yard.client.upload("x", filter_module(ACCEPT, wild)).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (422, &json!("plugin-trap")),
        "{}",
        answer.text
    );
    let schema = r#"(data (i32.const 24) "\01\00\00\00\00\08\00\00\04\00\00\00")
                    (data (i32.const 2048) "nope")"#;
    let answer = yard.client.upload("x", filter_module(ACCEPT, schema)).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (422, &json!("plugin-unfit")),
        "{}",
        answer.text
    );
    let schema = r#"(data (i32.const 24) "\01\00\00\00\00\08\00\00\13\00\00\00")
                    (data (i32.const 2048) "{\22type\22:\22nothing\22} ")"#;
    let answer = yard.client.upload("x", filter_module(ACCEPT, schema)).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (422, &json!("bad-manifest")),
        "{}",
        answer.text
    );
    let list = yard.client.get("/v1/plugins").await.expect(200);
    assert!(list["plugins"].as_array().unwrap().iter().all(|it| it["name"] != "x"));
}

/// They say nothing of what a module does (WebAssembly core specification, section 2.5.13).
#[tokio::test(flavor = "multi_thread")]
async fn custom_sections_that_are_broken_or_unknown_change_nothing() {
    let yard = Yard::start().await;
    let accepts = filter_module(ACCEPT, "");
    for (name, data) in [
        ("name", &b"\x09\x05abc"[..]),
        ("name", b"\x2a\x03abc"),
        ("name", b"\x01\x03\x01\x63\xff"),
        ("producers", b"\x7f"),
        (".debug_info", &[0; 100_000]),
    ] {
        let file = [&accepts[..], &custom_section(name, data)].concat();
        yard.upload("custom", file).await;
    }
}

fn custom_section(name: &str, data: &[u8]) -> Vec<u8> {
    let content = [&[name.len() as u8][..], name.as_bytes(), data].concat();
    // A length in LEB128 with as many bytes as any may have.
    let length =
        (0..5).map(|it| (content.len() >> (7 * it) & 0x7f) as u8 | if it < 4 { 0x80 } else { 0 });
    [vec![0], length.collect(), content].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_has_a_maximum() {
    let yard = Yard::start().await;
    let answer = yard.client.upload("x", vec![0; (4 << 20) + 1]).await;
    assert!(answer.text.contains("strip"), "{}", answer.text);
    assert_eq!(answer.expect(413)["code"], "too-large");
    let headers = [("content-type", "Application/WASM; x=y")];
    let path = "/v1/plugins/case/versions";
    let file = filter_module(ACCEPT, "");
    yard.client.call(reqwest::Method::POST, path, &headers, file).await.expect(201);
    // A client may send all of its file before it listens.
    let mut raw = Raw::open(address(&yard.client)).await;
    let size = 40 << 20;
    let more = format!("content-type: application/wasm\r\ncontent-length: {size}\r\n");
    raw.say(head("POST /v1/plugins/x/versions", yard.client.token(), &more)).await;
    raw.say(vec![0; size]).await;
    assert_eq!(raw.hear().await.json()["code"], "too-large");
    // A hundred megabytes are not read to be refused; the connection may break off instead.
    let headers = [("content-type", "application/wasm")];
    let path = "/v1/plugins/x/versions";
    let huge =
        yard.client.try_call(reqwest::Method::POST, path, &headers, vec![0; 100 << 20]).await;
    assert!(huge.map_or(true, |answer| answer.status == 413));
    yard.client.get("/v1/plugins").await.expect(200);

    let wrong = [("content-type", "application/json")];
    let answer = yard.client.call(reqwest::Method::POST, path, &wrong, "{}").await;
    assert_eq!(answer.expect(415)["code"], "wrong-media-type");
    let answer = yard.client.upload("Bad_Name", plugin("misbehave")).await;
    assert_eq!((answer.status, answer.fields()), (400, vec!["name"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_told_what_it_is() {
    let yard = Yard::start().await;
    let it = yard.upload("mine", plugin("misbehave")).await;
    assert!(it["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(it["size_bytes"], plugin("misbehave").len());
    assert_eq!(it["world"], "hookyard:plugin/transform-plugin@1");
    assert_eq!(it["manifest"]["name"], "misbehave");
    assert_eq!(it["manifest"]["config_schema"]["title"], "Misbehave");
    assert!(it["empty_run_us"].as_f64().unwrap() > 0.0);
    assert!(it["compile_ms"].is_number());
    let again = yard.upload("mine", plugin("misbehave")).await;
    assert_eq!(again["digest"], it["digest"]);
    let versions = yard.client.get("/v1/plugins/mine/versions").await.expect(200);
    assert_eq!(versions["versions"].as_array().unwrap().len(), 1);
    yard.client.get("/v1/plugins/unknown/versions").await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_module_is_typed_by_its_exports() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let quiet = Endpoint::start().await;
    for (name, filter, to) in [("yes", ACCEPT, &endpoint), ("no", REJECT, &quiet)] {
        let it = yard.upload(name, filter_module(filter, "")).await;
        assert_eq!(it["world"], "hookyard:plugin/filter-plugin@1");
        yard.subscribe(to, json!({"steps": [{"plugin": name}]})).await;
    }
    yard.publish("t", json!(1)).await;
    endpoint.next().await;
    let dropped = yard.await_deliveries("state=filtered", 1).await;
    assert_eq!(dropped[0]["reason"]["code"], "dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_modules_fail_alone() {
    let yard = Yard::start().await;
    let mut healthy = Endpoint::start().await;
    let endpoint = Endpoint::start().await;
    yard.subscribe(&healthy, json!({})).await;
    let grow = "(drop (memory.grow (i32.const 10000))) (loop (br 0)) (i32.const 1024)";
    let deep = "(call $deep) (i32.const 1024)";
    let deeper = "(func $deep (call $deep) (call $deep))";
    let cases: &[(&str, &str, &str, &str)] = &[
        ("loops", "(loop (br 0)) (i32.const 1024)", "", "plugin-timeout"),
        ("grows-and-loops", grow, "", "plugin-timeout"),
        ("divides", "(i32.div_s (i32.const 1) (i32.const 0))", "", "plugin-trap"),
        ("recurses", deep, deeper, "plugin-trap"),
        ("points-outside", "(i32.const 2000000)", "", "plugin-trap"),
        ("points-askew", "(i32.const 1025)", "", "plugin-trap"),
        (
            "unknown-case",
            "(i32.store8 (i32.const 1024) (i32.const 9)) (i32.const 1024)",
            "",
            "plugin-trap",
        ),
        (
            "endless-text",
            "(i32.store8 (i32.const 1040) (i32.const 1)) (i32.store8 (i32.const 1044) (i32.const 1))
             (i32.store (i32.const 1048) (i32.const 0)) (i32.store (i32.const 1052) (i32.const 100000))
             (i32.const 1040)",
            "",
            "plugin-output-too-large",
        ),
        (
            "text-that-is-none",
            "(i32.store8 (i32.const 1044) (i32.const 1)) (i32.store (i32.const 3000) (i32.const -1))
             (i32.store (i32.const 1048) (i32.const 3000)) (i32.store (i32.const 1052) (i32.const 4))
             (i32.const 1040)",
            "",
            "plugin-trap",
        ),
    ];
    for (name, filter, more, _) in cases {
        yard.upload(name, filter_module(filter, more)).await;
        yard.subscribe(&endpoint, json!({"name": name, "steps": [{"plugin": name}]})).await;
    }
    yard.publish("t", json!(1)).await;
    healthy.next().await;
    let failed = yard.await_deliveries("state=failed", cases.len()).await;
    let subscriptions = yard.client.get("/v1/subscriptions").await.expect(200);
    for (name, _, _, code) in cases {
        let of = |it: &&Value| it["name"] == *name;
        let id = &subscriptions["subscriptions"].as_array().unwrap().iter().find(of).unwrap()["id"];
        let delivery = failed.iter().find(|it| it["subscription"] == *id).unwrap();
        assert_eq!(delivery["reason"]["code"], *code, "{name}: {delivery}");
    }
    yard.publish("t", json!(2)).await;
    healthy.next().await;
}

const ORDERS: &str = "
    const manifest = {
      summary: 'Delivers large orders without their note',
      configSchema: {
        type: 'object', required: ['minimum'], additionalProperties: false,
        properties: {minimum: {type: 'number'}},
      },
    };
    function transform(event, config) {
      const amount = event.get('/amount');
      if (typeof amount !== 'number') return fail('no-amount');
      log.info(`an order of ${amount}`);
      if (amount < config.minimum) return drop('too-small');
      return replace({set: {checkedby: 'orders'}, edits: {'/note': undefined}});
    }";

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_a_plugin_without_any_toolchain() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let path = "/v1/plugins/orders/versions";
    let script = [("content-type", "text/javascript")];
    let upload = async |text: &str| {
        yard.client.call(reqwest::Method::POST, path, &script, text.to_owned()).await
    };
    for (text, words) in [
        ("", "empty"),
        ("function transform( {", "script:1"),
        ("let a = 1", "filter"),
        (&"// a comment\n".repeat(6_000), "65536 bytes"),
    ] {
        let answer = upload(text).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
        assert!(answer.body["detail"].as_str().unwrap().contains(words), "{}", answer.text);
    }
    let made = upload(ORDERS).await.expect(201);
    assert_eq!(made["manifest"]["summary"], "Delivers large orders without their note");
    assert_eq!(made["manifest"]["config_schema"]["required"], json!(["minimum"]));

    let wrong = json!({"name": "x", "url": endpoint.url("/hook"), "filters": [{"type": "*"}],
                       "steps": [{"plugin": "orders", "config": {}}]});
    let refused = yard.client.post("/v1/subscriptions", &wrong).await.expect(400);
    assert_eq!(refused["errors"][0]["field"], "/steps/0/config/minimum");
    let steps = json!([{"plugin": "orders", "config": {"minimum": 100}}]);
    yard.subscribe(&endpoint, json!({"steps": steps})).await;
    yard.publish("order.paid", json!({"amount": 99, "note": "n"})).await;
    yard.publish("order.paid", json!({"note": "n"})).await;
    yard.publish(
        "order.paid",
        json!({"amount": 100, "note": "n", "id": 9_007_199_254_740_993_u64}),
    )
    .await;
    let body = endpoint.next().await.json();
    assert_eq!(body["data"], json!({"amount": 100, "id": 9_007_199_254_740_993_u64}));
    assert_eq!(body["checkedby"], "orders");
    let dropped = yard.await_deliveries("state=filtered", 1).await;
    assert_eq!(dropped[0]["reason"]["code"], "too-small");
    let failed = yard.await_deliveries("state=failed", 1).await;
    assert_eq!(failed[0]["reason"]["code"], "no-amount");
    yard.await_deliveries("state=delivered", 1).await;
    let logs = yard.client.get("/v1/plugins/orders/logs").await.expect(200);
    let mut messages: Vec<_> = logs["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["message"].as_str().unwrap())
        .collect();
    // Two events may be routed at the same time.
    messages.sort_unstable();
    assert_eq!(messages, ["an order of 100", "an order of 99"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_has_the_plugin_in_its_field_file() {
    let yard = Yard::start().await;
    let upload = async |field: &str, media_type: &str| {
        let head = format!(
            "--x\r\ncontent-disposition: form-data; name=\"{field}\"; filename=\"a\"\r\n\
             content-type: {media_type}\r\n\r\n"
        );
        let body = [head.as_bytes(), &filter_module(ACCEPT, ""), b"\r\n--x--\r\n"].concat();
        let headers = [("content-type", "multipart/form-data; boundary=x")];
        let path = "/v1/plugins/form/versions";
        yard.client.call(reqwest::Method::POST, path, &headers, body).await
    };
    let made = upload("file", "application/wasm").await.expect(201);
    assert_eq!(made["world"], "hookyard:plugin/filter-plugin@1");
    assert_eq!(made["imports"], json!([]));
    let missing = upload("plugin", "application/wasm").await.expect(400);
    assert_eq!(missing["errors"][0]["field"], "file");
    assert_eq!(upload("file", "image/png").await.status, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn compiling_for_a_tenant_has_an_end() {
    let yard = Yard::start_with(|it| it.plugin_compile_hour_seconds = Some(0)).await;
    let answer = yard.client.upload("x", filter_module(ACCEPT, "")).await;
    assert_eq!(answer.status, 409, "{}", answer.text);
    assert_eq!(answer.body["code"], "quota-exceeded");
    assert!(answer.text.contains("plugin-compile-hour-seconds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_much_for_the_compiler_is_refused_and_the_next_one_taken() {
    // The engine alone takes more memory than this.
    let mut yard = Yard::start().await;
    yard.change_settings(|it| it.plugin_compile_bytes_max = Some(8 << 20)).await;
    let answer = yard.client.upload("x", filter_module(ACCEPT, "")).await;
    assert_eq!(answer.body["code"], "compile-limit", "{}", answer.text);
    assert!(answer.text.contains("plugin-compile-bytes-max"), "{}", answer.text);
    yard.change_settings(|it| it.plugin_compile_bytes_max = None).await;
    yard.upload("x", filter_module(ACCEPT, "")).await;
}
