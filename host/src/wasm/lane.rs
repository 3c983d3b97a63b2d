//! The lane in which code is made: a few threads that wait for compilers, so that nobody else does. No owner has
//! more than one compiler at a time, and who has had the least of them is next: a file that takes the compiler a
//! minute keeps nobody waiting but its owner. Code that is on disk already is loaded beside the compilers, and
//! waits for none of them.

use crate::fair::{Bounds, FairSemaphore, Full, Owner, Pool, Room};

/// How many compilers there are at the same time.
const COMPILERS: usize = 2;
/// How many files are loaded at the same time.
const LOADERS: usize = 1;
/// How much may wait. It holds on to files and configurations.
const ROOM: Room = Room { own_items: 256, own_bytes: 32 << 20, all_bytes: 128 << 20 };
/// How many images there may be, waiting or being made, that nobody waits for. Runs go on without them, and order
/// them again later.
const WORTH: Bounds = Bounds { all: 64, own: 2, waiting: 0 };

/// How soon something is needed, and how long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// To load a file. Somebody waits for it.
    OnDisk,
    /// To compile a file. Somebody waits for it.
    Needed,
    /// It only makes runs faster.
    Worth,
}

/// Threads that wait for compilers and for the disk. They end with their last task when this is dropped.
pub(super) struct Lane {
    compilers: Pool<()>,
    loaders: Pool<()>,
    worth: FairSemaphore,
}

impl Lane {
    /// # Errors
    ///
    /// The system gives no more threads.
    pub(super) fn start() -> std::io::Result<Lane> {
        let compilers = Pool::start("plugin-compiler", vec![(); COMPILERS], 1, 0, ROOM)?;
        let loaders = Pool::start("plugin-loader", vec![(); LOADERS], 1, 0, ROOM)?;
        Ok(Lane { compilers, loaders, worth: FairSemaphore::new(WORTH) })
    }

    /// Begins nothing any more, and waits for nothing.
    pub(super) fn stop(&self) {
        self.compilers.close();
        self.loaders.close();
    }

    /// Does something in the owner's turn. It holds on to so many bytes until then.
    ///
    /// # Errors
    ///
    /// As much waits for the owner as may, or the lane has been stopped.
    pub(super) fn submit(
        &self,
        owner: &Owner,
        rank: Rank,
        bytes: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), Full> {
        let (pool, permit) = match rank {
            Rank::OnDisk => (&self.loaders, None),
            Rank::Needed => (&self.compilers, None),
            Rank::Worth => (&self.compilers, Some(self.worth.try_take(owner).map_err(|_| Full)?)),
        };
        pool.batch().submit(owner, bytes, move |()| {
            let _permit = permit;
            work();
        })
    }

    /// Does something in the owner's turn, and answers what it says; none where as much waits for the owner as
    /// may, or where it panics.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        owner: &Owner,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.compilers.ask(owner, bytes, |()| work()).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use hookyard_nouns::event::Tenant;

    use super::*;

    fn owner(name: &str) -> Owner {
        Some(Tenant::new(name).unwrap())
    }

    #[test]
    fn one_owners_long_work_holds_up_nobody_else() {
        let lane = Lane::start().unwrap();
        let (end, ended) = mpsc::channel::<()>();
        let (done, wait) = mpsc::channel();
        lane.submit(&owner("a"), Rank::Needed, 0, move || _ = ended.recv()).unwrap();
        for name in ["a", "b", "c"] {
            let done = done.clone();
            lane.submit(&owner(name), Rank::Needed, 0, move || done.send(name).unwrap()).unwrap();
        }
        lane.submit(&owner("d"), Rank::Needed, 0, || panic!("on purpose")).unwrap();
        let next = || wait.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!([next(), next()], ["b", "c"]);
        drop(end);
        assert_eq!(next(), "a");
    }

    #[test]
    fn what_nobody_waits_for_leaves_room_for_what_somebody_does() {
        let lane = Lane::start().unwrap();
        let (end, ended) = mpsc::channel::<()>();
        let (done, wait) = mpsc::channel();
        lane.submit(&owner("a"), Rank::Worth, 0, move || _ = ended.recv()).unwrap();
        lane.submit(&owner("a"), Rank::Worth, 0, || ()).unwrap();
        assert_eq!(lane.submit(&owner("a"), Rank::Worth, 0, || ()), Err(Full));
        lane.submit(&owner("a"), Rank::Needed, 0, move || done.send(()).unwrap()).unwrap();
        drop(end);
        wait.recv_timeout(Duration::from_secs(10)).unwrap();
        lane.submit(&owner("a"), Rank::Worth, 0, || ()).expect("the first ones have ended");
    }
}
