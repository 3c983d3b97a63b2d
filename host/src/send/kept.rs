//! Connections that are kept for the next request, by endpoint.
//!
//! A connection lies here between two requests, and nowhere else: whoever makes a request takes it
//! out. So to stop using what an endpoint had open is to drop what lies here, and nothing has to be
//! remembered of it.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::connect::{Connection, Link};
use crate::fair::{Busy, Owner};

/// Connections to an endpoint that are kept for the next request.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// For how long one is kept that nobody uses.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
/// How often there is a look at what has been kept for long enough.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long a connection may take to be ready again after its answer was read.
const READY: Duration = Duration::from_secs(1);
/// How often all that is kept may be gone through for room.
const MAKE_ROOM_EVERY: Duration = Duration::from_millis(50);

/// Where a connection leads: what has the same can share it.
pub(super) type Origin = (Scheme, Authority);

/// The connections that nobody uses now.
#[derive(Default)]
pub(super) struct Kept(Mutex<State>);

#[derive(Default)]
struct State {
    origins: HashMap<Origin, Place>,
    made_room_at: Option<Instant>,
}

/// What there is for one endpoint.
#[derive(Default)]
struct Place {
    /// Of HTTP/1, the one that was used last at the end.
    idle: Vec<Lying>,
    /// Of HTTP/2, which many requests use at the same time.
    shared: Option<Lying>,
    /// Requests that open a connection, and take another one where it is free before.
    waiting: VecDeque<oneshot::Sender<Connection>>,
    /// How many of them do not wait any more.
    gone: usize,
}

struct Lying {
    connection: Connection,
    /// When it has last been used with success.
    since: Instant,
}

impl Kept {
    /// Must be called within a Tokio runtime.
    pub(super) fn new() -> Arc<Kept> {
        let kept = Arc::<Kept>::default();
        tokio::spawn(sweep(Arc::downgrade(&kept)));
        kept
    }

    /// A connection that is free, if there is one now.
    pub(super) fn take(&self, origin: &Origin) -> Option<Connection> {
        let mut state = self.lock();
        let place = state.origins.get_mut(origin)?;
        let now = Instant::now();
        if let Some(shared) = place.shared.take_if(|it| !it.is_good(now)) {
            drop(shared);
        }
        if let Some(shared) = &mut place.shared {
            shared.since = now;
            return shared.connection.shared();
        }
        while let Some(it) = place.idle.pop() {
            if it.is_good(now) {
                return Some(it.connection);
            }
        }
        None
    }

    /// Waits for a connection that becomes free.
    pub(super) fn wait(self: &Arc<Kept>, origin: &Origin) -> Waiting {
        let (tell, told) = oneshot::channel();
        let mut state = self.lock();
        state.origins.entry(origin.clone()).or_default().waiting.push_back(tell);
        Waiting { kept: Arc::clone(self), origin: origin.clone(), told: Some(told) }
    }

    /// A connection is free. Whoever has waited longest for one gets it.
    pub(super) fn put(&self, origin: Origin, connection: Connection) {
        if !connection.is_open() {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock();
        let place = state.origins.entry(origin).or_default();
        if connection.shared().is_some() {
            place.share(connection, now);
            return;
        }
        let mut connection = connection;
        while let Some(waiting) = place.waiting.pop_front() {
            match waiting.send(connection) {
                Ok(()) => return,
                Err(back) => connection = back,
            }
            place.gone = place.gone.saturating_sub(1);
        }
        if place.idle.len() < IDLE_CONNECTIONS_MAX {
            place.idle.push(Lying { connection, since: now });
        }
    }

    /// The answer to a request has been read to its end: its connection is free as soon as it has
    /// seen that as well.
    pub(super) fn give_back(self: &Arc<Kept>, origin: Origin, mut connection: Connection) {
        if connection.is_open() {
            return self.put(origin, connection);
        }
        if connection.has_ended() {
            return;
        }
        let kept = Arc::clone(self);
        // A connection that is still writing to an endpoint that reads nothing more never becomes
        // ready.
        tokio::spawn(async move {
            if timeout(READY, connection.ready()).await.is_ok_and(|ready| ready) {
                kept.put(origin, connection);
            }
        });
    }

    /// A connection turned out to be dead when a request was sent on it, `at` that time. What lies
    /// here and has not been used since then may be dead as well, and nobody tries it any more.
    pub(super) fn forget(&self, origin: &Origin, dead: &Arc<Link>, at: Instant) {
        let mut state = self.lock();
        let Some(place) = state.origins.get_mut(origin) else { return };
        place.idle.retain(|it| it.since > at);
        // Another one has taken the place of a dead one where a request was quicker than this.
        place.shared.take_if(|it| it.connection.is_over(dead));
    }

    /// There is no socket for another connection: the half of those that lie here that was used
    /// longest ago makes room, of one owner or of all, as the bound that has been met says.
    pub(super) fn make_room(&self, owner: &Owner, busy: Busy) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.made_room_at.is_some_and(|it| now - it < MAKE_ROOM_EVERY) {
            return;
        }
        state.made_room_at = Some(now);
        let is_meant = |it: &Lying| {
            it.connection.is_idle() && (busy == Busy::All || it.connection.owner() == owner)
        };
        let all = state.origins.values().flat_map(|it| it.idle.iter().chain(&it.shared));
        let mut times: Vec<_> = all.filter(|it| is_meant(it)).map(|it| it.since).collect();
        if times.is_empty() {
            return;
        }
        let middle = (times.len() - 1) / 2;
        let (_, until, _) = times.select_nth_unstable(middle);
        let makes_room = |it: &Lying| it.since <= *until && is_meant(it);
        for place in state.origins.values_mut() {
            place.idle.retain(|it| !makes_room(it));
            place.shared.take_if(|it| makes_room(it));
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.lock().origins.retain(|_, place| {
            place.idle.retain(|it| it.is_good(now));
            place.shared.take_if(|it| !it.is_good(now));
            place.waiting.retain(|it| !it.is_closed());
            place.gone = 0;
            !(place.idle.is_empty() && place.shared.is_none() && place.waiting.is_empty())
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Everybody who waits uses the same connection.
    fn share(&mut self, connection: Connection, now: Instant) {
        if self.shared.as_ref().is_some_and(|it| it.is_good(now)) {
            return;
        }
        for waiting in self.waiting.drain(..) {
            let Some(shared) = connection.shared() else { break };
            // Whoever has gone away needs none.
            let _ = waiting.send(shared);
        }
        self.gone = 0;
        self.shared = Some(Lying { connection, since: now });
    }
}

impl Lying {
    fn is_good(&self, now: Instant) -> bool {
        now - self.since <= IDLE_CONNECTION && self.connection.is_open()
    }
}

/// Takes what has been kept for long enough, for as long as somebody keeps connections.
async fn sweep(kept: Weak<Kept>) {
    loop {
        sleep(SWEEP_EVERY).await;
        let Some(kept) = kept.upgrade() else { return };
        kept.sweep();
    }
}

/// A request that waits for a connection that becomes free.
pub(super) struct Waiting {
    kept: Arc<Kept>,
    origin: Origin,
    told: Option<oneshot::Receiver<Connection>>,
}

impl Future for Waiting {
    type Output = Connection;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Connection> {
        let Some(told) = &mut self.told else { return Poll::Pending };
        match Pin::new(told).poll(context) {
            Poll::Ready(told) => {
                self.told = None;
                told.map_or(Poll::Pending, Poll::Ready)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Whoever was served does not stand in the line any more.
        if self.told.take().is_none() {
            return;
        }
        let mut state = self.kept.lock();
        let Some(place) = state.origins.get_mut(&self.origin) else { return };
        place.gone += 1;
        // Not each time: of very many requests to one endpoint, each would go through all of them.
        if place.gone * 2 > place.waiting.len() {
            place.waiting.retain(|it| !it.is_closed());
            place.gone = 0;
        }
    }
}
