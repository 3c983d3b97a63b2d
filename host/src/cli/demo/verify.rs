//! Checks deliveries as their receivers do: the signature of each format, and the body.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hookyard_nouns::clock;
use serde_json::Value;
use url::form_urlencoded;

use super::stage::AMOUNT_MIN;
use crate::api::receiver::Receipt;
use crate::keys::SigningKey;
use crate::sign::{hex, hmac_sha256, parse_secret, sha256};

/// What signs deliveries, by the path that they go to.
#[derive(Default)]
pub(super) struct Keys {
    standard: HashMap<String, Vec<u8>>,
    vonage: HashMap<String, Vec<u8>>,
    pub(super) router: Option<Arc<SigningKey>>,
}

/// How a delivery was signed.
#[derive(Clone, Copy)]
pub(super) enum Verified {
    StandardWebhooks,
    Jwt,
    HttpSignature,
    /// The provider does not sign.
    Unsigned,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verified::StandardWebhooks => "Standard Webhooks signature verified",
            Verified::Jwt => "JWT and hash of the body verified",
            Verified::HttpSignature => "HTTP signature and digest of the body verified",
            Verified::Unsigned => "body verified; this provider does not sign",
        })
    }
}

impl Keys {
    pub(super) fn add_standard(&mut self, path: &str, secret: &Value) -> anyhow::Result<()> {
        let key = parse_secret(secret.as_str().unwrap_or_default());
        let key = key.map_err(|err| anyhow::anyhow!("{err}"))?;
        self.standard.insert(path.to_owned(), key);
        Ok(())
    }

    pub(super) fn add_vonage(&mut self, path: &str, secret: &Value) -> anyhow::Result<()> {
        let key = BASE64_STANDARD.decode(secret.as_str().unwrap_or_default())?;
        self.vonage.insert(path.to_owned(), key);
        Ok(())
    }

    /// # Errors
    ///
    /// The signature is wrong, or the body is not what the subscription asked for.
    pub(super) fn verify(&self, it: &Receipt) -> anyhow::Result<Verified> {
        let fits = fits(it).with_context(|| format!("the body for `{}` is unreadable", it.path))?;
        let body = String::from_utf8_lossy(&it.body);
        ensure!(fits, "the body is not what `{}` asked for: {body}", it.path);
        if let Some(key) = self.standard.get(&it.path) {
            standard_webhooks(key, it)?;
            Ok(Verified::StandardWebhooks)
        } else if let Some(key) = self.vonage.get(&it.path) {
            jwt(key, it)?;
            Ok(Verified::Jwt)
        } else if it.path == "/copernica" {
            http_signature(self.router.as_deref().context("the router has no key")?, it)?;
            Ok(Verified::HttpSignature)
        } else {
            Ok(Verified::Unsigned)
        }
    }
}

fn header<'a>(it: &'a Receipt, name: &str) -> anyhow::Result<&'a str> {
    let value = it.headers.get(name).with_context(|| format!("`{name}` is missing"))?;
    Ok(value.to_str()?)
}

fn standard_webhooks(key: &[u8], it: &Receipt) -> anyhow::Result<()> {
    let (id, timestamp) = (header(it, "webhook-id")?, header(it, "webhook-timestamp")?);
    let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &it.body];
    let expected = format!("v1,{}", BASE64_STANDARD.encode(hmac_sha256(key, parts)));
    // For a day, the secret before this one signs as well.
    let signed = header(it, "webhook-signature")?.split(' ').any(|it| it == expected);
    ensure!(signed, "the signature of {id} is wrong");
    Ok(())
}

fn jwt(key: &[u8], it: &Receipt) -> anyhow::Result<()> {
    let token = header(it, "vonage-signature")?;
    let (signed, signature) = token.rsplit_once('.').context("no JWT")?;
    let expected = hmac_sha256(key, [signed.as_bytes()]);
    ensure!(BASE64_URL_SAFE_NO_PAD.decode(signature)? == expected, "the JWT's signature is wrong");
    let (_, claims) = signed.split_once('.').context("no JWT")?;
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims)?)?;
    ensure!(claims["payload_hash"] == hex(&sha256(&it.body)), "the JWT is for another body");
    let now_s = clock::now_ms() / 1_000;
    ensure!(claims["exp"].as_i64().is_some_and(|end| now_s < end), "the JWT has expired");
    Ok(())
}

fn http_signature(key: &SigningKey, it: &Receipt) -> anyhow::Result<()> {
    let digest = format!("sha-256={}", BASE64_STANDARD.encode(sha256(&it.body)));
    ensure!(header(it, "digest")? == digest, "the digest is of another body");
    let fields: HashMap<&str, &str> = header(it, "signature")?
        .split(',')
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect();
    let key_id = fields.get("keyId").copied().unwrap_or_default();
    ensure!(key_id.starts_with(&key.selector), "`{key_id}` is not the router's key");
    let mut lines = Vec::new();
    for name in fields.get("headers").copied().unwrap_or_default().split(' ') {
        lines.push(match name {
            "(request-target)" => format!("(request-target): post {}", it.path),
            _ => format!("{name}: {}", header(it, name)?),
        });
    }
    // What is cut at `=` lacks its padding only.
    let signature = fields.get("signature").copied().unwrap_or_default();
    let expected = BASE64_STANDARD.encode(key.sign(lines.join("\n").as_bytes()));
    ensure!(expected == signature, "the HTTP signature is wrong");
    Ok(())
}

fn fits(it: &Receipt) -> anyhow::Result<bool> {
    let body = || serde_json::from_slice::<Value>(&it.body);
    Ok(match it.path.as_str() {
        "/full" => body()?["ProfileId"] == 1024,
        "/minimised" => {
            let body = body()?;
            body.get("Data").is_none() && body["ProfileId"] == 1024
        }
        "/alternate" => {
            !it.body.windows(4).any(|it| it == b"1024")
                && body()?["AlternateId"]["Id"] == "L-204817"
        }
        "/kajabi" => {
            let body = body()?;
            body["event"] == "tag_added" && body["payload"][1]["type"] == "contact_tags"
        }
        "/vision6" => body()?[0]["event"] == "unsubscribed",
        "/copernica" => {
            form_urlencoded::parse(&it.body).any(|(name, _)| name == "parameters[name]")
        }
        "/vonage" => body()?["type"] == "channel.ended.v1",
        _ => body()?["data"]["amount"].as_u64() >= Some(AMOUNT_MIN),
    })
}
