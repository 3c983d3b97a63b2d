//! How long a connection is waited for. Pure: the time is an argument.
//!
//! Only what the client owes is timed: its next request, the rest of a head or of a body, and that it takes
//! its answer. While the router works on a call there is no deadline here.

use std::task::Waker;
use std::time::{Duration, Instant};

use crate::api::exchange::Held;

/// How fast a body has to come at least, once its first seconds are over.
const BODY_BYTES_PER_SECOND: u32 = 8 << 10;
/// A deadline that is missed by this much was not watched: the process stood still. What has come
/// meanwhile may have come in time, and what has not was not waited for.
const STOOD_STILL: Duration = Duration::from_secs(1);
/// How much of what nobody wants is read from a caller who is known, and from a stranger, so that they
/// see their answer. A stranger may be a customer with a body that is too large, and whose token stands in it. A
/// plugin with all that a debugger wants has tens of MiB.
const KNOWN_REST_BYTES_MAX: usize = 64 << 20;
const STRANGE_REST_BYTES_MAX: usize = 4 << 20;

/// How long each thing may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// A head, from its first byte; and the first byte of a new connection.
    head: Duration,
    /// From one request to the next.
    idle: Duration,
    /// How much longer a body may take than by its least rate.
    body: Duration,
    /// Until the client takes more of an answer.
    answer: Duration,
    /// What still comes once the answer is sent, from a caller who is known, and from a stranger.
    known_rest: Duration,
    strange_rest: Duration,
}

impl Patience {
    pub(super) const USUAL: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        body: Duration::from_secs(10),
        answer: Duration::from_secs(30),
        known_rest: Duration::from_secs(10),
        strange_rest: Duration::from_secs(2),
    };

    /// For connections beyond those that there may be: they are to make room for each other.
    pub(super) const SHORT: Patience = Patience {
        head: Duration::from_secs(1),
        idle: Duration::from_secs(1),
        body: Duration::from_secs(1),
        answer: Duration::from_secs(1),
        known_rest: Duration::from_secs(1),
        strange_rest: Duration::from_secs(1),
    };

    /// When the router stops: whoever is in the middle of a call may end it, if it goes on.
    const STOPPING: Patience = Patience {
        head: Duration::from_secs(1),
        idle: Duration::ZERO,
        body: Duration::from_secs(1),
        answer: Duration::from_secs(3),
        known_rest: Duration::from_secs(1),
        strange_rest: Duration::from_secs(1),
    };
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet.
    New(Instant),
    /// The last call has ended.
    Idle(Instant),
    /// A head has begun to come.
    Head(Instant),
    /// There is a call.
    Call,
    /// The answer is sent, and what the client still sends is read away.
    Rest(Instant),
}

/// What a client owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Debt {
    /// More of its body: the call is told.
    Body,
    /// Anything else: the connection ends.
    Other,
}

/// What is known of one connection.
#[derive(Debug)]
pub(in crate::api) struct Watch {
    patience: Patience,
    phase: Phase,
    body: Option<Body>,
    /// Since when the client has not taken more of an answer.
    blocked: Option<Instant>,
    /// The body of the call is not read to its end.
    unread: bool,
    /// The caller has shown a good token.
    known: bool,
    /// What the answers hold that are handed over and not sent yet.
    unsent: Vec<Held>,
}

/// A body that is being read.
#[derive(Debug, Default)]
struct Body {
    bytes: u64,
    /// How long the client has been waited for, before this time.
    waited: Duration,
    /// Since when it is being waited for.
    since: Option<Instant>,
    /// It has come too slowly.
    late: bool,
    reader: Option<Waker>,
}

impl Watch {
    pub(super) fn new(patience: Patience, now: Instant) -> Watch {
        let phase = Phase::New(now);
        Watch {
            patience,
            phase,
            body: None,
            blocked: None,
            unread: false,
            known: false,
            unsent: Vec::new(),
        }
    }

    /// When the first thing is due that the client owes; none when it owes nothing.
    pub(super) fn due(&self) -> Option<(Instant, Debt)> {
        let it = &self.patience;
        let of_phase = match self.phase {
            Phase::New(since) | Phase::Head(since) => Some(since + it.head),
            Phase::Idle(since) => Some(since + it.idle),
            Phase::Rest(since) if self.known => Some(since + it.known_rest),
            Phase::Rest(since) => Some(since + it.strange_rest),
            Phase::Call => None,
        };
        // While an answer is not taken, nothing else is expected.
        let other = self.blocked.map(|since| since + it.answer).or(of_phase);
        let body = self.body.as_ref().and_then(|body| body.due(it.body));
        let all = [other.map(|at| (at, Debt::Other)), body.map(|at| (at, Debt::Body))];
        all.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Whether no whole head has come for a call: then the connection can be ended without harm.
    pub(super) fn is_without_call(&self) -> bool {
        matches!(self.phase, Phase::New(_) | Phase::Idle(_) | Phase::Head(_))
    }

    /// Bytes have come.
    pub(super) fn came(&mut self, now: Instant) {
        if matches!(self.phase, Phase::New(_) | Phase::Idle(_)) {
            self.phase = Phase::Head(now);
        }
    }

    /// A whole head has come.
    pub(super) fn call_begins(&mut self, has_body: bool) {
        self.phase = Phase::Call;
        self.body = has_body.then(Body::default);
        self.unread = has_body;
        self.known = false;
    }

    /// The caller has shown a good token.
    pub(in crate::api) fn is_known(&mut self) {
        self.known = true;
    }

    /// The whole answer has been handed over. What it holds is held until it is sent.
    pub(super) fn call_ends(&mut self, now: Instant, held: Option<Held>) {
        self.unsent.extend(held);
        if self.phase == Phase::Call {
            self.phase = Phase::Idle(now);
        }
    }

    /// Everything that was handed over has been sent. Answers with what was held for it.
    pub(super) fn all_is_sent(&mut self) -> Vec<Held> {
        std::mem::take(&mut self.unsent)
    }

    /// The call wants more of its body, and there is nothing. Answers whether it has come too slowly.
    pub(super) fn body_is_awaited(&mut self, now: Instant, reader: &Waker) -> bool {
        let Some(body) = &mut self.body else { return false };
        body.since.get_or_insert(now);
        match &mut body.reader {
            Some(known) => known.clone_from(reader),
            None => body.reader = Some(reader.clone()),
        }
        body.late
    }

    /// Some of the body has come.
    pub(super) fn body_came(&mut self, now: Instant, bytes: usize) {
        if let Some(body) = &mut self.body {
            body.came(now, bytes);
        }
    }

    /// The call needs no more of its body, of which there may be more or not.
    pub(super) fn body_is_done(&mut self, has_ended: bool) {
        self.body = None;
        self.unread = !has_ended;
    }

    /// The body has come too slowly: the call is told when it looks for more.
    pub(super) fn body_is_late(&mut self) {
        if let Some(body) = &mut self.body {
            body.late = true;
            body.reader.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Whether there may be more of the body, which nobody will read.
    pub(super) fn is_unread(&self) -> bool {
        self.unread
    }

    /// The client takes no more of an answer for now.
    pub(super) fn is_blocked(&mut self, now: Instant) {
        self.blocked.get_or_insert(now);
    }

    /// The client has taken more of an answer.
    pub(super) fn took(&mut self, now: Instant) {
        // What waits for the next request has waited for this one until now.
        if self.blocked.take().is_some()
            && let Phase::Idle(since) = &mut self.phase
        {
            *since = now;
        }
    }

    /// The answer is sent and the connection is to be closed. Answers how many bytes of what still comes
    /// are to be read: whoever is still sending would not see the answer otherwise.
    pub(super) fn closes(&mut self, now: Instant) -> usize {
        let is_sending = self.unread || matches!(self.phase, Phase::Head(_));
        self.phase = Phase::Rest(now);
        self.blocked = None;
        match (is_sending, self.known) {
            (false, _) => 0,
            (true, true) => KNOWN_REST_BYTES_MAX,
            (true, false) => STRANGE_REST_BYTES_MAX,
        }
    }

    /// The router stops.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.patience = Patience::STOPPING;
        self.wait_anew(now);
        if let Some(body) = &mut self.body {
            body.waited = Duration::ZERO;
            body.bytes = 0;
        }
    }

    /// The connection is looked at. If that is long overdue, the process stood still, and the client is waited for
    /// as if it had only now begun to owe what it owes.
    pub(super) fn is_looked_at(&mut self, now: Instant) {
        if self.due().is_some_and(|(due, _)| now >= due + STOOD_STILL) {
            self.wait_anew(now);
        }
    }

    fn wait_anew(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::New(since) | Phase::Idle(since) | Phase::Head(since) | Phase::Rest(since) => {
                *since = now;
            }
            Phase::Call => {}
        }
        self.blocked = self.blocked.map(|_| now);
        if let Some(body) = &mut self.body {
            body.since = body.since.map(|_| now);
        }
    }
}

impl Body {
    fn due(&self, grace: Duration) -> Option<Instant> {
        let since = self.since.filter(|_| !self.late)?;
        let rate = u64::from(BODY_BYTES_PER_SECOND);
        let may_take = grace + Duration::from_millis(self.bytes.saturating_mul(1_000) / rate);
        Some(since + may_take.saturating_sub(self.waited))
    }

    fn came(&mut self, now: Instant, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited += now.duration_since(since);
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        start: Instant,
        watch: Watch,
    }

    impl Case {
        fn new() -> Case {
            let start = Instant::now();
            Case { start, watch: Watch::new(Patience::USUAL, start) }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// After how many milliseconds since the start something is due.
        fn due(&self) -> Option<(u128, Debt)> {
            let (at, debt) = self.watch.due()?;
            Some((at.duration_since(self.start).as_millis(), debt))
        }

        fn waits_for_body(&mut self, ms: u64) -> bool {
            self.watch.body_is_awaited(self.at(ms), Waker::noop())
        }
    }

    #[test]
    fn a_head_has_ten_seconds_from_its_first_byte() {
        let mut it = Case::new();
        assert_eq!(it.due(), Some((10_000, Debt::Other)));
        it.watch.came(it.at(9_000));
        assert_eq!(it.due(), Some((19_000, Debt::Other)));
        it.watch.came(it.at(18_000));
        assert_eq!(it.due(), Some((19_000, Debt::Other)), "more bytes give no more time");
        it.watch.call_begins(false);
        assert_eq!(it.due(), None, "now it is our turn");
        it.watch.call_ends(it.at(50_000), None);
        assert_eq!(it.due(), Some((125_000, Debt::Other)));
        it.watch.came(it.at(60_000));
        assert_eq!(it.due(), Some((70_000, Debt::Other)));
    }

    #[test]
    fn a_body_has_a_least_rate_which_counts_only_while_it_is_waited_for() {
        let mut it = Case::new();
        it.watch.came(it.at(0));
        it.watch.call_begins(true);
        assert_eq!(it.due(), None, "nobody wants it yet");
        assert!(!it.waits_for_body(1_000));
        assert_eq!(it.due(), Some((11_000, Debt::Body)));
        it.watch.body_came(it.at(5_000), 16 << 10);
        assert_eq!(it.due(), None);
        it.waits_for_body(100_000);
        // Ten seconds and two for 16 KiB, of which four are gone.
        assert_eq!(it.due(), Some((108_000, Debt::Body)));
        it.watch.body_is_late();
        assert_eq!(it.due(), None, "the call is told once");
        assert!(it.waits_for_body(160_000));
    }

    #[test]
    fn a_client_is_waited_for_anew_when_the_process_stood_still() {
        let mut it = Case::new();
        it.watch.came(it.at(9_000));
        it.watch.is_looked_at(it.at(19_900));
        assert_eq!(it.due(), Some((19_000, Debt::Other)));
        it.watch.is_looked_at(it.at(30_000));
        assert_eq!(it.due(), Some((40_000, Debt::Other)));
        it.watch.call_begins(true);
        it.waits_for_body(30_000);
        it.watch.body_came(it.at(34_000), 16 << 10);
        it.waits_for_body(34_000);
        it.watch.is_looked_at(it.at(80_000));
        // Ten seconds and two for 16 KiB, of which four are gone.
        assert_eq!(it.due(), Some((88_000, Debt::Body)));
        it.watch.body_is_done(true);
        it.watch.is_blocked(it.at(90_000));
        it.watch.is_looked_at(it.at(200_000));
        assert_eq!(it.due(), Some((230_000, Debt::Other)));
    }

    #[test]
    fn an_answer_is_kept_for_as_long_as_some_of_it_is_taken() {
        let mut it = Case::new();
        it.watch.came(it.at(0));
        it.watch.call_begins(false);
        it.watch.is_blocked(it.at(1_000));
        it.watch.is_blocked(it.at(20_000));
        assert_eq!(it.due(), Some((31_000, Debt::Other)));
        it.watch.took(it.at(30_000));
        assert_eq!(it.due(), None);
        // The call is at its end, and its answer is not.
        it.watch.call_ends(it.at(30_000), None);
        it.watch.is_blocked(it.at(40_000));
        assert_eq!(it.due(), Some((70_000, Debt::Other)));
        it.watch.took(it.at(60_000));
        assert_eq!(it.due(), Some((135_000, Debt::Other)));
    }

    #[test]
    fn what_still_comes_is_read_from_whoever_is_sending() {
        let closing = |has_body: bool, has_ended: Option<bool>, known: bool| {
            let mut it = Case::new();
            it.watch.came(it.at(0));
            it.watch.call_begins(has_body);
            if known {
                it.watch.is_known();
            }
            has_ended.into_iter().for_each(|it_has| it.watch.body_is_done(it_has));
            let bytes = it.watch.closes(it.at(0));
            (bytes, it.due().unwrap().0)
        };
        assert_eq!(closing(false, None, false).0, 0);
        assert_eq!(closing(true, Some(true), true).0, 0);
        assert_eq!(closing(true, Some(false), true), (KNOWN_REST_BYTES_MAX, 10_000));
        assert_eq!(closing(true, None, false), (STRANGE_REST_BYTES_MAX, 2_000));
        let mut it = Case::new();
        it.watch.came(it.at(0));
        assert_eq!(it.watch.closes(it.at(0)), STRANGE_REST_BYTES_MAX, "half a head");
    }

    #[test]
    fn a_stop_gives_a_second_more() {
        let mut it = Case::new();
        it.watch.came(it.at(0));
        it.watch.hurry(it.at(5_000));
        assert_eq!(it.due(), Some((6_000, Debt::Other)));
        it.watch.call_begins(true);
        it.waits_for_body(5_000);
        it.watch.body_came(it.at(5_500), 8 << 10);
        it.waits_for_body(5_500);
        assert_eq!(it.due(), Some((7_000, Debt::Body)));
        let mut it = Case::new();
        it.watch.call_begins(true);
        it.waits_for_body(0);
        it.watch.hurry(it.at(9_000));
        assert_eq!(it.due(), Some((10_000, Debt::Body)));
    }
}
