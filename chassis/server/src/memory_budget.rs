//! Bounds the bytes that calls hold: of all callers together, and of each caller by a dynamic threshold (Choudhury and Hahne 1998).
//!
//! A caller may hold as many bytes as are left free for others: one caller alone half of them, two a third each, and there is
//! always room for another caller. A call that exceeds that waits for the caller's other calls, in order of arrival, and delays
//! nobody else. Only while a caller that holds nothing waits, because a large call of that caller does not fit, is nothing granted
//! to callers that hold something.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muse_proto::{Error, Reason};
use tokio::{sync::oneshot, time::timeout};

/// Bytes that calls may hold. Clones share them.
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
    held: usize,
    /// The callers that hold something, or wait for it.
    callers: HashMap<Arc<str>, Caller>,
    /// Those of them that wait, in the order in which their first call has come.
    waiting: VecDeque<Arc<str>>,
}

#[derive(Debug, Default)]
struct Caller {
    held: usize,
    /// In order of arrival.
    calls: VecDeque<WaitingCall>,
}

#[derive(Debug)]
struct WaitingCall {
    bytes: usize,
    granted: oneshot::Sender<Reservation>,
}

/// Bytes that a call holds, until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    caller: Arc<str>,
    bytes: usize,
}

impl MemoryBudget {
    /// A budget of `total` bytes. A call waits for `wait` at most; one of up to `exempt` bytes needs no reservation: the limits on
    /// open calls bound it well enough.
    #[must_use]
    pub fn new(total: usize, exempt: usize, wait: Duration) -> Self {
        Self(Arc::new(Shared { total, exempt, wait, state: Mutex::default() }))
    }

    /// Reserves `bytes` for a call of `caller`, a user's name or an address. A call that needs more than half of all waits for that
    /// half. Nothing is reserved for a small call.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`] after the longest wait.
    pub async fn reserve(&self, caller: &str, bytes: usize) -> Result<Option<Reservation>, Error> {
        if !self.counts(bytes) {
            return Ok(None);
        }
        let bytes = bytes.min(self.0.total / 2);
        let mut waiting = {
            let mut state = self.state();
            let (name, others_wait) = (Arc::from(caller), !state.waiting.is_empty());
            if !others_wait && state.fits(self.0.total, &name, bytes) {
                return Ok(Some(state.hold(self, &name, bytes)));
            }
            let (sender, granted) = oneshot::channel();
            let entry = state.callers.entry(Arc::clone(&name)).or_default();
            entry.calls.push_back(WaitingCall { bytes, granted: sender });
            if entry.calls.len() == 1 {
                state.waiting.push_back(name);
            }
            // Those that wait may not be able to use what this call can.
            let returned = state.grant(self);
            drop(state);
            drop(returned);
            Waiting { budget: self, granted }
        };
        let text = "requests and responses hold all the memory that one caller, or all together, may use; try again later";
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
        state.held -= bytes;
        if let Some(entry) = state.callers.get_mut(caller) {
            entry.held -= bytes;
        }
        state.forget_if_idle(caller);
        let returned = state.grant(self);
        drop(state);
        // Releases what it holds, for which the lock must be free.
        drop(returned);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds it can panic halfway through a change.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits. When it stops to wait, those behind it may be granted what they wait for.
struct Waiting<'a> {
    budget: &'a MemoryBudget,
    granted: oneshot::Receiver<Reservation>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.granted.close();
        // What was granted and not received.
        drop(self.granted.try_recv());
        let returned = self.budget.state().grant(self.budget);
        drop(returned);
    }
}

impl State {
    fn held_by(&self, caller: &str) -> usize {
        self.callers.get(caller).map_or(0, |caller| caller.held)
    }

    /// Whether a caller may hold so many bytes more: as many as are free then, or anything that is free as the first.
    fn fits(&self, total: usize, caller: &str, bytes: usize) -> bool {
        let Some(free) = total.checked_sub(self.held + bytes) else { return false };
        let held = self.held_by(caller);
        held == 0 || held + bytes <= free
    }

    fn hold(&mut self, budget: &MemoryBudget, caller: &Arc<str>, bytes: usize) -> Reservation {
        self.held += bytes;
        self.callers.entry(Arc::clone(caller)).or_default().held += bytes;
        Reservation { budget: budget.clone(), caller: Arc::clone(caller), bytes }
    }

    /// Grants what can be granted, to each caller in turn, and returns what nobody waits for any more.
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
            let is_newcomer = self.held_by(&caller) == 0;
            // Or others could go on to take what becomes free.
            let may_pass = is_newcomer || !newcomer_waits;
            if may_pass && self.fits(budget.0.total, &caller, bytes) {
                let reservation = self.hold(budget, &caller, bytes);
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
        if self.callers.get(caller).is_some_and(|entry| entry.held == 0 && entry.calls.is_empty()) {
            self.callers.remove(caller);
        }
    }
}

impl Reservation {
    /// Releases what is more than `bytes`.
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
    async fn caller_may_hold_as_much_as_is_left_free() {
        let budget = budget(120);
        let first = reserve_now(&budget, "ann", 60).unwrap();
        assert!(reserve_now(&budget, "ann", 1).is_none());
        let second = reserve_now(&budget, "bob", 30).unwrap();
        assert!(reserve_now(&budget, "bob", 1).is_none());
        // There is room for another caller, however few bytes are left.
        let third = reserve_now(&budget, "eve", 20).unwrap();
        drop((first, second, third));
        assert!(budget.state().callers.is_empty());
        assert_eq!(budget.state().held, 0);
    }

    #[test]
    fn call_of_more_than_half_gets_half() {
        let budget = budget(100);
        let _all = reserve_now(&budget, "ann", 1 << 30).unwrap();
        assert_eq!(budget.state().held, 50);
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
        let (_held, ()) = tokio::join!(waits, release);
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
    async fn call_that_stops_to_wait_lets_others_pass() {
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
        let refused = budget.reserve("ann", 1).await.unwrap_err();
        let expected = (Reason::Overloaded, Some(Duration::from_secs(1)));
        assert_eq!((refused.reason(), refused.retry_after()), expected);
    }

    #[tokio::test]
    async fn cancelled_calls_leave_nothing_behind() {
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
        assert_eq!(budget.state().held, 0);
        assert!(reserve_now(&budget, "bob", 50).is_some());
        assert!(budget.state().callers.is_empty() && budget.state().waiting.is_empty());
    }
}
