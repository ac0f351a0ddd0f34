//! Durations of the services' async polls, from their metrics.

use std::{collections::BTreeMap, net::SocketAddr};

use muse_tests::http_client::HttpClient;

use super::{Bench, CLIENTS, SENTENCES};
use crate::{
    client::{Form, Version},
    figures::Figures,
    load::closed_loop,
    report::{Table, Target, progress},
};

const METRIC: &str = "muse_poll_seconds";
/// Maximum duration of a poll, as the bound of a bucket in seconds.
const BOUND: &str = "0.0005";
/// Number of sentences of a large request.
const LARGE: usize = 2048;

/// Cumulative numbers of polls by the upper bound of their bucket.
type Polls = BTreeMap<String, f64>;

/// Measures polls under several loads. The programs must be built with poll metrics.
pub(crate) async fn measure(bench: &mut Bench<'_>) {
    progress("polls");
    let services = bench.programs.admin_ports.clone();
    if polls(services[0].1).await.is_empty() {
        progress(
            "polls are skipped: these programs do not record them (make bench-polls builds programs that do)",
        );
        return;
    }
    let mut table = Table::new(&["load", "service", "polls", "over 0.1 ms", "over 0.5 ms", "over 1 ms"]);
    let mut over = 0.0;
    let (usual, large) = (bench.workload.texts.calls(SENTENCES), bench.workload.texts.calls(LARGE));
    for (name, form, calls) in [
        ("gRPC, 32 sentences per call", None, &usual),
        ("gRPC, 2048 sentences per call", None, &large),
        ("REST, JSON, 32 sentences per call", Some(Form::Json), &usual),
        ("REST, JSON, 2048 sentences per call", Some(Form::Json), &large),
        ("REST, .npy, 2048 sentences per call", Some(Form::Npy), &large),
    ] {
        let mut clients = match form {
            None => bench.grpc_clients(CLIENTS).await,
            Some(form) => bench.rest_clients(CLIENTS, form, Version::Http1),
        };
        let mut before = Vec::new();
        for (_, address) in &services {
            before.push(polls(*address).await);
        }
        closed_loop(&mut clients, calls, bench.options.window()).await;
        for ((service, address), before) in services.iter().zip(before) {
            let after = polls(*address).await;
            let since = |bound: &str| after.get(bound).unwrap_or(&0.0) - before.get(bound).unwrap_or(&0.0);
            let all = since("+Inf");
            let above = |bound: &str| all - since(bound);
            over += above(BOUND);
            let counts = [all, above("0.0001"), above(BOUND), above("0.001")];
            let mut line = vec![name.to_owned(), service.clone()];
            line.extend(counts.map(|count| count.to_string()));
            table.line(&line);
        }
    }
    bench.report.row(
        "polls of the async runtimes longer than 0.5 ms",
        "",
        Target::AtMost(0.0),
        Figures::from_iter([over]),
    );
    bench.report.detail("Polls of the async runtimes, by CPU time", table.text());
}

async fn polls(admin_port: SocketAddr) -> Polls {
    let answer = HttpClient::new(admin_port).send("GET", "/metrics", &[], "").await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let buckets = text.lines().filter_map(|line| line.strip_prefix(METRIC)?.strip_prefix("_bucket{le=\""));
    let parsed = buckets.filter_map(|rest| {
        let (bound, count) = rest.split_once("\"} ")?;
        Some((bound.to_owned(), count.parse().ok()?))
    });
    parsed.collect()
}
