//! Clients that hang up as soon as they have asked.

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

/// Clients that wait for their answers.
const STEADY: usize = 4;
/// Between two calls that are abandoned.
const EVERY: Duration = Duration::from_millis(5);
/// No answer of so many sentences is there within this.
const DEADLINE: Duration = Duration::from_millis(1);
/// What is given up has to be gone after this.
const SETTLE: Duration = Duration::from_secs(1);
/// Lone calls, before and afterwards.
const LONE: usize = 50;

/// The throughput of steady clients with and without the others, and what is left of those.
pub(crate) async fn measure(bench: &mut Bench<'_>) {
    progress("abandonment");
    let calls = bench.workload.texts.calls(SENTENCES);
    let window = bench.options.window();
    let (mut clients, hasty) = (bench.grpc_clients(STEADY).await, bench.grpc_clients(STEADY).await);
    let [mut without, mut with, mut ratio] = <[Figures; 3]>::default();
    let mut abandoned = 0;
    closed_loop(&mut clients, &calls, Window { duration: Duration::ZERO, ..window }).await;
    let lone_before = lone(bench).await;
    let memory_before = bench.programs.pss_mb();
    for _ in 0..bench.options.rounds {
        without.push(closed_loop(&mut clients, &calls, window).await.sentences_per_second());
        let address = bench.programs.address;
        let measured = tokio::select! {
            measured = closed_loop(&mut clients, &calls, window) => measured,
            () = abandon(address, &bench.programs.token, &hasty, &calls, &mut abandoned) => {
                unreachable!("there are always others")
            }
        };
        with.push(measured.sentences_per_second());
        ratio.push(with.last() / without.last());
    }
    tokio::time::sleep(SETTLE).await;
    let (lone_after, memory_after) = (lone(bench).await, bench.programs.pss_mb());

    let mut table = Table::new(&["", "before or without", "after or beside them"]);
    let mut line = |name: &str, before: f64, after: f64| {
        table.line(&[name.to_owned(), Short(before).to_string(), Short(after).to_string()]);
    };
    line("steady clients, sentences/s", without.median(), with.median());
    line("p50 of a lone call, ms", lone_before, lone_after);
    line("slowdown of a lone call", 1.0, lone_after / lone_before);
    line("PSS of all services, MB", memory_before, memory_after);
    let rate = 1.0 / EVERY.as_secs_f64();
    let text = format!("{abandoned} calls were abandoned, {rate:.0} a second.\n\n{}", table.text());
    bench.report.row(
        format!("abandonment: steady clients beside {rate:.0} abandoned calls/s, over without"),
        "",
        Target::None,
        ratio,
    );
    bench.report.detail("Clients that hang up", &text);
}

/// Milliseconds that one call takes, half of them less.
async fn lone(bench: &Bench<'_>) -> f64 {
    let call = &bench.workload.short.calls(1)[0];
    let mut client = bench.grpc_clients(1).await.remove(0);
    let mut times = Vec::new();
    for _ in 0..LONE {
        let asked = Instant::now();
        assert_eq!(client.call(call).await, Outcome::Served, "a lone call is served");
        times.push(asked.elapsed());
    }
    times.sort_unstable();
    times[LONE / 2].as_secs_f64() * 1e3
}

/// Asks and hangs up, by turns with a deadline over gRPC and by closing the connection of a REST request, until it is
/// dropped.
async fn abandon(
    address: SocketAddr,
    token: &str,
    clients: &[Client],
    calls: &[Call],
    abandoned: &mut usize,
) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        ticks.tick().await;
        let call = calls[*abandoned % calls.len()].clone();
        if (*abandoned).is_multiple_of(2) {
            let mut client = clients[*abandoned / 2 % clients.len()].clone();
            tokio::spawn(async move { client.call_within(&call, DEADLINE).await });
        } else {
            tokio::spawn(send_and_close(address, raw_request(address, token, &call)));
        }
        *abandoned += 1;
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
        // Where the service has closed it already, all is well, too.
        let _ = connection.write_all(&request).await;
    }
}
