//! The bound on the bytes that all calls together buffer for retries. A call beyond it is sent without retries.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The unreserved bytes. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct ReplayMemory(Arc<AtomicUsize>);

impl ReplayMemory {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// An empty reservation.
    pub(super) fn reservation(&self) -> ReplayReservation {
        ReplayReservation { memory: self.clone(), bytes: 0 }
    }
}

/// Reserved bytes, which are released when this is dropped.
#[derive(Debug)]
pub(super) struct ReplayReservation {
    memory: ReplayMemory,
    bytes: usize,
}

impl ReplayReservation {
    /// Reserves more bytes, if so many are unreserved.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let remaining = |unreserved: usize| unreserved.checked_sub(bytes);
        let reserved = self.memory.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, remaining).is_ok();
        if reserved {
            self.bytes += bytes;
        }
        reserved
    }

    /// Releases the bytes.
    pub(super) fn release(&mut self) {
        self.memory.0.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for ReplayReservation {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_bounded_and_released() {
        let memory = ReplayMemory::new(10);
        let (mut first, mut second) = (memory.reservation(), memory.reservation());
        assert!(first.grow(6) && !second.grow(5) && second.grow(4));
        drop(first);
        assert!(!second.grow(7) && second.grow(6));
        second.release();
        assert!(memory.reservation().grow(10));
    }
}
