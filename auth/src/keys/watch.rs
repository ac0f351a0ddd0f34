//! Publishes the keyring of the database in a watch channel.

use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Keyring, first_key};
use crate::{AuthError, Config, clock, store::Store};

/// Receives the current keyring.
pub(crate) type KeyringReceiver = watch::Receiver<Arc<Keyring>>;

/// Reads the keyring, and creates the first key if there is none.
pub(crate) async fn open(store: &Store, config: &Config) -> Result<watch::Sender<Arc<Keyring>>, AuthError> {
    let secret = config.secret.as_ref();
    store.add_key(|rows| first_key(rows, secret, clock::now())).await?;
    let keys = read(store, secret, config.max_token_lifetime()).await?;
    let kid = keys.signing(clock::now()).map(super::KeyPair::kid).unwrap_or_default();
    info!(kid, derived = secret.is_some(), "loaded the signing key");
    Ok(watch::Sender::new(Arc::new(keys)))
}

/// Publishes the keyring whenever it has changed in the database. Does not return.
pub(crate) async fn follow(store: &Store, config: &Config, keys: watch::Sender<Arc<Keyring>>) {
    let mut changes = store.changes().subscribe();
    while changes.changed().await.is_ok() {
        match read(store, config.secret.as_ref(), config.max_token_lifetime()).await {
            Ok(new) if new.is_empty() => {
                warn!("the database contains no usable key, continuing with the previous ones");
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
            Err(failure) => warn!(%failure, "cannot read the keys, continuing with the previous ones"),
        }
    }
}

async fn read(store: &Store, secret: Option<&SecretString>, lifetime: i64) -> Result<Keyring, AuthError> {
    let keys = Keyring::read(&store.keys().await?, secret)?;
    let shorter = keys.below_lifetime(lifetime);
    if shorter.is_empty() {
        return Ok(keys);
    }
    store.record_token_lifetime(&shorter, lifetime).await?;
    Keyring::read(&store.keys().await?, secret)
}
