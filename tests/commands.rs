//! What the commands of `hookyard` do where no router takes part.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use hookyard::wasm::STANDARD_PLUGINS;

use crate::harness::process::{binary, command};
use crate::harness::root;

fn hookyard(folder: &Path, arguments: &[&str]) -> Command {
    let mut it = command(binary());
    it.args(arguments).current_dir(folder).stdin(Stdio::null());
    it
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// The folder of a standard plugin, with one case.
fn plugin(folder: &Path, name: &str, case: &str) {
    let (_, file) = STANDARD_PLUGINS.iter().find(|(it, _)| *it == name).unwrap();
    fs::create_dir(folder.join("cases")).unwrap();
    fs::write(folder.join("it.wasm"), file).unwrap();
    fs::write(folder.join("hookyard.toml"), "name = \"it\"\nfile = \"it.wasm\"\n").unwrap();
    fs::write(folder.join("cases/one.json"), case).unwrap();
}

const CASE: &str = r#"{
  "event": {"type": "order.paid", "specversion": "1.0", "source": "/shop", "id": "1",
            "data": {"b": 1.50, "a": [2,   1]}},
  "expect": {"verdict": "drop", "reason": {"code": "a-mistake"}},
  "config": {"when": {"at": "/b", "gte": 1}}
}
"#;

#[test]
fn a_command_whose_reader_is_gone_ends_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    plugin(folder.path(), "filter", CASE);
    let create = ["token", "create", "--scopes", "admin", "--json"];
    let new = ["plugin", "new", "--lang", "c", "orders"];
    for arguments in [&create[..], &["token", "list"], &new, &["plugin", "test", "--update"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = hookyard(folder.path(), arguments);
        let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        assert_eq!(said(&output), "", "{arguments:?}");
    }
}

#[test]
fn what_steers_a_terminal_is_printed_escaped() {
    let folder = tempfile::tempdir().unwrap();
    plugin(folder.path(), "filter", CASE);
    let case = folder.path().join("cases");
    fs::rename(case.join("one.json"), case.join("o\u{1b}[2Jn\u{202e}e.json")).unwrap();
    for (arguments, shown) in [
        (&["plugin", "test"][..], r"o\u001b[2Jn\u202ee"),
        (&["token", "create", "--scopes", "a\u{9b}2Jb\r"], r"`a\u009b2Jb\u000d`"),
    ] {
        let said = said(&hookyard(folder.path(), arguments).output().unwrap());
        assert!(said.contains(shown), "{said}");
        assert!(!said.contains(['\u{1b}', '\u{202e}', '\u{9b}', '\r']), "{said:?}");
    }
}

#[test]
fn an_update_writes_what_is_expected_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    plugin(folder.path(), "filter", CASE);
    let wrong = r#"{"verdict": "drop", "reason": {"code": "a-mistake"}}"#;
    let right = CASE.replace(wrong, "{\n    \"verdict\": \"pass\"\n  }");
    for word in ["wrote  one: ", "ok     one: "] {
        let output = hookyard(folder.path(), &["plugin", "test", "--update"]).output().unwrap();
        assert!(output.status.success() && said(&output).starts_with(word), "{}", said(&output));
        assert_eq!(fs::read_to_string(folder.path().join("cases/one.json")).unwrap(), right);
    }
}

#[test]
fn a_case_has_its_event_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let case = r#"{
        "config": {"rules": [{"template": {"at": "/text", "text": "{}"}}]},
        "event": {"specversion": "1.0", "id": "1", "source": "/", "type": "a", "data": {"b": 1.50, "a": 1e2}},
        "expect": {
            "verdict": "replace",
            "event": {"specversion": "1.0", "id": "1", "source": "/", "type": "a",
                      "data": {"b": 1.50, "a": 1e2, "text": "{\"b\": 1.50, \"a\": 1e2}"}}
        }
    }"#;
    plugin(folder.path(), "map", case);
    let output = hookyard(folder.path(), &["plugin", "test"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_sdk_for_rust_comes_with_its_bindings() {
    let folder = tempfile::tempdir().unwrap();
    let new = ["plugin", "new", "--lang", "rust", "orders"];
    let output = hookyard(folder.path(), &new).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let sdk = folder.path().join("orders/sdk");
    let files = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
    };
    // What would make them takes longer to compile than all the rest of a plugin.
    assert_eq!(files(&sdk), BTreeSet::from(["Cargo.toml", "src"].map(str::to_owned)));
    assert_eq!(files(&sdk.join("src")), files(&root().join("plugins/sdk/src")));
    let manifest: toml::Table =
        fs::read_to_string(sdk.join("Cargo.toml")).unwrap().parse().unwrap();
    let here = fs::read_to_string(root().join("plugins/sdk/Cargo.toml")).unwrap();
    let mut here: toml::Table = here.parse().unwrap();
    here.remove("build-dependencies").unwrap();
    assert_eq!(manifest, here);
    let bindings = fs::read_to_string(sdk.join("src/bindings.rs")).unwrap();
    assert!(bindings.starts_with("//! ") && !bindings.contains("include!"));
}

#[test]
fn a_plugin_in_rust_may_be_called_like_a_crate() {
    let folder = tempfile::tempdir().unwrap();
    let new = |name| {
        hookyard(folder.path(), &["plugin", "new", "--lang", "rust", name]).output().unwrap()
    };
    for name in ["serde", "std", "fn", "wit-bindgen"] {
        let output = new(name);
        assert!(output.status.success(), "{}", said(&output));
        let manifest = fs::read_to_string(folder.path().join(name).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some(name));
        assert_eq!(manifest["lib"]["name"].as_str(), Some("plugin"));
    }
    for (name, words) in [
        ("hookyard-plugin", "is the crate that plugins in Rust use: choose another name"),
        ("2orders", "beginning with a letter"),
        ("Orders", "1 to 63 of `a` to `z`, `0` to `9` and `-`"),
    ] {
        let output = new(name);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(said(&output).contains(words), "{}", said(&output));
        assert!(!folder.path().join(name).exists());
    }
}

#[test]
fn a_source_file_is_not_pushed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("orders.ts"), "export const transform = () => {};").unwrap();
    let push = ["plugin", "push", "--name", "orders", "--token", "t", "orders.ts"];
    let output = hookyard(folder.path(), &push).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        said(&output),
        "hookyard: `orders.ts` is neither WebAssembly nor a script that ends with `.js`; \
         `hookyard plugin build` builds a plugin, and `hookyard plugin push` without a file \
         uploads what it has built\n"
    );
}

#[test]
fn a_store_is_shown_pruned_and_found_to_be_sound() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| hookyard(folder.path(), arguments).output().unwrap();
    let missing = run(&["store", "stats"]);
    assert!(!missing.status.success());
    assert!(said(&missing).contains("there is no store `hookyard.sqlite`"), "{}", said(&missing));
    assert!(!folder.path().join("hookyard.sqlite").exists());

    run(&["token", "create", "--scopes", "admin"]);
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = run(arguments);
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let stats = json(&["store", "stats", "--json"]);
    assert_eq!((&stats["events"], &stats["unsettled"]), (&0.into(), &0.into()));
    assert_eq!(stats["bytes"], fs::metadata(folder.path().join("hookyard.sqlite")).unwrap().len());
    let pruned = json(&["store", "prune", "--json", "--retention-payload-days", "0"]);
    assert_eq!(pruned["events"], 0);
    assert_eq!(said(&run(&["store", "check"])), "the store is sound\n");

    // A delivery of nothing.
    let file = rusqlite::Connection::open(folder.path().join("hookyard.sqlite")).unwrap();
    file.execute_batch(
        "insert into deliveries (id, tenant, subscription, event, event_seq, part, rendering, state,
                                 attempts, created_at_ms)
         values (x'01', 'acme', x'02', x'03', 7, 0, x'04', 'pending', 0, 0)",
    )
    .unwrap();
    let check = run(&["store", "check"]);
    assert_eq!(check.status.code(), Some(1));
    assert!(said(&check).contains("1 deliveries that are not settled and whose event is gone"));
}
