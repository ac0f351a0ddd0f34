//! An open loop: calls begin whether or not earlier ones were answered, and at random (a Poisson process), as those of many
//! users do who know nothing of each other. A latency counts from the time at which the call was to begin, so that a service
//! that stalls cannot hide it by holding back the calls (coordinated omission).

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};

use super::{Generator, Measured, sleep_until};
use crate::{
    client::{Client, Outcome},
    workload::Call,
};

/// The same times in each run.
const SEED: u64 = 5;
/// How long answers are waited for after the last call.
const DRAIN: Duration = Duration::from_secs(120);

/// When calls begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrivals {
    /// Calls a second, on average.
    pub(crate) rate: f64,
    /// For how long.
    pub(crate) duration: Duration,
}

impl Arrivals {
    /// The times at which calls begin, from the beginning of the load.
    fn times(self) -> impl Iterator<Item = Duration> {
        let mut random = fastrand::Rng::with_seed(SEED);
        // Gaps between the events of a Poisson process are distributed exponentially.
        let gap = move || Duration::from_secs_f64(-(1.0 - random.f64()).ln() / self.rate);
        std::iter::repeat_with(gap)
            .scan(Duration::ZERO, |time, gap| {
                *time += gap;
                Some(*time)
            })
            .take_while(move |time| *time < self.duration)
    }
}

/// Has the clients ask the calls in turn. Latencies are those of all calls that are served, throughput that of the time in
/// which calls begin.
///
/// A caller gives up after `patience`, if there is any: a call of gRPC has that deadline, one of REST is dropped.
pub(crate) async fn open_loop(
    clients: &[Client],
    calls: &[Call],
    arrivals: Arrivals,
    patience: Option<Duration>,
) -> Measured {
    let mut measured = Measured::new();
    measured.duration = arrivals.duration;
    let generator = Generator::start();
    let began = Instant::now();
    let until = began + arrivals.duration;
    let mut under_way = FuturesUnordered::new();
    for (number, time) in arrivals.times().enumerate() {
        let meant_at = began + time;
        while Instant::now() < meant_at {
            tokio::select! {
                biased;
                () = sleep_until(meant_at) => (),
                Some(ended) = under_way.next() => count(&mut measured, ended, until),
            }
        }
        let mut client = clients[number % clients.len()].clone();
        let call = &calls[number % calls.len()];
        under_way.push(async move {
            let outcome = match patience {
                Some(patience) => client.call_within(call, patience).await,
                None => client.call(call).await,
            };
            (outcome, call.sentences, meant_at, Instant::now())
        });
    }
    measured.generator = generator.took();
    let drained = async {
        while let Some(ended) = under_way.next().await {
            count(&mut measured, ended, until);
        }
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        measured.outcomes.insert(format!("no answer within {} s", DRAIN.as_secs()), under_way.len());
    }
    measured
}

fn count(
    measured: &mut Measured,
    (outcome, sentences, meant_at, answered): (Outcome, usize, Instant, Instant),
    until: Instant,
) {
    measured.ended(outcome, answered - meant_at);
    if outcome == Outcome::Served && answered < until {
        measured.served(sentences);
    }
}
