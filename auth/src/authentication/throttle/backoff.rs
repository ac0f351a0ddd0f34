//! The waits after failures, and how failures are forgiven.

use crate::store::Failures;

/// One failure is forgiven for each period of so many seconds without another one. Longer than the
/// longest wait.
pub(super) const FORGIVENESS_PERIOD: i64 = 3600;
/// All failures are forgiven after so many seconds without another one.
pub(super) const FULL_FORGIVENESS: i64 = 24 * 3600;

/// Exponential back-off of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BackoffPolicy {
    /// Failures without a wait, for people who mistype.
    pub(super) free: i64,
    /// Seconds to wait after the first failure beyond the free ones. Each further failure doubles
    /// them.
    pub(super) first: i64,
    /// The longest wait, in seconds.
    pub(super) longest: i64,
}

pub(super) const OF_ADDRESS: BackoffPolicy = BackoffPolicy { free: 20, first: 1, longest: 15 * 60 };
pub(super) const OF_NAME: BackoffPolicy = BackoffPolicy { free: 20, first: 1, longest: 60 };
pub(super) const OF_KNOWN_PAIR: BackoffPolicy = OF_ADDRESS;
pub(super) const OF_UNKNOWN_PAIR: BackoffPolicy = BackoffPolicy { first: 2, longest: 30 * 60, ..OF_ADDRESS };

impl BackoffPolicy {
    /// Seconds from the last of so many failures until the next attempt.
    pub(super) fn wait(self, failures: i64) -> i64 {
        match failures - self.free {
            ..0 => 0,
            further @ 0..32 => self.longest.min(self.first << further),
            _ => self.longest,
        }
    }

    /// The number of failures from which on the wait is the longest. No more are counted, otherwise
    /// forgiving them would take for ever.
    pub(super) fn max_failures(self) -> i64 {
        (self.free..).find(|failures| self.wait(*failures) == self.longest).unwrap_or(self.free)
    }
}

impl Failures {
    /// The failures that are not forgiven.
    pub(super) fn remaining(self, now: i64) -> i64 {
        let quiet = now.saturating_sub(self.last_at).max(0);
        if quiet >= FULL_FORGIVENESS { 0 } else { (self.count - quiet / FORGIVENESS_PERIOD).max(0) }
    }

    /// The stricter of two counts.
    pub(super) fn or_stricter(self, other: Self, now: i64) -> Self {
        let rank = |failures: Self| (failures.remaining(now), failures.last_at);
        if rank(other) > rank(self) { other } else { self }
    }
}
