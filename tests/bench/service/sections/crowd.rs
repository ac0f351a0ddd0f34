//! Closed-loop clients in growing numbers, without retries: all of them are to be served.

use std::time::Duration;

use super::Bench;
use crate::{
    figures::{Figures, Short},
    load::{Measured, Window, closed_loop},
    report::{Table, Target, progress},
};

/// Numbers of clients.
const CLIENTS: [usize; 5] = [1, 4, 16, 64, 256];
/// Sentences of a call.
const SENTENCES: [usize; 3] = [1, 32, 256];
/// A measurement is so many times as long as the clients take for a call each, so that it has more than the calls with which
/// it began.
const ROUNDS: f64 = 3.0;

/// Rejections, throughput and p99 by the number of clients, through gRPC.
pub(crate) async fn measure(bench: &mut Bench<'_>) {
    for sentences in SENTENCES {
        let calls = bench.workload.texts.calls(sentences);
        let mut table = Table::new(&["clients", "sentences/s", "p50, ms", "p99, ms", "not served"]);
        // The median time of a call that has the service for itself, in milliseconds.
        let mut service_time = f64::NAN;
        let (mut rejected, mut best, mut rate, mut slowest) = (0, 0.0_f64, 0.0, 0.0_f64);
        for count in CLIENTS {
            progress(&format!("crowd: {count} clients, {sentences} sentences a call"));
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
            rejected += measured.failures();
            slowest = slowest.max(p99 / (count as f64 * service_time));
            table.line(&line(count, &measured));
        }
        let name = |what: &str| format!("crowd, {sentences} sentences a call: {what}");
        let one = |figure: f64| Figures::from_iter([figure]);
        let report = &mut bench.report;
        report.row(name("calls that were not served"), "", Target::AtMost(0.0), one(rejected as f64));
        report.row(
            name("throughput at 256 clients over the best"),
            "",
            Target::AtLeast(0.9),
            one(rate / best),
        );
        report.row(
            name("p99 over clients x median service time, at most"),
            "times",
            Target::AtMost(2.0),
            one(slowest),
        );
        report.detail(&format!("Crowd, {sentences} sentences a call, gRPC"), table.text());
    }
}

fn line(count: usize, measured: &Measured) -> [String; 5] {
    [
        count.to_string(),
        Short(measured.sentences_per_second()).to_string(),
        Short(measured.milliseconds(0.5)).to_string(),
        Short(measured.milliseconds(0.99)).to_string(),
        measured.refusals(),
    ]
}
