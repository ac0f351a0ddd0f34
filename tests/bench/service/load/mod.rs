//! Load generators and their measurements.

mod closed;
mod open;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

pub(crate) use closed::{Window, closed_loop};
pub(crate) use open::{Arrivals, open_loop};

use muse_tests::procfs;

use crate::client::Outcome;

/// Upper bound of the latency histogram.
const LONGEST: Duration = Duration::from_secs(3600);

/// The measurements of a load.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Duration of the measurement.
    pub(crate) duration: Duration,
    /// Sentences of successful calls in that time.
    pub(crate) sentences: usize,
    /// Successful calls in that time.
    pub(crate) calls: usize,
    /// Number of calls by outcome.
    pub(crate) outcomes: BTreeMap<String, usize>,
    /// Latencies of successful calls in microseconds.
    latencies: Histogram<u64>,
    /// CPU time of this program.
    generator: Duration,
}

impl Measured {
    fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3);
        Self {
            duration: Duration::ZERO,
            sentences: 0,
            calls: 0,
            outcomes: BTreeMap::new(),
            latencies: latencies.expect("the bounds are sound"),
            generator: Duration::ZERO,
        }
    }

    /// Counts a successful call in the window.
    fn served(&mut self, sentences: usize) {
        self.sentences += sentences;
        self.calls += 1;
    }

    /// Counts the outcome of a call, and its latency if it was successful.
    fn ended(&mut self, outcome: Outcome, latency: Duration) {
        *self.outcomes.entry(outcome.label()).or_default() += 1;
        if outcome == Outcome::Served {
            self.latencies.saturating_record(latency.as_micros() as u64);
        }
    }

    /// Sentences per second, or NaN if no call ended in the window.
    pub(crate) fn sentences_per_second(&self) -> f64 {
        self.rate(self.sentences)
    }

    /// Calls per second, or NaN if no call ended in the window.
    pub(crate) fn calls_per_second(&self) -> f64 {
        self.rate(self.calls)
    }

    fn rate(&self, count: usize) -> f64 {
        if self.outcomes.is_empty() { f64::NAN } else { count as f64 / self.duration.as_secs_f64() }
    }

    /// Number of failed calls.
    pub(crate) fn failures(&self) -> usize {
        self.outcomes
            .iter()
            .filter(|(label, _)| **label != Outcome::Served.label())
            .map(|(_, count)| count)
            .sum()
    }

    /// A quantile (such as 0.99) of the latency of successful calls in milliseconds, or NaN without
    /// calls.
    pub(crate) fn milliseconds(&self, part: f64) -> f64 {
        if self.latencies.is_empty() {
            return f64::NAN;
        }
        self.latencies.value_at_quantile(part) as f64 / 1e3
    }

    /// This program's share of the CPU time of the machine.
    pub(crate) fn generator_share(&self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.generator.as_secs_f64() / (self.duration.as_secs_f64() * cores as f64)
    }

    /// The failures by outcome, for tables.
    pub(crate) fn failures_by_outcome(&self) -> String {
        let bad = self.outcomes.iter().filter(|(label, _)| **label != Outcome::Served.label());
        bad.map(|(label, count)| format!("{label} {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// Measures the CPU time of this program.
struct Generator(Duration);

impl Generator {
    fn start() -> Self {
        Self(procfs::cpu_time(std::process::id()))
    }

    fn cpu_time(&self) -> Duration {
        procfs::cpu_time(std::process::id()).saturating_sub(self.0)
    }
}

/// Sleeps until `moment`. The resolution of tokio's timer is a millisecond, so latencies are not
/// measured from the wake-up.
async fn sleep_until(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}
