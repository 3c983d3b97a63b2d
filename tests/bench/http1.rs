//! As much of HTTP/1.1 as two ends need that know each other: what they cost is part of every limit.

use std::io::{self, Read};
use std::ops::Range;

use memchr::memmem;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const LENGTH: &[u8] = b"content-length: ";

/// What has come over a connection and is not taken yet.
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    /// What is taken and what is filled.
    from: usize,
    to: usize,
}

/// One request or answer, as it lies in the inbox.
pub(crate) struct Message {
    head: Range<usize>,
    body: Range<usize>,
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox { bytes: vec![0; 64 << 10], from: 0, to: 0 }
    }

    /// The next message; none when the other end has closed the connection before one.
    pub(crate) async fn next(&mut self, socket: &mut TcpStream) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            match socket.read(self.room()).await? {
                0 => return Ok(None),
                read => self.to += read,
            }
        }
    }

    /// The same, on a thread that may wait. An error loses nothing of what has come, so that a time-out of the
    /// socket may be followed by another call.
    pub(crate) fn next_blocking(
        &mut self,
        socket: &mut std::net::TcpStream,
    ) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            match socket.read(self.room())? {
                0 => return Ok(None),
                read => self.to += read,
            }
        }
    }

    /// Where the next bytes are read to.
    fn room(&mut self) -> &mut [u8] {
        if self.from > 0 {
            self.bytes.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        if self.to == self.bytes.len() {
            self.bytes.resize(2 * self.to, 0);
        }
        &mut self.bytes[self.to..]
    }

    fn take(&mut self) -> Option<Message> {
        let bytes = &self.bytes[self.from..self.to];
        let end = memmem::find(bytes, b"\r\n\r\n")? + 4;
        let length = memmem::find(&bytes[..end], LENGTH).map_or(0, |at| {
            let digits = bytes[at + LENGTH.len()..].iter().take_while(|it| it.is_ascii_digit());
            digits.fold(0, |length, digit| 10 * length + usize::from(digit - b'0'))
        });
        if bytes.len() < end + length {
            return None;
        }
        let head = self.from..self.from + end;
        let body = head.end..head.end + length;
        self.from = body.end;
        Some(Message { head, body })
    }

    pub(crate) fn head(&self, message: &Message) -> &[u8] {
        &self.bytes[message.head.clone()]
    }

    pub(crate) fn body(&self, message: &Message) -> &[u8] {
        &self.bytes[message.body.clone()]
    }
}

/// The status of an answer, by its head.
pub(crate) fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}
