//! Which addresses and ports deliveries may reach. An endpoint is checked when it is given and
//! again when it is connected to, on the very address that is connected to: a name that changes its
//! mind gains nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use hookyard_nouns::event::Violation;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use tokio::time::timeout;
use url::{Host, Url};

use crate::dns::{Addresses, Dns, NoAddress};
use crate::fair::Owner;
use crate::schemas::Endpoints;

/// How long a name may take to resolve when it is only looked at.
const LOOK_UP: Duration = Duration::from_secs(1);

/// What is not the public Internet, from the IANA IPv4 Special-Purpose Address Registry, with
/// multicast. The registry calls the blocks for AS112, AMT and relays globally reachable; but the
/// nearest machine answers there, whoever runs it, and none of them is anybody's endpoint.
const SPECIAL_V4: [&str; 18] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// The same of global unicast (2000::/3), from the IPv6 registry; nothing beyond that is reached at
/// all.
const SPECIAL_V6: [&str; 5] =
    ["2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"];

/// Addresses out of public ranges at which a cloud answers its own machines, and nobody else.
const CLOUD_V4: [&str; 7] = [
    // Azure: "What is IP address 168.63.129.16?" The platform's DNS, agent and health probes.
    "168.63.129.16/32",
    // Google Cloud: "Private Google Access", restricted.googleapis.com and private.googleapis.com,
    // and the range of direct connectivity.
    "199.36.153.4/30",
    "199.36.153.8/30",
    "34.126.0.0/18",
    // IBM Cloud: "Service endpoints available for IBM Cloud VPC", infrastructure and platform
    // services.
    "161.26.0.0/16",
    "166.8.0.0/14",
    // Equinix Metal, formerly Packet: the metadata service, metadata.platformequinix.com.
    "192.80.8.124/32",
];

/// Google Cloud, the same page: private, restricted and direct.
const CLOUD_V6: [&str; 3] =
    ["2600:2d00:2:1000::/56", "2600:2d00:2:2000::/56", "2001:4860:8040::/42"];

/// The ports that endpoints may have, unless the operator says otherwise: those of the web, and
/// those that no system service has.
pub const DEFAULT_PORTS: [Ports; 3] =
    [Ports::new(80, 80), Ports::new(443, 443), Ports::new(1_024, u16::MAX)];

/// A port, or a range of them, written as `443` or `1024-65535`.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Ports {
    first: u16,
    last: u16,
}

/// Ports as they may stand in a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(u16),
    Text(String),
}

impl Ports {
    pub const fn new(first: u16, last: u16) -> Ports {
        Ports { first, last }
    }

    fn has(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Ports, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| {
            // Digits alone: `+80` is a number, and no port.
            let text = Some(text.trim()).filter(|it| it.bytes().all(|it| it.is_ascii_digit()));
            text.and_then(|it| it.parse().ok()).filter(|it| *it != 0)
        };
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Ports { first, last }),
            _ => {
                Err(format!("`{text}` is no port such as `443`, and no range such as `1024-65535`"))
            }
        }
    }
}

impl TryFrom<Written> for Ports {
    type Error = String;

    fn try_from(written: Written) -> Result<Ports, String> {
        match written {
            Written::One(port) => port.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(out, "{}", self.first)
        } else {
            write!(out, "{}-{}", self.first, self.last)
        }
    }
}

/// As it can be written in the file.
impl fmt::Debug for Ports {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\"{self}\"")
    }
}

/// The rule for endpoints.
#[derive(Clone, Debug)]
pub struct Egress {
    endpoints: Endpoints,
    allowed: Vec<IpNet>,
    ports: Vec<Ports>,
    denied_v4: Vec<Ipv4Net>,
    denied_v6: Vec<Ipv6Net>,
}

/// What the rule denies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(
        "leads to {0}, which is not a public address; the operator can allow it with --egress-allow"
    )]
    Address(IpAddr),
    #[error(
        "has the port {port}, and endpoints may have {allowed}; the operator can allow more with \
         --egress-ports"
    )]
    Port { port: u16, allowed: String },
}

impl Egress {
    /// `allowed` are networks that may be reached though they are not public.
    pub fn new(endpoints: Endpoints, allowed: Vec<IpNet>, ports: Vec<Ports>) -> Egress {
        let v4 = |it: &&str| it.parse().expect("the network is written right");
        let v6 = |it: &&str| it.parse().expect("the network is written right");
        Egress {
            endpoints,
            allowed,
            ports,
            denied_v4: SPECIAL_V4.iter().chain(&CLOUD_V4).map(v4).collect(),
            denied_v6: SPECIAL_V6.iter().chain(&CLOUD_V6).map(v6).collect(),
        }
    }

    /// Whether an address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6 clothes is the IPv4 address.
        let address = address.to_canonical();
        if self.is_allowed_by_operator(address) {
            return true;
        }
        match address {
            IpAddr::V4(it) => self.allows_v4(it),
            IpAddr::V6(it) => match nat64(it) {
                Some(it) => self.allows_v4(it),
                None => {
                    it.segments()[0] & 0xe000 == 0x2000
                        && !self.denied_v6.iter().any(|net| net.contains(&it))
                        && isatap(it).is_none_or(|it| self.allows_v4(it))
                }
            },
        }
    }

    fn allows_v4(&self, address: Ipv4Addr) -> bool {
        !self.denied_v4.iter().any(|net| net.contains(&address))
    }

    /// Whether the operator has allowed an address by its network, public or not.
    pub fn is_allowed_by_operator(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|net| net.contains(&address.to_canonical()))
    }

    /// Checks an address that stands in a URL itself, where nothing is resolved.
    ///
    /// # Errors
    ///
    /// It may not be connected to.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Denied> {
        if self.allows(address) { Ok(()) } else { Err(Denied::Address(address)) }
    }

    /// Checks the port of an endpoint.
    ///
    /// # Errors
    ///
    /// Endpoints may not have it.
    pub fn check_port(&self, port: u16) -> Result<(), Denied> {
        if port != 0 && self.ports.iter().any(|it| it.has(port)) {
            return Ok(());
        }
        let allowed: Vec<_> = self.ports.iter().map(ToString::to_string).collect();
        let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
        Err(Denied::Port { port, allowed })
    }

    /// Those addresses of a name that may be connected to.
    ///
    /// # Errors
    ///
    /// There are some, and none of them may.
    pub fn choose(&self, addresses: &[IpAddr], port: u16) -> Result<Vec<SocketAddr>, Denied> {
        let allowed = addresses.iter().filter(|it| self.allows(**it));
        let allowed: Vec<_> = allowed.map(|it| SocketAddr::new(*it, port)).collect();
        match addresses.first() {
            Some(denied) if allowed.is_empty() => Err(Denied::Address(*denied)),
            _ => Ok(allowed),
        }
    }

    /// Checks an endpoint when it is given: scheme, credentials, port, and where its name leads. A
    /// name that does not resolve now is left to the delivery. `takes_http` is what the format
    /// says.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL in `field`.
    pub async fn check(
        &self,
        dns: &Dns,
        owner: &Owner,
        field: &str,
        url: &Url,
        takes_http: bool,
    ) -> Result<(), Violation> {
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
            Some(Host::Domain(name)) => match timeout(LOOK_UP, look_up(dns, owner, name)).await {
                Ok(Ok(found)) => self.choose(&found, port).map(|_| ()),
                Ok(Err(_)) | Err(_) => Ok(()),
            },
            None => Ok(()),
        };
        match checked.and_then(|()| self.check_port(port)) {
            Ok(()) => Ok(()),
            Err(denied) => wrong(denied.to_string()),
        }
    }
}

async fn look_up(dns: &Dns, owner: &Owner, name: &str) -> Result<Addresses, NoAddress> {
    if let Some(known) = dns.known(name) {
        return known;
    }
    let turn = dns.turn(owner).await?;
    dns.look_up(name, turn).await
}

/// The IPv4 address that a translator would connect to (RFC 6052).
fn nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let well_known = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
    let (prefix, v4) = octets.split_at(12);
    (prefix == well_known).then(|| Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]))
}

/// The IPv4 address that an ISATAP interface would tunnel to (RFC 5214, section 6.1).
fn isatap(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, _, _, _, global, marker, high, low] = address.segments();
    let is_isatap = global & 0xfdff == 0 && marker == 0x5efe;
    is_isatap.then(|| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(endpoints: Endpoints, allowed: &[&str]) -> Egress {
        let allowed = allowed.iter().map(|it| it.parse().unwrap()).collect();
        Egress::new(endpoints, allowed, DEFAULT_PORTS.to_vec())
    }

    fn check(egress: &Egress, address: &str, allowed: bool) {
        assert_eq!(egress.allows(address.parse().unwrap()), allowed, "{address}");
    }

    const PUBLIC: [&str; 20] = [
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "192.80.8.123",
        "199.36.153.3",
        "199.36.153.12",
        "34.126.64.0",
        "161.25.255.255",
        "166.12.0.0",
        "2001:200::1",
        "2606:4700::1111",
        "2600:2d00:2:1100::1",
        "2001:470::5efe:101:101",
        "64:ff9b::101:101",
        "::ffff:1.1.1.1",
    ];

    const SPECIAL: [&str; 35] = [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "172.31.0.1",
        "192.0.0.192",
        "192.31.196.1",
        "192.52.193.1",
        "192.88.99.1",
        "192.168.0.1",
        "192.175.48.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "64:ff9b:1::1",
        "100::1",
        "100:0:0:1::1",
        "2001::1",
        "2001:1::1",
        "2001:2::1",
        "2001:20::1",
        "2001:db8::1",
        "2620:4f:8000::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];

    #[test]
    fn only_public_addresses_are_reached() {
        let egress = egress(Endpoints::Strict, &[]);
        for public in PUBLIC {
            check(&egress, public, true);
        }
        let clouds = [
            "100.100.100.200",
            "168.63.129.16",
            "199.36.153.4",
            "199.36.153.11",
            "34.126.0.1",
            "161.26.0.10",
            "166.9.0.1",
            "192.80.8.124",
            "2600:2d00:2:1000::1",
            "2600:2d00:2:2000::1",
            "2001:4860:8040::1",
        ];
        for denied in SPECIAL.iter().chain(&clouds) {
            check(&egress, denied, false);
        }
    }

    /// Where an IPv6 address stands for an IPv4 address, that one is looked at.
    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_denied_as_well() {
        let egress = egress(Endpoints::Strict, &[]);
        for v4 in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "168.63.129.16", "192.168.1.1"] {
            let [a, b, c, d] = v4.parse::<Ipv4Addr>().unwrap().octets();
            let hex = format!("{:x}:{:x}", u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for clothes in [
                format!("::ffff:{v4}"),
                format!("::{v4}"),
                format!("::ffff:0:{v4}"),
                format!("64:ff9b::{v4}"),
                format!("64:ff9b:1::{v4}"),
                format!("2002:{hex}::1"),
                format!("2001:0:{hex}::1"),
                format!("2001:470:1:2:0:5efe:{hex}"),
                format!("2001:470:1:2:200:5efe:{hex}"),
                format!("fe80::5efe:{v4}"),
            ] {
                check(&egress, &clothes, false);
            }
        }
    }

    #[test]
    fn the_operator_allows_networks() {
        let egress = egress(Endpoints::Strict, &["127.0.0.0/8", "168.63.129.16/32"]);
        check(&egress, "127.0.0.1", true);
        check(&egress, "::ffff:127.0.0.1", true);
        check(&egress, "168.63.129.16", true);
        check(&egress, "10.0.0.1", false);
    }

    #[test]
    fn a_name_is_reached_at_those_addresses_that_are_allowed() {
        let egress = egress(Endpoints::Strict, &[]);
        let addresses =
            |all: &[&str]| -> Vec<IpAddr> { all.iter().map(|it| it.parse().unwrap()).collect() };
        let chosen = egress.choose(&addresses(&["fe80::1", "1.1.1.1", "::1"]), 443).unwrap();
        assert_eq!(chosen, ["1.1.1.1:443".parse().unwrap()]);
        let only_denied = addresses(&["fd00::1", "::1"]);
        assert_eq!(egress.choose(&only_denied, 443), Err(Denied::Address(only_denied[0])));
        assert_eq!(egress.choose(&[], 443), Ok(vec![]));
    }

    #[test]
    fn ports_are_numbers_and_ranges() {
        for (text, parsed) in [
            ("443", Some(Ports::new(443, 443))),
            ("1024-65535", Some(Ports::new(1_024, 65_535))),
            (" 80 - 90 ", Some(Ports::new(80, 90))),
            ("0", None),
            ("0-80", None),
            ("90-80", None),
            ("65536", None),
            ("+80", None),
            ("-80", None),
            ("80-", None),
            ("", None),
            ("http", None),
        ] {
            assert_eq!(text.parse::<Ports>().ok(), parsed, "{text}");
        }
        let from_file: Vec<Ports> = serde_json::from_str("[80, \"1024-2048\"]").unwrap();
        assert_eq!(format!("{from_file:?}"), r#"["80", "1024-2048"]"#);
        assert!(serde_json::from_str::<Ports>("70000").is_err());
    }

    #[test]
    fn endpoints_have_the_ports_that_are_allowed() {
        let usual = egress(Endpoints::Strict, &[]);
        for (port, allowed) in [
            (80, true),
            (443, true),
            (1_024, true),
            (65_535, true),
            (22, false),
            (25, false),
            (1_023, false),
        ] {
            assert_eq!(usual.check_port(port).is_ok(), allowed, "{port}");
        }
        let none = Egress::new(Endpoints::Strict, vec![], vec![]);
        let denied = none.check_port(443).unwrap_err().to_string();
        assert!(denied.contains("endpoints may have none"), "{denied}");
    }

    #[tokio::test]
    async fn an_endpoint_is_checked_when_it_is_given() {
        let egress = egress(Endpoints::Strict, &[]);
        let dns = Dns::new(&[], 8);
        for (url, why) in [
            ("http://example.invalid/", "must be a URL that begins with `https://`"),
            ("ftp://example.invalid/", "must be a URL that begins with `https://`"),
            ("https://user:pass@example.invalid/", "must not have a user name"),
            ("https://user@127.0.0.1/", "must not have a user name"),
            ("https://127.0.0.1/", "not a public address"),
            ("https://127.0.0.1./", "not a public address"),
            ("https://0x7f.1/", "not a public address"),
            ("https://2130706433/", "not a public address"),
            ("https://0177.0.0.1/", "not a public address"),
            ("https://127.1/", "not a public address"),
            ("https://%31%32%37.0.0.1/", "not a public address"),
            ("https://\u{ff11}\u{ff12}\u{ff17}.0.0.1/", "not a public address"),
            ("https://168.63.129.16/", "not a public address"),
            ("https://[::1]/", "not a public address"),
            ("https://[::ffff:10.0.0.1]/", "not a public address"),
            ("https://[2002:7f00:1::]/", "not a public address"),
            ("https://localhost/", "not a public address"),
            ("https://localhost./", "not a public address"),
            ("https://LOCALHOST/", "not a public address"),
            ("https://any.localhost/", "not a public address"),
            (
                "https://name.invalid:22/",
                "has the port 22, and endpoints may have 80, 443, 1024-65535",
            ),
            ("https://1.1.1.1:25/", "--egress-ports"),
        ] {
            let checked = egress.check(&dns, &None, "/url", &url.parse().unwrap(), false).await;
            let violation = checked.expect_err(url);
            assert!(violation.detail.contains(why), "{url}: {violation}");
            assert_eq!(violation.field, "/url");
        }
        // A URL is not one with a zone, which would name an interface of this machine.
        for url in ["https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/"] {
            assert!(url.parse::<Url>().is_err(), "{url}");
        }
        let unknown = "https://name.invalid:8443/".parse().unwrap();
        assert_eq!(egress.check(&dns, &None, "/url", &unknown, false).await, Ok(()));
        let plain = "http://name.invalid/".parse().unwrap();
        assert_eq!(egress.check(&dns, &None, "/url", &plain, true).await, Ok(()));
    }
}
