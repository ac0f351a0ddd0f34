//! Synchronisation with the auth service, on which the validity of tokens depends.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// Whether and since when a verifier has all keys and revocations.
pub(crate) struct SyncState {
    /// The longest time without synchronisation; `None` for the verifier of the auth service
    /// itself.
    max_staleness: Option<Duration>,
    /// Whether the verifier was synced at least once.
    synced: watch::Sender<bool>,
    /// Whether the verifier is connected and synced now.
    is_current: AtomicBool,
    created: Instant,
    /// Milliseconds from `created` until the last synchronisation.
    synced_ms: AtomicU64,
}

impl SyncState {
    /// A state before the first synchronisation.
    pub(crate) fn new(max_staleness: Duration) -> Self {
        Self {
            max_staleness: Some(max_staleness),
            synced: watch::Sender::new(false),
            is_current: AtomicBool::new(false),
            created: Instant::now(),
            synced_ms: AtomicU64::new(0),
        }
    }

    /// The state of the verifier of the auth service itself, which is always synced.
    pub(crate) fn always_synced() -> Self {
        Self {
            max_staleness: None,
            synced: watch::Sender::new(true),
            is_current: AtomicBool::new(true),
            ..Self::new(Duration::ZERO)
        }
    }

    /// Records that the verifier has all keys and revocations as of now.
    pub(crate) fn mark_synced(&self) {
        self.synced_ms.store(self.age_ms(), Ordering::Release);
        self.is_current.store(true, Ordering::Release);
        self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    /// Records that the connection is lost: from now on keys and revocations may be missing.
    pub(crate) fn mark_disconnected(&self) {
        self.is_current.store(false, Ordering::Release);
    }

    pub(crate) fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Acquire)
    }

    /// Whether the last synchronisation is too long ago to accept tokens.
    pub(crate) fn is_stale(&self) -> bool {
        self.max_staleness.is_some_and(|limit| self.staleness() > limit)
    }

    /// The time since the last synchronisation, or since the start if there was none.
    pub(crate) fn staleness(&self) -> Duration {
        Duration::from_millis(self.age_ms().saturating_sub(self.synced_ms.load(Ordering::Acquire)))
    }

    pub(crate) fn synced(&self) -> bool {
        *self.synced.borrow()
    }

    pub(crate) async fn wait_until_synced(&self) {
        // It cannot fail, because `self` owns the sender.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
