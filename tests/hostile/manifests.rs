//! Plugins that lie, loop or want too much when they are asked what they are, and when they are configured.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::guests::{CONFIGURED, Guest, MANIFEST, TEXT, guest};
use super::{Upload, Victim, check_uploads};

/// Where large texts are.
const LARGE: u32 = 0x1_0000;
const IDLE: std::time::Duration = std::time::Duration::from_millis(300);

/// A guest with a schema of its configuration.
pub(crate) fn schema(text: &str) -> Guest {
    let pages = 2 + u32::try_from(text.len()).unwrap() / 0x1_0000;
    let length = u32::try_from(text.len()).unwrap();
    let it = guest().pages(pages.max(4)).words(MANIFEST + 24, &[1, LARGE, length]);
    it.bytes(LARGE, text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_no_larger_and_no_other_than_it_may_be() {
    let says = |at: u32, words: &[u32]| guest().words(MANIFEST + at, words).module();
    let large =
        |at: u32, bytes: u32| guest().pages(40).words(MANIFEST + at, &[LARGE, bytes]).module();
    let describes = |body: &str| guest().describe(body).module();
    let cases: Vec<Upload> = vec![
        ("a manifest outside", describes("(i32.const -4)"), "plugin-trap"),
        ("a manifest at the edge", describes("(i32.const 262140)"), "plugin-trap"),
        ("a manifest askew", describes("(i32.const 2)"), "plugin-trap"),
        ("a name outside", says(0, &[0xffff_fff0, 9]), "plugin-trap"),
        ("a name longer than the memory", says(0, &[LARGE, u32::MAX]), "plugin-trap"),
        ("a name of 1 MB", large(0, 1 << 20), "plugin-output-too-large"),
        ("a version of 1 MB", large(8, 1 << 20), "plugin-output-too-large"),
        ("a summary of 2 KB", large(16, 2_048), "bad-manifest"),
        (
            "a name that is no text",
            guest().words(0, &[TEXT, 2]).bytes(TEXT, b"\xff\xff").module(),
            "plugin-trap",
        ),
        ("neither with a schema nor without", says(24, &[7]), "plugin-trap"),
        ("reads of 2^31", says(36, &[1, LARGE, 1 << 31]), "plugin-trap"),
        ("reads that overflow", says(36, &[1, LARGE, 1 << 29]), "plugin-trap"),
        (
            "100,000 reads",
            guest().pages(40).words(36, &[1, LARGE, 100_000]).module(),
            "plugin-output-too-large",
        ),
        ("257 reads", says(36, &[1, LARGE, 257]), "bad-manifest"),
        (
            "reads that are no pointers",
            guest()
                .words(36, &[1, TEXT, 1])
                .words(TEXT, &[TEXT + 8, 1])
                .bytes(TEXT + 8, b"a")
                .module(),
            "bad-manifest",
        ),
        ("looping", describes("(loop (br 0)) (unreachable)"), "plugin-timeout"),
        ("trapping", describes("(unreachable)"), "plugin-trap"),
        (
            "asking for the event",
            describes("(call $data (i32.const 2000)) (i32.const 0)"),
            "accepted",
        ),
    ];
    check_uploads(&[], cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_small_and_refers_to_nothing_outside() {
    let space = |count: usize| " ".repeat(count) + "{}";
    let deep = |levels: usize| r#"{"not":"#.repeat(levels) + "true" + &"}".repeat(levels);
    let list = format!(r#"{{"default":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let cases = [
        ("a megabyte", space(1 << 20), "plugin-output-too-large"),
        ("60 KB of space", space(60_000), "accepted"),
        ("no JSON", "{".to_owned(), "plugin-unfit"),
        ("two", "{}{}".to_owned(), "plugin-unfit"),
        ("a number", "1e400".to_owned(), "plugin-unfit"),
        ("no schema", r#"{"type": 7}"#.to_owned(), "bad-manifest"),
        ("100 levels", deep(100), "accepted"),
        ("200 levels", deep(200), "plugin-unfit"),
        ("10,000 levels", list, "plugin-unfit"),
        ("elsewhere", r#"{"$ref": "http://127.0.0.1:9/s.json"}"#.to_owned(), "bad-manifest"),
        ("on disk", r#"{"$ref": "file:///etc/passwd"}"#.to_owned(), "bad-manifest"),
        ("not there", r##"{"$ref": "#/$defs/x"}"##.to_owned(), "bad-manifest"),
        ("of its own kind", r#"{"$schema": "http://127.0.0.1:9/s"}"#.to_owned(), "bad-manifest"),
        ("a broken pattern", r#"{"pattern": "("}"#.to_owned(), "bad-manifest"),
        ("a pattern that looks back", r#"{"pattern": "(a)\\1"}"#.to_owned(), "bad-manifest"),
        ("a large pattern", r#"{"pattern": "((\\w{99}){99}){99}"}"#.to_owned(), "bad-manifest"),
    ];
    let cases = cases.map(|(what, text, code)| (what, schema(&text).module(), code));
    check_uploads(&[], cases.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_turn_in_circles_are_left() {
    let mut victim = Victim::start().await;
    let chain: serde_json::Map<String, Value> = (0..1_000)
        .map(|it| (format!("d{it}"), json!({"$ref": format!("#/$defs/d{}", it + 1)})))
        .chain([("d1000".to_owned(), json!({"type": "object"}))])
        .collect();
    for it in [
        json!({"$ref": "#"}),
        json!({"$dynamicRef": "#"}),
        json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({"not": {"$ref": "#"}}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
    ] {
        let (got, answer) = victim.upload("endless", schema(&it.to_string()).module()).await;
        assert_eq!(got, "bad-manifest", "{it}: {}", answer.text);
    }
    let schemas = [
        json!({"additionalProperties": {"$ref": "#"}, "unevaluatedProperties": {"$ref": "#"}}),
        json!({"$ref": "#/$defs/d0", "$defs": chain}),
        json!({"additionalProperties": {"pattern": "^(a+)+$"}}),
        json!({"additionalProperties": {"uniqueItems": true}}),
    ];
    for (number, it) in schemas.iter().enumerate() {
        let (got, answer) =
            victim.upload(&format!("s{number}"), schema(&it.to_string()).module()).await;
        assert_eq!(got, "accepted", "{it}: {}", answer.text);
        let config = json!({"a": "a".repeat(30_000) + "b", "b": (0..2_000).collect::<Vec<_>>()});
        let answer = victim.try_subscribe(&format!("s{number}"), &config).await;
        assert!([201, 400].contains(&answer.status), "{it}: {}", answer.text);
    }
    victim.publish(json!(1)).await;
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_refused_by_what_configuring_with_it_does() {
    let victim = Victim::start().await;
    let taken = |it: Guest| it.realloc("(i32.const 131072)");
    let touch = "(i32.store (i32.const 0x7ffffff0) (i32.const 1))";
    let grow =
        format!("(loop (br_if 0 (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) {touch}");
    let deep = "(func $deep (call $deep) (call $deep))";
    let says = |words: &[u32]| guest().words(CONFIGURED, words);
    let text = |length: u32| says(&[1, LARGE, length]).pages(40);
    let cases: Vec<(&str, Guest, &str)> = vec![
        ("loops", guest().configure("(loop (br 0))"), "used up its 250 ms"),
        ("grows", guest().configure(&grow), "33554432 bytes of memory"),
        ("recurses", guest().configure("(call $deep)").more(deep), "stack"),
        ("traps", guest().configure("(unreachable)"), "unreachable"),
        (
            "is in a loop of data",
            taken(guest().configure("(loop (call $data (i32.const 2000)) (br 0))")),
            "250 ms",
        ),
        ("answers neither", says(&[7]), "discriminant"),
        ("answers outside", says(&[1, 0xffff_fff0, 9]), "out of bounds"),
        ("answers no text", text(2).bytes(LARGE, b"\xff\xff"), "utf-8"),
        ("answers a megabyte", text(1 << 20), "answered more than"),
        ("says no", text(2).bytes(LARGE, b"no"), "refuses its configuration: no"),
    ];
    for (what, guest, words) in cases {
        let name = what.replace(' ', "-");
        assert_eq!(victim.upload(&name, guest.module()).await.0, "accepted", "{what}");
        // The clock of an idle router stands still.
        let start = Instant::now();
        while start.elapsed() < IDLE {
            victim.client.get("/healthz").await;
        }
        let answer = victim.try_subscribe(&name, &json!({})).await;
        assert_eq!((answer.status, answer.fields()), (400, vec!["/steps/0/config"]), "{what}");
        assert!(answer.text.contains(words), "{what}: {}", answer.text);
        let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"});
        let path = format!("/v1/plugins/{name}/try");
        let tried = victim.client.post(&path, &json!({"event": event})).await;
        assert_eq!((tried.status, tried.fields()), (400, vec!["/config"]), "{what}");
    }
    victim.check_unharmed().await;
}
