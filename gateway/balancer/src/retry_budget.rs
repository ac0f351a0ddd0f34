//! Retry budget: retries are bounded to a fifth of the calls that succeed, and an initial number. Without it, retries would
//! multiply the load in an overload.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The cost of a retry, in deposits of served calls.
const COST: usize = 5;
/// The largest balance, in retries: more than the calls that one endpoint has in flight when it fails.
const MAX_BALANCE: usize = 1_000;

#[derive(Debug)]
pub(super) struct RetryBudget(AtomicUsize);

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(MAX_BALANCE * COST))
    }

    /// Counts a served call.
    pub(super) fn deposit(&self) {
        let saved = |saved| (saved < MAX_BALANCE * COST).then_some(saved + 1);
        // It fails at the largest balance, which is intended.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, saved);
    }

    /// Pays for a retry, if the balance allows one.
    pub(super) fn withdraw(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(COST)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_served_calls_may_be_retried() {
        let budget = RetryBudget::new();
        budget.deposit();
        let tries = (0..2 * MAX_BALANCE).filter(|_| budget.withdraw()).count();
        assert_eq!(tries, MAX_BALANCE);
        for _ in 0..10 * COST {
            budget.deposit();
        }
        assert_eq!((0..MAX_BALANCE).filter(|_| budget.withdraw()).count(), 10);
    }
}
