//! Files that want much, or are made of one thing in another.

use super::bytes::{COMPONENT, MODULE, count_of, file, leb, list, name, section, type_index, with};
use super::guests::guest;
use super::{Upload, check_uploads};

/// Sections of components.
const CORE_MODULE: u8 = 1;
const CORE_INSTANCES: u8 = 2;
const NESTED: u8 = 4;
const INSTANCES: u8 = 5;
const COMPONENT_TYPES: u8 = 7;

/// A plugin that has a core module inside, and makes so many instances of it.
pub(crate) fn with_core(text: &str, count: usize) -> Vec<u8> {
    let module = wat::parse_str(text).unwrap_or_else(|err| panic!("{err}"));
    let plugin = guest().component();
    let index = leb(count_of(&plugin, CORE_MODULE));
    let instances = list(count, |_| [&[0], &index[..], &[0]].concat());
    with(plugin, &[section(CORE_MODULE, module), section(CORE_INSTANCES, instances)])
}

/// A plugin that has a component inside, and makes an instance of it.
pub(crate) fn with_component(component: Vec<u8>) -> Vec<u8> {
    let plugin = guest().component();
    let index = leb(count_of(&plugin, NESTED));
    let instance = [&[1, 0], &index[..], &[0]].concat();
    with(plugin, &[section(NESTED, component), section(INSTANCES, instance)])
}

/// A component with two of a component with two of … of `core`.
pub(crate) fn doubled(levels: usize, core: &str) -> Vec<u8> {
    let mut text = core.to_owned();
    for _ in 0..levels {
        text = format!(
            "(component $c {text}) (instance (instantiate $c)) (instance (instantiate $c))"
        );
    }
    wat::parse_str(format!("(component {text})")).unwrap_or_else(|err| panic!("{err}"))
}

/// A component in a component in a component …
pub(crate) fn nested(levels: usize) -> Vec<u8> {
    // From the inside out, each time with a header and a length before it.
    let mut heads = Vec::new();
    let mut size = 0;
    for _ in 0..levels {
        let head = [COMPONENT, &[NESTED], &leb(size + COMPONENT.len())[..]].concat();
        size += head.len();
        heads.push(head);
    }
    heads.iter().rev().flatten().copied().chain(COMPONENT.iter().copied()).collect()
}

/// A component of types, each by its number.
fn types(count: usize, each: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    file(COMPONENT, &[section(COMPONENT_TYPES, list(count, each))])
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_tables_are_refused_before_they_are_had() {
    let far = r#"(module (memory 65536) (data (i32.const 0xfffffff0) "x"))"#;
    let more = |fields: &str| guest().more(fields).module();
    let bare = |fields: &str| wat::parse_str(format!("(module {fields})")).unwrap();
    let outside = "(table 1 funcref) (func $f) (elem (i32.const 7) $f)";
    let cases: Vec<Upload> = vec![
        ("65,536 pages", guest().pages(65_536).module(), "plugin-out-of-memory"),
        ("65,536 pages inside", with_core("(module (memory 65536))", 1), "plugin-out-of-memory"),
        ("data at the end of 4 GiB", with_core(far, 1), "plugin-out-of-memory"),
        ("65,537 pages", bare("(memory 65537)"), "invalid-wasm"),
        ("more pages at least than at most", bare("(memory 2 1)"), "invalid-wasm"),
        ("data outside", guest().bytes(262_140, b"12345").module(), "plugin-trap"),
        ("ten million functions", more("(table 10000000 funcref)"), "plugin-trap"),
        ("2^32 functions", more("(table 4294967295 funcref)"), "invalid-wasm|plugin-trap"),
        ("20,001 functions", more("(table 20001 funcref)"), "plugin-trap"),
        ("more functions at least than at most", bare("(table 2 1 funcref)"), "invalid-wasm"),
        ("functions outside", more(outside), "plugin-trap"),
        ("nine tables", more(&"(table 1 funcref)".repeat(9)), "cannot-compile"),
        ("101 tables", more(&"(table 1 funcref)".repeat(101)), "invalid-wasm"),
        ("five memories", with_core("(module (memory 1))", 4), "cannot-compile"),
        ("100 instances", with_core("(module)", 100), "cannot-compile"),
        ("1,001 instances", with_core("(module)", 1_001), "invalid-wasm"),
        (
            "400,000 globals",
            more(&"(global (mut i32) (i32.const 0))".repeat(400_000)),
            "cannot-compile",
        ),
        ("90,000 data", more(&"(data \"x\")".repeat(90_000)), "cannot-compile"),
        ("100,001 data", more(&"(data \"x\")".repeat(100_001)), "invalid-wasm"),
        (
            "100,000 elements",
            more(&format!("(table 1 funcref) {}", "(elem func)".repeat(100_000))),
            "accepted",
        ),
    ];
    check_uploads(&[], cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_and_components_are_nested_so_far_and_no_farther() {
    const BOOL: u8 = 0x7f;
    let list_of = |number: usize| match number {
        0 => vec![0x70, BOOL],
        _ => [vec![0x70], type_index(number - 1)].concat(),
    };
    let two_of = |number: usize| match number {
        0 => vec![0x6f, 2, BOOL, BOOL],
        _ => [vec![0x6f, 2], type_index(number - 1), type_index(number - 1)].concat(),
    };
    let variant = |cases: usize| {
        let cases = list(cases, |it| [name(format!("c{it}")), vec![0, 0]].concat());
        with_component(types(1, |_| [vec![0x71], cases.clone()].concat()))
    };
    let record = |fields: usize| {
        let fields = list(fields, |it| [name(format!("f{it}")), vec![BOOL]].concat());
        with_component(types(1, |_| [vec![0x72], fields.clone()].concat()))
    };
    let core = "(core module $m) (core instance (instantiate $m))";
    let endless = [COMPONENT, &[NESTED, 0xff, 0xff, 0xff, 0xff, 0x0f], COMPONENT].concat();
    let cases: Vec<Upload> = vec![
        ("lists of lists", with_component(types(90, list_of)), "accepted"),
        ("1,000 lists of lists", with_component(types(1_000, list_of)), "invalid-wasm"),
        ("100,000 lists of lists", with_component(types(100_000, list_of)), "invalid-wasm"),
        ("2^18 booleans", with_component(types(18, two_of)), "accepted"),
        ("2^30 booleans", with_component(types(30, two_of)), "invalid-wasm"),
        ("2^300 booleans", with_component(types(300, two_of)), "invalid-wasm"),
        ("a variant of 10,000 cases", variant(10_000), "accepted"),
        ("a variant of 100,000 cases", variant(100_000), "invalid-wasm"),
        ("a record of 10,000 fields", record(10_000), "accepted"),
        ("a record of 100,000 fields", record(100_000), "invalid-wasm"),
        ("an empty variant", variant(0), "invalid-wasm"),
        ("a type that is not there", with_component(types(1, |_| vec![0x70, 9])), "invalid-wasm"),
        ("100 components in each other", with_component(nested(100)), "accepted"),
        ("2^8 instances", with_component(doubled(8, core)), "cannot-compile"),
        ("2^14 instances", with_component(doubled(14, core)), "plugin-trap"),
        ("endless components", endless, "invalid-wasm"),
        ("a module as a component", with_component(MODULE.to_vec()), "invalid-wasm"),
        (
            "a plugin in a plugin",
            with(guest().component(), &[section(NESTED, guest().component())]),
            "accepted",
        ),
        ("modules without instances", with_core("(module (memory 65536))", 0), "cannot-compile"),
    ];
    check_uploads(&[], cases).await;
}
