//! Answers that cannot be read, or cannot be carried out.

use super::guests::{Guest, TEXT, VERDICT, guest};
use super::runs::{Run, check_runs};

/// The cases of a verdict, and of new data.
const REPLACE: u32 = 1;
const SPLIT: u32 = 2;
const DROP: u32 = 3;
const FAIL: u32 = 4;
const SAME: u32 = 0;
const EDITS: u32 = 1;
const BYTES: u32 = 2;
const AS_TEXT: u32 = 3;
/// Where large things are.
const LARGE: u32 = 0x1_0000;

fn says(words: &[u32]) -> Guest {
    guest().words(VERDICT, words)
}

/// Cannot handle the event, for a reason with this code.
fn fails(code: &[u8]) -> Guest {
    says(&[FAIL, TEXT, u32::try_from(code.len()).unwrap()]).bytes(TEXT, code)
}

/// With new data of this kind.
fn replaces(kind: u32, bytes: &[u8]) -> Guest {
    let length = u32::try_from(bytes.len()).unwrap();
    says(&[REPLACE, 0, 0, 0, 0, kind, LARGE, length]).bytes(LARGE, bytes)
}

/// Sets one attribute.
fn sets(name: &str, value: &str) -> Guest {
    let length = |it: &str| u32::try_from(it.len()).unwrap();
    says(&[REPLACE, TEXT, 1, 0, 0, SAME])
        .words(TEXT, &[TEXT + 16, length(name), TEXT + 1_024, length(value)])
        .bytes(TEXT + 16, name.as_bytes())
        .bytes(TEXT + 1_024, value.as_bytes())
}

/// Takes one attribute away.
fn unsets(name: &str) -> Guest {
    says(&[REPLACE, 0, 0, TEXT, 1, SAME])
        .words(TEXT, &[TEXT + 8, u32::try_from(name.len()).unwrap()])
        .bytes(TEXT + 8, name.as_bytes())
}

/// Makes one edit, `count` times.
fn edits(pointer: &str, value: Option<&str>, count: u32) -> Guest {
    let length = |it: &str| u32::try_from(it.len()).unwrap();
    let value = value.map_or([0, 0, 0], |it| [1, TEXT + 1_024, length(it)]);
    let one = [TEXT, length(pointer), value[0], value[1], value[2]];
    let all = one.repeat(usize::try_from(count).unwrap());
    says(&[REPLACE, 0, 0, 0, 0, EDITS, LARGE, count])
        .words(LARGE, &all)
        .bytes(TEXT, pointer.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_cannot_be_read_is_a_trap() {
    let cases: Vec<Run> = vec![
        ("at the edge", guest().answers_at(262_136), "plugin-trap"),
        ("outside", guest().answers_at(262_144), "plugin-trap"),
        ("at the end of everything", guest().answers_at(u32::MAX - 3), "plugin-trap"),
        ("askew", guest().answers_at(VERDICT + 1), "plugin-trap"),
        ("a sixth case", says(&[5]), "plugin-trap"),
        ("a 256th case", says(&[255]), "plugin-trap"),
        ("a case of more than a byte", says(&[0x100]), "delivered"),
        ("neither a reason nor none", says(&[DROP, 2]), "plugin-trap"),
        ("data of a fifth kind", says(&[REPLACE, 0, 0, 0, 0, 4]), "plugin-trap"),
        ("a reason outside", says(&[FAIL, u32::MAX, 1]), "plugin-trap"),
        ("a reason of 4 GB", says(&[FAIL, 0, u32::MAX]), "plugin-trap"),
        ("a reason that is no text", fails(b"\xff\xff"), "plugin-trap"),
        ("a reason of half a letter", fails(b"a\xc3"), "plugin-trap"),
        ("a reason of surrogates", fails(b"\xed\xa0\x80"), "plugin-trap"),
        ("a reason in too many bytes", fails(b"\xc0\x80"), "plugin-trap"),
        ("a long reason", says(&[FAIL, LARGE, 1 << 20]).pages(40), "plugin-output-too-large"),
        ("2^31 attributes", says(&[REPLACE, LARGE, 1 << 31]), "plugin-trap"),
        ("attributes that overflow", says(&[REPLACE, LARGE, 1 << 28]), "plugin-trap"),
        ("attributes askew", says(&[REPLACE, LARGE + 1, 1]), "plugin-trap"),
        ("no attributes, outside", says(&[REPLACE, u32::MAX - 3, 0]), "plugin-trap"),
        ("attributes that are the verdict", says(&[REPLACE, VERDICT, 1]), "plugin-bad-verdict"),
        ("names outside", says(&[REPLACE, TEXT, 1]).words(TEXT, &[u32::MAX, 9]), "plugin-trap"),
        ("2^31 names to take away", says(&[REPLACE, 0, 0, LARGE, 1 << 31]), "plugin-trap"),
        ("2^32 bytes", says(&[REPLACE, 0, 0, 0, 0, BYTES, 0, u32::MAX]), "plugin-trap"),
        ("a text that is none", replaces(AS_TEXT, b"\"\xff\""), "plugin-trap"),
        ("2^31 edits", says(&[REPLACE, 0, 0, 0, 0, EDITS, LARGE, 1 << 31]), "plugin-trap"),
        ("edits that overflow", says(&[REPLACE, 0, 0, 0, 0, EDITS, 0, 0x0ccc_cccd]), "plugin-trap"),
        ("10,000,000 edits", says(&[REPLACE, 0, 0, 0, 0, EDITS, LARGE, 10_000_000]), "plugin-trap"),
        (
            "100,000 edits",
            says(&[REPLACE, 0, 0, 0, 0, EDITS, LARGE, 100_000]).pages(40),
            "plugin-output-too-large",
        ),
        ("2^31 parts", says(&[SPLIT, LARGE, 1 << 31]), "plugin-trap"),
        ("parts that overflow", says(&[SPLIT, 0, 0x0924_924a]), "plugin-trap"),
        ("80,000 parts", says(&[SPLIT, LARGE, 80_000]).pages(40), "plugin-output-too-large"),
        ("parts over each other", says(&[SPLIT, VERDICT, 9]), "plugin-trap"),
        ("64 parts of one kind", says(&[SPLIT, LARGE, 64]), "delivered"),
    ];
    check_runs(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_cannot_be_carried_out_is_a_fault() {
    const BAD: &str = "plugin-bad-verdict";
    let nested = format!("{}{}", "[".repeat(129), "]".repeat(129));
    let mut cases: Vec<Run> = vec![
        ("a split into nothing", says(&[SPLIT, LARGE, 0]), BAD),
        ("a split into 65", says(&[SPLIT, LARGE, 65]), BAD),
        ("a pointer that is none", edits("a", Some("1"), 1), BAD),
        ("a pointer into nothing", edits("/a/7/b/c", Some("1"), 1), BAD),
        ("a pointer into a text", edits("/text/0", Some("1"), 1), BAD),
        ("an index that is none", edits("/a/9", Some("1"), 1), BAD),
        ("an index too large to be one", edits("/a/99999999999999999999999", Some("1"), 1), BAD),
        ("everything taken away", edits("", None, 1), BAD),
        ("nothing taken away", edits("/x/y/z", None, 1), "delivered"),
        ("the same taken away twice", edits("/a", None, 2), "delivered"),
        ("a value that is none", edits("/a", Some("{"), 1).bytes(TEXT + 1_024, b"{"), BAD),
        ("700 edits of much", edits("/x", None, 700), "plugin-search-too-large"),
        ("deep data", replaces(AS_TEXT, nested.as_bytes()), BAD),
        ("data of two members of one name", replaces(BYTES, br#"{"a":1,"a":2}"#), BAD),
        // Data of an event may have one, too.
        ("half a letter", replaces(AS_TEXT, br#""\ud800""#), "delivered"),
        ("a byte order mark", replaces(AS_TEXT, "\u{feff}1".as_bytes()), "delivered"),
        ("bytes that are no text", replaces(BYTES, b"\"\xff\""), BAD),
        ("more than all numbers", replaces(AS_TEXT, b"1e999"), BAD),
    ];
    for text in ["", " ", "{", "[1,]", "nul", "NaN", "01", "'a'", "\"\n\"", "1 2", "{\"a\"}"] {
        cases.push(("data that are no JSON", replaces(AS_TEXT, text.as_bytes()), BAD));
    }
    for (name, value) in [
        ("", "x"),
        ("Bad Name", "x"),
        ("a_b", "x"),
        ("ü", "x"),
        ("specversion", "0.3"),
        ("data", "x"),
        ("data_base64", "eA=="),
        ("id", ""),
        ("type", ""),
        ("subject", ""),
        ("source", "a b"),
        ("source", "%zz"),
        ("time", "yesterday"),
        ("time", "9999-99-99T99:99:99Z"),
        ("dataschema", "/relative"),
        ("datacontenttype", "json\r\nx: y"),
        ("x", "a\r\nset-cookie: b"),
        ("x", "\0"),
        ("x", "\u{ffff}"),
    ] {
        cases.push(("a bad attribute", sets(name, value), BAD));
    }
    cases.push(("a code of its own", fails(b"no-1"), "no-1"));
    for code in ["", "plugin-trap", "Two Words", "a_b", "a\nb", &"x".repeat(65)] {
        cases.push(("a bad code", fails(code.as_bytes()), BAD));
    }
    for name in ["id", "source", "type", "specversion"] {
        cases.push(("a required attribute taken away", unsets(name), BAD));
    }
    cases.push(("an unknown attribute taken away", unsets("Bad Name"), "delivered"));
    cases.push(("an attribute of 900 letters", sets("x", &"ü".repeat(450)), "delivered"));
    cases.push(("other data of another kind", sets("datacontenttype", "text/plain"), "delivered"));
    check_runs(cases).await;
}
