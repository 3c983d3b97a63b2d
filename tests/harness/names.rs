//! A name server on loopback.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_server::Server;
use hickory_server::net::runtime::{Time, TokioRuntimeProvider};
use hickory_server::proto::rr::rdata::{SOA, TXT};
use hickory_server::proto::rr::{LowerName, Name, RData, Record, RecordType, RrKey};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use tokio::net::UdpSocket;
use tokio::sync::watch;

type Zone = InMemoryZoneHandler<TokioRuntimeProvider>;

/// Knows what it is told of the names in one zone, and refuses to tell of others.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _server: Server<Handler>,
}

struct Shared {
    zone: Arc<Zone>,
    /// What names end with that are never answered.
    silent: Mutex<Vec<String>>,
    /// Names that lead to one address after the other.
    by_turns: Mutex<HashMap<String, Vec<IpAddr>>>,
    /// Answers wait while it is shut.
    open: watch::Sender<bool>,
    /// How many questions there were.
    asked: watch::Sender<usize>,
}

struct Handler {
    catalog: Catalog,
    shared: Arc<Shared>,
}

impl NameServer {
    /// For all names below `zone`.
    pub(crate) async fn start(zone: &str) -> NameServer {
        NameServer::start_on(UdpSocket::bind(("127.0.0.1", 0)).await.unwrap(), zone, &[]).await
    }

    /// The same, on a socket that there is already, with names that it knows from the beginning.
    pub(crate) async fn start_on(
        socket: UdpSocket,
        zone: &str,
        known: &[(&str, IpAddr)],
    ) -> NameServer {
        let origin = Name::from_ascii(zone).unwrap();
        let handler = Zone::empty(origin.clone(), ZoneType::Primary, AxfrPolicy::Deny);
        let zone = Arc::new(handler);
        let soa = SOA::new(origin.clone(), origin.clone(), 1, 60, 60, 60, 60);
        let record = Record::from_rdata(origin.clone(), 60, RData::SOA(soa));
        zone.upsert(record, 1).await;
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::new(&origin), vec![Arc::clone(&zone) as Arc<dyn ZoneHandler>]);
        let shared = Arc::new(Shared {
            zone,
            silent: Mutex::default(),
            by_turns: Mutex::default(),
            open: watch::Sender::new(true),
            asked: watch::Sender::new(0),
        });
        for (name, address) in known {
            shared.point(name, Some(*address)).await;
        }
        let mut server = Server::new(Handler { catalog, shared: Arc::clone(&shared) });
        let address = socket.local_addr().unwrap();
        server.register_socket(socket);
        NameServer { address, shared, _server: server }
    }

    pub(crate) async fn publish(&self, name: &str, text: &str) {
        let name = Name::from_ascii(name).unwrap();
        let txt = RData::TXT(TXT::new(vec![text.to_owned()]));
        self.shared.zone.upsert(Record::from_rdata(name, 60, txt), 2).await;
    }

    /// Where a name leads from now on, which nobody may remember; none: there is no such name.
    pub(crate) async fn point(&self, name: &str, address: Option<IpAddr>) {
        self.shared.point(name, address).await;
    }

    /// A name leads to the one address, and when it is asked for again, to the next one.
    pub(crate) async fn point_by_turns(&self, name: &str, addresses: Vec<IpAddr>) {
        self.shared.by_turns.lock().unwrap().insert(name.to_owned(), addresses);
    }

    /// Questions for names with this end are not answered any more.
    pub(crate) fn be_silent(&self, end: &str) {
        self.shared.silent.lock().unwrap().push(end.to_owned());
    }

    /// From now on, answers wait.
    pub(crate) fn hold(&self) {
        self.shared.open.send_replace(false);
    }

    /// What waits is answered.
    pub(crate) fn go_on(&self) {
        self.shared.open.send_replace(true);
    }

    pub(crate) fn asked(&self) -> watch::Receiver<usize> {
        self.shared.asked.subscribe()
    }
}

impl Shared {
    async fn point(&self, name: &str, address: Option<IpAddr>) {
        let name = Name::from_ascii(name).unwrap();
        for kind in [RecordType::A, RecordType::AAAA] {
            self.zone.records_mut().await.remove(&RrKey::new(LowerName::new(&name), kind));
        }
        let data = match address {
            Some(IpAddr::V4(it)) => RData::A(it.into()),
            Some(IpAddr::V6(it)) => RData::AAAA(it.into()),
            None => return,
        };
        self.zone.upsert(Record::from_rdata(name, 0, data), 2).await;
    }

    /// Before a question for an address is answered.
    async fn turn(&self, name: &str) {
        let next = {
            let mut by_turns = self.by_turns.lock().unwrap();
            let Some(addresses) = by_turns.get_mut(name) else { return };
            addresses.rotate_left(1);
            addresses[addresses.len() - 1]
        };
        self.point(name, Some(next)).await;
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        respond: R,
    ) -> ResponseInfo {
        self.shared.asked.send_modify(|count| *count += 1);
        if let Ok(info) = request.request_info() {
            let name = info.query.name().to_string();
            let is_silent = self.shared.silent.lock().unwrap().iter().any(|it| name.ends_with(it));
            if is_silent {
                return std::future::pending().await;
            }
            if info.query.query_type() == RecordType::A {
                self.shared.turn(&name).await;
            }
        }
        self.shared.open.subscribe().wait_for(|open| *open).await.unwrap();
        self.catalog.handle_request::<R, T>(request, respond).await
    }
}
