//! The standard plugins, built from `plugins/` and carried in the binary.

/// The plugin that runs scripts: one of those below.
pub(super) const JAVASCRIPT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/javascript.wasm"));

/// Name and file of each.
pub const STANDARD_PLUGINS: [(&str, &[u8]); 8] = [
    ("minimize", include_bytes!(concat!(env!("HOOKYARD_GUESTS"), "/minimize.wasm"))),
    ("alternate-id", include_bytes!(concat!(env!("HOOKYARD_GUESTS"), "/alternate_id.wasm"))),
    ("filter", include_bytes!(concat!(env!("HOOKYARD_GUESTS"), "/filter.wasm"))),
    ("redact", include_bytes!(concat!(env!("HOOKYARD_GUESTS"), "/redact.wasm"))),
    ("map", include_bytes!(concat!(env!("HOOKYARD_GUESTS"), "/map.wasm"))),
    ("sample", include_bytes!(concat!(env!("HOOKYARD_GUESTS"), "/sample.wasm"))),
    ("split", include_bytes!(concat!(env!("HOOKYARD_GUESTS"), "/split.wasm"))),
    ("javascript", JAVASCRIPT),
];
