//! A plugin answers the same in whichever process it runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, thread};

use hookyard::wasm::STANDARD_PLUGINS;
use serde_json::{Value, json};

use super::{SCRIPT, read_cases};
use crate::harness::{process, root};

/// What a plugin answers is written into its cases by two processes that have little in common.
#[test]
fn each_plugin_answers_the_same_in_another_process() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let here = one.path().join("a");
    let there = other.path().join("another folder/with a much longer name/ß");
    let padding = "x".repeat(100_000);
    let of_here = [("TZ", "Pacific/Kiritimati"), ("LANG", "de_AT.UTF-8"), ("HOME", "/nowhere")];
    let of_there = [("TZ", "UTC"), ("LANG", "C"), ("HOME", "/"), ("PADDING", &padding)];
    for (name, file, cases) in plugins() {
        write_project(&here.join(&name), &file, &cases);
        write_project(&there.join(&name), &file, &cases);
        let (here, there) = thread::scope(|scope| {
            let here = scope.spawn(|| update(&here.join(&name), &of_here));
            let there = scope.spawn(|| update(&there.join(&name), &of_there));
            (here.join().unwrap(), there.join().unwrap())
        });
        assert_eq!(here.0, there.0, "{name} costs something else");
        for (case, text) in &here.1 {
            assert_eq!(*text, there.1[case], "{name} answers something else in {case}");
        }
        assert_eq!((here.0.len(), here.1.len()), (cases.len(), cases.len()));
        let says = |verdict: &str| here.1.values().any(|it| it.contains(verdict));
        assert!(!says(r#""plugin-"#), "{name} is not as it is meant to be: {here:?}");
        assert!(says(r#""pass""#) || says(r#""replace""#) || says(r#""split""#), "{here:?}");
    }
}

/// Name, file and cases of each standard plugin, and of a script.
fn plugins() -> Vec<(String, Vec<u8>, BTreeMap<String, Value>)> {
    let scripts = read_cases(&root().join("plugins/javascript/cases"));
    let mut plugins: Vec<_> = STANDARD_PLUGINS
        .iter()
        .map(|(name, file)| match *name {
            "javascript" => (String::from(*name), file.to_vec(), scripts.clone()),
            name => (name.to_owned(), file.to_vec(), cases(&configs(name))),
        })
        .collect();
    let config = json!({"minimum": 100});
    plugins.push(("script.js".to_owned(), SCRIPT.into(), cases(&[config])));
    plugins
}

fn configs(plugin: &str) -> Vec<Value> {
    match plugin {
        "minimize" => vec![json!({"remove": ["/customer/mail", "/lines/0", "/nothing"]})],
        "alternate-id" => vec![
            json!({"kind": "Loyalty", "put": "/customer/id"}),
            json!({"kind": "Loyalty", "put": "/who", "remove": ["/customer/id"], "typed": true}),
            json!({"kind": "None", "put": "/who"}),
        ],
        "filter" => vec![json!({"when": {"any": [
            {"at": "/amount", "gte": 100.5}, {"at": "/customer/name", "prefix": "Zoë"},
        ]}})],
        "redact" => vec![
            json!({"fields": ["mail", "sku"], "pointers": ["/amount"]}),
            json!({"fields": ["mail", "id"], "with": "hash", "salt": "pepper"}),
        ],
        "map" => vec![json!({"rules": [
            {"choose": ["/customer", "/amount", "/lines"]},
            {"move": {"from": "/customer/mail", "to": "/contact/email"}},
            {"template": {"at": "/title", "text": "{/amount} of {/customer/name}"}},
            {"attribute": {"name": "customer", "from": "/customer/id"}},
        ]})],
        "sample" => vec![json!({"percent": 100}), json!({"percent": 40, "by": "/customer/id"})],
        "split" => vec![json!({"at": "/lines"}), json!({"at": "/lines", "keep": "document"})],
        name => panic!("there are no cases for `{name}`"),
    }
}

/// Each configuration with each of some events.
fn cases(configs: &[Value]) -> BTreeMap<String, Value> {
    let orders = [
        json!({"amount": 250, "internal_note": "vip", "lines": [{"sku": "a"}, {"sku": "b\u{1f600}"}],
               "customer": {"id": 9_007_199_254_740_993_u64, "name": "Zoë", "mail": "z@example.com"}}),
        json!({"lines": [], "amount": 1e-7, "customer": {"id": "\u{0}", "mail": null}}),
        json!({"lines": [1.5, [{"mail": [[]]}], -0.0, "ß"], "customer": {}}),
    ];
    let mut cases = BTreeMap::new();
    for (at, config) in configs.iter().enumerate() {
        for (number, data) in orders.iter().enumerate() {
            let event = json!({
                "specversion": "1.0", "id": number.to_string(), "source": "/shop", "type": "order.paid",
                "subject": "p-7", "alternateids": r#"{"Loyalty":"L-7"}"#, "data": data,
            });
            cases.insert(format!("{at}-{number}"), json!({"config": config, "event": event}));
        }
    }
    cases
}

fn write_project(folder: &Path, file: &[u8], cases: &BTreeMap<String, Value>) {
    fs::create_dir_all(folder.join("cases")).unwrap();
    let name = if file.starts_with(b"\0asm") { "plugin.wasm" } else { "plugin.js" };
    fs::write(folder.join(name), file).unwrap();
    fs::write(folder.join("hookyard.toml"), format!("name = \"it\"\nfile = \"{name}\"\n")).unwrap();
    for (name, case) in cases {
        fs::write(folder.join(format!("cases/{name}.json")), case.to_string()).unwrap();
    }
}

/// Has the cases of a project written anew. Answers with what the runs cost, and the files.
fn update(folder: &Path, environment: &[(&str, &str)]) -> (Vec<String>, BTreeMap<String, String>) {
    let mut command = process::command(process::binary());
    command.args(["plugin", "test", "--update"]).current_dir(folder).env("TMPDIR", folder);
    let output = command.envs(environment.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    // Such as `wrote  a: 2434 fuel, 66 µs, 192 KiB`, of which only the time may differ.
    let costs = said.lines().map(|line| {
        let parts: Vec<_> = line.split(", ").filter(|it| !it.ends_with(" µs")).collect();
        assert!(parts[0].ends_with(" fuel") && parts.len() == 2, "{line}");
        parts.concat()
    });
    let costs = costs.collect();
    let paths = fs::read_dir(folder.join("cases")).unwrap().map(|it| it.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let files = paths.map(|path| (name(&path), fs::read_to_string(path).unwrap()));
    (costs, files.collect())
}
