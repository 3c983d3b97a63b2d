//! What is seen of a router from outside: how much memory it has, whether it lives, and how soon it says that
//! it is well.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::beat::Beat;
use crate::http1::{Inbox, status};

/// How often there is a look at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A router that is larger than this is killed, before it harms the machine.
const KILLED_ABOVE_MIB: u64 = 6 << 10;
/// How long a connection may take, and how long a thread waits until it looks whether it is over.
const CONNECT: Duration = Duration::from_secs(3);
const NAP: Duration = Duration::from_millis(200);

/// The memory of a process, in MiB.
pub(super) struct Memory {
    pid: u32,
    /// The most that was seen since the attack began, and what the kernel remembers as the most.
    pub(super) most: AtomicU64,
    pub(super) ever: AtomicU64,
    /// The last that was seen before the attack.
    pub(super) before: AtomicU64,
    pub(super) is_dead: AtomicBool,
    pub(super) is_too_large: AtomicBool,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Memory {
        let [most, ever, before] = [0; 3].map(AtomicU64::new);
        let [is_dead, is_too_large] = [false; 2].map(AtomicBool::new);
        Memory { pid, most, ever, before, is_dead, is_too_large }
    }

    /// Looks at it again and again. The attack begins at `from`.
    pub(super) fn watch(&self, from: Instant, beat: &Beat) {
        while !beat.is_over() {
            let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
            // A process that has ended has no memory.
            let (Some(now), Some(ever)) = (mib(&text, "VmRSS:"), mib(&text, "VmHWM:")) else {
                return self.is_dead.store(true, Ordering::Relaxed);
            };
            self.ever.store(ever, Ordering::Relaxed);
            if Instant::now() < from {
                self.before.store(now, Ordering::Relaxed);
            } else {
                self.most.fetch_max(now, Ordering::Relaxed);
            }
            if now > KILLED_ABOVE_MIB {
                self.is_too_large.store(true, Ordering::Relaxed);
                let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).unwrap();
                // It may have ended just now.
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }
}

fn mib(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find(|it| it.starts_with(field))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib >> 10)
}

/// How long `/healthz` took on new connections, and how often it was not answered.
#[derive(Default)]
pub(super) struct Health {
    pub(super) took: Mutex<Vec<(Instant, Duration)>>,
    pub(super) failed: AtomicU64,
}

impl Health {
    /// Asks at each beat. What is not answered counts with the time for which it was waited.
    pub(super) fn watch(&self, address: SocketAddr, beat: &Beat) {
        beat.run(|_, due| {
            if ask(address, beat).is_none() {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            self.took.lock().unwrap().push((due, due.elapsed()));
        });
    }
}

fn ask(address: SocketAddr, beat: &Beat) -> Option<()> {
    let mut socket = TcpStream::connect_timeout(&address, CONNECT).ok()?;
    socket.set_read_timeout(Some(NAP)).ok()?;
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    socket.write_all(request).ok()?;
    let mut inbox = Inbox::new();
    loop {
        match inbox.next_blocking(&mut socket) {
            Ok(answer) => {
                let answer = answer?;
                return (status(inbox.head(&answer)) == Some(200)).then_some(());
            }
            Err(err) if is_time_out(&err) && !beat.is_over() => {}
            Err(_) => return None,
        }
    }
}

/// Nothing has come within the time-out of a socket.
pub(super) fn is_time_out(err: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(err.kind(), TimedOut | WouldBlock)
}
