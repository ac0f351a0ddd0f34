//! Bounds the bytes that requests, or responses, hold in the gateway: of each caller, and of all callers together.
//!
//! A caller whose calls hold the caller's share waits for them, in order of arrival, and delays nobody else. How many may wait is
//! limited by the open calls of a user and an address.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use muse_proto::{Error, Reason};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Bytes of a permit of the semaphores, which count in `u32`.
const UNIT: usize = 1 << 10;

/// Bytes that may be held.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    per_caller: usize,
    wait: Duration,
    total: Arc<Semaphore>,
    /// The callers that hold something, or wait for it.
    callers: Mutex<HashMap<String, Weak<Caller>>>,
}

#[derive(Debug)]
struct Caller {
    free: Arc<Semaphore>,
}

/// Bytes that a call holds, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    own: OwnedSemaphorePermit,
    total: OwnedSemaphorePermit,
    _caller: Arc<Caller>,
}

impl MemoryBudget {
    /// A budget of `total` bytes, of which one caller holds `per_caller` at most. A call waits for `wait` at most.
    pub(crate) fn new(total: usize, per_caller: usize, wait: Duration) -> Self {
        let total = Arc::new(Semaphore::new(total.div_ceil(UNIT)));
        let per_caller = per_caller.div_ceil(UNIT);
        Self(Arc::new(Shared { per_caller, wait, total, callers: Mutex::default() }))
    }

    /// Reserves `bytes` for a call of `caller`, a user's name or an address. A call that needs more than a caller's share
    /// waits for the whole share.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`] after the longest wait.
    pub(crate) async fn reserve(&self, caller: &str, bytes: usize) -> Result<Reservation, Error> {
        let units = bytes.div_ceil(UNIT).clamp(1, self.0.per_caller) as u32;
        let caller = self.caller(caller);
        let reserved = async {
            let own = Arc::clone(&caller.free).acquire_many_owned(units).await.ok()?;
            let total = Arc::clone(&self.0.total).acquire_many_owned(units).await.ok()?;
            Some((own, total))
        };
        let at_once = || {
            let own = Arc::clone(&caller.free).try_acquire_many_owned(units).ok()?;
            let total = Arc::clone(&self.0.total).try_acquire_many_owned(units).ok()?;
            Some((own, total))
        };
        let reserved = match at_once() {
            Some(reserved) => Some(reserved),
            None => timeout(self.0.wait, reserved).await.ok().flatten(),
        };
        let (own, total) = reserved.ok_or_else(exhausted)?;
        Ok(Reservation { own, total, _caller: Arc::clone(&caller) })
    }

    fn caller(&self, name: &str) -> Arc<Caller> {
        let mut callers = self.0.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = callers.get(name).and_then(Weak::upgrade) {
            return caller;
        }
        if callers.len() == callers.capacity() {
            callers.retain(|_, caller| caller.strong_count() > 0);
        }
        let caller = Arc::new(Caller { free: Arc::new(Semaphore::new(self.0.per_caller)) });
        callers.insert(name.to_owned(), Arc::downgrade(&caller));
        caller
    }
}

impl Reservation {
    /// Gives back what is more than `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let excess = self.own.num_permits().saturating_sub(bytes.div_ceil(UNIT).max(1));
        drop((self.own.split(excess), self.total.split(excess)));
    }
}

fn exhausted() -> Error {
    let text = "Requests and responses hold all the memory that one caller, or all together, may use; try again later";
    Error::new(Reason::Overloaded, text).with_retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn exhausted_share_delays_only_its_caller() {
        let budget = MemoryBudget::new(1 << 20, 256 << 10, Duration::from_millis(20));
        let mut first = budget.reserve("ann", 200 << 10).await.unwrap();
        assert!(budget.reserve("ann", 100 << 10).now_or_never().is_none());
        assert!(budget.reserve("bob", 256 << 10).now_or_never().is_some_and(|reserved| reserved.is_ok()));
        first.shrink_to(100 << 10);
        let second = budget.reserve("ann", 100 << 10).now_or_never().unwrap().unwrap();
        let refused = budget.reserve("ann", 100 << 10).await.unwrap_err();
        assert_eq!(
            (refused.reason(), refused.retry_after()),
            (Reason::Overloaded, Some(Duration::from_secs(1)))
        );
        drop((first, second));
        // More than the share: all of it.
        assert!(budget.reserve("ann", 1 << 30).now_or_never().is_some_and(|reserved| reserved.is_ok()));
    }

    #[tokio::test]
    async fn forgotten_callers_leave_no_entry() {
        let budget = MemoryBudget::new(1 << 20, 256 << 10, Duration::from_millis(20));
        for number in 0..10_000 {
            budget.reserve(&number.to_string(), 1).await.unwrap();
        }
        assert!(budget.0.callers.lock().unwrap().len() < 100);
    }
}
