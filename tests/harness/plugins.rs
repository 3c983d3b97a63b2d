//! Plugins, built from source once.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{LazyLock, Mutex};

use super::root;

static BUILT: LazyLock<Mutex<HashMap<String, Vec<u8>>>> = LazyLock::new(Mutex::default);

/// The file of a plugin of this workspace.
pub(crate) fn plugin(name: &str) -> Vec<u8> {
    let mut built = BUILT.lock().unwrap();
    let file = built.entry(name.to_owned()).or_insert_with(|| {
        let folder = root().join("target/guests");
        let status =
            Command::new(root().join("scripts/guests")).arg(&folder).arg(name).status().unwrap();
        assert!(status.success(), "`{name}` cannot be built");
        let file = format!("wasm32-unknown-unknown/guest/{}.wasm", name.replace('-', "_"));
        std::fs::read(folder.join(file)).unwrap()
    });
    file.clone()
}

/// A core module with the exports of a filter, typed by the router from their names. `filter` is the
/// body of the function: it leaves the address of a decision, of which there is `(i32.const 1024)` for
/// accept and `(i32.const 1040)` for reject. `more` are further fields of the module.
pub(crate) fn filter_module(filter: &str, more: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 2)
            (global $next (mut i32) (i32.const 65536))
            ;; At 0: a manifest of empty texts. At 512: an `ok`. At 1024 and 1040: decisions.
            (data (i32.const 1040) "\01\00")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $block i32)
                (local.set $block (i32.and
                    (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
                (global.set $next (i32.add (local.get $block) (local.get 3)))
                (local.get $block))
            (func (export "hookyard:plugin/lifecycle@1.0.0#describe") (result i32) (i32.const 0))
            (func (export "hookyard:plugin/lifecycle@1.0.0#configure") (param i32 i32) (result i32)
                (i32.const 512))
            (func (export "hookyard:plugin/filter@1.0.0#filter")
                (param i32 i32 i32 i32 i32 i32 i32 i64) (result i32)
                {filter})
            {more})"#
    );
    wat::parse_str(text).unwrap()
}
