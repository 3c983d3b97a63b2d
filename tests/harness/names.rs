//! A name server on loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_server::Server;
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::proto::rr::rdata::{SOA, TXT};
use hickory_server::proto::rr::{LowerName, Name, RData, Record};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use tokio::net::UdpSocket;

/// Knows TXT records, and nothing else.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    zone: Arc<InMemoryZoneHandler<TokioRuntimeProvider>>,
    _server: Server<Catalog>,
}

impl NameServer {
    /// For all names below `zone`.
    pub(crate) async fn start(zone: &str) -> NameServer {
        let origin = Name::from_ascii(zone).unwrap();
        let handler = InMemoryZoneHandler::<TokioRuntimeProvider>::empty(
            origin.clone(),
            ZoneType::Primary,
            AxfrPolicy::Deny,
        );
        let handler = Arc::new(handler);
        let soa = SOA::new(origin.clone(), origin.clone(), 1, 60, 60, 60, 60);
        let record = Record::from_rdata(origin.clone(), 60, RData::SOA(soa));
        handler.upsert(record, 1).await;
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::new(&origin), vec![Arc::clone(&handler) as Arc<dyn ZoneHandler>]);
        let mut server = Server::new(catalog);
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        server.register_socket(socket);
        NameServer { address, zone: handler, _server: server }
    }

    pub(crate) async fn publish(&self, name: &str, text: &str) {
        let name = Name::from_ascii(name).unwrap();
        let txt = RData::TXT(TXT::new(vec![text.to_owned()]));
        self.zone.upsert(Record::from_rdata(name, 60, txt), 2).await;
    }
}
