//! Everything that a delivery's body is made of, so that it can be made anywhere.

use std::sync::Arc;

use hookyard_nouns::cloudevent;
use hookyard_nouns::delivery::{Delivery, Reason};
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Event, Tenant, format_name};
use hookyard_nouns::json::Json;
use hookyard_nouns::refusal::Refusal;
use hookyard_nouns::rendering::Rendering;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::structured;

/// A delivery, with all that its body depends on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reproduction {
    pub delivery: Uuid,
    pub part: u16,
    /// The digest of the body that was sent; none where there never was one.
    pub body_digest: Option<Digest>,
    pub reason: Option<Reason>,
    pub rendering: Rendering,
    pub tenant: Tenant,
    pub event_id: Uuid,
    pub event_format: String,
    /// In the CloudEvents JSON format, the data byte for byte.
    pub event: Json,
    pub alternate_ids: Vec<(String, String)>,
    pub accepted_at_ms: i64,
}

impl Reproduction {
    pub fn new(delivery: &Delivery, event: &Event, rendering: Rendering) -> Reproduction {
        Reproduction {
            delivery: delivery.id,
            part: delivery.part,
            body_digest: delivery.body,
            reason: delivery.reason.clone(),
            rendering,
            tenant: event.tenant.clone(),
            event_id: event.id,
            event_format: event.format.to_owned(),
            event: structured(event, &event.content),
            alternate_ids: event.alternate_ids.clone(),
            accepted_at_ms: event.accepted_at_ms,
        }
    }

    /// The event as it was accepted.
    ///
    /// # Errors
    ///
    /// It is none: the text was changed.
    pub fn event(&self) -> Result<Event, Refusal> {
        let sent = cloudevent::structured(self.event.bytes().clone())?;
        let publication = sent.read().map_err(Refusal::Invalid)?;
        Ok(Event {
            id: self.event_id,
            tenant: self.tenant.clone(),
            format: format_name(&self.event_format),
            content: Arc::new(publication.content),
            alternate_ids: self.alternate_ids.clone(),
            accepted_at_ms: self.accepted_at_ms,
            revision: 0,
        })
    }
}
