//! What a router does on this machine, beside what the machine can do at all. `make bench` prints every row,
//! `make bench-quick` the ratios that matter. No time is a failure; more instructions than committed are, and so
//! is what a tenant may not feel of its neighbours (`make neighbours`).
//!
//! Publishers, router and receiver share the machine and its loopback. The router is the release binary, in
//! a process of its own, on a store of its own, durable as always.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

#[path = "../harness"]
#[allow(dead_code, reason = "the tests use all of it")]
mod harness {
    pub(crate) mod client; // calls of the API
    pub(crate) mod plugins; // a module as text
    pub(crate) mod process; // the binary

    pub(crate) use client::Client;

    pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

    pub(crate) fn root() -> &'static std::path::Path {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }
}

#[path = "../hostile/guests.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod guests; // plugins as text

mod accept; // events on disk, and what the store could take
mod charts; // pictures of the table
mod count; // what callgrind counts
mod end_to_end; // from publishers to the receiver, as fast as it goes
mod growth; // with many subscriptions, and a long log
mod hanging; // healthy endpoints beside those that hang
mod http1; // both ends of a connection
mod latency; // at parts of what it can take
mod load; // who publishes
mod matching; // which subscriptions want an event
mod neighbours; // what a tenant feels while others attack the router
mod plugins; // what their runs cost
mod receiver; // where deliveries go
mod recovery; // after a kill
mod report; // the table
mod router; // what is measured
mod workload; // what is counted

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use load::{Pace, Template, Times};
use receiver::{Came, Receiver};
use report::Report;
use router::Router;

/// How many publish at the same time.
const CONNECTIONS: usize = 64;

/// What measurements have in common.
struct Bench {
    receiver: Receiver,
    report: Report,
    rounds: usize,
    /// The number of the next event: none is published twice.
    next: usize,
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    if let [word, events] = asked.as_slice()
        && word == workload::WORK
    {
        return workload::run(events.parse().unwrap());
    }
    // Each request that hangs takes a socket.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    match asked.split_first() {
        Some((word, _)) if word == neighbours::ATTACK => return neighbours::attack_as_told(),
        Some((word, rest)) if word == "neighbours" => std::process::exit(neighbours::run(rest)),
        _ => {}
    }
    let is_quick = asked.iter().any(|it| it == "quick");
    let mut bench =
        Bench { receiver: Receiver::start(), report: Report::default(), rounds: 3, next: 0 };
    println!("{:#}", report::machine());
    if is_quick {
        return end_to_end::quick(&mut bench);
    }
    let wants = |name: &str| asked.is_empty() || asked.iter().any(|it| it == name);
    let saturation = wants("end-to-end").then(|| end_to_end::measure(&mut bench));
    if wants("latency") {
        latency::measure(&mut bench, saturation);
    }
    if wants("accept") {
        accept::measure(&mut bench);
    }
    if wants("hanging") {
        hanging::measure(&mut bench);
    }
    if wants("recovery") {
        recovery::measure(&mut bench);
    }
    if wants("growth") {
        growth::measure(&mut bench);
    }
    if wants("matching") {
        matching::measure(&mut bench);
    }
    if wants("plugins") {
        plugins::measure(&mut bench);
    }
    let is_within = !wants("count") || count::measure(&mut bench.report);
    bench.report.save(&harness::root().join("target/bench.json"));
    if asked.is_empty() {
        let docs = harness::root().join("docs");
        bench.report.write_into(&docs.join("performance.md"));
        charts::draw(&bench.report, &docs.join("charts"));
    }
    std::process::exit(i32::from(!is_within));
}

/// An event of 1 KiB, with the place for its id in front.
fn event() -> String {
    let head = r#"{"id":"","specversion":"1.0","source":"/shop","type":"order.paid","subject":"7","data":"#;
    let tail = r#"{"amount":120,"country":"AT","customer":{"name":"Ada","mail":"ada@example.com"},"lines":["#;
    let line =
        r#"{"sku":"A-1024","title":"A thing that somebody has bought","count":2,"price":59.95}"#;
    let lines = [line; 8].join(",");
    format!(r#"{head}{tail}{lines}],"internal_note":"nobody else is to read this"}}}}"#)
}

impl Bench {
    fn times(&mut self, events: usize) -> Arc<Times> {
        let first = self.next;
        self.next += events;
        Arc::new(Times::of(first, events))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.receiver.address)
    }

    /// Sends events straight to the receiver: what this machine can do at all.
    fn direct(&mut self, events: usize, pace: Pace) -> (Duration, Came) {
        let template = Template::new("/", "none", &event(), 1);
        self.send(self.receiver.address, &template, &Load::of("", events), pace)
    }

    /// Publishes events, and waits until each has come as often as it is to.
    fn deliver(&mut self, router: &Router, load: &Load<'_>, pace: Pace) -> (Duration, Came) {
        let template = Template::new("/v1/events", &router.token, load.event, load.batch);
        self.send(router.address, &template, load, pace)
    }

    fn send(
        &mut self,
        target: SocketAddr,
        template: &Template,
        load: &Load<'_>,
        pace: Pace,
    ) -> (Duration, Came) {
        let times = self.times(load.events);
        self.receiver.expect(&times, load.fan_out);
        let (begun, _) = load::publish(target, template, &times, CONNECTIONS, pace);
        let came = self.receiver.wait();
        (came.last.max(begun) - begun, came)
    }
}

/// What is published to be delivered.
#[derive(Clone, Copy)]
struct Load<'a> {
    event: &'a str,
    events: usize,
    batch: usize,
    fan_out: u16,
}

impl<'a> Load<'a> {
    /// Each in a request of its own, for one subscription.
    fn of(event: &'a str, events: usize) -> Load<'a> {
        Load { event, events, batch: 1, fan_out: 1 }
    }
}

fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
