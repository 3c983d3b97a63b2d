//! How many instances there can be at the same time, and what one takes while it is there.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hookyard::wasm::{Addressee, Outcome};
use hookyard_nouns::rendering::Step;
use rustix::process::{Pid, setpriority_process};

use super::{open, try_open, work};
use crate::harness::plugins::filter_module;
use crate::report::{Report, Rounds, Row};

/// The instances of a pool, beside which a router has four more for uploads.
const POOL: usize = 250;
/// The runs that are begun: more than find a place, which is how we know that all places were taken at
/// the same time.
const RUNS: usize = 280;
/// So much CPU time that all of them have begun before the first one ends.
const CPU_MS: u64 = 100;
/// Time enough to begin.
const BEGINS_WITHIN: Duration = Duration::from_micros(500);
/// A run needs half a MiB of the stack.
const STACK_BYTES: usize = 1 << 20;
const POOLS: [u32; 6] = [500, 1_000, 2_000, 4_000, 8_000, 16_000];

pub(crate) fn measure(report: &mut Report, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let possible = POOLS.iter().rev().find(|it| try_open(folder.path(), **it, 5).is_ok());
    let kib = Rounds((0..rounds).map(|_| hold()).collect());
    let mut add = |name: String, unit, values| {
        report.add(Row {
            group: "Plugins: instances at the same time",
            name,
            unit,
            values,
            limit: None,
            target: "",
        });
    };
    let possible = possible.expect("there is no pool at all");
    let possible = Rounds(vec![f64::from(*possible)]);
    add("the largest pool that can be had".to_owned(), "instances", possible);
    add(format!("{POOL} of them at work, each with its thread"), "KiB", kib);
}

/// Starts runs that write to all their memory and then go on until their time is over. Answers what each
/// takes, in KiB: 127 of them are the plugin's own.
fn hold() -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open(folder.path(), POOL as u32, CPU_MS);
    let busy = "(memory.fill (i32.const 1024) (i32.const 1) (i32.const 130048)) \
                (loop $on (br $on)) (unreachable)";
    let plugin = runtime.upload(&None, &filter_module(busy, ""), false).unwrap().digest;
    let step = Step::new(plugin, "{}");
    let event = work::event(1);
    let addressee = Addressee { subscription: "s", format: "cloudevents", locale: None };
    let (tell, told) = mpsc::channel();
    let run = || {
        tell.send(thread_id()).unwrap();
        runtime.run(&event, std::slice::from_ref(&step), &addressee).map(|it| it.outcome)
    };
    let (mut peak, mut refused) = (0, 0);
    let idle = thread::scope(|scope| {
        let idle = resident_bytes();
        let begin = |_| {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            let run = thread.spawn_scoped(scope, run).unwrap();
            let id = told.recv().unwrap();
            thread::sleep(BEGINS_WITHIN);
            // It makes way for those that have not begun, unless it found no place and is gone.
            let _ = setpriority_process(Some(id), 19);
            run
        };
        let runs: Vec<_> = (0..RUNS).map(begin).collect();
        while !runs.iter().all(thread::ScopedJoinHandle::is_finished) {
            peak = peak.max(resident_bytes());
            thread::sleep(Duration::from_millis(20));
        }
        for run in runs {
            match run.join().unwrap() {
                Ok(Outcome::Fail(reason)) => assert_eq!(reason.code, "plugin-timeout"),
                Ok(outcome) => panic!("it does not end by itself: {outcome:?}"),
                Err(_) => refused += 1,
            }
        }
        idle
    });
    assert!(refused > 0, "all had a place, but not at once");
    (peak.saturating_sub(idle) / (RUNS - refused)) as f64 / 1_024.0
}

/// As the kernel numbers threads.
fn thread_id() -> Pid {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    Pid::from_raw(link.file_name().unwrap().to_str().unwrap().parse().unwrap()).unwrap()
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}
