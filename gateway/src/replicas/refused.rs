//! What was refused for want of room, until there is some: the like of it is refused here meanwhile, so that embedders with
//! too much to do need not spend their time on saying so.
//!
//! Alike are calls with the same token and about as many bytes. Nothing follows for others: an embedder gives each user room,
//! and lets a large call wait for longer than a small one.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, header};
use muse_proto::Error;

/// For how long at most an embedder is believed to be full.
pub(super) const LONGEST_FULL: Duration = Duration::from_millis(250);
/// Refusals that are kept at most, all of the last [`LONGEST_FULL`].
const MOST: usize = 4096;

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

/// The refusals of late.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<HashMap<Alike, (Instant, Error)>>);

impl Refused {
    /// The refusal that holds for calls like this, with the time for which it still does.
    pub(super) fn still(&self, alike: Alike) -> Option<Error> {
        let mut refused = self.lock();
        let (until, refusal) = refused.get(&alike)?;
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Some(refusal.clone().with_retry_after(left)),
            _ => {
                refused.remove(&alike);
                None
            }
        }
    }

    /// A call was refused, for as long as the refusal says.
    pub(super) fn note(&self, alike: Alike, refusal: Error) {
        let Some(wait) = refusal.retry_after() else { return };
        let (mut refused, now) = (self.lock(), Instant::now());
        if refused.len() >= MOST {
            refused.retain(|_, (until, _)| *until > now);
        }
        if refused.len() < MOST {
            refused.insert(alike, (now + wait.min(LONGEST_FULL), refusal));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Alike, (Instant, Error)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_refusal_holds_for_its_time_and_for_nobody_else() {
        let refused = Refused::default();
        refused.note(alike("a", 5_000), refusal(Duration::from_secs(5)));
        for others in [alike("b", 5_000), alike("a", 50), alike("a", 50_000)] {
            assert_eq!(refused.still(others), None);
        }
        let still = refused.still(alike("a", 4_500)).unwrap();
        assert_eq!((still.reason(), still.message()), (Reason::Overloaded, "full"));
        assert!(still.retry_after().is_some_and(|left| left <= LONGEST_FULL));
        std::thread::sleep(LONGEST_FULL);
        assert_eq!(refused.still(alike("a", 4_500)), None);
        assert!(refused.lock().is_empty());
    }

    #[test]
    fn only_so_many_are_kept() {
        let refused = Refused::default();
        refused.note(alike("a", 0), Error::new(Reason::Overloaded, "who knows"));
        assert!(refused.lock().is_empty());
        let all = |token: u64, wait| refused.note(Alike { token, digits: 0 }, refusal(wait));
        (0..2 * MOST as u64).for_each(|token| all(token, Duration::from_secs(1)));
        assert_eq!(refused.lock().len(), MOST);
        std::thread::sleep(LONGEST_FULL);
        all(u64::MAX, Duration::from_secs(1));
        assert_eq!(refused.lock().len(), 1);
    }
}
