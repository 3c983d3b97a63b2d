//! What a plugin makes the router do is bounded: in time, in memory, and for everybody else.

use std::collections::HashSet;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::guests::{Guest, TEXT, VERDICT, entangled, guest};
use super::manifests::schema;
use super::sizes::with_core;
use super::{Victim, check_settled};
use crate::harness::plugins::plugin;
use crate::harness::yard::event;
use crate::harness::{Client, Endpoint, PATIENCE, process};

/// Where large things are.
const LARGE: u32 = 0x10_0000;
/// What most of the budget of `configure` is used up by.
const MOST_OF_A_CONFIGURE: i64 = 100_000_000;
const STEPS_MAX: usize = 16;
/// Nearly as deep as data may be.
const DEPTH: usize = 90;

impl Victim {
    /// Another tenant.
    pub(crate) fn neighbour(&self, tenant: &str) -> Client {
        let path = self.store.strip_prefix("sqlite:").unwrap();
        self.router.client(&process::token(path.as_ref(), tenant))
    }

    async fn add(&self, name: &str, guest: &Guest) -> Value {
        assert_eq!(self.upload(name, guest.module()).await.0, "accepted", "{name}");
        self.try_subscribe(name, &json!({})).await.expect(201)
    }
}

fn nested(levels: usize, inner: &str) -> String {
    format!("{}{inner}{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_checked_in_time() {
    let victim = Victim::start().await;
    let refer = |number: usize| json!({"$ref": format!("#/$defs/d{number}")});
    let mut all: serde_json::Map<String, Value> = (1..60)
        .map(|it| (format!("d{it}"), json!({"allOf": [refer(it - 1), refer(it - 1)]})))
        .collect();
    all.insert("d0".to_owned(), json!({"type": "object"}));
    let doubling = json!({"$ref": "#/$defs/d59", "$defs": all});
    let (got, _) = victim.upload("doubling", schema(&doubling.to_string()).module()).await;
    assert_eq!(got, "accepted");
    let refused = victim.try_subscribe("doubling", &json!({})).await;
    assert_eq!(refused.fields(), ["/steps/0/config"]);
    assert!(
        refused.text.contains("by the plugin's schema takes more than 2 s"),
        "{}",
        refused.text
    );
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_means_itself_harms_nobody() {
    let victim = Victim::start().await;
    let circle = json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}});
    let (got, _) = victim.upload("circle", schema(&circle.to_string()).module()).await;
    if got == "accepted" {
        let answer = victim.try_subscribe("circle", &json!({})).await;
        assert!([201, 400].contains(&answer.status), "{}", answer.text);
    }
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_made_ready_within_its_memory() {
    let victim = Victim::start().await;
    let patterns: serde_json::Map<String, Value> =
        (0..1_200).map(|it| (format!(r"^(\pL\w\pN){{190}}{it}$"), json!({}))).collect();
    let it = schema(&json!({"patternProperties": patterns}).to_string());
    assert_eq!(victim.upload("patterns", it.module()).await.0, "bad-manifest");
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_is_no_larger_than_its_file_allows() {
    let victim = Victim::start().await;
    let sparse =
        r#"(module (memory 256) (data (i32.const 0) "x") (data (i32.const 0xfffff0) "x"))"#;
    for number in 0..15 {
        let file = with_core(sparse, 0);
        let marked = super::bytes::section(0, super::bytes::name(format!("{number}")));
        victim.upload(&format!("p{number}"), super::bytes::with(file, &[marked])).await;
    }
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_bounded_together() {
    let mut victim = Victim::start().await;
    let fill = "(memory.fill (i32.const 0x40000) (i32.const 7) (i32.const 0xd00000))";
    let it = guest().pages(300).configure(fill).realloc("(i32.const 0x3000)");
    assert_eq!(victim.upload("large", it.module()).await.0, "accepted");
    for number in 0..12 {
        victim.try_subscribe("large", &json!({"number": number})).await.expect(201);
    }
    for number in 0..260 {
        victim.publish(json!(number)).await;
    }
    // Images are made one after the other, as uploads are, and so in between.
    for number in 0..40 {
        victim.upload("last", guest().words(TEXT, &[number]).module()).await;
    }
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memories_of_a_run_are_bounded_together() {
    let victim = Victim::start().await;
    let (got, _) = victim.upload("four", with_core("(module (memory 500))", 3)).await;
    assert_ne!(got, "accepted");
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_search_costs_what_it_costs() {
    let mut victim = Victim::start().await;
    let pointer = "/a".repeat(DEPTH) + "/z";
    let length = u32::try_from(pointer.len()).unwrap();
    let it = guest()
        .pages(40)
        .bytes(TEXT, pointer.as_bytes())
        .words(LARGE, &[TEXT, length].repeat(60))
        .does(&format!("(call $get-many (i32.const {LARGE}) (i32.const 60) (i32.const 2000))"));
    let made = victim.add("deep", &it).await;
    let inner = format!(r#"{{"y":[{}1]}}"#, "1,".repeat(400_000));
    let data: Value = serde_json::from_str(&nested(DEPTH, &inner)).unwrap();
    victim.publish(data).await;
    let failed = victim.settled(&made).await.remove(0);
    let ends = ["plugin-search-too-large", "plugin-timeout"];
    assert!(ends.iter().any(|it| failed["reason"]["code"] == *it), "{failed}");
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_edit_costs_what_it_costs() {
    let mut victim = Victim::start().await;
    let value = nested(DEPTH - 1, &format!(r#"{{"y":[{}1]}}"#, "1,".repeat(220_000)));
    let pointer = "/a".repeat(DEPTH) + "/z";
    let length = |it: &str| u32::try_from(it.len()).unwrap();
    let edits = [
        [TEXT, 2, 1, LARGE, length(&value)].to_vec(),
        [TEXT + 8, length(&pointer), 0, 0, 0].repeat(100),
    ]
    .concat();
    let it = guest()
        .pages(40)
        .bytes(TEXT, b"/a")
        .bytes(TEXT + 8, pointer.as_bytes())
        .words(LARGE - 4_096, &edits)
        .bytes(LARGE, value.as_bytes())
        .words(VERDICT, &[1, 0, 0, 0, 0, 1, LARGE - 4_096, 101]);
    let made = victim.add("deep", &it).await;
    victim.publish(json!({"x": "x".repeat(245_000)})).await;
    let failed = victim.settled(&made).await.remove(0);
    assert_eq!(failed["state"], "failed", "{failed}");
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_output() {
    let mut victim = Victim::start().await;
    let mut steps = Vec::new();
    for step in 1..STEPS_MAX {
        let mut it = guest().pages(40).bytes(LARGE, &[b'v'; 32_000]);
        let mut list = Vec::new();
        for number in 0..30 {
            let at = TEXT + 16 * number;
            it = it.bytes(at, format!("a{step:02}{number:02}").as_bytes());
            list.extend([at, 5, LARGE, 32_000]);
        }
        it = it.words(0x1_0000, &list).words(VERDICT, &[1, 0x1_0000, 30]);
        assert_eq!(victim.upload(&format!("p{step}"), it.module()).await.0, "accepted");
        steps.push(json!({"plugin": format!("p{step}")}));
    }
    victim.upload("split", guest().words(VERDICT, &[2, 0x1_0000, 64]).module()).await;
    steps.push(json!({"plugin": "split"}));
    let body = json!({"name": "x", "url": victim.sink.url("/"), "filters": [{"type": "*"}],
                      "steps": steps});
    let made = victim.client.post("/v1/subscriptions", &body).await.expect(201);
    victim.publish(json!({"x": "x".repeat(245_000)})).await;
    let query = format!("subscription={}", made["id"].as_str().unwrap());
    while victim.client.deliveries(&query).await.is_empty() {
        tokio::task::yield_now().await;
    }
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_answers_whatever_comes_out() {
    let victim = Victim::start().await;
    victim.upload("misbehave", plugin("misbehave")).await;
    let deep = "[".repeat(127) + &"]".repeat(127);
    let body = json!({"event": event("t", json!(1)), "config": {"do": "text", "with": deep}});
    victim.client.post("/v1/plugins/misbehave/try", &body).await.expect(200);
    victim.upload("split", guest().words(VERDICT, &[2, 0x1_0000, 64]).module()).await;
    let body = json!({"event": event("t", json!(vec![0; 400_000]))});
    let answer = victim.client.post("/v1/plugins/split/try", &body).await;
    assert!(answer.text.len() < 8 << 20, "{} bytes", answer.text.len());
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_configurations_of_one_tenant_fail_no_runs_of_another() {
    let mut victim = Victim::start().await;
    let steps = json!({"remove": ["/nothing"]});
    let made = victim.try_subscribe("minimize", &steps).await.expect(201);
    let neighbour = victim.neighbour("neighbour");
    let slow = guest().more("(global $i (mut i32) (i32.const 0))");
    let count = "(global.set $i (i32.add (global.get $i) (i32.const 1)))";
    let while_few =
        format!("(br_if 0 (i32.lt_u (global.get $i) (i32.const {MOST_OF_A_CONFIGURE})))");
    let slow = slow.configure(&format!("(loop {count} {while_few})"));
    neighbour.upload("slow", slow.module()).await.expect(201);
    let quiet = Endpoint::start().await;
    let body = json!({"name": "x", "url": quiet.url("/"), "filters": [{"type": "none"}],
                      "steps": [{"plugin": "slow"}]});
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let (neighbour, body) = (neighbour.clone(), body.clone());
        tasks.spawn(async move {
            loop {
                neighbour.post("/v1/subscriptions", &body).await;
            }
        });
    }
    for number in 0..20 {
        victim.publish(json!(number)).await;
    }
    check_settled(&victim.settled(&made).await);
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_wait_keep_nobody_from_publishing() {
    let mut victim = Victim::start_with(&[("HOOKYARD_PLUGIN_COMPILE_SECONDS", "1")]).await;
    let neighbour = victim.neighbour("neighbour");
    let mut tasks = JoinSet::new();
    let bomb = entangled(2_000);
    for number in 0..600 {
        let (neighbour, bomb) = (neighbour.clone(), bomb.clone());
        tasks.spawn(async move { neighbour.upload(&format!("p{number}"), bomb).await.status });
    }
    tasks.join_next().await.unwrap().unwrap();
    let published = timeout(PATIENCE, victim.publish(json!(1))).await;
    assert!(published.is_ok(), "uploads of a neighbour keep everybody from publishing");
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_at_once_are_within_the_quota() {
    let victim = Victim::start_with(&[("HOOKYARD_PLUGIN_VERSIONS_MAX", "2")]).await;
    let mut tasks = JoinSet::new();
    for number in 0..4 {
        let (client, file) = (victim.client.clone(), guest().words(TEXT, &[number]).module());
        tasks.spawn(async move { client.upload(&format!("p{number}"), file).await.status });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|it| **it == 201).count(), 2, "{answers:?}");
    assert_eq!(answers.into_iter().collect::<HashSet<_>>(), HashSet::from([201, 409]));
    victim.check_unharmed().await;
}
