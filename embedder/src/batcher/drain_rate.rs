//! The measured service of one class of requests. A class that shares the passes with others is
//! served more slowly than its backlog and theirs suggest, because the others receive new requests
//! meanwhile.

use std::time::{Duration, Instant};

/// The time constant of the average: about the last five seconds determine the result.
const WINDOW: Duration = Duration::from_secs(5);
/// A class is measured once requests have waited in it for so long.
const MEASURED_AFTER: Duration = Duration::from_secs(1);

/// The tokens per second that passes take from a class while requests wait in it.
#[derive(Debug)]
pub(super) struct DrainRate {
    /// Since when requests wait.
    since: Instant,
    /// Tokens that were taken since then, each weighted by its age at `updated`.
    tokens: f64,
    updated: Instant,
}

impl DrainRate {
    /// Begins to measure a class that receives its first request.
    pub(super) fn begin(now: Instant) -> Self {
        Self { since: now, tokens: 0.0, updated: now }
    }

    /// Adds the tokens that a pass takes.
    pub(super) fn add(&mut self, tokens: usize, now: Instant) {
        self.tokens = self.tokens * weight_after(now - self.updated) + tokens as f64;
        self.updated = now;
    }

    /// The time in which passes take so many tokens; none while that is not known.
    pub(super) fn time_for(&self, tokens: usize, now: Instant) -> Option<Duration> {
        let measured = now.saturating_duration_since(self.since);
        if measured < MEASURED_AFTER {
            return None;
        }
        let taken = self.tokens * weight_after(now.saturating_duration_since(self.updated));
        // The weight of all moments since the first request.
        let seconds = WINDOW.as_secs_f64() * (1.0 - weight_after(measured));
        Duration::try_from_secs_f64(tokens as f64 * seconds / taken).ok()
    }
}

/// The weight of a moment after so much time.
fn weight_after(age: Duration) -> f64 {
    (-age.as_secs_f64() / WINDOW.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes tokens every 10 ms.
    fn take(rate: &mut DrainRate, mut now: Instant, seconds: u64, tokens: usize) -> Instant {
        for _ in 0..seconds * 100 {
            now += Duration::from_millis(10);
            rate.add(tokens, now);
        }
        now
    }

    fn seconds(rate: &DrainRate, tokens: usize, now: Instant) -> f64 {
        rate.time_for(tokens, now).expect("it is measured").as_secs_f64()
    }

    #[test]
    fn rate_is_that_of_recent_passes() {
        let start = Instant::now();
        let mut rate = DrainRate::begin(start);
        let now = take(&mut rate, start, 2, 10);
        assert!((9.9..10.1).contains(&seconds(&rate, 10_000, now)), "{}", seconds(&rate, 10_000, now));
        // Another class takes half of the passes from now on.
        let now = take(&mut rate, now, 20, 5);
        assert!((19.0..20.1).contains(&seconds(&rate, 10_000, now)), "{}", seconds(&rate, 10_000, now));
    }

    #[test]
    fn rate_is_unknown_before_passes_were_observed() {
        let start = Instant::now();
        let mut rate = DrainRate::begin(start);
        let now = start + Duration::from_millis(10);
        rate.add(1_000, now);
        assert_eq!(rate.time_for(10, now), None);
        let idle = DrainRate::begin(start);
        assert_eq!(idle.time_for(10, start + Duration::from_secs(3)), None);
    }
}
