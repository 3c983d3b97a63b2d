//! Takes connections from the system, which may have no file descriptors or no memory for them for a while.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::descriptors;

/// How long it is until it is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// After how long without a failure a shortage is over.
const CALM: Duration = Duration::from_secs(10);

/// Whether there is a shortage, so that it is told once and not at each try.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    failed_at: Option<Instant>,
}

impl Shortage {
    /// The next connection. What keeps the system from handing it over is waited for.
    pub(super) async fn accept(&mut self, listener: &TcpListener) -> (TcpStream, SocketAddr) {
        loop {
            match listener.accept().await {
                Ok(connection) => {
                    if self.is_over(Instant::now()) {
                        tracing::info!("takes connections again");
                    }
                    return connection;
                }
                Err(err) if is_of_one_connection(&err) => {}
                Err(err) => {
                    if self.begins(Instant::now()) {
                        tracing::error!("cannot take connections for now: {}", explained(&err));
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// There is another failure. Answers whether it is the first one of a shortage.
    fn begins(&mut self, now: Instant) -> bool {
        let before = self.failed_at.replace(now);
        before.is_none_or(|at| at + CALM <= now)
    }

    /// There is none. Answers whether a shortage has ended by that.
    fn is_over(&mut self, now: Instant) -> bool {
        self.failed_at.take_if(|at| *at + CALM <= now).is_some()
    }
}

/// Whether it is one connection that has failed before it was handed over, and not the next one.
fn is_of_one_connection(err: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(err),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PROTO
                | Errno::PERM
                | Errno::TIMEDOUT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NOPROTOOPT
                | Errno::OPNOTSUPP
        )
    )
}

/// What is missing, and what can be done about it.
fn explained(err: &io::Error) -> String {
    match Errno::from_io_error(err) {
        Some(Errno::MFILE) => {
            let limit = descriptors::limit();
            format!(
                "this process has no more file descriptors, of which it may have {limit}; raise its limit \
                 (`ulimit -n`, or `LimitNOFILE=` of systemd), or lower `connections-max` or `in-flight-max`"
            )
        }
        Some(Errno::NFILE) => {
            "the system has no more file descriptors; raise its limit (`sysctl fs.file-max`)"
                .to_owned()
        }
        Some(Errno::NOBUFS | Errno::NOMEM) => {
            format!("the system has no memory for more connections: {err}")
        }
        _ => err.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_once() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut it = Shortage::default();
        assert!(it.begins(at(0)));
        assert!(!it.begins(at(1)));
        assert!(!it.is_over(at(2)), "one connection makes no difference");
        assert!(!it.begins(at(9)));
        assert!(!it.is_over(at(18)));
        assert!(it.is_over(at(19)));
        assert!(!it.is_over(at(20)));
        assert!(it.begins(at(21)));
        assert!(it.begins(at(40)), "nobody has come in between");
    }

    #[test]
    fn what_is_missing_is_told_with_the_cure() {
        let text = explained(&Errno::MFILE.into());
        assert!(text.contains("no more file descriptors") && text.contains("ulimit -n"), "{text}");
        assert!(explained(&Errno::NFILE.into()).contains("fs.file-max"));
        assert!(is_of_one_connection(&Errno::CONNABORTED.into()));
        assert!(!is_of_one_connection(&Errno::MFILE.into()));
    }
}
