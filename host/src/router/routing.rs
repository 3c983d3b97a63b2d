//! One event on its way: who wants it, what each of them gets, and who is told.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec;

use hookyard_nouns::clock;
use hookyard_nouns::delivery::Reason;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::Event;
use hookyard_nouns::rendering::Rendered;
use hookyard_nouns::subscription::Subscription;
use uuid::Uuid;

use super::deliveries::Out;
use super::memory::Place;
use super::needs::Need;
use super::{READ_AGAIN, Router};
use crate::app::App;
use crate::health::Who;
use crate::inbox::Unrecorded;
use crate::marks::{self, Slot, Work};
use crate::render::render;
use crate::store::{Quarantine, Record, Unrouted};
use crate::wasm::{self, Making};

/// How long a worker stays with one event, and how much it makes of it meanwhile. Then others have their turn.
const TURN: Duration = Duration::from_millis(5);
/// How many renderings are kept for further subscriptions, and how many bytes of bodies.
const SHARED_ITEMS_MAX: usize = 256;
const SHARED_BYTES_MAX: usize = 4 << 20;
/// How often it is tried to find out who wants an event.
const MATCHES_MAX: usize = 3;

/// An event that is being routed, between and within its turns on the workers.
pub(super) struct Routing {
    pub(super) router: Arc<Router>,
    pub(super) app: Arc<App>,
    pub(super) event: Arc<Event>,
    pub(super) seq: u64,
    _place: Place,
    /// The event may have been routed before, in part.
    again: bool,
    /// What was recorded then; none until it has been read.
    pub(super) recorded: Option<HashSet<Uuid>>,
    /// The index has been brought up to date since the event came.
    pub(super) caught_up: bool,
    /// Who is still to get it; none until that is known.
    remaining: Option<vec::IntoIter<Arc<Subscription>>>,
    is_wanted_by_several: bool,
    matches: usize,
    /// The one whose turn it is, and how often its plugin could not be run.
    current: Option<Arc<Subscription>>,
    pub(super) runs: usize,
    /// Those that miss the code of a plugin: the others go before them.
    postponed: Vec<Arc<Subscription>>,
    /// What the last of them misses.
    missing: Option<Making>,
    /// Until when code is waited for in memory; none as long as none was missed.
    pub(super) code_until: Option<Instant>,
    /// What is the same for several subscriptions.
    shared: HashMap<Digest, (Rendered, Option<u32>)>,
    shared_bytes: usize,
    /// Holds the event until all of its deliveries are counted.
    pub(super) unrecorded: Arc<Unrecorded>,
    pub(super) now_ms: i64,
}

/// What comes after a turn.
enum Next {
    End,
    Turn,
    Wait(Need),
}

impl Routing {
    /// `again`: the event may have been routed in part before.
    pub(super) fn new(
        router: Arc<Router>,
        app: Arc<App>,
        it: Unrouted,
        place: Place,
        again: bool,
    ) -> Routing {
        Routing {
            unrecorded: Arc::new(Unrecorded::new(it.event.tenant.clone(), it.seq)),
            recorded: (!again).then(HashSet::new),
            router,
            app,
            event: it.event,
            seq: it.seq,
            _place: place,
            again,
            caught_up: false,
            remaining: None,
            is_wanted_by_several: false,
            matches: 0,
            current: None,
            runs: 0,
            postponed: Vec::new(),
            missing: None,
            code_until: None,
            shared: HashMap::new(),
            shared_bytes: 0,
            now_ms: clock::now_ms(),
        }
    }

    /// Takes a turn on a worker, and what comes after it.
    pub(super) fn go_on(mut self, slot: &mut Slot) {
        let mut out = Out::default();
        slot.mark(Work { event: self.event.id, rendering: None });
        // What panics here costs one delivery, and not the event for all others who want it.
        let turn = catch_unwind(AssertUnwindSafe(|| self.turn(slot, &mut out)));
        slot.clear();
        let next = turn.unwrap_or_else(|_| self.panicked(&mut out));
        if matches!(next, Next::End) {
            out.records.extend(self.unrecorded.one_recorded());
        }
        self.hand_over(out);
        match next {
            Next::End => {}
            Next::Turn => self.queue(),
            Next::Wait(need) => {
                let handle = self.router.handle.clone();
                handle.spawn(async move {
                    self.wait_for(need).await;
                    self.queue();
                });
            }
        }
    }

    fn queue(self) {
        let (app, owner) = (Arc::clone(&self.app), Some(self.event.tenant.clone()));
        app.workers.go_on(&owner, move |slot| self.go_on(slot));
    }

    fn turn(&mut self, slot: &mut Slot, out: &mut Out) -> Next {
        let start = Instant::now();
        if let Some(need) = self.need() {
            return Next::Wait(need);
        }
        self.find_who_wants_it();
        loop {
            let next = self.remaining.as_mut().and_then(Iterator::next);
            let Some(subscription) = self.current.take().or(next) else {
                return self.wait_for_code();
            };
            self.current = Some(Arc::clone(&subscription));
            match self.render_for(&subscription, slot, out) {
                Ok(()) => {}
                Err(Need::Code(making)) => {
                    self.missing = Some(making);
                    self.postponed.push(subscription);
                }
                Err(need) => return Next::Wait(need),
            }
            self.current = None;
            self.runs = 0;
            if out.is_large() || start.elapsed() > TURN {
                return Next::Turn;
            }
        }
    }

    /// What comes after all that could be rendered.
    fn wait_for_code(&mut self) -> Next {
        let Some(making) = self.missing.take() else { return Next::End };
        self.remaining = Some(std::mem::take(&mut self.postponed).into_iter());
        Next::Wait(Need::Code(making))
    }

    fn find_who_wants_it(&mut self) {
        if self.remaining.is_some() {
            return;
        }
        self.matches += 1;
        let wanted = if self.app.set_aside.has_event(self.event.id) {
            tracing::error!(event = %self.event.id, "an event is left out: matching it has ended the process twice");
            Vec::new()
        } else {
            self.app.index().matching(&self.event)
        };
        self.is_wanted_by_several = wanted.len() > 1;
        self.remaining = Some(wanted.into_iter());
    }

    /// A bug of ours: it ends this delivery, or the event where nobody knows who wants it.
    fn panicked(&mut self, out: &mut Out) -> Next {
        let Some(subscription) = self.current.take() else {
            tracing::error!(event = %self.event.id, "matching an event panicked");
            let is_last = self.matches >= MATCHES_MAX;
            return if is_last { Next::End } else { Next::Wait(Need::Pause(READ_AGAIN)) };
        };
        tracing::error!(event = %self.event.id, subscription = %subscription.id, "routing panicked");
        let reason = Reason::new("internal", "a bug of the router; its log says more");
        self.fail(&subscription, reason, out);
        Next::Turn
    }

    /// # Errors
    ///
    /// Something has to be waited for before this subscription, or the next one, has its turn.
    fn render_for(
        &mut self,
        subscription: &Subscription,
        slot: &mut Slot,
        out: &mut Out,
    ) -> Result<(), Need> {
        let runs = |plugin| subscription.rendering.steps.iter().any(|it| it.plugin == plugin);
        let quarantine = self.app.health.quarantine_of(subscription.id);
        let quarantine = quarantine.filter(|it| runs(it.plugin));
        if let Some(quarantine) = &quarantine
            && !self.again
        {
            self.hold(subscription, quarantine, out);
            return Ok(());
        }
        // Only what does not depend on the subscription can be the same for others.
        let shared = subscription.rendering.addressee.is_none();
        let known = self.shared.get(&subscription.rendering_hash).cloned();
        let is_new = known.is_none();
        let mut begins = None;
        let (rendered, plugins_us) = match known {
            Some(known) => known,
            None => match self.render(subscription, slot, &mut begins, out)? {
                Some(rendered) => rendered,
                None => return Ok(()),
            },
        };
        if shared && is_new {
            self.share(subscription.rendering_hash, &rendered, plugins_us);
        }
        self.show_to_shadow(subscription, &rendered);
        match rendered {
            Rendered::Bodies(bodies) => {
                for (part, body) in bodies.into_iter().enumerate() {
                    self.deliver(subscription, part, body, is_new, plugins_us, out);
                }
            }
            Rendered::Filtered(reason) => self.filtered(subscription, reason, out),
            // What was sent before a crash that left no trace of it has had a body, and keeps it.
            Rendered::Failed(_) if let Some(quarantine) = &quarantine => {
                self.hold(subscription, quarantine, out);
            }
            Rendered::Failed(reason) => self.fail(subscription, reason, out),
        }
        match begins {
            Some(quarantine) => {
                self.current = None;
                Err(Need::Quarantine(quarantine))
            }
            None => Ok(()),
        }
    }

    /// Runs the pipeline; none where the router could not, and the delivery has been put off. `begins` becomes
    /// the quarantine that follows from what its plugins did.
    ///
    /// # Errors
    ///
    /// It could not be run now, and is to be tried again.
    fn render(
        &mut self,
        subscription: &Subscription,
        slot: &mut Slot,
        begins: &mut Option<Box<Quarantine>>,
        out: &mut Out,
    ) -> Result<Option<(Rendered, Option<u32>)>, Need> {
        let (app, event) = (&self.app, &self.event);
        if app.set_aside.has(event.id, subscription.rendering_hash) {
            return Ok(Some((Rendered::Failed(marks::set_aside_reason()), None)));
        }
        if self.is_wanted_by_several {
            slot.mark(Work { event: event.id, rendering: Some(subscription.rendering_hash) });
        }
        crate::fault::point("rendering");
        let format = app.format(subscription.format);
        let bytes_max = app.settings.delivery_bytes_max;
        let rendered = render(&app.runtime, format, event, &subscription.rendering, bytes_max);
        let (rendered, runs) = match rendered {
            Ok(rendered) => rendered,
            Err(fault) => return self.not_run(subscription, fault, out).map_or(Ok(None), Err),
        };
        let plugins_us = wasm::time_us(&runs);
        if !runs.is_empty() {
            let who = Who { tenant: &event.tenant, subscription: subscription.id, event: event.id };
            let (lines, quarantine) = app.count_runs(who, &rendered, runs);
            out.records.extend(lines.into_iter().map(|it| Record::Log(Box::new(it))));
            *begins = quarantine.map(Box::new);
        }
        Ok(Some((rendered, plugins_us)))
    }

    fn share(&mut self, rendering: Digest, rendered: &Rendered, plugins_us: Option<u32>) {
        let bytes = match rendered {
            Rendered::Bodies(bodies) => bodies.iter().map(|body| body.bytes.len()).sum(),
            Rendered::Filtered(_) | Rendered::Failed(_) => 0,
        };
        if self.shared_bytes + bytes > SHARED_BYTES_MAX || self.shared.len() >= SHARED_ITEMS_MAX {
            // Whoever comes later with one of these has it made again.
            self.shared.clear();
            self.shared_bytes = 0;
        }
        self.shared_bytes += bytes;
        self.shared.insert(rendering, (rendered.clone(), plugins_us));
    }

    fn hand_over(&self, out: Out) {
        crate::fault::point("rendered");
        if !out.records.is_empty() {
            self.app.store.record(out.records);
        }
        let tenant = &self.event.tenant;
        if !out.changed.is_empty() {
            // One that was paused may have been resumed in between.
            self.app.outgoing.changed(tenant, out.changed);
        }
        if !out.ready.is_empty() {
            self.app.outgoing.put(tenant, out.ready);
        }
    }
}
