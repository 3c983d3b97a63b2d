//! The addresses of endpoints, and TXT records. The only module that asks name servers.
//!
//! Nothing here takes a thread: a name that nobody answers for costs sockets and time, both
//! bounded. A look-up has two parts, each with permits that tenants share. The first half second
//! needs one of many. A name that takes longer needs one of a second, smaller set, and without one
//! it ends there. So a tenant with hundreds of names that nobody answers for keeps its own good
//! names waiting for a few half seconds, and other tenants not at all; and names that were found
//! before need no permit.

mod cache;
mod servers;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::{Instant, timeout};

use crate::descriptors;
use crate::fair::{Bounds, FairSemaphore, Owner, Permit};
use crate::patience;
pub use cache::Addresses;
use cache::{Cache, by_turns};
use servers::Servers;

/// What is answered within this time is not in anybody's way.
const QUICK: Duration = Duration::from_millis(500);
/// How long a look-up waits for its permit. That is time of ours, and not of the endpoint.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// How many look-ups of one tenant may wait.
const WAITING_MAX: usize = 512;
/// One tenant has one of so many permits.
const TENANT_PART: usize = 4;
/// Names that take long have one of so many.
const SLOW_PART: usize = 2;
/// How long name servers have to show that they answer at all, and for how long that is known then.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Whom to ask.
pub struct Dns {
    servers: Arc<Servers>,
    cache: Cache,
    quick: FairSemaphore,
    slow: FairSemaphore,
    /// When a name server has last said of any name what it has.
    answered: Mutex<Option<Instant>>,
    /// What was found when name servers were last asked for a sign of life.
    signs: tokio::sync::Mutex<Option<(Instant, Sign)>>,
}

/// Why there is no address of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// There is no such name, or it has no address: name servers say so.
    #[error("{0}")]
    None(String),
    /// Nobody answers for this name.
    #[error("the name servers do not answer for this name in time")]
    Silent,
    /// Name servers answer that they cannot say.
    #[error("{0}")]
    Failing(String),
    /// Too many names are looked up at the same time. This and what follows is a failure of ours.
    #[error("the router looks up as many names as it may now; this one has to wait")]
    Busy,
    #[error("{0}")]
    NoServer(String),
    #[error("the router has no socket for it now: {0}")]
    NoSocket(String),
}

/// The right to look up a name.
pub struct Turn {
    owner: Owner,
    permit: Permit,
}

/// What name servers do when they are asked for what every one of them knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Answers,
    /// They answer that they cannot or do not want to answer.
    Fails,
    Silent,
}

impl NoAddress {
    /// Whether it is no fault of the name.
    pub fn is_ours(&self) -> bool {
        match self {
            NoAddress::None(_) | NoAddress::Silent | NoAddress::Failing(_) => false,
            NoAddress::Busy | NoAddress::NoServer(_) | NoAddress::NoSocket(_) => true,
        }
    }
}

impl Dns {
    /// Asks these servers, or else those that the system is set up with, for so many names at a
    /// time.
    pub fn new(servers: &[SocketAddr], look_ups_max: usize) -> Dns {
        let bounds = |all: usize, waiting| {
            let (all, own) = (all.max(1), (all / TENANT_PART).max(1));
            FairSemaphore::new(Bounds { all, own, waiting })
        };
        Dns {
            servers: Servers::new(servers),
            cache: Cache::default(),
            quick: bounds(look_ups_max, WAITING_MAX),
            slow: bounds(look_ups_max / SLOW_PART, 0),
            answered: Mutex::default(),
            signs: tokio::sync::Mutex::default(),
        }
    }

    /// What was found not long ago.
    pub fn known(&self, name: &str) -> Option<Result<Addresses, NoAddress>> {
        self.cache.get(name)
    }

    /// The addresses of a name were of no use: who asks next, asks name servers.
    pub fn forget(&self, name: &str) {
        self.cache.forget(name);
    }

    /// Waits for the right to look up a name.
    ///
    /// # Errors
    ///
    /// There is none in time.
    pub async fn turn(&self, owner: &Owner) -> Result<Turn, NoAddress> {
        match timeout(TURN_WAIT, self.quick.take(owner)).await {
            Ok(Ok(permit)) => Ok(Turn { owner: owner.clone(), permit }),
            Ok(Err(_)) | Err(_) => Err(NoAddress::Busy),
        }
    }

    /// The addresses of a name, of both families. It ends by itself, after a few seconds.
    ///
    /// # Errors
    ///
    /// Why there is none. Whether a silence is the name's fault, [`Dns::judge`] says.
    pub async fn look_up(&self, name: &str, turn: Turn) -> Result<Addresses, NoAddress> {
        // Others may have asked for it while this one waited for its turn.
        if let Some(known) = self.cache.get(name) {
            return known;
        }
        self.in_turn(turn, self.ask(name)).await?
    }

    /// Whose fault it is that a name was not resolved: where name servers answer nobody, it is
    /// ours.
    pub async fn judge(&self, failed: NoAddress, since: Instant) -> NoAddress {
        let is_silent = match failed {
            NoAddress::Silent => true,
            NoAddress::Failing(_) => false,
            NoAddress::None(_)
            | NoAddress::Busy
            | NoAddress::NoServer(_)
            | NoAddress::NoSocket(_) => return failed,
        };
        if self.answered().is_some_and(|it| it > since) {
            return failed;
        }
        match self.sign_of_life().await {
            Sign::Answers => failed,
            Sign::Fails if is_silent => failed,
            Sign::Fails => NoAddress::NoServer(format!(
                "the router's name servers answer for no name now: {failed}"
            )),
            Sign::Silent => {
                NoAddress::NoServer("the router's name servers do not answer".to_owned())
            }
        }
    }

    /// The TXT records of a name, each with its strings put together. Empty where there are none.
    ///
    /// # Errors
    ///
    /// Why nobody could say.
    pub async fn txt(&self, owner: &Owner, name: &str) -> Result<Vec<String>, String> {
        let turn = self.turn(owner).await.map_err(|err| err.to_string())?;
        self.in_turn(turn, self.ask_for_txt(name)).await.map_err(|err| err.to_string())?
    }

    /// Gives a turn back as soon as it turns out that it takes long.
    async fn in_turn<T>(&self, turn: Turn, work: impl Future<Output = T>) -> Result<T, NoAddress> {
        let mut work = pin!(work);
        if let Ok(done) = timeout(QUICK, &mut work).await {
            return Ok(done);
        }
        let _slow = self.slow.try_take(&turn.owner).map_err(|_| NoAddress::Busy)?;
        drop(turn.permit);
        Ok(work.await)
    }

    async fn ask_for_txt(&self, name: &str) -> Result<Vec<String>, String> {
        let resolver = self.servers.resolver();
        if let Some(trouble) = &resolver.trouble {
            return Err(trouble.clone());
        }
        let mut name = Name::from_utf8(name).map_err(|err| err.to_string())?;
        // As it is, and not below a domain of this machine.
        name.set_fqdn(true);
        let found = match resolver.hickory.txt_lookup(name).await {
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

    async fn ask(&self, name: &str) -> Result<Addresses, NoAddress> {
        let resolver = self.servers.resolver();
        let parsed = Name::from_str_relaxed(name)
            .map_err(|err| NoAddress::None(format!("`{name}` cannot be a name: {err}")))?;
        let mut found = pin!(resolver.hickory.lookup_ip(parsed));
        // What is there at once is from the system's files, and says nothing of name servers.
        let mut was_asked = false;
        let found = poll_fn(|context| {
            let found = found.as_mut().poll(context);
            was_asked |= found.is_pending();
            found
        })
        .await;
        let (found, ttl_s) = match found {
            Ok(found) => {
                let records = found.as_lookup().answers();
                let ttl_s = records.iter().map(|it| it.ttl).min();
                let addresses = by_turns(found.iter());
                let none = || NoAddress::None("the name has no address".to_owned());
                (if addresses.is_empty() { Err(none()) } else { Ok(addresses) }, ttl_s)
            }
            Err(err) => why(&err, resolver.trouble.as_deref()),
        };
        if was_asked && matches!(found, Ok(_) | Err(NoAddress::None(_))) {
            let now = Instant::now();
            *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
        self.cache.put(name, &found, Duration::from_secs(ttl_s.unwrap_or(0).into()));
        found
    }

    fn answered(&self) -> Option<Instant> {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the name servers of the root, which every name server knows or says that it does
    /// not tell. Whoever comes meanwhile waits for the same answer.
    async fn sign_of_life(&self) -> Sign {
        let mut signs = self.signs.lock().await;
        if let Some((at, sign)) = *signs
            && at.elapsed() < SIGN_OF_LIFE
        {
            return sign;
        }
        let resolver = self.servers.resolver();
        let asked = resolver.hickory.lookup(Name::root(), RecordType::NS);
        let sign = match patience::timeout(SIGN_OF_LIFE, asked).await {
            Ok(Ok(_)) => Sign::Answers,
            Ok(Err(err)) if err.is_no_records_found() => Sign::Answers,
            Ok(Err(NetError::Dns(DnsError::ResponseCode(_)))) => Sign::Fails,
            Ok(Err(_)) | Err(_) => Sign::Silent,
        };
        *signs = Some((Instant::now(), sign));
        sign
    }
}

/// Why there is no address, and for how many seconds that may be believed.
fn why(err: &NetError, trouble: Option<&str>) -> (Result<Addresses, NoAddress>, Option<u32>) {
    let why = match err {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords {
            response_code, negative_ttl, ..
        })) => {
            let is_known = *response_code != ResponseCode::NXDomain;
            let text = if is_known { "the name has no address" } else { "there is no such name" };
            return (Err(NoAddress::None(text.to_owned())), *negative_ttl);
        }
        NetError::Timeout => NoAddress::Silent,
        NetError::Io(err) if descriptors::are_short(err) => NoAddress::NoSocket(err.to_string()),
        NetError::Io(err) => {
            NoAddress::NoServer(format!("the router cannot reach its name servers: {err}"))
        }
        NetError::NoConnections => {
            NoAddress::NoServer(trouble.unwrap_or("no name server can be asked").to_owned())
        }
        NetError::Busy => NoAddress::Busy,
        NetError::Dns(DnsError::ResponseCode(code)) => {
            NoAddress::Failing(format!("its name servers answer `{code}`"))
        }
        other => NoAddress::Failing(other.to_string()),
    };
    (Err(why), None)
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::net::UdpSocket;

    use super::*;

    fn check(err: NetError, expected: &NoAddress) {
        assert_eq!(why(&err, Some("no file")).0.as_ref(), Err(expected), "{err}");
    }

    #[test]
    fn who_is_to_blame_for_a_name_without_addresses() {
        let io = |errno: i32| NetError::from(io::Error::from_raw_os_error(errno));
        for errno in [libc_errno::EMFILE, libc_errno::ENFILE, libc_errno::ENOBUFS] {
            let text = io::Error::from_raw_os_error(errno).to_string();
            check(io(errno), &NoAddress::NoSocket(text));
        }
        let text = io::Error::from_raw_os_error(libc_errno::ENETUNREACH).to_string();
        let text = format!("the router cannot reach its name servers: {text}");
        check(io(libc_errno::ENETUNREACH), &NoAddress::NoServer(text));
        check(NetError::NoConnections, &NoAddress::NoServer("no file".to_owned()));
        check(NetError::Busy, &NoAddress::Busy);
        check(NetError::Timeout, &NoAddress::Silent);
        let refused = NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail));
        let text = format!("its name servers answer `{}`", ResponseCode::ServFail);
        check(refused, &NoAddress::Failing(text));
    }

    /// As Linux numbers them.
    mod libc_errno {
        use rustix::io::Errno;

        pub(super) const EMFILE: i32 = Errno::MFILE.raw_os_error();
        pub(super) const ENFILE: i32 = Errno::NFILE.raw_os_error();
        pub(super) const ENOBUFS: i32 = Errno::NOBUFS.raw_os_error();
        pub(super) const ENETUNREACH: i32 = Errno::NETUNREACH.raw_os_error();
    }

    async fn addresses(dns: &Dns, name: &str) -> Result<Addresses, NoAddress> {
        let turn = dns.turn(&None).await?;
        dns.look_up(name, turn).await
    }

    #[tokio::test]
    async fn localhost_is_found_without_a_name_server() {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        let dns = Dns::new(&[nobody], 8);
        let found = addresses(&dns, "localhost").await.unwrap();
        assert!(found.iter().all(|it| it.is_loopback()), "{found:?}");
        assert!(matches!(addresses(&dns, "name.invalid").await, Err(NoAddress::None(_))));
        assert_eq!(dns.answered(), None, "nobody was asked");
    }

    #[tokio::test]
    async fn name_servers_that_are_silent_are_ours() {
        let silent = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let dns = Dns::new(&[silent.local_addr().unwrap()], 8);
        let since = Instant::now();
        let ours = NoAddress::NoServer("the router's name servers do not answer".to_owned());
        assert_eq!(dns.judge(NoAddress::Silent, since).await, ours);
        let failing = NoAddress::Failing("no".to_owned());
        assert_eq!(dns.judge(failing.clone(), since).await, ours);
        // Somebody has had an answer meanwhile.
        *dns.answered.lock().unwrap() = Some(Instant::now());
        assert_eq!(dns.judge(NoAddress::Silent, since).await, NoAddress::Silent);
        assert_eq!(dns.judge(failing.clone(), since).await, failing);
    }

    #[tokio::test]
    async fn a_name_that_takes_long_gives_its_turn_to_others() {
        let silent = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        // One is quick at a time, and one slow.
        let dns = Dns::new(&[silent.local_addr().unwrap()], 2);
        let since = Instant::now();
        let names = ["a.example", "b.example", "c.example"];
        let [one, two, three] = names.map(|it| addresses(&dns, it));
        let busy = async {
            let (two, three) = tokio::join!(two, three);
            assert_eq!([two, three], [Err(NoAddress::Busy), Err(NoAddress::Busy)]);
            since.elapsed()
        };
        let slow = async { (one.await, since.elapsed()) };
        let ((one, slow), busy) = tokio::join!(slow, busy);
        assert_eq!(one, Err(NoAddress::Silent));
        assert!(3 * QUICK <= busy && busy < slow, "{busy:?} and {slow:?}");
    }
}
