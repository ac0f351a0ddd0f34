//! The measured throughput of forward passes, from which waiting times are estimated.

use std::time::Duration;

/// The weight of earlier passes after each new one (an exponential moving average): about the last
/// fifty passes determine the result.
const DECAY: f64 = 0.98;

/// Tokens per second of recent passes.
#[derive(Debug, Default)]
pub(crate) struct Throughput {
    threads: f64,
    tokens: f64,
    seconds: f64,
}

impl Throughput {
    /// The throughput of so many threads, which run passes at the same time.
    pub(crate) fn of_threads(threads: usize) -> Self {
        Self { threads: threads as f64, tokens: 0.0, seconds: 0.0 }
    }

    /// Adds a pass.
    pub(crate) fn add(&mut self, tokens: usize, took: Duration) {
        self.tokens = self.tokens * DECAY + tokens as f64;
        self.seconds = self.seconds * DECAY + took.as_secs_f64();
    }

    /// Tokens in a time; none before the first pass.
    pub(crate) fn tokens_in(&self, time: Duration) -> Option<usize> {
        Some((self.rate()? * time.as_secs_f64()) as usize)
    }

    /// The time for so many tokens; none before the first pass.
    pub(crate) fn time_for(&self, tokens: usize) -> Option<Duration> {
        Some(Duration::from_secs_f64(tokens as f64 / self.rate()?))
    }

    fn rate(&self) -> Option<f64> {
        let rate = self.threads * self.tokens / self.seconds;
        (rate.is_finite() && rate > 0.0).then_some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_follows_recent_passes() {
        let mut throughput = Throughput::of_threads(2);
        assert_eq!((throughput.tokens_in(Duration::from_secs(1)), throughput.time_for(5)), (None, None));
        throughput.add(0, Duration::ZERO);
        assert_eq!(throughput.time_for(5), None);
        throughput.add(1_000, Duration::from_millis(10));
        assert_eq!(throughput.tokens_in(Duration::from_secs(1)), Some(200_000));
        assert_eq!(throughput.time_for(1_000), Some(Duration::from_millis(5)));
        for _ in 0..200 {
            throughput.add(1_000, Duration::from_millis(20));
        }
        let slower = throughput.tokens_in(Duration::from_secs(1)).unwrap();
        assert!((100_000..103_000).contains(&slower), "{slower}");
    }
}
