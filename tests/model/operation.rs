//! What may happen, and the choice of what happens next: by the seed and the model alone, so that a seed
//! always makes the same choices.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::world::{Pipeline, Temper, World};
use crate::harness::Mood;

const TYPES: [&str; 4] = ["order.paid", "order.created", "user.created", "user.address.changed"];
const PATTERNS: [&str; 6] = ["*", "order.*", "order.paid", "*.created", "user.*", "nothing.ever"];
const REGIONS: [&str; 2] = ["eu", "us"];
/// So many subscriptions a tenant has at least, and at most.
const SUBSCRIPTIONS_MIN: usize = 2;
const SUBSCRIPTIONS_MAX: usize = 5;
const BATCH_MAX: usize = 6;
/// An event is repeated while it is one of the newest of its tenant, and a delivery replayed as well.
const RECENT: usize = 500;
/// How many versions of `gate` a tenant makes: each is compiled.
const VERSIONS_MAX: usize = 8;

#[derive(Debug)]
pub(super) enum Operation {
    /// In one request, which the router may not outlive.
    Publish {
        tenant: usize,
        drafts: Vec<Draft>,
        twice: bool,
        killed: bool,
    },
    PublishAgain {
        tenant: usize,
        numbers: Vec<usize>,
    },
    Subscribe {
        tenant: usize,
        wishes: Vec<Wish>,
        pipeline: Pipeline,
        catch_up: bool,
        retries: usize,
    },
    Replace {
        subscription: usize,
        wishes: Vec<Wish>,
        catch_up: bool,
        active: bool,
    },
    SetSteps {
        subscription: usize,
        pipeline: Pipeline,
    },
    SetPace {
        subscription: usize,
        retries: usize,
        in_flight_max: u32,
    },
    Pause {
        subscription: usize,
    },
    Resume {
        subscription: usize,
    },
    Delete {
        subscription: usize,
    },
    Rotate {
        subscription: usize,
    },
    SetMood {
        subscription: usize,
        mood: Mood,
    },
    Upload {
        tenant: usize,
        temper: Temper,
    },
    MakeCurrent {
        tenant: usize,
        version: usize,
    },
    ReplayOne {
        subscription: usize,
        event: usize,
    },
    Replay {
        subscription: usize,
        states: Option<&'static str>,
        slow: bool,
    },
    CancelReplay {
        replay: usize,
    },
    /// One tenant reaches for what another one has.
    Trespass {
        subscription: usize,
        event: usize,
    },
    Crash,
}

/// What is told apart about an event.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) event_type: &'static str,
    pub(super) region: &'static str,
    pub(super) dots: u64,
    pub(super) more: usize,
    pub(super) items: usize,
}

/// A filter of a subscription.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pattern: &'static str,
    region: Option<&'static str>,
}

impl Wish {
    pub(super) fn to_json(self) -> Value {
        match self.region {
            Some(region) => json!({"type": self.pattern, "attributes": {"region": [region]}}),
            None => json!({"type": self.pattern}),
        }
    }

    pub(super) fn matches(self, event: &Value) -> bool {
        let segments: Vec<&str> = event["type"].as_str().unwrap().split('.').collect();
        let pattern: Vec<&str> = self.pattern.split('.').collect();
        let same = |(wanted, is): (&&str, &&str)| *wanted == "*" || wanted == is;
        // A `*` at the end is as many segments as there are.
        let fits = segments.len() == pattern.len()
            || segments.len() > pattern.len() && pattern.last() == Some(&"*");
        fits && pattern.iter().zip(&segments).all(same)
            && self.region.is_none_or(|region| event["region"] == region)
    }
}

fn one<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

fn draft(rng: &mut StdRng) -> Draft {
    Draft {
        event_type: one(rng, &TYPES),
        region: one(rng, &REGIONS),
        dots: rng.random_range(1..=6),
        more: rng.random_range(0..300),
        items: rng.random_range(1..=3),
    }
}

fn wishes(rng: &mut StdRng) -> Vec<Wish> {
    (0..rng.random_range(1..=2))
        .map(|_| {
            let region = if rng.random_ratio(1, 4) { Some(one(rng, &REGIONS)) } else { None };
            Wish { pattern: one(rng, &PATTERNS), region }
        })
        .collect()
}

fn pipeline(rng: &mut StdRng) -> Pipeline {
    let dots = rng.random_range(2..=5);
    let all = [
        Pipeline::Plain,
        Pipeline::Plain,
        Pipeline::Minimized,
        Pipeline::AtLeast(dots),
        Pipeline::Split,
        Pipeline::Gate,
    ];
    one(rng, &all)
}

fn mood(rng: &mut StdRng) -> Mood {
    let failures =
        [Mood::Fails(500), Mood::Fails(503), Mood::Fails(404), Mood::Hangs, Mood::Resets];
    if rng.random_ratio(3, 5) { Mood::Takes } else { one(rng, &failures) }
}

/// What happens next.
pub(super) fn choose(rng: &mut StdRng, world: &World) -> Operation {
    let tenant = rng.random_range(0..world.tenants.len());
    let live = world.live(Some(tenant));
    if live.len() < SUBSCRIPTIONS_MIN {
        return subscribe(rng, tenant);
    }
    let subscription = one(rng, &live);
    match rng.random_range(0..1_000) {
        0..420 => publish(rng, tenant, 1),
        420..600 => publish(rng, tenant, BATCH_MAX),
        600..660 => publish_again(rng, world, tenant),
        660..690 if live.len() < SUBSCRIPTIONS_MAX => subscribe(rng, tenant),
        690..730 => Operation::Replace {
            subscription,
            wishes: wishes(rng),
            catch_up: rng.random(),
            active: rng.random_ratio(3, 4),
        },
        730..760 => Operation::SetSteps { subscription, pipeline: pipeline(rng) },
        760..775 => Operation::SetPace {
            subscription,
            retries: rng.random_range(0..4),
            in_flight_max: rng.random_range(1..=40),
        },
        775..795 => Operation::Pause { subscription },
        795..835 => Operation::Resume { subscription },
        835..850 if live.len() > SUBSCRIPTIONS_MIN => Operation::Delete { subscription },
        850..865 => Operation::Rotate { subscription },
        865..910 => Operation::SetMood { subscription, mood: mood(rng) },
        910..914 => change_gate(rng, world, tenant),
        914..916 => Operation::Crash,
        916..948 => replay_one(rng, world, tenant, subscription),
        948..965 => {
            let states = [None, None, Some("delivered"), Some("filtered"), Some("cancelled")];
            Operation::Replay {
                subscription,
                states: one(rng, &states),
                slow: rng.random_ratio(1, 3),
            }
        }
        965..975 if !world.replays.is_empty() => {
            Operation::CancelReplay { replay: rng.random_range(0..world.replays.len()) }
        }
        975..985 if !world.events.is_empty() => {
            let all = world.subscriptions.len();
            let event = rng.random_range(0..world.events.len());
            Operation::Trespass { subscription: rng.random_range(0..all), event }
        }
        _ => publish(rng, tenant, 1),
    }
}

fn publish(rng: &mut StdRng, tenant: usize, count_max: usize) -> Operation {
    let count = rng.random_range(1..=count_max);
    let twice = count > 1 && rng.random_ratio(1, 10);
    let killed = rng.random_ratio(1, 500);
    let drafts = (0..count).map(|_| draft(rng)).collect();
    Operation::Publish { tenant, drafts, twice, killed }
}

fn publish_again(rng: &mut StdRng, world: &World, tenant: usize) -> Operation {
    let published = world.tenants[tenant].published;
    if published == 0 {
        return publish(rng, tenant, 1);
    }
    let oldest = published.saturating_sub(RECENT);
    let count = rng.random_range(1..=3);
    let numbers = (0..count).map(|_| rng.random_range(oldest..published)).collect();
    Operation::PublishAgain { tenant, numbers }
}

fn subscribe(rng: &mut StdRng, tenant: usize) -> Operation {
    Operation::Subscribe {
        tenant,
        wishes: wishes(rng),
        pipeline: pipeline(rng),
        catch_up: rng.random(),
        retries: rng.random_range(0..4),
    }
}

fn change_gate(rng: &mut StdRng, world: &World, tenant: usize) -> Operation {
    let versions = world.tenants[tenant].versions.len();
    if versions < VERSIONS_MAX && rng.random_ratio(1, 2) {
        let tempers = [Temper::Accepts, Temper::Rejects, Temper::Traps];
        return Operation::Upload { tenant, temper: one(rng, &tempers) };
    }
    Operation::MakeCurrent { tenant, version: rng.random_range(0..versions) }
}

/// Of this subscription where it is owed something of late, and of any other one of the tenant otherwise.
fn replay_one(rng: &mut StdRng, world: &World, tenant: usize, subscription: usize) -> Operation {
    let recent = &world.pairs[world.pairs.len().saturating_sub(RECENT)..];
    let own: Vec<_> = recent
        .iter()
        .filter(|(of, _)| *of == subscription || world.subscriptions[*of].deleted)
        .filter(|(of, _)| world.subscriptions[*of].tenant == tenant)
        .copied()
        .collect();
    if own.is_empty() {
        return publish(rng, tenant, 1);
    }
    let (subscription, event) = one(rng, &own);
    Operation::ReplayOne { subscription, event }
}
