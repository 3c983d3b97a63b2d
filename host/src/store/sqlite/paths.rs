//! Which index a search of the delivery log goes along.

use hookyard_nouns::delivery::DeliveryState;
use rusqlite::types::Value;
use uuid::Uuid;

use crate::store::DeliveryQuery;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Along {
    Deliveries,
    /// And their deliveries.
    Events,
}

/// A table with its index, the condition that the index knows, and its values.
pub(super) struct Path(
    pub(super) Along,
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) Vec<Value>,
);

/// The one that leaves least to look at, as far as that can be told.
pub(super) fn path(query: &DeliveryQuery, owner: Value) -> Path {
    along_one_thing(query, &owner)
        .or_else(|| along_failures(query, &owner))
        .or_else(|| along_many(query, &owner))
        .unwrap_or(Path(
            Along::Deliveries,
            "deliveries indexed by deliveries_by_tenant",
            "deliveries.tenant = ?",
            vec![owner],
        ))
}

fn along_one_thing(query: &DeliveryQuery, owner: &Value) -> Option<Path> {
    if let Some(id) = query.delivery {
        return Some(Path(Along::Deliveries, "deliveries", "deliveries.id = ?", vec![blob(id)]));
    }
    if let Some(event) = query.event {
        return Some(Path(Along::Events, "events e", "e.id = ?", vec![blob(event)]));
    }
    let subject = query.subject.clone()?;
    Some(Path(
        Along::Events,
        "events e indexed by events_by_subject",
        "e.subject is not null and e.tenant = ? and e.subject = ?",
        vec![owner.clone(), subject.into()],
    ))
}

/// The state, where it is one that has an index. Most deliveries are delivered.
fn state_of(query: &DeliveryQuery) -> Option<DeliveryState> {
    match query.states.as_slice() {
        [one] if *one != DeliveryState::Delivered => Some(*one),
        _ => None,
    }
}

fn subscription_of(query: &DeliveryQuery) -> Option<Uuid> {
    // Of a subscription's deliveries that are pending there is no index, but of all that are.
    let is_pending = query.states == [DeliveryState::Pending];
    query.subscriptions.as_deref()?.first().copied().filter(|_| !is_pending)
}

fn along_failures(query: &DeliveryQuery, owner: &Value) -> Option<Path> {
    if let (Some(id), Some(state)) = (subscription_of(query), state_of(query)) {
        return Some(Path(
            Along::Deliveries,
            "deliveries indexed by deliveries_by_subscription_state",
            "deliveries.state not in ('delivered', 'pending')
             and deliveries.subscription = ? and deliveries.state = ?",
            vec![blob(id), state.as_str().to_owned().into()],
        ));
    }
    if let Some(reason) = query.reason.clone() {
        return Some(Path(
            Along::Deliveries,
            "deliveries indexed by deliveries_by_reason",
            "(deliveries.state = 'held' or deliveries.state = 'filtered' or deliveries.state = 'failed'
              or deliveries.state = 'dead')
             and deliveries.tenant = ?
             and iif(json_valid(deliveries.reason), deliveries.reason ->> 'code', null) = ?",
            vec![owner.clone(), reason.into()],
        ));
    }
    let status = query.status.filter(|it| !(200..300).contains(it))?;
    Some(Path(
        Along::Deliveries,
        "deliveries indexed by deliveries_by_status",
        "deliveries.attempt_status not between 200 and 299
         and deliveries.tenant = ? and deliveries.attempt_status = ?",
        vec![owner.clone(), i64::from(status).into()],
    ))
}

fn along_many(query: &DeliveryQuery, owner: &Value) -> Option<Path> {
    if let Some(id) = subscription_of(query) {
        return Some(Path(
            Along::Deliveries,
            "deliveries indexed by deliveries_by_subscription",
            "deliveries.subscription = ?",
            vec![blob(id)],
        ));
    }
    if let Some(state) = state_of(query) {
        return Some(Path(
            Along::Deliveries,
            "deliveries indexed by deliveries_by_state",
            "deliveries.state <> 'delivered' and deliveries.tenant = ? and deliveries.state = ?",
            vec![owner.clone(), state.as_str().to_owned().into()],
        ));
    }
    let event_type = query.event_type.clone()?;
    Some(Path(
        Along::Events,
        "events e indexed by events_by_type",
        "e.tenant = ? and e.type = ?",
        vec![owner.clone(), event_type.into()],
    ))
}

pub(super) fn blob(id: Uuid) -> Value {
    id.as_bytes().to_vec().into()
}
