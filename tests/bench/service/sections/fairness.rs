//! Latencies of a user with single sentences: on an idle system, during another user's job of
//! 10,000 sentences, during 256 clients of another user, and during 256 clients with a bulk key of
//! the same user.

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
/// Maximum number of sentences per request.
const MOST: usize = 4_096;
/// Calls per second of the user with single sentences.
const RATE: f64 = 20.0;
/// Closed-loop clients of the other user, or of the bulk key, with [`SENTENCES`] sentences per call.
const CROWD: usize = 256;

/// Latencies of a user on an idle system, and during the load of another user and of a bulk key.
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

    // Warm-up.
    closed_loop(&mut clients, &single, Window { duration: Duration::ZERO, ..bench.options.window() }).await;
    let idle = open_loop(&clients, &single, arrivals, None).await;
    let done = Cell::new(0);
    let during_job = tokio::select! {
        during_job = open_loop(&clients, &single, arrivals, None) => during_job,
        () = run_job(worker, &job, &done) => unreachable!("it runs until it is dropped"),
    };
    let mut crowd = bench.grpc_clients_of(&many, CROWD).await;
    let calls = bench.workload.texts.calls(SENTENCES);
    let window = Window { warm_up: Duration::ZERO, duration };
    let (during_crowd, crowd) =
        tokio::join!(open_loop(&clients, &single, arrivals, None), closed_loop(&mut crowd, &calls, window),);
    let bulk_key = bench.programs.add_bulk_key(&few).await;
    let mut bulk = bench.grpc_clients_of(&bulk_key, CROWD).await;
    let (during_bulk, bulk) =
        tokio::join!(open_loop(&clients, &single, arrivals, None), closed_loop(&mut bulk, &calls, window),);
    let p99 = |measured: &Measured| Figures::from_iter([measured.milliseconds(0.99)]);
    let report = &mut bench.report;
    report.row("fairness: p99 of single sentences on an idle system", "ms", Target::None, p99(&idle));
    report.row(
        "fairness: p99 of single sentences during a job of 10,000",
        "ms",
        Target::None,
        p99(&during_job),
    );

    let ratio = during_crowd.milliseconds(0.99) / idle.milliseconds(0.99);
    let one = |figure: f64| Figures::from_iter([figure]);
    report.row(
        "fairness: p99 of single sentences during 256 clients of another user, over idle",
        "times",
        Target::AtMost(3.0),
        one(ratio),
    );
    let ratio = during_bulk.milliseconds(0.99) / idle.milliseconds(0.99);
    report.row(
        "fairness: p99 of single sentences during 256 clients with a bulk key of the same user, over idle",
        "times",
        Target::AtMost(3.0),
        one(ratio),
    );
    let measured = [&during_crowd, &crowd, &during_bulk, &bulk];
    let failed: usize = measured.iter().map(|measured| measured.failures()).sum();
    report.row("fairness: failed calls of both users", "", Target::AtMost(0.0), one(failed as f64));

    let mut table = Table::new(&["20 single sentences per second", "p50, ms", "p99, ms", "failed"]);
    for (name, measured) in [
        ("idle", &idle),
        ("during the job", &during_job),
        ("during 256 clients", &during_crowd),
        ("during 256 clients with a bulk key", &during_bulk),
    ] {
        let [p50, p99] = [0.5, 0.99].map(|part| Short(measured.milliseconds(part)).to_string());
        table.line(&[name.to_owned(), p50, p99, measured.failures_by_outcome()]);
    }
    let rate = done.get() as f64 / duration.as_secs_f64();
    let text = format!(
        "{}\nThroughput of the job: {} sentences/s; of the 256 clients: {} sentences/s ({} failed calls); with \
         a bulk key: {} sentences/s ({} failed calls).",
        table.text(),
        Short(rate),
        Short(crowd.sentences_per_second()),
        crowd.failures(),
        Short(bulk.sentences_per_second()),
        bulk.failures(),
    );
    bench.report.detail("Fairness between users", &text);
}

/// Repeats the job, with all its requests concurrently.
async fn run_job(client: Client, job: &[Call], done: &Cell<usize>) {
    loop {
        let parts = job.iter().map(|call| {
            let mut client = client.clone();
            async move {
                match client.call(call).await {
                    Outcome::Served => done.set(done.get() + call.sentences),
                    // Back off after a rejection.
                    _ => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        futures::future::join_all(parts).await;
    }
}
