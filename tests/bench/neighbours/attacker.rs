//! The attacker: a child of this program, which waits with an attack until it is told, and ends by itself.
//! Parent and child tell each other lines of JSON.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, nice, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::line::{Line, Tally, request};
use super::{ATTACKS, Attack};
use crate::receiver::{Reply, listen};

/// The word with which this program is asked for an attack.
pub(crate) const ATTACK: &str = "attack";
/// How much nicer than the others the attacker is.
const NICE: i32 = 10;
/// Requests to such paths of a [`Sink`] are not answered.
const HANGING: &[u8] = b"POST /hang";
const JSON: &str = "application/json";

/// What the child is told first.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) attack: String,
    pub(super) address: SocketAddr,
    pub(super) token: String,
    pub(super) seconds: u32,
    pub(super) is_quick: bool,
}

/// What the child tells at its end.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) answers: BTreeMap<String, u64>,
    pub(super) notes: Vec<String>,
    /// What the attack has measured itself, and has to keep.
    pub(super) bounds: Vec<Bound>,
}

/// A figure that may not be more than something.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Bound {
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) most: f64,
}

/// The attacker as an attack sees it.
pub(super) struct Attacker {
    pub(super) order: Order,
    pub(super) tally: Tally,
    /// When the attack ends, as soon as it has begun.
    pub(super) until: Instant,
    pub(super) outcome: Outcome,
}

/// The whole of what the child does.
pub(crate) fn run() {
    // Whoever interrupts the measurement ends the attack as well.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    nice(NICE).unwrap();
    let order: Order = serde_json::from_str(&read_line()).unwrap();
    let Attack { strike, .. } =
        *ATTACKS.iter().find(|it| it.name == order.attack).expect("the parent knows its attacks");
    let it = Attacker {
        order,
        tally: Tally::default(),
        until: Instant::now(),
        outcome: Outcome::default(),
    };
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let mut it = threads.unwrap().block_on(strike(it));
    it.outcome.answers = it.take("");
    println!("{}", json!(it.outcome));
}

fn read_line() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line
}

impl Attacker {
    /// All is prepared: waits until the parent wants the attack to begin.
    pub(super) fn ready(&mut self) {
        // How many answers there were until now is no part of the attack, but what was refused is told.
        self.take("while it was prepared, ");
        println!("\"ready\"");
        assert!(!read_line().is_empty(), "the parent has ended");
        self.until = Instant::now() + Duration::from_secs(self.order.seconds.into());
    }

    /// Takes what was counted, and notes how refusals were worded.
    fn take(&mut self, when: &str) -> BTreeMap<String, u64> {
        let (counts, refusals) = self.tally.take();
        for (status, text) in refusals {
            self.note(format!("{when}{status}: \"{text}\""));
        }
        counts
    }

    /// Waits until the attack is over, and breaks off what is still going on.
    pub(super) async fn last(&self, mut tasks: JoinSet<()>) {
        tokio::time::sleep_until(self.until.into()).await;
        tasks.shutdown().await;
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.outcome.notes.push(text.into());
    }

    pub(super) fn line(&self) -> Line {
        Line::new(self.order.address, &self.tally)
    }

    /// A call of the attacker, with its token.
    pub(super) fn request(&self, head: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
        request(head, Some(&self.order.token), content_type, body)
    }

    /// A tenth in the short form.
    pub(super) fn scaled(&self, count: usize) -> usize {
        if self.order.is_quick { count / 10 } else { count }
    }

    /// Makes a subscription to a type with some steps.
    pub(super) async fn subscribe(&self, url: &str, event_type: &str, steps: &Value) {
        let made = self.subscribe_all(vec![subscription(url, event_type, steps)]).await;
        assert_eq!(made, 1, "the attacker cannot subscribe");
    }

    /// Makes many subscriptions, many at a time, and answers how many were taken.
    pub(super) async fn subscribe_all(&self, bodies: Vec<Value>) -> usize {
        const AT_A_TIME: usize = 64;
        const REFUSED_MAX: usize = 100;
        let (made, refused, next) =
            <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let bodies = Arc::new(bodies);
        let mut tasks = JoinSet::new();
        for _ in 0..AT_A_TIME.min(bodies.len()) {
            let (made, refused, next) =
                (Arc::clone(&made), Arc::clone(&refused), Arc::clone(&next));
            let (bodies, mut line, token) =
                (Arc::clone(&bodies), self.line(), self.order.token.clone());
            tasks.spawn(async move {
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let body = body.to_string();
                    let head = "POST /v1/subscriptions";
                    let call = request(head, Some(&token), JSON, body.as_bytes());
                    match line.call(&call).await {
                        Some(201) => _ = made.fetch_add(1, Ordering::Relaxed),
                        _ if refused.fetch_add(1, Ordering::Relaxed) > REFUSED_MAX => return,
                        _ => {}
                    }
                }
            });
        }
        tasks.join_all().await;
        made.load(Ordering::Relaxed)
    }

    /// Uploads a plugin, and answers with the status.
    pub(super) async fn upload(&self, name: &str, kind: &str, file: &[u8]) -> Option<u16> {
        let head = format!("POST /v1/plugins/{name}/versions");
        self.line().call(&self.request(&head, kind, file)).await
    }
}

/// The body of a call that makes a subscription.
pub(super) fn subscription(url: &str, event_type: &str, steps: &Value) -> Value {
    json!({"name": "attack", "url": url, "filters": [{"type": event_type}], "steps": steps})
}

/// An endpoint of the attacker: it takes everything, but at paths that begin with `/hang`.
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    pub(super) taken: Arc<AtomicUsize>,
    pub(super) hanging: Arc<AtomicUsize>,
}

impl Sink {
    pub(super) fn start() -> Sink {
        let (taken, hanging) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (takes, hangs) = (Arc::clone(&taken), Arc::clone(&hanging));
        let address = listen(move |head, _| {
            let is_hanging = head.starts_with(HANGING);
            if is_hanging { &hangs } else { &takes }.fetch_add(1, Ordering::Relaxed);
            if is_hanging { Reply::None } else { Reply::Ok }
        });
        Sink { address, taken, hanging }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// The child, as its parent sees it.
pub(super) struct Handle {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Handle {
    pub(super) fn start(order: &Order) -> Handle {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(ATTACK)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        writeln!(input, "{}", json!(order)).unwrap();
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            // Nobody listens any more when the child was killed.
            output.lines().map_while(Result::ok).for_each(|it| _ = tell.send(it));
        });
        Handle { child, input, lines }
    }

    /// Whether all is prepared within this time.
    pub(super) fn is_ready(&self, patience: Duration) -> bool {
        self.lines.recv_timeout(patience).is_ok()
    }

    pub(super) fn begin(&mut self) {
        // A child that has ended says so by the end of its lines.
        let _ = writeln!(self.input, "\"begin\"");
    }

    /// What has become of it, as soon as it has ended.
    pub(super) fn outcome(&self, patience: Duration) -> Option<Outcome> {
        let line = self.lines.recv_timeout(patience).ok()?;
        serde_json::from_str(&line).ok()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // It has ended by itself, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
