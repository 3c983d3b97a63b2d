//! The router that is attacked: the release binary with two tenants, and with as few files as a shell gives.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::Stage;
use crate::growth;
use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::harness::process::{self, Process};
use crate::router::TENANT as ATTACKER;

const NEIGHBOUR: &str = "neighbour";

pub(super) struct Victim {
    process: Process,
    pub(super) address: SocketAddr,
    pub(super) attacker: String,
    pub(super) neighbour: String,
    /// For calls of the neighbour that are not measured.
    runtime: Runtime,
    folder: TempDir,
}

impl Victim {
    /// Starts one. With a number of deliveries, the attacker's log has as many from before.
    pub(super) fn start(stage: &Stage, log: usize) -> Victim {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store.sqlite");
        let [attacker, neighbour] = [ATTACKER, NEIGHBOUR].map(|it| process::token(&store, it));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut process = Process::start(command(stage, &folder));
        if log > 0 {
            // It is of a subscription, which has to be there.
            let body = json!({"name": "log", "url": "http://127.0.0.1:1024/", "filters": [{"type": "none"}]});
            let client = process.client(&attacker);
            runtime.block_on(client.post("/v1/subscriptions", &body)).expect(201);
            process.kill();
            growth::fill(&store, log);
            process = Process::start(command(stage, &folder));
        }
        let address = address(&process.client(&attacker));
        Victim { process, address, attacker, neighbour, runtime, folder }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// As the neighbour.
    pub(super) fn client(&self) -> Client {
        self.process.client(&self.neighbour)
    }

    /// Waits for a call that is not measured, but not for ever: an attack may have been too much already.
    pub(super) fn wait_for<T>(&self, call: impl Future<Output = T>) -> T {
        let call = async { timeout(PATIENCE, call).await };
        self.runtime.block_on(call).expect("the router answers a call of the neighbour in time")
    }

    /// How it has ended, where it has, with the last that it said.
    pub(super) fn death(&mut self) -> Option<String> {
        let status = self.process.ended()?;
        let said = fs::read_to_string(log_of(&self.folder)).unwrap_or_default();
        let last = said.lines().last().unwrap_or_default();
        Some(format!("{status} {}", last.chars().take(120).collect::<String>()))
    }

    /// Kills it. Whoever compiles for it dies with it.
    pub(super) fn kill(self) {
        self.process.kill();
    }
}

fn log_of(folder: &TempDir) -> PathBuf {
    folder.path().join("stderr")
}

fn address(client: &Client) -> SocketAddr {
    client.url("").trim_start_matches("http://").parse().unwrap()
}

fn command(stage: &Stage, folder: &TempDir) -> Command {
    let mut command = process::serve_command(&folder.path().join("store.sqlite"));
    command
        .args(["--dns-servers", &stage.names.address.to_string()])
        .env("HOOKYARD_PLUGIN_CACHE", stage.plugins.path())
        // What endpoints have to show is no part of this.
        .env("HOOKYARD_COPERNICA_VALIDATION", "false")
        .stderr(fs::File::create(log_of(folder)).unwrap());
    command
}
