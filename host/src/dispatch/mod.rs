//! Stage 3: makes attempts, and records what comes of them.
//!
//! One task owns all of it. A delivery comes from the router in memory, or from the store when it is
//! due again; it waits in its subscription's lane, and lanes take turns. What is known is handed to
//! the store in groups: once, when the first attempt succeeds soon enough.

mod alarms;
mod attempt;
mod back;
mod claim;
mod effects;
mod failing;
mod fetch;
mod flow;
mod lane;
mod pace;
mod set_back;
mod settle;
mod turns;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use crate::app::{App, Ready, Signal, Unrecorded};
use crate::clock;
use crate::delivery::{Delivery, DeliveryState, Reason};
use crate::event::Tenant;
use crate::send::{Outcome, Sent};
use crate::store::Record;
use crate::subscription::{State, Subscription};
use alarms::Alarms;
pub(crate) use attempt::request;
use attempt::{Attempted, attempt};
use claim::{Claimed, claim};
use failing::{Failing, Since};
use flow::Gate;
use lane::{Lane, Open, weight};
use pace::Pace;
use set_back::Watch;
use settle::settle;
use turns::{Room, Turns};

/// How long a first attempt may take before its delivery is recorded as pending.
const UNRECORDED_MAX: Duration = Duration::from_millis(25);
/// How many bytes of deliveries wait in memory. The others wait in the store.
const BYTES_MAX: usize = 64 << 20;
/// How many signals are taken at a time.
const SIGNALS_MAX: usize = 256;

/// See the head of this module.
pub struct Dispatcher {
    app: Arc<App>,
    lanes: HashMap<Uuid, Lane>,
    /// The deliveries in memory.
    open: HashMap<Uuid, Open>,
    bytes: usize,
    /// Lanes with something to send.
    turns: Turns,
    alarms: Alarms,
    watch: Watch,
    pace: Pace,
    failing: Failing,
    /// Deliveries that the store does not know yet, by their age.
    unrecorded: VecDeque<(Instant, Uuid)>,
    attempts: JoinSet<Attempted>,
    /// Which delivery each attempt is for.
    in_flight: HashMap<task::Id, Uuid>,
    /// What is to be fetched, once everything known is handed over to the store.
    fetches: Vec<(Uuid, usize)>,
    claims: JoinSet<Claimed>,
    effects: JoinSet<()>,
    records: Vec<Record>,
}

impl Dispatcher {
    /// Takes up what the last process left.
    ///
    /// # Errors
    ///
    /// The store cannot be read or written.
    pub async fn new(app: Arc<App>) -> crate::store::Result<Dispatcher> {
        app.store.release_claims(clock::now_ms()).await?;
        let mut dispatcher = Dispatcher {
            lanes: HashMap::new(),
            open: HashMap::new(),
            bytes: 0,
            turns: Turns::default(),
            alarms: Alarms::default(),
            watch: Watch::new(),
            pace: Pace::default(),
            failing: Failing::default(),
            unrecorded: VecDeque::new(),
            attempts: JoinSet::new(),
            in_flight: HashMap::new(),
            fetches: Vec::new(),
            claims: JoinSet::new(),
            effects: JoinSet::new(),
            records: Vec::new(),
            app,
        };
        for (subscription, at_ms, announced) in dispatcher.app.store.failing().await? {
            dispatcher.failing.take_up(subscription, Since { at_ms, announced });
        }
        for (subscription, due_ms) in dispatcher.app.store.due().await? {
            dispatcher.due(subscription, due_ms);
        }
        Ok(dispatcher)
    }

    /// Works until it is told to stop; then waits for the requests that are out.
    pub async fn run(
        mut self,
        mut signals: mpsc::Receiver<Signal>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut batch = Vec::with_capacity(SIGNALS_MAX);
        loop {
            let next = self.next_wake_up();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                _ = signals.recv_many(&mut batch, SIGNALS_MAX) => {
                    batch.drain(..).for_each(|signal| self.take(signal));
                }
                Some(ended) = self.attempts.join_next_with_id() => self.ended(ended),
                Some(claimed) = self.claims.join_next() => self.claimed(claimed),
                () = sleep_until(next) => {}
            }
            self.follow_the_clock().await;
            while let Some(ended) = self.attempts.try_join_next_with_id() {
                self.ended(ended);
            }
            while self.effects.try_join_next().is_some() {}
            while let Some(subscription) = self.alarms.sound(clock::now_ms()) {
                self.turn(subscription);
                self.fetch(subscription);
            }
            self.record_the_late();
            self.start_attempts();
            self.hand_over().await;
            for (subscription, limit) in std::mem::take(&mut self.fetches) {
                self.claims.spawn(claim(Arc::clone(&self.app), subscription, limit));
            }
        }
        // Whoever still has something to deliver finds nobody; the store knows of it.
        signals.close();
        self.finish().await;
    }

    async fn finish(mut self) {
        let until = Instant::now() + Duration::from_millis(self.app.settings.shutdown_ms);
        while let Ok(Some(ended)) = timeout_at(until, self.attempts.join_next_with_id()).await {
            self.ended(ended);
            self.hand_over().await;
        }
        while let Ok(Some(_)) = timeout_at(until, self.effects.join_next()).await {}
        // A request that is cut off is made again by the next process.
        self.attempts.shutdown().await;
        self.claims.shutdown().await;
        self.hand_over().await;
    }

    fn take(&mut self, signal: Signal) {
        match signal {
            Signal::Ready(ready) => ready.into_iter().for_each(|it| self.queue(it)),
            Signal::Changed(subscriptions) => {
                for id in subscriptions {
                    // What is in the store has to be looked at, whatever was known of it.
                    self.due(id, clock::now_ms());
                    self.turn(id);
                }
            }
        }
    }

    /// A delivery enters its lane, or waits in the store when there is no room.
    fn queue(&mut self, it: Ready) {
        let (id, subscription) = (it.delivery.id, it.delivery.subscription_id);
        let (weight, now_ms) = (weight(&it.body), clock::now_ms());
        let lane = self.lanes.entry(subscription).or_default();
        let shut_until_ms = match lane.flow.gate(lane.in_flight, now_ms) {
            Gate::Shut { until_ms } => Some(until_ms),
            Gate::Go | Gate::Enough => None,
        };
        let no_memory = self.bytes + weight > BYTES_MAX && self.bytes > 0 && !lane.has_nothing();
        let is_roomy = self.bytes < BYTES_MAX / 2;
        let is_full = shut_until_ms.is_some() || lane.is_full(is_roomy) || no_memory;
        if !is_full {
            lane.queue.push_back(id);
            self.bytes += weight;
        }
        if it.unrecorded.is_some() {
            self.unrecorded.push_back((Instant::now(), id));
        }
        let open = Open {
            tenant: it.tenant,
            event_seq: it.event_seq,
            delivery: it.delivery,
            body: Some(it.body),
            size: 0,
            unrecorded: it.unrecorded,
            is_ours: it.is_ours,
            plugins_us: it.plugins_us,
        };
        self.open.insert(id, open);
        if is_full {
            self.put_back(id, shut_until_ms.unwrap_or(now_ms));
        } else {
            self.turn(subscription);
        }
    }

    /// Gives a lane a turn when it has something to send.
    fn turn(&mut self, subscription: Uuid) {
        let Some(lane) = self.lanes.get_mut(&subscription) else { return };
        let now_ms = clock::now_ms();
        let room =
            lane.flow.gate(lane.in_flight, now_ms) == Gate::Go && lane.rests_until_ms <= now_ms;
        if let Some(first) = lane.queue.front()
            && room
            && !lane.waits
        {
            lane.waits = true;
            self.turns.push(&self.open[first].tenant, subscription);
        }
    }

    fn start_attempts(&mut self) {
        let settings = &self.app.settings;
        let room = Room { requests: settings.in_flight_max, bytes: settings.in_flight_bytes_max };
        while let Some(id) = self.turns.next(room) {
            let lane = self.lanes.get_mut(&id).expect("a lane that waits is there");
            lane.waits = false;
            match self.app.subscription(id) {
                Some(subscription) if subscription.state == State::Active => {
                    if self.has_its_pace(&subscription) {
                        self.start_attempt(&subscription);
                    }
                    self.turn(id);
                }
                Some(_) => self.put_lane_back(id, clock::now_ms()),
                None => self.cancel_lane(id),
            }
            self.fetch(id);
        }
    }

    /// Whether the account takes another delivery now. The lane rests where it does not.
    fn has_its_pace(&mut self, subscription: &Subscription) -> bool {
        let account = (subscription.tenant.clone(), subscription.format);
        let Some(rate) = self.app.account_rate(&account) else { return true };
        let Err(until_ms) = self.pace.count(account, rate, clock::now_ms()) else { return true };
        let lane = self.lanes.get_mut(&subscription.id).expect("the lane has its turn");
        lane.rests_until_ms = until_ms;
        self.alarms.set(until_ms, subscription.id);
        false
    }

    fn start_attempt(&mut self, subscription: &Arc<Subscription>) {
        let lane = self.lanes.get_mut(&subscription.id).expect("the lane has its turn");
        let Some(id) = lane.queue.pop_front() else { return };
        lane.in_flight += 1;
        lane.flow.begins();
        if let Some(until_ms) = pace::rests_until_ms(subscription, clock::now_ms()) {
            lane.rests_until_ms = until_ms;
            self.alarms.set(until_ms, subscription.id);
        }
        let open = self.open.get_mut(&id).expect("a queued delivery is open");
        let body = open.body.take().expect("a queued delivery has its body");
        open.size = body.bytes.len();
        self.bytes -= weight(&body);
        self.turns.begins(&open.tenant, open.size);
        let event = open.delivery.event_id;
        let attempt = attempt(Arc::clone(&self.app), Arc::clone(subscription), id, event, body);
        let task = self.attempts.spawn(attempt);
        self.in_flight.insert(task.id(), id);
    }

    fn ended(&mut self, ended: Result<(task::Id, Attempted), task::JoinError>) {
        let (task, attempted) = match ended {
            Ok(ended) => ended,
            Err(err) => {
                tracing::error!(%err, "an attempt panicked");
                let outcome = Outcome::Unreachable(Reason::new("internal", "a bug of the router"));
                let at_ms = clock::now_ms();
                (err.id(), Attempted { at_ms, sent: Sent::nothing(outcome) })
            }
        };
        let id = self.in_flight.remove(&task).expect("an attempt is for a delivery");
        let open = self.open.remove(&id).expect("an attempted delivery is open");
        self.turns.ends(&open.tenant, open.size);
        let subscription = open.delivery.subscription_id;
        let lane = self.lanes.get_mut(&subscription).expect("an attempted delivery has a lane");
        lane.in_flight -= 1;

        let present = self.app.subscription(subscription);
        let format = self.app.format(present.as_ref().map_or("cloudevents", |it| it.format));
        let pace = present.as_ref().map(|it| &it.pace);
        let jitter = rand::rng().random_range(-1.0..=1.0);
        let Attempted { at_ms, sent } = attempted;
        // The clock may have been set back since it began.
        let took_ms = i64::try_from(sent.took.as_millis()).unwrap_or(0);
        let at_ms = at_ms.min(clock::now_ms() - took_ms);
        let went = effects::went(format, &sent.outcome);
        let open_attempts = open.delivery.attempts;
        let (mut delivery, effect) =
            settle(format, pace, open.delivery, at_ms, sent, open.plugins_us, jitter);
        if present.is_none() && delivery.state == DeliveryState::Retrying {
            (delivery.state, delivery.due_at_ms) = (DeliveryState::Cancelled, None);
        }
        if let Some(due_ms) = delivery.due_at_ms {
            self.due(subscription, due_ms);
        }
        let reason = delivery.reason.clone();
        let attempted = delivery.attempts > open_attempts;
        let is_ordered = delivery.order_key.is_some();
        let is_dead = delivery.state == DeliveryState::Dead;
        let (delivery_id, event) = (delivery.id, delivery.event_id);
        self.record(open.tenant.clone(), open.event_seq, delivery, open.unrecorded, attempted);
        if is_ordered {
            // The next one of its key may go now, or when this one has been tried for too long.
            self.due(subscription, clock::now_ms());
        }
        if is_dead && !open.is_ours {
            let about = json!({
                "delivery": delivery_id, "event": event, "subscription": subscription, "reason": reason,
            });
            self.announce_dead(&open.tenant, about);
        }
        self.follow(subscription, &open.tenant, effect, reason.as_ref());
        self.learn(subscription, &open.tenant, went, present.as_deref(), reason.as_ref());
        self.turn(subscription);
        self.fetch(subscription);
    }

    fn record(
        &mut self,
        tenant: Tenant,
        event_seq: u64,
        delivery: Delivery,
        unrecorded: Option<Arc<Unrecorded>>,
        attempted: bool,
    ) {
        let delivery = Box::new(delivery);
        self.records.push(Record::Delivery { tenant, event_seq, delivery, attempted });
        self.records.extend(unrecorded.and_then(|it| it.one_recorded()));
    }

    /// The store gets to know of deliveries whose first attempt takes its time.
    fn record_the_late(&mut self) {
        let now = Instant::now();
        while let Some((since, id)) = self.unrecorded.front().copied()
            && now - since >= UNRECORDED_MAX
        {
            self.unrecorded.pop_front();
            let Some(open) = self.open.get_mut(&id) else { continue };
            let Some(unrecorded) = open.unrecorded.take() else { continue };
            let (tenant, delivery) = (open.tenant.clone(), open.delivery.clone());
            let event_seq = open.event_seq;
            self.record(tenant, event_seq, delivery, Some(unrecorded), false);
        }
    }

    async fn hand_over(&mut self) {
        if !self.records.is_empty() {
            let records = std::mem::take(&mut self.records);
            self.app.store.record(records).await;
        }
    }

    fn next_wake_up(&self) -> Instant {
        let now = Instant::now();
        let late = self.unrecorded.front().map(|(since, _)| *since + UNRECORDED_MAX);
        let alarm = self.alarms.next_ms().map(|at_ms| {
            let wait_ms = at_ms.saturating_sub(clock::now_ms()).max(0);
            now + Duration::from_millis(wait_ms.unsigned_abs())
        });
        // The wall clock may be set; an alarm is looked at now and then.
        let soon = now + Duration::from_secs(60);
        late.into_iter().chain(alarm).fold(soon, Instant::min)
    }
}
