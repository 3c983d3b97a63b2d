//! Builds the standard plugins from source, for `wasm/standard.rs` to embed.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

const PLUGINS: [&str; 3] = ["minimize", "alternate-id", "filter"];

fn main() {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let workspace = fs::canonicalize(workspace).expect("the workspace exists");
    for input in ["plugins", "scripts/guests", "scripts/wasm32.sh", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }

    let target = env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| workspace.join("target"), |it| workspace.join(it));
    let folder = target.join("guests");
    let status = Command::new(workspace.join("scripts/guests"))
        .arg(&folder)
        .args(PLUGINS)
        .status()
        .expect("`scripts/guests` can be run");
    assert!(status.success(), "the standard plugins cannot be built; `make setup` first");
    let files = folder.join("wasm32-unknown-unknown/guest");
    println!("cargo::rustc-env=HOOKYARD_GUESTS={}", files.display());
}
