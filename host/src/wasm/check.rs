//! Checks an uploaded file before anything of it is compiled, and makes a component out of it.

use memchr::memmem;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{PackageId, Resolve, WorldId};

use super::Refusal;

/// The contract, parsed.
pub(super) struct Contract {
    resolve: Resolve,
    package: PackageId,
}

const PACKAGE: &str = "hookyard:plugin";
/// What a plugin may import, with any version 1.x.
const IMPORTS: [&str; 3] = ["types", "event", "log"];

/// What wasm may be made of; what is missing here has been a source of escapes or has no use.
fn features() -> WasmFeatures {
    WasmFeatures::WASM1
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::SIMD
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::COMPONENT_MODEL
}

impl Contract {
    pub(super) fn new() -> Contract {
        let mut resolve = Resolve::default();
        let wit = include_str!("../../../plugins/wit/plugin.wit");
        let package = resolve.push_str("plugin.wit", wit).expect("the contract parses");
        Contract { resolve, package }
    }

    /// Answers the component that the file is or, for a core module, that can be made of it; and what it
    /// imports.
    pub(super) fn component(&self, file: &[u8]) -> Result<(Vec<u8>, Vec<String>), Refusal> {
        if !file.starts_with(b"\0asm") {
            return Err(Refusal::new(
                "not-wasm",
                "the file is not WebAssembly: it does not begin with `\\0asm`",
            ));
        }
        Validator::new_with_features(features()).validate_all(file).map_err(|err| {
            Refusal::new("invalid-wasm", format!("the file is not WebAssembly that we run: {err}"))
        })?;
        let shape = Shape::of(file)?;
        for import in &shape.imports {
            check_import(import, file)?;
        }
        let component =
            if shape.is_component { file.to_vec() } else { self.componentise(file, &shape)? };
        self.check_world(&component, &Shape::of(&component)?)?;
        Ok((component, shape.imports))
    }

    /// Wraps a core module by the component type that its toolchain embedded, or else by its exports. Custom sections,
    /// such as names, are kept unless they cannot be read: traps are told with them.
    fn componentise(&self, module: &[u8], shape: &Shape) -> Result<Vec<u8>, Refusal> {
        self.wrap(module.to_vec(), shape).or_else(|why| self.wrap(bare(module).ok_or(why)?, shape))
    }

    fn wrap(&self, mut module: Vec<u8>, shape: &Shape) -> Result<Vec<u8>, Refusal> {
        if !shape.is_typed {
            let world = self.world(&shape.exports)?;
            wit_component::embed_component_metadata(
                &mut module,
                &self.resolve,
                world,
                StringEncoding::UTF8,
            )
            .map_err(|err| unfit(&err))?;
        }
        ComponentEncoder::default()
            .validate(false)
            .module(&module)
            .and_then(|mut encoder| encoder.encode())
            .map_err(|err| unfit(&err))
    }

    fn check_world(&self, component: &[u8], shape: &Shape) -> Result<(), Refusal> {
        let world = self.world(&shape.exports)?;
        wit_component::targets(&self.resolve, world, component).map_err(|err| unfit(&err))
    }

    fn world(&self, exports: &[String]) -> Result<WorldId, Refusal> {
        let has = |interface: &str| {
            let name = format!("{PACKAGE}/{interface}@1.");
            exports.iter().any(|it| it.starts_with(&name))
        };
        let name = match (has("lifecycle"), has("filter"), has("transform")) {
            (true, true, true) => "plugin",
            (true, true, false) => "filter-plugin",
            (true, false, true) => "transform-plugin",
            (false, _, _) => {
                let detail = format!(
                    "the file exports no `{PACKAGE}/lifecycle@1.0.0`: a plugin has `describe` and \
                     `configure`, and `filter`, `transform` or both"
                );
                return Err(Refusal::new("missing-export", detail));
            }
            (true, false, false) => {
                let detail = format!(
                    "the file exports neither `{PACKAGE}/filter@1.0.0` nor \
                     `{PACKAGE}/transform@1.0.0`: it would do nothing"
                );
                return Err(Refusal::new("missing-export", detail));
            }
        };
        Ok(self.resolve.select_world(&[self.package], Some(name)).expect("a world of the contract"))
    }
}

/// The module without its custom sections, which say nothing of what it does (core specification, section 2.5.13); the
/// component type alone is kept. None where there is nothing to leave out.
fn bare(module: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    let mut end = 0;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.ok()?;
        let content = match &payload {
            Payload::Version { range, .. } => range.clone(),
            payload => match payload.as_section() {
                Some((_, content)) => content,
                None => continue,
            },
        };
        // The header of a section is between the one before it and its content.
        let whole = &module[end..content.end];
        end = content.end;
        let is_bare = match payload {
            Payload::CustomSection(it) => it.name().starts_with("component-type"),
            _ => true,
        };
        if is_bare {
            kept.extend_from_slice(whole);
        }
    }
    (kept.len() < module.len()).then_some(kept)
}

fn unfit(err: &anyhow::Error) -> Refusal {
    Refusal::new("unfit-interface", format!("the file does not fit `plugin.wit`: {err:#}"))
}

fn check_import(name: &str, file: &[u8]) -> Result<(), Refusal> {
    let known = IMPORTS.iter().any(|it| {
        name.strip_prefix(PACKAGE)
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|rest| rest.strip_prefix(it))
            .is_some_and(|version| version.starts_with("@1."))
    });
    if known {
        return Ok(());
    }
    let cure = cure(name, file);
    Err(Refusal::new(
        "forbidden-import",
        format!(
            "the file imports `{name}`, and a plugin may import nothing but `{PACKAGE}/event` and \
             `{PACKAGE}/log`, version 1.x{cure}"
        ),
    ))
}

/// What to change where the file is made, so that it does not import this. Tools leave their names in what they make.
fn cure(import: &str, file: &[u8]) -> &'static str {
    let made_by =
        |names: &[&str]| names.iter().any(|it| memmem::find(file, it.as_bytes()).is_some());
    if !import.starts_with("wasi") {
        return match import {
            // Emscripten shortens `env` to `a`.
            "env" | "a" => {
                "; it is for a host that brings along C functions, so link it without them \
                            (`-nostdlib`, `--no-entry`, no `--import-memory`)"
            }
            _ if import.starts_with("__wbindgen") || import == "wbg" => {
                "; it is for browsers, so build it without `wasm-bindgen`"
            }
            "gojs" | "go" => {
                "; it is for browsers, so build it with TinyGo's `-target=wasm-unknown`"
            }
            _ if import.starts_with("extism") => {
                "; it is a plugin for Extism, so build it with the SDK or `plugin.wit` of this router"
            }
            _ => "",
        };
    }
    if made_by(&["componentize-py", "componentize_py"]) {
        "; plugins have no WASI, so build with `componentize-py componentize --stub-wasi`"
    } else if made_by(&["ComponentizeJS", "componentize-js", "StarlingMonkey", "SpiderMonkey"]) {
        "; plugins have no WASI, so build with ComponentizeJS's `disableFeatures`: `stdio`, `random`, `clocks`, \
         `http` and `fetch-event`"
    } else if made_by(&["TinyGo", "tinygo"]) {
        "; plugins have no WASI, so build with TinyGo's `-target=wasm-unknown`"
    } else if made_by(&["clang"]) && !made_by(&["rustc"]) {
        "; plugins have no WASI, so build without its libc (`--target=wasm32-unknown-unknown -nostdlib`)"
    } else {
        "; plugins have no WASI, so build without it (in Rust for `wasm32-unknown-unknown`)"
    }
}

/// What a file says of itself on its outermost level.
struct Shape {
    is_component: bool,
    /// Whether a core module carries a component type with exports, as `wit-bindgen` embeds it.
    is_typed: bool,
    imports: Vec<String>,
    exports: Vec<String>,
}

impl Shape {
    fn of(file: &[u8]) -> Result<Shape, Refusal> {
        let malformed = |err: wasmparser::BinaryReaderError| {
            Refusal::new("invalid-wasm", format!("the file is malformed: {err}"))
        };
        let mut shape =
            Shape { is_component: false, is_typed: false, imports: vec![], exports: vec![] };
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(file) {
            let payload = payload.map_err(malformed)?;
            match payload {
                Payload::Version { encoding, .. } => {
                    shape.is_component |= depth == 0 && encoding == Encoding::Component;
                    depth += 1;
                }
                Payload::End(_) => depth -= 1,
                _ if depth != 1 => {}
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let module = import.map_err(malformed)?.module;
                        if !shape.imports.iter().any(|it| it == module) {
                            shape.imports.push(module.to_owned());
                        }
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        shape.exports.push(export.map_err(malformed)?.name.to_owned());
                    }
                }
                Payload::ComponentImportSection(section) => {
                    for import in section {
                        shape.imports.push(import.map_err(malformed)?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) => {
                    for export in section {
                        shape.exports.push(export.map_err(malformed)?.name.name.to_owned());
                    }
                }
                Payload::CustomSection(section) => {
                    shape.is_typed |= section.name().starts_with("component-type")
                        && !section.name().ends_with("encoded world");
                }
                _ => {}
            }
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_imported_is_told_with_the_cure_of_the_tool_that_made_it() {
        for (import, file, cure) in [
            ("wasi:cli/environment@0.2.0", "…ComponentizeJS…", "`disableFeatures`"),
            ("wasi:clocks/wall-clock@0.2.3", "libcomponentize_py_runtime.so", "--stub-wasi"),
            ("wasi:cli/environment@0.2.0", "componentize-py", "--stub-wasi"),
            ("wasi_snapshot_preview1", "TinyGo", "-target=wasm-unknown"),
            ("wasi_snapshot_preview1", "clang", "-nostdlib"),
            ("wasi_snapshot_preview1", "rustc, clang", "`wasm32-unknown-unknown`"),
            ("wasi_unstable", "", "`wasm32-unknown-unknown`"),
            ("env", "", "-nostdlib"),
            ("__wbindgen_placeholder__", "", "`wasm-bindgen`"),
            ("extism:host/env", "", "Extism"),
            ("gojs", "", "TinyGo"),
        ] {
            let refusal = check_import(import, file.as_bytes()).unwrap_err();
            assert_eq!(refusal.code, "forbidden-import");
            assert!(refusal.detail.contains(import), "{refusal}");
            assert!(refusal.detail.contains(cure), "{refusal}");
        }
        check_import("hookyard:plugin/event@1.2.0", b"").unwrap();
    }
}
