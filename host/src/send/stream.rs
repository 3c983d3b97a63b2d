//! The bytes of a connection: bounded where an endpoint writes without being asked, and counted
//! among the sockets for as long as it is open.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::Link;
use crate::fair::Permit;

/// What an endpoint may write while nothing is written to it. No answer of which the head and the
/// first kilobytes are read comes near it; one made of nothing but `100 Continue` does.
const UNASKED_BYTES_MAX: usize = 1024 * 1024;

/// The endpoint does not stop writing.
#[derive(Debug, thiserror::Error)]
#[error("more than {UNASKED_BYTES_MAX} bytes")]
pub(super) struct Endless;

/// A connection.
pub(super) struct Stream {
    transport: Box<dyn Transport>,
    is_h2: bool,
    link: Arc<Link>,
    /// What was read since something was written.
    unasked_bytes: usize,
    _socket: Permit,
}

/// A socket, or TLS over one.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

impl Stream {
    pub(super) fn new(
        transport: Box<dyn Transport>,
        is_h2: bool,
        link: Arc<Link>,
        socket: Permit,
    ) -> Stream {
        Stream { transport, is_h2, link, unasked_bytes: 0, _socket: socket }
    }

    fn is_asked(&mut self) {
        if self.unasked_bytes > 0 {
            self.unasked_bytes = 0;
            self.link.hears(false);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(context, buffer))?;
        let count = buffer.filled().len() - before;
        if self.unasked_bytes == 0 && count > 0 {
            self.link.hears(true);
        }
        self.unasked_bytes += count;
        // HTTP/2 bounds by itself what it takes of each of its streams.
        if self.unasked_bytes > UNASKED_BYTES_MAX && !self.is_h2 {
            return Poll::Ready(Err(io::Error::other(Endless)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_asked();
        Pin::new(&mut self.transport).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_asked();
        Pin::new(&mut self.transport).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}
