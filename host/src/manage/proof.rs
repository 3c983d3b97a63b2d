//! Whether an endpoint wants deliveries: asked before it gets the first.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use url::{Host, Url};

use crate::app::App;
use crate::event::Tenant;
use crate::formats::Proof;
use crate::secret;
use crate::sign;

/// How many deliveries a minute the endpoint agrees to; none where it does not say.
///
/// # Errors
///
/// Why the endpoint is not known to want deliveries, and what to do about it.
pub(super) async fn prove(
    app: &App,
    tenant: &Tenant,
    proof: Proof,
    url: &Url,
) -> Result<Option<u32>, String> {
    match proof {
        Proof::None => Ok(None),
        Proof::Handshake => handshake(app, url).await,
        Proof::HandshakeOrEcho => match handshake(app, url).await {
            Ok(rate) => Ok(rate),
            Err(why) => echo(app, url).await.map_err(|other| format!("{why}; and {other}")),
        },
        Proof::DnsRecord => dns_record(app, tenant, url).await,
    }
}

/// CloudEvents 1.0.2, HTTP 1.1 Web Hooks, section 4 ("Abuse Protection").
async fn handshake(app: &App, url: &Url) -> Result<Option<u32>, String> {
    let origin = &app.settings.webhook_origin;
    let answer = app.sender.ask_for_consent(url, origin).await?;
    let allowed = answer.allowed_origin.as_deref().unwrap_or_default();
    if allowed != "*" && !allowed.eq_ignore_ascii_case(origin) {
        return Err(format!(
            "does not answer OPTIONS with `WebHook-Allowed-Origin: {origin}` (CloudEvents handshake)"
        ));
    }
    let rate = answer.allowed_rate.filter(|it| it != "*");
    Ok(rate.and_then(|it| it.parse().ok()))
}

/// Ours: the provider's pages speak of a validation payload and do not show it.
async fn echo(app: &App, url: &Url) -> Result<Option<u32>, String> {
    let code = BASE64_URL_SAFE_NO_PAD.encode(secret::random::<18>());
    if app.sender.ask_for_echo(url, &code).await? == code {
        Ok(None)
    } else {
        Err("does not answer `ValidationCode` with `ValidationResponse`".to_owned())
    }
}

/// Ours: the provider's pages speak of a TXT record and name neither it nor its value.
async fn dns_record(app: &App, tenant: &Tenant, url: &Url) -> Result<Option<u32>, String> {
    let Some(Host::Domain(host)) = url.host() else {
        return Err("must have a domain, which a TXT record can validate".to_owned());
    };
    let wanted = dns_token(app, tenant);
    let mut trouble = None;
    // A record of a domain covers what is below it. A top-level domain covers nothing.
    let mut domain = host;
    while domain.contains('.') {
        match app.dns.txt(&format!("_copernica-challenge.{domain}")).await {
            Ok(records) if records.contains(&wanted) => return Ok(None),
            Ok(_) => {}
            Err(why) => trouble = Some(why),
        }
        domain = domain.split_once('.').map_or("", |(_, above)| above);
    }
    let trouble = trouble.map(|why| format!(" (DNS says: {why})")).unwrap_or_default();
    Err(format!(
        "has a domain that is not validated: publish a TXT record `_copernica-challenge.{host}` with \
         the value `{wanted}`, for this name or a domain above it{trouble}"
    ))
}

/// What an account publishes to show that a domain is its own. Another account has another one.
fn dns_token(app: &App, tenant: &Tenant) -> String {
    let key = app.key.derive("domain validation");
    let token = sign::hmac_sha256(&key, [tenant.as_str().as_bytes()]);
    BASE64_URL_SAFE_NO_PAD.encode(&token[..18])
}
