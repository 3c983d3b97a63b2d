//! Deadlines for what somebody else has to do: to answer, to take a connection, to resolve a name.
//!
//! A timer that fires long after its time says that this process did not run in between: it was
//! stopped, or its machine slept, or its threads had too much to do. What the other side sent in
//! time may then be in a socket that nobody has read yet. So such a deadline holds only once there
//! was a chance to read it.

use std::pin::pin;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{self, Instant};

/// A timer that fires later than this says that the process was held up. Timers have a resolution
/// of a millisecond; the rest is what a busy machine adds.
const LATE: Duration = Duration::from_millis(100);
/// How long there is then to read what has arrived, and to do what follows from it.
const CHANCE: Duration = Duration::from_secs(1);
/// How often in a row the process may be held up before the deadline holds all the same.
const CHANCES_MAX: usize = 3;

/// Waits for somebody else until a deadline. Where the process was held up when the deadline came,
/// there is a second more for what has arrived meanwhile.
///
/// # Errors
///
/// The deadline has come.
pub async fn timeout_at<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut work = pin!(work);
    let mut until = deadline;
    let mut ended = time::timeout_at(until, &mut work).await;
    for _ in 0..CHANCES_MAX {
        if ended.is_ok() || until.elapsed() <= LATE {
            break;
        }
        until = Instant::now() + CHANCE;
        ended = time::timeout_at(until, &mut work).await;
    }
    ended
}

/// The same, for so long from now.
///
/// # Errors
///
/// The time is over.
pub async fn timeout<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    timeout_at(Instant::now() + limit, work).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::{advance, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(15);

    /// Something that another task is to hand over once it runs, as it is with a connection.
    fn handed_over(after: Duration) -> impl Future<Output = u8> {
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            sleep(after).await;
            // Between what has arrived and who waits for it there is more than one task.
            tokio::task::yield_now().await;
            tell.send(7).unwrap();
        });
        async { told.await.unwrap() }
    }

    async fn check(after: Duration, pause: Duration, expected: Option<u8>) {
        let waits = tokio::spawn(timeout(LIMIT, handed_over(after)));
        tokio::task::yield_now().await;
        advance(pause).await;
        assert_eq!(waits.await.unwrap().ok(), expected, "{after:?} {pause:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_arrived_while_the_process_was_held_up_counts() {
        check(Duration::from_secs(2), Duration::from_secs(30), Some(7)).await;
        check(Duration::from_secs(20), Duration::from_secs(30), Some(7)).await;
        check(LIMIT - Duration::from_millis(1), LIMIT + 2 * LATE, Some(7)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_pause_the_deadline_holds() {
        check(LIMIT + Duration::from_millis(1), Duration::ZERO, None).await;
        check(LIMIT - Duration::from_millis(1), Duration::ZERO, Some(7)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_chance_is_short() {
        let began = Instant::now();
        let never = std::future::pending::<()>();
        let waits = tokio::spawn(timeout(LIMIT, never));
        tokio::task::yield_now().await;
        advance(Duration::from_secs(30)).await;
        assert!(waits.await.unwrap().is_err());
        assert_eq!(began.elapsed(), Duration::from_secs(30) + CHANCE);
    }
}
