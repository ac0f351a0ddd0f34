//! Keeps the keys those of the database.

use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Keyring, first};
use crate::{AuthError, Config, clock, store::Store};

/// The keys as they are now.
pub(crate) type Keys = watch::Receiver<Arc<Keyring>>;

/// Reads the keys, and makes the first one if need be.
pub(crate) async fn open(store: &Store, config: &Config) -> Result<watch::Sender<Arc<Keyring>>, AuthError> {
    let secret = config.secret.as_ref();
    store.add_key(|rows| first(rows, secret, clock::now())).await?;
    let keys = read(store, secret, config.max_token_lifetime()).await?;
    let kid = keys.signing(clock::now()).map(super::KeyPair::kid).unwrap_or_default();
    info!(kid, derived = secret.is_some(), "the signing key is there");
    Ok(watch::Sender::new(Arc::new(keys)))
}

/// Replaces the keys whenever others are in the database, for ever.
pub(crate) async fn follow(store: &Store, config: &Config, keys: watch::Sender<Arc<Keyring>>) {
    let mut changes = store.changes().listen();
    while changes.changed().await.is_ok() {
        match read(store, config.secret.as_ref(), config.max_token_lifetime()).await {
            Ok(new) if new.is_empty() => {
                warn!("no usable key is left in the database, going on with the old ones");
            }
            Ok(new) => {
                let now = clock::now();
                keys.send_if_modified(|old| {
                    let differs = old.describe(now) != new.describe(now);
                    if differs {
                        info!(keys = new.0.len(), "the keys have changed");
                        *old = Arc::new(new);
                    }
                    differs
                });
            }
            Err(failure) => warn!(%failure, "cannot read the keys, going on with the old ones"),
        }
    }
}

async fn read(store: &Store, secret: Option<&SecretString>, lifetime: i64) -> Result<Keyring, AuthError> {
    let keys = Keyring::read(&store.keys().await?, secret)?;
    let shorter = keys.with_shorter_lifetime(lifetime);
    if shorter.is_empty() {
        return Ok(keys);
    }
    store.note_lifetime(&shorter, lifetime).await?;
    Keyring::read(&store.keys().await?, secret)
}
