//! TXT records. The only module that asks name servers itself; addresses are resolved by the system.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};

const TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;

/// Whom to ask.
pub struct Dns {
    /// Or why nobody can be asked: without name servers, a router works all the same.
    resolver: Result<TokioResolver, String>,
}

impl Dns {
    /// Asks these servers, or else those that the system is set up with.
    pub fn new(servers: &[SocketAddr]) -> Dns {
        Dns { resolver: resolver(servers).map_err(|err| err.to_string()) }
    }

    /// The TXT records of a name, each with its strings put together. Empty where there are none.
    ///
    /// # Errors
    ///
    /// Why nobody could say.
    pub async fn txt(&self, name: &str) -> Result<Vec<String>, String> {
        let resolver = self.resolver.as_ref().map_err(Clone::clone)?;
        let mut name = Name::from_utf8(name).map_err(|err| err.to_string())?;
        // As it is, and not below a domain of this machine.
        name.set_fqdn(true);
        let found = match resolver.txt_lookup(name).await {
            Ok(found) => found,
            Err(err) if err.is_no_records_found() => return Ok(Vec::new()),
            Err(err) => return Err(err.to_string()),
        };
        let texts = found.answers().iter().filter_map(|record| match &record.data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        });
        Ok(texts.collect())
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = servers.iter().map(|it| name_server(*it)).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    // Whoever has just published a record does not want to hear of the time before.
    options.cache_size = 0;
    builder.build()
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    connections.iter_mut().for_each(|it| it.port = address.port());
    NameServerConfig::new(address.ip(), true, connections.into())
}
