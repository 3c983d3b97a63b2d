//! The delivery: one event, or a part of one, that is owed to one subscription; and its attempts.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::digest::Digest;
use crate::event::Event;

/// Why something is as it is. `code` is short and stable; `detail` is for reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Reason {
    pub fn code(code: &str) -> Reason {
        Reason { code: code.to_owned(), detail: None }
    }

    pub fn new(code: &str, detail: impl Into<String>) -> Reason {
        Reason { code: code.to_owned(), detail: Some(detail.into()) }
    }
}

/// Where a delivery stands. Filtered, failed and dead are never mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Its first attempt is to come, or is out.
    Pending,
    /// An attempt failed, and there will be another.
    Retrying,
    Delivered,
    /// The schedule is exhausted, or the endpoint refused for good.
    Dead,
    /// Kept until the subscription is resumed.
    Held,
    /// A plugin decided that it is not delivered.
    Filtered,
    /// A plugin could not handle it. Can be replayed after a fix.
    Failed,
    /// The subscription is gone.
    Cancelled,
}

impl DeliveryState {
    pub const ALL: [DeliveryState; 8] = [
        DeliveryState::Pending,
        DeliveryState::Retrying,
        DeliveryState::Delivered,
        DeliveryState::Dead,
        DeliveryState::Held,
        DeliveryState::Filtered,
        DeliveryState::Failed,
        DeliveryState::Cancelled,
    ];

    /// Those in which nothing more is to come, unless the delivery is replayed.
    pub const SETTLED: [DeliveryState; 5] = [
        DeliveryState::Delivered,
        DeliveryState::Dead,
        DeliveryState::Failed,
        DeliveryState::Filtered,
        DeliveryState::Cancelled,
    ];

    pub fn is_settled(self) -> bool {
        DeliveryState::SETTLED.contains(&self)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Pending => "pending",
            DeliveryState::Retrying => "retrying",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Dead => "dead",
            DeliveryState::Held => "held",
            DeliveryState::Filtered => "filtered",
            DeliveryState::Failed => "failed",
            DeliveryState::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<DeliveryState> {
        DeliveryState::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// One event, or one part of it, owed to one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub id: Uuid,
    pub event_id: Uuid,
    pub subscription_id: Uuid,
    pub part: u16,
    /// The hash of the rendering that its body is made by, for ever.
    pub rendering: Digest,
    /// The digest of that body; none where there never was one.
    pub body: Option<Digest>,
    pub state: DeliveryState,
    pub reason: Option<Reason>,
    /// When the next attempt is due; none when there will be none.
    pub due_at_ms: Option<i64>,
    pub attempts: u32,
    /// How many of them were made before it was replayed: the schedule began anew then.
    pub earlier_attempts: u32,
    /// The newest attempt.
    pub last_attempt: Option<Attempt>,
    /// When its event was accepted.
    pub created_at_ms: i64,
    /// Deliveries of a subscription that have the same are made one after the other; none: in any order.
    pub order_key: Option<i64>,
    /// It took too long, and later ones with its key went before it.
    pub passed_over: bool,
}

/// One HTTP request made for a delivery, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    pub at_ms: i64,
    pub duration_ms: u32,
    /// The status of the answer; none where there was no answer.
    pub status: Option<u16>,
    /// The first 16 KiB of the answer's body.
    pub answer: Vec<u8>,
    /// Why it did not succeed.
    pub error: Option<Reason>,
    /// What was sent, and by which rendering.
    pub body: Option<Digest>,
    pub rendering: Digest,
    pub detail: AttemptDetail,
}

/// What an attempt was made of. Times are in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptDetail {
    /// None, each of them, where it was not needed, or not come to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_us: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_us: Option<u32>,
    /// From the request to the head of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_us: Option<u32>,
    /// What the plugins took to make the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugins_us: Option<u32>,
    /// The headers of the request. Secrets are masked.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub headers: Vec<(String, String)>,
}

/// The id of a delivery. Derived, so that routing an event twice makes the same deliveries: a UUIDv7
/// (RFC 9562) with the time of acceptance, whose other bits are a hash and not chance.
pub fn delivery_id(event: &Event, subscription: Uuid, part: u16) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(event.id.as_bytes());
    hash.update(subscription.as_bytes());
    hash.update(part.to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let mut random = [0; 10];
    random.copy_from_slice(&hash[..10]);
    uuid::Builder::from_unix_timestamp_millis(event.accepted_at_ms.unsigned_abs(), &random)
        .into_uuid()
}

/// How long after the previous attempt each attempt is made: the ladder of Standard Webhooks.
pub const DEFAULT_SCHEDULE: [Duration; 10] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Attributes, Content, Tenant};

    #[test]
    fn a_delivery_has_one_id_for_ever() {
        let pairs = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let event = Event {
            id: Uuid::from_u128(1),
            tenant: Tenant::new("t").unwrap(),
            format: "cloudevents",
            content: Arc::new(Content { attributes: Attributes::new(pairs).unwrap(), data: None }),
            alternate_ids: vec![],
            accepted_at_ms: 1_735_689_600_250,
            revision: 0,
        };
        let id = |subscription, part| delivery_id(&event, Uuid::from_u128(subscription), part);
        assert_eq!(id(2, 0).to_string(), "01941f29-7cfa-787b-b36d-020bd0b77b05");
        assert_eq!(id(2, 0).get_version_num(), 7);
        assert_ne!(id(2, 0), id(2, 1));
        assert_ne!(id(2, 0), id(3, 0));
    }
}
