//! What attempts mean beyond their delivery: what is known of the endpoint, what becomes of the
//! subscription, and what is announced.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::Dispatcher;
use super::flow::{Bounds, Change, Gate, Went};
use super::settle::Effect;
use crate::clock;
use crate::delivery::Reason;
use crate::event::Tenant;
use crate::formats::Format;
use crate::manage;
use crate::send::Outcome;
use crate::subscription::State;

/// What an attempt says of its endpoint; none where nothing was sent.
pub(super) fn went(format: &dyn Format, outcome: &Outcome) -> Option<Went> {
    match outcome {
        Outcome::Answered { status, .. } if format.is_success(*status) => Some(Went::Well),
        Outcome::Answered { status: 429 | 500..=599, .. } | Outcome::Unreachable(_) => {
            Some(Went::Badly)
        }
        Outcome::Answered { .. } => Some(Went::Refused),
        Outcome::NotSent(_) => None,
    }
}

impl Dispatcher {
    /// Takes in what an attempt says of its endpoint. Where that is to get nothing for a while, what is
    /// in memory goes back to the store.
    pub(super) fn learn(
        &mut self,
        subscription: Uuid,
        tenant: &Tenant,
        went: Option<Went>,
        in_flight_max: Option<u32>,
        reason: Option<&Reason>,
    ) {
        let lane = self.lanes.get_mut(&subscription).expect("an attempted delivery has a lane");
        let now_ms = clock::now_ms();
        let Some(went) = went else { return lane.flow.not_sent(now_ms) };
        let settings = &self.app.settings;
        let bounds = Bounds {
            limit_max: in_flight_max.map_or(settings.subscription_in_flight_max, |it| {
                usize::try_from(it).unwrap_or(usize::MAX)
            }),
            open_ms: settings.endpoint_probe_ms,
        };
        let change = lane.flow.ends(went, lane.in_flight, bounds, now_ms);
        if let Gate::Shut { until_ms } = lane.flow.gate(lane.in_flight, now_ms) {
            self.put_lane_back(subscription, until_ms);
        }
        let what = match change {
            Change::None => return,
            Change::Fails => "endpoint.failing",
            Change::Recovers => "endpoint.recovered",
        };
        self.announce(subscription, tenant, what, reason);
    }

    /// Does what follows for the subscription.
    pub(super) fn follow(
        &mut self,
        subscription: Uuid,
        tenant: &Tenant,
        effect: Effect,
        reason: Option<&Reason>,
    ) {
        let state = match effect {
            Effect::None => return,
            Effect::Disable => Some(State::Disabled),
            Effect::Pause => Some(State::Paused),
            Effect::Remove => None,
        };
        let app = Arc::clone(&self.app);
        self.effects.spawn(async move {
            if let Err(err) =
                manage::subscriptions::stop_delivering(&app, subscription, state).await
            {
                tracing::warn!(%subscription, %err, "cannot stop delivering to a subscription");
            }
        });
        if effect == Effect::Disable {
            self.announce(subscription, tenant, "endpoint.disabled", reason);
        }
    }

    fn announce(
        &mut self,
        subscription: Uuid,
        tenant: &Tenant,
        what: &'static str,
        reason: Option<&Reason>,
    ) {
        let data = json!({"subscription": subscription, "reason": reason});
        let (app, tenant) = (Arc::clone(&self.app), tenant.clone());
        self.effects.spawn(async move {
            if let Err(err) = manage::announce(&app, &tenant, what, data).await {
                tracing::warn!(%subscription, %err, "cannot announce `{what}`");
            }
        });
    }
}
