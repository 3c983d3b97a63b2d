//! The router's own keys: made when they are first needed, and kept.

use std::sync::{Arc, PoisonError};

use crate::app::App;
use crate::keys::SigningKey;
use crate::store::{self, StoreError};

/// The key with a selector.
///
/// # Errors
///
/// The store cannot be read or written, or what it has is no key.
pub async fn get(app: &App, selector: &str) -> store::Result<Arc<SigningKey>> {
    if let Some(key) = known(app, selector) {
        return Ok(key);
    }
    // To make one takes long; whoever comes meanwhile waits for it.
    let _one = app.making_key.lock().await;
    if let Some(key) = known(app, selector) {
        return Ok(key);
    }
    let kept = match app.store.signing_key(selector).await? {
        Some(kept) => kept,
        None => {
            let made = tokio::task::spawn_blocking(SigningKey::make).await;
            let made = made.map_err(|err| StoreError::Unavailable(err.to_string()))?;
            // Another process may have been faster; its key is the one that counts.
            app.store.keep_signing_key(selector, made).await?
        }
    };
    let key = SigningKey::open(selector.to_owned(), &kept).map_err(StoreError::Unavailable)?;
    let key = Arc::new(key);
    let mut keys = app.keys.lock().unwrap_or_else(PoisonError::into_inner);
    keys.insert(selector.to_owned(), Arc::clone(&key));
    Ok(key)
}

fn known(app: &App, selector: &str) -> Option<Arc<SigningKey>> {
    app.keys.lock().unwrap_or_else(PoisonError::into_inner).get(selector).cloned()
}
