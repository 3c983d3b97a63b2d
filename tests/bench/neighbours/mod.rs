//! What a tenant feels of its neighbours: `make neighbours`. A neighbour publishes at a steady pace, first
//! while all is quiet and then while somebody else attacks the router; what differs has bounds.
//!
//! Each attack has a router of its own: the release binary as a process, on a new store. The neighbour is in
//! this process, and the attacker in a child that is nicer to others (`nice`), because the fairness of the
//! router is to be measured and not that of the machine's scheduler between two tools.

mod attacker; // the child: what all attacks have in common
mod beat; // something that is done at a steady pace
mod burning; // plugins that take all that they may
mod compiling; // plugins that take the compiler long
mod figures; // what was measured, its bounds, and how it is shown
mod floods; // events: many, large, or for very many subscriptions
mod hanging; // endpoints that do not answer
mod line; // a connection of an attacker
mod measure; // one attack, from the start of its router to its end
mod names; // a name server, and names that it does not answer
mod neighbour; // who is measured
mod searches; // the log, looked through again and again
mod slow; // connections that send a byte now and then
mod unread; // answers that nobody reads
mod victim; // the router
mod watch; // its memory and its health, from outside

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use serde_json::json;

use super::report;
use attacker::Attacker;
use figures::Figures;
use names::NameServer;

pub(crate) use attacker::{ATTACK, run as attack_as_told};

/// What an attacker does, in its own process.
type Strike = fn(Attacker) -> Pin<Box<dyn Future<Output = Attacker>>>;

/// A way to harm others.
struct Attack {
    name: &'static str,
    what: &'static str,
    /// How long it goes on.
    seconds: u32,
    /// It is part of the short form.
    is_quick: bool,
    /// The neighbour uploads a plugin meanwhile.
    uploads: bool,
    /// The neighbour's endpoint has a name, which is looked up for each delivery.
    is_named: bool,
    /// How many deliveries the attacker's log has from before.
    log: usize,
    strike: Strike,
}

const fn attack(name: &'static str, what: &'static str, seconds: u32, strike: Strike) -> Attack {
    let (is_quick, uploads, is_named) = (false, false, false);
    Attack { name, what, seconds, is_quick, uploads, is_named, log: 0, strike }
}

impl Attack {
    /// The same, as a part of the short form.
    const fn quick(self) -> Attack {
        Attack { is_quick: true, ..self }
    }
}

/// How long an attack goes on in the short form, in seconds.
const QUICK_SECONDS: u32 = 4;

const ATTACKS: [Attack; 22] = [
    attack("flood-batches", "batches of 100 events over 32 connections", 10, |it| {
        Box::pin(floods::batches(it))
    })
    .quick(),
    attack("flood-singles", "single events over 64 connections", 10, |it| {
        Box::pin(floods::singles(it))
    }),
    attack("fan-out", "one event to 30,000 subscriptions, then ten at once", 20, |it| {
        Box::pin(floods::fan_out(it))
    })
    .quick(),
    attack("giant-attributes", "10 × 1 MiB with 80,000 attributes", 12, |it| {
        Box::pin(floods::attributes(it))
    })
    .quick(),
    attack("giant-depth", "10 × 900 KiB of JSON as deep as it may be", 10, |it| {
        Box::pin(floods::depth(it))
    }),
    attack("giant-objects", "10 × 900 KiB of JSON with 60,000 members", 10, |it| {
        Box::pin(floods::members(it))
    }),
    attack("giant-batches", "10 × batches of 1,000 events", 10, |it| {
        Box::pin(floods::thousands(it))
    }),
    Attack {
        uploads: true,
        ..attack("compile-bombs", "2 uploads that take the compiler all its time", 20, |it| {
            Box::pin(compiling::bombs(it))
        })
        .quick()
    },
    attack("trials", "`try` and `compare` with fresh plugins, in 4 loops", 15, |it| {
        Box::pin(compiling::trials(it))
    }),
    Attack {
        is_named: true,
        ..attack("dead-names", "1,200 endpoints whose names nobody answers", 15, |it| {
            Box::pin(names::dead(it))
        })
    },
    attack("unread-exports", "20 exports of 200 deliveries of 900 KB, unread", 10, |it| {
        Box::pin(unread::exports(it))
    })
    .quick(),
    attack("unread-compares", "20 comparisons of 200 events of 900 KB, unread", 10, |it| {
        Box::pin(unread::compares(it))
    }),
    attack("slow-heads", "a stranger's 500 heads, a byte a second each", 14, |it| {
        Box::pin(slow::heads(it))
    }),
    attack("slow-bodies", "a stranger's 500 bodies of 1 MB to a provider's route", 10, |it| {
        Box::pin(slow::bodies(it))
    })
    .quick(),
    attack("slow-publishes", "the attacker's 500 bodies of 1 MB, with its token", 10, |it| {
        Box::pin(slow::publishes(it))
    }),
    attack("hanging-endpoints", "150 deliveries of 1 MB out at endpoints that hang", 15, |it| {
        Box::pin(hanging::megabytes(it))
    }),
    attack("form-explosion", "an answer of 60 KB that becomes gigabytes as a form", 10, |it| {
        Box::pin(burning::forms(it))
    })
    .quick(),
    attack("form-lists", "an answer of lists of lists below 90 names, as a form", 10, |it| {
        Box::pin(burning::lists(it))
    }),
    attack("burning-runs", "transforms that take their time in 1,000 subscriptions", 12, |it| {
        Box::pin(burning::transforms(it))
    }),
    attack("burning-starts", "40 steps whose `configure` takes its time", 12, |it| {
        Box::pin(burning::configures(it))
    }),
    attack("burning-modules", "40 steps whose start function takes its time", 12, |it| {
        Box::pin(burning::starts(it))
    }),
    Attack {
        log: 100_000,
        ..attack("searches", "20 searches at a time of 100,000 deliveries", 12, |it| {
            Box::pin(searches::along_nothing(it))
        })
    },
];

/// What all attacks of a run have in common.
struct Stage {
    is_quick: bool,
    /// Compiled plugins. Those of this run alone, so that a fresh one is not known from the run before.
    plugins: tempfile::TempDir,
    names: NameServer,
}

/// Measures the attacks that are asked for, or all. Answers with the exit code: 0 when every bound was kept.
pub(crate) fn run(asked: &[String]) -> i32 {
    let is_quick = asked.iter().any(|it| it == "quick");
    let names: Vec<&String> = asked.iter().filter(|it| *it != "quick").collect();
    if let Some(unknown) = names.iter().find(|name| ATTACKS.iter().all(|it| it.name != **name)) {
        let all = ATTACKS.map(|it| it.name).join(", ");
        println!("there is no attack `{unknown}`; there are {all}");
        return 2;
    }
    let wanted = |it: &&Attack| match names.as_slice() {
        [] => it.is_quick || !is_quick,
        some => some.iter().any(|name| *name == it.name),
    };
    let plugins = tempfile::tempdir().unwrap();
    let stage = Stage { is_quick, plugins, names: NameServer::start() };
    let mut all = Vec::new();
    for attack in ATTACKS.iter().filter(wanted) {
        let figures = measured(&stage, attack);
        println!("{}", figures.line());
        all.push(figures);
    }
    println!("\n{}", figures::table(&all));
    save(&all);
    let broken: Vec<&Figures> = all.iter().filter(|it| !it.broken().is_empty()).collect();
    for it in &broken {
        println!("{}: {}", it.name, it.broken().join("; "));
    }
    if broken.is_empty() {
        println!("all {} attacks were kept within their bounds", all.len());
    }
    i32::from(!broken.is_empty())
}

/// What an attack has come to. An attack that nothing can be measured under is a row as well, and the others
/// go on: its router and its attacker have ended with what broke off.
fn measured(stage: &Stage, attack: &Attack) -> Figures {
    let measure = AssertUnwindSafe(|| measure::measure(stage, attack));
    let mut figures = catch_unwind(measure).unwrap_or_else(|_| {
        let mut figures = Figures::new(attack.name, attack.what, attack.seconds);
        figures.fail("the measurement broke off; what is printed above says why");
        figures
    });
    figures.is_untimed = stage.is_quick;
    figures
}

/// A run of all attacks, or of some, writes what it has measured.
fn save(all: &[Figures]) {
    let path = super::harness::root().join("target/neighbours.json");
    let attacks: Vec<_> = all.iter().map(Figures::json).collect();
    let report = json!({"machine": report::machine(), "attacks": attacks});
    fs::write(&path, format!("{report:#}\n")).unwrap();
    println!("written: {}", path.display());
}
