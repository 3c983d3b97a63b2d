//! Rows that a disk has damaged: each is named and costs itself, and nothing else.

use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::harness::process::output;
use crate::harness::yard::event;
use crate::harness::{Endpoint, Yard};

/// Does something to the store's tables behind the router's back, and answers how many rows it has hit.
async fn damage(yard: &Yard, sql: &str) -> usize {
    let (path, sql) = (yard.folder().join("store.sqlite"), sql.to_owned());
    let hit = spawn_blocking(move || {
        let connection = Connection::open(path).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        connection.pragma_update(None, "ignore_check_constraints", true).unwrap();
        connection.execute(&sql, ()).unwrap()
    });
    hit.await.unwrap()
}

/// One text that a query finds in the store.
async fn ask(yard: &Yard, sql: &'static str) -> String {
    let path = yard.folder().join("store.sqlite");
    let asked = spawn_blocking(move || {
        Connection::open(path).unwrap().query_row(sql, (), |row| row.get(0)).unwrap()
    });
    asked.await.unwrap()
}

/// What `hookyard store check` says.
async fn check(yard: &Yard) -> String {
    let store = format!("sqlite:{}", yard.folder().join("store.sqlite").display());
    let (status, said) =
        spawn_blocking(move || output(&["store", "check", "--store", &store])).await.unwrap();
    assert!(!status.success(), "{said}");
    said
}

/// The store takes events, and is as ready as ever.
async fn goes_on(yard: &Yard, endpoint: &mut Endpoint) {
    assert_eq!(yard.client.get("/readyz").await.text, "ok\n");
    let id = yard.client.publish(&event("after", json!({}))).await.expect(202)["id"].clone();
    loop {
        let receipt = endpoint.next().await;
        if receipt.json()["type"] == "after" {
            yard.client.get(&format!("/v1/events/{}", id.as_str().unwrap())).await.expect(200);
            return;
        }
    }
}

/// An event that waits for its next attempt is damaged: its delivery fails, and the one beside it arrives.
async fn check_event(sql: &str) {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let made = yard.subscribe(&endpoint, json!({})).await;
    let pace = format!("/v1/subscriptions/{}/pace", made["id"].as_str().unwrap());
    let soon = json!({"retry_after_seconds": vec![1; 20]});
    yard.client.json(Method::PUT, &pace, &soon).await.expect(200);
    endpoint.refuse(2);
    let bad = yard.publish("bad", json!({"number": 1})).await;
    let good = yard.publish("good", json!({"number": 2})).await;
    yard.await_deliveries("state=retrying", 2).await;

    assert_eq!(damage(&yard, &format!("{sql} where type = 'bad'")).await, 1, "{sql}");
    let failed = yard.await_deliveries("state=failed", 1).await.remove(0);
    assert_eq!(failed["event"], bad.as_str(), "{sql}");
    assert_eq!(failed["reason"]["code"], "broken-row", "{sql}");
    let arrived = yard.await_deliveries("state=delivered", 1).await.remove(0);
    assert_eq!(arrived["event"], good.as_str(), "{sql}");
    goes_on(&yard, &mut endpoint).await;
    let refused = yard.client.get(&format!("/v1/events/{bad}")).await;
    assert_eq!(refused.status, 503, "{sql}: {}", refused.text);
    assert!(refused.text.contains("store check"), "{sql}: {}", refused.text);
    assert!(check(&yard).await.contains("1 rows of `events` are broken"), "{sql}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_data_are_no_json_costs_itself() {
    check_event("update events set data = x'7b7b'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_attributes_are_broken_costs_itself() {
    check_event("update events set attributes = '{'").await;
}

/// Data that are JSON still, but not those that were published.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_has_lost_a_bit_is_not_served() {
    check_event("update events set data = cast('{\"number\":0}' as blob)").await;
}

/// Damaged before they were routed, as the next process finds them.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_broken_before_they_are_routed_cost_themselves() {
    let mut yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    for number in 0..5 {
        yard.publish(["bad", "good"][number % 2], json!({"number": number})).await;
    }
    yard.subscribe(&endpoint, json!({})).await;
    yard.stop().await;
    // They come again, as if they had not been routed; two of them are damaged, and the others match.
    damage(&yard, "delete from routed").await;
    damage(
        &yard,
        "update events set revision = (select max(revision) from subscriptions), sum = null",
    )
    .await;
    damage(&yard, "update events set attributes = 'null' where type = 'bad' and seq < 5").await;
    yard.restart().await;
    let mut numbers = Vec::new();
    for _ in 0..3 {
        numbers.push(endpoint.next().await.json()["data"]["number"].clone());
    }
    numbers.sort_by_key(|it| it.as_u64());
    assert_eq!(numbers, [1, 3, 4]);
    goes_on(&yard, &mut endpoint).await;
}

/// The log answers with the rows that are whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_in_an_unknown_state_costs_itself() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    for number in 0..3 {
        yard.publish("t", json!({"number": number})).await;
    }
    yard.await_deliveries("state=delivered", 3).await;
    let one = "(select max(seq) from deliveries)";
    assert_eq!(
        damage(&yard, &format!("update deliveries set state = 'lost' where seq = {one}")).await,
        1
    );
    yard.await_deliveries("", 2).await;
    yard.client.get("/v1/deliveries/export").await;
    goes_on(&yard, &mut endpoint).await;
    assert!(check(&yard).await.contains("1 rows of `deliveries` are broken"));
}

/// An export has a line for each delivery, also where the event of one cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_on_behind_what_is_broken() {
    let yard = Yard::start().await;
    let endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({})).await;
    for number in 0..3 {
        yard.publish(["good", "bad"][number % 2], json!({"number": number})).await;
    }
    yard.await_deliveries("state=delivered", 3).await;
    assert_eq!(damage(&yard, "update events set data = x'7b' where type = 'bad'").await, 1);
    assert_eq!(
        damage(
            &yard,
            "update deliveries set state = 'lost' where event =
             (select id from events where type = 'good' order by seq limit 1)"
        )
        .await,
        1
    );
    let lines = yard.client.get("/v1/deliveries/export").await.text;
    let lines: Vec<Value> = lines.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["event"]["data"]["number"], 2);
    assert!(lines[1]["event"]["error"].as_str().unwrap().contains("store check"), "{lines:?}");
}

/// Every other table: the router starts, and what belongs to other rows goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_row_of_any_table_costs_itself_at_the_next_start() {
    let mut yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    yard.subscribe(&endpoint, json!({"name": "whole"})).await;
    let mut other = Endpoint::start().await;
    yard.subscribe(&other, json!({"name": "broken"})).await;
    yard.identify("p1", &json!({"email": "a@b.c"})).await;
    yard.token(Some("acme"), "events:publish").await;
    yard.publish("t", json!({})).await;
    yard.await_deliveries("state=delivered", 2).await;
    for (table, sql) in [
        ("subscriptions", "update subscriptions set filters = '[' where name = 'broken'"),
        (
            "subscriptions",
            "update subscriptions set url = 'http://elsewhere/' where name = 'broken'",
        ),
        ("tokens", "update tokens set scopes = '[\"all\"]' where scopes like '%publish%'"),
        ("identities", "update identities set id = 'x@b.c'"),
        ("renderings", "insert into renderings (hash, definition) values (zeroblob(32), '{}')"),
        (
            "plugin_files",
            "update plugin_files set file = zeroblob(9) where digest = (select max(digest) from plugin_files)",
        ),
    ] {
        yard.stop().await;
        assert!(damage(&yard, sql).await >= 1, "{sql}");
        yard.restart().await;
        goes_on(&yard, &mut endpoint).await;
        let said = check(&yard).await;
        assert!(said.contains(&format!("rows of `{table}` are broken")), "{sql}: {said}");
    }
    let sent = other.arrived();
    assert!(
        sent.iter().all(|it| it.json()["type"] == "t"),
        "nothing goes to a broken subscription"
    );

    // Whoever cannot read it can delete it.
    let sql = "select lower(hex(id)) from subscriptions where name = 'broken' and ended is null";
    let id = ask(&yard, sql).await;
    let path = format!("/v1/subscriptions/{}", uuid::Uuid::parse_str(&id).unwrap());
    assert_eq!(yard.client.get(&path).await.status, 503);
    yard.client.call(Method::DELETE, &path, &[], "").await.expect(204);
    yard.client.call(Method::DELETE, &path, &[], "").await.expect(404);

    // Whoever does not know how far routing has come looks at all events again, and writes it anew.
    yard.stop().await;
    damage(&yard, "update routed set upto = upto + 4096").await;
    assert!(check(&yard).await.contains("rows of `routed` are broken"));
    yard.restart().await;
    goes_on(&yard, &mut endpoint).await;
    assert!(!check(&yard).await.contains("`routed`"));
}
