//! What runs of plugins take: all of a run is within its budget, also what the host does for it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::hostile::Victim;
use crate::hostile::guests::{Guest, TEXT, VERDICT, guest};

/// What a run of a plugin with a transform may take, and what a clock may show of it on a busy machine.
const RUN: Duration = Duration::from_millis(20);
const RUN_US_MAX: u64 = 60_000;
/// How much CPU time the router takes for an event beside the plugin.
const BESIDE: Duration = Duration::from_millis(30);
const LARGE: u32 = 0x10_0000;

/// Counts so far before it does anything else.
fn burns(count: u64) -> String {
    let counted = "(global.set $i (i64.add (global.get $i) (i64.const 1)))";
    format!("(loop {counted} (br_if 0 (i64.lt_u (global.get $i) (i64.const {count}))))")
}

/// Takes some 0.2 s of CPU time, and no compiler makes that less: it goes through memory.
const LONG: u64 = 100_000_000;

fn counting() -> Guest {
    guest().more("(global $i (mut i64) (i64.const 0))")
}

fn starts_long() -> Guest {
    counting().more(&format!("(func $start {}) (start $start)", burns(LONG)))
}

fn configures_long() -> Guest {
    counting().configure(&burns(LONG))
}

impl Victim {
    /// How much CPU time the router has had.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.router.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        // In hundredths of a second.
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// The median of what the runs of a plugin took, in microseconds.
    async fn run_us(&self, name: &str) -> u64 {
        let usage = self.client.get(&format!("/v1/plugins/{name}/usage")).await.expect(200);
        usage["usage"][0]["time_us"]["p50"].as_u64().unwrap()
    }
}

/// Attaches a plugin, and has it run: neither the making of its instance nor `configure` is in its runs.
async fn check_runs_are_short(it: Guest) {
    let mut victim = Victim::start().await;
    assert_eq!(victim.upload("long", it.module()).await.0, "accepted");
    let made = victim.try_subscribe("long", &json!({})).await.expect(201);
    for number in 0..3 {
        victim.publish(json!(number)).await;
    }
    let query = format!("subscription={}", made["id"].as_str().unwrap());
    let deliveries = victim.client.await_deliveries(&query, 3).await;
    assert!(deliveries.iter().all(|it| it["reason"] == Value::Null), "{deliveries:?}");
    victim.settled(&made).await;
    let took = victim.run_us("long").await;
    assert!(took < RUN_US_MAX, "a run takes {took} µs");
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_function_that_takes_long_is_run_once_and_not_for_each_event() {
    check_runs_are_short(starts_long()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_takes_long_is_taken_once_and_not_for_each_event() {
    check_runs_are_short(configures_long()).await;
}

/// A step that needs an image, and of which none can be made, is refused with the figures.
async fn check_is_refused(it: Guest) {
    let victim = Victim::start().await;
    assert_eq!(victim.upload("long", it.module()).await.0, "accepted");
    let refused = victim.try_subscribe("long", &json!({})).await;
    assert_eq!(
        (refused.status, refused.fields()),
        (400, vec!["/steps/0/config"]),
        "{}",
        refused.text
    );
    for words in ["20 ms", "image"] {
        assert!(refused.text.contains(words), "{}", refused.text);
    }
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_function_that_takes_long_and_can_have_no_image_is_refused() {
    let fill = "(memory.fill (i32.const 0x40000) (i32.const 7) (i32.const 0x1e00000))";
    let start = format!("(func $start {} {fill}) (start $start)", burns(LONG));
    check_is_refused(counting().pages(500).more(&start)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_takes_long_and_can_have_no_image_is_refused() {
    let fill = "(memory.fill (i32.const 0x40000) (i32.const 7) (i32.const 0x1e00000))";
    check_is_refused(counting().pages(500).configure(&format!("{} {fill}", burns(LONG)))).await;
}

/// What the host does for a run is bounded, and counted.
async fn check_host_work(it: Guest, data: Value, wanted: &str) {
    let mut victim = Victim::start().await;
    assert_eq!(victim.upload("works", it.module()).await.0, "accepted");
    let made = victim.try_subscribe("works", &json!({})).await.expect(201);
    // The first one loads it.
    victim.publish(data.clone()).await;
    victim.settled(&made).await;
    let before = victim.cpu();
    const EVENTS: u32 = 4;
    for _ in 0..EVENTS {
        victim.publish(data.clone()).await;
    }
    let query = format!("subscription={}", made["id"].as_str().unwrap());
    victim.client.await_deliveries(&query, 1 + EVENTS as usize).await;
    for it in victim.settled(&made).await {
        let got = it["reason"]["code"].as_str().unwrap_or("delivered");
        assert!(wanted.split('|').any(|it| it == got), "{got} is not {wanted}: {it}");
    }
    let each = (victim.cpu() - before) / EVENTS;
    assert!(each < RUN + BESIDE, "an event takes {each:?} of CPU time");
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_thousand_attributes_are_counted_before_any_is_set() {
    const COUNT: u32 = 16_000;
    let names: String = (0..COUNT).map(|it| format!("a{it:05}")).collect();
    let list: Vec<u32> = (0..COUNT).flat_map(|it| [LARGE + 6 * it, 6, TEXT, 1]).collect();
    let it = guest()
        .pages(40)
        .bytes(TEXT, b"v")
        .bytes(LARGE, names.as_bytes())
        .words(2 * LARGE, &list)
        .words(VERDICT, &[1, 2 * LARGE, COUNT]);
    check_host_work(it, json!("x".repeat(250_000)), "plugin-bad-verdict").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_attributes_are_not_taken_away_one_by_one() {
    const COUNT: u32 = 40_000;
    let list = [TEXT, 1].repeat(COUNT as usize);
    let it = guest()
        .pages(40)
        .bytes(TEXT, b"v")
        .words(LARGE, &list)
        .words(VERDICT, &[1, 0, 0, LARGE, COUNT]);
    check_host_work(it, json!("x".repeat(250_000)), "plugin-bad-verdict").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_that_take_long_are_a_part_of_the_run() {
    // Each goes through thousands of members to the last one.
    let it = guest()
        .pages(40)
        .bytes(TEXT, b"/zz")
        .words(LARGE, &[TEXT, 3, 0, 0, 0].repeat(400))
        .words(VERDICT, &[1, 0, 0, 0, 0, 1, LARGE, 400]);
    let data: serde_json::Map<String, Value> =
        (0..8_000).map(|it| (format!("m{it}"), json!(1))).collect();
    check_host_work(it, Value::Object(data), "plugin-timeout|plugin-search-too-large|delivered")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_questions_are_a_part_of_the_run() {
    let asks = "(loop (drop (call $size)) (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) \
                (i32.const 1))) (i32.const 100000))))";
    check_host_work(guest().does(asks), json!(1), "plugin-timeout|delivered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_places_that_are_asked_for_at_once_are_a_part_of_the_run() {
    // One call, which no tick of the clock interrupts.
    let pointer = "/m7999".to_owned() + &"/x".repeat(10);
    let length = u32::try_from(pointer.len()).unwrap();
    let it = guest()
        .pages(40)
        .bytes(TEXT, pointer.as_bytes())
        .words(LARGE, &[TEXT, length].repeat(300))
        .does(&format!("(call $get-many (i32.const {LARGE}) (i32.const 300) (i32.const 2000))"));
    let data: serde_json::Map<String, Value> =
        (0..8_000).map(|it| (format!("m{it}"), json!(1))).collect();
    check_host_work(it, Value::Object(data), "plugin-timeout|plugin-search-too-large").await;
}
