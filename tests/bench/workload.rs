//! The way of an event without sockets and plugins, one event after the other: read, stored, matched,
//! encoded, signed and recorded.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use hookyard::formats::{CloudEvents, Format};
use hookyard::secret::ServerKey;
use hookyard::sign::Unsigned;
use hookyard::store::{NewEvent, Record, Sharing, Signals, Sqlite, Store, Unrouted, Usage};
use hookyard_nouns::delivery::{Attempt, AttemptDetail, Delivery, DeliveryState, delivery_id};
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Event, Tenant};
use hookyard_nouns::rendering::Output;
use hookyard_nouns::subscription::Subscription;
use hookyard_nouns::{clock, cloudevent};
use tempfile::TempDir;
use uuid::Uuid;

use super::matching;

/// The word with which this program is asked for it, before the number of events.
pub(crate) const WORK: &str = "work";

pub(crate) fn run(events: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (store, accepted) = open(&folder);
        let subscription = matching::subscription(1, "order.paid");
        store.create_subscription((*subscription).clone(), vec![]).await.unwrap();
        let index = matching::index_of([subscription]);
        for number in 0..events {
            store.accept(vec![read(number)]).await.unwrap();
            let Unrouted { seq: event_seq, event } = accepted.recv().unwrap();
            for subscription in index.matching(&event) {
                let delivery = Box::new(deliver(&event, &subscription));
                let tenant = event.tenant.clone();
                let routed = Record::Routed { tenant: tenant.clone(), seq: event_seq };
                let delivery = Record::Delivery { tenant, event_seq, delivery, attempted: true };
                store.record(vec![delivery, routed]);
            }
            // Otherwise chance would say what goes into one transaction.
            store.flush().await;
        }
        store.close().await;
    });
}

fn open(folder: &TempDir) -> (Sqlite, Receiver<Unrouted>) {
    let key = ServerKey::open(&folder.path().join("key")).unwrap();
    let (sender, accepted) = channel();
    let signals = Signals {
        accepted: Box::new(move |events| {
            events.into_iter().for_each(|it| sender.send(it).unwrap());
        }),
        changed: Box::new(|| ()),
    };
    let path = folder.path().join("store.sqlite");
    (Sqlite::open(&path, key, Sharing::Exclusive, Usage::UNBOUNDED, signals).unwrap(), accepted)
}

fn read(number: usize) -> NewEvent {
    let text = super::event().replacen(r#""id":"""#, &format!(r#""id":"{number:012}""#), 1);
    let sent = cloudevent::structured(Bytes::from(text)).unwrap().read().unwrap();
    NewEvent {
        id: Uuid::now_v7(),
        tenant: Tenant::new("t").unwrap(),
        format: "cloudevents",
        profile: CloudEvents.profile(&sent.content),
        content: Arc::new(sent.content),
        alternate_ids: sent.alternate_ids,
        accepted_at_ms: clock::now_ms(),
    }
}

fn deliver(event: &Event, subscription: &Subscription) -> Delivery {
    let out = Output::new(4 << 20);
    let body = CloudEvents.encode(event, &event.content, &subscription.rendering, out).unwrap();
    let id = delivery_id(event, subscription.id, 0);
    let at_ms = clock::now_ms();
    let headers = CloudEvents.sign(&Unsigned {
        delivery: id,
        event: event.id,
        tenant: &event.tenant,
        url: &subscription.url,
        content_type: body.content_type,
        body: &body.bytes,
        secrets: &subscription.secrets,
        key: None,
        nonce: [7; 16],
        now_ms: at_ms,
    });
    let headers = headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    let (digest, rendering) = (Digest::of(&body.bytes), subscription.rendering_hash);
    let attempt = Attempt {
        number: 1,
        at_ms,
        duration_ms: 1,
        status: Some(200),
        answer: vec![],
        error: None,
        body: Some(digest),
        rendering,
        detail: AttemptDetail { headers, ..AttemptDetail::default() },
    };
    Delivery {
        id,
        event_id: event.id,
        subscription_id: subscription.id,
        part: 0,
        rendering,
        body: Some(digest),
        state: DeliveryState::Delivered,
        reason: None,
        due_at_ms: None,
        attempts: 1,
        earlier_attempts: 0,
        last_attempt: Some(attempt),
        created_at_ms: event.accepted_at_ms,
        order_key: None,
        passed_over: false,
    }
}
