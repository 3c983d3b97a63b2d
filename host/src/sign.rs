//! Signatures of deliveries, by Standard Webhooks 1.0.0.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::event::Violation;
use crate::secret;
use crate::subscription::SigningSecret;

/// How many bytes a secret has (Standard Webhooks, "Signature scheme": 24 to 64).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A new secret.
pub fn new_secret() -> Vec<u8> {
    secret::random::<32>().to_vec()
}

/// A secret as its owner sees it.
pub fn secret_text(secret: &[u8]) -> String {
    format!("whsec_{}", BASE64_STANDARD.encode(secret))
}

/// # Errors
///
/// The text is not `whsec_` and 24 to 64 bytes in base64.
pub fn parse_secret(text: &str) -> Result<Vec<u8>, Violation> {
    let bytes = BASE64_STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text));
    bytes.ok().filter(|bytes| SECRET_BYTES.contains(&bytes.len())).ok_or_else(|| {
        Violation::new("/secret", "must be `whsec_` followed by 24 to 64 bytes in base64")
    })
}

/// The value of `webhook-signature`: one signature for each secret that is valid now.
pub fn standard_webhooks(secrets: &[SigningSecret], id: &str, now_ms: i64, body: &[u8]) -> String {
    let valid = secrets.iter().filter(|it| it.valid_until_ms.is_none_or(|until| now_ms < until));
    let mut header = String::new();
    for secret in valid {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&secret.key).expect("HMAC takes a key of any length");
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update((now_ms / 1_000).to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        if !header.is_empty() {
            header.push(' ');
        }
        header.push_str("v1,");
        BASE64_STANDARD.encode_string(mac.finalize().into_bytes(), &mut header);
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str, valid_until_ms: Option<i64>) -> SigningSecret {
        SigningSecret { key: parse_secret(text).unwrap(), valid_until_ms }
    }

    /// The example of the Standard Webhooks specification.
    #[test]
    fn a_signature_is_what_the_specification_says() {
        let secrets = [secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None)];
        let header = standard_webhooks(
            &secrets,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330_000,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(header, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_replaced_secret_signs_until_its_time() {
        let secrets = [
            secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None),
            secret("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Some(1_000)),
        ];
        let count = |now_ms| standard_webhooks(&secrets, "1", now_ms, b"").split(' ').count();
        assert_eq!(count(999), 2);
        assert_eq!(count(1_000), 1);
    }

    #[test]
    fn a_secret_is_24_to_64_bytes() {
        assert_eq!(parse_secret(&secret_text(&[7; 24])), Ok(vec![7; 24]));
        for wrong in ["", "whsec_", "whsec_!", &secret_text(&[7; 23]), &secret_text(&[7; 65])] {
            assert!(parse_secret(wrong).is_err(), "{wrong}");
        }
    }
}
