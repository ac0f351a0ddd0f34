//! The overhead of the service over the forward pass of one sentence.

use std::time::{Duration, Instant};

use super::Bench;
use crate::{
    client::Outcome,
    figures::Figures,
    forward::Forward,
    report::{Target, progress},
};

/// Number of calls of a turn, which take a fraction of a second.
const TURN: usize = 200;

/// Measures calls through the gateway and bare forward passes of the same sentence alternately.
pub(crate) async fn measure(bench: &mut Bench<'_>, forward: &Forward) {
    progress("one sentence, one client");
    let sentence = &bench.workload.short;
    let call = &sentence.calls(1)[0];
    let mut clients = bench.grpc_clients(1).await;
    let [mut overhead, mut through, mut alone] = <[Figures; 3]>::default();
    for _ in 0..bench.options.rounds {
        let bare = p50(forward.single_sentence(&sentence.ids[0], TURN));
        let mut times = Vec::new();
        for number in 0..TURN + TURN / 10 {
            let start = Instant::now();
            let outcome = clients[0].call(call).await;
            assert_eq!(outcome, Outcome::Served, "a single call is served");
            // The first calls are the warm-up.
            if number >= TURN / 10 {
                times.push(start.elapsed());
            }
        }
        let service = p50(times);
        overhead.push(service - bare);
        through.push(service);
        alone.push(bare);
    }
    let report = &mut bench.report;
    report.row(
        "one sentence, one client, gRPC: p50 minus that of the bare forward pass",
        "ms",
        Target::AtMost(0.3),
        overhead,
    );
    report.row("one sentence of 12 tokens, gRPC: p50", "ms", Target::None, through);
    report.row("one sentence of 12 tokens, bare forward pass: p50", "ms", Target::None, alone);
}

/// Median in milliseconds.
fn p50(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
