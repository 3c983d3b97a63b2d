//! Stage 3: makes attempts, and records what comes of them.
//!
//! One task owns all of it. A delivery comes from the router in memory, or from the store when it is
//! due again; it waits in its subscription's lane, and lanes take turns. What is known is handed to
//! the store in groups: once, when the first attempt succeeds soon enough.

mod alarms;
mod attempt;
mod back;
mod bodies;
mod claim;
mod claims;
mod effects;
mod failing;
mod fetch;
mod flow;
mod follow_ups;
mod lane;
mod pace;
mod set_back;
mod settle;
mod turns;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt;
use serde_json::json;
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use crate::app::App;
use crate::inbox::{Ready, Taken, Unrecorded};
use crate::send::{Outcome, Sent};
use crate::store::Record;
use crate::supervise::Stop;
use alarms::Alarms;
pub(crate) use attempt::request;
use hookyard_nouns::clock;
use hookyard_nouns::delivery::{Delivery, DeliveryState, Reason};
use hookyard_nouns::event::Tenant;
use hookyard_nouns::subscription::{State, Subscription};

use attempt::{Attempted, attempt};
use bodies::Bodies;
use claims::Claims;
use failing::{Failing, Since};
use flow::Gate;
use follow_ups::FollowUps;
use lane::{Lane, Open};
use pace::Pace;
use set_back::Watch;
use settle::settle;
use turns::{Room, Turns};

/// How long a first attempt may take before its delivery is recorded as pending.
const UNRECORDED_MAX: Duration = Duration::from_millis(25);
/// How many bytes of deliveries wait in memory, of all and of one tenant. The others wait in the store.
const BYTES_MAX: usize = 64 << 20;
const OWN_BYTES_MAX: usize = BYTES_MAX / 2;
/// How much of a kind is done in one round. Whatever there is more of waits for the next one, so that nobody waits
/// for the end of a long list of somebody else.
const ROUND_MAX: usize = 256;

/// All deliveries that are under way, and what is known of the endpoints that they go to.
pub struct Dispatcher {
    app: Arc<App>,
    lanes: HashMap<Uuid, Lane>,
    /// The deliveries in memory.
    open: HashMap<Uuid, Open>,
    /// The bodies of those that wait.
    bodies: Bodies,
    /// Lanes with something to send.
    turns: Turns,
    alarms: Alarms,
    watch: Watch,
    pace: Pace,
    failing: Failing,
    /// Deliveries that the store does not know yet, by their age.
    unrecorded: VecDeque<(Instant, Uuid)>,
    attempts: JoinSet<Attempted>,
    /// How long the task of the attempt that began last has waited for a processor.
    lag_ms: Arc<AtomicU64>,
    /// Which delivery each attempt is for.
    in_flight: HashMap<task::Id, Uuid>,
    claims: Claims,
    follow_ups: FollowUps,
    records: Vec<Record>,
    /// When this dispatcher began: what is timed by this clock is never set back.
    began: Instant,
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
            bodies: Bodies::default(),
            turns: Turns::default(),
            alarms: Alarms::default(),
            watch: Watch::new(),
            pace: Pace::default(),
            failing: Failing::default(),
            unrecorded: VecDeque::new(),
            attempts: JoinSet::new(),
            lag_ms: Arc::default(),
            in_flight: HashMap::new(),
            claims: Claims::default(),
            follow_ups: FollowUps::default(),
            records: Vec::new(),
            began: Instant::now(),
            app,
        };
        for (subscription, at_ms, announced) in dispatcher.app.store.failing().await? {
            dispatcher.failing.take_up(subscription, Since { at_ms, announced });
        }
        for (tenant, subscription, due_ms) in dispatcher.app.store.due().await? {
            dispatcher.due(&tenant, subscription, due_ms);
        }
        Ok(dispatcher)
    }

    /// Works until it is told to stop; then waits for the requests that are out, until a time.
    pub async fn run(mut self, mut stop: Stop) {
        let inbox = Arc::clone(&self.app.outgoing);
        let until = loop {
            let next = self.next_wake_up();
            tokio::select! {
                until = stop.asked() => break until,
                () = inbox.wait() => self.take(inbox.take(ROUND_MAX)),
                Some(ended) = self.attempts.join_next_with_id() => self.ended(ended),
                Some(claimed) = self.claims.next() => self.claimed(claimed),
                Some(()) = self.follow_ups.next() => {}
                () = sleep_until(next) => {}
            }
            self.follow_the_clock().await;
            for _ in 0..ROUND_MAX {
                let Some(ended) = self.attempts.try_join_next_with_id() else { break };
                self.ended(ended);
            }
            for _ in 0..ROUND_MAX {
                let Some(subscription) = self.alarms.sound(clock::now_ms()) else { break };
                self.turn(subscription);
                self.fetch(subscription);
            }
            self.record_the_late();
            self.start_attempts();
            self.hand_over();
            // What is claimed is found by records that have just been handed over.
            self.claims.start(&self.app);
        };
        self.finish(until).await;
    }

    async fn finish(mut self, until: Instant) {
        while let Ok(Some(ended)) = timeout_at(until, self.attempts.join_next_with_id()).await {
            self.ended(ended);
            self.hand_over();
        }
        self.follow_ups.finish(until).await;
        // A request that is cut off is made again by the next process.
        self.attempts.shutdown().await;
        self.claims.shutdown().await;
        self.hand_over();
    }

    fn take(&mut self, taken: Taken) {
        crate::fault::point("taking");
        for it in taken.ready {
            self.queue(it);
        }
        for (id, tenant) in taken.changed {
            // What is in the store has to be looked at, whatever was known of it.
            self.due(&tenant, id, clock::now_ms());
            self.turn(id);
        }
    }

    /// A delivery enters its lane, or waits in the store when there is no room. Answers whether it is news.
    fn queue(&mut self, it: Ready) -> bool {
        let (id, subscription) = (it.delivery.id, it.delivery.subscription_id);
        if self.open.contains_key(&id) {
            // An index of the store that is damaged gives out again what is out.
            tracing::error!(delivery = %id, "a delivery was given out twice; `hookyard store check` says more");
            self.records.extend(it.unrecorded.and_then(|it| it.one_recorded()));
            return false;
        }
        let (weight, now_ms) = (self.bodies.weight(&it.tenant, &it.body), clock::now_ms());
        let (held, own) = (self.bodies.bytes(), self.bodies.bytes_of(&it.tenant));
        let lane = self.lane(&it.tenant, subscription);
        let shut_until_ms = match lane.flow.gate(lane.in_flight, now_ms) {
            Gate::Shut { until_ms } => Some(until_ms),
            Gate::Go | Gate::Enough => None,
        };
        // A lane with nothing in memory gets one even so, that no endpoint waits for the others of its tenant.
        let no_memory = (held + weight > BYTES_MAX || own + weight > OWN_BYTES_MAX)
            && held > 0
            && !lane.has_nothing();
        let is_roomy = held < BYTES_MAX / 2 && own < OWN_BYTES_MAX / 2;
        let is_full = shut_until_ms.is_some() || lane.is_full(is_roomy) || no_memory;
        if it.unrecorded.is_some() {
            self.unrecorded.push_back((Instant::now(), id));
        }
        self.bodies.hold(&it.tenant, &it.body);
        self.open.insert(id, Open::new(it));
        if is_full {
            self.put_back(id, shut_until_ms.unwrap_or(now_ms));
        } else {
            self.lanes.entry(subscription).and_modify(|lane| lane.queue.push_back(id));
            self.turn(subscription);
        }
        true
    }

    fn lane(&mut self, tenant: &Tenant, subscription: Uuid) -> &mut Lane {
        self.lanes.entry(subscription).or_insert_with(|| Lane::new(tenant.clone()))
    }

    /// Gives a lane a turn when it has something to send.
    fn turn(&mut self, subscription: Uuid) {
        let Some(lane) = self.lanes.get_mut(&subscription) else { return };
        let now_ms = clock::now_ms();
        let room =
            lane.flow.gate(lane.in_flight, now_ms) == Gate::Go && lane.rests_until_ms <= now_ms;
        if !lane.queue.is_empty() && room && !lane.waits {
            lane.waits = true;
            self.turns.push(&lane.tenant, subscription);
        }
    }

    fn start_attempts(&mut self) {
        let settings = &self.app.settings;
        let room = Room { requests: settings.in_flight_max, bytes: settings.in_flight_bytes_max };
        let now_ms = self.passed_ms();
        self.turns.lags(self.lag_ms.load(Ordering::Relaxed));
        while let Some(id) = self.turns.next(room, now_ms, |it| self.follow_ups.has_room(it)) {
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
        let now_ms = self.passed_ms();
        let lane = self.lanes.get_mut(&subscription.id).expect("the lane has its turn");
        let Some(id) = lane.queue.pop_front() else { return };
        lane.in_flight += 1;
        lane.flow.begins();
        if let Some(until_ms) = pace::rests_until_ms(subscription, clock::now_ms()) {
            lane.rests_until_ms = until_ms;
            self.alarms.set(until_ms, subscription.id);
        }
        let open = self.open.get(&id).expect("a queued delivery is open");
        self.bodies.let_go(&open.tenant, &open.body);
        self.turns.begins(&open.tenant, id, &open.body, now_ms);
        let (event, body) = (open.delivery.event_id, open.body.clone());
        let attempt = attempt(Arc::clone(&self.app), Arc::clone(subscription), id, event, body);
        let (lag, spawned) = (Arc::clone(&self.lag_ms), Instant::now());
        let task = self.attempts.spawn(async move {
            let waited_ms = spawned.elapsed().as_millis();
            lag.store(u64::try_from(waited_ms).unwrap_or(u64::MAX), Ordering::Relaxed);
            attempt.await
        });
        self.in_flight.insert(task.id(), id);
    }

    fn ended(&mut self, ended: Result<(task::Id, Attempted), task::JoinError>) {
        let (task, attempted) = match ended {
            Ok(ended) => ended,
            Err(err) => {
                tracing::error!(%err, "an attempt panicked");
                let outcome = Outcome::Broken(Reason::new("internal", "a bug of the router"));
                let at_ms = clock::now_ms();
                (err.id(), Attempted { at_ms, sent: Sent::nothing(outcome) })
            }
        };
        let id = self.in_flight.remove(&task).expect("an attempt is for a delivery");
        let open = self.open.remove(&id).expect("an attempted delivery is open");
        self.turns.ends(&open.tenant, id, &open.body);
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
            self.due(&open.tenant, subscription, due_ms);
        }
        let reason = delivery.reason.clone();
        let attempted = delivery.attempts > open_attempts;
        let is_ordered = delivery.order_key.is_some();
        let is_dead = delivery.state == DeliveryState::Dead;
        let (delivery_id, event) = (delivery.id, delivery.event_id);
        self.record(open.tenant.clone(), open.event_seq, delivery, open.unrecorded, attempted);
        if is_ordered {
            // The next one of its key may go now, or when this one has been tried for too long.
            self.due(&open.tenant, subscription, clock::now_ms());
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

    fn hand_over(&mut self) {
        if !self.records.is_empty() {
            self.app.store.record(std::mem::take(&mut self.records));
        }
    }
}
