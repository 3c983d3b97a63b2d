//! What is due, in which order, and how the log is searched.

use super::*;

fn second(event: &Event, subscription: Uuid) -> Delivery {
    let id = delivery_id(event, subscription, 0);
    Delivery { id, subscription_id: subscription, ..delivery(event, DeliveryState::Dead, None) }
}

impl Fresh {
    /// So many events with a delivery each that has its key, recorded in the order of `keys`, of which the
    /// first number says which event it is.
    async fn ordered(&self, keys: &[(usize, i64)]) -> Vec<Unrouted> {
        self.store.create_subscription(subscription("one"), vec![]).await.unwrap();
        for number in 0..keys.len() {
            self.accept(&number.to_string()).await;
        }
        let events = self.only_unrouted().await;
        for (number, key) in keys {
            let it = &events[*number];
            let mut delivery = delivery(&it.event, DeliveryState::Pending, Some(1));
            delivery.order_key = Some(*key);
            self.put(it, Box::new(delivery)).await;
        }
        events
    }

    pub(super) async fn routed(&self, events: &[Unrouted]) {
        for it in events {
            let seq = it.seq;
            self.store.record(vec![Record::Routed { tenant: tenant(), seq }]);
        }
        self.store.flush().await;
    }

    /// The numbers of the events whose deliveries are due, and when there is to be another look.
    pub(super) async fn ordered_claim(&self, now_ms: i64) -> (Vec<String>, Option<i64>) {
        let claim =
            self.store.claim(&tenant(), SUBSCRIPTION, now_ms, 10, Some(1_000)).await.unwrap();
        let number = |it: &Due| it.event.as_ref().unwrap().content.attributes.id.clone();
        (claim.due.iter().map(number).collect(), claim.next_ms)
    }

    /// Records what became of a delivery that had the key.
    pub(super) async fn settle(
        &self,
        it: &Unrouted,
        key: i64,
        state: DeliveryState,
        due_at_ms: Option<i64>,
    ) {
        let mut delivery = delivery(&it.event, state, due_at_ms);
        delivery.order_key = Some(key);
        self.put(it, Box::new(delivery)).await;
    }

    /// All pages of a search.
    async fn search(&self, query: DeliveryQuery) -> Vec<Uuid> {
        let mut query = DeliveryQuery { limit: 7, ..query };
        let mut found = Vec::new();
        loop {
            let page = self.store.deliveries(&tenant(), query.clone()).await.unwrap();
            found.extend(page.deliveries.iter().map(|it| it.id));
            match page.next {
                // As it is after it was written and read.
                Some(next) => query.after = Some(next.to_string().parse().unwrap()),
                None => return found,
            }
        }
    }
}

#[tokio::test]
async fn of_those_with_the_same_key_the_first_one_goes() {
    let it = Fresh::new().await;
    let events = it.ordered(&[(1, 5), (0, 5), (2, 6), (3, 5)]).await;
    assert_eq!(it.ordered_claim(10).await, (vec![], Some(30)), "another may come before them");
    it.routed(&events).await;
    assert_eq!(it.ordered_claim(10).await, (vec!["0".to_owned(), "2".to_owned()], None));
    it.settle(&events[0], 5, DeliveryState::Retrying, Some(500)).await;
    let it = it.reopen().await;
    it.store.release_claims(20).await.unwrap();
    assert_eq!(it.ordered_claim(20).await.0, ["2"], "the key of the first one waits with it");
    assert_eq!(it.ordered_claim(500).await.0, ["0"]);
    it.settle(&events[0], 5, DeliveryState::Delivered, None).await;
    let now_ms = THEN_MS + 1;
    assert_eq!(it.ordered_claim(now_ms).await.0, ["1"]);
    it.settle(&events[1], 5, DeliveryState::Dead, None).await;
    assert_eq!(it.ordered_claim(now_ms).await.0, ["3"]);
}

#[tokio::test]
async fn one_that_takes_too_long_is_passed_over_and_says_so() {
    let it = Fresh::new().await;
    let events = it.ordered(&[(0, 5), (1, 5)]).await;
    it.routed(&events).await;
    assert_eq!(it.ordered_claim(10).await.0, ["0"]);
    it.settle(&events[0], 5, DeliveryState::Retrying, Some(5_000)).await;
    assert_eq!(it.ordered_claim(20).await, (vec![], Some(1_001)));
    assert_eq!(it.ordered_claim(1_001).await.0, ["1"]);
    let id = delivery_id(&events[0].event, SUBSCRIPTION, 0);
    let (passed_over, _) = it.store.delivery(&tenant(), id).await.unwrap().unwrap();
    assert!(passed_over.passed_over);
    assert_eq!(it.ordered_claim(5_000).await.0, ["0"], "it is tried on, out of order");
}

#[tokio::test]
async fn what_is_recorded_too_late_tells_no_attempt_twice() {
    let it = Fresh::new().await;
    it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
    it.accept("1").await;
    let event = it.only_unrouted().await.remove(0);
    let put = async |state, attempts| {
        let mut delivery = delivery(&event.event, state, None);
        delivery.attempts = attempts;
        delivery.last_attempt = Some(Attempt { number: attempts, ..attempt(500) });
        it.put(&event, Box::new(delivery)).await;
    };
    put(DeliveryState::Retrying, 1).await;
    put(DeliveryState::Cancelled, 1).await;
    put(DeliveryState::Dead, 2).await;
    let id = delivery_id(&event.event, SUBSCRIPTION, 0);
    let (kept, attempts) = it.store.delivery(&tenant(), id).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.attempts), (DeliveryState::Cancelled, 1));
    assert_eq!(attempts.iter().map(|it| it.number).collect::<Vec<_>>(), [1]);
}

/// Whom a search of [`full_log`] finds besides [`SUBSCRIPTION`].
const OTHER: Uuid = Uuid::from_u128(8);

/// A log of sixty deliveries of all kinds, of two subscriptions.
async fn full_log(it: &Fresh) -> Vec<(Arc<Event>, Delivery)> {
    let mut two = subscription("two");
    (two.id, two.provider_id) = (OTHER, "8".to_owned());
    two.url = "https://other.example/hook".parse().unwrap();
    it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
    it.store.create_subscription(two, vec![]).await.unwrap();
    for number in 0..30_i64 {
        let mut new = event(&number.to_string());
        // Several at the same time, and the clock goes back once.
        new.accepted_at_ms = THEN_MS + number / 3 - if number > 20 { 5 } else { 0 };
        let content = Arc::get_mut(&mut new.content).unwrap();
        content.attributes.event_type = ["a", "b"][usize::from(number % 3 == 0)].to_owned();
        content.attributes.subject = (number % 2 == 0).then(|| (number % 4).to_string());
        it.store.accept(vec![new]).await.unwrap();
    }
    let events = it.store.unrouted(&tenant(), 0, 100).await.unwrap();
    let mut all = Vec::new();
    for (number, one) in events.events.iter().enumerate() {
        let mut first = delivery(&one.event, DeliveryState::Delivered, None);
        first.last_attempt = Some(attempt(200));
        let mut next = second(&one.event, OTHER);
        let states = [DeliveryState::Dead, DeliveryState::Pending, DeliveryState::Failed];
        next.state = states[number % 3];
        next.reason = (number % 3 != 1).then(|| Reason::code(["x", "y"][number % 2]));
        next.last_attempt = (number % 3 == 0).then(|| attempt(503));
        for one_delivery in [first, next] {
            it.put(one, Box::new(one_delivery.clone())).await;
            all.push((one.event.clone(), one_delivery));
        }
    }
    all
}

#[tokio::test]
async fn a_search_finds_what_fits_and_nothing_else() {
    let it = Fresh::new().await;
    let all = full_log(&it).await;
    let check = async |query: DeliveryQuery, fits: &dyn Fn(&Event, &Delivery) -> bool| {
        let mut wanted: Vec<&Delivery> =
            all.iter().filter(|(event, it)| fits(event, it)).map(|(_, it)| it).collect();
        wanted.sort_by_key(|it| std::cmp::Reverse(it.created_at_ms));
        let found = it.search(query.clone()).await;
        let times = |ids: &[Uuid]| -> Vec<i64> {
            let time = |id| all.iter().find(|(_, it)| it.id == id).unwrap().1.created_at_ms;
            ids.iter().map(|id| time(*id)).collect()
        };
        let ids: Vec<Uuid> = wanted.iter().map(|it| it.id).collect();
        assert_eq!(times(&found), times(&ids), "{query:?}");
        let sorted = |mut ids: Vec<Uuid>| {
            ids.sort_unstable();
            ids
        };
        assert!(!ids.is_empty() && sorted(found) == sorted(ids), "{query:?}");
    };
    let none = DeliveryQuery::default;
    let dead = |it: &Delivery| it.state == DeliveryState::Dead;
    let dead_and_failed = vec![DeliveryState::Dead, DeliveryState::Failed];
    check(none(), &|_, _| true).await;
    let query = DeliveryQuery { subscriptions: Some(vec![OTHER]), ..none() };
    check(query.clone(), &|_, it| it.subscription_id == OTHER).await;
    let query = DeliveryQuery { states: vec![DeliveryState::Dead], ..query };
    check(query, &|_, it| dead(it)).await;
    let query = DeliveryQuery { states: dead_and_failed.clone(), ..none() };
    check(query, &|_, it| dead(it) || it.state == DeliveryState::Failed).await;
    let query = DeliveryQuery { states: vec![DeliveryState::Pending], ..none() };
    check(query, &|_, it| it.state == DeliveryState::Pending).await;
    let query = DeliveryQuery { reason: Some("x".to_owned()), ..none() };
    let has_reason = |it: &Delivery| it.reason.as_ref().is_some_and(|it| it.code == "x");
    check(query, &|_, it| has_reason(it)).await;
    let status = |it: &Delivery| it.last_attempt.as_ref().and_then(|it| it.status);
    for wanted in [200, 503] {
        let query = DeliveryQuery { status: Some(wanted), ..none() };
        check(query, &|_, it| status(it) == Some(wanted)).await;
    }
    let query = DeliveryQuery { event_type: Some("b".to_owned()), ..none() };
    check(query.clone(), &|event, _| event.content.attributes.event_type == "b").await;
    let query = DeliveryQuery { states: dead_and_failed, ..query };
    let is_b = |event: &Event| event.content.attributes.event_type == "b";
    check(query, &|event, it| is_b(event) && it.state.is_settled() && it.reason.is_some()).await;
    let query = DeliveryQuery { subject: Some("2".to_owned()), ..none() };
    check(query, &|event, _| event.content.attributes.subject.as_deref() == Some("2")).await;
    let query = DeliveryQuery { event: Some(all[6].0.id), ..none() };
    check(query, &|event, _| event.id == all[6].0.id).await;
    let query = DeliveryQuery { endpoint: Some("https://other.ex".to_owned()), ..none() };
    check(query, &|_, it| it.subscription_id == OTHER).await;
    let (from, to) = (THEN_MS + 3, THEN_MS + 6);
    for query in [none(), DeliveryQuery { event_type: Some("a".to_owned()), ..none() }] {
        let a_alone = query.event_type.is_some();
        let query = DeliveryQuery { from_ms: Some(from), to_ms: Some(to), ..query };
        let is_in = |it: &Delivery| (from..to).contains(&it.created_at_ms);
        check(query, &|event, it| is_in(it) && !(a_alone && is_b(event))).await;
    }
}

#[tokio::test]
async fn dead_deliveries_are_purged_and_no_others() {
    let it = Fresh::new().await;
    it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
    for number in 0..3 {
        it.accept(&number.to_string()).await;
    }
    let events = it.only_unrouted().await;
    it.record(&events[0], DeliveryState::Dead, None).await;
    it.record(&events[1], DeliveryState::Retrying, Some(9)).await;
    it.record(&events[2], DeliveryState::Dead, None).await;
    it.routed(&events[..2]).await;
    let ids = events.iter().map(|it| delivery_id(&it.event, SUBSCRIPTION, 0)).collect();
    // The event of the last one may be routed once more.
    assert_eq!(it.store.purge(&tenant(), ids).await.unwrap(), 1);
    assert_eq!(it.search(DeliveryQuery::default()).await.len(), 2);
    let waits = async || it.store.backlogs().await.unwrap()[0].deliveries;
    assert_eq!(waits().await, 1);
    it.record(&events[1], DeliveryState::Delivered, None).await;
    assert_eq!(waits().await, 0);
    assert!(it.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_happens_is_counted_once_minute_by_minute() {
    let it = Fresh::new().await;
    it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
    for id in ["0", "1", "1"] {
        it.accept(id).await;
    }
    let events = it.only_unrouted().await;
    let mut delivered = delivery(&events[0].event, DeliveryState::Delivered, None);
    (delivered.attempts, delivered.last_attempt) = (1, Some(attempt(200)));
    let mut dead = delivery(&events[1].event, DeliveryState::Dead, None);
    (dead.attempts, dead.last_attempt) = (1, Some(attempt(503)));
    dead.last_attempt.as_mut().unwrap().at_ms += 60_000;
    for (event, delivery) in [(0, &delivered), (0, &delivered), (1, &dead)] {
        it.put(&events[event], Box::new(delivery.clone())).await;
    }
    let counts = async |subscription, step_minutes| {
        let (from_ms, to_ms) = (THEN_MS, THEN_MS + 120_000);
        let query = CountsQuery { subscription, from_ms, to_ms, step_minutes };
        it.store.counts(&tenant(), query).await.unwrap()
    };
    let first = Counts {
        attempts: 1,
        delivered: 1,
        duration_ms: 40,
        duration_max_ms: 40,
        ..Counts::default()
    };
    let second = Counts { delivered: 0, dead: 1, attempts_failed: 1, ..first };
    let minute = |number: i64| (THEN_MS / 60_000 + number) * 60_000;
    let found = counts(Some(SUBSCRIPTION), 1).await;
    assert_eq!(found, [(minute(0), first), (minute(1), second)]);
    let found = counts(None, 1).await;
    assert_eq!(found[0], (minute(0), Counts { events: 2, duplicates: 1, ..first }));
    let found = counts(None, u32::MAX).await;
    let mut both = Counts { events: 2, duplicates: 1, ..first };
    both.add(&second);
    assert_eq!(found, [(0, both)]);
}
