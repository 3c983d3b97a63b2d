//! Who publishes: over connections that are kept, as fast as answers come or at a rate.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::http1::Inbox;

/// The number of an event, which is its id, has so many digits.
const DIGITS: usize = 12;

/// When each of a row of events was, or was to be, sent.
pub(crate) struct Times {
    start: Instant,
    first: usize,
    /// In nanoseconds after the start.
    sent: Vec<AtomicU64>,
}

impl Times {
    /// Of so many events, from this number on.
    pub(crate) fn of(first: usize, events: usize) -> Times {
        let sent = (0..events).map(|_| AtomicU64::new(0)).collect();
        Times { start: Instant::now(), first, sent }
    }

    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(crate) fn place(&self, number: usize) -> Option<usize> {
        number.checked_sub(self.first).filter(|place| *place < self.sent.len())
    }

    pub(crate) fn sent(&self, place: usize) -> Instant {
        self.start + Duration::from_nanos(self.sent[place].load(Ordering::Relaxed))
    }

    fn send(&self, place: usize, at: Instant) {
        let nanos = at.saturating_duration_since(self.start).as_nanos();
        self.sent[place].store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A request as it is sent, with the places where the numbers of its events are written.
#[derive(Clone)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    numbers: Vec<Range<usize>>,
}

impl Template {
    /// `event` is JSON in which the id is an empty string, and comes first.
    pub(crate) fn new(path: &str, token: &str, event: &str, batch: usize) -> Template {
        let number = "#".repeat(DIGITS);
        let event = event.replacen(r#""id":"""#, &format!(r#""id":"{number}""#), 1);
        let (kind, body) = match batch {
            1 => ("cloudevents", event),
            _ => ("cloudevents-batch", format!("[{}]", vec![event; batch].join(","))),
        };
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/{kind}+json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let places = text.match_indices(&number).map(|(at, _)| at..at + DIGITS);
        Template { numbers: places.collect(), bytes: text.into_bytes() }
    }

    /// The request, with the numbers that were written last.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn batch(&self) -> usize {
        self.numbers.len()
    }

    /// Writes the numbers of its events, from this one on.
    pub(crate) fn number(&mut self, from: usize) {
        for (offset, place) in self.numbers.iter().enumerate() {
            let mut rest = from + offset;
            for digit in self.bytes[place.clone()].iter_mut().rev() {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
                rest /= 10;
            }
        }
    }
}

/// How fast requests are sent.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// The next one when the one before it is answered.
    Saturate,
    /// So many a second, whatever the answers take: what has to wait for a connection waits from then on.
    PerSecond(f64),
}

/// Publishes a row of events, and answers when it began and when all were answered. An event that is not
/// taken ends the measurement.
pub(crate) fn publish(
    target: SocketAddr,
    template: &Template,
    times: &Arc<Times>,
    connections: usize,
    pace: Pace,
) -> (Instant, Instant) {
    let requests = times.len() / template.batch();
    assert_eq!(requests * template.batch(), times.len(), "the last request would be smaller");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let next = Arc::new(AtomicUsize::new(0));
        let turns = Arc::new(Semaphore::new(0));
        let mut sockets = Vec::new();
        for _ in 0..connections {
            let socket = TcpStream::connect(target).await.unwrap();
            socket.set_nodelay(true).unwrap();
            sockets.push(socket);
        }
        let begun = Instant::now();
        let due = move |request: usize| match pace {
            Pace::Saturate => Instant::now(),
            Pace::PerSecond(rate) => begun + Duration::from_secs_f64(request as f64 / rate),
        };
        let is_paced = matches!(pace, Pace::PerSecond(_));
        let metronome = is_paced.then(|| {
            let turns = Arc::clone(&turns);
            thread::spawn(move || {
                for request in 0..requests {
                    thread::sleep(due(request).saturating_duration_since(Instant::now()));
                    turns.add_permits(1);
                }
                turns.close();
            })
        });
        let publishers: Vec<_> = sockets
            .into_iter()
            .map(|mut socket| {
                let (mut template, times) = (template.clone(), Arc::clone(times));
                let (next, turns) = (Arc::clone(&next), Arc::clone(&turns));
                tokio::spawn(async move {
                    let mut inbox = Inbox::new();
                    loop {
                        // When all of them are due, nobody waits for a turn.
                        if is_paced && let Ok(permit) = turns.acquire().await {
                            permit.forget();
                        }
                        let request = next.fetch_add(1, Ordering::Relaxed);
                        if request >= requests {
                            return;
                        }
                        let place = request * template.batch();
                        let at = due(request);
                        for place in place..place + template.batch() {
                            times.send(place, at);
                        }
                        template.number(times.first + place);
                        socket.write_all(&template.bytes).await.unwrap();
                        let answer = inbox.next(&mut socket).await.unwrap().expect("an answer");
                        let head = inbox.head(&answer);
                        assert!(
                            head.starts_with(b"HTTP/1.1 20"),
                            "{}{}",
                            String::from_utf8_lossy(head),
                            String::from_utf8_lossy(inbox.body(&answer))
                        );
                    }
                })
            })
            .collect();
        for publisher in publishers {
            publisher.await.unwrap();
        }
        if let Some(metronome) = metronome {
            metronome.join().unwrap();
        }
        (begun, Instant::now())
    })
}
