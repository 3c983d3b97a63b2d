//! How a process starts and ends.

use crate::harness::process::{self, Process};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_router_does_not_touch_the_store_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.sqlite");
    let router = Process::serve(&store);
    let store = format!("sqlite:{}", store.display());
    let (status, said) = process::output(&["serve", "--store", &store]);
    assert!(!status.success());
    assert!(said.contains("another router uses"), "{said}");
    assert!(router.terminate().success());
}

#[test]
fn what_cannot_start_says_why() {
    for (arguments, words) in [
        (&["serve", "--store", "mysql://x"][..], "is not `sqlite:PATH`"),
        (&["serve", "--store", "sqlite:/nowhere/at/all"], "/nowhere/at/all"),
        (&["serve", "--config", "/nowhere.toml"], "cannot read the configuration file"),
        (&["serve", "--listen", "here"], "--listen"),
        (&["serve", "--log", "a=b=c"], "the log filter"),
        (&["dance"], "unrecognized subcommand"),
    ] {
        let (status, said) = process::output(arguments);
        assert!(!status.success(), "{arguments:?}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let (status, said) = process::output(&["--help"]);
    assert!(status.success());
    for words in ["serve", "token", "demo", "Run the router"] {
        assert!(said.contains(words), "{said}");
    }
}
