//! An open loop: calls begin at fixed times, whether or not earlier ones were answered, as those of many users do. A
//! latency counts from the time at which the call was to begin, so that a service that stalls cannot hide it by holding
//! back the calls (coordinated omission).

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};

use super::{Generator, Measured, sleep_until};
use crate::{
    client::{Client, Outcome},
    workload::Call,
};

/// How long answers are waited for after the last call.
const DRAIN: Duration = Duration::from_secs(120);

/// When calls begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrivals {
    /// Calls a second.
    pub(crate) rate: f64,
    /// For how long.
    pub(crate) duration: Duration,
}

/// Has the clients ask the calls in turn. Latencies are those of all calls that are served, throughput that of the time in
/// which calls begin.
pub(crate) async fn open_loop(clients: &[Client], calls: &[Call], arrivals: Arrivals) -> Measured {
    let mut measured = Measured::new();
    measured.duration = arrivals.duration;
    let generator = Generator::start();
    let began = Instant::now();
    let until = began + arrivals.duration;
    let total = (arrivals.rate * arrivals.duration.as_secs_f64()) as usize;
    let intended = |number: usize| began + Duration::from_secs_f64(number as f64 / arrivals.rate);
    let mut under_way = FuturesUnordered::new();
    let mut next = 0;
    while next < total {
        while next < total && intended(next) <= Instant::now() {
            let mut client = clients[next % clients.len()].clone();
            let (call, meant_at) = (&calls[next % calls.len()], intended(next));
            under_way.push(async move {
                let outcome = client.call(call).await;
                (outcome, call.sentences, meant_at, Instant::now())
            });
            next += 1;
        }
        tokio::select! {
            biased;
            () = sleep_until(intended(next)), if next < total => (),
            Some(ended) = under_way.next() => count(&mut measured, ended, until),
        }
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
