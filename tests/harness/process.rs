//! The real binary, as a process that can be killed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;

use super::{Client, root};

pub(crate) struct Process {
    child: Child,
    base: String,
}

/// The binary, with what all tests give it.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("HOOKYARD_KEY", BASE64_STANDARD.encode([7; 32]))
        .env("HOOKYARD_PLUGIN_CACHE", root().join("target/test-plugins"))
        .env("HOOKYARD_EGRESS_ALLOW", "127.0.0.0/8")
        .env("HOOKYARD_EGRESS_HTTP", "true")
        .env("HOOKYARD_LISTEN", "127.0.0.1:0")
        .env("HOOKYARD_LOG", "warn");
    command
}

pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_hookyard")
}

/// A token for a tenant, made by the command.
pub(crate) fn token(store: &Path, tenant: &str) -> String {
    let mut command = command(binary());
    command.args(["token", "create", "--json", "--scopes", "admin", "--tenant", tenant]);
    command.args(["--store", &format!("sqlite:{}", store.display())]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

impl Process {
    /// Starts a router on a store, and waits until it listens.
    pub(crate) fn serve(store: &Path) -> Process {
        let mut command = command(binary());
        command.args(["serve", "--store", &format!("sqlite:{}", store.display())]);
        Process::start(command)
    }

    /// Starts a command that ends up as a router.
    pub(crate) fn start(mut command: Command) -> Process {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().expect("the router says where it listens").unwrap();
        let base = line.strip_prefix("hookyard listens on ").unwrap().to_owned();
        // What it may print later has to go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        Process { child, base }
    }

    pub(crate) fn client(&self, token: &str) -> Client {
        Client::new(self.base.clone(), Some(token.to_owned()))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `kill -TERM`, and how it ended.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only for a test that fails in between.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the binary and answers with everything that it printed.
pub(crate) fn output(arguments: &[&str]) -> (ExitStatus, String) {
    let mut child = command(binary())
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap(), text)
}
