//! A user with one sentence now and then, beside one with a job of ten thousand, and beside one with 256 clients.

use std::{cell::Cell, time::Duration};

use super::{Bench, SENTENCES};
use crate::{
    client::{Client, Outcome},
    figures::{Figures, Short},
    load::{Arrivals, Measured, Window, closed_loop, open_loop},
    report::{Table, Target, progress},
    workload::Call,
};

/// Sentences of a job.
const JOB: usize = 10_000;
/// Sentences of a request at most.
const MOST: usize = 4_096;
/// Calls a second of the other user.
const RATE: f64 = 20.0;
/// Clients of the first user, each with one call of [`SENTENCES`] after the other.
const CROWD: usize = 256;

/// The latencies of one user without the other's job, and with it.
pub(crate) async fn measure(bench: &mut Bench<'_>) {
    progress("fairness");
    let many = bench.programs.add_user("many").await;
    let few = bench.programs.add_user("few").await;
    let sentences: Vec<String> = bench.workload.texts.sentences.iter().cycle().take(JOB).cloned().collect();
    let job: Vec<Call> = sentences.chunks(MOST).map(Call::new).collect();
    let worker = bench.grpc_clients_of(&many, 1).await.remove(0);
    let mut clients = bench.grpc_clients_of(&few, 1).await;
    let single = bench.workload.texts.calls(1);
    let duration = Duration::from_secs_f64(bench.options.fairness_seconds);
    let arrivals = Arrivals { rate: RATE, duration };

    // The service may have been started just now.
    closed_loop(&mut clients, &single, Window { duration: Duration::ZERO, ..bench.options.window() }).await;
    let without = open_loop(&clients, &single, arrivals, None).await;
    let done = Cell::new(0);
    let with = tokio::select! {
        with = open_loop(&clients, &single, arrivals, None) => with,
        () = work(worker, &job, &done) => unreachable!("there is always another job"),
    };
    let mut crowd = bench.grpc_clients_of(&many, CROWD).await;
    let calls = bench.workload.texts.calls(SENTENCES);
    let window = Window { warm_up: Duration::ZERO, duration };
    let (beside_crowd, crowd) =
        tokio::join!(open_loop(&clients, &single, arrivals, None), closed_loop(&mut crowd, &calls, window),);
    let p99 = |measured: &Measured| Figures::from_iter([measured.milliseconds(0.99)]);
    let report = &mut bench.report;
    report.row("fairness: p99 of single sentences, alone", "ms", Target::None, p99(&without));
    report.row("fairness: the same beside a job of 10,000", "ms", Target::None, p99(&with));

    let ratio = beside_crowd.milliseconds(0.99) / without.milliseconds(0.99);
    let one = |figure: f64| Figures::from_iter([figure]);
    report.row(
        "fairness: p99 of single sentences beside 256 clients of another user, over alone",
        "times",
        Target::AtMost(3.0),
        one(ratio),
    );
    let rejected = beside_crowd.failures() + crowd.failures();
    report.row("fairness: calls of both that were not served", "", Target::AtMost(0.0), one(rejected as f64));

    let mut table = Table::new(&["20 single sentences a second", "p50, ms", "p99, ms", "not served"]);
    for (name, measured) in
        [("alone", &without), ("beside the job", &with), ("beside 256 clients", &beside_crowd)]
    {
        let [p50, p99] = [0.5, 0.99].map(|part| Short(measured.milliseconds(part)).to_string());
        table.line(&[name.to_owned(), p50, p99, measured.refusals()]);
    }
    let rate = done.get() as f64 / duration.as_secs_f64();
    let text = format!(
        "{}\nThe job went on at {} sentences/s meanwhile, the 256 clients at {} (not served: {}).",
        table.text(),
        Short(rate),
        Short(crowd.sentences_per_second()),
        crowd.failures(),
    );
    bench.report.detail("Fairness between users", &text);
}

/// Does the job again and again, all its requests at once.
async fn work(client: Client, job: &[Call], done: &Cell<usize>) {
    loop {
        let parts = job.iter().map(|call| {
            let mut client = client.clone();
            async move {
                match client.call(call).await {
                    Outcome::Served => done.set(done.get() + call.sentences),
                    // Who is refused comes again later.
                    _ => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        futures::future::join_all(parts).await;
    }
}
