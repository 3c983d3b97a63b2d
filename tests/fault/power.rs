//! A loss of power: of what was not synced, the disk has anything.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use super::{Ledger, Load, Rig, Row, at_each};
use crate::harness::Endpoint;

async fn check(fault: &str, losses: usize) {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut rig = Rig::new();
    rig.shim.remember_synced(&rig.store());
    rig.start(&[]).await;
    let mut endpoint = Endpoint::start().await;
    for path in ["/a", "/b"] {
        rig.subscribe(endpoint.url(path), "*").await;
    }
    let (mut ledger, mut operations, mut lost) = (Ledger::default(), 0, 0);
    let mut recovery = Duration::ZERO;
    for number in 0..losses {
        endpoint.refuse(2);
        let load = Load::start(4, rig.client(), &number.to_string());
        sleep(Duration::from_millis(rng.random_range(20..400))).await;
        rig.kill();
        rig.shim.lose_power(&rig.store(), &mut rng);
        let start = Instant::now();
        rig.start(&[]).await;
        load.go_on_with(rig.client());
        let wanted = at_each(&["/a", "/b"], &load.stop().await.events);
        lost += ledger.lost(&mut endpoint, &wanted).await;
        recovery = recovery.max(start.elapsed());
        operations += wanted.len();
    }
    rig.await_delivered(operations).await;
    ledger.take(&mut endpoint);
    let duplicated = ledger.duplicated();
    rig.stop();
    let more = format!("{losses} losses");
    Row { fault, operations, lost, duplicated, recovery: Some(recovery), more }.print();
}

#[tokio::test(flavor = "multi_thread")]
async fn power_is_lost() {
    check("power loss", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half a minute"]
async fn power_is_lost_often() {
    check("power loss, often", 40).await;
}
