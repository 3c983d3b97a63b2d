//! Connections to endpoints: resolves, connects and shakes hands, each within its time, and tells how
//! long each has taken.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Host;

use super::{Phases, explain};
use crate::delivery::Reason;
use crate::egress::Egress;

const DNS: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);
const TLS: Duration = Duration::from_secs(5);
/// How many addresses of a name are tried.
const ADDRESSES_MAX: usize = 8;
/// What an endpoint may write while nothing is written to it. No answer of which the head and the first
/// kilobytes are read comes near it; one made of nothing but `100 Continue` does.
const UNASKED_BYTES_MAX: usize = 1024 * 1024;

/// What takes time in an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Dns,
    Connect,
    Tls,
    Answer,
}

/// There is no connection, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.code)]
pub(super) struct NoConnection(pub(super) Reason);

/// The endpoint does not stop writing.
#[derive(Debug, thiserror::Error)]
#[error("more than {UNASKED_BYTES_MAX} bytes")]
pub(super) struct Endless;

tokio::task_local! {
    /// Where a request finds the connection that is made for it. hyper-util makes one within the task of
    /// the request that wants it, and tells it nothing but the host.
    pub(super) static OPENING: Cell<Option<Arc<Opening>>>;
}

/// How far a connection has come.
#[derive(Debug, Default)]
pub(super) struct Opening(Mutex<Progress>);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) phases: Phases,
    pub(super) present: Option<(Phase, Instant)>,
    pub(super) opened_at: Option<Instant>,
}

impl Opening {
    /// What has been taken up to now; a phase that is not over counts.
    pub(super) fn progress(&self) -> Progress {
        let mut progress = *self.lock();
        progress.count_present();
        progress
    }

    pub(super) async fn phase<T>(
        &self,
        phase: Phase,
        limit: Duration,
        work: impl Future<Output = Result<T, Reason>>,
    ) -> Result<T, NoConnection> {
        self.lock().present = Some((phase, Instant::now()));
        let done = timeout(limit, work).await;
        let mut progress = self.lock();
        progress.count_present();
        progress.present = None;
        done.unwrap_or_else(|_| Err(explain::timed_out(phase))).map_err(NoConnection)
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().expect("nobody panics while it is locked")
    }
}

impl Progress {
    fn count_present(&mut self) {
        let Some((phase, since)) = self.present else { return };
        let of = match phase {
            Phase::Dns => &mut self.phases.dns,
            Phase::Connect => &mut self.phases.connect,
            Phase::Tls => &mut self.phases.tls,
            Phase::Answer => &mut self.phases.first_byte,
        };
        *of = Some(since.elapsed());
    }
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    egress: Arc<Egress>,
    tls: TlsConnector,
}

impl Connector {
    pub(super) fn new(egress: Arc<Egress>, mut tls: ClientConfig) -> Connector {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Connector { egress, tls: TlsConnector::from(Arc::new(tls)) }
    }

    async fn open(self, uri: Uri, opening: Arc<Opening>) -> Result<Stream, NoConnection> {
        let is_https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let (addresses, name) = self.find(uri.host().unwrap_or_default(), port, &opening).await?;
        let tcp = opening.phase(Phase::Connect, CONNECT, connect(&addresses)).await?;
        let (transport, is_h2): (Box<dyn Transport>, bool) = if is_https {
            let handshake = self.tls.connect(name, tcp);
            let handshake = async { handshake.await.map_err(|err| explain::no_handshake(&err)) };
            let tls = opening.phase(Phase::Tls, TLS, handshake).await?;
            let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            (Box::new(tls), is_h2)
        } else {
            (Box::new(tcp), false)
        };
        opening.lock().opened_at = Some(Instant::now());
        Ok(Stream { transport, is_h2, opening, unasked_bytes: 0 })
    }

    /// Where a host is reached, and what its certificate has to be for. The addresses are those that
    /// were checked, and none is looked up again.
    async fn find(
        &self,
        host: &str,
        port: u16,
        opening: &Opening,
    ) -> Result<(Vec<SocketAddr>, ServerName<'static>), NoConnection> {
        let unusable =
            || NoConnection(Reason::new("dns", "the endpoint's name cannot be anybody's"));
        let literal = match Host::parse(host).map_err(|_| unusable())? {
            Host::Domain(name) => {
                let resolve = async {
                    self.egress.resolve(&name, port).await.map_err(|err| explain::no_address(&err))
                };
                let addresses = opening.phase(Phase::Dns, DNS, resolve).await?;
                return Ok((addresses, ServerName::try_from(name).map_err(|_| unusable())?));
            }
            Host::Ipv4(it) => IpAddr::from(it),
            Host::Ipv6(it) => IpAddr::from(it),
        };
        let checked = self.egress.check_address(literal);
        checked.map_err(|denied| NoConnection(explain::denied(&denied)))?;
        Ok((vec![SocketAddr::new(literal, port)], literal.into()))
    }
}

/// Connects to the first address that answers. Each has its share of the time, so that a dead one does
/// not take the time of the others.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Reason> {
    let until = Instant::now() + CONNECT;
    let mut left = u32::try_from(addresses.len().min(ADDRESSES_MAX)).unwrap_or(1);
    let mut why = explain::timed_out(Phase::Connect);
    for address in addresses.iter().take(ADDRESSES_MAX) {
        let share = until.saturating_duration_since(Instant::now()) / left.max(1);
        left -= 1;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                tcp.set_nodelay(true).map_err(|err| explain::no_connection(&err))?;
                return Ok(tcp);
            }
            Ok(Err(err)) => why = explain::no_connection(&err),
            Err(_) => why = explain::timed_out(Phase::Connect),
        }
    }
    Err(why)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = NoConnection;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoConnection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let opening = Arc::<Opening>::default();
        // A request that is not made by us has nobody to tell.
        let _ = OPENING.try_with(|it| it.set(Some(Arc::clone(&opening))));
        let opened = self.clone().open(uri, opening);
        Box::pin(async { Ok(TokioIo::new(opened.await?)) })
    }
}

/// A connection.
pub(super) struct Stream {
    transport: Box<dyn Transport>,
    is_h2: bool,
    opening: Arc<Opening>,
    /// What was read since something was written.
    unasked_bytes: usize,
}

/// A socket, or TLS over one.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(Arc::clone(&self.opening));
        if self.is_h2 { connected.negotiated_h2() } else { connected }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buffer))?;
        self.unasked_bytes += buffer.filled().len() - before;
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
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unasked_bytes = 0;
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unasked_bytes = 0;
        Pin::new(&mut self.transport).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
