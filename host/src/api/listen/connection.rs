//! One connection from its first byte to its last: HTTP/1.1 by hyper, and one timer for what the client owes.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep_until};

use super::calls::Calls;
use super::patience::Debt;
use super::socket::Socket;
use super::{Shared, lock};

/// How large the head of a request may be. hyper takes 100 headers, unless told otherwise.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How much of a body hyper reads at a time, and of an answer it writes together.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long after a deadline there is another look before it is believed: when the process stood still for a
/// moment, what came meanwhile is found at the same time as that the deadline is over.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// Serves a connection until one side ends it, or the client is too slow.
pub(super) async fn serve(
    stream: TcpStream,
    watch: Shared,
    calls: Calls,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are written whole or in large parts: waiting for more only delays the last one.
    let _ = stream.set_nodelay(true);
    let socket = Socket::new(stream, Arc::clone(&watch));
    let mut http = http1::Builder::new();
    http.max_header_size(HEAD_BYTES_MAX).max_buf_size(BUFFER_BYTES_MAX);
    // Its own timeout for heads also runs while a connection is kept: it is the watch that knows better.
    http.header_read_timeout(None);
    let mut http = pin!(http.serve_connection(socket, calls));
    let mut timer = pin!(sleep_until(Instant::now().into()));
    let mut deadline = Deadline::default();
    let mut stop = pin!(stop.wait_for(|stop| *stop));
    let mut stopping = false;
    poll_fn(|cx| {
        loop {
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                lock(&watch).hurry(Instant::now());
                http.as_mut().graceful_shutdown();
            }
            lock(&watch).is_looked_at(Instant::now());
            // Before the time is up: what has come has come in time.
            if http.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(due) = lock(&watch).due() else { return Poll::Pending };
            match deadline.look(due, Instant::now()) {
                Look::Again(at) if !has_rung(&mut timer, at, cx) => return Poll::Pending,
                Look::Again(_) => {}
                Look::Over(Debt::Body) => lock(&watch).body_is_late(),
                Look::Over(Debt::Other) => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// Whether a timer has rung, which is to ring at this time at the latest. To set it takes a lock of the
/// runtime's, and so it is only set when it would ring too late: when it rings too early, it is looked
/// at again.
fn has_rung(timer: &mut Pin<&mut Sleep>, at: Instant, cx: &mut std::task::Context<'_>) -> bool {
    if timer.is_elapsed() || timer.deadline().into_std() > at {
        timer.as_mut().reset(at.into());
    }
    timer.as_mut().poll(cx).is_ready()
}

/// A deadline that may be over.
#[derive(Debug, Default)]
struct Deadline {
    /// Since when it seems to be.
    seems_over: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It is to be looked at again then.
    Again(Instant),
    Over(Debt),
}

impl Deadline {
    fn look(&mut self, (due, debt): (Instant, Debt), now: Instant) -> Look {
        if now < due {
            self.seems_over = None;
            return Look::Again(due);
        }
        let again = *self.seems_over.get_or_insert(now) + SECOND_LOOK;
        if now < again {
            return Look::Again(again);
        }
        self.seems_over = None;
        Look::Over(debt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_believed_at_the_second_look() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut deadline = Deadline::default();
        let due = (at(100), Debt::Other);
        assert_eq!(deadline.look(due, at(0)), Look::Again(at(100)));
        assert_eq!(deadline.look(due, at(100)), Look::Again(at(150)));
        // Something came.
        assert_eq!(deadline.look((at(200), Debt::Other), at(150)), Look::Again(at(200)));
        assert_eq!(deadline.look((at(200), Debt::Other), at(900)), Look::Again(at(950)));
        assert_eq!(deadline.look((at(200), Debt::Other), at(950)), Look::Over(Debt::Other));
    }
}
