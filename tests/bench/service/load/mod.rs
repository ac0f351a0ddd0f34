//! Load on the service, and what came of it.

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

/// No latency is longer than this.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a load led to.
#[derive(Debug)]
pub(crate) struct Measured {
    /// How long was measured.
    pub(crate) duration: Duration,
    /// Sentences of the calls that were served within that time.
    pub(crate) sentences: usize,
    /// Calls that were served within that time.
    pub(crate) calls: usize,
    /// How calls ended, and how many.
    pub(crate) outcomes: BTreeMap<String, usize>,
    /// Microseconds that served calls took.
    latencies: Histogram<u64>,
    /// Time on processors of this program.
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

    /// Counts a call that was served in time.
    fn served(&mut self, sentences: usize) {
        self.sentences += sentences;
        self.calls += 1;
    }

    /// Counts how a call ended, and how long it took if it was served.
    fn ended(&mut self, outcome: Outcome, took: Duration) {
        *self.outcomes.entry(outcome.label()).or_default() += 1;
        if outcome == Outcome::Served {
            self.latencies.saturating_record(took.as_micros() as u64);
        }
    }

    /// Sentences a second; NaN if no call ended in the time that was measured, which tells nothing.
    pub(crate) fn sentences_per_second(&self) -> f64 {
        self.rate(self.sentences)
    }

    /// Calls a second; NaN as above.
    pub(crate) fn calls_per_second(&self) -> f64 {
        self.rate(self.calls)
    }

    fn rate(&self, count: usize) -> f64 {
        if self.outcomes.is_empty() { f64::NAN } else { count as f64 / self.duration.as_secs_f64() }
    }

    /// Calls that were not served.
    pub(crate) fn failures(&self) -> usize {
        self.outcomes
            .iter()
            .filter(|(label, _)| **label != Outcome::Served.label())
            .map(|(_, count)| count)
            .sum()
    }

    /// Milliseconds within which this part (0.99) of the served calls was answered; NaN if none was.
    pub(crate) fn milliseconds(&self, part: f64) -> f64 {
        if self.latencies.is_empty() {
            return f64::NAN;
        }
        self.latencies.value_at_quantile(part) as f64 / 1e3
    }

    /// The part of the machine's processors that this program took.
    pub(crate) fn generator_share(&self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.generator.as_secs_f64() / (self.duration.as_secs_f64() * cores as f64)
    }

    /// How calls ended other than well, for tables.
    pub(crate) fn refusals(&self) -> String {
        let bad = self.outcomes.iter().filter(|(label, _)| **label != Outcome::Served.label());
        bad.map(|(label, count)| format!("{label} {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// Measures this program's own time on processors.
struct Generator(Duration);

impl Generator {
    fn start() -> Self {
        Self(procfs::cpu_time(std::process::id()))
    }

    fn took(&self) -> Duration {
        procfs::cpu_time(std::process::id()).saturating_sub(self.0)
    }
}

/// Sleeps until then. tokio's own timer is a millisecond coarse, which is fine for ends and too coarse for latencies, so that
/// latencies are never measured from the moment of waking.
async fn sleep_until(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}
