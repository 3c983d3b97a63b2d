//! A connection of an attacker, and what it was answered.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::http1::{Inbox, Message, status};

/// Where the attacker is. The neighbour has another address, so that they do not share what an address may have.
const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
/// How long an attacker waits that was refused a connection, or whose connection was closed.
const PAUSE: Duration = Duration::from_millis(20);
/// How much of a refusal is told.
const REFUSAL_LENGTH_MAX: usize = 160;
/// How much of an answer is kept that ends with its connection.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// How often the attacker was answered what.
#[derive(Clone, Default)]
pub(super) struct Tally(Arc<Mutex<Counted>>);

#[derive(Default)]
struct Counted {
    counts: BTreeMap<String, u64>,
    /// The first refusal with each status, in its own words.
    refusals: BTreeMap<u16, String>,
}

impl Tally {
    pub(super) fn count(&self, what: impl Into<String>) {
        *self.0.lock().unwrap().counts.entry(what.into()).or_default() += 1;
    }

    fn refused(&self, status: u16, body: &[u8]) {
        let mut counted = self.0.lock().unwrap();
        counted.refusals.entry(status).or_insert_with(|| {
            let problem: Value = serde_json::from_slice(body).unwrap_or_default();
            let text = problem["detail"].as_str().map(str::to_owned);
            let text = text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
            text.chars().take(REFUSAL_LENGTH_MAX).collect()
        });
    }

    /// What was counted so far, and how refusals were worded. Nothing of it is left.
    pub(super) fn take(&self) -> (BTreeMap<String, u64>, BTreeMap<u16, String>) {
        let counted = std::mem::take(&mut *self.0.lock().unwrap());
        (counted.counts, counted.refusals)
    }
}

/// A request that counts as unanswered when it is dropped before there is an answer.
struct Asked<'a>(&'a Tally, bool);

impl Asked<'_> {
    fn told(&mut self, what: impl Into<String>) {
        self.1 = true;
        self.0.count(what);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.count("no answer");
        }
    }
}

/// A connection that is kept. It is made anew when the other end has closed it.
pub(super) struct Line {
    address: SocketAddr,
    tally: Tally,
    socket: Option<TcpStream>,
    inbox: Inbox,
    last: Option<Message>,
}

impl Line {
    pub(super) fn new(address: SocketAddr, tally: &Tally) -> Line {
        let (tally, inbox) = (tally.clone(), Inbox::new());
        Line { address, tally, socket: None, inbox, last: None }
    }

    /// Sends a request and waits for its answer. None: there is none, because the connection could not be
    /// made or has ended.
    pub(super) async fn call(&mut self, request: &[u8]) -> Option<u16> {
        let tally = self.tally.clone();
        let mut asked = Asked(&tally, false);
        match self.ask(request).await {
            Ok(Some(status)) => {
                if status >= 400 {
                    tally.refused(status, self.body());
                }
                asked.told(status.to_string());
                return Some(status);
            }
            Ok(None) => asked.told("closed"),
            Err(err) => asked.told(format!("{:?}", err.kind())),
        }
        self.socket = None;
        sleep(PAUSE).await;
        None
    }

    async fn ask(&mut self, request: &[u8]) -> std::io::Result<Option<u16>> {
        if self.socket.is_none() {
            let socket = connect(self.address, None).await?;
            (self.socket, self.inbox) = (Some(socket), Inbox::new());
        }
        let socket = self.socket.as_mut().expect("it was made");
        let sent = socket.write_all(request).await;
        // Who refuses a body may answer before all of it is there.
        self.last = self.inbox.next(socket).await?;
        let Some(answer) = &self.last else { return sent.map(|()| None) };
        Ok(status(self.inbox.head(answer)))
    }

    /// The body of the last answer.
    pub(super) fn body(&self) -> &[u8] {
        self.last.as_ref().map_or(&[], |it| self.inbox.body(it))
    }

    /// Sends a request over a connection of its own, and reads until the other end closes it: for answers
    /// that say no length. The request has to ask for that (`connection: close`).
    pub(super) async fn call_to_end(&self, request: &[u8]) {
        let mut asked = Asked(&self.tally, false);
        let read = async {
            let mut socket = connect(self.address, None).await?;
            socket.write_all(request).await?;
            let mut answer = Vec::new();
            socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        match read.await {
            Ok(answer) => match status(&answer) {
                Some(status) => return asked.told(status.to_string()),
                None => asked.told("closed"),
            },
            Err(err) => asked.told(format!("{:?}", err.kind())),
        }
        sleep(PAUSE).await;
    }
}

/// A connection from the attacker's address, with a small buffer for what comes, where that is asked for.
pub(super) async fn connect(
    address: SocketAddr,
    receive_bytes: Option<u32>,
) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((HOST, 0)))?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    let socket = socket.connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// A request as it is sent.
pub(super) fn request(head: &str, token: Option<&str>, content_type: &str, body: &[u8]) -> Vec<u8> {
    let token = token.map(|it| format!("authorization: Bearer {it}\r\n")).unwrap_or_default();
    let head = format!(
        "{head} HTTP/1.1\r\nhost: localhost\r\n{token}content-type: {content_type}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
