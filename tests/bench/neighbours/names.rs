//! A name server that knows one name, and an attacker with very many names that nobody answers for.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::attacker::{Attacker, subscription};
use crate::load::Template;

/// The name of the neighbour's endpoint.
pub(super) const KNOWN: &str = "neighbour.test";
const NAMES: usize = 1_200;
/// How often there is an event for all of them.
const EVERY: Duration = Duration::from_secs(2);

/// The parts of a message of DNS (RFC 1035, section 4).
const HEAD_BYTES: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];

/// Answers for [`KNOWN`], which is this machine, and for nothing else: whoever asks for another name waits
/// in vain. It works until the process ends.
pub(super) struct NameServer {
    pub(super) address: SocketAddr,
    unanswered: Arc<AtomicUsize>,
}

impl NameServer {
    pub(super) fn start() -> NameServer {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let unanswered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&unanswered);
        thread::spawn(move || {
            let mut question = [0; 1_024];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                match answer(&question[..length]) {
                    // Who asked may be gone.
                    Some(answer) => _ = socket.send_to(&answer, from),
                    None => _ = count.fetch_add(1, Ordering::Relaxed),
                }
            }
        });
        NameServer { address, unanswered }
    }

    /// How many questions it has not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }
}

/// The answer to a question for the known name: its address, and nothing where another type is asked for.
fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let name = encoded(KNOWN);
    let question = message.get(HEAD_BYTES..HEAD_BYTES + name.len() + 4)?;
    let (asked, kind) = question.split_at(name.len());
    if !asked.eq_ignore_ascii_case(&name) {
        return None;
    }
    let is_address = kind[..2] == TYPE_A;
    // An answer that was asked for with recursion; one question, no or one answer.
    let counts = [0, 1, 0, u8::from(is_address), 0, 0, 0, 0];
    let mut answer = [&message[..2], &[0x81, 0x80], &counts, question].concat();
    if is_address {
        // The name of the question, type A, class IN, 60 s, four bytes.
        answer.extend([0xc0, HEAD_BYTES as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

/// A name as messages have it: each part with its length before it.
fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in name.split('.') {
        bytes.push(part.len() as u8);
        bytes.extend(part.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// Events for very many endpoints, the names of which nobody answers for.
pub(super) async fn dead(mut it: Attacker) -> Attacker {
    let dead = |at: usize| {
        subscription(&format!("http://dead-{at}.attack.test:8080/"), "dead", &json!([]))
    };
    let made = it.subscribe_all((0..NAMES).map(dead).collect()).await;
    it.note(format!("{made} subscriptions"));
    let event = r#"{"id":"","specversion":"1.0","source":"/attack","type":"dead","data":1}"#;
    let mut template = Template::new("/v1/events", &it.order.token, event, 1);
    it.ready();
    let (mut tasks, mut line) = (JoinSet::new(), it.line());
    tasks.spawn(async move {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0.. {
            ticks.tick().await;
            template.number(number);
            line.call(template.bytes()).await;
        }
    });
    it.last(tasks).await;
    it
}
