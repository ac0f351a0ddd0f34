//! Deletes from the database what is no longer needed.

use std::{convert::Infallible, time::Duration};

use tokio::time::interval;
use tracing::{info, warn};

use crate::{
    AuthError, authentication::LoginThrottle, clock, keys::KeyringReceiver, store::Store, usage::Usage,
};

const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);

/// Deletes what is no longer needed, every hour.
pub(crate) struct Pruner {
    pub(crate) store: Store,
    pub(crate) throttle: LoginThrottle,
    pub(crate) keys: KeyringReceiver,
    pub(crate) usage: Usage,
    /// Days for which the usage of days is stored.
    pub(crate) usage_retention_days: u32,
}

impl Pruner {
    /// Prunes an hour from now, and every hour.
    pub(crate) async fn prune_periodically(self) -> Infallible {
        let mut ticks = interval(PRUNE_INTERVAL);
        // The first tick is immediate; the start has pruned already.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if let Err(failure) = self.prune().await {
                warn!(%failure, "cannot prune the database, retrying in an hour");
            }
        }
    }

    /// Deletes keys and revocations of expired tokens, old failed logins, and old usage.
    pub(crate) async fn prune(&self) -> Result<(), AuthError> {
        let (store, now) = (&self.store, clock::now());
        let keyring = self.keys.borrow().clone();
        let retired = keyring.retired(now);
        if !retired.is_empty() {
            store.remove_keys(&retired).await?;
            info!(?retired, "deleted keys whose tokens have all expired");
        }
        let orphaned = store.delete_orphaned_api_keys().await?;
        if orphaned > 0 {
            warn!(orphaned, "deleted API keys whose owners are missing or disabled");
        }
        let deleted = store.prune_revocations(now).await?
            + store.prune_refresh_tokens(now).await?
            + store.prune_api_keys(now).await?
            + self.throttle.prune().await?;
        if deleted > 0 {
            info!(deleted, "deleted revocations of expired tokens, deleted API keys, and old logins");
        }
        let rows = self.usage.prune(self.usage_retention_days, now).await?;
        if rows > 0 {
            info!(rows, "deleted old usage, removed quotas, and reporters of usage that have ended");
        }
        Ok(())
    }
}
