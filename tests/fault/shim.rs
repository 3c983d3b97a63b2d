//! What a machine does to a process, done by a library of ours that is loaded into it: `shim.c`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rand::RngExt;
use rand::rngs::StdRng;
use rustix::io::Errno;
use tempfile::TempDir;

use crate::harness::root;

static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = root().join("target/fault");
    fs::create_dir_all(&folder).unwrap();
    let (part, whole) = (folder.join(std::process::id().to_string()), folder.join("shim.so"));
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"]).arg(&part);
    cc.arg(root().join("tests/fault/shim.c")).arg("-ldl");
    assert!(cc.status().expect("`make setup` installs it").success());
    fs::rename(part, &whole).unwrap();
    whole
});

/// A sector of a disk: what is written to it is written as a whole or not at all.
const SECTOR: usize = 512;

/// What a disk does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Disk {
    Writes,
    IsFull,
    IsReadOnly,
}

/// The machine of one process.
pub(super) struct Shim {
    folder: TempDir,
    control: File,
}

impl Shim {
    pub(super) fn new() -> Shim {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("synced")).unwrap();
        let control = File::create(folder.path().join("control")).unwrap();
        control.set_len(32).unwrap();
        Shim { folder, control }
    }

    /// A command is run on this machine, with its store in a folder.
    pub(super) fn load_into(&self, command: &mut Command, store: &Path) {
        command.env("LD_PRELOAD", &*LIBRARY);
        command.env("FAULT_FOLDER", self.folder.path()).env("FAULT_STORE", store);
    }

    /// The wall clock is so far from the right time.
    pub(super) fn set_clock(&self, ms: i64) {
        self.set(0, ms);
    }

    /// Every sync takes so much longer.
    pub(super) fn slow_down(&self, ms: i64) {
        self.set(1, ms);
    }

    pub(super) fn disk(&self, disk: Disk) {
        let refuse = match disk {
            Disk::Writes => 0,
            Disk::IsFull => Errno::NOSPC.raw_os_error(),
            Disk::IsReadOnly => Errno::ROFS.raw_os_error(),
        };
        self.set(2, refuse.into());
    }

    /// From now on it is known what would survive a loss of power. All that is there does.
    pub(super) fn remember_synced(&self, store: &Path) {
        for entry in fs::read_dir(store).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), self.synced().join(entry.file_name())).unwrap();
        }
        self.set(3, 1);
    }

    /// Leaves in the folder of a store what a disk may have when the power has gone: all that was synced,
    /// and of what was written since then any sectors.
    pub(super) fn lose_power(&self, store: &Path, rng: &mut StdRng) {
        for entry in fs::read_dir(store).unwrap() {
            let path = entry.unwrap().path();
            let synced = self.synced().join(path.file_name().unwrap());
            if synced.exists() {
                let (before, after) = (fs::read(&synced).unwrap(), fs::read(&path).unwrap());
                fs::write(&path, torn(&before, &after, rng)).unwrap();
                fs::copy(&path, synced).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
    }

    fn synced(&self) -> PathBuf {
        self.folder.path().join("synced")
    }

    fn set(&self, field: u64, value: i64) {
        self.control.write_all_at(&value.to_ne_bytes(), 8 * field).unwrap();
    }
}

/// A file of which some sectors are as they were before, and some as they were to be.
fn torn(before: &[u8], after: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let length = if rng.random() { before.len() } else { after.len() };
    let mut torn = vec![0; length];
    for (at, sector) in torn.chunks_mut(SECTOR).enumerate() {
        let chosen = if rng.random() { before } else { after };
        let from = (at * SECTOR).min(chosen.len());
        let to = (from + sector.len()).min(chosen.len());
        sector[..to - from].copy_from_slice(&chosen[from..to]);
    }
    torn
}
