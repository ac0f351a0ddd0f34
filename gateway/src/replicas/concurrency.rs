//! How many calls that are alike may be in flight: as many as the embedders turn out to have room for. What is more is refused
//! here, so that embedders with too much to do need not spend their time on saying so.
//!
//! The bound is found as TCP finds its window, by additive increase and multiplicative decrease (Chiu and Jain 1989): a
//! refusal brings it down to the calls that are left in flight, and what is served at the bound raises it a little. Where
//! nothing is left in flight, the bound of zero holds for the time that the refusal gave.
//!
//! Alike are calls with the same token and about as many bytes. Nothing follows for others: an embedder gives each user room,
//! and lets a large call wait for longer than a small one.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, header};
use muse_proto::Error;

/// For how long at most an embedder is believed to be full.
pub(super) const LONGEST_FULL: Duration = Duration::from_millis(250);
/// Kinds of calls that are followed at most.
const MOST: usize = 4096;
/// What a call that is served at the bound raises it by: a twentieth of the bound for each time that so many calls take, or
/// one call, if that is more.
const INCREASE: f64 = 0.05;

/// What calls have in common of which one is refused if another one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Alike {
    /// A hash: the token itself is not to be kept.
    token: u64,
    /// The binary digits of the number of bytes.
    digits: u32,
}

impl Alike {
    /// Those like a call with these headers and a message of so many bytes.
    pub(super) fn to(headers: &HeaderMap, message_bytes: u32) -> Self {
        // Its keys are the process's own, so that nobody can find two tokens with the same hash.
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let token = HASHER.hash_one(headers.get(header::AUTHORIZATION));
        Self { token, digits: u32::BITS - message_bytes.leading_zeros() }
    }
}

/// The calls in flight, by kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Concurrency(Arc<Mutex<HashMap<Alike, Kind>>>);

#[derive(Debug, Default)]
struct Kind {
    in_flight: usize,
    /// Once one was refused.
    bound: Option<Bound>,
}

#[derive(Debug)]
struct Bound {
    /// Calls that may be in flight.
    calls: f64,
    /// From when on one may be, should that be none.
    until: Instant,
    /// What is said to those that may not.
    refusal: Error,
}

/// A call in flight, which counts until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    concurrency: Concurrency,
    /// None of a kind that is one too many to be followed.
    alike: Option<Alike>,
}

impl Concurrency {
    /// A place for one more call.
    ///
    /// # Errors
    ///
    /// The last refusal of a call like it, if there is none.
    pub(super) fn enter(&self, alike: Alike) -> Result<Place, Error> {
        let (mut kinds, now) = (self.lock(), Instant::now());
        if kinds.len() >= MOST {
            kinds.retain(|_, kind| !kind.is_over(now));
        }
        let is_full = kinds.len() >= MOST;
        let kind = match kinds.entry(alike) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if is_full => return Ok(Place { concurrency: self.clone(), alike: None }),
            Entry::Vacant(entry) => entry.insert(Kind::default()),
        };
        kind.enter(now)?;
        Ok(Place { concurrency: self.clone(), alike: Some(alike) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Alike, Kind>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn enter(&mut self, now: Instant) -> Result<(), Error> {
        if let Some(Bound { until, refusal, .. }) = self.bound.as_ref().filter(|_| self.is_at_bound()) {
            let left = until.saturating_duration_since(now);
            match self.in_flight {
                0 if left.is_zero() => (),
                0 => return Err(refusal.clone().with_retry_after(left)),
                _ => return Err(refusal.clone()),
            }
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Whether one more would be too many.
    fn is_at_bound(&self) -> bool {
        self.bound.as_ref().is_some_and(|bound| (self.in_flight + 1) as f64 > bound.calls)
    }

    fn refused(&mut self, refusal: Error) {
        let Some(wait) = refusal.retry_after() else { return };
        let calls = (self.in_flight - 1) as f64;
        self.bound = Some(Bound { calls, until: Instant::now() + wait.min(LONGEST_FULL), refusal });
    }

    fn served(&mut self) {
        let is_at_bound = self.is_at_bound();
        if let Some(Bound { calls, .. }) = self.bound.as_mut().filter(|_| is_at_bound) {
            *calls += INCREASE.max(1.0 / calls.max(1.0));
        }
    }

    /// Whether nothing is lost if it is forgotten.
    fn is_over(&self, now: Instant) -> bool {
        let holds = |bound: &Bound| bound.calls < 1.0 && now < bound.until;
        self.in_flight == 0 && !self.bound.as_ref().is_some_and(holds)
    }
}

impl Place {
    /// The call was refused for want of room.
    pub(super) fn refused(self, refusal: Error) {
        self.change(|kind| kind.refused(refusal));
    }

    /// The call was answered.
    pub(super) fn served(self) {
        self.change(Kind::served);
    }

    fn change(&self, change: impl FnOnce(&mut Kind)) {
        let Some(alike) = self.alike else { return };
        if let Some(kind) = self.concurrency.lock().get_mut(&alike) {
            change(kind);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(alike) = self.alike else { return };
        if let Entry::Occupied(mut entry) = self.concurrency.lock().entry(alike) {
            entry.get_mut().in_flight -= 1;
            if entry.get().is_over(Instant::now()) {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use muse_proto::Reason;

    use super::*;

    fn alike(token: &'static str, bytes: u32) -> Alike {
        let token = (header::AUTHORIZATION, HeaderValue::from_static(token));
        Alike::to(&HeaderMap::from_iter([token]), bytes)
    }

    fn refusal(wait: Duration) -> Error {
        Error::new(Reason::Overloaded, "full").with_retry_after(wait)
    }

    /// As many places as there are, of those that are asked for.
    fn enter(concurrency: &Concurrency, asked: usize) -> Vec<Place> {
        (0..asked).filter_map(|_| concurrency.enter(alike("a", 5_000)).ok()).collect()
    }

    #[test]
    fn as_many_are_in_flight_as_were_not_refused() {
        let concurrency = Concurrency::default();
        let mut places = enter(&concurrency, 50);
        for place in places.split_off(20) {
            place.refused(refusal(Duration::from_secs(5)));
        }
        assert_eq!(enter(&concurrency, 10).len(), 0);
        let refused = concurrency.enter(alike("a", 4_500)).unwrap_err();
        assert_eq!(
            (refused.reason(), refused.retry_after()),
            (Reason::Overloaded, Some(Duration::from_secs(5)))
        );
        for others in [alike("b", 5_000), alike("a", 50), alike("a", 50_000)] {
            assert!(concurrency.enter(others).is_ok());
        }
        // Whose caller has gone makes room as well as who was served.
        places.truncate(15);
        assert_eq!(enter(&concurrency, 10).len(), 5);
        drop(places);
        assert!(concurrency.lock().is_empty());
    }

    #[test]
    fn the_bound_grows_by_what_is_served_at_it() {
        let concurrency = Concurrency::default();
        for (bound, growth) in [(2, 1), (100, 5)] {
            let mut places = enter(&concurrency, bound + 1);
            places.pop().unwrap().refused(refusal(Duration::from_secs(5)));
            // Once round, there is always another one; the sum of the raises may be a hair short of a whole call.
            for _ in 0..=bound {
                places.remove(0).served();
                places.extend(enter(&concurrency, 2));
            }
            places.extend(enter(&concurrency, bound));
            assert_eq!(places.len(), bound + growth);
            // Far from the bound it stays what it is.
            for place in places.split_off(1) {
                place.served();
            }
            places.extend(enter(&concurrency, 2 * bound));
            assert!(places.len() <= bound + 2 * growth, "{}", places.len());
        }
    }

    #[test]
    fn when_none_is_left_a_refusal_holds_for_its_time() {
        let concurrency = Concurrency::default();
        enter(&concurrency, 1).remove(0).refused(refusal(Duration::from_secs(5)));
        let still = concurrency.enter(alike("a", 4_500)).unwrap_err();
        assert_eq!((still.reason(), still.message()), (Reason::Overloaded, "full"));
        assert!(still.retry_after().is_some_and(|left| left <= LONGEST_FULL));
        std::thread::sleep(LONGEST_FULL);
        let places = enter(&concurrency, 2);
        assert_eq!(places.len(), 1, "one at a time, until one is served");
        places.into_iter().for_each(Place::served);
        assert!(concurrency.lock().is_empty());
    }

    #[test]
    fn only_so_many_are_followed() {
        let concurrency = Concurrency::default();
        let enter = |token| concurrency.enter(Alike { token, digits: 0 }).unwrap();
        enter(0).refused(Error::new(Reason::Overloaded, "who knows"));
        assert!(concurrency.lock().is_empty());
        enter(0).refused(refusal(LONGEST_FULL));
        let places: Vec<Place> = (1..=MOST as u64 + 10).map(enter).collect();
        assert_eq!(concurrency.lock().len(), MOST);
        std::thread::sleep(LONGEST_FULL);
        let last = enter(u64::MAX);
        assert!(!concurrency.lock().contains_key(&Alike { token: 0, digits: 0 }), "its time is over");
        assert_eq!(concurrency.lock().len(), MOST);
        drop((places, last));
        assert!(concurrency.lock().is_empty());
    }
}
