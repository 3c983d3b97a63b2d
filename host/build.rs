//! Builds the standard plugins from source and lists the files of `schemas/`, for the host to embed.

#[path = "../plugins/sdk/generate.rs"]
mod generate;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const PLUGINS: [&str; 7] =
    ["minimize", "alternate-id", "filter", "redact", "map", "sample", "split"];

fn main() {
    // Asked for at run time: clones may share a target folder, and with it this program.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    let workspace = PathBuf::from(manifest).join("..");
    let workspace = fs::canonicalize(workspace).expect("the workspace exists");
    for input in ["plugins", "schemas", "scripts/guests", "scripts/wasm32.sh", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    build_plugins(&workspace);
    build_javascript(&workspace);
    name_wasmtime(&workspace.join("Cargo.lock"));
    list_schemas(&workspace.join("schemas"));
    list_templates(&workspace.join("plugins"));
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

/// The plugin that runs scripts is written in JavaScript itself.
fn build_javascript(workspace: &Path) {
    let target = workspace.join("target/javascript");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR for a build script"));
    let status = Command::new(workspace.join("plugins/javascript/build"))
        .arg(&out)
        .arg(target.join("node_modules"))
        .status()
        .expect("`plugins/javascript/build` can be run");
    assert!(status.success(), "the plugin `javascript` cannot be built; `make setup` first");
}

/// The version of wasmtime goes into the names of what it compiles.
fn name_wasmtime(lock: &Path) {
    let lock = fs::read_to_string(lock).expect("the workspace has a lock file");
    let after = lock.split("name = \"wasmtime\"\nversion = \"").nth(1);
    let version = after.and_then(|it| it.split('"').next()).expect("wasmtime is locked");
    println!("cargo::rustc-env=HOOKYARD_WASMTIME={version}");
}

/// Every JSON file below `schemas/`.
fn list_schemas(schemas: &Path) {
    let files = collect(schemas).into_iter();
    let files = files.filter(|it| it.extension().is_some_and(|it| it == "json")).collect();
    write("schemas.rs", &table(schemas, files));
}

/// What `hookyard plugin new` writes.
fn list_templates(plugins: &Path) {
    let templates = plugins.join("templates");
    let contract = plugins.join("wit/plugin.wit");
    let constants = format!(
        "const TEMPLATES: &[(&str, &str)] = {};\nconst SDK: &[(&str, &str)] = {};\n\
         const CONTRACT: &str = include_str!({:?});\n",
        table(&templates, collect(&templates)),
        sdk_for_authors(plugins),
        contract.display()
    );
    write("templates.rs", &constants);
}

/// The SDK for Rust as authors get it: with the bindings in it, so that nobody has to compile what makes
/// them.
fn sdk_for_authors(plugins: &Path) -> String {
    let sdk = plugins.join("sdk");
    let mut rows = String::new();
    for file in collect(&sdk) {
        let name = file.strip_prefix(&sdk).expect("the file was found below the folder");
        let name = name.to_str().expect("it is ours, and ASCII");
        let mut text = fs::read_to_string(&file).expect("the SDK can be read");
        match name {
            "build.rs" | "generate.rs" => continue,
            "Cargo.toml" => {
                let (before, section) = text.split_once("[build-dependencies]\n").expect(name);
                let (_, after) = section.split_once("\n\n").expect(name);
                text = format!("{before}{after}");
            }
            "src/bindings.rs" => {
                let (before, _) = text.split_once("include!").expect(name);
                text = format!("{before}{}", generate::bindings(&plugins.join("wit")));
            }
            _ => {}
        }
        rows += &format!("    ({name:?}, {text:?}),\n");
    }
    format!("&[\n{rows}]")
}

/// A table of files: the path below a folder, and the text.
fn table(folder: &Path, files: Vec<PathBuf>) -> String {
    let rows = files.iter().map(|file| {
        let name = file.strip_prefix(folder).expect("the file was found below the folder");
        format!("    ({:?}, include_str!({:?})),\n", name.display(), file.display())
    });
    format!("&[\n{}]", rows.collect::<String>())
}

fn write(name: &str, text: &str) {
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for a build script");
    fs::write(Path::new(&out).join(name), text).expect("OUT_DIR is ours");
}

/// All files below a folder, in order.
fn collect(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            files.extend(collect(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}
