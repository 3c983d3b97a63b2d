//! Every setting: its name, its default, and what it means. A flag goes before the environment, the
//! environment before the file, and the file before the default.

mod plugins;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::builder::styling;
use ipnet::IpNet;
use serde::Deserialize;

use crate::egress::{DEFAULT_PORTS, Egress, Ports};
use crate::formats::{AlternateIdShape, Choices, InterestShape};
use crate::schemas::Endpoints;
use crate::store::{Retention, Usage};

/// The environment variable of a setting: `HOOKYARD_` and its name in capitals.
macro_rules! variable {
    ($name:ident) => {{
        const BYTES: [u8; PREFIX.len() + stringify!($name).len()] = shout(stringify!($name));
        const NAME: &str = match std::str::from_utf8(&BYTES) {
            Ok(name) => name,
            Err(_) => panic!("the name of a setting is ASCII"),
        };
        NAME
    }};
}

const DAY_MS: i64 = 24 * 3_600 * 1_000;
const PREFIX: &str = "HOOKYARD_";

const fn shout<const N: usize>(name: &str) -> [u8; N] {
    let mut out = [0; N];
    let mut at = 0;
    while at < N {
        out[at] = if at < PREFIX.len() {
            PREFIX.as_bytes()[at]
        } else {
            name.as_bytes()[at - PREFIX.len()].to_ascii_uppercase()
        };
        at += 1;
    }
    out
}

/// Declares the settings once: as they are given, as they are used, and as they are documented.
macro_rules! settings {
    ($($(#[doc = $meaning:literal])+ $(#[arg($($arg:tt)*)])* $name:ident: $type:ty = $default:expr,)+) => {
        /// The settings that somebody gave, by flags, in the environment or in a file.
        #[derive(Clone, Debug, Default, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub struct Given {
            $(
                $(#[doc = $meaning])+
                #[arg(long, env = variable!($name), $($($arg)*)*)]
                pub $name: Option<$type>,
            )+
        }

        /// The settings as they hold.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($(#[doc = $meaning])+ pub $name: $type,)+
        }

        impl Given {
            fn or(self, other: Given) -> Given {
                Given { $($name: self.$name.or(other.$name),)+ }
            }

            /// Fills in the defaults.
            pub fn settle(self) -> Settings {
                Settings { $($name: self.$name.unwrap_or_else(|| $default),)+ }
            }
        }

        /// Name, default and meaning of each setting.
        pub fn table() -> Vec<(String, String, String)> {
            let defaults = Given::default().settle();
            vec![$((
                stringify!($name).replace('_', "-"),
                default_text(&defaults.$name),
                concat!($($meaning),+).trim().to_owned(),
            ),)+]
        }
    };
}

/// As it can be written in the file.
fn default_text(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    // A choice is written in small letters there.
    if text.chars().all(char::is_alphabetic) { text.to_lowercase() } else { text }
}

settings! {
    /// Where the HTTP API listens
    #[arg(value_name = "ADDRESS", help_heading = "Network")]
    listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)),
    /// Where everything is kept: `sqlite:PATH`
    #[arg(value_name = "URL", help_heading = "Storage")]
    store: String = "sqlite:hookyard.sqlite".to_owned(),
    /// The file with the server's key, 32 bytes in base64; made at the first start. Empty: beside the
    /// store, with `.key` at its end. `HOOKYARD_KEY` holds the key itself, without a file
    #[arg(value_name = "PATH", help_heading = "Storage")]
    key_file: PathBuf = PathBuf::new(),
    /// The folder for compiled plugins. Empty: beside the store, with `.plugins` at its end
    #[arg(value_name = "PATH", help_heading = "Storage")]
    plugin_cache: PathBuf = PathBuf::new(),
    /// For how many days the data of events are kept once they are settled
    #[arg(value_name = "DAYS", help_heading = "Storage")]
    retention_payload_days: u32 = 7,
    /// For how many days events, deliveries and attempts are kept
    #[arg(value_name = "DAYS", help_heading = "Storage")]
    retention_attempt_days: u32 = 30,
    /// Above this size, settled data go before their time
    #[arg(value_name = "BYTES", help_heading = "Storage")]
    store_bytes_max: u64 = 10 << 30,
    /// Networks that deliveries may reach though they are not public, such as `10.1.0.0/16`
    #[arg(value_name = "CIDR", value_delimiter = ',', help_heading = "Network")]
    egress_allow: Vec<IpNet> = Vec::new(),
    /// Take `http` endpoints where a format asks for `https`: for development
    #[arg(num_args = 0..=1, default_missing_value = "true", help_heading = "Network")]
    egress_http: bool = false,
    /// The ports that endpoints may have: numbers, and ranges such as `8000-8999`
    #[arg(value_name = "PORTS", value_delimiter = ',', help_heading = "Network")]
    egress_ports: Vec<Ports> = DEFAULT_PORTS.to_vec(),
    /// The name servers that are asked for the addresses of endpoints and for TXT records. Empty: as the
    /// system is set up
    #[arg(value_name = "ADDRESS", value_delimiter = ',', help_heading = "Network")]
    dns_servers: Vec<SocketAddr> = Vec::new(),
    /// The name by which this router asks endpoints for their consent (CloudEvents handshake)
    #[arg(value_name = "NAME", help_heading = "Network")]
    webhook_origin: String = "hookyard".to_owned(),
    /// How many requests to endpoints may be out at the same time. One tenant has three quarters of them at most
    #[arg(value_name = "COUNT", help_heading = "Network")]
    in_flight_max: usize = 16_384,
    /// How large their bodies may be together. One tenant has three quarters of that at most
    #[arg(value_name = "BYTES", help_heading = "Network")]
    in_flight_bytes_max: usize = 128 << 20,
    /// The largest body of one delivery. What would be larger is not sent: the delivery fails
    #[arg(value_name = "BYTES", help_heading = "Network")]
    delivery_bytes_max: usize = 4 << 20,
    /// How many deliveries that were held go out in a second at most, for each subscription that is resumed
    #[arg(value_name = "COUNT", help_heading = "Network")]
    catch_up_per_second: usize = 100,
    /// How many requests to one subscription's endpoint may be out at the same time
    #[arg(value_name = "COUNT", help_heading = "Network")]
    subscription_in_flight_max: usize = 32,
    /// For how long an endpoint gets nothing once most deliveries to it have failed, before one is tried
    #[arg(value_name = "MS", help_heading = "Network")]
    endpoint_probe_ms: i64 = 30_000,
    /// After how long with nothing but failures a subscription is disabled. It is announced before
    #[arg(value_name = "MS", help_heading = "Network")]
    endpoint_disable_ms: i64 = 5 * 24 * 3_600_000,
    /// How long a stop waits for the requests that are out
    #[arg(value_name = "MS", help_heading = "Network")]
    shutdown_ms: u64 = 20_000,
    /// Believe `X-Forwarded-Proto` and `X-Forwarded-Host`, which say how clients reach the API: behind a proxy that
    /// sets them. Links in answers begin so; otherwise with `http` and the header `Host`
    #[arg(num_args = 0..=1, default_missing_value = "true", help_heading = "Network")]
    forwarded_headers: bool = false,
    /// How many connections the API takes. Beyond it, `/healthz` and `/readyz` are answered, and everything else
    /// is refused with 503. Fewer where the process may not have as many file descriptors
    #[arg(value_name = "COUNT", help_heading = "Limits")]
    connections_max: usize = 4_096,
    /// How many of them may come from one address (from one /64 of IPv6). 0: half of them. Behind a proxy all
    /// come from one address: then it is to be as large as `connections-max`
    #[arg(value_name = "COUNT", help_heading = "Limits")]
    connections_per_address_max: usize = 0,
    /// How many bytes the bodies of requests and the answers of the API may be together while they are read,
    /// worked on or sent. One tenant has half of it at most
    #[arg(value_name = "BYTES", help_heading = "Limits")]
    api_bytes_max: usize = 128 << 20,
    /// The largest body of a request to the API, plugins aside
    #[arg(value_name = "BYTES", help_heading = "Limits")]
    body_bytes_max: usize = 1 << 20,
    /// The most events in one batch
    #[arg(value_name = "COUNT", help_heading = "Limits")]
    batch_events_max: usize = 1_000,
    /// How many events and deliveries may wait: those that are not settled, and those that are held. Publishers
    /// get 429 from then on
    #[arg(value_name = "COUNT", help_heading = "Limits")]
    backlog_max: u64 = 10_000_000,
    /// How many of them may wait for one tenant
    #[arg(value_name = "COUNT", help_heading = "Limits")]
    tenant_backlog_max: u64 = 5_000_000,
    /// How many subscriptions a tenant may have
    #[arg(value_name = "COUNT", help_heading = "Limits")]
    subscriptions_max: u64 = 100_000,
    /// How large they may be together: names, URLs, filters, steps with their configurations, documents
    #[arg(value_name = "BYTES", help_heading = "Limits")]
    subscription_bytes_max: u64 = 64 << 20,
    /// How many tokens a tenant may have, those that logins give out included until they have ended
    #[arg(value_name = "COUNT", help_heading = "Limits")]
    tokens_max: u64 = 10_000,
    /// How many alternate ids the profiles of a tenant may have
    #[arg(value_name = "COUNT", help_heading = "Limits")]
    identities_max: u64 = 10_000_000,
    /// How large the settings of a tenant's accounts in providers' APIs may be together
    #[arg(value_name = "BYTES", help_heading = "Limits")]
    settings_bytes_max: u64 = 256 << 10,
    /// How many replays of a tenant may go on at the same time
    #[arg(value_name = "COUNT", help_heading = "Limits")]
    replays_max: u64 = 100,
    /// How many threads run plugins. 0: one for each core
    #[arg(value_name = "COUNT", help_heading = "Plugins")]
    workers: usize = 0,
    /// The largest plugin that may be uploaded
    #[arg(value_name = "BYTES", help_heading = "Plugins")]
    plugin_upload_bytes_max: usize = 4 << 20,
    /// After how long a plugin that fails again and again is tried on one of the deliveries that are held
    /// for it; doubled each time, up to 15 minutes
    #[arg(value_name = "MS", help_heading = "Plugins")]
    plugin_probe_ms: i64 = 30_000,
    /// The program that compiles plugins, in a process of its own with limits. Empty: this program
    #[arg(value_name = "PATH", help_heading = "Plugins")]
    plugin_compiler: PathBuf = PathBuf::new(),
    /// How much CPU time compiling one plugin may take, for each of the two forms of its code
    #[arg(value_name = "SECONDS", help_heading = "Plugins")]
    plugin_compile_seconds: u32 = 60,
    /// How much memory compiling one plugin may take
    #[arg(value_name = "BYTES", help_heading = "Plugins")]
    plugin_compile_bytes_max: u64 = 2 << 30,
    /// How much CPU time the compiler may take for one tenant within an hour
    #[arg(value_name = "SECONDS", help_heading = "Plugins")]
    plugin_compile_hour_seconds: u64 = 600,
    /// The most versions of plugins that a tenant may have
    #[arg(value_name = "COUNT", help_heading = "Plugins")]
    plugin_versions_max: u64 = 200,
    /// The most bytes that the plugins of a tenant may be together
    #[arg(value_name = "BYTES", help_heading = "Plugins")]
    plugin_bytes_max: u64 = 128 << 20,
    /// The memory that a run may use
    #[arg(value_name = "BYTES", help_heading = "Plugins")]
    plugin_memory_bytes_max: usize = 32 << 20,
    /// The most that a run may answer. Less for small events: four times their size and 64 KiB
    #[arg(value_name = "BYTES", help_heading = "Plugins")]
    plugin_output_bytes_max: usize = 1 << 20,
    /// How much code of plugins is kept in memory. The tenant with the most of it makes room first
    #[arg(value_name = "BYTES", help_heading = "Plugins")]
    plugin_loaded_bytes_max: usize = 96 << 20,
    /// The same for images of plugins that have taken a configuration
    #[arg(value_name = "BYTES", help_heading = "Plugins")]
    plugin_images_bytes_max: usize = 64 << 20,
    /// The CPU time of a run of a filter, with the making of its instance and `configure`
    #[arg(value_name = "MS", help_heading = "Plugins")]
    plugin_filter_ms: u64 = 5,
    /// The same of a transform. A plugin that is both has both times together
    #[arg(value_name = "MS", help_heading = "Plugins")]
    plugin_transform_ms: u64 = 20,
    /// The CPU time of `describe`, and of `configure` where an image is made of what it leaves
    #[arg(value_name = "MS", help_heading = "Plugins")]
    plugin_configure_ms: u64 = 250,
    /// How the alternate id shows in a MyPreferences delivery: as a `member` `AlternateId` in the place
    /// of `ProfileId`, or as the `value` of `ProfileId`
    #[arg(value_name = "SHAPE", help_heading = "Formats")]
    mypreferences_alternate_id: AlternateIdShape = AlternateIdShape::Member,
    /// Whether the endpoint of a MyPreferences subscription has to show that it wants deliveries
    /// before the subscription is active
    #[arg(action = clap::ArgAction::Set, help_heading = "Formats")]
    mypreferences_validation: bool = true,
    /// How interests are written in a Copernica delivery: as a `list` of those that are on, or as a `map`
    #[arg(value_name = "SHAPE", help_heading = "Formats")]
    copernica_interests: InterestShape = InterestShape::List,
    /// Whether the domain of a Copernica handler needs a TXT record that validates it
    #[arg(action = clap::ArgAction::Set, help_heading = "Formats")]
    copernica_validation: bool = true,
    /// The domain below which receivers find the keys of Copernica deliveries: the records that
    /// `GET /v1/signing-keys` lists have to be published there
    #[arg(value_name = "DOMAIN", help_heading = "Formats")]
    copernica_key_domain: String = "hookyard.invalid".to_owned(),
    /// What is logged, as a `tracing` filter: `debug`, `hookyard::dispatch=trace`
    #[arg(value_name = "FILTER", help_heading = "Log")]
    log: String = "info".to_owned(),
    /// Log in JSON, one object a line
    #[arg(num_args = 0..=1, default_missing_value = "true", help_heading = "Log")]
    log_json: bool = false,
}

impl Given {
    /// Adds what the file says, where there is one.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has a setting that does not exist or has another type.
    pub fn with_file(self, path: Option<&Path>) -> anyhow::Result<Given> {
        let Some(path) = path else { return Ok(self) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration file `{}`", path.display()))?;
        let file: Given = toml::from_str(&text)
            .with_context(|| format!("the configuration file `{}` is wrong", path.display()))?;
        Ok(self.or(file))
    }
}

impl Settings {
    /// The most that one tenant may have.
    pub fn quotas(&self) -> Usage {
        Usage {
            subscriptions: self.subscriptions_max,
            subscription_bytes: self.subscription_bytes_max,
            tokens: self.tokens_max,
            identities: self.identities_max,
            settings_bytes: self.settings_bytes_max,
            replays: self.replays_max,
        }
    }

    /// How long and how much is kept.
    pub fn retention(&self) -> Retention {
        Retention {
            payloads_ms: i64::from(self.retention_payload_days) * DAY_MS,
            attempts_ms: i64::from(self.retention_attempt_days) * DAY_MS,
            bytes_max: self.store_bytes_max,
        }
    }

    /// Which URLs may be endpoints.
    pub fn endpoints(&self) -> Endpoints {
        if self.egress_http { Endpoints::HttpAllowed } else { Endpoints::Strict }
    }

    /// Which addresses and ports endpoints may have.
    pub fn egress(&self) -> Egress {
        Egress::new(self.endpoints(), self.egress_allow.clone(), self.egress_ports.clone())
    }

    /// What the operator decides of formats.
    pub fn choices(&self) -> Choices {
        Choices {
            endpoints: self.endpoints(),
            alternate_id: self.mypreferences_alternate_id,
            mypreferences_validation: self.mypreferences_validation,
            interests: self.copernica_interests,
            copernica_validation: self.copernica_validation,
            copernica_key_domain: self.copernica_key_domain.clone(),
        }
    }

    /// The file of an SQLite store.
    ///
    /// # Errors
    ///
    /// The store is of another kind.
    pub fn sqlite_path(&self) -> anyhow::Result<&Path> {
        let path = self.store.strip_prefix("sqlite:").map(Path::new);
        path.filter(|path| !path.as_os_str().is_empty())
            .with_context(|| format!("the store `{}` is not `sqlite:PATH`", self.store))
    }

    /// A file or folder beside the store, unless one was named.
    ///
    /// # Errors
    ///
    /// The store is not a file.
    pub fn beside_store(&self, named: &Path, ending: &str) -> anyhow::Result<PathBuf> {
        if !named.as_os_str().is_empty() {
            return Ok(named.to_owned());
        }
        let mut path = self.sqlite_path()?.as_os_str().to_owned();
        path.push(ending);
        Ok(path.into())
    }
}

/// How `--help` looks.
pub fn styles() -> clap::builder::Styles {
    clap::builder::Styles::styled()
        .header(styling::AnsiColor::Green.on_default().bold())
        .usage(styling::AnsiColor::Green.on_default().bold())
        .literal(styling::AnsiColor::Cyan.on_default().bold())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hookyard.toml");
        std::fs::write(
            &path,
            "workers = 3\nplugin-filter-ms = 7\negress-allow = [\"10.0.0.0/8\"]\n\
                    egress-ports = [443, \"8000-8999\"]",
        )
        .unwrap();
        let flags = Given { workers: Some(5), ..Given::default() };
        let settings = flags.with_file(Some(&path)).unwrap().settle();
        assert_eq!(settings.workers, 5);
        assert_eq!(settings.plugin_filter_ms, 7);
        assert_eq!(settings.egress_allow, ["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(settings.egress_ports, [Ports::new(443, 443), Ports::new(8_000, 8_999)]);
        assert_eq!(settings.plugin_transform_ms, 20);
    }

    #[test]
    fn a_file_with_an_unknown_setting_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hookyard.toml");
        std::fs::write(&path, "wrokers = 3").unwrap();
        let err = Given::default().with_file(Some(&path)).unwrap_err();
        assert!(format!("{err:#}").contains("unknown field `wrokers`"), "{err:#}");
    }
}
