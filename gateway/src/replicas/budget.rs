//! How many calls may be tried again: a fifth of those that are answered, and a number to begin with. Without a bound, an
//! overload would be doubled by the tries that it causes.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What a try costs, in what an answered call brings in.
const COST: usize = 5;
/// The tries that are saved up at most: more than the calls that one replica has in flight when it dies.
const MOST: usize = 1_000;

#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(MOST * COST))
    }

    /// A call was answered.
    pub(super) fn deposit(&self) {
        let saved = |saved| (saved < MOST * COST).then_some(saved + 1);
        // It fails when the most is saved, which is as well.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, saved);
    }

    /// Whether another try may be made, which then is paid for.
    pub(super) fn withdraw(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(COST)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_answered_calls_may_be_tried_again() {
        let budget = Budget::new();
        budget.deposit();
        let tries = (0..2 * MOST).filter(|_| budget.withdraw()).count();
        assert_eq!(tries, MOST);
        for _ in 0..10 * COST {
            budget.deposit();
        }
        assert_eq!((0..MOST).filter(|_| budget.withdraw()).count(), 10);
    }
}
