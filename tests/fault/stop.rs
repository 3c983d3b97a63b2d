//! A router says when it cannot go on, and ends by its time whatever hangs.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::shim::Disk;
use super::{Rig, Row, event};
use crate::harness::{Endpoint, PATIENCE};

const SHUTDOWN_MS: &str = "2000";

/// A stage panics: the log names it, the process ends by itself and says that it has failed, and the next one goes
/// on where it was.
async fn check_stage(point: &str, says: &str) {
    let mut rig = Rig::started().await;
    let mut endpoint = Endpoint::start().await;
    rig.subscribe(endpoint.url("/a"), "*").await;
    rig.stop();
    let fault = format!("{point} 1 panics");
    rig.start(&[("HOOKYARD_FAULT", &fault), ("HOOKYARD_SHUTDOWN_MS", SHUTDOWN_MS)]).await;
    let start = Instant::now();
    let mut accepted = false;
    let status = loop {
        if let Some(status) = rig.router().ended() {
            break status;
        }
        assert!(start.elapsed() < PATIENCE, "it lives");
        let answer = rig.client().try_publish(&event("one", "t", 1)).await;
        accepted |= answer.is_ok_and(|it| it.status == 202);
        sleep(Duration::from_millis(20)).await;
    };
    let took = start.elapsed();
    assert_eq!(status.code(), Some(1), "{point}");
    assert!(rig.log().contains(says), "{point}: {}", rig.log());
    rig.router = None;
    rig.start(&[]).await;
    if !accepted {
        rig.client().publish(&event("one", "t", 1)).await.expect(202);
    }
    assert_eq!(endpoint.next().await.json()["id"], "one");
    rig.await_delivered(1).await;
    rig.stop();
    let fault = format!("a panic at \"{point}\"");
    let more = format!("ended by itself after {:.1} s with code 1", took.as_secs_f64());
    let fault = fault.as_str();
    Row { fault, operations: 1, lost: 0, duplicated: 0, recovery: Some(took), more }.print();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_panics_ends_the_process() {
    check_stage("taking", "the stage `dispatcher` of the router has ended").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_panics_again_and_again_ends_the_process() {
    check_stage("inserted", "the store's writer has ended").await;
}

/// Tells the router to stop while something hangs; it has to end by its time.
async fn check_stop(fault: &str, rig: &mut Rig) {
    let start = Instant::now();
    let router = rig.router.take().unwrap();
    tokio::task::spawn_blocking(move || router.terminate()).await.unwrap();
    let took = start.elapsed();
    assert!(took < Duration::from_millis(3_000), "{fault}: it took {took:?}");
    let more = format!("{:.2} s of 2 s", took.as_secs_f64());
    Row { fault, operations: 0, lost: 0, duplicated: 0, recovery: None, more }.print();
}

async fn started_with_little_patience() -> Rig {
    let mut rig = Rig::new();
    rig.start(&[("HOOKYARD_SHUTDOWN_MS", SHUTDOWN_MS)]).await;
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_while_the_disk_hangs() {
    let mut rig = started_with_little_patience().await;
    rig.shim.slow_down(600_000);
    let client = rig.client();
    let publishing = tokio::spawn(async move { client.try_publish(&event("one", "t", 1)).await });
    // Whoever asks is told as well.
    let until = Instant::now() + PATIENCE;
    loop {
        let ready = rig.client().get("/readyz").await;
        if ready.status == 503 {
            assert!(ready.text.contains("a commit has taken"), "{}", ready.text);
            break;
        }
        assert!(Instant::now() < until, "it is ready while the disk hangs");
        sleep(Duration::from_millis(50)).await;
    }
    check_stop("stop while a sync hangs", &mut rig).await;
    let answer = publishing.await.unwrap();
    assert!(answer.map_or(true, |it| it.status != 202), "it is on no disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_while_half_a_request_is_there() {
    let mut rig = started_with_little_patience().await;
    let address = rig.client().url("");
    let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\
         content-type: application/cloudevents+json\r\n\r\n{{",
        rig.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    check_stop("stop while half a request is there", &mut rig).await;
}

async fn stop_while_endpoints_hang(count: usize) {
    let mut rig = started_with_little_patience().await;
    let hangs = Endpoint::raw(|stream| async move {
        let _stream = stream;
        std::future::pending().await
    })
    .await;
    for _ in 0..count {
        rig.subscribe(hangs.url("/"), "*").await;
    }
    rig.client().publish(&event("one", "t", 1)).await.expect(202);
    rig.client().await_deliveries("state=pending", count).await;
    check_stop(&format!("stop while {count} endpoints hang"), &mut rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_while_endpoints_hang() {
    stop_while_endpoints_hang(200).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a while"]
async fn a_stop_ends_while_2_000_endpoints_hang() {
    stop_while_endpoints_hang(2_000).await;
}

/// A disk that comes and goes: not ready as long, and told once.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_comes_and_goes_is_told_once() {
    let mut rig = Rig::started().await;
    let mut endpoint = Endpoint::start().await;
    rig.subscribe(endpoint.url("/a"), "*").await;
    let mut accepted = 0;
    for round in 0..8 {
        rig.shim.disk(if round % 2 == 0 { Disk::IsFull } else { Disk::Writes });
        let until = Instant::now() + Duration::from_millis(250);
        while Instant::now() < until {
            let answer = rig.client().publish(&event(&format!("{round} {accepted}"), "t", 1)).await;
            accepted += usize::from(answer.status == 202);
        }
        let ready = rig.client().get("/readyz").await;
        assert_eq!(ready.status, 503, "in round {round}");
        assert!(ready.text.contains("full"), "{}", ready.text);
    }
    let start = Instant::now();
    while rig.client().get("/readyz").await.status != 200 {
        assert!(start.elapsed() < PATIENCE, "it can write");
        sleep(Duration::from_millis(50)).await;
    }
    let recovery = Some(start.elapsed());
    rig.await_delivered(accepted).await;
    for _ in 0..accepted {
        endpoint.next().await;
    }
    let count = |words: &str| rig.log().matches(words).count();
    assert_eq!(count("the store cannot write"), 1, "{}", rig.log());
    rig.stop();
    let fault = "disk full, four times a second";
    let more = "told once".to_owned();
    Row { fault, operations: accepted, lost: 0, duplicated: 0, recovery, more }.print();
}
