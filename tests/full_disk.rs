//! A store that cannot write: a real file system, and it is full.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::process::{self, Process};
use crate::harness::{Client, Endpoint, PATIENCE};

/// A router whose store is on a file system of a few megabytes, which goes away with the process.
fn serve_on_small_disk(folder: &Path) -> Process {
    let disk = folder.join("disk");
    std::fs::create_dir(&disk).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=6m tmpfs {disk} &&
         {binary} token create --tenant acme --scopes admin --store sqlite:{disk}/store.sqlite \
            > {folder}/token 2>/dev/null &&
         exec {binary} serve --store sqlite:{disk}/store.sqlite",
        disk = disk.display(),
        folder = folder.display(),
        binary = process::binary(),
    );
    let mut command = process::command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    Process::start(command)
}

/// The folder as the process sees it.
fn inside(router: &Process, path: &Path) -> std::path::PathBuf {
    Path::new("/proc")
        .join(router.id().to_string())
        .join("root")
        .join(path.strip_prefix("/").unwrap())
}

fn event(number: usize) -> Value {
    json!({
        "specversion": "1.0", "id": number.to_string(), "source": "/full", "type": "t",
        "data": {"number": number, "more": "x".repeat(20_000)},
    })
}

async fn publish(client: &Client, number: usize) -> u16 {
    client.publish(&event(number)).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_to_the_publisher_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let router = serve_on_small_disk(folder.path());
    let token = std::fs::read_to_string(folder.path().join("token")).unwrap();
    let client = router.client(token.trim());
    let mut endpoint = Endpoint::start().await;
    let body = json!({"name": "x", "url": endpoint.url("/x"), "filters": [{"type": "*"}]});
    client.post("/v1/subscriptions", &body).await.expect(201);
    assert_eq!(publish(&client, 0).await, 202);

    // Something else fills the disk.
    let filler = inside(&router, &folder.path().join("disk/filler"));
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}

    let mut accepted = vec![0];
    let mut refused = Vec::new();
    for number in 1..400 {
        match publish(&client, number).await {
            202 => accepted.push(number),
            503 => refused.push(number),
            other => panic!("{other}"),
        }
        if refused.len() == 10 {
            break;
        }
    }
    assert_eq!(refused.len(), 10, "the disk is not full");
    let answer = client.publish(&event(1_000)).await;
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.expect(503)["code"], "unavailable");
    // Reading goes on.
    client.get("/v1/subscriptions").await.expect(200);
    assert_eq!(client.get("/healthz").await.status, 200);

    // There is room again, and the router recovers by itself.
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    for number in refused {
        let until = Instant::now() + PATIENCE;
        while publish(&client, number).await != 202 {
            assert!(Instant::now() < until, "it does not recover");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        accepted.push(number);
    }
    let mut arrived = Vec::new();
    let until = Instant::now() + PATIENCE;
    while arrived.len() < accepted.len() {
        assert!(Instant::now() < until, "{} of {} came", arrived.len(), accepted.len());
        for receipt in endpoint.arrived() {
            let number =
                usize::try_from(receipt.json()["data"]["number"].as_u64().unwrap()).unwrap();
            if !arrived.contains(&number) {
                arrived.push(number);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    arrived.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(arrived, accepted);
    client.await_deliveries("state=delivered", accepted.len()).await;
    assert!(router.terminate().success());
}
