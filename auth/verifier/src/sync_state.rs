//! How long ago the auth service was heard, on which depends what can be said of a token.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// A verifier's contact to the auth service.
pub(crate) struct SyncState {
    /// How long it may last without; `None` for a verifier that needs none.
    max_staleness: Option<Duration>,
    /// Whether everything was known at least once.
    synced: watch::Sender<bool>,
    /// Whether everything is known now.
    in_touch: AtomicBool,
    created: Instant,
    /// Milliseconds from `created` until everything was last known.
    complete_ms: AtomicU64,
}

impl SyncState {
    /// A contact that is yet to be made.
    pub(crate) fn new(max_staleness: Duration) -> Self {
        Self {
            max_staleness: Some(max_staleness),
            synced: watch::Sender::new(false),
            in_touch: AtomicBool::new(false),
            created: Instant::now(),
            complete_ms: AtomicU64::new(0),
        }
    }

    /// The contact of the auth service to itself.
    pub(crate) fn own() -> Self {
        Self {
            max_staleness: None,
            synced: watch::Sender::new(true),
            in_touch: AtomicBool::new(true),
            ..Self::new(Duration::ZERO)
        }
    }

    /// All keys and revocations are known as of this moment.
    pub(crate) fn complete(&self) {
        self.complete_ms.store(self.age_ms(), Ordering::Release);
        self.in_touch.store(true, Ordering::Release);
        self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    /// From this moment on there may be keys and revocations that are not known.
    pub(crate) fn lost(&self) {
        self.in_touch.store(false, Ordering::Release);
    }

    pub(crate) fn in_touch(&self) -> bool {
        self.in_touch.load(Ordering::Acquire)
    }

    /// Whether so much may have happened without being heard that nothing can be said any more.
    pub(crate) fn is_stale(&self) -> bool {
        self.max_staleness.is_some_and(|limit| self.silence() > limit)
    }

    /// How long ago everything was last known; before that, since it is tried.
    pub(crate) fn silence(&self) -> Duration {
        Duration::from_millis(self.age_ms().saturating_sub(self.complete_ms.load(Ordering::Acquire)))
    }

    pub(crate) fn synced(&self) -> bool {
        *self.synced.borrow()
    }

    pub(crate) async fn wait_until_synced(&self) {
        // It cannot fail: the sender lives as long as `self`.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
