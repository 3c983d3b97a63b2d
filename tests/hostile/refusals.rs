//! Files that are no plugins, or not ones that we run: each is refused by name, at once.

use super::bytes::{COMPONENT, Chance, MODULE, file, list, name, section, with};
use super::guests::guest;
use super::{Upload, check_uploads};

const SEED: u64 = 0x5eed_0001;
/// Sections of modules.
const TYPES: u8 = 1;
const IMPORTS: u8 = 2;
const FUNCTIONS: u8 = 3;
const EXPORTS: u8 = 7;
const CODE: u8 = 10;
/// One type: a function of nothing.
const NULLARY: &[u8] = b"\x01\x60\0\0";

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|err| panic!("{err}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_webassembly_is_refused_before_anything_else() {
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x04\0\x43\xbe\xb7\xe8\x01\0\0\0";
    let elf = std::fs::read("/proc/self/exe").unwrap()[..1 << 20].to_vec();
    let mut cases: Vec<Upload> = vec![
        ("nothing", vec![], "not-wasm"),
        ("half a header", MODULE[..3].to_vec(), "not-wasm"),
        ("a script", b"export function transform() {}".to_vec(), "not-wasm"),
        ("a module in text", b"(module)".to_vec(), "not-wasm"),
        ("gzip", gzip.to_vec(), "not-wasm"),
        ("zip", b"PK\x03\x04\x14\0\0\0\x08\0".repeat(1_000), "not-wasm"),
        ("ELF", elf, "not-wasm"),
        ("zeros", vec![0; 1 << 20], "not-wasm"),
        ("half a version", MODULE[..6].to_vec(), "invalid-wasm"),
        ("the next version", b"\0asm\x02\0\0\0".to_vec(), "invalid-wasm"),
        ("an old component", b"\0asm\x0a\0\x01\0".to_vec(), "invalid-wasm"),
        ("a header twice", [MODULE, MODULE].concat(), "invalid-wasm"),
        ("too much", with(MODULE.to_vec(), &[section(0, vec![0; 4 << 20])]), "too-large"),
    ];
    let mut chance = Chance(SEED);
    for length in [1, 7, 64, 4_096, 1 << 20] {
        cases.push(("chance", chance.bytes(length), "not-wasm"));
    }
    for header in [MODULE, COMPONENT] {
        for length in [1, 2, 3, 5, 8, 13, 100, 1_000, 100_000] {
            let bytes = [header, &chance.bytes(length)].concat();
            cases.push(("a header and chance", bytes, "invalid-wasm"));
        }
    }
    check_uploads(&[], cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_believed_as_far_as_they_are_there() {
    let mut cases: Vec<Upload> = Vec::new();
    for header in [MODULE, COMPONENT] {
        for id in 1..=15 {
            let list = section(id, b"\xff\xff\xff\xff\x0f");
            cases.push(("an endless list", file(header, &[list]), "invalid-wasm"));
            let list = section(id, b"\x80\x80\x80\x80\x80\x80\x80\x01");
            cases.push(("an endless number", file(header, &[list]), "invalid-wasm"));
            let gone = vec![id, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
            cases.push(("an endless section", file(header, &[gone]), "invalid-wasm"));
        }
    }
    let functions = |declared: usize, bodies: usize| {
        let declared = section(FUNCTIONS, list(declared, |_| vec![0]));
        let bodies = section(CODE, list(bodies, |_| vec![2, 0, 0x0b]));
        file(MODULE, &[section(TYPES, NULLARY), declared, bodies])
    };
    let body = |locals: &[u8]| {
        let body = name([locals, b"\x0b"].concat());
        let sections = [
            section(TYPES, NULLARY),
            section(FUNCTIONS, b"\x01\0"),
            section(CODE, [b"\x01", &body[..]].concat()),
        ];
        file(MODULE, &sections)
    };
    let branches =
        format!("(module (func block i32.const 0 br_table{} end))", " 0".repeat(100_000));
    cases.extend([
        ("a million functions", functions(1_000_001, 0), "invalid-wasm"),
        ("functions without bodies", functions(100_000, 0), "invalid-wasm"),
        ("bodies without functions", functions(0, 100_000), "invalid-wasm"),
        ("2^32 locals", body(b"\x01\xff\xff\xff\xff\x0f\x7f"), "invalid-wasm"),
        ("2^32 locals in two parts", body(b"\x02\xff\xff\xff\xff\x0f\x7f\x02\x7f"), "invalid-wasm"),
        ("50,001 locals", body(b"\x01\xd1\x86\x03\x7f"), "invalid-wasm"),
        ("100,000 ways to branch", wat(&branches), "missing-export"),
    ]);
    check_uploads(&[], cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_names_and_there_is_one_of_each() {
    let import = |module: &[u8]| [name(module), name("f"), vec![0, 0]].concat();
    let imports = |count: usize, module: &dyn Fn(usize) -> Vec<u8>| {
        let all = list(count, |number| import(&module(number)));
        file(MODULE, &[section(TYPES, NULLARY), section(IMPORTS, all)])
    };
    let exports = |count: usize, of: &dyn Fn(usize) -> Vec<u8>| {
        let sections = [
            section(TYPES, NULLARY),
            section(FUNCTIONS, b"\x01\0"),
            section(EXPORTS, list(count, |it| [name(of(it)), vec![0, 0]].concat())),
            section(CODE, b"\x01\x02\0\x0b"),
        ];
        file(MODULE, &sections)
    };
    let long = |number: usize| format!("{number:0300}").into_bytes();
    let known = |_: usize| b"hookyard:plugin/event@1.0.0".to_vec();
    let bad = |_: usize| b"\xff\xfe".to_vec();
    let mut cases: Vec<Upload> = vec![
        ("an import that is no text", imports(1, &bad), "invalid-wasm"),
        ("an export that is no text", exports(1, &bad), "invalid-wasm"),
        ("a section that is no text", file(MODULE, &[section(0, name(b"\xff"))]), "invalid-wasm"),
        ("10,000 imports", imports(10_000, &long), "forbidden-import"),
        ("10,000 imports of ours", imports(10_000, &known), "missing-export"),
        ("10,000 exports", exports(10_000, &long), "missing-export"),
        ("two exports of one name", exports(2, &|_| b"f".to_vec()), "invalid-wasm"),
        ("a name of 3 MB", imports(1, &|_| vec![b'n'; 3 << 20]), "invalid-wasm"),
        ("a long name", imports(1, &|_| vec![b'n'; 99_000]), "forbidden-import"),
    ];
    let odd = |number: usize| format!("hookyard:plugin/lifecycle@1.{number}").into_bytes();
    cases.push(("10,000 exports like ours", exports(10_000, &odd), "missing-export"));
    check_uploads(&[], cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_imports_what_it_may() {
    let import = |field: &str| guest().imports(&format!("(import {field})")).module();
    let cases: Vec<Upload> = vec![
        ("WASI", import(r#""wasi_snapshot_preview1" "x" (func)"#), "forbidden-import"),
        ("the environment", import(r#""env" "now" (func)"#), "forbidden-import"),
        ("nobody", import(r#""" "" (func)"#), "forbidden-import"),
        (
            "no interface of ours",
            import(r#""hookyard:plugin/store@1.0.0" "f" (func)"#),
            "forbidden-import",
        ),
        (
            "an older version",
            import(r#""hookyard:plugin/event@0.9.0" "size" (func)"#),
            "forbidden-import",
        ),
        (
            "the next version",
            import(r#""hookyard:plugin/event@2.0.0" "size" (func)"#),
            "forbidden-import",
        ),
        (
            "a version to come",
            import(r#""hookyard:plugin/event@1.9.0" "f" (func)"#),
            "unfit-interface",
        ),
        (
            "a version that is none",
            import(r#""hookyard:plugin/event@1." "size" (func)"#),
            "unfit-interface",
        ),
        (
            "an unknown function",
            import(r#""hookyard:plugin/event@1.0.0" "f" (func)"#),
            "unfit-interface",
        ),
        (
            "no function",
            import(r#""hookyard:plugin/event@1.0.0" "text" (memory 1)"#),
            "invalid-wasm",
        ),
        (
            "another signature",
            import(r#""hookyard:plugin/event@1.0.0" "text" (func)"#),
            "unfit-interface",
        ),
    ];
    check_uploads(&[], cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_made_of_what_we_run() {
    let more = |fields: &str| guest().more(fields).module();
    let beside = |of: &str, size: usize| {
        with(guest().module(), &[section(0, [name(of), vec![7; size]].concat())])
    };
    let manifold: String = (0..10_000).map(|it| format!("(func (export \"{it:0300}\"))")).collect();
    let relaxed = "(func (param v128) (drop (i32x4.relaxed_trunc_f32x4_s (local.get 0))))";
    let wide = "(func (param i64) (i64.mul_wide_s (local.get 0) (local.get 0)) drop drop)";
    let nothings = vec![section(0, name("x")); 100_000];
    let cases: Vec<Upload> = vec![
        ("10,000 exports more", more(&manifold), "accepted"),
        ("the memory twice", more(r#"(export "memory" (memory 0))"#), "invalid-wasm"),
        ("64-bit memory", more("(memory i64 1)"), "invalid-wasm"),
        ("two memories", more("(memory 1)"), "invalid-wasm"),
        ("shared memory", wat("(module (memory 1 1 shared))"), "invalid-wasm"),
        ("tail calls", more("(func $f (return_call $f))"), "invalid-wasm"),
        ("exceptions", more("(tag $t) (func (throw $t))"), "invalid-wasm"),
        ("objects", more("(type (struct (field i32)))"), "invalid-wasm"),
        ("typed functions", more("(type $t (func)) (func (param (ref $t)))"), "invalid-wasm"),
        ("relaxed vectors", more(relaxed), "invalid-wasm"),
        ("wide numbers", more(wide), "invalid-wasm"),
        ("an odd page size", wat("(module (memory 1 (pagesize 1)))"), "invalid-wasm"),
        ("a world that is none", beside("component-type:x", 99), "unfit-interface"),
        ("megabytes beside", beside("x", 3 << 20), "accepted"),
        ("100,000 sections", with(guest().module(), &nothings), "accepted"),
    ];
    check_uploads(&[], cases).await;
}
