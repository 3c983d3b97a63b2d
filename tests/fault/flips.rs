//! Bits that a disk has turned, anywhere in any file: whatever is damaged is refused, repaired or left out, and
//! never served, and nothing panics.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use super::{Rig, Row, event};
use crate::harness::Endpoint;

/// How long a router on a damaged store is watched.
const WATCH: Duration = Duration::from_millis(700);
const EVENTS: usize = 20;
/// How many have arrived before: so many failures would shut the endpoint otherwise.
const BEFORE: usize = 40;

/// A store with events that wait, with subscriptions, plugins, tokens and identities, and the bodies that are to come.
struct Sample {
    folder: PathBuf,
    bodies: HashMap<String, Bytes>,
}

/// `killed`: much of it is in the write-ahead log only.
async fn sample(rig: &mut Rig, endpoint: &mut Endpoint, killed: bool) -> Sample {
    rig.start(&[]).await;
    let client = rig.client();
    let made = rig.subscribe(endpoint.url("/plain"), "t").await;
    let steps = json!([{"plugin": "minimize", "config": {"remove": ["/more"]}}]);
    let body = json!({"name": "small", "url": endpoint.url("/small"), "filters": [{"type": "t"}], "steps": steps});
    client.post("/v1/subscriptions", &body).await.expect(201);
    client.json(Method::PUT, "/v1/identities/p1", &json!({"email": "a@b.c"})).await.expect(200);
    for number in 0..BEFORE {
        client.publish(&event(&format!("b{number}"), "t", 37 * number)).await.expect(202);
    }
    client.await_deliveries("state=delivered", 2 * BEFORE).await;
    // All of these are tried once, which tells what their bodies are, and wait for their second attempt.
    endpoint.refuse(2 * EVENTS);
    for number in 0..EVENTS {
        client.publish(&event(&format!("e{number}"), "t", 37 * number)).await.expect(202);
    }
    client.await_deliveries("state=retrying", 2 * EVENTS).await;
    let receipts = endpoint.arrived();
    let of = |it: &crate::harness::Receipt| (it.header("webhook-id").to_owned(), it.body.clone());
    let bodies = receipts.iter().map(of).collect();
    assert!(made["id"].is_string());
    if killed {
        rig.kill()
    } else {
        rig.stop()
    }
    Sample { folder: rig.store(), bodies }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    files.retain(|it| it.is_file() && it.metadata().unwrap().len() > 0);
    files.sort();
    files
}

/// Turns one bit of one file.
fn flip(folder: &Path, rng: &mut StdRng) -> String {
    let files = files(folder);
    let path = &files[rng.random_range(0..files.len())];
    let at = rng.random_range(0..path.metadata().unwrap().len());
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << rng.random_range(0..8);
    file.write_all_at(&byte, at).unwrap();
    format!("{} at {at}", path.file_name().unwrap().display())
}

async fn check(fault: &str, flips: usize) {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut refused, mut arrived) = (0, 0);
    for killed in [false, true] {
        let mut rig = Rig::new();
        let mut endpoint = Endpoint::start().await;
        let sample = sample(&mut rig, &mut endpoint, killed).await;
        let whole = tempfile::tempdir().unwrap();
        for path in files(&sample.folder) {
            fs::copy(&path, whole.path().join(path.file_name().unwrap())).unwrap();
        }
        for number in 0..flips {
            for entry in fs::read_dir(&sample.folder).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
            for path in files(whole.path()) {
                fs::copy(&path, sample.folder.join(path.file_name().unwrap())).unwrap();
            }
            let flipped =
                format!("{} (flip {number} of seed {seed})", flip(&sample.folder, &mut rng));
            match rig.try_start(&[]).await {
                Err(status) => {
                    assert_eq!(status.code(), Some(1), "{flipped}: {}", rig.log());
                    refused += 1;
                }
                Ok(()) => {
                    arrived += watch(&mut rig, &mut endpoint, &sample, &flipped).await;
                    rig.kill();
                }
            }
            assert!(!rig.log().contains("panicked"), "{flipped}: {}", rig.log());
        }
    }
    let more = format!("{refused} of {} starts refused; no body was another, no panic", 2 * flips);
    let operations = arrived;
    Row { fault, operations, lost: 0, duplicated: 0, recovery: None, more }.print();
}

/// What arrives is what was published, and what is asked for is answered, somehow. Answers how much has arrived.
async fn watch(rig: &mut Rig, endpoint: &mut Endpoint, sample: &Sample, flipped: &str) -> usize {
    let until = Instant::now() + WATCH;
    let client = rig.client();
    for path in [
        "/v1/deliveries",
        "/v1/deliveries/export",
        "/v1/subscriptions",
        "/v1/identities/p1",
        "/v1/plugins",
    ] {
        let Ok(answer) = client.try_call(Method::GET, path, &[], "").await else {
            // What has begun as a 200 breaks off at what is damaged, and whoever reads it can tell.
            assert_eq!(path, "/v1/deliveries/export", "{flipped}");
            assert_eq!(client.get("/healthz").await.status, 200, "{flipped}");
            continue;
        };
        assert!(
            [200, 401, 404, 503].contains(&answer.status),
            "{flipped}: {path}: {}",
            answer.text
        );
    }
    let _ = client.publish(&event("more", "other", 1)).await;
    let mut count = 0;
    while Instant::now() < until {
        for receipt in endpoint.arrived() {
            count += 1;
            let id = receipt.header("webhook-id");
            if let Some(body) = sample.bodies.get(id) {
                assert_eq!(*body, receipt.body, "{flipped}: the body of {id} has changed");
            } else {
                // A delivery that nobody knew any more was made again.
                assert!(
                    sample.bodies.values().any(|it| *it == receipt.body),
                    "{flipped}: {receipt:?}"
                );
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_that_have_turned_are_not_served() {
    check("a bit turned in a file of the store", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes"]
async fn bits_that_have_turned_are_not_served_however_many() {
    check("a bit turned in a file of the store, 600 times", 300).await;
}
