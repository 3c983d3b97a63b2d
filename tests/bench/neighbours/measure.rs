//! One attack, from the start of its router to its end.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::attacker::{Bound, Handle, Order, Outcome};
use super::beat::Beat;
use super::figures::{Figures, Spread};
use super::names::KNOWN;
use super::neighbour::{CONNECTIONS, Neighbour, PER_SECOND, Told, read_log};
use super::victim::Victim;
use super::watch::{Health, Memory};
use super::{Attack, QUICK_SECONDS, Stage};
use crate::router;

/// How long the neighbour publishes before anything is measured, and how long while all is quiet.
const WARM_UP: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_secs(4);
const QUIET_IN_SHORT: Duration = Duration::from_secs(2);
/// How long an attack may take to be prepared, and the router to rest then.
const PREPARED_WITHIN: Duration = Duration::from_secs(90);
const REST: Duration = Duration::from_secs(8);
/// How long after its end an attacker may still tell what it has come to.
const ATTACK_GRACE: Duration = Duration::from_secs(5);
/// How long what has not come by the end of the attack may still take.
const SETTLE: Duration = Duration::from_secs(15);
/// How long the neighbour's upload may take, and how long it is waited for.
const UPLOAD_SECONDS_MAX: f64 = 5.0;
const UPLOAD_PATIENCE: Duration = Duration::from_secs(25);
/// What comes later than this has come late, in milliseconds.
const LATE_MS: f64 = 250.0;
/// How often somebody asks for the health of the router, and over how many connections at a time at most.
const HEALTH_EVERY: Duration = Duration::from_millis(50);
const HEALTH_THREADS: usize = 4;

/// Where the neighbour's endpoint is when it has no name of our own.
const ADDRESS: &str = "127.0.0.1";
const OF_SYSTEM: &str = "localhost";

/// What was seen while the attack went on.
struct Seen {
    outcome: Option<Outcome>,
    upload: Option<(Option<u16>, Duration)>,
}

/// The times of a measurement.
#[derive(Clone, Copy)]
struct Schedule {
    start: Instant,
    /// From when on it is quiet, from when on the attack goes on, and when it ends.
    quiet: Instant,
    attack: Instant,
    end: Instant,
}

pub(super) fn measure(stage: &Stage, attack: &Attack) -> Figures {
    let seconds = if stage.is_quick { attack.seconds.min(QUICK_SECONDS) } else { attack.seconds };
    let mut figures = Figures::new(attack.name, attack.what, seconds);
    let begun = Instant::now();
    let mut victim = Victim::start(stage, attack.log);
    let quiet = if stage.is_quick { QUIET_IN_SHORT } else { QUIET };
    let long = WARM_UP + quiet + Duration::from_secs(seconds.into());
    let neighbour =
        Neighbour::new(&victim, PER_SECOND as usize * long.as_secs() as usize, attack.is_named);
    let host = if attack.is_named { named(&victim, &neighbour, &mut figures) } else { ADDRESS };
    let order = Order {
        attack: attack.name.to_owned(),
        address: victim.address,
        token: victim.attacker.clone(),
        seconds,
        is_quick: stage.is_quick,
    };
    let handle = Handle::start(&order);
    if !handle.is_ready(PREPARED_WITHIN) {
        figures.fail("the attack could not be prepared");
        if let Some(how) = victim.death() {
            figures.fail(format!("the router has ended: {how}"));
        }
        figures.took = begun.elapsed();
        return figures;
    }
    neighbour.subscribe(&victim, host);
    router::rest(victim.pid(), REST);
    figures.prepared = begun.elapsed();
    let start = Instant::now();
    let attacked = start + WARM_UP + quiet;
    let schedule = Schedule { start, quiet: start + WARM_UP, attack: attacked, end: start + long };
    let asked_before = stage.names.unanswered();
    watch(attack, schedule, &victim, &neighbour, handle, &mut figures);
    if attack.is_named {
        let asked = stage.names.unanswered() - asked_before;
        figures.note(format!("{asked} questions for dead names"));
    }
    judge(victim, &neighbour, &mut figures);
    figures.took = begun.elapsed();
    figures
}

/// The name of the neighbour's endpoint: of the name server that the router was told of, or else of the system.
fn named(victim: &Victim, neighbour: &Neighbour, figures: &mut Figures) -> &'static str {
    if neighbour.is_found_by(victim, KNOWN) {
        return KNOWN;
    }
    figures
        .note(format!("the router does not ask the name server, the neighbour is at {OF_SYSTEM}"));
    OF_SYSTEM
}

/// The neighbour publishes, the attacker attacks, and both are watched.
fn watch(
    attack: &Attack,
    schedule: Schedule,
    victim: &Victim,
    neighbour: &Neighbour,
    mut handle: Handle,
    figures: &mut Figures,
) {
    let every = Duration::from_secs(1) / PER_SECOND;
    let long = schedule.end - schedule.start;
    let beats = |every: Duration| (long.as_micros() / every.as_micros()) as usize;
    let beat = Beat::new(schedule.start, every, beats(every));
    let pulse = Beat::new(schedule.start, HEALTH_EVERY, beats(HEALTH_EVERY));
    let (memory, health) = (Memory::of(victim.pid()), Health::default());
    let seen = thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| neighbour.publish(&beat));
        }
        for _ in 0..HEALTH_THREADS {
            scope.spawn(|| health.watch(victim.address, &pulse));
        }
        scope.spawn(|| memory.watch(schedule.attack, &beat));
        thread::sleep(schedule.attack.saturating_duration_since(Instant::now()));
        handle.begin();
        let upload = attack.uploads.then(|| {
            thread::sleep(Duration::from_millis(500));
            neighbour.upload(victim, UPLOAD_PATIENCE)
        });
        let outcome = outcome(&handle, schedule.end + ATTACK_GRACE, &memory);
        // What hangs on it ends with it.
        drop(handle);
        let until = schedule.end.max(Instant::now()) + SETTLE;
        while !neighbour.have_all_come() && !memory.is_dead() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        beat.end();
        pulse.end();
        Seen { outcome, upload }
    });
    let told = neighbour.told(&beat);
    note_events(schedule, &told, figures);
    note_router(schedule, &memory, &health, figures);
    match seen.outcome {
        Some(outcome) => figures.add(outcome),
        None if memory.is_dead() => figures.note("the attacker was ended with the router"),
        None => figures.note("the attacker had to be ended"),
    }
    if let Some((status, took)) = seen.upload {
        let seconds = took.as_secs_f64();
        let status = status.map_or("no answer".to_owned(), |it| it.to_string());
        figures.note(format!("the neighbour's upload: {status} after {seconds:.1} s"));
        let value = if status == "201" { seconds } else { f64::INFINITY };
        let what = "seconds for the neighbour's upload".to_owned();
        figures.bounds.push(Bound { what, value, most: UPLOAD_SECONDS_MAX });
    }
}

/// What the attacker tells; it is not waited for when there is nobody any more whom it could attack.
fn outcome(handle: &Handle, until: Instant, memory: &Memory) -> Option<Outcome> {
    loop {
        if let Some(outcome) = handle.outcome(Duration::from_millis(50)) {
            return Some(outcome);
        }
        if memory.is_dead() || Instant::now() > until {
            return None;
        }
    }
}

/// What has become of the neighbour's events.
fn note_events(schedule: Schedule, told: &[Told], figures: &mut Figures) {
    let given_up = Instant::now();
    // What has not happened has taken at least until now.
    let spread = |from: Instant, to: Instant, of: fn(&Told) -> Option<f64>| {
        let to = to.min(given_up);
        let some = told.iter().filter(|it| (from..to).contains(&it.due));
        let waited = |it: &Told| (given_up - it.due).as_secs_f64() * 1e3;
        Spread::of(some.map(|it| of(it).unwrap_or_else(|| waited(it))).collect())
    };
    let (answered, came) = (|it: &Told| it.answered_ms, |it: &Told| it.came_ms);
    figures.answered.quiet = spread(schedule.quiet, schedule.attack, answered);
    figures.answered.attacked = spread(schedule.attack, schedule.end, answered);
    figures.came.quiet = spread(schedule.quiet, schedule.attack, came);
    figures.came.attacked = spread(schedule.attack, schedule.end, came);
    let is_late = |it: &&Told| it.came_ms.is_some_and(|ms| ms > LATE_MS);
    // What was due before has nothing to do with the attack.
    figures.late = told.iter().filter(|it| it.due >= schedule.attack).filter(is_late).count();
    figures.missing = told.iter().filter(|it| it.came_ms.is_none()).count();
    figures.events = told.len();
}

fn note_router(schedule: Schedule, memory: &Memory, health: &Health, figures: &mut Figures) {
    let took = health.took.lock().unwrap();
    let spread = |from: Instant, to: Instant| {
        let some = took.iter().filter(|(due, _)| (from..to).contains(due));
        Spread::of(some.map(|(_, took)| took.as_secs_f64() * 1e3).collect())
    };
    figures.health.quiet = spread(schedule.quiet, schedule.attack);
    figures.health.attacked = spread(schedule.attack, schedule.end);
    figures.unhealthy = health.failed.load(Ordering::Relaxed);
    figures.mib_before = memory.before.load(Ordering::Relaxed);
    figures.mib = memory.most.load(Ordering::Relaxed);
    figures.mib_ever = memory.ever.load(Ordering::Relaxed);
    if memory.is_too_large.load(Ordering::Relaxed) {
        figures.fail("the router became so large that it was killed");
    }
}

/// What is asked of the router when all is over, and its end.
fn judge(mut victim: Victim, neighbour: &Neighbour, figures: &mut Figures) {
    figures.twice = neighbour.twice();
    figures.refused = neighbour.refused.lock().unwrap().clone();
    if let Some(how) = victim.death() {
        figures.fail(format!("the router has ended: {how}"));
        return;
    }
    match read_log(&victim) {
        Some(log) => {
            figures.blamed = Some(log.blamed);
            if let Some(example) = log.example {
                figures.note(format!("blamed of {}: {example}", log.deliveries));
            }
        }
        None => figures.fail("the neighbour's log could not be read"),
    }
    victim.kill();
}
