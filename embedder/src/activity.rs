//! The activity of the last minutes, for GetStatus: calls, sentences, rejections and durations, in intervals of five seconds.
//!
//! Metrics have the same numbers since the start of the process; a page without Prometheus has no history of them.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use hdrhistogram::Histogram;
use muse_proto::v1::ActivitySample;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::{clock::unix_time, usage::UsageCounts};

/// The length of an interval.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// The samples of ten minutes; older ones are deleted.
const MAX_SAMPLES: usize = 120;
/// Durations are rounded to two significant digits, and longer ones count as this.
const LONGEST: Duration = Duration::from_secs(600);

/// The activity of an embedder. Clones share it.
#[derive(Clone)]
pub(crate) struct Activity(Arc<Mutex<Recent>>);

struct Recent {
    /// The oldest first.
    closed: VecDeque<ActivitySample>,
    counts: UsageCounts,
    /// Of calls of Embed, in microseconds.
    durations: Histogram<u32>,
}

impl Activity {
    pub(crate) fn new() -> Self {
        let most = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        let durations = Histogram::new_with_max(most, 2).expect("two digits of ten minutes are permitted");
        Self(Arc::new(Mutex::new(Recent {
            closed: VecDeque::with_capacity(MAX_SAMPLES),
            counts: UsageCounts::default(),
            durations,
        })))
    }

    /// Adds counts to the current interval.
    pub(crate) fn add(&self, counts: UsageCounts) {
        self.0.lock().counts.add(counts);
    }

    /// Adds the duration of an answered call of Embed.
    pub(crate) fn add_duration(&self, took: Duration) {
        self.0.lock().durations.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// The closed intervals, the oldest first.
    pub(crate) fn samples(&self) -> Vec<ActivitySample> {
        self.0.lock().closed.iter().copied().collect()
    }

    /// Ends the current interval, which began at `start` (in seconds since 1970).
    fn close_interval(&self, start: i64, queued_tokens: u64) {
        let mut recent = self.0.lock();
        let UsageCounts { requests, sentences, tokens, refused } = std::mem::take(&mut recent.counts);
        let durations = &recent.durations;
        let percentile =
            |quantile| (!durations.is_empty()).then(|| durations.value_at_quantile(quantile) as f64 / 1e3);
        let (p50_ms, p99_ms) = (percentile(0.5), percentile(0.99));
        let sample = ActivitySample {
            start,
            requests,
            sentences,
            tokens,
            rejected: refused,
            queued_tokens,
            p50_ms,
            p99_ms,
        };
        recent.durations.reset();
        if recent.closed.len() == MAX_SAMPLES {
            recent.closed.pop_front();
        }
        recent.closed.push_back(sample);
    }

    /// Ends an interval every five seconds, for ever.
    pub(crate) async fn close_intervals(self, queued_tokens: impl Fn() -> usize) {
        let mut ends = interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
        // The intervals after a pause of the process have the same length as the others.
        ends.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let start = unix_time();
            ends.tick().await;
            self.close_interval(start, queued_tokens() as u64);
        }
    }
}

impl fmt::Debug for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activity").field("closed", &self.0.lock().closed.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_has_its_counts_and_percentiles() {
        let activity = Activity::new();
        let counts = UsageCounts { requests: 1, sentences: 2, tokens: 30, refused: 0 };
        for milliseconds in 1..=100 {
            activity.add(counts);
            activity.add_duration(Duration::from_millis(milliseconds));
        }
        activity.add(UsageCounts { refused: 4, ..UsageCounts::default() });
        activity.close_interval(50, 700);
        activity.close_interval(55, 0);

        let samples = activity.samples();
        let [busy, idle] = &*samples else { panic!("{samples:?}") };
        assert_eq!((busy.requests, busy.sentences, busy.tokens, busy.rejected), (100, 200, 3000, 4));
        assert_eq!((busy.start, busy.queued_tokens), (50, 700));
        let (p50, p99) = (busy.p50_ms.unwrap(), busy.p99_ms.unwrap());
        assert!((49.0..52.0).contains(&p50) && (98.0..101.0).contains(&p99), "{p50} {p99}");
        assert_eq!(*idle, ActivitySample { start: 55, ..ActivitySample::default() });
    }

    #[test]
    fn only_the_last_ten_minutes_are_stored() {
        let activity = Activity::new();
        activity.add_duration(Duration::MAX);
        for start in 0..=MAX_SAMPLES as i64 {
            activity.close_interval(start, 0);
        }
        let samples = activity.samples();
        assert_eq!((samples.len(), samples[0].start), (MAX_SAMPLES, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn intervals_end_every_five_seconds() {
        let activity = Activity::new();
        let _ =
            tokio::time::timeout(INTERVAL * 3 + INTERVAL / 2, activity.clone().close_intervals(|| 7)).await;
        let samples = activity.samples();
        assert_eq!(samples.iter().map(|sample| sample.queued_tokens).collect::<Vec<_>>(), [7, 7, 7]);
    }
}
