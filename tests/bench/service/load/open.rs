//! An open loop: calls start at random times (a Poisson process), independent of earlier responses,
//! like those of many independent users. Latency counts from the scheduled start of a call, which
//! avoids coordinated omission.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};

use super::{Generator, Measured, sleep_until};
use crate::{
    client::{Client, Outcome},
    workload::Call,
};

/// Fixed seed, so that the times are the same in each run.
const SEED: u64 = 5;
/// Timeout for responses after the last call.
const DRAIN: Duration = Duration::from_secs(120);

/// The arrival process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrivals {
    /// Mean number of calls per second.
    pub(crate) rate: f64,
    /// Duration of the load.
    pub(crate) duration: Duration,
}

impl Arrivals {
    /// The scheduled starts of calls, relative to the start of the load.
    fn times(self) -> impl Iterator<Item = Duration> {
        let mut random = fastrand::Rng::with_seed(SEED);
        // The interarrival times of a Poisson process are exponentially distributed.
        let gap = move || Duration::from_secs_f64(-(1.0 - random.f64()).ln() / self.rate);
        std::iter::repeat_with(gap)
            .scan(Duration::ZERO, |time, gap| {
                *time += gap;
                Some(*time)
            })
            .take_while(move |time| *time < self.duration)
    }
}

/// Lets the clients send the calls in turn. Latencies are those of all successful calls; throughput
/// counts the calls that end during the load.
///
/// With a `timeout`, gRPC calls have that deadline and REST calls are cancelled after it.
pub(crate) async fn open_loop(
    clients: &[Client],
    calls: &[Call],
    arrivals: Arrivals,
    timeout: Option<Duration>,
) -> Measured {
    let mut measured = Measured::new();
    measured.duration = arrivals.duration;
    let generator = Generator::start();
    let began = Instant::now();
    let until = began + arrivals.duration;
    let mut in_flight = FuturesUnordered::new();
    for (number, time) in arrivals.times().enumerate() {
        let scheduled = began + time;
        while Instant::now() < scheduled {
            tokio::select! {
                biased;
                () = sleep_until(scheduled) => (),
                Some(ended) = in_flight.next() => count(&mut measured, ended, until),
            }
        }
        let mut client = clients[number % clients.len()].clone();
        let call = &calls[number % calls.len()];
        in_flight.push(async move {
            let outcome = match timeout {
                Some(timeout) => client.call_within(call, timeout).await,
                None => client.call(call).await,
            };
            (outcome, call.sentences, scheduled, Instant::now())
        });
    }
    measured.generator = generator.cpu_time();
    let drained = async {
        while let Some(ended) = in_flight.next().await {
            count(&mut measured, ended, until);
        }
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        measured.outcomes.insert(format!("no answer within {} s", DRAIN.as_secs()), in_flight.len());
    }
    measured
}

fn count(
    measured: &mut Measured,
    (outcome, sentences, scheduled, answered): (Outcome, usize, Instant, Instant),
    until: Instant,
) {
    measured.ended(outcome, answered - scheduled);
    if outcome == Outcome::Served && answered < until {
        measured.served(sentences);
    }
}
