//! Waits before another service is tried again.

use std::{collections::hash_map::RandomState, error::Error as _, hash::BuildHasher, time::Duration};

use tonic::Status;

use muse_telemetry::followed_by_causes;

/// Each wait is up to twice as long as the one before, and at random between half of that and all, so that not all who wait
/// come back at once.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from `first` to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next wait is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Waits.
    pub async fn wait(&mut self) {
        let part = random() as f64 / u64::MAX as f64;
        let wait = self.next.mul_f64(0.5 + part / 2.0);
        self.next = self.longest.min(2 * self.next);
        tokio::time::sleep(wait).await;
    }
}

/// A number that others will not have, too.
#[must_use]
pub fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// What a status says, with the causes of one that is not the service's own answer: why it cannot be reached.
#[must_use]
pub fn reason(status: &Status) -> String {
    followed_by_causes(status.message().to_owned(), status.source())
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn waits_grow_up_to_a_bound_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(50));
        for (least, reset) in [(10, false), (20, false), (25, false), (25, true), (10, false)] {
            let began = Instant::now();
            backoff.wait().await;
            let took = began.elapsed().as_millis();
            assert!(took >= least, "{took} ms, not {least}");
            if reset {
                backoff.reset();
                assert_eq!(backoff.next, backoff.first);
            }
        }
    }
}
