//! Deliveries that are made again.

use hookyard_nouns::delivery::Attempt;

use super::*;

const REPLAY: Uuid = Uuid::from_u128(70);

fn replay(query: ReplayQuery) -> Replay {
    Replay {
        id: REPLAY,
        tenant: tenant(),
        query,
        present: false,
        per_minute: Some(60),
        place: None,
        total: 3,
        replayed: 0,
        skipped: 0,
        state: ReplayState::Running,
        created_at_ms: THEN_MS,
        ended_at_ms: None,
    }
}

fn of(states: &[DeliveryState]) -> ReplayQuery {
    ReplayQuery { states: states.to_vec(), ..ReplayQuery::default() }
}

impl Fresh {
    /// With a subscription, and an event for each of these states of its delivery, which has had two
    /// attempts.
    async fn with(states: &[DeliveryState]) -> (Fresh, Vec<Unrouted>) {
        let it = Fresh::new().await;
        it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
        for (number, _) in states.iter().enumerate() {
            it.accept(&number.to_string()).await;
        }
        let events = it.only_unrouted().await;
        for (unrouted, state) in events.iter().zip(states) {
            let attempt = Attempt { number: 2, ..attempt(500) };
            let delivery = Box::new(Delivery {
                body: Some(Digest::of(b"body")),
                attempts: 2,
                last_attempt: Some(attempt),
                ..delivery(&unrouted.event, *state, None)
            });
            let (tenant, event_seq) = (tenant(), unrouted.seq);
            let routed = Record::Routed { tenant: tenant.clone(), seq: event_seq };
            let delivery = Record::Delivery { tenant, event_seq, delivery, attempted: true };
            it.store.record(vec![delivery, routed]);
        }
        it.store.flush().await;
        (it, events)
    }

    async fn total(&self, query: ReplayQuery) -> u64 {
        self.store.replay_total(&tenant(), &query).await.unwrap()
    }

    async fn claimed(&self) -> Vec<Delivery> {
        let due = self.claim(DAY_MS).await;
        due.into_iter().map(|it| it.delivery).collect()
    }
}

#[tokio::test]
async fn deliveries_are_found_by_every_part_of_a_query() {
    let (dead, delivered) = (DeliveryState::Dead, DeliveryState::Delivered);
    let (it, events) = Fresh::with(&[dead, delivered, dead, DeliveryState::Failed]).await;
    assert_eq!(it.total(of(&DeliveryState::SETTLED)).await, 4);
    assert_eq!(it.total(of(&[dead])).await, 2);
    assert_eq!(it.total(of(&[DeliveryState::Cancelled])).await, 0);
    let one = delivery_id(&events[2].event, SUBSCRIPTION, 0);
    let narrowed = |change: fn(&mut ReplayQuery)| {
        let mut query = of(&[dead]);
        change(&mut query);
        query
    };
    for (query, total) in [
        (ReplayQuery { delivery: Some(one), ..of(&[dead]) }, 1),
        (ReplayQuery { delivery: Some(one), ..of(&[delivered]) }, 0),
        (narrowed(|it| it.subscription = Some(SUBSCRIPTION)), 2),
        (narrowed(|it| it.subscription = Some(Uuid::from_u128(8))), 0),
        (narrowed(|it| it.event_type = Some("t".to_owned())), 2),
        (narrowed(|it| it.event_type = Some("u".to_owned())), 0),
        (narrowed(|it| it.from_ms = Some(THEN_MS)), 2),
        (narrowed(|it| it.from_ms = Some(THEN_MS + 1)), 0),
        (narrowed(|it| it.to_ms = Some(THEN_MS)), 0),
        (narrowed(|it| it.to_ms = Some(THEN_MS + 1)), 2),
    ] {
        assert_eq!(it.total(query.clone()).await, total, "{query:?}");
    }
    // The newest of them is shown first.
    let sample = it.store.replay_sample(&tenant(), &of(&[dead]), 1).await.unwrap();
    assert_eq!(sample.iter().map(|it| it.id).collect::<Vec<_>>(), [one]);
    let other = Tenant::new("other").unwrap();
    assert_eq!(it.store.replay_total(&other, &of(&[dead])).await.unwrap(), 0);
    assert!(it.store.replay_sample(&other, &of(&[dead]), 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_replayed_becomes_due_and_its_schedule_begins_anew() {
    let dead = DeliveryState::Dead;
    let (it, _) = Fresh::with(&[dead, DeliveryState::Delivered, dead, dead]).await;
    let mut begun = replay(of(&[dead]));
    it.store.put_replay(begun.clone()).await.unwrap();
    let page = it.store.replay_page(&begun, 2).await.unwrap();
    assert_eq!(page.deliveries.len(), 2);
    assert!(page.deliveries.iter().all(|row| row.has_data && row.subscription == SUBSCRIPTION));
    (begun.place, begun.replayed) = (page.next, 2);
    let these = page.deliveries.iter().map(|row| row.id).collect();
    assert_eq!(it.store.replay_these(begun.clone(), these, 50).await.unwrap(), begun);

    // Whoever goes on after a crash knows how far it has come.
    let it = it.reopen().await;
    assert_eq!(it.store.running_replays().await.unwrap(), [begun.clone()]);
    let page = it.store.replay_page(&begun, 2).await.unwrap();
    assert_eq!((page.deliveries.len(), page.next), (1, None));
    assert_eq!(it.store.due().await.unwrap(), [(tenant(), SUBSCRIPTION, 50)]);
    let due = it.claimed().await;
    assert_eq!(due.len(), 2);
    for it in due {
        assert_eq!((it.state, it.reason), (DeliveryState::Pending, None));
        assert_eq!((it.attempts, it.earlier_attempts), (2, 2));
        assert_eq!(it.body, Some(Digest::of(b"body")));
    }
}

#[tokio::test]
async fn a_replay_goes_from_the_oldest_to_the_newest_whatever_state_they_are_in() {
    let (dead, failed) = (DeliveryState::Dead, DeliveryState::Failed);
    let (it, events) = Fresh::with(&[dead, failed, DeliveryState::Delivered, failed, dead]).await;
    let wanted = [0, 1, 3, 4].map(|at: usize| delivery_id(&events[at].event, SUBSCRIPTION, 0));
    let typed = ReplayQuery { event_type: Some("t".to_owned()), ..of(&DeliveryState::SETTLED) };
    for (query, wanted) in [
        (of(&[dead, failed]), &wanted[..]),
        (typed, &[0, 1, 2, 3, 4].map(|at: usize| delivery_id(&events[at].event, SUBSCRIPTION, 0))),
        (ReplayQuery { delivery: Some(wanted[2]), ..of(&[failed]) }, &wanted[2..3]),
    ] {
        let mut begun = replay(query.clone());
        let mut gone = Vec::new();
        loop {
            let page = it.store.replay_page(&begun, 1).await.unwrap();
            gone.extend(page.deliveries.iter().map(|row| row.id));
            begun.place = page.next;
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(gone, wanted, "{query:?}");
    }
    // What comes later is not part of it.
    let earlier = Replay { created_at_ms: THEN_MS - 1, ..replay(of(&[dead, failed])) };
    assert_eq!(it.store.replay_page(&earlier, 9).await.unwrap().deliveries, []);
}

#[tokio::test]
async fn a_replay_of_the_present_forgets_the_body_and_leaves_what_is_on_its_way() {
    let (it, events) = Fresh::with(&[DeliveryState::Delivered, DeliveryState::Retrying]).await;
    let begun = Replay { present: true, ..replay(of(&DeliveryState::SETTLED)) };
    it.store.put_replay(begun.clone()).await.unwrap();
    let page = it.store.replay_page(&begun, 9).await.unwrap();
    assert_eq!(page.deliveries.len(), 1);
    // Even where it was settled when it was found.
    let late = delivery_id(&events[1].event, SUBSCRIPTION, 0);
    let these = vec![page.deliveries[0].id, late];
    it.store.replay_these(begun, these, 50).await.unwrap();
    let due = it.claimed().await;
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].event_id, events[0].event.id);
    assert_eq!(due[0].body, None);
}

#[tokio::test]
async fn a_replay_that_was_cancelled_makes_nothing_due() {
    let (it, _) = Fresh::with(&[DeliveryState::Dead]).await;
    let begun = replay(of(&[DeliveryState::Dead]));
    it.store.put_replay(begun.clone()).await.unwrap();
    let other = Tenant::new("other").unwrap();
    let theirs = it.store.cancel_replay(&other, REPLAY, 60).await;
    assert!(matches!(theirs, Err(StoreError::NotFound)));
    let cancelled = it.store.cancel_replay(&tenant(), REPLAY, 60).await.unwrap();
    let ended = Replay { state: ReplayState::Cancelled, ended_at_ms: Some(60), ..begun.clone() };
    assert_eq!(cancelled, ended);
    assert_eq!(it.store.cancel_replay(&tenant(), REPLAY, 70).await.unwrap(), ended);

    // Its next page was on its way.
    let page = it.store.replay_page(&begun, 9).await.unwrap();
    let these = page.deliveries.iter().map(|row| row.id).collect();
    assert_eq!(it.store.replay_these(begun, these, 80).await.unwrap(), ended);
    assert!(it.claimed().await.is_empty());
    assert!(it.store.running_replays().await.unwrap().is_empty());
}

#[tokio::test]
async fn replays_are_listed_newest_first_to_their_tenant() {
    let it = Fresh::new().await;
    let numbered = |number| Replay { id: Uuid::from_u128(number), ..replay(of(&[])) };
    for number in 1..=3 {
        it.store.put_replay(numbered(number)).await.unwrap();
    }
    let listed = async |before| {
        let before = Some(Uuid::from_u128(before));
        it.store.replays(&tenant(), before, 2).await.unwrap()
    };
    let newest = it.store.replays(&tenant(), None, 2).await.unwrap();
    assert_eq!(newest, [numbered(3), numbered(2)]);
    assert_eq!(listed(2).await, [numbered(1)]);
    let other = Tenant::new("other").unwrap();
    assert!(it.store.replays(&other, None, 9).await.unwrap().is_empty());
    assert_eq!(it.store.replay(&other, Uuid::from_u128(1)).await.unwrap(), None);
    let one = it.store.replay(&tenant(), Uuid::from_u128(1)).await.unwrap();
    assert_eq!(one, Some(numbered(1)));
}

#[tokio::test]
async fn a_replay_sees_where_the_data_are_no_longer_kept() {
    let (it, _) = Fresh::with(&[DeliveryState::Dead]).await;
    let keep = Retention { payloads_ms: 0, attempts_ms: 90 * DAY_MS, bytes_max: u64::MAX };
    while it.store.prune(THEN_MS + DAY_MS, keep).await.unwrap().more {}
    let page = it.store.replay_page(&replay(of(&[DeliveryState::Dead])), 9).await.unwrap();
    assert_eq!(page.deliveries.iter().map(|row| row.has_data).collect::<Vec<_>>(), [false]);
}
