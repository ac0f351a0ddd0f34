//! The throttle's state in memory.

use std::{collections::HashMap, mem};

use crate::store::Failures;

/// Subjects in each of the two generations.
pub(super) const GENERATION_CAPACITY: usize = 32_768;

/// Attempts in flight, and failures that the database may not have.
///
/// Not a cache crate: an entry must survive at least [`GENERATION_CAPACITY`] newer ones, or a flood
/// of names could evict the failures of a guesser. Caches that evict by frequency do not guarantee
/// that.
#[derive(Debug, Default)]
pub(super) struct ThrottleState {
    /// Attempts in flight by subject. Many at once are many guesses.
    pub(super) in_flight: HashMap<String, usize>,
    /// Failures by subject, in two generations: a full young one replaces the old one.
    pub(super) young: HashMap<String, Failures>,
    pub(super) old: HashMap<String, Failures>,
}

impl ThrottleState {
    pub(super) fn failures(&self, subject: &str) -> Option<Failures> {
        self.young.get(subject).or_else(|| self.old.get(subject)).copied()
    }

    pub(super) fn set_failures(&mut self, subject: &str, failures: Failures) {
        if self.young.len() >= GENERATION_CAPACITY && !self.young.contains_key(subject) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(subject.to_owned(), failures);
    }

    pub(super) fn remove_failures(&mut self, subject: &str) {
        self.young.remove(subject);
        self.old.remove(subject);
    }

    /// Combines the failures of a subject in memory with those `stored` in the database.
    pub(super) fn merge(&mut self, subject: &str, stored: Failures, now: i64) -> Failures {
        let failures = match self.failures(subject) {
            // The clock was set back since the failures were stored: a wait from their time on
            // would last until the clock has caught up.
            Some(known) if stored.last_at > now => Failures { count: known.count.max(stored.count), ..known },
            Some(known) => known.or_stricter(stored, now),
            None => stored,
        };
        if failures.last_at <= now {
            return failures;
        }
        let clamped = Failures { last_at: now, ..failures };
        self.set_failures(subject, clamped);
        clamped
    }

    /// Ends an attempt of a subject.
    pub(super) fn remove_in_flight(&mut self, subject: &str) {
        if let Some(count) = self.in_flight.get_mut(subject) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(subject);
            }
        }
    }
}
