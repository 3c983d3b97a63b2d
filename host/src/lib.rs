pub mod clock;
pub mod delivery;
pub mod event;
pub mod json;
pub mod plugin;
pub mod wasm;
