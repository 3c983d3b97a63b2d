//! Random operations on the real binary, and a model in memory of what has to come of them: nothing is lost,
//! nothing is sent that nobody wanted, nothing changes, and nothing crosses tenants.
//!
//! `MODEL_SEED=… cargo test --workspace --test tests -- model` makes the same choices as the run that printed
//! this seed. When things happen is another matter.

mod act;
mod check;
mod operation;
mod world;

use std::collections::VecDeque;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;

use act::Run;
use operation::{Operation, choose};

/// After each round, everything that is owed has to be settled.
const ROUNDS: usize = 5;
const OPERATIONS: usize = 2_000;
/// How many operations are told of when something is wrong.
const TOLD: usize = 40;

/// What was done last, for whoever has to find out why something went wrong.
struct Trail {
    seed: u64,
    done: usize,
    last: VecDeque<String>,
}

impl Trail {
    fn add(&mut self, operation: &Operation) {
        self.done += 1;
        if self.last.len() == TOLD {
            self.last.pop_front();
        }
        self.last.push_back(format!("{:>6} {operation:?}", self.done));
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last: Vec<_> = self.last.iter().map(String::as_str).collect();
            println!("MODEL_SEED={} fails after\n{}", self.seed, last.join("\n"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_comes_to_what_the_model_says() {
    let seed = std::env::var("MODEL_SEED").ok().map(|it| it.parse().unwrap());
    let seed = seed.unwrap_or_else(rand::random);
    println!("MODEL_SEED={seed}");
    let mut trail = Trail { seed, done: 0, last: VecDeque::new() };
    let mut rng = StdRng::seed_from_u64(seed);
    let start = Instant::now();
    let mut run = Run::start().await;
    let mut settled = check::Settled::default();
    for _ in 0..ROUNDS {
        for _ in 0..OPERATIONS {
            let operation = choose(&mut rng, &run.world);
            trail.add(&operation);
            run.perform(operation).await;
            check::hear(&mut run);
        }
        settled += check::settle(&mut run).await;
    }
    check::last(&run).await;
    println!(
        "{} operations, {} crashes, {} events, {settled:?}, {} s",
        trail.done,
        run.world.crashes,
        run.world.events.len(),
        start.elapsed().as_secs()
    );
    assert!(run.stop().success());
}
