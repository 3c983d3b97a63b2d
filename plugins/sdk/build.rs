//! Encodes the component type of each world, for the custom section that `export!` puts in a plugin.

use std::path::Path;
use std::{env, fs};

use wit_component::StringEncoding;
use wit_parser::Resolve;

fn main() {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    println!("cargo::rerun-if-changed={}", wit.display());

    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(&wit).expect("`plugins/wit` is a valid package");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for a build script");
    for name in ["filter-plugin", "transform-plugin", "plugin"] {
        let world = resolve.select_world(&[package], Some(name)).expect("the world exists");
        let bytes = wit_component::metadata::encode(&resolve, world, StringEncoding::UTF8, None)
            .expect("a valid world can be encoded");
        fs::write(Path::new(&out).join(name), bytes).expect("OUT_DIR can be written");
    }
}
