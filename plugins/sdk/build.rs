//! Makes the bindings. Authors get them made, and no build script: see `host/build.rs`.

mod generate;

use std::path::Path;
use std::{env, fs};

fn main() {
    // Asked for at run time: clones may share a target folder, and with it this program.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    let wit = Path::new(&manifest).join("../wit");
    println!("cargo::rerun-if-changed={}", wit.display());
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for a build script");
    fs::write(Path::new(&out).join("bindings.rs"), generate::bindings(&wit))
        .expect("OUT_DIR can be written");
}
