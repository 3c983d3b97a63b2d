//! What wasmtime makes of `plugins/wit`.

wasmtime::component::bindgen!({
    path: "../plugins/wit",
    world: "plugin",
    imports: {
        "hookyard:plugin/event.get": trappable,
        "hookyard:plugin/event.get-many": trappable,
    },
});
