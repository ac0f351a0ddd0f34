//! Room for what is kept of calls, so that they can be sent again: a bound for all of them together. A call for which there
//! is no room goes on without.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The room that is left, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Store(Arc<AtomicUsize>);

impl Store {
    pub(super) fn of(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// A place for something that is yet to come.
    pub(super) fn place(&self) -> Place {
        Place { store: self.clone(), bytes: 0 }
    }
}

/// Part of the room, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    store: Store,
    bytes: usize,
}

impl Place {
    /// Takes more room, if there is so much.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let taken = |left: usize| left.checked_sub(bytes);
        let is_taken = self.store.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok();
        if is_taken {
            self.bytes += bytes;
        }
        is_taken
    }

    /// Gives the room back.
    pub(super) fn clear(&mut self) {
        self.store.0.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_all_comes_back() {
        let store = Store::of(10);
        let (mut first, mut second) = (store.place(), store.place());
        assert!(first.take(6) && !second.take(5) && second.take(4));
        drop(first);
        assert!(!second.take(7) && second.take(6));
        second.clear();
        assert!(store.place().take(10));
    }
}
