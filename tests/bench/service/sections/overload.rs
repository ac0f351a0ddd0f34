//! Ten times more than can be served. Clients that give up after 5 s are to get as much as the service can do; clients without
//! a timeout are to get vectors within the maximum queueing time, or a proper rejection.

use std::{
    cell::RefCell,
    ops::AddAssign,
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
/// How long clients wait that give up.
const PATIENCE: Duration = Duration::from_secs(5);
/// The maximum queueing time, and the time of a call itself.
const LONGEST_MS: f64 = 65_000.0;
/// Memory may be higher afterwards by this part.
const GROWTH: f64 = 1.05;
/// How long freed memory may take to be returned.
const RETURNED_WITHIN: Duration = Duration::from_secs(30);
/// Between two questions after the service's health.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// A service that does not answer within this is taken for dead, as an orchestrator would.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// How a service may refuse what is too much.
const GOOD_REFUSALS: [&str; 5] = ["served", "ResourceExhausted", "Unavailable", "429", "503"];
/// How calls of clients end that give up.
const GIVEN_UP: [&str; 4] = ["DeadlineExceeded", "Cancelled", "504", "connection broken"];

/// What `grpc.health.v1` said.
#[derive(Debug, Default)]
struct Health {
    asked: usize,
    bad: usize,
    slowest: Duration,
}

impl AddAssign for Health {
    fn add_assign(&mut self, other: Self) {
        self.asked += other.asked;
        self.bad += other.bad;
        self.slowest = self.slowest.max(other.slowest);
    }
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
    // A moment after the load, as it is before the next.
    tokio::time::sleep(RETURNED_WITHIN).await;
    let before = bench.programs.pss_mb();
    let arrivals = Arrivals { rate: capacity * EXCESS, duration };
    let mut loads = Vec::new();
    let name = |what: &str| format!("overload, {protocol}: {what}");
    let one = |figure: f64| Figures::from_iter([figure]);
    let mut health = Health::default();
    for patience in [Some(PATIENCE), None] {
        let probed = RefCell::new(Health::default());
        let over = tokio::select! {
            over = open_loop(clients, &calls, arrivals, patience) => over,
            () = probe(channel(bench.programs.address), &probed) => unreachable!("it asks on and on"),
        };
        health += probed.into_inner();
        let proper =
            |label: &str| GOOD_REFUSALS.contains(&label) || (patience.is_some() && GIVEN_UP.contains(&label));
        let bad = over.outcomes.iter().filter(|(label, _)| !proper(label));
        let bad = bad.map(|(_, count)| count).sum::<usize>() as f64;
        let clients = if patience.is_some() { "clients that give up after 5 s" } else { "patient clients" };
        let report = &mut bench.report;
        if patience.is_some() {
            let goodput = over.calls_per_second() / capacity;
            report.row(
                name("calls served within 5 s, over capacity"),
                "",
                Target::AtLeast(0.9),
                one(goodput),
            );
        } else {
            let slowest = over.milliseconds(1.0);
            report.row(
                name("the slowest call of patient clients"),
                "ms",
                Target::AtMost(LONGEST_MS),
                one(slowest),
            );
        }
        report.row(
            name(&format!("answers to {clients} that are neither vectors nor a proper rejection")),
            "",
            Target::AtMost(0.0),
            one(bad),
        );
        loads.push((clients, over));
    }
    tokio::time::sleep(RETURNED_WITHIN).await;
    let after = bench.programs.pss_mb();
    let report = &mut bench.report;
    report.row(
        name("checks of health that were not answered SERVING within 1 s"),
        "",
        Target::AtMost(0.0),
        one(health.bad as f64),
    );
    report.row(name("memory afterwards over before"), "", Target::AtMost(GROWTH), one(after / before));
    tell(bench, protocol, capacity, &loads, &health);
}

fn tell(bench: &mut Bench<'_>, protocol: &str, capacity: f64, loads: &[(&str, Measured)], health: &Health) {
    let mut table = Table::new(&[
        "",
        "served a second",
        "p50 of served, ms",
        "p99 of served, ms",
        "processors: generator",
        "calls by outcome",
    ]);
    for (clients, measured) in loads {
        let outcomes: Vec<String> =
            measured.outcomes.iter().map(|(label, count)| format!("{label} {count}")).collect();
        table.line(&[
            (*clients).to_owned(),
            Short(measured.calls_per_second()).to_string(),
            Short(measured.milliseconds(0.5)).to_string(),
            Short(measured.milliseconds(0.99)).to_string(),
            format!("{:.0} %", measured.generator_share() * 100.0),
            outcomes.join(", "),
        ]);
    }
    let text = format!(
        "The capacity is {} calls/s, ten times as many were begun.\n\n{}\nHealth was asked {} times, the slowest answer \
         took {:.0} ms. Memory afterwards: {:.0} MB.",
        Short(capacity),
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
