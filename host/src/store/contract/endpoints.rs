//! What is kept of endpoints: since when they fail, and at what pace they take deliveries.

use super::*;

#[tokio::test]
async fn since_when_an_endpoint_fails_is_kept_until_it_does_not() {
    let it = Fresh::new().await;
    it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
    let note = async |it: &Fresh, since| {
        it.store.record(vec![Record::Failing {
            tenant: tenant(),
            subscription: SUBSCRIPTION,
            since,
        }]);
        it.store.flush().await;
    };
    assert_eq!(it.store.failing().await.unwrap(), []);
    note(&it, Some((THEN_MS, 0))).await;
    note(&it, Some((THEN_MS, 70))).await;
    let it = it.reopen().await;
    assert_eq!(it.store.failing().await.unwrap(), [(SUBSCRIPTION, THEN_MS, 70)]);
    note(&it, None).await;
    assert_eq!(it.store.failing().await.unwrap(), []);

    note(&it, Some((THEN_MS, 0))).await;
    it.store.delete_subscription(&tenant(), SUBSCRIPTION).await.unwrap();
    assert_eq!(it.store.failing().await.unwrap(), []);
}

#[tokio::test]
async fn a_pace_is_kept_with_each_state_of_a_subscription() {
    let it = Fresh::new().await;
    let made = it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
    let order = Order { key: OrderKey::Attribute("subject".to_owned()), wait_seconds: 60 };
    let pace = Pace {
        retry_after_seconds: Some(vec![5, 60]),
        in_flight_max: None,
        per_minute: Some(600),
        order: Some(order),
    };
    let changed = Subscription { pace: pace.clone(), ..made.clone() };
    it.store.change_subscription(changed, None, None).await.unwrap();
    // A change of something else leaves it as it is.
    let secret = SigningSecret { key: b"new".to_vec(), valid_until_ms: None };
    it.store.rotate_secret(&tenant(), SUBSCRIPTION, secret, DAY_MS, THEN_MS).await.unwrap();
    let never = Pace { retry_after_seconds: Some(vec![]), ..Pace::default() };
    let present = it.store.subscription(&tenant(), SUBSCRIPTION).await.unwrap().unwrap();
    assert_eq!(present.pace, pace);
    let changed = Subscription { pace: never.clone(), ..present };
    it.store.change_subscription(changed, None, None).await.unwrap();

    let it = it.reopen().await;
    let (_, states) = it.store.changes(0).await.unwrap();
    let paces: Vec<_> = states.into_iter().map(|it| it.subscription.pace).collect();
    assert_eq!(paces, [made.pace, pace.clone(), pace, never]);
}
