//! What attempts mean beyond their delivery: what is known of the endpoint, what becomes of the
//! subscription, and what is announced.

use std::sync::Arc;

use hookyard_nouns::clock;
use hookyard_nouns::delivery::Reason;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::subscription::{State, Subscription};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Dispatcher;
use super::failing::Turn;
use super::flow::{Bounds, Change, Gate, Went};
use super::settle::Effect;
use crate::formats::Format;
use crate::manage;
use crate::send::Outcome;
use crate::store::Record;

/// What an attempt says of its endpoint; none where nothing was sent.
pub(super) fn went(format: &dyn Format, outcome: &Outcome) -> Option<Went> {
    match outcome {
        Outcome::Answered { status, .. } if format.is_success(*status) => Some(Went::Well),
        Outcome::Answered { status: 429 | 500..=599, .. } | Outcome::Unreachable(_) => {
            Some(Went::Badly)
        }
        Outcome::Answered { .. } => Some(Went::Refused),
        Outcome::NotSent(_) | Outcome::Broken(_) => None,
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
        present: Option<&Subscription>,
        reason: Option<&Reason>,
    ) {
        let lane = self.lanes.get_mut(&subscription).expect("an attempted delivery has a lane");
        let now_ms = clock::now_ms();
        let Some(went) = went else { return lane.flow.not_sent(now_ms) };
        let settings = &self.app.settings;
        let bounds = Bounds {
            limit_max: present
                .and_then(|it| it.pace.in_flight_max)
                .map_or(settings.subscription_in_flight_max, |it| {
                    usize::try_from(it).unwrap_or(usize::MAX)
                }),
            open_ms: settings.endpoint_probe_ms,
        };
        let limit_ms = settings.endpoint_disable_ms;
        let change = lane.flow.ends(went, lane.in_flight, bounds, now_ms);
        if let Gate::Shut { until_ms } = lane.flow.gate(lane.in_flight, now_ms) {
            self.put_lane_back(subscription, until_ms);
        }
        match change {
            Change::None => {}
            Change::Fails => self.announce(subscription, tenant, "endpoint.failing", reason),
            Change::Recovers => self.announce(subscription, tenant, "endpoint.recovered", reason),
        }
        let turn = match went {
            Went::Well => self.failing.succeeded(subscription),
            Went::Refused | Went::Badly => {
                let changed_ms = present.map_or(0, |it| it.updated_at_ms);
                self.failing.failed(subscription, changed_ms, now_ms, limit_ms)
            }
        };
        self.take_turn(subscription, tenant, turn, reason);
    }

    /// Keeps since when an endpoint fails, announces what is to come of that, and disables it.
    fn take_turn(
        &mut self,
        subscription: Uuid,
        tenant: &Tenant,
        turn: Turn,
        reason: Option<&Reason>,
    ) {
        let since = match turn {
            Turn::None => return,
            Turn::Begins(since) | Turn::Announce(since) => Some((since.at_ms, since.announced)),
            Turn::Disable(_) | Turn::Ends => None,
        };
        let tenant_of = tenant.clone();
        self.records.push(Record::Failing { tenant: tenant_of, subscription, since });
        match turn {
            Turn::None | Turn::Begins(_) | Turn::Ends => {}
            Turn::Announce(_) => {
                self.announce(subscription, tenant, "endpoint.disabling", reason);
            }
            Turn::Disable(since) => {
                let since = clock::rfc3339(since.at_ms);
                let why = format!("nothing but failures since {since}");
                let why = Reason::new("failed-too-long", why);
                self.follow(subscription, tenant, Effect::Disable, Some(&why));
            }
        }
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
        self.follow_ups.begin(tenant, async move {
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

    /// Announces that a delivery is dead, where anybody wants to know.
    pub(super) fn announce_dead(&mut self, tenant: &Tenant, about: Value) {
        let (app, of) = (Arc::clone(&self.app), tenant.clone());
        self.follow_ups.begin(tenant, async move {
            if let Err(err) = manage::announce_if_wanted(&app, &of, "delivery.dead", about).await {
                tracing::warn!(%err, "cannot announce a dead delivery");
            }
        });
    }

    fn announce(
        &mut self,
        subscription: Uuid,
        tenant: &Tenant,
        what: &'static str,
        reason: Option<&Reason>,
    ) {
        let data = json!({"subscription": subscription, "reason": reason});
        let (app, of) = (Arc::clone(&self.app), tenant.clone());
        self.follow_ups.begin(tenant, async move {
            if let Err(err) = manage::announce(&app, &of, what, data).await {
                tracing::warn!(%subscription, %err, "cannot announce `{what}`");
            }
        });
    }
}
