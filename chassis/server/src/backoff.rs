//! Exponential backoff with jitter, for retries of connections to other services.

use std::{collections::hash_map::RandomState, error::Error as _, hash::BuildHasher, time::Duration};

use tonic::Status;

use muse_telemetry::followed_by_causes;

/// Exponential backoff: the delay doubles after each wait up to a maximum. Each wait takes a random
/// time between half of the delay and all of it, so that not all clients retry at once.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// A backoff whose delay grows from `first` to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// Resets the delay to the first.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Waits for the delay, with jitter, and doubles it.
    pub async fn wait(&mut self) {
        let fraction = random() as f64 / u64::MAX as f64;
        let wait = self.next.mul_f64(0.5 + fraction / 2.0);
        self.next = self.longest.min(2 * self.next);
        tokio::time::sleep(wait).await;
    }
}

/// A random number, for jitter; not for secrets.
#[must_use]
pub fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// The message of a status, followed by the causes of a local failure, such as a failed connection.
#[must_use]
pub fn reason(status: &Status) -> String {
    followed_by_causes(status.message().to_owned(), status.source())
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn waits_grow_to_the_maximum_and_reset() {
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
