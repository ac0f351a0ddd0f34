//! Ten times the capacity. The goodput of clients with a timeout of 5 s should equal the capacity;
//! clients without a timeout should get vectors within the maximum queueing time, or a valid
//! rejection.

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

/// Offered load over the capacity.
const EXCESS: f64 = 10.0;
/// Timeout of impatient clients.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum queueing time plus the duration of a call.
const LONGEST_MS: f64 = 65_000.0;
/// Maximum growth of memory.
const GROWTH: f64 = 1.05;
/// Maximum time until freed memory is returned.
const RETURNED_WITHIN: Duration = Duration::from_secs(30);
/// Interval of health checks.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// Timeout of a health check.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Valid outcomes under overload.
const VALID_OUTCOMES: [&str; 5] = ["served", "ResourceExhausted", "Unavailable", "429", "503"];
/// Additional valid outcomes of clients with a timeout.
const TIMEOUT_OUTCOMES: [&str; 4] = ["DeadlineExceeded", "Cancelled", "504", "connection broken"];

/// Results of health checks.
#[derive(Debug, Default)]
struct Health {
    checks: usize,
    bad: usize,
    slowest: Duration,
}

impl AddAssign for Health {
    fn add_assign(&mut self, other: Self) {
        self.checks += other.checks;
        self.bad += other.bad;
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// Measures gRPC, then REST over HTTP/2. Both multiplex any number of calls over few connections.
pub(crate) async fn measure(bench: &mut Bench<'_>) {
    let mut clients = bench.grpc_clients(CLIENTS).await;
    measure_protocol(bench, "gRPC", &mut clients).await;
    let mut clients = bench.rest_clients(CLIENTS, Form::Json, Version::Http2);
    measure_protocol(bench, "REST", &mut clients).await;
}

async fn measure_protocol(bench: &mut Bench<'_>, protocol: &str, clients: &mut [Client]) {
    progress(&format!("overload, {protocol}"));
    let calls = bench.workload.texts.calls(SENTENCES);
    let duration = Duration::from_secs_f64(bench.options.overload_seconds);
    // A longer window, because the following load depends on the capacity.
    let window = Window { warm_up: bench.options.window().warm_up, duration: duration / 4 };
    let capacity = closed_loop(clients, &calls, window).await.calls_per_second();
    // The same delay after the load as before the next one.
    tokio::time::sleep(RETURNED_WITHIN).await;
    let before = bench.programs.pss_mb();
    let arrivals = Arrivals { rate: capacity * EXCESS, duration };
    let mut loads = Vec::new();
    let name = |what: &str| format!("overload, {protocol}: {what}");
    let one = |figure: f64| Figures::from_iter([figure]);
    let mut health = Health::default();
    for timeout in [Some(CLIENT_TIMEOUT), None] {
        let probed = RefCell::new(Health::default());
        let over = tokio::select! {
            over = open_loop(clients, &calls, arrivals, timeout) => over,
            () = probe(channel(bench.programs.address), &probed) => unreachable!("it runs until it is dropped"),
        };
        health += probed.into_inner();
        let valid = |label: &str| {
            VALID_OUTCOMES.contains(&label) || (timeout.is_some() && TIMEOUT_OUTCOMES.contains(&label))
        };
        let bad = over.outcomes.iter().filter(|(label, _)| !valid(label));
        let bad = bad.map(|(_, count)| count).sum::<usize>() as f64;
        let clients =
            if timeout.is_some() { "clients with a timeout of 5 s" } else { "clients without a timeout" };
        let report = &mut bench.report;
        if timeout.is_some() {
            let goodput = over.calls_per_second() / capacity;
            report.row(name("goodput within 5 s, over capacity"), "", Target::AtLeast(0.9), one(goodput));
        } else {
            let slowest = over.milliseconds(1.0);
            report.row(
                name("slowest call of clients without a timeout"),
                "ms",
                Target::AtMost(LONGEST_MS),
                one(slowest),
            );
        }
        report.row(name(&format!("invalid outcomes of {clients}")), "", Target::AtMost(0.0), one(bad));
        loads.push((clients, over));
    }
    tokio::time::sleep(RETURNED_WITHIN).await;
    let after = bench.programs.pss_mb();
    let report = &mut bench.report;
    report.row(
        name("health checks without SERVING within 1 s"),
        "",
        Target::AtMost(0.0),
        one(health.bad as f64),
    );
    report.row(name("memory after over before"), "", Target::AtMost(GROWTH), one(after / before));
    add_details(bench, protocol, capacity, &loads, &health);
}

fn add_details(
    bench: &mut Bench<'_>,
    protocol: &str,
    capacity: f64,
    loads: &[(&str, Measured)],
    health: &Health,
) {
    let mut table = Table::new(&[
        "",
        "served per second",
        "p50 of served, ms",
        "p99 of served, ms",
        "CPU share of the generator",
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
        "The capacity is {} calls/s, the offered load ten times that.\n\n{}\n{} health checks, the slowest took {:.0} ms. \
         Memory afterwards: {:.0} MB.",
        Short(capacity),
        table.text(),
        health.checks,
        health.slowest.as_secs_f64() * 1e3,
        bench.programs.pss_mb(),
    );
    bench.report.detail(&format!("Overload, {protocol}, {SENTENCES} sentences per call"), &text);
}

/// Runs health checks on a separate connection until it is dropped.
async fn probe(channel: Channel, health: &RefCell<Health>) {
    let mut client = HealthClient::new(channel);
    loop {
        let start = Instant::now();
        let answer = client.check(HealthCheckRequest { service: String::new() });
        let answer = tokio::time::timeout(PROBE_TIMEOUT, answer).await;
        let serving = matches!(answer, Ok(Ok(report)) if report.get_ref().status() == ServingStatus::Serving);
        {
            let mut health = health.borrow_mut();
            health.checks += 1;
            health.bad += usize::from(!serving);
            health.slowest = health.slowest.max(start.elapsed());
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
}
