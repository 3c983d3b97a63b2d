//! Makes the bindings out of `plugins/wit`, for the two build scripts that need them: the one of the SDK
//! here, and the one of the host, which hands the SDK to authors with the bindings in it.

use std::path::Path;

use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator as _};
use wit_component::{StringEncoding, metadata};

/// What each world is called in the SDK.
const WORLDS: [(&str, &str); 3] = [
    ("filter-plugin", "FILTER_WORLD"),
    ("transform-plugin", "TRANSFORM_WORLD"),
    ("plugin", "PLUGIN_WORLD"),
];

/// The types and functions of the world that has everything, and the component type of each world.
pub(crate) fn bindings(wit: &Path) -> String {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit).expect("`plugins/wit` is a valid package");
    let mut worlds = String::new();
    for (name, constant) in WORLDS {
        let world = resolve.select_world(&[package], Some(name)).expect("the world exists");
        let bytes = metadata::encode(&resolve, world, StringEncoding::UTF8, None)
            .expect("a valid world can be encoded");
        worlds += &format!("\npub const {constant}: &[u8] = b\"{}\";\n", bytes.escape_ascii());
    }

    let world = resolve.select_world(&[package], Some("plugin")).expect("the world exists");
    let mut generator = wit_bindgen_rust::Opts {
        format: true,
        pub_export_macro: true,
        default_bindings_module: Some("hookyard_plugin::bindings".to_owned()),
        additional_derive_attributes: vec!["PartialEq".to_owned()],
        ..Default::default()
    }
    .build();
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files).expect("a valid world has bindings");
    let (_, bindings) = files.iter().next().expect("they are one file");
    String::from_utf8(bindings.to_vec()).expect("Rust is text") + &worlds
}
