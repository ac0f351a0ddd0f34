//! Ten times more than can be served: the service has to refuse at once what it cannot do, and do the rest as if nothing was.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use muse_tests::channel;
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Bench, CLIENTS, SENTENCES};
use crate::{
    client::{Client, Form, Version},
    figures::{Figures, Short},
    load::{Arrivals, Measured, Window, closed_loop, open_loop},
    report::{Table, Target, progress},
};

/// Times the capacity.
const EXCESS: f64 = 10.0;
/// Between two questions after the service's health.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// A service that does not answer within this is taken for dead, as an orchestrator would.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// How a service may refuse what is too much.
const GOOD_REFUSALS: [&str; 5] = ["served", "ResourceExhausted", "Unavailable", "429", "503"];

/// What `grpc.health.v1` said.
#[derive(Debug, Default)]
struct Health {
    asked: usize,
    bad: usize,
    slowest: Duration,
}

/// gRPC, then REST over HTTP/2: on both a bounded number of connections carries any number of calls.
pub(crate) async fn measure(bench: &mut Bench<'_>) {
    let mut clients = bench.grpc_clients(CLIENTS).await;
    of(bench, "gRPC", &mut clients).await;
    let mut clients = bench.rest_clients(CLIENTS, Form::Json, Version::Http2);
    of(bench, "REST", &mut clients).await;
}

async fn of(bench: &mut Bench<'_>, protocol: &str, clients: &mut [Client]) {
    progress(&format!("overload, {protocol}"));
    let calls = bench.workload.texts.calls(SENTENCES);
    let duration = Duration::from_secs_f64(bench.options.overload_seconds);
    // There are few such calls a second, and what follows is measured in them.
    let window = Window { warm_up: bench.options.window().warm_up, duration: duration / 4 };
    let capacity = closed_loop(clients, &calls, window).await.calls_per_second();
    let full = open_loop(clients, &calls, Arrivals { rate: capacity, duration: duration / 2 }).await;
    let health = RefCell::new(Health::default());
    let arrivals = Arrivals { rate: capacity * EXCESS, duration };
    let over = tokio::select! {
        over = open_loop(clients, &calls, arrivals) => over,
        () = probe(channel(bench.programs.address), &health) => unreachable!("it asks on and on"),
    };
    let health = health.into_inner();

    let name = |what: &str| format!("overload, {protocol}: {what}");
    let one = |figure: f64| Figures::from_iter([figure]);
    let report = &mut bench.report;
    let goodput = over.calls_per_second() / capacity;
    report.row(name("served calls over capacity"), "", Target::AtLeast(0.9), one(goodput));
    let slowdown = over.milliseconds(0.99) / full.milliseconds(0.99);
    report.row(
        name("p99 of served calls over that at 1.0 times the capacity"),
        "times",
        Target::AtMost(2.0),
        one(slowdown),
    );
    let bad = over.outcomes.iter().filter(|(label, _)| !GOOD_REFUSALS.contains(&label.as_str()));
    let bad = bad.map(|(_, count)| count).sum::<usize>() as f64;
    report.row(
        name("answers that are neither vectors nor a proper refusal"),
        "",
        Target::AtMost(0.0),
        one(bad),
    );
    report.row(
        name("checks of health that were not answered SERVING within 1 s"),
        "",
        Target::AtMost(0.0),
        one(health.bad as f64),
    );
    tell(bench, protocol, [(capacity, &full), (capacity * EXCESS, &over)], &health);
}

fn tell(bench: &mut Bench<'_>, protocol: &str, loads: [(f64, &Measured); 2], health: &Health) {
    let mut table = Table::new(&[
        "calls begun a second",
        "served a second",
        "p50 of served, ms",
        "p99 of served, ms",
        "processors: generator",
        "calls by outcome",
    ]);
    for (rate, measured) in loads {
        let outcomes: Vec<String> =
            measured.outcomes.iter().map(|(label, count)| format!("{label} {count}")).collect();
        table.line(&[
            Short(rate).to_string(),
            Short(measured.calls_per_second()).to_string(),
            Short(measured.milliseconds(0.5)).to_string(),
            Short(measured.milliseconds(0.99)).to_string(),
            format!("{:.0} %", measured.generator_share() * 100.0),
            outcomes.join(", "),
        ]);
    }
    let text = format!(
        "{}\nHealth was asked {} times, the slowest answer took {:.0} ms. Memory afterwards: {:.0} MB.",
        table.text(),
        health.asked,
        health.slowest.as_secs_f64() * 1e3,
        bench.programs.pss_mb(),
    );
    bench.report.detail(&format!("Overload, {protocol}, {SENTENCES} sentences a call"), &text);
}

/// Asks on a connection of its own until it is dropped.
async fn probe(channel: Channel, health: &RefCell<Health>) {
    let mut client = HealthClient::new(channel);
    loop {
        let asked = Instant::now();
        let answer = client.check(HealthCheckRequest { service: String::new() });
        let answer = tokio::time::timeout(PROBE_PATIENCE, answer).await;
        let serving = matches!(answer, Ok(Ok(report)) if report.get_ref().status() == ServingStatus::Serving);
        {
            let mut health = health.borrow_mut();
            health.asked += 1;
            health.bad += usize::from(!serving);
            health.slowest = health.slowest.max(asked.elapsed());
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
}
