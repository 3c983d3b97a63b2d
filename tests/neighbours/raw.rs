//! Connections on which a test says byte by byte what it wants.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Client, PATIENCE};

/// What a head, and the first bytes of a body, may take.
pub(crate) const HEAD: Duration = Duration::from_secs(10);
/// Between two bytes of whoever dribbles.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// One connection to the API.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    /// What has come and was not looked at yet.
    rest: Vec<u8>,
}

/// An answer as it was read.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Heard {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let of =
            |line: &'_ str| line.split_once(':').is_some_and(|it| it.0.eq_ignore_ascii_case(name));
        let line = self.head.lines().find(|line| of(line))?;
        Some(line.split_once(':')?.1.trim())
    }
}

/// Where a client's calls go.
pub(crate) fn address(client: &Client) -> SocketAddr {
    client.url("").strip_prefix("http://").unwrap().parse().unwrap()
}

/// A head for a call with a token, where there is one.
pub(crate) fn head(line: &str, token: Option<&str>, more: &str) -> String {
    let token = token.map(|it| format!("authorization: Bearer {it}\r\n")).unwrap_or_default();
    format!("{line} HTTP/1.1\r\nhost: localhost\r\n{token}{more}\r\n")
}

impl Raw {
    pub(crate) async fn open(to: SocketAddr) -> Raw {
        Raw::from(TcpStream::connect(to).await.unwrap())
    }

    /// From another address of this machine, such as `127.0.0.2`.
    pub(crate) async fn open_from(from: &str, to: SocketAddr) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        Raw::from(socket.connect(to).await.unwrap())
    }

    /// One that takes little before it is read from.
    pub(crate) async fn open_narrow(to: SocketAddr) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        Raw::from(socket.connect(to).await.unwrap())
    }

    fn from(stream: TcpStream) -> Raw {
        Raw { stream, rest: Vec::new() }
    }

    pub(crate) async fn say(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
    }

    /// Says as much as is taken; who closes meanwhile is not to blame.
    pub(crate) async fn pour(&mut self, text: &[u8]) {
        for part in text.chunks(16 << 10) {
            if !matches!(
                timeout(Duration::from_millis(200), self.stream.write_all(part)).await,
                Ok(Ok(()))
            ) {
                return;
            }
        }
    }

    /// The next answer, whole.
    pub(crate) async fn hear(&mut self) -> Heard {
        self.try_hear().await.expect("there is an answer")
    }

    /// The same; none when the connection ends before there is one.
    pub(crate) async fn try_hear(&mut self) -> Option<Heard> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some((heard, length)) = whole(&self.rest) {
                self.rest.drain(..length);
                return Some(heard);
            }
            let more =
                tokio::time::timeout_at(until, self.more()).await.expect("an answer in time");
            if !more {
                return None;
            }
        }
    }

    /// The answer that has come by now, whole.
    pub(crate) fn try_heard(&mut self) -> Option<Heard> {
        let mut part = vec![0; 64 << 10];
        while let Ok(count @ 1..) = self.stream.try_read(&mut part) {
            self.rest.extend_from_slice(&part[..count]);
        }
        whole(&self.rest).map(|(heard, _)| heard)
    }

    /// The status of the next answer, of which the body is not read.
    pub(crate) async fn hear_head(&mut self) -> u16 {
        let until = Instant::now() + PATIENCE;
        let mut byte = [0];
        while !self.rest.ends_with(b"\r\n\r\n") {
            let read = tokio::time::timeout_at(until, self.stream.read_exact(&mut byte)).await;
            read.expect("an answer in time").expect("there is an answer");
            self.rest.push(byte[0]);
        }
        let head = String::from_utf8(std::mem::take(&mut self.rest)).unwrap();
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The body of an answer that is sent in chunks, whose head has been read.
    pub(crate) async fn hear_chunks(&mut self) -> String {
        let until = Instant::now() + PATIENCE;
        let mut body = Vec::new();
        loop {
            let end = self.rest.windows(2).position(|it| it == b"\r\n");
            let size = end.map(|end| {
                let text = std::str::from_utf8(&self.rest[..end]).unwrap();
                (end + 2, usize::from_str_radix(text, 16).unwrap())
            });
            match size {
                Some((start, 0)) if self.rest.len() >= start + 2 => {
                    return String::from_utf8(body).unwrap();
                }
                Some((start, size)) if self.rest.len() >= start + size + 2 => {
                    body.extend_from_slice(&self.rest[start..start + size]);
                    self.rest.drain(..start + size + 2);
                }
                _ => {
                    let more = tokio::time::timeout_at(until, self.more()).await;
                    assert!(more.expect("chunks in time"), "the answer breaks off");
                }
            }
        }
    }

    /// Whether anything more has come.
    async fn more(&mut self) -> bool {
        let mut part = vec![0; 64 << 10];
        match self.stream.read(&mut part).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.rest.extend_from_slice(&part[..count]);
                true
            }
        }
    }

    /// How long it takes until the other side has ended the connection, whatever it says before.
    pub(crate) async fn ends(&mut self, patience: Duration) -> Option<Duration> {
        let start = Instant::now();
        let end = async { while self.more().await {} };
        timeout(patience, end).await.ok().map(|()| start.elapsed())
    }

    /// Says one byte after the other, with a pause in between, until the other side has ended it.
    pub(crate) async fn dribble(
        self,
        text: &[u8],
        pause: Duration,
        patience: Duration,
    ) -> Option<Duration> {
        let start = Instant::now();
        let (mut read, mut write) = self.stream.into_split();
        let say = async {
            for byte in text.iter().cycle() {
                if write.write_all(&[*byte]).await.is_err() {
                    return;
                }
                sleep(pause).await;
            }
        };
        let end = async {
            let mut part = [0; 1_024];
            while read.read(&mut part).await.is_ok_and(|count| count > 0) {}
        };
        let both = async {
            tokio::select! { () = say => {} () = end => {} }
        };
        timeout(patience, both).await.ok().map(|()| start.elapsed())
    }
}

/// The answer that a text begins with, and how long it is.
fn whole(text: &[u8]) -> Option<(Heard, usize)> {
    let end = text.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&text[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let heard = Heard { status, head, text: String::new() };
    let length: usize = heard.header("content-length").map_or(0, |it| it.parse().unwrap());
    let body = text.get(end..end + length)?;
    let body = String::from_utf8_lossy(body).into_owned();
    Some((Heard { text: body, ..heard }, end + length))
}
