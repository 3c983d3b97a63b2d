//! Who is measured: a tenant that publishes single events at a steady pace over connections that are kept, to
//! one endpoint that is well. Nothing of it is out of the ordinary.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::beat::Beat;
use super::victim::Victim;
use super::watch::is_time_out;
use crate::harness::plugins::filter_module;
use crate::http1::{Inbox, status};
use crate::load::Template;
use crate::receiver::{Reply, listen, number_of};

/// How many events a second, and over how many connections.
pub(super) const PER_SECOND: u32 = 100;
pub(super) const CONNECTIONS: usize = 8;
/// After how long it tries again what was not taken.
const AGAIN: Duration = Duration::from_millis(50);
const NAP: Duration = Duration::from_millis(200);
/// How long the log may take until it knows what has become of everything.
const LOG_PATIENCE: Duration = Duration::from_secs(20);
const CALL_PATIENCE: Duration = Duration::from_secs(5);
/// To this path, its endpoint gets what is only to show that its name is found.
const PROBE: &str = "/probe";

/// When something has happened, in microseconds after the start; 0: it has not.
type Times = Vec<AtomicU64>;

pub(super) struct Neighbour {
    address: SocketAddr,
    template: Template,
    endpoint: SocketAddr,
    seen: Arc<Seen>,
    answered: Times,
    /// What it was told that was not 202, by status.
    pub(super) refused: Mutex<BTreeMap<String, usize>>,
}

/// What its endpoint has seen.
struct Seen {
    start: Instant,
    came: Times,
    /// How often something came that had come before.
    twice: AtomicUsize,
    probes: AtomicUsize,
}

/// What has become of an event.
pub(super) struct Told {
    pub(super) due: Instant,
    /// From when it was due, in milliseconds; none where it has not happened.
    pub(super) answered_ms: Option<f64>,
    pub(super) came_ms: Option<f64>,
}

fn times(count: usize) -> Times {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

fn is_probe(head: &[u8]) -> bool {
    head.strip_prefix(b"POST ").is_some_and(|it| it.starts_with(PROBE.as_bytes()))
}

/// Notes that something has happened. Answers whether it is for the first time.
fn happens(times: &Times, number: usize, start: Instant) -> bool {
    let Some(time) = times.get(number) else { return true };
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
    time.compare_exchange(0, micros, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

impl Neighbour {
    /// Is there with its endpoint, and publishes nothing yet. It will be so many events.
    /// With `closes`, its endpoint closes each connection, so that its name is looked up for each delivery.
    pub(super) fn new(victim: &Victim, events: usize, closes: bool) -> Neighbour {
        let seen = Arc::new(Seen {
            start: Instant::now(),
            came: times(events),
            twice: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
        });
        let sees = Arc::clone(&seen);
        let endpoint = listen(move |head, body| {
            if is_probe(head) {
                sees.probes.fetch_add(1, Ordering::Relaxed);
            } else if let Some(number) = number_of(body)
                && !happens(&sees.came, number, sees.start)
            {
                sees.twice.fetch_add(1, Ordering::Relaxed);
            }
            if closes { Reply::OkAndClose } else { Reply::Ok }
        });
        Neighbour {
            address: victim.address,
            template: Template::new("/v1/events", &victim.neighbour, &crate::event(), 1),
            endpoint,
            seen,
            answered: times(events),
            refused: Mutex::default(),
        }
    }

    /// Subscribes to what it publishes.
    pub(super) fn subscribe(&self, victim: &Victim, host: &str) {
        let url = format!("http://{host}:{}/", self.endpoint.port());
        let body = json!({"name": "mine", "url": url, "filters": [{"type": "*"}]});
        victim.wait_for(victim.client().post("/v1/subscriptions", &body)).expect(201);
    }

    /// Whether the router finds this name, of the name server that it was told of. The attacker's tenant
    /// asks, so that nothing of it stays in the neighbour's log.
    pub(super) fn is_found_by(&self, victim: &Victim, host: &str) -> bool {
        let client = victim.client().with_token(Some(&victim.attacker));
        let url = format!("http://{host}:{}{PROBE}", self.endpoint.port());
        let body = json!({"name": "probe", "url": url, "filters": [{"type": "probe"}]});
        let event = json!({"id": "1", "source": "/probe", "specversion": "1.0", "type": "probe"});
        victim.wait_for(async {
            client.post("/v1/subscriptions", &body).await.expect(201);
            client.publish(&event).await.expect(202);
        });
        let until = Instant::now() + Duration::from_secs(3);
        while self.seen.probes.load(Ordering::Relaxed) == 0 {
            if Instant::now() > until {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Publishes at each beat, over one connection; several threads do so. An event that is not taken is sent
    /// again, as a publisher would that wants it to be delivered.
    pub(super) fn publish(&self, beat: &Beat) {
        let (mut template, mut line) = (self.template.clone(), None);
        beat.run(|number, _| {
            template.number(number);
            while !beat.is_over() {
                let told = match ask(self.address, &mut line, template.bytes(), beat) {
                    Some(202) => {
                        happens(&self.answered, number, self.seen.start);
                        return;
                    }
                    Some(status) => status.to_string(),
                    None => {
                        line = None;
                        "no answer".to_owned()
                    }
                };
                // Otherwise it is the neighbour that has given up.
                if !beat.is_over() {
                    *self.refused.lock().unwrap().entry(told).or_default() += 1;
                    thread::sleep(AGAIN);
                }
            }
        });
    }

    pub(super) fn have_all_come(&self) -> bool {
        self.seen.came.iter().all(|it| it.load(Ordering::Relaxed) > 0)
    }

    pub(super) fn twice(&self) -> usize {
        self.seen.twice.load(Ordering::Relaxed)
    }

    /// What has become of each event.
    pub(super) fn told(&self, beat: &Beat) -> Vec<Told> {
        let after = |due: Instant, time: &AtomicU64| {
            let micros = Some(time.load(Ordering::Relaxed)).filter(|it| *it > 0)?;
            let at = self.seen.start + Duration::from_micros(micros);
            Some(at.saturating_duration_since(due).as_secs_f64() * 1e3)
        };
        let each = |number: usize| {
            let due = beat.due(number);
            let answered_ms = after(due, &self.answered[number]);
            Told { due, answered_ms, came_ms: after(due, &self.seen.came[number]) }
        };
        (0..beat.len()).map(each).collect()
    }

    /// Uploads a small plugin, and answers with the status and how long it took.
    pub(super) fn upload(&self, victim: &Victim, patience: Duration) -> (Option<u16>, Duration) {
        let file = filter_module("(i32.const 1024)", "(func (export \"mine\"))");
        let (client, begun) = (victim.client(), Instant::now());
        let (path, headers) = ("/v1/plugins/mine/versions", [("content-type", "application/wasm")]);
        let call = client.try_call(Method::POST, path, &headers, file);
        let answer = victim.wait_for(async { timeout(patience, call).await });
        (answer.ok().and_then(Result::ok).map(|it| it.status), begun.elapsed())
    }
}

/// Sends a request over a connection, which is made where there is none. None: there was no answer.
fn ask(
    address: SocketAddr,
    line: &mut Option<(TcpStream, Inbox)>,
    request: &[u8],
    beat: &Beat,
) -> Option<u16> {
    if line.is_none() {
        let socket = TcpStream::connect_timeout(&address, CALL_PATIENCE).ok()?;
        socket.set_nodelay(true).ok()?;
        socket.set_read_timeout(Some(NAP)).ok()?;
        *line = Some((socket, Inbox::new()));
    }
    let (socket, inbox) = line.as_mut()?;
    socket.write_all(request).ok()?;
    loop {
        match inbox.next_blocking(socket) {
            Ok(answer) => return status(inbox.head(&answer?)),
            Err(err) if is_time_out(&err) && !beat.is_over() => {}
            Err(_) => return None,
        }
    }
}

/// What the log says of the neighbour's deliveries: how many there are, how many have a failed attempt or
/// are in another state than delivered, and why the first of them is.
pub(super) struct Log {
    pub(super) deliveries: usize,
    pub(super) blamed: usize,
    pub(super) example: Option<String>,
}

/// Reads the neighbour's log, again until nothing of it is under way. None: it cannot be read.
pub(super) fn read_log(victim: &Victim) -> Option<Log> {
    let until = Instant::now() + LOG_PATIENCE;
    loop {
        let all = victim
            .wait_for(async { timeout(LOG_PATIENCE, deliveries(victim)).await })
            .ok()
            .flatten();
        let is_settled = |it: &Value| it["state"] == "delivered";
        let is_over = Instant::now() > until;
        match all {
            Some(all) if is_over || all.iter().all(is_settled) => return Some(judged(&all)),
            None if is_over => return None,
            _ => thread::sleep(NAP),
        }
    }
}

fn judged(all: &[Value]) -> Log {
    let is_blamed = |it: &&Value| it["state"] != "delivered" || it["attempts"] != 1;
    let example = all.iter().find(is_blamed).map(|it| {
        let reason = it["reason"]["code"].as_str().unwrap_or("no reason");
        format!("{} after {} attempts: {reason}", it["state"], it["attempts"])
    });
    Log { deliveries: all.len(), blamed: all.iter().filter(is_blamed).count(), example }
}

async fn deliveries(victim: &Victim) -> Option<Vec<Value>> {
    let (client, mut all, mut before) = (victim.client(), Vec::new(), String::new());
    loop {
        let path = format!("/v1/deliveries?limit=500{before}");
        let call = client.try_call(Method::GET, &path, &[], "");
        let mut page = timeout(CALL_PATIENCE, call).await.ok()?.ok()?;
        if page.status != 200 {
            return None;
        }
        all.append(page.body["deliveries"].as_array_mut()?);
        match page.body["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => return Some(all),
        }
    }
}
