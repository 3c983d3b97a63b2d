//! The store's files under the router's feet.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tokio::time::{Instant, sleep};

use super::{Ledger, Rig, Row, at_each, event};
use crate::harness::process::{Process, output};
use crate::harness::{Endpoint, PATIENCE};

/// Something happens to a file while the router runs: from then on nothing is answered with 202, and `/readyz` says
/// why. What was accepted before is there again when `mend` has been done.
async fn check(fault: &str, happens: fn(&Path), mend: Option<fn(&Path)>) {
    let mut rig = Rig::started().await;
    let mut endpoint = Endpoint::start().await;
    rig.subscribe(endpoint.url("/a"), "*").await;
    rig.client().publish(&event("first", "t", 1)).await.expect(202);
    rig.await_delivered(1).await;
    // Each of these has been tried once, and waits in the store.
    endpoint.refuse(20);
    let events: Vec<_> = (0..20).map(|number| format!("e{number}")).collect();
    for id in &events {
        rig.client().publish(&event(id, "t", 1)).await.expect(202);
    }
    happens(&rig.store());
    let client = rig.client();
    for number in 0..5 {
        let refused = client.publish(&event(&format!("late {number}"), "t", 1)).await;
        assert_eq!(refused.status, 503, "{fault}: {}", refused.text);
    }
    let ready = client.get("/readyz").await;
    assert_eq!(ready.status, 503, "{fault}");
    assert!(ready.text.contains("x.sqlite"), "{fault}: {}", ready.text);
    assert_eq!(client.get("/healthz").await.status, 200);
    rig.kill();
    let Some(mend) = mend else {
        let more = "503 at once; nothing is left".to_owned();
        let row = Row { fault, operations: 5, lost: 0, duplicated: 0, recovery: None, more };
        return row.print();
    };
    mend(&rig.store());
    let start = Instant::now();
    rig.start(&[]).await;
    let mut ledger = Ledger::default();
    let wanted = at_each(&["/a"], &events);
    let lost = ledger.lost(&mut endpoint, &wanted).await;
    let recovery = Some(start.elapsed());
    rig.await_settled(&[("delivered", 21)]).await;
    rig.stop();
    let (operations, duplicated) = (wanted.len(), ledger.duplicated());
    let more = "503 at once, and nothing lost".to_owned();
    Row { fault, operations, lost, duplicated, recovery, more }.print();
}

fn copy(folder: &Path, from: &str, to: &str) {
    fs::copy(folder.join(from), folder.join(to)).unwrap();
}

fn rename(folder: &Path, from: &str, to: &str) {
    fs::rename(folder.join(from), folder.join(to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_deleted_takes_no_event() {
    check("database deleted", |it| fs::remove_file(it.join("x.sqlite")).unwrap(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_moved_away_takes_no_event_until_it_is_back() {
    check(
        "database moved",
        |it| rename(it, "x.sqlite", "away"),
        Some(|it| rename(it, "away", "x.sqlite")),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_replaced_takes_no_event() {
    check(
        "database replaced by its copy",
        |it| {
            copy(it, "x.sqlite", "other");
            rename(it, "x.sqlite", "away");
            rename(it, "other", "x.sqlite");
        },
        Some(|it| rename(it, "away", "x.sqlite")),
    )
    .await;
}

/// What was in the log is saved into the database: it has lost its name, and not its content.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_deleted_loses_nothing() {
    let remove = |it: &Path| fs::remove_file(it.join("x.sqlite-wal")).unwrap();
    check("write-ahead log deleted", remove, Some(|_| ())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_replaced_loses_nothing() {
    let replace = |it: &Path| {
        fs::write(it.join("other"), "another log").unwrap();
        rename(it, "other", "x.sqlite-wal");
    };
    check(
        "write-ahead log replaced",
        replace,
        Some(|it| fs::remove_file(it.join("x.sqlite-wal")).unwrap()),
    )
    .await;
}

/// Whatever name a second router has for the file, it is the same lock.
#[tokio::test(flavor = "multi_thread")]
async fn one_file_is_for_one_router_by_whatever_name() {
    let rig = Rig::started().await;
    let folder = tempfile::tempdir().unwrap();
    let store = rig.store().join("x.sqlite");
    let (linked, hard) = (folder.path().join("linked.sqlite"), rig.store().join("hard.sqlite"));
    symlink(&store, &linked).unwrap();
    fs::hard_link(&store, &hard).unwrap();
    // There is nothing that could be deleted to get past the lock.
    for entry in fs::read_dir(rig.store()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("lock") {
            fs::remove_file(path).unwrap();
        }
    }
    for path in [&store, &linked, &hard] {
        let store = format!("sqlite:{}", path.display());
        let said = tokio::task::spawn_blocking(move || output(&["serve", "--store", &store]));
        let (status, said) = said.await.unwrap();
        assert!(!status.success(), "{}", path.display());
        assert!(said.contains("another router uses"), "{}: {said}", path.display());
    }
    let fault = "a second router by another name";
    let more = "path, symbolic link and hard link are refused".to_owned();
    Row { fault, operations: 3, lost: 0, duplicated: 0, recovery: None, more }.print();
}

/// What stands in the place of files that we would make is not written to.
#[tokio::test(flavor = "multi_thread")]
async fn links_in_the_place_of_our_files_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let precious = folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let mut refused = 0;
    for ending in ["", ".working", ".lock"] {
        let store = tempfile::tempdir().unwrap();
        let path = store.path().join("x.sqlite");
        let place = store.path().join(format!("x.sqlite{ending}"));
        let target =
            if ending.is_empty() { folder.path().join("nowhere") } else { precious.clone() };
        symlink(&target, &place).unwrap();
        let started = tokio::task::spawn_blocking(move || {
            Process::try_start(crate::harness::process::serve_command(&path))
        });
        match started.await.unwrap() {
            Ok(router) => router.kill(),
            Err(status) => {
                assert!(!status.success());
                refused += 1;
            }
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious", "x.sqlite{ending}");
    }
    assert_eq!(refused, 2, "a link to nowhere and one in the place of the marks");
    assert!(!folder.path().join("nowhere").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_the_store_open_to_others_is_warned() {
    use std::os::unix::fs::PermissionsExt;
    let mut rig = Rig::started().await;
    rig.stop();
    fs::set_permissions(rig.store().join("x.sqlite"), fs::Permissions::from_mode(0o644)).unwrap();
    rig.start(&[]).await;
    let until = Instant::now() + PATIENCE;
    while !rig.log().contains("chmod 600") {
        assert!(Instant::now() < until, "{}", rig.log());
        sleep(std::time::Duration::from_millis(10)).await;
    }
    rig.stop();
}
