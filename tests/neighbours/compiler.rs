//! A compiler that shows when it begins, and that can be held.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::harness::PATIENCE;
use crate::harness::process::binary;

/// A script in a folder. It leaves a file there, waits as long as there is another one, and compiles.
pub(super) struct Compiler(TempDir);

impl Compiler {
    pub(super) fn new() -> Compiler {
        let it = Compiler(tempfile::tempdir().unwrap());
        let script = format!(
            "#!/bin/sh\n\
             if [ ! -e {free} ]; then\n\
             : > {begun}\n\
             while [ -e {held} ]; do sleep 0.01; done\n\
             fi\n\
             exec {compiler} \"$@\"\n",
            free = it.free().display(),
            begun = it.begun().display(),
            held = it.held().display(),
            compiler = binary(),
        );
        // A process that another test forks meanwhile would still have a file open that was written here, and
        // the system runs no program that somebody writes to: a child writes it.
        let text = it.0.path().join("text");
        fs::write(&text, script).unwrap();
        let written = Command::new("install").arg("-m755").arg(text).arg(it.program()).status();
        assert!(written.unwrap().success());
        it
    }

    pub(super) fn program(&self) -> PathBuf {
        self.0.path().join("compiler")
    }

    fn begun(&self) -> PathBuf {
        self.0.path().join("begun")
    }

    fn held(&self) -> PathBuf {
        self.0.path().join("held")
    }

    fn free(&self) -> PathBuf {
        self.0.path().join("free")
    }

    /// Whatever begins from now on waits.
    pub(super) fn hold(&self) {
        self.forget();
        fs::write(self.held(), "").unwrap();
    }

    /// Whatever has begun goes on waiting, and what begins from now on does not.
    pub(super) fn hold_no_more(&self) {
        fs::write(self.free(), "").unwrap();
    }

    pub(super) fn let_go(&self) {
        fs::remove_file(self.held()).unwrap();
    }

    /// What has begun before is of no interest.
    fn forget(&self) {
        let _ = fs::remove_file(self.begun());
    }

    /// Ends when it has begun since.
    pub(super) async fn begins(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.begun().exists() {
            assert!(Instant::now() < until, "nothing is compiled");
            sleep(Duration::from_millis(5)).await;
        }
    }
}
