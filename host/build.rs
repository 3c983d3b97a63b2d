//! Builds the standard plugins from source and lists the files of `schemas/`, for the host to embed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const PLUGINS: [&str; 7] =
    ["minimize", "alternate-id", "filter", "redact", "map", "sample", "split"];

fn main() {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let workspace = fs::canonicalize(workspace).expect("the workspace exists");
    for input in ["plugins", "schemas", "scripts/guests", "scripts/wasm32.sh", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    build_plugins(&workspace);
    name_wasmtime(&workspace.join("Cargo.lock"));
    list_schemas(&workspace.join("schemas"));
}

fn build_plugins(workspace: &Path) {
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

/// The version of wasmtime goes into the names of what it compiles.
fn name_wasmtime(lock: &Path) {
    let lock = fs::read_to_string(lock).expect("the workspace has a lock file");
    let after = lock.split("name = \"wasmtime\"\nversion = \"").nth(1);
    let version = after.and_then(|it| it.split('"').next()).expect("wasmtime is locked");
    println!("cargo::rustc-env=HOOKYARD_WASMTIME={version}");
}

/// Writes a table of every JSON file: its path below `schemas/`, and its text.
fn list_schemas(schemas: &Path) {
    let mut files = Vec::new();
    collect(schemas, &mut files);
    files.sort();
    let rows = files.iter().map(|file| {
        let name = file.strip_prefix(schemas).expect("the file was found below the folder");
        format!("    ({:?}, include_str!({:?})),\n", name.display(), file.display())
    });
    let table = format!("&[\n{}]\n", rows.collect::<String>());
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for a build script");
    fs::write(Path::new(&out).join("schemas.rs"), table).expect("OUT_DIR is ours");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|it| it == "json") {
            files.push(path);
        }
    }
}
