//! Whether what can be seen from outside is what the model says.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use hookyard_nouns::digest::Digest;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::act::Run;
use super::world::{Arrival, Outcome, Temper, World};
use crate::harness::{Heard, Receipt};

/// How long it may take until nothing is owed any more.
const SETTLE: Duration = Duration::from_secs(60);
/// Of how many deliveries of a round each attempt is looked at.
const SAMPLES: usize = 30;

/// How many deliveries ended in each state.
#[derive(Default)]
pub(super) struct Settled(BTreeMap<String, usize>);

impl fmt::Debug for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(|(state, count)| format!("{count} {state}")).collect();
        f.write_str(&all.join(", "))
    }
}

impl AddAssign for Settled {
    fn add_assign(&mut self, other: Settled) {
        for (state, count) in other.0 {
            *self.0.entry(state).or_default() += count;
        }
    }
}

/// Takes in what has arrived: only what is owed, in a body that it may have, signed, and always the same.
pub(super) fn hear(run: &mut Run) {
    for Heard { receipt, taken } in run.endpoint.heard() {
        let subscription: usize = receipt.path[1..].parse().unwrap();
        let (event, part) = place(&run.world, subscription, &receipt);
        let world = &mut run.world;
        let it = &world.subscriptions[subscription];
        let newest = &it.secrets[world.owed[&(subscription, event)].secret];
        assert!(receipt.is_signed_with(newest), "the signature of {receipt:?} is wrong");
        assert!(receipt.is_signed_with(&it.secrets[0]), "the old secret does not sign {receipt:?}");

        let id = receipt.header("webhook-id").to_owned();
        let known = world.webhook_ids.entry((subscription, event, part));
        let known = known.or_insert_with(|| id.clone());
        assert_eq!(*known, id, "{receipt:?} had another id before");
        let body_digest = Digest::of(&receipt.body).to_string();
        let arrival = world.arrived.entry(id);
        let arrival =
            arrival.or_insert_with(|| Arrival { body_digest: body_digest.clone(), taken });
        assert_eq!(arrival.body_digest, body_digest, "{receipt:?} had another body before");
        arrival.taken |= taken;
    }
}

/// The event and the part that a delivery is, if there is anything that it may be.
fn place(world: &World, subscription: usize, receipt: &Receipt) -> (usize, usize) {
    let body = receipt.json();
    let id = body["id"].as_str().unwrap();
    let number: usize = id.split('.').next().unwrap().parse().unwrap();
    let tenant = world.subscriptions[subscription].tenant;
    let event = world.by_number.get(&(tenant, number));
    let event = *event.unwrap_or_else(|| panic!("nobody published {receipt:?}"));
    let outcomes = world.outcomes(subscription, event);
    let part = outcomes.iter().find_map(|it| match it {
        Outcome::Bodies(bodies) => bodies.iter().position(|it| *it == body),
        Outcome::Filtered | Outcome::Failed => None,
    });
    let part = part.unwrap_or_else(|| panic!("nobody wanted {receipt:?}: {outcomes:?}"));
    (event, part)
}

/// Mends everything, waits until nothing is left to do, and looks at what became of this round's events.
pub(super) async fn settle(run: &mut Run) -> Settled {
    run.endpoint.heal();
    for tenant in 0..run.world.tenants.len() {
        let versions = &run.world.tenants[tenant].versions;
        let good = versions.iter().position(|it| it.1 == Temper::Accepts).unwrap();
        run.make_current(tenant, good).await;
    }
    for subscription in run.world.live(None) {
        run.resume(subscription).await;
    }
    end_replays(run).await;
    let mut settled = Settled::default();
    for tenant in 0..run.world.tenants.len() {
        let until = Instant::now() + SETTLE;
        loop {
            hear(run);
            let rows = match unsettled(run, tenant).await {
                Some(waits) => Err(waits),
                None => all_owed(run, tenant).await,
            };
            match rows {
                Ok(rows) => {
                    hear(run);
                    settled += look_at(run, tenant, &rows).await;
                    break;
                }
                Err(why) => assert!(Instant::now() < until, "{why}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    run.world.round = run.world.events.len();
    settled
}

/// Replays that take their time are ended, the others end by themselves.
async fn end_replays(run: &mut Run) {
    for (tenant, client) in run.clients.iter().enumerate() {
        let until = Instant::now() + SETTLE;
        loop {
            let listed = client.get("/v1/replays?limit=500").await.expect(200);
            let listed = listed["replays"].as_array().unwrap();
            let known = |id: &Value| {
                run.world
                    .replays
                    .iter()
                    .any(|(of, it)| *of == tenant && it.as_deref() == id.as_str())
            };
            assert!(listed.iter().all(|it| known(&it["id"])), "somebody else's replay");
            let running: Vec<_> = listed.iter().filter(|it| it["state"] == "running").collect();
            for it in running.iter().filter(|it| !it["per_minute"].is_null()) {
                let path = format!("/v1/replays/{}/cancel", it["id"].as_str().unwrap());
                client.post(&path, &json!({})).await.expect(200);
            }
            if running.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "{running:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A delivery of which more is to come, in words.
async fn unsettled(run: &Run, tenant: usize) -> Option<String> {
    // In the order in which a delivery comes from one to the next: it may do so between two looks.
    for state in ["held", "pending", "retrying"] {
        let path = format!("/v1/deliveries?limit=1&state={state}");
        let page = run.clients[tenant].get(&path).await.expect(200);
        if let Some(it) = page["deliveries"].as_array().unwrap().first() {
            let at = run.world.by_subscription(it);
            return Some(format!("subscription {at} waits for {it}"));
        }
    }
    None
}

/// The deliveries of a tenant, by subscription and event.
type Rows = HashMap<(usize, usize), Vec<Value>>;

/// This round's deliveries, if everything that is owed is among them.
async fn all_owed(run: &Run, tenant: usize) -> Result<Rows, String> {
    let world = &run.world;
    let mut rows = Rows::new();
    let mut before = String::new();
    loop {
        let path = format!("/v1/deliveries?limit=500{before}");
        let page = run.clients[tenant].get(&path).await.expect(200);
        let mut is_older = true;
        for row in page["deliveries"].as_array().unwrap() {
            let event = world.by_id.get(row["event"].as_str().unwrap());
            let event = *event.unwrap_or_else(|| panic!("nobody published {row}"));
            // It was settled with its own round. What was dropped may be recorded late, after a crash.
            if event < world.round {
                continue;
            }
            is_older = false;
            let subscription = world.by_subscription(row);
            let it = &world.subscriptions[subscription];
            assert_eq!((it.tenant, world.events[event].tenant), (tenant, tenant), "{row}");
            rows.entry((subscription, event)).or_default().push(row.clone());
        }
        match page["next"].as_str() {
            Some(next) if !is_older => before = format!("&before={next}"),
            Some(_) | None => break,
        }
    }
    for (subscription, event) in world.pairs.iter().rev().take_while(|it| it.1 >= world.round) {
        let missing = world.events[*event].tenant == tenant
            && !rows.contains_key(&(*subscription, *event))
            && world.outcomes(*subscription, *event)[0] != Outcome::Filtered;
        if missing {
            let event = &world.events[*event];
            return Err(format!(
                "subscription {subscription} has nothing of {}: {}",
                event.id, event.body
            ));
        }
    }
    Ok(rows)
}

/// Every delivery is one that is owed, and its end is one that it may come to.
async fn look_at(run: &Run, tenant: usize, rows: &Rows) -> Settled {
    let mut settled = Settled::default();
    let mut sampled = 0;
    let mut pairs: Vec<_> = rows.keys().copied().collect();
    pairs.sort_unstable();
    for pair in pairs {
        let parts = &rows[&pair];
        let (subscription, event) = pair;
        let outcomes = run.world.outcomes(subscription, event);
        assert!(!outcomes.is_empty(), "nobody wanted {parts:?}");
        for row in parts {
            check(run, subscription, row, &outcomes, parts.len());
            *settled.0.entry(row["state"].as_str().unwrap().to_owned()).or_default() += 1;
            if row["attempts"].as_u64().unwrap() > 1 && sampled < SAMPLES {
                sampled += 1;
                look_at_attempts(run, tenant, row).await;
            }
        }
    }
    settled
}

fn check(run: &Run, subscription: usize, row: &Value, outcomes: &[Outcome], parts: usize) {
    let it = &run.world.subscriptions[subscription];
    let arrival = run.world.arrived.get(row["id"].as_str().unwrap());
    if let Some(arrival) = arrival {
        assert_eq!(row["body_digest"], arrival.body_digest, "{row}");
    }
    let code = row["reason"]["code"].as_str().unwrap_or_default();
    let has_body = outcomes.iter().any(|it| match it {
        Outcome::Bodies(bodies) => bodies.len() == parts,
        Outcome::Filtered | Outcome::Failed => false,
    });
    let fits = match row["state"].as_str().unwrap() {
        "delivered" => has_body && arrival.is_some_and(|it| it.taken) && code.is_empty(),
        "dead" => has_body && code == "exhausted",
        "filtered" => outcomes.contains(&Outcome::Filtered) && !code.is_empty(),
        "failed" => outcomes.contains(&Outcome::Failed) && code == "plugin-trap",
        "cancelled" => it.deleted,
        _ => false,
    };
    let deleted = if it.deleted { ", deleted," } else { "" };
    assert!(fits, "subscription {subscription}{deleted} has {row}, one of {parts}: {outcomes:?}");
}

/// Every attempt is told of, in the order in which they were made.
async fn look_at_attempts(run: &Run, tenant: usize, row: &Value) {
    let path = format!("/v1/deliveries/{}", row["id"].as_str().unwrap());
    let it = run.clients[tenant].get(&path).await.expect(200);
    let attempts = it["attempts"].as_array().unwrap();
    let numbers: Vec<_> = attempts.iter().map(|it| it["number"].as_u64().unwrap()).collect();
    let all: Vec<_> = (1..=row["attempts"].as_u64().unwrap()).collect();
    assert_eq!(numbers, all, "{it}");
    let explained = |it: &Value| it["status"] == 200 || it["error"]["code"].is_string();
    assert!(attempts.iter().all(explained), "{it}");
    assert_eq!(run.clients[1 - tenant].get(&path).await.status, 404);
}

/// What is there when everything is over.
pub(super) async fn last(run: &Run) {
    for (tenant, client) in run.clients.iter().enumerate() {
        let listed = client.get("/v1/subscriptions?limit=500").await.expect(200);
        let listed = listed["subscriptions"].as_array().unwrap();
        let ids: Vec<_> = listed.iter().map(|it| it["id"].as_str().unwrap()).collect();
        let live = run.world.live(Some(tenant));
        let live: Vec<_> = live.iter().map(|at| &run.world.subscriptions[*at]).collect();
        let mut known: Vec<_> = live.iter().map(|it| it.id.as_str()).collect();
        known.sort_unstable();
        assert_eq!(ids, known);
        for it in live {
            let shown = client.get(&format!("/v1/subscriptions/{}", it.id)).await.expect(200);
            // What is routed again after a crash may be counted again.
            assert!(shown["filtered"].as_u64().unwrap() >= it.filtered, "{shown}: {}", it.filtered);
        }
    }
}
