//! How much of the router calls may use at a time: bytes of memory, and calls that are worked on. Each tenant
//! has a part of it, and strangers have little.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hookyard_nouns::refusal::Refusal;
use uuid::Uuid;

use super::budget::{Budget, Hold, Spent};
use crate::fair::{Bounds, Busy, FairSemaphore, Owner, Permit};

/// What the bodies of callers may be together whose token is not known yet, and those from one address.
const STRANGERS_BYTES_MAX: usize = 8 << 20;
const STRANGER_BYTES_MAX: usize = 4 << 20;
/// How many calls read things and build their answers at a time. Whoever comes then waits in turn.
const READS: Bounds = Bounds { all: 16, own: 4, waiting: 1_024 };
/// How many calls change things at a time, which may take as long as an endpoint takes to agree.
const CHANGES: Bounds = Bounds { all: 512, own: 32, waiting: 512 };
/// How many answers are sent line by line at a time. Nobody waits for one: it may take hours.
const STREAMS: Bounds = Bounds { all: 16, own: 4, waiting: 0 };
const STREAMS_OF_CALLER_MAX: usize = 2;

#[derive(Debug)]
pub(super) struct Capacity {
    pub(super) bytes: Arc<Budget<Owner>>,
    pub(super) strange_bytes: Arc<Budget<IpAddr>>,
    reads: FairSemaphore,
    changes: FairSemaphore,
    streams: FairSemaphore,
    streams_of: Arc<Mutex<HashMap<Uuid, usize>>>,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Read,
    Change,
    /// Its body is all that it takes, and that is counted.
    Publish,
}

/// The right to send an answer line by line.
#[derive(Debug)]
pub(super) struct Stream {
    _permit: Permit,
    caller: Uuid,
    streams_of: Arc<Mutex<HashMap<Uuid, usize>>>,
}

impl Capacity {
    pub(super) fn new(bytes_max: usize) -> Capacity {
        Capacity {
            bytes: Budget::new(bytes_max, bytes_max / 2),
            strange_bytes: Budget::new(STRANGERS_BYTES_MAX, STRANGER_BYTES_MAX),
            reads: FairSemaphore::new(READS),
            changes: FairSemaphore::new(CHANGES),
            streams: FairSemaphore::new(STREAMS),
            streams_of: Arc::default(),
        }
    }

    /// Waits until a call may be worked on.
    ///
    /// # Errors
    ///
    /// There is too much to do already.
    pub(super) async fn admit(&self, owner: &Owner, work: Work) -> Result<Option<Permit>, Refusal> {
        let semaphore = match work {
            Work::Read => &self.reads,
            Work::Change => &self.changes,
            Work::Publish => return Ok(None),
        };
        let permit = semaphore.take(owner).await.map_err(|_| {
            let text = "so many of your calls wait that this one cannot; wait for their answers";
            Refusal::TooMany(text.to_owned())
        })?;
        self.bytes.has_room(owner).map_err(no_memory)?;
        Ok(Some(permit))
    }

    /// Takes the right to send an answer line by line.
    ///
    /// # Errors
    ///
    /// Which bound has been met.
    pub(super) fn stream(&self, owner: &Owner, caller: Uuid) -> Result<Stream, Refusal> {
        let refused = |text: String| Refusal::TooMany(text);
        let permit = self.streams.try_take(owner).map_err(|busy| match busy {
            Busy::Own => refused(format!(
                "a tenant may have {} exports, comparisons and downloads at a time; end one of them",
                STREAMS.own
            )),
            Busy::All => refused(format!(
                "there may be {} exports, comparisons and downloads at a time; try again later",
                STREAMS.all
            )),
        })?;
        let mut streams_of = lock(&self.streams_of);
        let count = streams_of.entry(caller).or_default();
        if *count == STREAMS_OF_CALLER_MAX {
            return Err(refused(format!(
                "a token may have {STREAMS_OF_CALLER_MAX} exports, comparisons and downloads at a time; \
                 end one of them"
            )));
        }
        *count += 1;
        let streams_of = Arc::clone(&self.streams_of);
        Ok(Stream { _permit: permit, caller, streams_of })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut streams_of = lock(&self.streams_of);
        let count = streams_of.get_mut(&self.caller).expect("a stream that ends was counted");
        *count -= 1;
        if *count == 0 {
            streams_of.remove(&self.caller);
        }
    }
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why there is no memory for a body or an answer of a tenant.
pub(super) fn no_memory(spent: Spent) -> Refusal {
    Refusal::Unavailable(match spent {
        Spent::Own => "bodies and answers of your calls take as much memory as those of one tenant may (half of \
                       `api-bytes-max`); wait for the answers of others, and read them"
            .to_owned(),
        Spent::All => "bodies and answers of all calls take as much memory as they may (`api-bytes-max`); try \
                       again"
            .to_owned(),
    })
}

/// Why there is no memory for a body of a stranger.
pub(super) fn no_memory_for_strangers(_: Spent) -> Refusal {
    let text = "there are too many bodies of callers without a token; try again";
    Refusal::Unavailable(text.to_owned())
}

/// What a call holds of the memory.
#[derive(Debug)]
pub(super) enum HeldBytes {
    Known(Hold<Owner>),
    Strange(Hold<IpAddr>),
}

#[cfg(test)]
mod tests {
    use hookyard_nouns::event::Tenant;

    use super::*;

    #[test]
    fn streams_are_bounded_for_a_caller_a_tenant_and_all() {
        let capacity = Capacity::new(1_000);
        let tenant = |number: usize| Some(Tenant::new(&format!("t{number}")).unwrap());
        let caller = |number: usize| Uuid::from_u128(number as u128);
        let refused = |owner: &Owner, number| match capacity.stream(owner, caller(number)) {
            Err(Refusal::TooMany(text)) => text,
            other => panic!("{other:?}"),
        };
        let mut held = Vec::new();
        for number in 0..2 {
            held.push(capacity.stream(&tenant(0), caller(0)).unwrap());
            held.push(capacity.stream(&tenant(number), caller(1)).unwrap());
        }
        assert!(refused(&tenant(0), 0).contains("a token may have 2"));
        held.push(capacity.stream(&tenant(0), caller(2)).unwrap());
        assert!(refused(&tenant(0), 3).contains("a tenant may have 4"));
        for number in 0..11 {
            held.push(capacity.stream(&tenant(10 + number), caller(10 + number)).unwrap());
        }
        assert!(refused(&tenant(30), 30).contains("there may be 16"));
        held.clear();
        assert!(lock(&capacity.streams_of).is_empty());
        assert!(capacity.stream(&tenant(0), caller(0)).is_ok());
    }
}
