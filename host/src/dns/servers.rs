//! Which name servers are asked: those that the operator names, or those of the system. What the
//! system's files say is followed when they change.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::time::Instant;

/// How long one name server has, and how often all of them are asked again. Both together stay
/// below the 5 s that a request has for its name.
const TIMEOUT: Duration = Duration::from_secs(2);
const RETRIES: usize = 1;
/// How often there is a look whether the system's files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Whom to ask, at present.
pub(super) struct Resolver {
    pub(super) hickory: TokioResolver,
    /// Why no name server is known. Names in `/etc/hosts`, and `localhost`, are found even so.
    pub(super) trouble: Option<String>,
}

pub(super) struct Servers {
    /// Empty: as the system is set up.
    given: Vec<SocketAddr>,
    present: RwLock<Arc<Resolver>>,
    looked: Mutex<Looked>,
}

/// When there was a look at the system's files, and how they were.
struct Looked {
    at: Instant,
    files: [Stamp; FILES.len()],
}

/// None: there is no such file.
type Stamp = Option<(SystemTime, u64)>;

impl Servers {
    pub(super) fn new(given: &[SocketAddr]) -> Arc<Servers> {
        let looked = Mutex::new(Looked { at: Instant::now(), files: FILES.map(stamp) });
        let present = RwLock::new(Arc::new(resolver(given)));
        Arc::new(Servers { given: given.to_vec(), present, looked })
    }

    pub(super) fn resolver(self: &Arc<Servers>) -> Arc<Resolver> {
        if self.have_files_changed() {
            let servers = Arc::clone(self);
            // Files that an operator may make as long as he likes are not read between requests.
            tokio::task::spawn_blocking(move || {
                let resolver = Arc::new(resolver(&servers.given));
                *servers.present.write().unwrap_or_else(PoisonError::into_inner) = resolver;
            });
        }
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn have_files_changed(&self) -> bool {
        // Whoever finds it locked leaves the look to the other one.
        let Ok(mut looked) = self.looked.try_lock() else { return false };
        if looked.at.elapsed() < LOOK_EVERY {
            return false;
        }
        let files = FILES.map(stamp);
        let changed = files != looked.files;
        *looked = Looked { at: Instant::now(), files };
        changed
    }
}

fn stamp(path: &str) -> Stamp {
    let file = fs::metadata(Path::new(path)).ok()?;
    Some((file.modified().ok()?, file.len()))
}

fn resolver(given: &[SocketAddr]) -> Resolver {
    let (config, options, trouble) = match setup(given) {
        Ok((config, options)) => (config, options, None),
        Err(err) => {
            let nobody = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
            let trouble = format!("no name server is known from {}: {err}", FILES[0]);
            (nobody, ResolverOpts::default(), Some(trouble))
        }
    };
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    let options = builder.options_mut();
    options.timeout = TIMEOUT;
    options.attempts = RETRIES;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Addresses have a cache of our own, which is asked without a permit; and whoever has just
    // published a TXT record does not want to hear of the time before.
    options.cache_size = 0;
    let hickory = builder.build().expect("without encryption there is nothing that can fail");
    Resolver { hickory, trouble }
}

fn setup(given: &[SocketAddr]) -> Result<(ResolverConfig, ResolverOpts), NetError> {
    if given.is_empty() {
        return hickory_resolver::system_conf::read_system_conf();
    }
    let servers = given.iter().map(|it| name_server(*it)).collect();
    Ok((ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default()))
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    connections.iter_mut().for_each(|it| it.port = address.port());
    NameServerConfig::new(address.ip(), true, connections.into())
}
