//! A compiler of which is seen when it begins, and which can be held.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::harness::PATIENCE;
use crate::harness::process::binary;

/// A script in a folder, which leaves a file there, waits as long as there is another one, and compiles.
pub(super) struct Compiler(TempDir);

impl Compiler {
    pub(super) fn new() -> Compiler {
        let it = Compiler(tempfile::tempdir().unwrap());
        let script = format!(
            "#!/bin/sh\n: > {begun}\nwhile [ -e {held} ]; do sleep 0.01; done\nexec {compiler} \"$@\"\n",
            begun = it.begun().display(),
            held = it.held().display(),
            compiler = binary(),
        );
        fs::write(it.program(), script).unwrap();
        fs::set_permissions(it.program(), fs::Permissions::from_mode(0o755)).unwrap();
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

    pub(super) fn hold(&self) {
        fs::write(self.held(), "").unwrap();
    }

    pub(super) fn let_go(&self) {
        fs::remove_file(self.held()).unwrap();
    }

    /// What has begun before is of no interest.
    pub(super) fn forget(&self) {
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
