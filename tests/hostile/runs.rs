//! Guests that go wrong on the way of an event: each fails alone, and by its name.

use serde_json::{Value, json};

use super::Victim;
use super::guests::{Guest, guest};
use crate::harness::plugins::plugin;

/// What a guest is called, the guest, and what becomes of its delivery: `delivered`, or the code of why
/// it failed; or one of several, with `|` between.
pub(super) type Run = (&'static str, Guest, &'static str);

/// Runs all of them on one event, beside a subscription that has no steps.
pub(super) async fn check_runs(cases: Vec<Run>) {
    let mut victim = Victim::start().await;
    let mut running = Vec::new();
    for (number, (what, guest, wanted)) in cases.iter().enumerate() {
        let (got, answer) = victim.upload(&format!("r{number}"), guest.module()).await;
        assert_eq!(got, "accepted", "{what}: {}", answer.text);
        let made = victim.try_subscribe(&format!("r{number}"), &json!({})).await;
        assert_eq!(made.status, 201, "{what}: {}", made.text);
        running.push((*what, made.body, *wanted));
    }
    let data = json!({"a": [1, {"b": "c"}], "text": "x".repeat(60_000)});
    for _ in 0..2 {
        victim.publish(data.clone()).await;
    }
    for (what, subscription, wanted) in &running {
        for it in victim.settled(subscription).await {
            check(what, &it, wanted);
        }
    }
    victim.check_unharmed().await;
}

fn check(what: &str, delivery: &Value, wanted: &str) {
    let got = match delivery["state"].as_str().unwrap() {
        "failed" => delivery["reason"]["code"].as_str().unwrap(),
        state => state,
    };
    assert!(wanted.split('|').any(|it| it == got), "{what} is {got} and not {wanted}: {delivery}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_with_its_time_its_memory_or_its_first_trap() {
    let does = |body: &str| guest().does(body);
    let grow = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 64)) (i32.const -1))))";
    let fill = "(memory.fill (i32.const 131072) (i32.const 7) (i32.const 20000000))";
    let table = "(table $t 1 funcref)";
    let wide = format!("(func $deep (local{}) (call $deep))", " i64".repeat(10_000));
    let calls = |index: &str| {
        does(&format!("(call_indirect $t (type $two) (i32.const {index})) (drop)")).more(
            "(type $two (func (result i32))) (table $t 3 funcref) (func $one) (elem (i32.const 0) $one)",
        )
    };
    let cases: Vec<Run> = vec![
        ("loops", does("(loop (br 0))"), "plugin-timeout"),
        ("loops with calls", does("(loop (call $f) (br 0))").more("(func $f)"), "plugin-timeout"),
        ("recurses", does("(call $deep)").more("(func $deep (call $deep))"), "plugin-trap"),
        ("recurses twice", does("(call $deep)").more("(func $deep (call $deep) (call $deep))"), "plugin-trap"),
        ("recurses with much", does("(call $deep)").more(&wide), "plugin-trap"),
        ("grows", does("(loop (drop (memory.grow (i32.const 1))) (br 0))"), "plugin-timeout"),
        ("grows beyond", does(&format!("{grow} (i32.store (i32.const -8) (i32.const 1))")), "plugin-out-of-memory"),
        ("grows and is content", does(grow), "delivered"),
        ("grows at once", does("(drop (memory.grow (i32.const 65535)))"), "delivered"),
        ("fills", does(&format!("(drop (memory.grow (i32.const 400))) (loop {fill} (br 0))")), "plugin-timeout"),
        ("grows a table", does("(loop (drop (table.grow $t (ref.null func) (i32.const 9))) (br 0))").more(table), "plugin-timeout"),
        ("grows a table at once", does("(drop (table.grow $t (ref.null func) (i32.const -2)))").more(table), "delivered"),
        ("gives up", does("unreachable"), "plugin-trap"),
        ("divides by zero", does("(drop (i32.div_s (i32.const 1) (i32.const 0)))"), "plugin-trap"),
        ("divides too far", does("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))"), "plugin-trap"),
        ("has a rest of zero", does("(drop (i64.rem_u (i64.const 1) (i64.const 0)))"), "plugin-trap"),
        ("makes a number of none", does("(drop (i32.trunc_f64_s (f64.const nan)))"), "plugin-trap"),
        ("reads outside", does("(drop (i32.load (i32.const 262141)))"), "plugin-trap"),
        ("reads far outside", does("(drop (i64.load offset=0xffffffff (i32.const -1)))"), "plugin-trap"),
        ("writes outside", does("(i64.store (i32.const -1) (i64.const 1))"), "plugin-trap"),
        ("copies outside", does("(memory.copy (i32.const 0) (i32.const 4) (i32.const -1))"), "plugin-trap"),
        ("has dropped its data", does("(data.drop $d) (memory.init $d (i32.const 0) (i32.const 0) (i32.const 1))").more("(data $d \"x\")"), "plugin-trap"),
        ("calls another type", calls("0"), "plugin-trap"),
        ("calls nothing", calls("1"), "plugin-trap"),
        ("calls outside", calls("7"), "plugin-trap"),
        ("calls itself", does("(drop (call $self (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0)))")
            .more("(func $self (param i32 i32 i32 i32 i32 i32 i32 i64) (result i32) (call $self (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 6) (local.get 7)))"), "plugin-trap"),
    ];
    check_runs(cases).await;
}

/// A call of an import, with these arguments.
fn call(import: &str, arguments: [i64; 3]) -> String {
    let [one, two, three] = arguments;
    format!("(call ${import} (i32.const {one}) (i32.const {two}) (i32.const {three}))")
}

fn times(count: i64, body: &str) -> String {
    let counted = "(local.tee $n (i32.add (local.get $n) (i32.const 1)))";
    format!("(loop {body} (br_if 0 (i32.lt_u {counted} (i32.const {count}))))")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_asked_for_memory_or_to_clean_up_may_do_no_more() {
    let takes = |body: &str| guest().realloc(body);
    let post = |body: &str| {
        let name = "cabi_post_hookyard:plugin/transform@1.0.0#transform";
        guest().more(&format!("(func (export \"{name}\") (param i32) {body})"))
    };
    let logs = format!("{} (i32.const 0)", call("log", [0, 0, 0]));
    let deep = "(func $deep (result i32) (call $deep))";
    let lists = guest().pages(40).does(&call("get-many", [1 << 20, 1, 2_000]));
    let cases: Vec<Run> = vec![
        ("allocates by a trap", takes("(unreachable)"), "plugin-trap"),
        ("allocates at nothing", takes("(i32.const 0)"), "delivered"),
        ("allocates outside", takes("(i32.const -16)"), "plugin-trap"),
        ("allocates at the edge", takes("(i32.const 262143)"), "plugin-trap"),
        ("allocates for ever", takes("(loop (br 0)) (unreachable)"), "plugin-timeout"),
        ("allocates deeper and deeper", takes("(call $deep)").more(deep), "plugin-trap"),
        ("allocates by asking", takes("(call $size)"), "plugin-trap"),
        ("allocates by logging", takes(&logs), "plugin-trap"),
        ("allocates askew", lists.realloc("(i32.const 200001)"), "plugin-trap"),
        ("asks afterwards", post("(drop (call $size))"), "plugin-trap"),
        ("loops afterwards", post("(loop (br 0))"), "plugin-timeout"),
        ("traps afterwards", post("(unreachable)"), "plugin-trap"),
    ];
    check_runs(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_asks_the_host_for_has_an_end() {
    const TO: i64 = 2_000;
    const AT: u32 = 65_536;
    let at = i64::from(AT);
    let does = |body: &str| guest().does(body).realloc("(i32.const 131072)");
    let large = |body: &str| guest().pages(150).does(body);
    let get = |at: i64, length: i64, to: i64| does(&call("get", [at, length, to]));
    let many = |count: i64| large(&call("get-many", [1 << 20, count, TO]));
    let log = |level: i64, at: i64, length: i64| does(&call("log", [level, at, length]));
    let everything = times(-1, "(call $data (i32.const 2000))");
    let name = large(&call("attribute", [at, 60_000, TO]));
    let same = does(&times(-1, &call("get", [at, 0, TO])));
    let cases: Vec<Run> = vec![
        ("a place outside", get(-1, 9, TO), "plugin-trap"),
        ("a place of 4 GB", get(0, -1, TO), "plugin-trap"),
        ("a place that is no text", get(at, 1, TO).bytes(AT, b"\xff"), "plugin-trap"),
        ("a place of slashes", get(at, 60_000, TO).bytes(AT, &[b'/'; 60_000]), "delivered"),
        ("a place of tildes", get(at, 60_000, TO).bytes(AT, &[b'~'; 60_000]), "delivered"),
        ("a long place", large(&call("get", [at, 1 << 20, TO])), "plugin-output-too-large"),
        ("an answer outside", get(at, 0, -8), "plugin-trap"),
        ("an answer askew", get(at, 0, TO + 1), "plugin-trap"),
        ("the same for ever", same, "plugin-timeout"),
        ("everything for ever", does(&everything), "plugin-timeout"),
        ("a million places", many(1_000_000), "plugin-output-too-large"),
        ("2^30 places", many(1 << 30), "plugin-trap"),
        ("2^29 places", many(1 << 29), "plugin-trap"),
        ("everything 700 times", many(700), "plugin-search-too-large|plugin-timeout"),
        ("a long name", name, "delivered"),
        ("a line of 1 GB", log(2, 0, 1 << 30), "plugin-trap"),
        ("a line of 8 MB", large(&call("log", [2, at, 8_000_000])), "plugin-output-too-large"),
        ("a line that is no text", log(2, at, 3).bytes(AT, b"\xed\xa0\x80"), "plugin-trap"),
        ("a line of no level", log(9, 0, 0), "plugin-trap"),
        ("a line of zeros", log(4, at, 60_000), "delivered"),
        ("1,000 lines", does(&times(1_000, &call("log", [4, at, 9]))), "delivered"),
        ("lines for ever", does(&times(-1, &call("log", [4, at, 9_000]))), "plugin-timeout"),
    ];
    check_runs(cases).await;
}

/// Programs as toolchains make them.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_misbehaves_fails_alone_in_every_step() {
    let mut victim = Victim::start().await;
    victim.upload("misbehave", plugin("misbehave")).await;
    let mut running = Vec::new();
    for (what, with, wanted) in [
        ("loop", "", "plugin-timeout"),
        ("eat", "", "plugin-out-of-memory"),
        ("panic", "on purpose", "plugin-trap"),
        ("spin", "4000000000", "plugin-timeout"),
        ("split", "65", "plugin-bad-verdict"),
        ("flood", "400000", "plugin-output-too-large"),
        ("search", "15000", "plugin-output-too-large|plugin-timeout"),
        ("search", "2000", "plugin-search-too-large|plugin-timeout"),
        ("chatter", "", "delivered"),
    ] {
        let step = |what: &str, with: &str| json!({"plugin": "misbehave", "config": {"do": what, "with": with}});
        // As the last of many, on each of the parts.
        let mut steps = vec![step("pass", ""); 14];
        steps.extend([step("split", "2"), step(what, with)]);
        let body = json!({"name": what, "url": victim.sink.url("/"), "filters": [{"type": "*"}],
                          "steps": steps});
        let made = victim.client.post("/v1/subscriptions", &body).await.expect(201);
        running.push((what, made, wanted));
    }
    victim.publish(json!({"text": "x".repeat(60_000)})).await;
    for (what, subscription, wanted) in &running {
        for it in victim.settled(subscription).await {
            check(what, &it, wanted);
        }
    }
    victim.check_unharmed().await;
}
