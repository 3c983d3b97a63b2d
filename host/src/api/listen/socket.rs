//! A socket that tells its watch what comes and what is taken.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::{Shared, lock};

/// How much of what nobody wants is read at a time.
const REST_PART_BYTES: usize = 4 << 10;

pub(super) struct Socket {
    stream: TokioIo<TcpStream>,
    watch: Shared,
    /// How many bytes are still to be read before it is closed; none before it is shut down.
    rest: Option<usize>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, watch: Shared) -> Socket {
        Socket { stream: TokioIo::new(stream), watch, rest: None }
    }

    fn note<T>(&self, written: Poll<Result<T>>) -> Poll<Result<T>> {
        match &written {
            Poll::Ready(_) => lock(&self.watch).took(Instant::now()),
            Poll::Pending => lock(&self.watch).is_blocked(Instant::now()),
        }
        written
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            lock(&self.watch).came(Instant::now());
        }
        read
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes once it has written all that it was handed over.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let held = lock(&self.watch).all_is_sent();
        // Others may be waiting for it: they are told without the lock.
        drop(held);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Says that nothing more is sent, and reads on for a while where the client is still sending: a
    /// socket that is closed with bytes unread resets the connection, and the client would lose the
    /// answer that it was sent.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let it = &mut *self;
        let mut left = match it.rest {
            Some(left) => left,
            None => {
                ready!(Pin::new(&mut it.stream).poll_shutdown(cx))?;
                lock(&it.watch).closes(Instant::now())
            }
        };
        let mut part = [0; REST_PART_BYTES];
        while left > 0 {
            it.rest = Some(left);
            let mut part = ReadBuf::new(&mut part);
            ready!(Pin::new(it.stream.inner_mut()).poll_read(cx, &mut part))?;
            match part.filled().len() {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}
