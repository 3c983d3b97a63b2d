//! The real binary, as a process that can be killed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Client, PATIENCE, root};

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

/// What starts a router on a store, with as few files as a shell gives.
pub(crate) fn serve_command(store: &Path) -> Command {
    let mut command = command("sh");
    command.args(["-c", "ulimit -S -n 1024 && exec \"$@\"", "sh", binary(), "serve"]);
    command.args(["--store", &format!("sqlite:{}", store.display())]);
    command
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
        Process::start(serve_command(store))
    }

    /// Starts a command that ends up as a router.
    pub(crate) fn start(command: Command) -> Process {
        Process::try_start(command).expect("the router says where it listens")
    }

    /// The same, of one that may end before it listens.
    pub(crate) fn try_start(mut command: Command) -> Result<Process, ExitStatus> {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(line) = lines.next() else { return Err(child.wait().unwrap()) };
        let line = line.unwrap();
        let base = line.strip_prefix("hookyard listens on ").unwrap().to_owned();
        // What it may print later has to go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Process { child, base })
    }

    pub(crate) fn client(&self, token: &str) -> Client {
        Client::new(self.base.clone(), Some(token.to_owned()))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the kernel says of its memory.
    pub(crate) fn bytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|it| it.starts_with(field)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }

    /// How it has ended, where it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn dies(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < until, "it lives");
            sleep(Duration::from_millis(5)).await;
        }
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
