//! Retry budget: retries are bounded to a fifth of the served calls, and an initial balance. Without it, retries would multiply the
//! load in an overload.
//!
//! This is not tower's `TpsBudget`: that allows a number of retries in each second even if no call succeeds, and forgets deposits
//! after its window. Here only served calls refill the balance, whose initial value covers the failure of one endpoint.

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
        let deposited = |balance| (balance < MAX_BALANCE * COST).then_some(balance + 1);
        // It fails at the largest balance, which is intended.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, deposited);
    }

    /// Pays for a retry, if the balance allows one.
    pub(super) fn withdraw(&self) -> bool {
        let withdrawn = |balance: usize| balance.checked_sub(COST);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, withdrawn).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_served_calls_may_be_retried() {
        let budget = RetryBudget::new();
        budget.deposit();
        let retries = (0..2 * MAX_BALANCE).filter(|_| budget.withdraw()).count();
        assert_eq!(retries, MAX_BALANCE);
        for _ in 0..10 * COST {
            budget.deposit();
        }
        assert_eq!((0..MAX_BALANCE).filter(|_| budget.withdraw()).count(), 10);
    }
}
