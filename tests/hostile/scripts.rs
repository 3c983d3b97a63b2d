//! Hostile scripts: the engine that runs them is a guest as well.

use serde_json::json;

use super::{Victim, check_settled};

const HEADERS: [(&str, &str); 1] = [("content-type", "text/javascript")];

/// The name of the script, what it does when it is loaded, what for each event, and whether it is taken.
type Script = (&'static str, String, &'static str, bool);

fn script(name: &'static str, top: &str, body: &'static str, taken: bool) -> Script {
    (name, top.to_owned(), body, taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_harms_nobody_but_itself() {
    let mut victim = Victim::start().await;
    let deep = |open: &str, close: &str| {
        format!("let x = {}1{};", open.repeat(15_000), close.repeat(15_000))
    };
    let cases: Vec<Script> = vec![
        script("loops", "for (;;) {}", "", false),
        script("recurses", "(function f() { f() })()", "", false),
        script("throws", "throw {toString() { throw 1 }}", "", false),
        script("eats", "let a = []; for (;;) a.push(new Array(9999))", "", false),
        script("doubles", "let a = 'x'; for (;;) a += a", "", false),
        script("repeats", "let a = 'x'.repeat(2 ** 30)", "", false),
        script("buffers", "let a = new ArrayBuffer(2 ** 32)", "", false),
        script("backtracks", "/^(a+)+$/.test('a'.repeat(40) + 'b')", "", false),
        script("nests-lists", &deep("[", "]"), "", false),
        script("nests-brackets", &deep("(", ")"), "", false),
        script("nests-blocks", &deep("{", "}"), "", false),
        script("overwrites", "globalThis.JSON = null; Object.prototype.toString = null;", "", true),
        script("loops-later", "", "for (;;) {}", true),
        script("recurses-later", "", "(function f() { f() })()", true),
        script("throws-later", "", "throw null", true),
        script("eats-later", "", "let a = []; for (;;) a.push(new Array(9999))", true),
        script("logs-later", "", "for (let i = 0; i < 1e5; i++) log.error('x'.repeat(9999))", true),
        script("answers-nothing", "", "return undefined", true),
        script("answers-a-number", "", "return 7", true),
        script(
            "answers-itself",
            "",
            "let a = {}; a.a = a; return replace({edits: {'/a': a}})",
            true,
        ),
        script("answers-a-trap", "", "return new Proxy({}, {get() { throw 1 }})", true),
        script("answers-too-much", "", "return replace({edits: {'/a': 'x'.repeat(1e6)}})", true),
        script("sorts-for-ever", "", "[3, 2, 1].sort(() => { for (;;) {} })", true),
    ];
    let mut running = Vec::new();
    for (name, top, body, taken) in cases {
        let text = format!("{top}\nfunction transform(event, config) {{ {body} }}");
        let path = format!("/v1/plugins/{name}/versions");
        let answer = victim.client.call(reqwest::Method::POST, &path, &HEADERS, text).await;
        let wanted = if taken { 201 } else { 422 };
        assert_eq!(answer.status, wanted, "{name}: {}", answer.text);
        if taken {
            running.push(victim.try_subscribe(name, &json!({})).await.expect(201));
        } else {
            assert!(answer.body["code"].is_string(), "{name}: {}", answer.text);
        }
    }
    for number in 0..2 {
        victim.publish(json!({"a": number})).await;
    }
    for subscription in &running {
        check_settled(&victim.settled(subscription).await);
    }
    victim.check_unharmed().await;
}
