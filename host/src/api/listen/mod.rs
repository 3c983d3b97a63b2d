//! Takes connections: as many as there may be, each for as long as its client goes on. Knows nothing of
//! what is called.
//!
//! There are few rules, and each is for strangers: a head comes within ten seconds, a body by a least rate,
//! an answer is taken ([`patience`]); there are so many connections in all and from one address ([`places`]);
//! whoever comes beyond them is told so and can still ask for health. What a call may hold of the memory is
//! [`super::capacity`].

mod calls;
mod connection;
mod host;
mod patience;
mod places;
mod shortage;
mod socket;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout_at;

use super::Api;
use crate::config::Settings;
use crate::supervise::Stop;
use calls::Calls;
use patience::{Patience, Watch};
use places::{Full, Place, Places, household};
use shortage::Shortage;

/// How many connections there may be beyond those that there may be: each is told at once that there are
/// too many, or how the router is. Their descriptors are a part of the reserve (`descriptors`).
const BEYOND_MAX: usize = 64;

/// What is known of one connection, by the socket, by its calls and by who looks after it. All of them are
/// in one task, and nobody holds the lock for longer than it takes to change a field.
pub(super) type Shared = Arc<Mutex<Watch>>;

/// A poisoned lock is taken all the same: no holder leaves the watch half changed.
pub(super) fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until it is to stop, and then until the calls that have begun are answered or the time for it is
/// over. Whoever drops this future ends all connections.
pub(super) async fn serve(api: Arc<Api>, router: Router, listener: TcpListener, mut stop: Stop) {
    let (stopping, stopped) = watch::channel(false);
    let mut connections = Connections {
        places: places(&api.app.settings),
        api,
        router,
        stopped,
        all: JoinSet::new(),
        beyond: VecDeque::new(),
    };
    let mut shortage = Shortage::default();
    let mut stop = pin!(stop.asked());
    let until = loop {
        tokio::select! {
            biased;
            until = &mut stop => break until,
            Some(_) = connections.all.join_next() => {}
            (stream, from) = shortage.accept(&listener) => connections.add(stream, from),
        }
    };
    // Whoever connects now is told by the system that nobody listens.
    drop(listener);
    let _ = stopping.send(true);
    let answered = async { while connections.all.join_next().await.is_some() {} };
    if timeout_at(until, answered).await.is_err() {
        tracing::warn!("some calls were not answered, since the time for a stop is over");
    }
}

fn places(settings: &Settings) -> Arc<Places> {
    let all_max = settings.connections_max;
    let address_max = match settings.connections_per_address_max {
        0 => all_max.div_ceil(2),
        count => count,
    };
    Places::new(all_max, address_max)
}

/// All connections that there are.
struct Connections {
    api: Arc<Api>,
    router: Router,
    places: Arc<Places>,
    stopped: watch::Receiver<bool>,
    all: JoinSet<()>,
    /// Those beyond the places, oldest first.
    beyond: VecDeque<Beyond>,
}

/// A connection beyond the places.
struct Beyond {
    from: IpAddr,
    task: AbortHandle,
    watch: Shared,
}

impl Connections {
    fn add(&mut self, stream: TcpStream, from: SocketAddr) {
        match self.places.take(from.ip()) {
            Ok(place) => self.spawn(stream, from, Patience::USUAL, Ok(place)),
            Err(full) if self.make_room_beyond() => {
                self.spawn(stream, from, Patience::SHORT, Err(full));
            }
            // It is closed without a word: so many are being told already.
            Err(_) => {}
        }
    }

    fn spawn(
        &mut self,
        stream: TcpStream,
        from: SocketAddr,
        patience: Patience,
        place: Result<Place, Full>,
    ) {
        let from = household(from.ip());
        let watch = Arc::new(Mutex::new(Watch::new(patience, Instant::now())));
        let calls = Calls {
            api: Arc::clone(&self.api),
            router: self.router.clone(),
            watch: Arc::clone(&watch),
            from,
            beyond: place.as_ref().err().copied(),
        };
        let is_beyond = place.is_err();
        let served = connection::serve(stream, Arc::clone(&watch), calls, self.stopped.clone());
        let task = self.all.spawn(async move {
            served.await;
            // The socket is closed before its place is given back.
            drop(place);
        });
        if is_beyond {
            self.beyond.push_back(Beyond { from, task, watch });
        }
    }

    /// Whether there may be one more connection beyond the places. One that has not asked for anything yet makes
    /// room for it, the oldest of the address with most of them: whoever asks for health does so at once, whoever
    /// dribbles does not, and one address with thousands of them makes room for itself.
    fn make_room_beyond(&mut self) -> bool {
        self.beyond.retain(|it| !it.task.is_finished());
        if self.beyond.len() < BEYOND_MAX {
            return true;
        }
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        self.beyond.iter().for_each(|it| *counts.entry(it.from).or_default() += 1);
        let silent = self.beyond.iter().enumerate().rev();
        let silent = silent.filter(|(_, it)| lock(&it.watch).is_without_call());
        // Of several with as many, the last one that is looked at, which is the oldest.
        let Some((at, _)) = silent.max_by_key(|(_, it)| counts[&it.from]) else { return false };
        let it = self.beyond.remove(at).expect("it was found there");
        it.task.abort();
        true
    }
}
