//! The endpoint that deliveries go to. It says 200 to everything, and knows which events have come and when.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::memmem;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::http1::Inbox;
use super::load::Times;

/// How long nothing may come until a measurement has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests to paths that begin so are not answered.
const HANGING: &[u8] = b"POST /hang";

/// An endpoint that takes events, until the process ends.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    watch: Arc<Mutex<Watch>>,
}

/// What has come of the events that are waited for.
struct Watch {
    times: Arc<Times>,
    /// How often each of them is to come, and has come.
    fan_out: u16,
    came: Vec<u16>,
    left: usize,
    /// How long each has taken, in microseconds.
    took: Histogram<u64>,
    last: Instant,
    first: Option<Instant>,
    hanging: usize,
    /// Nothing is answered, and nothing has come.
    holds: bool,
}

/// When events have come.
pub(crate) struct Came {
    pub(crate) first: Instant,
    pub(crate) last: Instant,
    /// From when each was to be sent, in microseconds.
    pub(crate) took: Histogram<u64>,
}

impl Receiver {
    pub(crate) fn start() -> Receiver {
        let watch = Arc::new(Mutex::new(Watch::of(Arc::new(Times::of(0, 0)), 0)));
        let seen = Arc::clone(&watch);
        let address = listen(move |head, body| {
            let mut watch = seen.lock().unwrap();
            if head.starts_with(HANGING) {
                watch.hanging += 1;
                return Reply::None;
            }
            if watch.holds {
                return Reply::None;
            }
            watch.came(body);
            Reply::Ok
        });
        Receiver { address, watch }
    }

    /// Begins to wait for these events, each of which comes so many times.
    pub(crate) fn expect(&self, times: &Arc<Times>, fan_out: u16) {
        let mut watch = self.watch.lock().unwrap();
        *watch = Watch { hanging: watch.hanging, ..Watch::of(Arc::clone(times), fan_out) };
    }

    /// Waits until all of them have come.
    pub(crate) fn wait(&self) -> Came {
        let (mut before, mut since) = (usize::MAX, Instant::now());
        loop {
            let watch = self.watch.lock().unwrap();
            if watch.left == 0 {
                let first = watch.first.unwrap_or(watch.last);
                return Came { first, last: watch.last, took: watch.took.clone() };
            }
            if watch.left != before {
                (before, since) = (watch.left, Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "{} deliveries have not come", watch.left);
            drop(watch);
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// From now on nothing is answered; or everything again.
    pub(crate) fn hold(&self, holds: bool) {
        self.watch.lock().unwrap().holds = holds;
    }

    /// How many requests are not answered.
    pub(crate) fn hanging(&self) -> usize {
        self.watch.lock().unwrap().hanging
    }
}

impl Watch {
    fn of(times: Arc<Times>, fan_out: u16) -> Watch {
        Watch {
            fan_out,
            came: vec![0; times.len()],
            left: usize::from(fan_out) * times.len(),
            times,
            took: Histogram::new_with_bounds(1, 600_000_000, 3).unwrap(),
            last: Instant::now(),
            first: None,
            hanging: 0,
            holds: false,
        }
    }

    fn came(&mut self, body: &[u8]) {
        // What is left of another measurement may come late.
        let Some(place) = number_of(body).and_then(|it| self.times.place(it)) else { return };
        let now = Instant::now();
        self.came[place] += 1;
        if self.came[place] <= self.fan_out {
            self.left -= 1;
            let took = now.saturating_duration_since(self.times.sent(place));
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.took.saturating_record(took.max(1));
            self.last = now;
            self.first.get_or_insert(now);
        }
    }
}

/// The number of an event, which is its id.
pub(crate) fn number_of(body: &[u8]) -> Option<usize> {
    let at = memmem::find(body, br#""id":""#)? + 6;
    let digits = body[at..].iter().take_while(|it| it.is_ascii_digit());
    Some(digits.fold(0, |number, digit| 10 * number + usize::from(digit - b'0')))
}

/// What a request is answered with.
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    /// 200
    Ok,
    /// 200, after which the connection is closed.
    OkAndClose,
    None,
}

/// Listens on loopback, on a thread of its own, until the process ends. `take` gets the head and the body of
/// each request, and says what it is answered with.
pub(crate) fn listen(take: impl Fn(&[u8], &[u8]) -> Reply + Send + Sync + 'static) -> SocketAddr {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let take = Arc::new(take);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.unwrap().block_on(async {
            socket.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(socket).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(socket, Arc::clone(&take)));
            }
        });
    });
    address
}

async fn answer(mut socket: TcpStream, take: Arc<impl Fn(&[u8], &[u8]) -> Reply>) {
    socket.set_nodelay(true).unwrap();
    let mut inbox = Inbox::new();
    while let Ok(Some(message)) = inbox.next(&mut socket).await {
        let reply = take(inbox.head(&message), inbox.body(&message));
        let text: &[u8] = match reply {
            Reply::Ok => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Reply::OkAndClose => {
                b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            }
            Reply::None => continue,
        };
        if socket.write_all(text).await.is_err() || matches!(reply, Reply::OkAndClose) {
            return;
        }
    }
}
