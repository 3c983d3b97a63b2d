//! Clients, receivers and verifiers that are not our own code: libraries of the ecosystem, in their own languages.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use super::{Receipt, root};

/// What `tests/peers/check.js` finds in this; it must take it.
#[track_caller]
pub(crate) fn check(kind: &str, input: &Value) -> Value {
    let mut node = Command::new("node");
    node.arg(root().join("tests/peers/check.js")).arg(kind);
    node.env("NODE_PATH", root().join("target/peers/node_modules"));
    found(node, input.to_string().as_bytes())
}

/// The same of `tests/peers/peer.py`.
#[track_caller]
pub(crate) fn python(kind: &str, input: &Value) -> Value {
    let mut python = Command::new(root().join("target/peers/python/bin/python"));
    python.arg(root().join("tests/peers/peer.py")).arg(kind);
    // The router is on this machine, whatever proxy there is.
    python.env("no_proxy", "*");
    found(python, input.to_string().as_bytes())
}

/// A form as PHP reads it.
#[track_caller]
pub(crate) fn parse_str(form: &[u8]) -> Value {
    found(php("form.php"), form)
}

/// A form as PHP writes it.
#[track_caller]
pub(crate) fn build_query(fields: &Value) -> String {
    String::from_utf8(run(php("build_query.php"), fields.to_string().as_bytes())).unwrap()
}

/// A delivery as [`check`] and [`python`] take it, with more members.
pub(crate) fn delivery(it: &Receipt, more: &Value) -> Value {
    let headers: Map<String, Value> = it
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
        .collect();
    let body = std::str::from_utf8(&it.body).unwrap();
    let mut input = json!({"path": it.path, "headers": headers, "body": body});
    for (name, value) in more.as_object().unwrap() {
        input[name] = value.clone();
    }
    input
}

fn php(script: &str) -> Command {
    let mut php = Command::new("php");
    php.arg(root().join("tests/peers").join(script));
    php
}

#[track_caller]
fn found(command: Command, input: &[u8]) -> Value {
    serde_json::from_slice(&run(command, input)).unwrap()
}

/// Node makes a pipe that it inherits non-blocking, for whoever else has it as well: the tests would lose what they
/// print and end. So it gets pipes of its own.
#[track_caller]
fn run(mut command: Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`make setup` installs it");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{command:?} does not take {}\n{}",
        String::from_utf8_lossy(input),
        String::from_utf8_lossy(&output.stderr),
    );
    output.stdout
}
