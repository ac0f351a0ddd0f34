//! The usage that has not been reported: counts per hour, user and API key.

use std::{collections::HashMap, sync::Arc};

use muse_proto::{
    limits::{MAX_AUTH_REQUEST_BYTES, MAX_USAGE_COUNTS},
    v1::UsageCount,
};
use muse_telemetry::{
    log_throttle::LogThrottle,
    metrics::{IntCounter, Metrics},
};
use muse_verifier::api_keys::KeyId;
use parking_lot::Mutex;
use tracing::error;

use crate::{batcher::UserName, clock::unix_time};

/// Entries that may be pending, of some 150 bytes each. Usage that needs a further one is not
/// counted. As many arise only if reports fail for long: the tokens of users are rejected when the
/// auth service has been unreachable for some minutes.
const MAX_ENTRIES: usize = 1 << 18;
const SECONDS_PER_HOUR: i64 = 3_600;
/// Bytes of an encoded count besides the name of its user, at most.
const COUNT_BYTES: usize = 64;
/// Bytes after which a report gets no further count: imported users may have long names.
const REPORT_BYTES: usize = MAX_AUTH_REQUEST_BYTES - 8_192;

/// What is counted. Each is a sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageCounts {
    /// Answered calls of Embed and Tokenize, and opened streams.
    pub requests: u64,
    /// Sentences whose vectors were computed.
    pub sentences: u64,
    /// Tokens of these sentences, without `<s>` and `</s>`.
    pub tokens: u64,
    /// Calls that were rejected with RESOURCE_EXHAUSTED.
    pub refused: u64,
}

/// The usage that has not been reported. Clones share it.
///
/// It is one map behind one lock: an addition to a known entry takes no allocation and some 100 ns,
/// 200 ns while another thread adds all the time (`make bench-parts`); the forward pass of the
/// shortest sentence takes a millisecond.
#[derive(Debug, Clone)]
pub struct PendingUsage(Arc<SharedCounts>);

#[derive(Debug)]
struct SharedCounts {
    entries: Mutex<HashMap<Entry, UsageCounts>>,
    max_entries: usize,
    dropped: IntCounter,
    log_throttle: LogThrottle,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry {
    /// The start of the hour (UTC), in seconds since 1970.
    hour: i64,
    user: UserName,
    key: Option<KeyId>,
}

impl PendingUsage {
    /// No usage yet, with metrics of the number of entries and of usage that was not counted.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let pending = Self::with_max_entries(MAX_ENTRIES, metrics);
        let shared = Arc::clone(&pending.0);
        metrics.pulled_gauge(
            "muse_usage_pending",
            "Counts of usage, each of a user or API key within an hour, that have not been reported.",
            move || shared.entries.lock().len() as f64,
        );
        pending
    }

    fn with_max_entries(max_entries: usize, metrics: &Metrics) -> Self {
        let dropped = metrics.counter(
            "muse_usage_dropped_total",
            "Counts of usage that are lost, because too many were pending or the auth service rejected them.",
        );
        let (entries, log_throttle) = (Mutex::default(), LogThrottle::default());
        Self(Arc::new(SharedCounts { entries, max_entries, dropped, log_throttle }))
    }

    /// Adds usage of now.
    pub fn add(&self, user: &UserName, key: Option<KeyId>, counts: UsageCounts) {
        self.add_at(unix_time(), user, key, counts);
    }

    fn add_at(&self, now: i64, user: &UserName, key: Option<KeyId>, counts: UsageCounts) {
        let hour = now.div_euclid(SECONDS_PER_HOUR) * SECONDS_PER_HOUR;
        let entry = Entry { hour, user: Arc::clone(user), key };
        let SharedCounts { entries, max_entries, dropped, log_throttle } = &*self.0;
        let mut entries = entries.lock();
        if let Some(sum) = entries.get_mut(&entry) {
            sum.add(counts);
        } else if entries.len() < *max_entries {
            entries.insert(entry, counts);
        } else {
            drop(entries);
            dropped.inc();
            if log_throttle.allows("full") {
                error!(
                    pending = max_entries,
                    "usage is not counted: too much of it could not be reported to the auth service"
                );
            }
        }
    }

    /// The number of pending counts.
    pub(super) fn len(&self) -> usize {
        self.0.entries.lock().len()
    }

    /// Takes the counts of the next report; none if nothing is pending.
    pub(super) fn take(&self) -> Vec<UsageCount> {
        let mut entries = self.0.entries.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let mut removed = entries.extract_if(|_, _| true);
        while taken.len() < MAX_USAGE_COUNTS && bytes < REPORT_BYTES {
            let Some((entry, counts)) = removed.next() else { break };
            bytes += entry.user.len() + COUNT_BYTES;
            taken.push(entry.count(counts));
        }
        drop(removed);
        if entries.is_empty() && entries.capacity() > 2 * MAX_USAGE_COUNTS {
            // After a burst of users, or an outage of the auth service.
            entries.shrink_to(MAX_USAGE_COUNTS);
        }
        taken
    }

    /// Records a count as lost that the auth service rejected.
    pub(super) fn record_dropped(&self) {
        self.0.dropped.inc();
    }
}

impl UsageCounts {
    pub(crate) fn add(&mut self, other: Self) {
        let Self { requests, sentences, tokens, refused } = other;
        self.requests += requests;
        self.sentences += sentences;
        self.tokens += tokens;
        self.refused += refused;
    }
}

impl Entry {
    fn count(self, UsageCounts { requests, sentences, tokens, refused }: UsageCounts) -> UsageCount {
        UsageCount {
            hour: self.hour,
            username: self.user.as_ref().to_owned(),
            key_id: self.key.map(KeyId::number),
            requests,
            sentences,
            tokens,
            refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: UsageCounts = UsageCounts { requests: 1, sentences: 2, tokens: 9, refused: 0 };

    fn pending(max_entries: usize) -> PendingUsage {
        PendingUsage::with_max_entries(max_entries, &Metrics::of("test"))
    }

    fn requests(counts: &[UsageCount]) -> u64 {
        counts.iter().map(|count| count.requests).sum()
    }

    #[test]
    fn usage_is_summed_by_hour_user_and_key() {
        let pending = pending(100);
        let (ann, bob, key) = (UserName::from("ann"), UserName::from("bob"), Some(KeyId::new(7)));
        for (now, user, key) in
            [(0, &ann, None), (3_599, &ann, None), (3_600, &ann, None), (1, &ann, key), (2, &bob, None)]
        {
            pending.add_at(now, user, key, REQUEST);
        }
        let mut taken = pending.take();
        taken.sort_by_key(|count| (count.username.clone(), count.hour, count.key_id));
        let count = |username: &str, hour, key_id, times| UsageCount {
            hour,
            username: username.to_owned(),
            key_id,
            requests: times,
            sentences: 2 * times,
            tokens: 9 * times,
            refused: 0,
        };
        let expected = [
            count("ann", 0, None, 2),
            count("ann", 0, Some(7), 1),
            count("ann", 3_600, None, 1),
            count("bob", 0, None, 1),
        ];
        assert_eq!(taken, expected);
        assert!(pending.take().is_empty());
    }

    #[test]
    fn full_map_counts_known_entries_only() {
        let pending = pending(2);
        for name in ["ann", "bob", "carol", "ann"] {
            pending.add_at(0, &UserName::from(name), None, REQUEST);
        }
        assert_eq!((requests(&pending.take()), pending.0.dropped.get()), (3, 1));
        pending.add_at(0, &UserName::from("carol"), None, REQUEST);
        assert_eq!(requests(&pending.take()), 1);
    }

    #[test]
    fn reports_are_bounded_in_counts_and_bytes() {
        let pending = pending(10_000);
        for number in 0..1_200 {
            pending.add_at(0, &UserName::from(format!("user {number}")), None, REQUEST);
        }
        let lengths: Vec<usize> = std::iter::repeat_with(|| pending.take().len()).take(4).collect();
        assert_eq!(lengths, [MAX_USAGE_COUNTS, MAX_USAGE_COUNTS, 200, 0]);
        for number in 0..100 {
            pending.add_at(0, &UserName::from(format!("{number:01000}")), None, REQUEST);
        }
        let (first, second) = (pending.take().len(), pending.take().len());
        assert!(first * 1_000 < MAX_AUTH_REQUEST_BYTES && first > 50, "{first}");
        assert_eq!(first + second, 100);
    }
}
