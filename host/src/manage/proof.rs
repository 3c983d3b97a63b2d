//! Whether an endpoint wants deliveries: asked before it gets the first.

use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use hookyard_nouns::event::Tenant;
use url::{Host, Url};

use crate::app::App;
use crate::formats::Proof;
use crate::patience;
use crate::secret;
use crate::sign;

/// How long the name servers may take, however many names there are to ask for.
const DNS_TIMEOUT: Duration = Duration::from_secs(10);
/// How many domains above each other are asked for.
const DOMAINS_MAX: usize = 8;

/// What an endpoint has agreed to.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    /// Where deliveries come from; none where there was no handshake about it.
    pub(super) origin: Option<String>,
    /// How many deliveries there may be a minute; none where the endpoint does not say.
    pub(super) rate_per_minute: Option<u32>,
}

/// Asks an endpoint whether it wants deliveries.
///
/// # Errors
///
/// Why the endpoint is not known to want deliveries, and what to do about it.
pub(super) async fn prove(
    app: &App,
    tenant: &Tenant,
    proof: Proof,
    url: &Url,
) -> Result<Agreement, String> {
    match proof {
        Proof::None => Ok(Agreement::default()),
        Proof::Handshake => handshake(app, tenant, url).await,
        Proof::HandshakeOrEcho => match handshake(app, tenant, url).await {
            Ok(agreement) => Ok(agreement),
            Err(why) => echo(app, tenant, url).await.map_err(|other| format!("{why}; and {other}")),
        },
        Proof::DnsRecord => dns_record(app, tenant, url).await,
    }
}

/// CloudEvents 1.0.2, HTTP 1.1 Web Hooks, section 4 ("Abuse Protection").
async fn handshake(app: &App, tenant: &Tenant, url: &Url) -> Result<Agreement, String> {
    let origin = &app.settings.webhook_origin;
    let answer = app.sender.ask_for_consent(tenant, url, origin).await?;
    let allowed = answer.allowed_origin.as_deref().unwrap_or_default();
    if allowed != "*" && !allowed.eq_ignore_ascii_case(origin) {
        return Err(format!(
            "does not answer OPTIONS with `WebHook-Allowed-Origin: {origin}` (CloudEvents handshake)"
        ));
    }
    let rate = answer.allowed_rate.filter(|it| it != "*");
    let rate_per_minute = rate.and_then(|it| it.parse().ok());
    Ok(Agreement { origin: Some(origin.clone()), rate_per_minute })
}

/// Ours: the provider's pages speak of a validation payload and do not show it.
async fn echo(app: &App, tenant: &Tenant, url: &Url) -> Result<Agreement, String> {
    let code = BASE64_URL_SAFE_NO_PAD.encode(secret::random::<18>());
    if app.sender.ask_for_echo(tenant, url, &code).await? == code {
        Ok(Agreement::default())
    } else {
        Err("does not answer `ValidationCode` with `ValidationResponse`".to_owned())
    }
}

/// Ours: the provider's pages speak of a TXT record and name neither it nor its value.
async fn dns_record(app: &App, tenant: &Tenant, url: &Url) -> Result<Agreement, String> {
    let Some(Host::Domain(host)) = url.host() else {
        return Err("must have a domain, which a TXT record can validate".to_owned());
    };
    let wanted = dns_token(app, tenant);
    let trouble = match patience::timeout(DNS_TIMEOUT, has_record(app, tenant, host, &wanted)).await
    {
        Ok(Ok(true)) => return Ok(Agreement::default()),
        Ok(Ok(false)) => String::new(),
        Ok(Err(why)) => format!(" (DNS says: {why})"),
        Err(_) => " (DNS says nothing in time)".to_owned(),
    };
    Err(format!(
        "has a domain that is not validated: publish a TXT record `_copernica-challenge.{host}` with \
         the value `{wanted}`, for this name or a domain above it{trouble}"
    ))
}

/// A record of a domain covers what is below it. A top-level domain covers nothing.
async fn has_record(app: &App, tenant: &Tenant, host: &str, wanted: &str) -> Result<bool, String> {
    let owner = Some(tenant.clone());
    let starts = std::iter::once(0).chain(host.match_indices('.').map(|(at, _)| at + 1));
    let domains = starts.map(|at| &host[at..]).filter(|it| it.contains('.'));
    for domain in domains.take(DOMAINS_MAX) {
        let records = app.dns.txt(&owner, &format!("_copernica-challenge.{domain}")).await?;
        if records.iter().any(|it| it == wanted) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What an account publishes to show that a domain is its own. Another account has another one.
fn dns_token(app: &App, tenant: &Tenant) -> String {
    let key = app.key.derive("domain validation");
    let token = sign::hmac_sha256(&key, [tenant.as_str().as_bytes()]);
    BASE64_URL_SAFE_NO_PAD.encode(&token[..18])
}
