//! Who calls, and what they may do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use hookyard_nouns::clock;
use hookyard_nouns::event::{Tenant, Violation};
use hookyard_nouns::refusal::Refusal;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::problem::Problem;
use crate::app::App;
use crate::secret;
use crate::sign::hex;
use crate::store::Token;

const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// How many tokens are kept in memory.
const TOKENS_MAX: usize = 10_000;

/// The tokens that have been seen, so that a call need not read the store.
#[derive(Default)]
pub(crate) struct Tokens {
    seen: RwLock<HashMap<[u8; 32], Arc<Token>>>,
    /// The state of the store's tokens that these are from.
    as_of: AtomicU64,
}

/// A caller whose token is valid.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Arc<Token>);

/// SHA-256 of a token's text. The text has 256 random bits, so that nothing slower is called for.
pub fn hash_token(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// A new token and its text.
pub fn new_token(
    tenant: Option<Tenant>,
    scopes: Vec<String>,
    days: Option<u32>,
) -> (Token, String) {
    let text = format!("hky_{}", BASE64_URL_SAFE_NO_PAD.encode(secret::random::<32>()));
    (token(&text, tenant, scopes, days), text)
}

/// The same, as 64 hexadecimal digits: there are clients that take nothing else for a key.
pub fn new_hex_token(
    tenant: Option<Tenant>,
    scopes: Vec<String>,
    days: Option<u32>,
) -> (Token, String) {
    let text = hex(&secret::random::<32>());
    (token(&text, tenant, scopes, days), text)
}

fn token(text: &str, tenant: Option<Tenant>, scopes: Vec<String>, days: Option<u32>) -> Token {
    let now_ms = clock::now_ms();
    Token {
        id: Uuid::now_v7(),
        hash: hash_token(text),
        tenant,
        scopes,
        created_at_ms: now_ms,
        expires_at_ms: days.map(|days| now_ms + i64::from(days) * DAY_MS),
        revoked_at_ms: None,
        parent: None,
    }
}

impl Tokens {
    /// Finds out who calls, by the text of a token.
    pub(crate) async fn caller(&self, app: &App, text: &str) -> Result<Caller, Refusal> {
        let hash = hash_token(text);
        let token = match self.seen(app, &hash) {
            Some(token) => token,
            None => {
                let as_of = *app.tokens_changed.borrow();
                let token = Arc::new(app.store.token(hash).await?.ok_or(Refusal::BadToken)?);
                self.keep(app, as_of, &token);
                token
            }
        };
        let expired = token.expires_at_ms.is_some_and(|until| until <= clock::now_ms());
        if expired || token.revoked_at_ms.is_some() {
            return Err(Refusal::BadToken);
        }
        Ok(Caller(token))
    }

    fn seen(&self, app: &App, hash: &[u8; 32]) -> Option<Arc<Token>> {
        let now = *app.tokens_changed.borrow();
        if self.as_of.swap(now, Ordering::AcqRel) != now {
            self.seen.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
        self.seen.read().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    fn keep(&self, app: &App, as_of: u64, token: &Arc<Token>) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        // It may have ended since it was read.
        if *app.tokens_changed.borrow() != as_of {
            return;
        }
        if seen.len() >= TOKENS_MAX {
            seen.clear();
        }
        seen.insert(token.hash, Arc::clone(token));
    }
}

impl Caller {
    pub(crate) fn require(&self, scope: &'static str) -> Result<(), Refusal> {
        if self.0.scopes.iter().any(|it| it == scope || it == "admin") {
            Ok(())
        } else {
            Err(Refusal::MissingScope(scope.to_owned()))
        }
    }

    /// The token's id.
    pub(crate) fn id(&self) -> Uuid {
        self.0.id
    }

    pub(crate) fn scopes(&self) -> &[String] {
        &self.0.scopes
    }

    /// The tenant of the token; none for the operator's.
    pub(crate) fn bound_to(&self) -> Option<&Tenant> {
        self.0.tenant.as_ref()
    }

    /// The tenant that a call is for. The operator names one; everybody else may, if it is theirs.
    pub(crate) async fn tenant(&self, app: &App, named: Option<&str>) -> Result<Tenant, Problem> {
        let unknown = || {
            let detail = "is not a tenant, or not one that your token is for";
            Problem::invalid("the tenant is unknown", vec![Violation::new("tenant", detail)])
        };
        match (self.bound_to(), named) {
            (Some(own), None) => Ok(own.clone()),
            (Some(own), Some(name)) if own.as_str() == name => Ok(own.clone()),
            (Some(_), Some(_)) => Err(unknown()),
            (None, Some(name)) => {
                let tenant = Tenant::new(name).map_err(|_| unknown())?;
                if app.store.tenant_exists(&tenant).await? { Ok(tenant) } else { Err(unknown()) }
            }
            (None, None) => {
                let detail = "is missing; your token is for all tenants";
                let violation = Violation::new("tenant", detail);
                Err(Problem::invalid("the call does not say for which tenant", vec![violation]))
            }
        }
    }
}
