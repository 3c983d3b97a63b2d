//! What an event costs in instructions, allocations, SQL and syncs: counted by callgrind over the workload,
//! the same on a busy machine as on a quiet one.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::report::{Report, Rounds, Row, number};
use super::workload::WORK;

/// The workload is run with so many events, and with so many more: what differs is theirs.
const EVENTS: usize = 100;
const MORE: usize = 400;
/// How much more than the committed figure is a matter for a review.
const RISE_MAX: f64 = 1.10;
/// What is counted: a name, and the functions whose calls it is the sum of.
const CALLS: [(&str, &[&str]); 4] = [
    ("allocations", &["malloc", "calloc", "realloc"]),
    ("steps of SQL statements", &["sqlite3_step"]),
    ("syncs", &["fdatasync", "fsync"]),
    ("writes", &["pwrite64", "pwrite", "write"]),
];

/// Answers whether the instructions are within what was committed.
pub(crate) fn measure(report: &mut Report) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (few, many) = (run(folder.path(), EVENTS), run(folder.path(), EVENTS + MORE));
    let each = |name: &str| {
        let of = |counts: &HashMap<String, u64>| counts.get(name).copied().unwrap_or(0) as f64;
        (of(&many) - of(&few)) / MORE as f64
    };
    let mut row = |name: &str, unit, count: f64| {
        report.add(Row {
            group: "Counted, an event by itself: read, stored, matched, encoded, signed, recorded",
            name: name.to_owned(),
            unit,
            values: Rounds(vec![count]),
            limit: None,
            target: "",
        });
    };
    let instructions = each("");
    row("instructions", "per event", instructions);
    for (name, functions) in CALLS {
        row(name, "per event", functions.iter().map(|it| each(it)).sum());
    }
    is_within(instructions)
}

fn is_within(instructions: f64) -> bool {
    let path = super::harness::root().join("tests/bench/instructions.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{instructions:.0}\n")).unwrap();
    }
    let committed: f64 = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
    let is_within = instructions <= committed * RISE_MAX;
    if !is_within {
        println!(
            "\nan event takes {} instructions, and took {} when {} was written: find out why, or \
             accept it with `UPDATE=1 make bench-count`",
            number(instructions),
            number(committed),
            path.display()
        );
    }
    is_within
}

/// Instructions, by the empty name, and calls by function.
fn run(folder: &Path, events: usize) -> HashMap<String, u64> {
    let out = folder.join(format!("{events}.callgrind"));
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .args([WORK, &events.to_string()])
        .output()
        .expect("valgrind is installed; `make setup` says how");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut called = "";
    for line in fs::read_to_string(&out).unwrap().lines() {
        if let Some(name) = line.strip_prefix("cfn=") {
            // Recursion has a number behind an apostrophe, a symbol its version behind an at sign.
            called = name.split(['\'', '@']).next().unwrap();
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let calls: u64 = calls.split(' ').next().unwrap().parse().unwrap();
            if let Some(count) = counts.get_mut(called) {
                *count += calls;
            } else {
                counts.insert(called.to_owned(), calls);
            }
        } else if let Some(total) = line.strip_prefix("totals: ") {
            counts.insert(String::new(), total.parse().unwrap());
        }
    }
    counts
}
