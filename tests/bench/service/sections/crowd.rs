//! Increasing numbers of closed-loop clients without retries: no call may fail.

use std::time::Duration;

use super::Bench;
use crate::{
    figures::{Figures, Short},
    load::{Measured, Window, closed_loop},
    report::{Table, Target, progress},
};

/// Numbers of clients.
const CLIENTS: [usize; 5] = [1, 4, 16, 64, 256];
/// Numbers of sentences per call.
const SENTENCES: [usize; 3] = [1, 32, 256];
/// Minimum duration of a measurement, in rounds of one call for each client.
const ROUNDS: f64 = 3.0;

/// Failures, throughput and p99 by number of clients over gRPC.
pub(crate) async fn measure(bench: &mut Bench<'_>) {
    for sentences in SENTENCES {
        let calls = bench.workload.texts.calls(sentences);
        let mut table = Table::new(&["clients", "sentences/s", "p50, ms", "p99, ms", "failed"]);
        // Median latency of a call on the idle service, in milliseconds.
        let mut service_time = f64::NAN;
        let (mut failed, mut best, mut rate, mut worst_ratio) = (0, 0.0_f64, 0.0, 0.0_f64);
        for count in CLIENTS {
            progress(&format!("crowd: {count} clients, {sentences} sentences per call"));
            let mut clients = bench.grpc_clients(count).await;
            let mut window = bench.options.window();
            if service_time.is_finite() {
                let round = Duration::from_secs_f64(count as f64 * service_time / 1e3);
                window = Window {
                    warm_up: window.warm_up.max(round),
                    duration: window.duration.max(round.mul_f64(ROUNDS)),
                };
            }
            let measured = closed_loop(&mut clients, &calls, window).await;
            let [p50, p99] = [0.5, 0.99].map(|part| measured.milliseconds(part));
            if service_time.is_nan() {
                service_time = p50;
            }
            rate = measured.sentences_per_second();
            best = best.max(rate);
            failed += measured.failures();
            worst_ratio = worst_ratio.max(p99 / (count as f64 * service_time));
            table.line(&line(count, &measured));
        }
        let name = |what: &str| format!("crowd, {sentences} sentences per call: {what}");
        let one = |figure: f64| Figures::from_iter([figure]);
        let report = &mut bench.report;
        report.row(name("failed calls"), "", Target::AtMost(0.0), one(failed as f64));
        report.row(
            name("throughput at 256 clients over the maximum"),
            "",
            Target::AtLeast(0.9),
            one(rate / best),
        );
        report.row(
            name("p99 over clients x median service time, maximum"),
            "times",
            Target::AtMost(2.0),
            one(worst_ratio),
        );
        report.detail(&format!("Crowd, {sentences} sentences per call, gRPC"), table.text());
    }
}

fn line(count: usize, measured: &Measured) -> [String; 5] {
    [
        count.to_string(),
        Short(measured.sentences_per_second()).to_string(),
        Short(measured.milliseconds(0.5)).to_string(),
        Short(measured.milliseconds(0.99)).to_string(),
        measured.failures_by_outcome(),
    ]
}
