//! The standard plugins, built from `plugins/` and carried in the binary.

/// Name and file of each.
pub const STANDARD_PLUGINS: [(&str, &[u8]); 3] = [
    ("minimize", include_bytes!(concat!(env!("HOOKYARD_GUESTS"), "/minimize.wasm"))),
    ("alternate-id", include_bytes!(concat!(env!("HOOKYARD_GUESTS"), "/alternate_id.wasm"))),
    ("filter", include_bytes!(concat!(env!("HOOKYARD_GUESTS"), "/filter.wasm"))),
];
