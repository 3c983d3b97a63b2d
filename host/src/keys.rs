//! The router's own RSA keys, for formats whose receivers find the public half in DNS. There is one for
//! each month (UTC), named by it.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hookyard_nouns::clock;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rsa::RsaPrivateKey;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey};
use rsa::rand_core::OsRng;

/// Short enough for a TXT record of a few strings, and what DKIM verifiers have to take (RFC 8301).
const BITS: usize = 2_048;

/// A key with its public half. Never shown by `Debug`.
pub struct SigningKey {
    /// Where the public half is: `<selector>._domainkey.<domain>`.
    pub selector: String,
    pair: RsaKeyPair,
    public: Vec<u8>,
}

impl SigningKey {
    /// A new key, as PKCS #8. Takes about a second.
    ///
    /// # Panics
    ///
    /// The system has no randomness to give.
    pub fn make() -> Vec<u8> {
        let key = RsaPrivateKey::new(&mut OsRng, BITS).expect("a key of this size can be made");
        key.to_pkcs8_der().expect("a key can be written down").as_bytes().to_vec()
    }

    /// # Errors
    ///
    /// The bytes are not what [`SigningKey::make`] made.
    pub fn open(selector: String, pkcs8: &[u8]) -> Result<SigningKey, String> {
        let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|err| err.to_string())?;
        let key = RsaPrivateKey::from_pkcs8_der(pkcs8).map_err(|err| err.to_string())?;
        let public = key.to_public_key().to_public_key_der().map_err(|err| err.to_string())?;
        Ok(SigningKey { selector, pair, public: public.into_vec() })
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, section 8.2).
    ///
    /// # Panics
    ///
    /// The system has no randomness to give.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .expect("a message of any length can be signed");
        signature
    }

    /// The TXT record with the public half (RFC 6376, section 3.6.1).
    pub fn record(&self) -> String {
        format!("v=DKIM1;k=rsa;p={}", BASE64_STANDARD.encode(&self.public))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("selector", &self.selector).finish_non_exhaustive()
    }
}

/// The selector of the key that signs at a time, such as `hy202611`.
pub fn selector(at_ms: i64) -> String {
    let (year, month) = clock::month(at_ms);
    format!("hy{year}{month:02}")
}

/// The selector of the key after that.
pub fn next_selector(at_ms: i64) -> String {
    let (year, month) = clock::month(at_ms);
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    format!("hy{year}{month:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_month_has_a_key() {
        let december_ms = 1_798_761_599_999; // 2026-12-31T23:59:59.999Z
        assert_eq!(selector(december_ms), "hy202612");
        assert_eq!(next_selector(december_ms), "hy202701");
        assert_eq!(selector(december_ms + 1), "hy202701");
    }

    #[test]
    fn a_key_is_the_same_after_it_was_kept() {
        let kept = SigningKey::make();
        let open = || SigningKey::open("hy202611".to_owned(), &kept).unwrap();
        assert_eq!(open().sign(b"message"), open().sign(b"message"));
        assert!(open().record().starts_with("v=DKIM1;k=rsa;p=MII"), "{}", open().record());
        assert!(SigningKey::open("hy202611".to_owned(), &kept[1..]).is_err());
    }
}
