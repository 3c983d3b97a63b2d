//! Signatures of deliveries: Standard Webhooks 1.0.0, and what formats make theirs of.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use hookyard_nouns::event::{Tenant, Violation};
use hookyard_nouns::subscription::SigningSecret;
use http::HeaderName;
use sha2::{Digest as _, Sha256};
use url::Url;
use uuid::Uuid;

use crate::keys::SigningKey;
use crate::secret;

/// How many bytes a secret has (Standard Webhooks, "Signature scheme": 24 to 64).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// A request that is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    pub delivery: Uuid,
    pub event: Uuid,
    pub tenant: &'a Tenant,
    pub url: &'a Url,
    pub content_type: &'static str,
    pub body: &'a [u8],
    /// The newest first.
    pub secrets: &'a [SigningSecret],
    /// The router's key, for a format that has one.
    pub key: Option<&'a SigningKey>,
    /// Different for each attempt.
    pub nonce: [u8; 16],
    pub now_ms: i64,
}

/// A new secret.
pub fn new_secret() -> Vec<u8> {
    secret::random::<32>().to_vec()
}

/// A secret as its owner sees it.
pub fn secret_text(secret: &[u8]) -> String {
    format!("whsec_{}", BASE64_STANDARD.encode(secret))
}

/// A secret that somebody gives, with or without the padding at its end.
///
/// # Errors
///
/// The text is not `whsec_` and 24 to 64 bytes in base64.
pub fn parse_secret(text: &str) -> Result<Vec<u8>, Violation> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let bytes = LENIENT.decode(text.strip_prefix("whsec_").unwrap_or(text));
    bytes.ok().filter(|bytes| SECRET_BYTES.contains(&bytes.len())).ok_or_else(|| {
        Violation::new("/secret", "must be `whsec_` followed by 24 to 64 bytes in base64")
    })
}

/// The headers of Standard Webhooks, with one signature for each secret that is valid now. Nothing
/// where there is no secret.
pub fn standard_webhooks(it: &Unsigned<'_>) -> Vec<(HeaderName, String)> {
    if it.secrets.is_empty() {
        return Vec::new();
    }
    let id = it.delivery.to_string();
    let timestamp = (it.now_ms / 1_000).to_string();
    let valid =
        it.secrets.iter().filter(|secret| secret.valid_until_ms.is_none_or(|end| it.now_ms < end));
    let mut signatures = String::new();
    for secret in valid {
        if !signatures.is_empty() {
            signatures.push(' ');
        }
        signatures.push_str("v1,");
        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", it.body];
        BASE64_STANDARD.encode_string(hmac_sha256(&secret.key, parts), &mut signatures);
    }
    vec![(WEBHOOK_ID, id), (WEBHOOK_TIMESTAMP, timestamp), (WEBHOOK_SIGNATURE, signatures)]
}

/// HMAC-SHA-256 (RFC 2104) of parts that follow each other.
pub fn hmac_sha256<'a>(key: &[u8], parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.into_iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// SHA-256 (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Two small digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str, valid_until_ms: Option<i64>) -> SigningSecret {
        SigningSecret { key: parse_secret(text).unwrap(), valid_until_ms }
    }

    fn signature(secrets: &[SigningSecret], delivery: Uuid, now_ms: i64, body: &[u8]) -> String {
        let headers = standard_webhooks(&Unsigned {
            delivery,
            event: Uuid::nil(),
            tenant: &Tenant::new("t").unwrap(),
            url: &"https://example.com/".parse().unwrap(),
            content_type: "application/json",
            body,
            secrets,
            key: None,
            nonce: [0; 16],
            now_ms,
        });
        headers.into_iter().nth(2).map(|(_, value)| value).unwrap_or_default()
    }

    /// As the specification's own example, for an id of ours; the value is from Python's `hmac`.
    #[test]
    fn a_signature_is_what_the_specification_says() {
        let secrets = [secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None)];
        let now_ms = 1_614_265_330_000;
        let header = signature(&secrets, Uuid::nil(), now_ms, br#"{"test": 2432232314}"#);
        assert_eq!(header, "v1,Y5/uRWupLQOPxe4D5mBYrd9dRGhY+xtWrnxDwy59WDE=");
        assert_eq!(signature(&[], Uuid::nil(), now_ms, b""), "");
    }

    #[test]
    fn a_replaced_secret_signs_until_its_time() {
        let secrets = [
            secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None),
            secret("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Some(1_000)),
        ];
        let count = |now_ms| signature(&secrets, Uuid::nil(), now_ms, b"").split(' ').count();
        assert_eq!(count(999), 2);
        assert_eq!(count(1_000), 1);
    }

    #[test]
    fn a_secret_is_24_to_64_bytes() {
        for length in 24..=64 {
            let (key, text) = (vec![7; length], secret_text(&vec![7; length]));
            assert_eq!(parse_secret(&text), Ok(key.clone()));
            assert_eq!(parse_secret(text.trim_end_matches('=')), Ok(key));
        }
        for wrong in ["", "whsec_", "whsec_!", &secret_text(&[7; 23]), &secret_text(&[7; 65])] {
            assert!(parse_secret(wrong).is_err(), "{wrong}");
        }
    }
}
