//! The threads that tenants share: who may have how many of them, and how much may wait.

use crate::fair::{Pool, Room};
use crate::marks::{Marks, Slot};

/// How many calls of one tenant may wait for the workers, and how large what they hold may be. Events have a bound
/// of their own.
const WORKERS_ROOM: Room = Room { own_items: 256, own_bytes: 16 << 20, all_bytes: 64 << 20 };
/// How many threads there are for trials, of which one tenant has one at most, and how much later than others they
/// get a core.
pub(super) const TRIAL_THREADS: usize = 2;
const TRIAL_NICENESS: i32 = 5;
/// How much may wait for them: more items than shadows leave there, which have a bound of their own.
const TRIALS_ROOM: Room = Room { own_items: 1_024, own_bytes: 8 << 20, all_bytes: 32 << 20 };
/// How many calls of one tenant may wait for the threads that read and write for the API. The bytes are bounded by
/// `api-bytes-max`.
const PARSERS_ROOM: Room = Room { own_items: 1_024, own_bytes: usize::MAX, all_bytes: usize::MAX };

/// The threads that tenants share.
pub(super) struct Threads {
    pub(super) workers: Pool<Slot>,
    pub(super) trials: Pool<Slot>,
    pub(super) parsers: Pool<()>,
}

/// There is one worker more than one tenant may have, so that there is one for the others whatever its plugins do.
/// There are as many parsers as workers, so that neither can keep the other from a core.
pub(super) fn start(marks: Marks, count: usize) -> std::io::Result<Threads> {
    let mut slots = marks.slots(count + 1 + TRIAL_THREADS)?;
    let trials = slots.split_off(count + 1);
    Ok(Threads {
        workers: Pool::start("worker", slots, count, 0, WORKERS_ROOM)?,
        trials: Pool::start("trial", trials, 1, TRIAL_NICENESS, TRIALS_ROOM)?,
        parsers: Pool::start("api-parser", vec![(); count + 1], count, 0, PARSERS_ROOM)?,
    })
}
