//! Which addresses deliveries may reach. An endpoint is checked when it is given and again when it is
//! connected to, on the very address that is connected to: a name that changes its mind gains nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::time::timeout;
use url::{Host, Url};

use crate::event::Violation;
use crate::schemas::Endpoints;

/// How long a name may take to resolve when it is only looked at.
const LOOK_UP: Duration = Duration::from_secs(1);

/// What is not the public Internet, from the IANA registries of special-purpose addresses.
const DENIED_V4: [&str; 15] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// The same of global unicast (2000::/3); nothing beyond that is reached at all.
const DENIED_V6: [&str; 4] = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];

/// The rule for endpoints.
#[derive(Clone, Debug)]
pub struct Egress {
    endpoints: Endpoints,
    allowed: Vec<IpNet>,
    denied_v4: Vec<Ipv4Net>,
    denied_v6: Vec<Ipv6Net>,
}

/// An address that the rule denies.
#[derive(Debug, thiserror::Error)]
#[error(
    "leads to {0}, which is not a public address; the operator can allow it with --egress-allow"
)]
pub struct Denied(IpAddr);

/// A name has no address that may be connected to.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Unknown(#[from] io::Error),
}

impl Egress {
    /// `allowed` are networks that may be reached though they are not public.
    pub fn new(endpoints: Endpoints, allowed: Vec<IpNet>) -> Egress {
        let v4 = |it: &&str| it.parse().expect("the network is written right");
        let v6 = |it: &&str| it.parse().expect("the network is written right");
        Egress {
            endpoints,
            allowed,
            denied_v4: DENIED_V4.iter().map(v4).collect(),
            denied_v6: DENIED_V6.iter().map(v6).collect(),
        }
    }

    /// Whether an address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6 clothes is the IPv4 address.
        let address = address.to_canonical();
        if self.allowed.iter().any(|net| net.contains(&address)) {
            return true;
        }
        match address {
            IpAddr::V4(it) => self.allows_v4(it),
            IpAddr::V6(it) => match nat64(it) {
                Some(it) => self.allows_v4(it),
                None => {
                    it.segments()[0] & 0xe000 == 0x2000
                        && !self.denied_v6.iter().any(|net| net.contains(&it))
                }
            },
        }
    }

    fn allows_v4(&self, address: Ipv4Addr) -> bool {
        !self.denied_v4.iter().any(|net| net.contains(&address))
    }

    /// Checks an address that stands in a URL itself, where nothing is resolved.
    ///
    /// # Errors
    ///
    /// It may not be connected to.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Denied> {
        if self.allows(address) { Ok(()) } else { Err(Denied(address)) }
    }

    /// The addresses of a name that may be connected to: one at least.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn resolve(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
        let allowed = self.choose(tokio::net::lookup_host((name, port)).await?)?;
        if allowed.is_empty() {
            let err = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(err.into());
        }
        Ok(allowed)
    }

    /// Checks an endpoint when it is given: scheme, credentials, and where its name leads. A name that
    /// does not resolve now is left to the delivery. `takes_http` is what the format says.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL in `field`.
    pub async fn check(&self, field: &str, url: &Url, takes_http: bool) -> Result<(), Violation> {
        let wrong = |detail: String| Err(Violation::new(field, detail));
        let http = takes_http || self.endpoints == Endpoints::HttpAllowed;
        if url.scheme() != "https" && !(http && url.scheme() == "http") {
            return wrong("must be a URL that begins with `https://`".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return wrong("must not have a user name or a password in it".to_owned());
        }
        let port = url.port_or_known_default().unwrap_or(443);
        let checked = match url.host() {
            Some(Host::Ipv4(it)) => self.check_address(it.into()),
            Some(Host::Ipv6(it)) => self.check_address(it.into()),
            Some(Host::Domain(name)) => match timeout(LOOK_UP, self.resolve(name, port)).await {
                Ok(Err(Unresolved::Denied(denied))) => Err(denied),
                Ok(Ok(_) | Err(Unresolved::Unknown(_))) | Err(_) => Ok(()),
            },
            None => Ok(()),
        };
        if let Err(denied) = checked {
            return wrong(denied.to_string());
        }
        Ok(())
    }

    /// Those that may be connected to; an error where all that there are may not.
    fn choose(
        &self,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Denied> {
        let mut denied = None;
        let mut allowed = Vec::new();
        for it in addresses {
            if self.allows(it.ip()) {
                allowed.push(it);
            } else {
                denied = Some(Denied(it.ip()));
            }
        }
        match denied {
            Some(denied) if allowed.is_empty() => Err(denied),
            _ => Ok(allowed),
        }
    }
}

/// The IPv4 address that a translator would connect to (RFC 6052).
fn nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let well_known = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
    let (prefix, v4) = octets.split_at(12);
    (prefix == well_known).then(|| Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(egress: &Egress, address: &str, allowed: bool) {
        assert_eq!(egress.allows(address.parse().unwrap()), allowed, "{address}");
    }

    #[test]
    fn only_public_addresses_are_reached() {
        let egress = Egress::new(Endpoints::Strict, vec![]);
        for public in ["1.1.1.1", "192.0.1.1", "172.15.0.1", "2606:4700::1111", "64:ff9b::101:101"]
        {
            check(&egress, public, true);
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::1.2.3.4",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
        ] {
            check(&egress, private, false);
        }
    }

    #[test]
    fn the_operator_allows_networks() {
        let egress = Egress::new(Endpoints::Strict, vec!["127.0.0.0/8".parse().unwrap()]);
        check(&egress, "127.0.0.1", true);
        check(&egress, "::ffff:127.0.0.1", true);
        check(&egress, "10.0.0.1", false);
    }

    #[tokio::test]
    async fn an_endpoint_is_checked_when_it_is_given() {
        let egress = Egress::new(Endpoints::Strict, vec![]);
        for (url, why) in [
            ("http://example.invalid/", "must be a URL that begins with `https://`"),
            ("https://user:pass@example.invalid/", "must not have a user name"),
            ("https://127.0.0.1/", "not a public address"),
            ("https://0x7f.1/", "not a public address"),
            ("https://[::1]/", "not a public address"),
            ("https://localhost/", "not a public address"),
        ] {
            let violation = egress.check("/url", &url.parse().unwrap(), false).await.unwrap_err();
            assert!(violation.detail.contains(why), "{url}: {violation}");
        }
        let unknown = "https://name.invalid/".parse().unwrap();
        assert_eq!(egress.check("/url", &unknown, false).await, Ok(()));
        let plain = "http://name.invalid/".parse().unwrap();
        assert_eq!(egress.check("/url", &plain, true).await, Ok(()));
    }
}
