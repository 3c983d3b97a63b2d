//! What `wit-bindgen` makes of `plugins/wit`. Authors use it through [`crate::export!`].

wit_bindgen::generate!({
    path: "../wit",
    world: "plugin",
    pub_export_macro: true,
    default_bindings_module: "hookyard_plugin::bindings",
    additional_derives: [PartialEq],
});
