//! The bound on the bytes that all calls together buffer for retries. A call beyond it is sent without retries.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The bytes that are left. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct ReplayMemory(Arc<AtomicUsize>);

impl ReplayMemory {
    pub(super) fn of(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// An empty reservation.
    pub(super) fn reservation(&self) -> ReplayReservation {
        ReplayReservation { store: self.clone(), bytes: 0 }
    }
}

/// Reserved bytes, which are released when this is dropped.
#[derive(Debug)]
pub(super) struct ReplayReservation {
    store: ReplayMemory,
    bytes: usize,
}

impl ReplayReservation {
    /// Reserves more bytes, if so many are left.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let taken = |left: usize| left.checked_sub(bytes);
        let is_taken = self.store.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok();
        if is_taken {
            self.bytes += bytes;
        }
        is_taken
    }

    /// Releases the bytes.
    pub(super) fn clear(&mut self) {
        self.store.0.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for ReplayReservation {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_bounded_and_released() {
        let store = ReplayMemory::of(10);
        let (mut first, mut second) = (store.reservation(), store.reservation());
        assert!(first.take(6) && !second.take(5) && second.take(4));
        drop(first);
        assert!(!second.take(7) && second.take(6));
        second.clear();
        assert!(store.reservation().take(10));
    }
}
