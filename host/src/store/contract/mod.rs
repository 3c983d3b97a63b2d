//! What every engine has to keep to, whatever it is made of.

mod endpoints;
mod held;
mod log;
mod plugins;
mod replays;

use std::sync::Arc;

use bytes::Bytes;
use hookyard_nouns::delivery::{AttemptDetail, DeliveryState, Reason, delivery_id};
use hookyard_nouns::event::{Attributes, Data};
use hookyard_nouns::json::Json;
use hookyard_nouns::subscription::{Order, OrderKey, Pace, State};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::secret::ServerKey;

/// An engine of its own.
struct Fresh {
    store: Box<dyn Store>,
    _folder: TempDir,
}

fn open(folder: &TempDir) -> Box<dyn Store> {
    let path = folder.path().join("store.sqlite");
    let key = ServerKey::open(&folder.path().join("key")).unwrap();
    let signals = Signals { accepted: Box::new(|_| ()), changed: Box::new(|| ()) };
    Box::new(Sqlite::open(&path, key, Sharing::Exclusive, Usage::UNBOUNDED, signals).unwrap())
}

impl Fresh {
    /// With a tenant, which begins to exist with its first token.
    async fn new() -> Fresh {
        let folder = tempfile::tempdir().unwrap();
        let it = Fresh { store: open(&folder), _folder: folder };
        it.store.create_token(token(1, None)).await.unwrap();
        it
    }

    /// The same store after its process has ended.
    async fn reopen(self) -> Fresh {
        self.store.close().await;
        let store = open(&self._folder);
        Fresh { store, _folder: self._folder }
    }

    async fn accept(&self, id: &str) -> Accepted {
        self.store.accept(vec![event(id)]).await.unwrap()[0]
    }

    async fn only_unrouted(&self) -> Vec<Unrouted> {
        self.store.unrouted(&tenant(), 0, 10).await.unwrap().events
    }

    async fn put(&self, it: &Unrouted, delivery: Box<Delivery>) {
        let attempted = delivery.last_attempt.is_some();
        let (tenant, event_seq) = (tenant(), it.seq);
        let record = Record::Delivery { tenant, event_seq, delivery, attempted };
        self.store.record(vec![record]);
        self.store.flush().await;
    }

    async fn claim(&self, now_ms: i64) -> Vec<Due> {
        self.store.claim(&tenant(), SUBSCRIPTION, now_ms, 10, None).await.unwrap().due
    }

    async fn record(&self, it: &Unrouted, state: DeliveryState, due_at_ms: Option<i64>) {
        let delivery = Box::new(delivery(&it.event, state, due_at_ms));
        self.put(it, delivery).await;
    }
}

fn tenant() -> Tenant {
    Tenant::new("acme").unwrap()
}

const SUBSCRIPTION: Uuid = Uuid::from_u128(7);
/// Long ago.
const THEN_MS: i64 = 1_000;
const DAY_MS: i64 = 86_400_000;

fn event(id: &str) -> NewEvent {
    let pairs = [("specversion", "1.0"), ("id", id), ("source", "/s"), ("type", "t")];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let data = Json::parse(Bytes::from_static(b"{\"a\": 1}")).unwrap();
    NewEvent {
        id: Uuid::now_v7(),
        tenant: tenant(),
        format: "cloudevents",
        content: Arc::new(Content {
            attributes: Attributes::new(pairs).unwrap(),
            data: Some(Data::Json(data)),
        }),
        profile: None,
        alternate_ids: vec![],
        accepted_at_ms: THEN_MS,
    }
}

fn subscription(name: &str) -> Subscription {
    let rendering = Rendering { format: "cloudevents".to_owned(), ..Rendering::default() };
    Subscription {
        id: SUBSCRIPTION,
        tenant: tenant(),
        format: "cloudevents",
        provider_id: SUBSCRIPTION.to_string(),
        name: name.to_owned(),
        url: "https://example.com/".parse().unwrap(),
        state: State::Active,
        catch_up: false,
        filters: vec![],
        format_steps: vec![],
        steps: vec![],
        rendering_hash: rendering.hash(),
        rendering: Arc::new(rendering),
        agreed_origin: Some("hookyard".to_owned()),
        rate_per_minute: Some(60),
        pace: Pace { in_flight_max: Some(2), ..Pace::default() },
        secrets: vec![SigningSecret { key: b"secret".to_vec(), valid_until_ms: None }],
        document: json!({"of": "the format"}),
        created_at_ms: THEN_MS,
        updated_at_ms: THEN_MS,
        revision: 0,
    }
}

fn delivery(event: &Event, state: DeliveryState, due_at_ms: Option<i64>) -> Delivery {
    Delivery {
        id: delivery_id(event, SUBSCRIPTION, 0),
        event_id: event.id,
        subscription_id: SUBSCRIPTION,
        part: 0,
        rendering: subscription("x").rendering_hash,
        body: None,
        state,
        reason: (state == DeliveryState::Dead).then(|| Reason::code("exhausted")),
        due_at_ms,
        attempts: 0,
        earlier_attempts: 0,
        last_attempt: None,
        created_at_ms: event.accepted_at_ms,
        order_key: None,
        passed_over: false,
    }
}

fn attempt(status: u16) -> Attempt {
    Attempt {
        number: 1,
        at_ms: THEN_MS,
        duration_ms: 40,
        status: Some(status),
        answer: vec![],
        error: (status >= 300).then(|| Reason::code("http")),
        body: None,
        rendering: subscription("x").rendering_hash,
        detail: AttemptDetail { dns_us: Some(7), ..AttemptDetail::default() },
    }
}

fn token(number: u8, parent: Option<u8>) -> Token {
    Token {
        id: Uuid::from_u128(number.into()),
        hash: [number; 32],
        tenant: Some(tenant()),
        scopes: vec!["a".to_owned(), "b".to_owned()],
        created_at_ms: 0,
        expires_at_ms: parent.map(|_| 100),
        revoked_at_ms: None,
        parent: parent.map(|it| Uuid::from_u128(it.into())),
    }
}

#[tokio::test]
async fn an_event_is_stored_once_and_waits_until_it_is_routed() {
    let it = Fresh::new().await;
    let first = it.accept("1").await;
    let again = it.accept("1").await;
    assert_eq!((again.id, first.duplicate, again.duplicate), (first.id, false, true));
    it.accept("2").await;

    let it = it.reopen().await;
    assert_eq!(it.store.unrouted_tenants().await.unwrap(), [(tenant(), 0)]);
    let waiting = it.only_unrouted().await;
    assert_eq!(waiting.len(), 2);
    assert_eq!(waiting[0].event.id, first.id);
    // The second may be done before the first.
    it.store.record(vec![Record::Routed { tenant: tenant(), seq: waiting[1].seq }]);
    it.store.flush().await;
    let it = it.reopen().await;
    assert_eq!(it.only_unrouted().await.len(), 1);
    it.store.record(vec![Record::Routed { tenant: tenant(), seq: waiting[0].seq }]);
    it.store.flush().await;
    assert!(it.only_unrouted().await.is_empty());
}

#[tokio::test]
async fn an_event_is_known_for_a_day_at_least_whatever_has_been_forgotten() {
    let it = Fresh::new().await;
    let accept = async |at_ms| {
        let event = NewEvent { accepted_at_ms: at_ms, ..event("1") };
        it.store.accept(vec![event]).await.unwrap()[0]
    };
    let first = accept(2 * DAY_MS - 1).await;
    let keep = Retention { payloads_ms: 0, attempts_ms: 90 * DAY_MS, bytes_max: u64::MAX };
    it.store.prune(3 * DAY_MS - 1, keep).await.unwrap();
    assert_eq!(accept(3 * DAY_MS - 1).await, Accepted { id: first.id, duplicate: true });

    it.store.prune(3 * DAY_MS, keep).await.unwrap();
    let second = accept(3 * DAY_MS).await;
    assert!(!second.duplicate && second.id != first.id);
    assert!(accept(4 * DAY_MS).await.duplicate);
}

#[tokio::test]
async fn a_subscription_is_kept_state_by_state() {
    let it = Fresh::new().await;
    let made = it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
    let mut changed = made.clone();
    changed.name = "two".to_owned();
    let changed = it.store.change_subscription(changed, None, None).await.unwrap();
    // Whoever still has the first state is too late.
    let late = it.store.change_subscription(made.clone(), None, None).await;
    assert!(matches!(late, Err(StoreError::Changed)));
    it.store.delete_subscription(&tenant(), SUBSCRIPTION).await.unwrap();

    let it = it.reopen().await;
    assert!(it.store.subscription(&tenant(), SUBSCRIPTION).await.unwrap().is_none());
    let (revision, states) = it.store.changes(0).await.unwrap();
    let states: Vec<_> =
        states.iter().map(|it| (it.subscription.name.as_str(), it.ended.unwrap())).collect();
    assert_eq!(states, [("one", changed.revision), ("two", revision)]);
}

#[tokio::test]
async fn a_refused_change_is_as_if_it_had_not_been_asked_for() {
    let it = Fresh::new().await;
    it.store.create_subscription(subscription("one"), vec!["taken".to_owned()]).await.unwrap();
    let (before, _) = it.store.changes(0).await.unwrap();
    let mut second = subscription("two");
    second.id = Uuid::from_u128(8);
    second.provider_id = "8".to_owned();
    let unique = vec!["free".to_owned(), "taken".to_owned()];
    let refused = it.store.create_subscription(second.clone(), unique).await;
    assert!(matches!(refused, Err(StoreError::Conflict(what)) if what == "taken"));
    it.accept("1").await;
    assert_eq!(it.only_unrouted().await[0].event.revision, before);
    let free = vec!["free".to_owned()];
    it.store.create_subscription(second, free).await.unwrap();
}

#[tokio::test]
async fn a_delivery_that_is_due_is_given_out_once() {
    let it = Fresh::new().await;
    it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
    it.accept("1").await;
    let unrouted = it.only_unrouted().await.remove(0);
    it.record(&unrouted, DeliveryState::Pending, Some(50)).await;
    assert_eq!(it.store.due().await.unwrap(), [(tenant(), SUBSCRIPTION, 50)]);
    assert!(it.claim(49).await.is_empty());
    let due = it.claim(50).await;
    assert_eq!(due[0].event.as_ref().unwrap().id, unrouted.event.id);
    assert_eq!(due[0].rendering.format, "cloudevents");
    assert_eq!(due[0].delivery.due_at_ms, None, "or it would be due again, settled as it may be");
    assert!(it.claim(60).await.is_empty());

    // A clock that is set back makes no wait longer.
    it.record(&unrouted, DeliveryState::Retrying, Some(1_000)).await;
    it.store.set_back(500, 100).await.unwrap();
    it.store.set_back(900, 100).await.unwrap();
    assert_eq!(it.store.due().await.unwrap(), [(tenant(), SUBSCRIPTION, 900)]);
    assert_eq!(it.claim(900).await.len(), 1);

    // Whoever had it has ended.
    let it = it.reopen().await;
    it.store.release_claims(70).await.unwrap();
    assert_eq!(it.claim(70).await.len(), 1);
    it.record(&unrouted, DeliveryState::Delivered, None).await;
    it.store.release_claims(80).await.unwrap();
    assert!(it.store.due().await.unwrap().is_empty());
    assert_eq!(it.store.recorded(&unrouted.event).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_not_settled_is_not_forgotten() {
    let it = Fresh::new().await;
    it.store.create_subscription(subscription("one"), vec![]).await.unwrap();
    for id in ["pending", "dead"] {
        it.accept(id).await;
    }
    let waiting = it.only_unrouted().await;
    it.record(&waiting[0], DeliveryState::Retrying, Some(50)).await;
    it.record(&waiting[1], DeliveryState::Dead, None).await;
    for unrouted in &waiting {
        it.store.record(vec![Record::Routed { tenant: tenant(), seq: unrouted.seq }]);
    }
    it.accept("not routed").await;
    it.store.flush().await;
    let nothing = Retention { payloads_ms: 0, attempts_ms: 0, bytes_max: 0 };
    while it.store.prune(THEN_MS + 40 * DAY_MS, nothing).await.unwrap().more {}

    let is_there = async |id| it.store.event(&tenant(), id).await.unwrap().is_some();
    assert!(is_there(waiting[0].event.id).await);
    assert!(!is_there(waiting[1].event.id).await);
    assert_eq!(it.only_unrouted().await.len(), 1);
    let all = DeliveryQuery { limit: 10, ..DeliveryQuery::default() };
    let left = it.store.deliveries(&tenant(), all).await.unwrap().deliveries;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].state, DeliveryState::Retrying);
}

#[tokio::test]
async fn what_is_held_for_a_subscription_that_is_gone_is_cancelled() {
    let it = Fresh::new().await;
    let paused = Subscription { state: State::Paused, catch_up: true, ..subscription("one") };
    it.store.create_subscription(paused, vec![]).await.unwrap();
    it.accept("1").await;
    let unrouted = it.only_unrouted().await.remove(0);
    it.store.delete_subscription(&tenant(), SUBSCRIPTION).await.unwrap();
    // It was found to be held before that.
    it.record(&unrouted, DeliveryState::Held, None).await;
    let all = DeliveryQuery { limit: 10, ..DeliveryQuery::default() };
    let found = it.store.deliveries(&tenant(), all).await.unwrap().deliveries.remove(0);
    assert_eq!(found.state, DeliveryState::Cancelled);
}

#[tokio::test]
async fn what_is_held_too_long_is_given_up() {
    let it = Fresh::new().await;
    let paused = Subscription { state: State::Paused, catch_up: true, ..subscription("one") };
    it.store.create_subscription(paused, vec![]).await.unwrap();
    it.accept("1").await;
    let unrouted = it.only_unrouted().await.remove(0);
    it.record(&unrouted, DeliveryState::Held, None).await;
    let keep = Retention { payloads_ms: DAY_MS, attempts_ms: 90 * DAY_MS, bytes_max: u64::MAX };
    let state = async |now_ms| {
        it.store.prune(now_ms, keep).await.unwrap();
        let all = DeliveryQuery { limit: 10, ..DeliveryQuery::default() };
        let found = it.store.deliveries(&tenant(), all).await.unwrap().deliveries.remove(0);
        (found.state, found.reason.map(|it| it.code))
    };
    assert_eq!(state(THEN_MS + 15 * DAY_MS).await, (DeliveryState::Held, None));
    let given_up = (DeliveryState::Dead, Some("held-too-long".to_owned()));
    assert_eq!(state(THEN_MS + 15 * DAY_MS + 1).await, given_up);
}

#[tokio::test]
async fn a_token_ends_with_the_one_that_it_was_given_out_for() {
    let it = Fresh::new().await;
    for given_out in [token(2, Some(1)), token(3, None)] {
        it.store.create_token(given_out).await.unwrap();
    }
    assert_eq!(it.store.tokens().await.unwrap().len(), 2);
    it.store.revoke_token(Uuid::from_u128(1), 50).await.unwrap();
    let revoked = async |number| it.store.token([number; 32]).await.unwrap().unwrap().revoked_at_ms;
    assert_eq!((revoked(1).await, revoked(2).await, revoked(3).await), (Some(50), Some(50), None));
    let unknown = it.store.revoke_token(Uuid::from_u128(9), 50).await;
    assert!(matches!(unknown, Err(StoreError::NotFound)));
    let keep = Retention { payloads_ms: DAY_MS, attempts_ms: DAY_MS, bytes_max: u64::MAX };
    it.store.prune(101, keep).await.unwrap();
    assert!(it.store.token([2; 32]).await.unwrap().is_none());
}

#[tokio::test]
async fn the_first_key_is_the_one_that_is_kept() {
    let it = Fresh::new().await;
    assert_eq!(it.store.signing_key("m").await.unwrap(), None);
    assert_eq!(it.store.keep_signing_key("m", vec![1]).await.unwrap(), [1]);
    assert_eq!(it.store.keep_signing_key("m", vec![2]).await.unwrap(), [1]);
    let it = it.reopen().await;
    assert_eq!(it.store.signing_key("m").await.unwrap(), Some(vec![1]));
}
