//! Cancelled calls: clients that disconnect right after sending a request.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::MissedTickBehavior};

use super::{Bench, SENTENCES};
use crate::{
    client::{Client, Outcome},
    figures::{Figures, Short},
    load::{Window, closed_loop},
    report::{Table, Target, progress},
    workload::Call,
};

/// Number of clients that wait for their responses.
const STEADY: usize = 4;
/// Interval of cancelled calls.
const EVERY: Duration = Duration::from_millis(5);
/// Deadline of cancelled calls, too short for a response.
const DEADLINE: Duration = Duration::from_millis(1);
/// Time until cancelled calls have ended.
const SETTLE: Duration = Duration::from_secs(1);
/// Number of single calls before and after the load.
const SINGLE_CALLS: usize = 50;

/// Compares the throughput of steady clients with and without cancelled calls, and latency and
/// memory before and after.
pub(crate) async fn measure(bench: &mut Bench<'_>) {
    progress("abandonment");
    let calls = bench.workload.texts.calls(SENTENCES);
    let window = bench.options.window();
    let (mut clients, cancelling) = (bench.grpc_clients(STEADY).await, bench.grpc_clients(STEADY).await);
    let [mut without, mut with, mut ratio] = <[Figures; 3]>::default();
    let mut cancelled = 0;
    closed_loop(&mut clients, &calls, Window { duration: Duration::ZERO, ..window }).await;
    let latency_before = single_call(bench).await;
    let memory_before = bench.programs.pss_mb();
    for _ in 0..bench.options.rounds {
        without.push(closed_loop(&mut clients, &calls, window).await.sentences_per_second());
        let address = bench.programs.address;
        let measured = tokio::select! {
            measured = closed_loop(&mut clients, &calls, window) => measured,
            () = cancel_calls(address, &bench.programs.token, &cancelling, &calls, &mut cancelled) => {
                unreachable!("it runs until it is dropped")
            }
        };
        with.push(measured.sentences_per_second());
        ratio.push(with.last() / without.last());
    }
    tokio::time::sleep(SETTLE).await;
    let (latency_after, memory_after) = (single_call(bench).await, bench.programs.pss_mb());

    let mut table = Table::new(&["", "before or without", "after or during"]);
    let mut line = |name: &str, before: f64, after: f64| {
        table.line(&[name.to_owned(), Short(before).to_string(), Short(after).to_string()]);
    };
    line("steady clients, sentences/s", without.median(), with.median());
    line("p50 of a single call, ms", latency_before, latency_after);
    line("slowdown of a single call", 1.0, latency_after / latency_before);
    line("PSS of all services, MB", memory_before, memory_after);
    let rate = 1.0 / EVERY.as_secs_f64();
    let text = format!("{cancelled} calls were cancelled, {rate:.0} per second.\n\n{}", table.text());
    bench.report.row(
        format!(
            "cancellation: throughput of steady clients during {rate:.0} cancelled calls/s, over without"
        ),
        "",
        Target::None,
        ratio,
    );
    bench.report.detail("Cancelled calls", &text);
}

/// Median latency of single calls in milliseconds.
async fn single_call(bench: &Bench<'_>) -> f64 {
    let call = &bench.workload.short.calls(1)[0];
    let mut client = bench.grpc_clients(1).await.remove(0);
    let mut times = Vec::new();
    for _ in 0..SINGLE_CALLS {
        let start = Instant::now();
        assert_eq!(client.call(call).await, Outcome::Served, "a single call is served");
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[SINGLE_CALLS / 2].as_secs_f64() * 1e3
}

/// Sends and cancels calls until it is dropped, alternately with a deadline over gRPC and by
/// closing the connection of a REST request.
async fn cancel_calls(
    address: SocketAddr,
    token: &str,
    clients: &[Client],
    calls: &[Call],
    cancelled: &mut usize,
) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        ticks.tick().await;
        let call = calls[*cancelled % calls.len()].clone();
        if (*cancelled).is_multiple_of(2) {
            let mut client = clients[*cancelled / 2 % clients.len()].clone();
            tokio::spawn(async move { client.call_within(&call, DEADLINE).await });
        } else {
            tokio::spawn(send_and_close(address, raw_request(address, token, &call)));
        }
        *cancelled += 1;
    }
}

fn raw_request(address: SocketAddr, token: &str, call: &Call) -> Bytes {
    let length = call.json.len();
    let head = format!(
        "POST /embed HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), &call.json].concat().into()
}

async fn send_and_close(address: SocketAddr, request: Bytes) {
    if let Ok(mut connection) = TcpStream::connect(address).await {
        // The service may have closed the connection already.
        let _ = connection.write_all(&request).await;
    }
}
