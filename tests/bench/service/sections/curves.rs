//! Throughput and latency by number of clients, and by number of sentences per request.

use super::{Bench, CLIENTS, SENTENCES};
use crate::{
    figures::{Figures, Short},
    load::{Measured, closed_loop},
    plot::{Curve, Point},
    report::{Table, progress},
};

/// Numbers of clients.
const CLIENT_COUNTS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// Numbers of sentences in a request.
const SENTENCE_COUNTS: [usize; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// Measures both over gRPC. Returns the curves for the plot.
pub(crate) async fn measure(bench: &mut Bench<'_>) -> Vec<Curve> {
    let mut curves = Vec::new();
    for sentences in [1, SENTENCES] {
        let mut points = Vec::new();
        let mut table = table("clients");
        for count in CLIENT_COUNTS {
            let measured = rounds(bench, count, sentences).await;
            table.line(&line(count, &measured));
            let [rate, _, p99] = medians(&measured);
            points.push(Point { clients: count, sentences_per_second: rate, p99_ms: p99 });
        }
        let size = if sentences == 1 { "1 sentence".to_owned() } else { format!("{sentences} sentences") };
        bench.report.detail(&format!("By number of clients, {size} per request, gRPC"), table.text());
        curves.push(Curve { name: format!("{}, {size} per request", bench.precision), points });
    }
    let mut table = table("sentences per request");
    for sentences in SENTENCE_COUNTS {
        let measured = rounds(bench, CLIENTS, sentences).await;
        table.line(&line(sentences, &measured));
    }
    bench.report.detail(&format!("By sentences per request, {CLIENTS} clients, gRPC"), table.text());
    curves
}

async fn rounds(bench: &Bench<'_>, clients: usize, sentences: usize) -> Vec<Measured> {
    progress(&format!("{clients} clients, {sentences} sentences per request"));
    let calls = bench.workload.texts.calls(sentences);
    let mut clients = bench.grpc_clients(clients).await;
    let mut measured = Vec::new();
    // Neighbouring points of a curve show the spread, so fewer rounds suffice.
    for _ in 0..bench.options.rounds.div_ceil(2) {
        measured.push(closed_loop(&mut clients, &calls, bench.options.window()).await);
    }
    measured
}

fn table(first: &str) -> Table {
    Table::new(&[first, "sentences/s", "p50, ms", "p99, ms", "failed calls"])
}

fn line(count: usize, rounds: &[Measured]) -> Vec<String> {
    let mut cells = vec![count.to_string()];
    cells.extend(medians(rounds).map(|figure| Short(figure).to_string()));
    let failures_by_outcome: Vec<String> =
        rounds.iter().map(Measured::failures_by_outcome).filter(|text| !text.is_empty()).collect();
    cells.push(failures_by_outcome.join("; "));
    cells
}

/// Sentences per second, p50 and p99.
fn medians(rounds: &[Measured]) -> [f64; 3] {
    let of = |figure: fn(&Measured) -> f64| rounds.iter().map(figure).collect::<Figures>().median();
    [
        of(Measured::sentences_per_second),
        of(|measured| measured.milliseconds(0.5)),
        of(|measured| measured.milliseconds(0.99)),
    ]
}
