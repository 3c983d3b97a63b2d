//! Plugins that fail, and what plugins write.

use hookyard_nouns::plugin::{LogLevel, LogLine};

use super::*;

pub(super) fn quarantine() -> Quarantine {
    Quarantine {
        subscription: SUBSCRIPTION,
        tenant: tenant(),
        plugin: Digest::of(b"plugin"),
        reason: Reason::new("plugin-trap", "it trapped"),
        since_ms: 5,
        probes: 0,
        probe_at_ms: 10,
    }
}

#[tokio::test]
async fn what_a_quarantine_holds_becomes_due_when_it_ends() {
    let it = Fresh::new().await;
    it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
    it.accept("1").await;
    it.accept("2").await;
    it.store.put_quarantine(quarantine()).await.unwrap();
    let probed = Quarantine { probes: 1, probe_at_ms: 30, ..quarantine() };
    it.store.put_quarantine(probed.clone()).await.unwrap();
    // The subscription is active, and its deliveries are held all the same.
    for unrouted in it.only_unrouted().await {
        it.record(&unrouted, DeliveryState::Held, None).await;
    }
    let it = it.reopen().await;
    assert_eq!(it.store.quarantines().await.unwrap(), [probed]);
    let oldest = it.store.oldest_held(&tenant(), SUBSCRIPTION).await.unwrap().unwrap();
    assert_eq!(oldest.event.unwrap().content.attributes.id, "1");
    assert_eq!(it.store.due().await.unwrap(), []);
    it.store.lift_quarantine(&tenant(), SUBSCRIPTION).await.unwrap();
    assert_eq!(it.store.quarantines().await.unwrap(), []);
    assert_eq!(it.store.release_held(&tenant(), SUBSCRIPTION, 10, 40).await.unwrap(), Some(2));
    assert!(it.store.oldest_held(&tenant(), SUBSCRIPTION).await.unwrap().is_none());
    assert_eq!(it.claim(40).await.len(), 2);
}

#[tokio::test]
async fn lines_of_a_plugin_are_found_by_what_they_are_about() {
    let it = Fresh::new().await;
    let entry = |event: u128, level: LogLevel| LogEntry {
        tenant: tenant(),
        plugin: Digest::of(b"plugin"),
        subscription: SUBSCRIPTION,
        event: Uuid::from_u128(event),
        at_ms: THEN_MS,
        line: LogLine { level, message: format!("{event}") },
    };
    let written = [(1, LogLevel::Debug), (1, LogLevel::Error), (2, LogLevel::Warn)];
    let records = written.map(|(event, level)| Record::Log(Box::new(entry(event, level))));
    it.store.record(records.into());
    it.store.flush().await;
    let found = async |query: LogQuery| {
        let lines = it.store.plugin_log(&tenant(), LogQuery { limit: 10, ..query }).await.unwrap();
        lines.into_iter().map(|(_, it)| it.line.level).collect::<Vec<_>>()
    };
    let (debug, warn, error) = (LogLevel::Debug, LogLevel::Warn, LogLevel::Error);
    assert_eq!(found(LogQuery::default()).await, [warn, error, debug]);
    let after = LogQuery { after: Some(0), ..LogQuery::default() };
    assert_eq!(found(after).await, [debug, error, warn]);
    let before = LogQuery { before: Some(3), ..LogQuery::default() };
    assert_eq!(found(before).await, [error, debug]);
    let event = LogQuery { event: Some(Uuid::from_u128(1)), ..LogQuery::default() };
    assert_eq!(found(event).await, [error, debug]);
    assert_eq!(found(LogQuery { level: Some(warn), ..LogQuery::default() }).await, [warn, error]);
    let other = LogQuery { plugins: vec![Digest::of(b"other")], ..LogQuery::default() };
    assert_eq!(found(other).await, []);
    let stranger = Tenant::new("other").unwrap();
    let theirs = it.store.plugin_log(&stranger, LogQuery { limit: 10, ..LogQuery::default() });
    assert!(theirs.await.unwrap().is_empty());
    let keep = Retention { payloads_ms: DAY_MS, attempts_ms: DAY_MS, bytes_max: u64::MAX };
    it.store.prune(THEN_MS + DAY_MS + 1, keep).await.unwrap();
    assert_eq!(found(LogQuery::default()).await, []);
}
