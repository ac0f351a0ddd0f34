//! Bounds the memory that calls reserve: in total, and per caller by a dynamic threshold (Choudhury
//! and Hahne 1998).
//!
//! A caller may reserve as many bytes as remain free for others: one caller alone half of the
//! total, two callers a third each, so there is always room for another caller. A call above the
//! threshold waits for the caller's other calls, in order of arrival, and does not delay other
//! callers. There is one exception: while a large call of a caller without reservations waits,
//! callers with reservations get no more.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muse_proto::{Error, Reason};
use tokio::{sync::oneshot, time::timeout};

/// A bound on the bytes that calls reserve. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    exempt: usize,
    wait: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reserved: usize,
    /// The callers with reservations or waiting calls.
    callers: HashMap<Arc<str>, Caller>,
    /// The callers with waiting calls, in the order of the arrival of their first.
    waiting: VecDeque<Arc<str>>,
}

#[derive(Debug, Default)]
struct Caller {
    reserved: usize,
    /// In order of arrival.
    calls: VecDeque<WaitingCall>,
}

#[derive(Debug)]
struct WaitingCall {
    bytes: usize,
    granted: oneshot::Sender<Reservation>,
}

/// Reserved bytes of a call, which are released when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    caller: Arc<str>,
    bytes: usize,
}

impl MemoryBudget {
    /// A budget of `total` bytes. A call waits for `wait` at most. A call of up to `exempt` bytes
    /// needs no reservation, because the limits on open calls bound such calls.
    #[must_use]
    pub fn new(total: usize, exempt: usize, wait: Duration) -> Self {
        Self(Arc::new(Shared { total, exempt, wait, state: Mutex::default() }))
    }

    /// Reserves `bytes` for a call of `caller`, a user's name or an address. A call that needs more
    /// than half of the total waits for half of it. Nothing is reserved for a small call.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`] if the call has waited for `wait`.
    pub async fn reserve(&self, caller: &str, bytes: usize) -> Result<Option<Reservation>, Error> {
        if !self.counts(bytes) {
            return Ok(None);
        }
        let bytes = bytes.min(self.0.total / 2);
        let mut waiting = {
            let mut state = self.state();
            let (name, others_wait) = (Arc::from(caller), !state.waiting.is_empty());
            if !others_wait && state.fits(self.0.total, &name, bytes) {
                return Ok(Some(state.reserve(self, &name, bytes)));
            }
            let (sender, granted) = oneshot::channel();
            let entry = state.callers.entry(Arc::clone(&name)).or_default();
            entry.calls.push_back(WaitingCall { bytes, granted: sender });
            if entry.calls.len() == 1 {
                state.waiting.push_back(name);
            }
            // This call may fit although the calls in front of it do not.
            let returned = state.grant(self);
            drop(state);
            drop(returned);
            Waiting { budget: self, granted }
        };
        let text = "requests and responses use all the memory that is allowed for one caller, or for all \
                    callers; try again later";
        let exhausted = || Error::new(Reason::Overloaded, text).with_retry_after(Duration::from_secs(1));
        let granted = timeout(self.0.wait, &mut waiting.granted).await.ok().and_then(Result::ok);
        granted.map(Some).ok_or_else(exhausted)
    }

    /// Whether a call of so many bytes needs a reservation.
    #[must_use]
    pub fn counts(&self, bytes: usize) -> bool {
        bytes > self.0.exempt
    }

    fn release(&self, caller: &Arc<str>, bytes: usize) {
        let mut state = self.state();
        state.reserved -= bytes;
        if let Some(entry) = state.callers.get_mut(caller) {
            entry.reserved -= bytes;
        }
        state.forget_if_idle(caller);
        let returned = state.grant(self);
        drop(state);
        // Dropping them takes the lock.
        drop(returned);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics under the lock in the middle of a change.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits. When it is dropped, the calls behind it may be granted.
struct Waiting<'a> {
    budget: &'a MemoryBudget,
    granted: oneshot::Receiver<Reservation>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.granted.close();
        // Granted but not received.
        drop(self.granted.try_recv());
        let returned = self.budget.state().grant(self.budget);
        drop(returned);
    }
}

impl State {
    fn reserved_by(&self, caller: &str) -> usize {
        self.callers.get(caller).map_or(0, |caller| caller.reserved)
    }

    /// Whether a caller may reserve `bytes` more: its sum must not exceed the bytes that remain
    /// free. A first reservation must only fit.
    fn fits(&self, total: usize, caller: &str, bytes: usize) -> bool {
        let Some(free) = total.checked_sub(self.reserved + bytes) else { return false };
        let reserved = self.reserved_by(caller);
        reserved == 0 || reserved + bytes <= free
    }

    fn reserve(&mut self, budget: &MemoryBudget, caller: &Arc<str>, bytes: usize) -> Reservation {
        self.reserved += bytes;
        self.callers.entry(Arc::clone(caller)).or_default().reserved += bytes;
        Reservation { budget: budget.clone(), caller: Arc::clone(caller), bytes }
    }

    /// Grants waiting calls that fit, to each caller in turn. Returns the reservations of calls
    /// that no longer wait.
    fn grant(&mut self, budget: &MemoryBudget) -> Vec<Reservation> {
        let mut returned = Vec::new();
        let (mut passed_over, mut newcomer_waits) = (0, false);
        while passed_over < self.waiting.len() {
            let caller = Arc::clone(&self.waiting[passed_over]);
            let entry = self.callers.entry(Arc::clone(&caller)).or_default();
            while entry.calls.front().is_some_and(|call| call.granted.is_closed()) {
                entry.calls.pop_front();
            }
            let Some(bytes) = entry.calls.front().map(|call| call.bytes) else {
                self.waiting.remove(passed_over);
                self.forget_if_idle(&caller);
                continue;
            };
            let is_newcomer = self.reserved_by(&caller) == 0;
            // Otherwise callers with reservations could take all that becomes free, and starve a
            // newcomer.
            let may_pass = is_newcomer || !newcomer_waits;
            if may_pass && self.fits(budget.0.total, &caller, bytes) {
                let reservation = self.reserve(budget, &caller, bytes);
                let entry = self.callers.entry(Arc::clone(&caller)).or_default();
                let sent = entry.calls.pop_front().map(|call| call.granted.send(reservation));
                returned.extend(sent.and_then(Result::err));
                self.waiting.remove(passed_over);
                if !entry.calls.is_empty() {
                    // The next call of this caller comes after those of others.
                    self.waiting.push_back(caller);
                }
                (passed_over, newcomer_waits) = (0, false);
            } else {
                newcomer_waits |= is_newcomer;
                passed_over += 1;
            }
        }
        returned
    }

    fn forget_if_idle(&mut self, caller: &Arc<str>) {
        if self.callers.get(caller).is_some_and(|entry| entry.reserved == 0 && entry.calls.is_empty()) {
            self.callers.remove(caller);
        }
    }
}

impl Reservation {
    /// Releases all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let excess = self.bytes.saturating_sub(bytes);
        self.bytes -= excess;
        if excess > 0 {
            self.budget.release(&self.caller, excess);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(&self.caller, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn budget(total: usize) -> MemoryBudget {
        MemoryBudget::new(total, 0, Duration::from_secs(60))
    }

    fn reserve_now(budget: &MemoryBudget, caller: &str, bytes: usize) -> Option<Reservation> {
        budget.reserve(caller, bytes).now_or_never()?.unwrap()
    }

    #[tokio::test]
    async fn caller_may_reserve_as_much_as_remains_free() {
        let budget = budget(120);
        let first = reserve_now(&budget, "ann", 60).unwrap();
        assert!(reserve_now(&budget, "ann", 1).is_none());
        let second = reserve_now(&budget, "bob", 30).unwrap();
        assert!(reserve_now(&budget, "bob", 1).is_none());
        // There is room for another caller, however few bytes are left.
        let third = reserve_now(&budget, "eve", 20).unwrap();
        drop((first, second, third));
        assert!(budget.state().callers.is_empty());
        assert_eq!(budget.state().reserved, 0);
    }

    #[test]
    fn call_of_more_than_half_gets_half() {
        let budget = budget(100);
        let _all = reserve_now(&budget, "ann", 1 << 30).unwrap();
        assert_eq!(budget.state().reserved, 50);
    }

    #[test]
    fn small_call_needs_no_reservation() {
        let budget = MemoryBudget::new(100, 10, Duration::from_secs(1));
        assert!(budget.reserve("ann", 10).now_or_never().unwrap().unwrap().is_none());
        assert!(reserve_now(&budget, "ann", 11).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_calls_are_granted_in_order_and_in_turn() {
        let budget = budget(100);
        let mut first = reserve_now(&budget, "ann", 50).unwrap();
        let granted = Mutex::new(Vec::new());
        let wait = async |name: &'static str, caller: &str, bytes| {
            let reservation = budget.reserve(caller, bytes).await.unwrap();
            granted.lock().unwrap().push(name);
            reservation
        };
        let release = async {
            tokio::task::yield_now().await;
            assert!(granted.lock().unwrap().is_empty());
            first.shrink_to(40);
            first.shrink_to(10);
            drop(first);
        };
        let waits = futures::future::join3(wait("1", "ann", 30), wait("2", "ann", 10), wait("3", "ann", 5));
        let (_reservations, ()) = tokio::join!(waits, release);
        assert_eq!(*granted.lock().unwrap(), ["1", "2", "3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn caller_that_waits_delays_nobody_else() {
        let budget = budget(100);
        let first = reserve_now(&budget, "ann", 50).unwrap();
        let mut second = std::pin::pin!(budget.reserve("ann", 50));
        assert!(second.as_mut().now_or_never().is_none());
        let other = reserve_now(&budget, "bob", 20).unwrap();
        drop((first, other));
        assert!(second.await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn large_call_of_new_caller_is_not_starved() {
        let budget = budget(100);
        let ann = reserve_now(&budget, "ann", 40).unwrap();
        let bob = reserve_now(&budget, "bob", 25).unwrap();
        let mut large = std::pin::pin!(budget.reserve("eve", 45));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = std::pin::pin!(budget.reserve("bob", 1));
        assert!(small.as_mut().now_or_never().is_none());
        drop(ann);
        let large = large.now_or_never().unwrap().unwrap();
        assert!(small.as_mut().now_or_never().is_some());
        drop((large, bob));
    }

    #[tokio::test(start_paused = true)]
    async fn newcomer_passes_a_large_call_that_waits() {
        let budget = budget(100);
        let _ann = reserve_now(&budget, "ann", 40).unwrap();
        let _bob = reserve_now(&budget, "bob", 25).unwrap();
        let mut large = std::pin::pin!(budget.reserve("eve", 45));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(reserve_now(&budget, "kim", 10).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_wait_lets_other_calls_pass() {
        let budget = budget(100);
        let _ann = reserve_now(&budget, "ann", 40).unwrap();
        let _bob = reserve_now(&budget, "bob", 25).unwrap();
        let mut small = std::pin::pin!(budget.reserve("bob", 1));
        {
            let mut large = Box::pin(budget.reserve("eve", 45));
            assert!(large.as_mut().now_or_never().is_none());
            assert!(small.as_mut().now_or_never().is_none());
        }
        assert!(small.now_or_never().is_some());
        assert!(budget.state().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn wait_ends_with_an_error() {
        let budget = budget(100);
        let _first = reserve_now(&budget, "ann", 50).unwrap();
        let error = budget.reserve("ann", 1).await.unwrap_err();
        let expected = (Reason::Overloaded, Some(Duration::from_secs(1)));
        assert_eq!((error.reason(), error.retry_after()), expected);
    }

    #[tokio::test]
    async fn cancelled_calls_release_their_bytes() {
        let budget = budget(100);
        let first = reserve_now(&budget, "ann", 50).unwrap();
        {
            let mut cancelled = Box::pin(budget.reserve("ann", 1));
            assert!(cancelled.as_mut().now_or_never().is_none());
            let mut granted = Box::pin(budget.reserve("ann", 20));
            assert!(granted.as_mut().now_or_never().is_none());
            drop(cancelled);
            drop(first);
            // Granted, and dropped before it is received.
            drop(granted);
        }
        assert_eq!(budget.state().reserved, 0);
        assert!(reserve_now(&budget, "bob", 50).is_some());
        assert!(budget.state().callers.is_empty() && budget.state().waiting.is_empty());
    }
}
