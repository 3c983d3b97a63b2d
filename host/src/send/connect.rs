//! Connections to endpoints: resolves, connects and shakes hands, each within its time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use url::Host;

use super::explain::{self, Failure};
use super::kept::{Kept, Origin};
use super::opening::{Opening, Phase};
use super::stream::{Stream, Transport};
use super::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::dns::{Addresses, Dns, NoAddress};
use crate::egress::Egress;
use crate::fair::{Bounds, FairSemaphore, Owner, Permit};
use crate::patience;

const DNS: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);
const TLS: Duration = Duration::from_secs(5);
/// How many addresses of a name are tried.
const ADDRESSES_MAX: usize = 8;
/// A connection that many requests share is asked so often whether it is alive, and has so long to
/// say so: otherwise, one that is dead would take each of them for as long as there are any.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);
/// How long an endpoint may leave bytes of ours unacknowledged: longer than any format waits for an
/// answer.
const USER_TIMEOUT_MS: u32 = 60_000;
/// How often, and for how long each time, a connection waits for a socket that becomes free.
const SOCKET_TRIES: usize = 10;
const SOCKET_WAIT: Duration = Duration::from_millis(100);
/// How many connections of one tenant may wait for a socket.
const SOCKET_WAITING_MAX: usize = 256;

/// A connection, as those who send on it have it.
pub(super) struct Connection {
    sending: Sending,
    link: Arc<Link>,
}

enum Sending {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What is known of a connection on both of its sides.
pub(super) struct Link {
    owner: Owner,
    /// Something was read since something was written.
    heard: AtomicBool,
}

impl Link {
    pub(super) fn hears(&self, heard: bool) {
        self.heard.store(heard, Ordering::Relaxed);
    }
}

impl Connection {
    /// Another handle to a connection that many requests can use; none where only one can.
    pub(super) fn shared(&self) -> Option<Connection> {
        match &self.sending {
            Sending::Http1(_) => None,
            Sending::Http2(it) => {
                let sending = Sending::Http2(it.clone());
                Some(Connection { sending, link: Arc::clone(&self.link) })
            }
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sending, Sending::Http2(_))
    }

    /// Whether a request can be sent on it now.
    pub(super) fn is_open(&self) -> bool {
        match &self.sending {
            Sending::Http1(it) => it.is_ready(),
            Sending::Http2(it) => it.is_ready(),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        match &self.sending {
            Sending::Http1(it) => it.is_closed(),
            Sending::Http2(it) => it.is_closed(),
        }
    }

    /// Waits until it can be used again; false where it has ended.
    pub(super) async fn ready(&mut self) -> bool {
        match &mut self.sending {
            Sending::Http1(it) => it.ready().await.is_ok(),
            Sending::Http2(it) => it.ready().await.is_ok(),
        }
    }

    /// Whether nobody uses it: this handle and the connection itself are all there is of it.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.link) <= 2
    }

    pub(super) fn is_over(&self, link: &Arc<Link>) -> bool {
        Arc::ptr_eq(&self.link, link)
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.link.owner
    }

    /// Whether a byte of an answer has come since the last request was written. With HTTP/2 a
    /// connection has many answers, and this says nothing.
    pub(super) fn has_heard(&self) -> bool {
        self.link.heard.load(Ordering::Relaxed)
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        match &mut self.sending {
            Sending::Http1(it) => it.try_send_request(request).await,
            Sending::Http2(it) => it.try_send_request(request).await,
        }
    }
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    egress: Arc<Egress>,
    dns: Arc<Dns>,
    kept: Arc<Kept>,
    sockets: FairSemaphore,
    tls: TlsConnector,
}

impl Connector {
    /// `sockets_max`: how many connections there may be, those that are kept included.
    pub(super) fn new(
        egress: Arc<Egress>,
        dns: Arc<Dns>,
        kept: Arc<Kept>,
        sockets_max: usize,
        mut tls: ClientConfig,
    ) -> Connector {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let own = (sockets_max - sockets_max / 4).max(1);
        let all = sockets_max.max(1);
        let sockets = FairSemaphore::new(Bounds { all, own, waiting: SOCKET_WAITING_MAX });
        Connector { egress, dns, kept, sockets, tls: TlsConnector::from(Arc::new(tls)) }
    }

    pub(super) async fn open(
        self,
        (scheme, authority): Origin,
        owner: Owner,
        opening: Arc<Opening>,
    ) -> Result<Connection, Failure> {
        let is_https = scheme == http::uri::Scheme::HTTPS;
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        self.egress.check_port(port).map_err(|denied| explain::denied(&denied))?;
        let (addresses, name) = self.find(authority.host(), port, &owner, &opening).await?;
        let socket = opening.ours(self.socket(&owner)).await?;
        let connecting = self.connect(&addresses);
        let tcp = opening.phase(Phase::Connect, CONNECT, connecting).await.inspect_err(|_| {
            // It may have moved to another address meanwhile.
            self.dns.forget(authority.host());
        })?;
        let (transport, is_h2): (Box<dyn Transport>, bool) = if is_https {
            let handshake = self.tls.connect(name, tcp);
            let handshake = async { handshake.await.map_err(|err| explain::no_handshake(&err)) };
            let tls = opening.phase(Phase::Tls, TLS, handshake).await?;
            let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            (Box::new(tls), is_h2)
        } else {
            (Box::new(tcp), false)
        };
        let link = Arc::new(Link { owner, heard: AtomicBool::new(false) });
        let stream = Stream::new(transport, is_h2, Arc::clone(&link), socket);
        let sending = speak_http(stream, is_h2).await.map_err(|err| explain::no_answer(&err))?;
        Ok(Connection { sending, link })
    }

    /// Where a host is reached, and what its certificate has to be for. The addresses are those
    /// that were checked, and none is looked up again.
    async fn find(
        &self,
        host: &str,
        port: u16,
        owner: &Owner,
        opening: &Opening,
    ) -> Result<(Vec<SocketAddr>, ServerName<'static>), Failure> {
        let unusable = || Failure::theirs("dns", "the endpoint's name cannot be anybody's");
        let literal = match Host::parse(host).map_err(|_| unusable())? {
            Host::Domain(name) => {
                let found = self.look_up(&name, owner, opening).await;
                let found = found.map_err(|err| explain::no_address(&err))?;
                let chosen = self.egress.choose(&found, port);
                let chosen = chosen.map_err(|denied| explain::denied(&denied))?;
                return Ok((chosen, ServerName::try_from(name).map_err(|_| unusable())?));
            }
            Host::Ipv4(it) => IpAddr::from(it),
            Host::Ipv6(it) => IpAddr::from(it),
        };
        let checked = self.egress.check_address(literal);
        checked.map_err(|denied| explain::denied(&denied))?;
        Ok((vec![SocketAddr::new(literal, port)], literal.into()))
    }

    async fn look_up(
        &self,
        name: &str,
        owner: &Owner,
        opening: &Opening,
    ) -> Result<Addresses, NoAddress> {
        let since = Instant::now();
        let found = match self.dns.known(name) {
            Some(known) => opening.phase(Phase::Dns, DNS, async { Ok(known) }).await,
            None => {
                let turn = opening.ours(self.dns.turn(owner)).await?;
                let work = async { Ok(self.dns.look_up(name, turn).await) };
                opening.phase(Phase::Dns, DNS, work).await
            }
        };
        match found.unwrap_or(Err(NoAddress::Silent)) {
            Ok(found) => Ok(found),
            Err(failed) => Err(opening.ours(self.dns.judge(failed, since)).await),
        }
    }

    /// Waits for a socket for a moment. What is kept and not used makes room meanwhile.
    async fn socket(&self, owner: &Owner) -> Result<Permit, Failure> {
        for _ in 0..SOCKET_TRIES {
            match self.sockets.try_take(owner) {
                Ok(socket) => return Ok(socket),
                Err(busy) => self.kept.make_room(owner, busy),
            }
            match timeout(SOCKET_WAIT, self.sockets.take(owner)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(_)) => break,
                Err(_) => {}
            }
        }
        Err(explain::all_sockets_taken())
    }

    /// Connects to the first address that answers. Each has its share of the time, so that a dead
    /// one does not take the time of the others.
    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
        let until = Instant::now() + CONNECT;
        let mut left = u32::try_from(addresses.len().min(ADDRESSES_MAX)).unwrap_or(1);
        let mut why = explain::timed_out(Phase::Connect);
        for address in addresses.iter().take(ADDRESSES_MAX) {
            let share = until.saturating_duration_since(Instant::now()) / left.max(1);
            left -= 1;
            let connected = patience::timeout(share, TcpStream::connect(address)).await;
            let failed = match connected {
                Ok(Ok(tcp)) => match prepare(&tcp) {
                    Ok(()) => return Ok(tcp),
                    Err(err) => self.no_connection(&err, *address),
                },
                Ok(Err(err)) => self.no_connection(&err, *address),
                Err(_) => explain::timed_out(Phase::Connect),
            };
            // Where one address could not be tried because of us, the others do not show that
            // nobody is there.
            if !why.is_ours() {
                why = failed;
            }
        }
        Err(why)
    }

    fn no_connection(&self, err: &io::Error, address: SocketAddr) -> Failure {
        let is_public = !self.egress.is_allowed_by_operator(address.ip());
        explain::no_connection(err, address.ip(), is_public, &has_way)
    }
}

/// Sets a socket up for one request after the other.
fn prepare(tcp: &TcpStream) -> io::Result<()> {
    // Without it, an endpoint that takes nothing more would hold a socket that we have done with
    // for as long as it likes, since what is still to be written waits for it. A system that does
    // not know the option bounds it by itself, if later.
    let _ = sockopt::set_tcp_user_timeout(tcp, USER_TIMEOUT_MS);
    tcp.set_nodelay(true)
}

/// Begins to speak HTTP on a connection. Who drives it ends with it.
async fn speak_http(stream: Stream, is_h2: bool) -> hyper::Result<Sending> {
    let io = TokioIo::new(stream);
    if is_h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG);
        let (sending, connection) = builder.handshake(io).await?;
        tokio::spawn(connection);
        Ok(Sending::Http2(sending))
    } else {
        let mut builder = http1::Builder::new();
        builder.max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX);
        // The status line says what became of a delivery, and it counts also where a header is malformed.
        builder
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .ignore_invalid_headers_in_responses(true);
        let (sending, connection) = builder.handshake(io).await?;
        tokio::spawn(connection);
        Ok(Sending::Http1(sending))
    }
}

/// Whether this machine has a route to the public Internet by one of the families of addresses. The
/// addresses are for documentation and belong to nobody, and nothing is sent: the system only
/// chooses a route.
fn has_way(family: IpAddr) -> bool {
    let (any, somewhere) = match family {
        IpAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        IpAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    std::net::UdpSocket::bind(any).and_then(|it| it.connect(somewhere)).is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_does_not_wait_for_ever_for_an_endpoint_that_takes_nothing() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&tcp).unwrap();
        assert_eq!(sockopt::tcp_user_timeout(&tcp).unwrap(), USER_TIMEOUT_MS);
        assert!(tcp.nodelay().unwrap());
    }
}
