//! A router of its own for each measurement, and what it takes of the machine.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::harness::client::Client;
use super::harness::process::{self, Process};

/// Whose events they are.
pub(crate) const TENANT: &str = "acme";

pub(crate) struct Router {
    process: Option<Process>,
    client: Client,
    pub(crate) token: String,
    pub(crate) address: SocketAddr,
    runtime: Runtime,
    folder: TempDir,
}

/// What a process has taken since it began.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) cpu: Duration,
    /// Bytes that have gone, or are to go, to the disk.
    pub(crate) written: u64,
}

impl Router {
    pub(crate) fn start() -> Router {
        let folder = tempfile::tempdir().unwrap();
        let token = process::token(&folder.path().join("store.sqlite"), TENANT);
        let process = serve(&folder);
        let client = process.client(&token);
        Router {
            address: client.url("").trim_start_matches("http://").parse().unwrap(),
            client,
            token,
            process: Some(process),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            folder,
        }
    }

    /// `kill -9`, and another one on the same store.
    pub(crate) fn restart(&mut self, between: impl FnOnce(&Path)) {
        self.process.take().unwrap().kill();
        between(&self.folder.path().join("store.sqlite"));
        let process = serve(&self.folder);
        self.client = process.client(&self.token);
        self.address = self.client.url("").trim_start_matches("http://").parse().unwrap();
        self.process = Some(process);
    }

    pub(crate) fn subscribe(&self, url: &str, event_type: &str, steps: &Value) {
        let filters = json!([{"type": event_type}]);
        let body = json!({"name": url, "url": url, "filters": filters, "steps": steps});
        self.runtime.block_on(self.client.post("/v1/subscriptions", &body)).expect(201);
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn taken(&self) -> Taken {
        taken(self.pid())
    }

    pub(crate) fn memory_mib(&self) -> f64 {
        self.process.as_ref().unwrap().bytes("VmRSS:") as f64 / f64::from(1 << 20)
    }

    pub(crate) fn rest(&self) {
        rest(self.pid(), Duration::from_secs(60));
    }
}

/// What a process that lives has taken by now.
pub(crate) fn taken(pid: u32) -> Taken {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name of the program, in brackets, may hold anything.
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split_whitespace().collect();
    let ticks: u64 = fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap();
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let written = io.lines().find_map(|it| it.strip_prefix("write_bytes: ")).unwrap();
    Taken { cpu: Duration::from_millis(10 * ticks), written: written.parse().unwrap() }
}

/// Waits until a router has nothing to do, so that what is measured next is alone; but not for ever.
pub(crate) fn rest(pid: u32, patience: Duration) {
    let until = Instant::now() + patience;
    let mut before = taken(pid).cpu;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = taken(pid).cpu;
        if now - before < Duration::from_millis(20) || Instant::now() > until {
            return;
        }
        before = now;
    }
}

fn serve(folder: &TempDir) -> Process {
    let store = folder.path().join("store.sqlite");
    let mut command = process::command(process::binary());
    command.args(["serve", "--store", &format!("sqlite:{}", store.display())]);
    Process::start(command)
}
