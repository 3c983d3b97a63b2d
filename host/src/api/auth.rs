//! Who calls, and what they may do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

use super::problem::Problem;
use crate::app::App;
use crate::clock;
use crate::event::{Tenant, Violation};
use crate::formats::Refusal;
use crate::store::Token;

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

impl Tokens {
    /// Finds out who calls.
    pub(crate) async fn caller(&self, app: &App, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let value = headers.get(header::AUTHORIZATION).ok_or(Refusal::NoToken)?;
        let text = value.to_str().map_err(|_| Refusal::BadToken)?;
        let (scheme, text) = text.split_once(' ').ok_or(Refusal::BadToken)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::BadToken);
        }
        let hash = hash_token(text.trim());
        let token = match self.seen(app, &hash) {
            Some(token) => token,
            None => {
                let token = app.store.token(hash).await?.ok_or(Refusal::BadToken)?;
                self.keep(Arc::new(token))
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

    fn keep(&self, token: Arc<Token>) -> Arc<Token> {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= TOKENS_MAX {
            seen.clear();
        }
        seen.insert(token.hash, Arc::clone(&token));
        token
    }
}

impl Caller {
    pub(crate) fn require(&self, scope: &'static str) -> Result<(), Refusal> {
        if self.0.scopes.iter().any(|it| it == scope || it == "admin") {
            Ok(())
        } else {
            Err(Refusal::MissingScope(scope))
        }
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
