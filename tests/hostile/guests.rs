//! Plugins in text that are all right, but for the parts that a test spoils.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::harness::root;

/// Where the parts of a guest's memory are. At 0 there is a manifest of empty texts, at 512 an `ok`.
pub(crate) const MANIFEST: u32 = 0;
pub(crate) const CONFIGURED: u32 = 512;
pub(crate) const VERDICT: u32 = 1_024;
pub(crate) const TEXT: u32 = 4_096;

/// A transform, in parts. Each text is the body of a function of that name.
#[derive(Clone)]
pub(crate) struct Guest {
    describe: String,
    configure: String,
    /// What `cabi_realloc` does once the guest is configured. Empty: it allocates.
    realloc: String,
    transform: String,
    imports: String,
    more: String,
    pages: u32,
}

/// One that passes everything.
pub(crate) fn guest() -> Guest {
    Guest {
        describe: format!("(i32.const {MANIFEST})"),
        configure: format!("(i32.const {CONFIGURED})"),
        realloc: String::new(),
        transform: format!("(i32.const {VERDICT})"),
        imports: String::new(),
        more: String::new(),
        pages: 4,
    }
}

/// A function of loops in loops, each of which changes all locals: the compiler has as many meetings as loops
/// times locals.
pub(super) fn entanglement(count: usize) -> String {
    let mut code = "loop ".repeat(count);
    for it in 1..count {
        code += &format!("local.get {it} local.set {} ", it - 1);
    }
    for it in 0..count {
        code += &format!("local.get {it} br_if 0 end ");
    }
    format!("(func (local{}) {code})", " i32".repeat(count))
}

/// A plugin that has such a function, which nobody calls.
pub(crate) fn entangled(count: usize) -> Vec<u8> {
    guest().more(&entanglement(count)).module()
}

impl Guest {
    pub(crate) fn describe(self, body: &str) -> Guest {
        Guest { describe: body.to_owned(), ..self }
    }

    /// Does something, and takes its configuration.
    pub(crate) fn configure(self, body: &str) -> Guest {
        Guest { configure: format!("{body} (i32.const {CONFIGURED})"), ..self }
    }

    pub(crate) fn realloc(self, body: &str) -> Guest {
        Guest { realloc: format!("(if (global.get $armed) (then (return {body})))"), ..self }
    }

    /// Does something, and passes.
    pub(crate) fn does(self, body: &str) -> Guest {
        Guest { transform: format!("{body} (i32.const {VERDICT})"), ..self }
    }

    /// Says that its verdict is there.
    pub(crate) fn answers_at(self, address: u32) -> Guest {
        Guest { transform: format!("(i32.const {address})"), ..self }
    }

    /// Has so many pages of memory from the start.
    pub(crate) fn pages(self, pages: u32) -> Guest {
        Guest { pages, ..self }
    }

    /// Imports more.
    pub(crate) fn imports(self, fields: &str) -> Guest {
        Guest { imports: fields.to_owned(), ..self }
    }

    /// Has more fields.
    pub(crate) fn more(mut self, fields: &str) -> Guest {
        self.more += fields;
        self
    }

    /// Has these words in its memory.
    pub(crate) fn words(self, at: u32, words: &[u32]) -> Guest {
        let bytes: Vec<u8> = words.iter().flat_map(|it| it.to_le_bytes()).collect();
        self.bytes(at, &bytes)
    }

    /// Has these bytes in its memory.
    pub(crate) fn bytes(self, at: u32, bytes: &[u8]) -> Guest {
        let text: String = bytes.iter().map(|it| format!("\\{it:02x}")).collect();
        self.more(&format!("(data (i32.const {at}) \"{text}\")"))
    }

    /// A core module, which the router types by its exports.
    pub(crate) fn module(&self) -> Vec<u8> {
        let Guest { describe, configure, realloc, transform, imports, more, pages } = self;
        let text = format!(
            r#"(module
                (import "hookyard:plugin/event@1.0.0" "size" (func $size (result i32)))
                (import "hookyard:plugin/event@1.0.0" "get" (func $get (param i32 i32 i32)))
                (import "hookyard:plugin/event@1.0.0" "get-many" (func $get-many (param i32 i32 i32)))
                (import "hookyard:plugin/event@1.0.0" "data" (func $data (param i32)))
                (import "hookyard:plugin/event@1.0.0" "attribute" (func $attribute (param i32 i32 i32)))
                (import "hookyard:plugin/log@1.0.0" "log" (func $log (param i32 i32 i32)))
                {imports}
                (memory (export "memory") {pages})
                (global $next (mut i32) (i32.const 131072))
                (global $armed (mut i32) (i32.const 0))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (local $block i32)
                    {realloc}
                    (local.set $block (i32.and
                        (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
                    (global.set $next (i32.add (local.get $block) (local.get 3)))
                    (local.get $block))
                (func (export "hookyard:plugin/lifecycle@1.0.0#describe") (result i32) {describe})
                (func (export "hookyard:plugin/lifecycle@1.0.0#configure") (param i32 i32) (result i32)
                    (global.set $armed (i32.const 1))
                    {configure})
                (func (export "hookyard:plugin/transform@1.0.0#transform")
                    (param i32 i32 i32 i32 i32 i32 i32 i64) (result i32)
                    (local $n i32)
                    {transform})
                {more})"#
        );
        wat::parse_str(text).unwrap_or_else(|err| panic!("{err}"))
    }

    /// The component that a toolchain would make of it.
    pub(crate) fn component(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(root().join("plugins/wit")).unwrap();
        let world = resolve.select_world(&[package], Some("transform-plugin")).unwrap();
        let mut module = self.module();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
    }
}
