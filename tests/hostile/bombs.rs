//! Files that take the compiler long, or much memory; and events, which go on meanwhile.

use serde_json::json;

use super::guests::{entangled, guest};
use super::sizes::{doubled, nested, with_component};
use super::{Upload, Victim, check_uploads};
use crate::harness::yard::event;

/// A bomb may go off: with a faster compiler it does not.
const EITHER: &str = "accepted|compile-limit";
const SETTINGS: [(&str, &str); 2] =
    [("HOOKYARD_PLUGIN_COMPILE_SECONDS", "1"), ("HOOKYARD_PLUGIN_COMPILE_BYTES_MAX", "536870912")];

fn body(locals: &str, code: &str) -> Vec<u8> {
    guest().more(&format!("(func {locals} {code})")).module()
}

fn around(open: &str, count: usize) -> Vec<u8> {
    body("", &(open.repeat(count) + &"end ".repeat(count)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_compiled_within_its_limits_or_refused() {
    let sum = format!("local.get 0 {}", "local.get 0 i32.add ".repeat(1_000_000));
    let locals = format!("(local{})", " i64".repeat(49_000));
    let sets: String = (1..40_000)
        .map(|it| format!("local.get 0 i32.wrap_i64 if local.get {it} local.set 0 end "))
        .collect();
    let branches = format!("block local.get 0 br_table 0{} end ", " 0".repeat(65_000)).repeat(20);
    let indirect = "i32.const 0 call_indirect (type $v) ".repeat(300_000);
    let indirect = format!("(type $v (func)) (table 1 funcref) (func {indirect})");
    let constant = format!("(global i32 (i32.const 1) {})", "i32.const 1 i32.add ".repeat(700_000));
    let wide = " i32".repeat(1_000);
    let wide = format!(
        "(type $t (func (param{wide}) (result{wide}))) (func (type $t) {} {})",
        (0..1_000).map(|it| format!("local.get {it} ")).collect::<String>(),
        "block (type $t) ".repeat(500) + &"end ".repeat(500)
    );
    let cases: Vec<Upload> = vec![
        ("300,000 blocks", around("block ", 300_000), EITHER),
        ("300,000 loops", around("loop ", 300_000), EITHER),
        ("a million additions", body("(param i32) (result i32)", &sum), EITHER),
        ("49,000 locals", body(&locals, &sets), EITHER),
        ("2,000 loops with 2,000 locals", entangled(2_000), "compile-limit"),
        ("1.3 million ways to branch", body("(param i32)", &branches), EITHER),
        ("300,000 indirect calls", guest().more(&indirect).module(), EITHER),
        ("a long constant", guest().more(&constant).module(), EITHER),
        ("1,000 results of 500 blocks", guest().more(&wide).module(), EITHER),
        ("100,000 functions", guest().more(&"(func)".repeat(100_000)).module(), EITHER),
    ];
    check_uploads(&SETTINGS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn components_in_components_are_compiled_within_their_limits_or_refused() {
    let core = "(core module $m) (core instance (instantiate $m))";
    let cases: Vec<Upload> = vec![
        ("2^20 instances", with_component(doubled(20, core)), "compile-limit|plugin-trap"),
        ("2^40 instances", with_component(doubled(40, core)), "compile-limit"),
        ("2^60 instances of nothing", with_component(doubled(60, "")), "compile-limit"),
        ("10,000 components in each other", with_component(nested(10_000)), "compile-limit"),
        ("300,000 components in each other", with_component(nested(300_000)), "compile-limit"),
    ];
    check_uploads(&SETTINGS, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_routed_while_a_bomb_is_compiled() {
    let mut victim = Victim::start_with(&[("HOOKYARD_PLUGIN_COMPILE_SECONDS", "3")]).await;
    let filter = json!({"when": {"at": "/number", "gte": 0}});
    victim.try_subscribe("filter", &filter).await.expect(201);
    let client = victim.client.clone();
    let bomb = tokio::spawn(async move { client.upload("bomb", entangled(2_000)).await });
    let mut meanwhile = 0;
    while !bomb.is_finished() {
        let data = json!({"number": meanwhile});
        victim.client.publish(&event("t", data.clone())).await.expect(202);
        // With no steps, and through a filter.
        assert_eq!(victim.healthy.next().await.json()["data"], data);
        assert_eq!(victim.sink.next().await.json()["data"], data);
        meanwhile += 1;
    }
    assert_eq!(bomb.await.unwrap().expect(422)["code"], "compile-limit");
    assert!(meanwhile > 10, "{meanwhile} events in seconds");
    victim.check_unharmed().await;
}
